//! What the commands on records share: filters by EC2's names, several targets, and the answer to a creation.

use super::filter::Filter;
use super::output::{self, Format, Table};
use super::ui::{Ui, report};
use crate::error::{Error, Result};
use crate::store::Record;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::ExitCode;

/// EC2's filter names and where their values are in the record: field names, dots between, arrays meaning any.
pub type Filters = &'static [(&'static str, &'static str)];

/// The records that pass all filters.
///
/// # Errors
/// A filter has a name that is not in `known` (nor `tag:KEY` or `tag-key`).
pub fn select<R: Serialize>(records: Vec<R>, filters: &[Filter], known: Filters) -> Result<Vec<R>> {
    let mut names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    names.extend(["tag:KEY", "tag-key"]);
    let path = |filter: &Filter| -> Result<String> {
        let known = known.iter().find(|(name, _)| *name == filter.name);
        match (known, filter.name.strip_prefix("tag:")) {
            (Some((_, path)), _) => Ok((*path).to_owned()),
            (None, Some(_)) => Ok(String::new()),
            (None, None) if filter.name == "tag-key" => Ok("Tags.Key".to_owned()),
            (None, None) => Err(filter.unknown(&names)),
        }
    };
    let paths = filters.iter().map(path).collect::<Result<Vec<_>>>()?;
    let passes = |record: &R| {
        let json = serde_json::to_value(record).unwrap_or_default();
        filters.iter().zip(&paths).all(|(filter, path)| {
            let values = match filter.name.strip_prefix("tag:") {
                Some(key) => tag_values(&json, key),
                None => values_at(&json, path),
            };
            filter.matches(values.iter().map(String::as_str))
        })
    };
    Ok(records.into_iter().filter(passes).collect())
}

fn tag_values(json: &Value, key: &str) -> Vec<String> {
    let tags = json["Tags"].as_array();
    let named = tags.into_iter().flatten().filter(|tag| tag["Key"].as_str() == Some(key));
    named.filter_map(|tag| tag["Value"].as_str().map(str::to_owned)).collect()
}

fn values_at(json: &Value, path: &str) -> Vec<String> {
    let (field, rest) = match path.split_once('.') {
        Some((field, rest)) => (field, Some(rest)),
        None => (path, None),
    };
    match (json, rest) {
        (Value::Array(items), _) => items.iter().flat_map(|item| values_at(item, path)).collect(),
        (Value::Object(fields), Some(rest)) => {
            fields.get(field).map(|value| values_at(value, rest)).unwrap_or_default()
        }
        (Value::Object(fields), None) => fields.get(field).map(text).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn text(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(text).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

/// Do `act` to each target. One that fails is told and does not keep the others from their turn; the exit code is the first failure's.
pub fn each(targets: &[String], mut act: impl FnMut(&str) -> Result<()>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let mut failed = false;
    for target in targets {
        if let Err(error) = act(target) {
            report(&error);
            if !failed {
                code = ExitCode::from(error.exit_code());
            }
            failed = true;
        }
    }
    code
}

/// Success, or the last of these errors after some of the others have been told.
pub fn finish(mut errors: Vec<Error>) -> Result<ExitCode> {
    const TOLD: usize = 8;
    let Some(last) = errors.pop() else { return Ok(ExitCode::SUCCESS) };
    for error in errors.iter().take(TOLD) {
        let _ = writeln!(io::stderr(), "spore: {error}");
    }
    if errors.len() > TOLD {
        let _ = writeln!(io::stderr(), "spore: ... and {} more", errors.len() - TOLD);
    }
    Err(last)
}

/// Tell the id of what was made: bare, or as EC2's answer `{"ImageId": …}`.
///
/// # Errors
/// Stdout can't be written.
pub fn made(ui: &Ui, field: &'static str, id: &str) -> Result<()> {
    if ui.output.quiet || ui.output.format == Format::Table {
        return output::write_stdout(format!("{id}\n").as_bytes());
    }
    output::emit(
        ui.output,
        &Table {
            columns: vec![field],
            rows: vec![vec![id.to_owned()]],
            ids: vec![id.to_owned()],
            json: json!({ field: id }),
        },
    )
}

/// Print the records that `targets` name in full: `{"Images": […]}`; as a table, a line for each field. If one of them is
/// not found that is told, and nothing is printed; the exit code is the first failure's.
///
/// # Errors
/// Stdout can't be written.
pub fn show<R: Record + Serialize>(
    ui: &Ui,
    field: &str,
    targets: &[String],
    resolve: impl Fn(&str) -> Result<R>,
) -> Result<ExitCode> {
    show_values(ui, field, targets, |text| {
        let record = resolve(text)?;
        Ok((record.id().to_string(), serde_json::to_value(&record).unwrap_or_default()))
    })
}

/// [`show`] of what `resolve` makes of a target: its id and its JSON.
///
/// # Errors
/// Stdout can't be written.
pub fn show_values(
    ui: &Ui,
    field: &str,
    targets: &[String],
    resolve: impl Fn(&str) -> Result<(String, Value)>,
) -> Result<ExitCode> {
    let mut found = Vec::new();
    let code = each(targets, |text| {
        found.push(resolve(text)?);
        Ok(())
    });
    if found.len() < targets.len() {
        return Ok(code);
    }
    let (ids, values): (Vec<String>, Vec<Value>) = found.into_iter().unzip();
    let mut rows = Vec::new();
    for (value, id) in values.iter().zip(&ids) {
        flatten(value, String::new(), &mut |name, text| {
            rows.push(vec![id.clone(), name, text]);
        });
    }
    output::emit(
        ui.output,
        &Table { columns: vec!["ID", "FIELD", "VALUE"], rows, ids, json: json!({ field: values }) },
    )?;
    Ok(code)
}

fn flatten(value: &Value, path: String, line: &mut dyn FnMut(String, String)) {
    let below = |name: &str| {
        if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(value, below(name), line);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(item, below(&index.to_string()), line);
            }
        }
        Value::String(text) => line(path, text.clone()),
        Value::Null => {}
        other => line(path, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_find_fields_lists_and_tags() {
        let records = vec![
            json!({"Name": "web", "Public": true, "Tags": [{"Key": "Env", "Value": "prod"}],
                   "Disks": [{"Ebs": {"Size": 1}}, {"Ebs": {"Size": 20}}]}),
            json!({"Name": "db", "Public": false, "Tags": []}),
        ];
        let known: Filters =
            &[("name", "Name"), ("is-public", "Public"), ("size", "Disks.Ebs.Size")];
        let count = |texts: &[&str]| {
            let filters: Vec<Filter> = texts.iter().map(|t| t.parse().unwrap()).collect();
            select(records.clone(), &filters, known).map(|found| found.len())
        };
        assert_eq!(count(&[]).unwrap(), 2);
        assert_eq!(count(&["name=w*,db"]).unwrap(), 2);
        assert_eq!(count(&["is-public=true", "name=db"]).unwrap(), 0);
        assert_eq!(count(&["size=20"]).unwrap(), 1);
        assert_eq!(count(&["tag:Env=prod"]).unwrap(), 1);
        assert_eq!(count(&["tag-key=E*"]).unwrap(), 1);
        assert!(count(&["colour=red"]).unwrap_err().to_string().contains("is-public"));
    }
}
