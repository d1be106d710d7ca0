//! What the commands share: several targets of which some may fail, and the answer to a creation.

use super::output::{self, Format, Table};
use super::ui::{Ui, say};
use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Do `act` to each target. One that fails is told and does not keep the others from their turn;
/// the exit code is the first failure's.
pub fn each(ui: &Ui, targets: &[String], mut act: impl FnMut(&str) -> Result<()>) -> ExitCode {
    reported(ui, targets.iter().map(|target| act(target)))
}

/// Tell of each failure; the exit code is the first one's.
pub fn reported(ui: &Ui, results: impl IntoIterator<Item = Result<()>>) -> ExitCode {
    let mut code = None;
    for error in results.into_iter().filter_map(Result::err) {
        ui.report(&error);
        code.get_or_insert(ExitCode::from(error.exit_code()));
    }
    code.unwrap_or(ExitCode::SUCCESS)
}

/// Success, or the last of these errors after some of the others have been told.
pub fn finish(ui: &Ui, mut errors: Vec<Error>) -> Result<ExitCode> {
    const TOLD: usize = 8;
    let Some(last) = errors.pop() else { return Ok(ExitCode::SUCCESS) };
    for error in errors.iter().take(TOLD) {
        ui.report(error);
    }
    if errors.len() > TOLD {
        say(format_args!("... and {} more", errors.len() - TOLD));
    }
    Err(last)
}

/// Tell the id of what was made: bare, or as EC2's answer `{"ImageId": …}`.
///
/// # Errors
/// Stdout can't be written.
pub fn made(ui: &Ui, field: &'static str, id: &str) -> Result<()> {
    whole(ui, field, id, json!({ field: id }))
}

/// Tell the id of an object: bare, or EC2's answer that has it.
///
/// # Errors
/// Stdout can't be written.
pub fn whole(ui: &Ui, field: &'static str, id: &str, answer: impl Serialize) -> Result<()> {
    if ui.output.quiet || ui.output.format == Format::Table {
        return output::write_stdout(format!("{id}\n").as_bytes());
    }
    output::emit(
        &ui.output,
        &Table::of_texts(
            vec![field],
            vec![vec![id.to_owned()]],
            vec![id.to_owned()],
            json!(answer),
        ),
    )
}

/// Delete each target. People hear nothing of one that is gone, programs EC2's answer.
///
/// # Errors
/// Stdout can't be written.
pub fn delete(
    ui: &Ui,
    targets: &[String],
    mut act: impl FnMut(&str) -> Result<()>,
) -> Result<ExitCode> {
    deleted(ui, targets, targets.iter().map(|target| act(target)))
}

/// Tell what became of each target that was to be deleted.
///
/// # Errors
/// Stdout can't be written.
pub fn deleted(
    ui: &Ui,
    targets: &[String],
    results: impl IntoIterator<Item = Result<()>>,
) -> Result<ExitCode> {
    let silent = ui.output.format == Format::Table && !ui.output.quiet;
    let results = targets.iter().zip(results).map(|(target, result)| match result {
        Ok(()) if silent => Ok(()),
        // EC2's API answers so where its tools show nothing (DeleteVolume, DeleteSnapshot).
        Ok(()) => whole(ui, "Return", target, json!({ "Return": true })),
        Err(error) => Err(error),
    });
    Ok(reported(ui, results))
}

/// Print the records that `targets` name in full: `{"Images": […]}`; as a table, a line for each
/// field. If one of them is not found that is told, and nothing is printed; the exit code is the
/// first failure's.
///
/// # Errors
/// Stdout can't be written.
pub fn show<R: Serialize>(
    ui: &Ui,
    field: &str,
    targets: &[String],
    id: impl Fn(&R) -> String,
    describe: impl Fn(Vec<String>) -> Result<Vec<R>>,
) -> Result<ExitCode> {
    let mut found = Vec::new();
    let code = each(ui, targets, |text| {
        found.extend(describe(vec![text.to_owned()])?);
        Ok(())
    });
    if found.len() < targets.len() {
        return Ok(code);
    }
    let ids: Vec<String> = found.iter().map(id).collect();
    let values = found.iter().map(|record| serde_json::to_value(record).unwrap_or_default());
    let values: Vec<Value> = values.collect();
    let mut rows = Vec::new();
    for (value, id) in values.iter().zip(&ids) {
        flatten(value, String::new(), &mut |name, text| {
            rows.push(vec![id.clone(), name, text]);
        });
    }
    output::emit(
        &ui.output,
        &Table::of_texts(vec!["ID", "FIELD", "VALUE"], rows, ids, json!({ field: values })),
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
