//! What was asked for in the shape of EC2's service model, as a structure with what of it Spore
//! does.

use crate::error::{Code, Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A value as a structure. What the structure has not is refused by its name, unless it is an
/// option that is off, or one of `apart`, which somebody else reads.
///
/// # Errors
/// `UnsupportedOperation`: it asks for something that EC2 has and Spore has not.
/// `MissingParameter`, `InvalidParameterValue`.
pub fn read<T: DeserializeOwned>(value: &Value, apart: &[&str]) -> Result<T> {
    let mut ignored = Vec::new();
    let read = serde_ignored::deserialize(value, |path| ignored.push(path.to_string()));
    let read = read.map_err(|error: serde_json::Error| {
        let why = error.to_string();
        let code = match why.starts_with("missing field") {
            true => Code::MissingParameter,
            false => Code::InvalidParameterValue,
        };
        Error::refused(code, why)
    })?;
    let wanted = |path: &&String| {
        let value = path.split('.').try_fold(value, |value, part| match value {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?),
            value => value.get(part),
        });
        !apart.contains(&path.as_str()) && value.is_none_or(asks)
    };
    match ignored.iter().find(wanted) {
        None => Ok(read),
        Some(path) => {
            let shown: String = path.escape_debug().take(200).collect();
            let why = format!("the parameter {shown} asks for what Spore does not have");
            Err(Error::refused(Code::UnsupportedOperation, why))
        }
    }
}

/// Whether a value asks for anything: an option that is off does not.
fn asks(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::Object(members) => members.values().any(asks),
        Value::Array(list) => list.iter().any(asks),
        _ => true,
    }
}

/// What base64 text stands for, with or without line ends.
///
/// # Errors
/// It is none.
pub fn decoded(name: &str, text: &str) -> Result<Vec<u8>> {
    use base64::Engine;
    let text: String = text.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| {
        Error::refused(Code::InvalidParameterValue, format!("{name} is not in base64"))
    })
}
