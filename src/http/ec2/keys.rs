//! Key pairs.

use super::super::call::{Action, Call, decoded, json_of};
use crate::error::{Code, Error, Result};
use crate::record::key::{KeyPair, KeyType};
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("CreateKeyPair", create_key_pair),
    ("DeleteKeyPair", delete_key_pair),
    ("DescribeKeyPairs", describe_key_pairs),
    ("ImportKeyPair", import_key_pair),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    key_name: String,
    #[serde(default = "rsa")]
    key_type: KeyType,
    #[serde(default)]
    key_format: Option<String>,
}

/// EC2's default, which some clients can read only.
fn rsa() -> KeyType {
    KeyType::Rsa
}

fn create_key_pair(call: &Call<'_>) -> Result<Value> {
    let asked: Created = call.input()?;
    if asked.key_format.as_deref().is_some_and(|format| format != "pem") {
        let why = "a private key is given as pem here; puttygen makes ppk of that";
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    let tags = call.tags("key-pair", &["key-pair"])?;
    let (pair, private) = call.service.create_key_pair(&asked.key_name, asked.key_type, &tags)?;
    Ok(json!({
        "Tags": pair.tags,
        "KeyName": pair.key_name,
        "KeyFingerprint": pair.key_fingerprint,
        "KeyPairId": pair.key_pair_id,
        "KeyMaterial": private,
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Imported {
    key_name: String,
    public_key_material: String,
}

fn import_key_pair(call: &Call<'_>) -> Result<Value> {
    let asked: Imported = call.input()?;
    let tags = call.tags("key-pair", &["key-pair"])?;
    let bytes = decoded("PublicKeyMaterial", &asked.public_key_material)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::refused(Code::InvalidKeyFormat, "the public key is no text"))?;
    let pair = call.service.import_key_pair(&asked.key_name, &text, &tags)?;
    Ok(json!({
        "Tags": pair.tags,
        "KeyName": pair.key_name,
        "KeyFingerprint": pair.key_fingerprint,
        "KeyPairId": pair.key_pair_id,
    }))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    key_names: Vec<String>,
    key_pair_ids: Vec<String>,
    include_public_key: bool,
}

fn describe_key_pairs(call: &Call<'_>) -> Result<Value> {
    let asked: Described = call.input()?;
    let named = [asked.key_names, asked.key_pair_ids].concat();
    let described = |pair: &KeyPair| {
        let mut value = json_of(pair)?;
        if let (false, Some(value)) = (asked.include_public_key, value.as_object_mut()) {
            value.shift_remove("PublicKey");
        }
        Ok(value)
    };
    let found = call.service.describe_key_pairs(&named, &call.filters()?)?;
    Ok(json!({ "KeyPairs": found.iter().map(described).collect::<Result<Vec<_>>>()? }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deleted {
    #[serde(default)]
    key_name: Option<String>,
    #[serde(default)]
    key_pair_id: Option<String>,
}

fn delete_key_pair(call: &Call<'_>) -> Result<Value> {
    let asked: Deleted = call.input()?;
    let Some(named) = asked.key_pair_id.or(asked.key_name) else {
        let why = "The request must contain the parameter KeyName or KeyPairId";
        return Err(Error::refused(Code::MissingParameter, why));
    };
    match call.service.delete_key_pair(&named) {
        // As on EC2: what is gone is gone.
        Err(error) if error.code() == Some(Code::InvalidKeyPairNotFound) => {}
        done => done?,
    }
    Ok(json!({}))
}
