//! How results are printed: a table for people, JSON in EC2's shapes, YAML or CSV for programs.

use crate::error::{OrFail, Result, shown};
use clap::builder::{EnumValueParser, PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The output options that every command takes.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Output format
    #[arg(id = OutputArg::ID, short = 'o', long = "output", global = true, value_parser = OutputArg::format(), default_value = "table", value_name = "FORMAT")]
    output: OutputArg,
    /// Print ids only, one a line
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl OutputArgs {
    /// How results are printed.
    pub fn output(&self) -> Output {
        let format = match self.output {
            OutputArg::Format(format) => format,
            OutputArg::File(_) => Format::default(),
        };
        Output { format, quiet: self.quiet }
    }
}

/// What `-o` says: how the result is printed, or of a command whose result is a file, which that
/// is.
#[derive(Clone, Debug)]
pub enum OutputArg {
    /// In this format.
    Format(Format),
    /// Into this file.
    File(PathBuf),
}

impl OutputArg {
    /// The argument's id. A command's own one of that id takes the place of the global one, with
    /// its own parser.
    pub const ID: &str = "output";

    /// Reads a format.
    pub fn format() -> impl TypedValueParser<Value = Self> {
        EnumValueParser::new().map(Self::Format)
    }

    /// Reads a file's name.
    pub fn file() -> impl TypedValueParser<Value = Self> {
        PathBufValueParser::new().map(Self::File)
    }

    /// The file; `-` where there is none.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Format(_) => Path::new("-"),
        }
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    /// In which form.
    pub format: Format,
    /// Ids only, one a line.
    pub quiet: bool,
}

/// Output formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// The shapes and field names of the EC2 API
    Json,
    /// The same as JSON, in YAML
    Yaml,
    /// The table's columns, comma-separated, with a header (RFC 4180)
    Csv,
}

/// One result in all its forms.
#[derive(Clone, Debug)]
pub struct Table {
    /// Column heads.
    pub columns: Vec<&'static str>,
    /// Cells, each row as long as `columns`.
    pub rows: Vec<Vec<String>>,
    /// What `-q` prints, a line each.
    pub ids: Vec<String>,
    /// What `-o json` and `-o yaml` print.
    pub json: Value,
}

/// Print `table` on stdout in the format asked for.
///
/// # Errors
/// Stdout can't be written (a closed pipe is no error: the reader has seen enough).
pub fn emit(output: Output, table: &Table) -> Result<()> {
    write_stdout(&render(output, table)?)
}

/// Write bytes to stdout. A reader that has gone away is no error.
///
/// # Errors
/// Stdout can't be written for another reason.
pub fn write_stdout(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.or_fail(|| "write to standard output"),
    }
}

fn render(output: Output, table: &Table) -> Result<Vec<u8>> {
    if output.quiet {
        let lines: String = table.ids.iter().map(|id| format!("{}\n", clean(id))).collect();
        return Ok(lines.into_bytes());
    }
    match output.format {
        Format::Table => Ok(aligned(table).into_bytes()),
        Format::Json => {
            let text =
                serde_json::to_string_pretty(&table.json).or_fail(|| "write the result as JSON")?;
            Ok((escaped(&text) + "\n").into_bytes())
        }
        Format::Yaml => {
            let text =
                serde_yaml_ng::to_string(&table.json).or_fail(|| "write the result as YAML")?;
            match text.chars().all(|c| c == '\n' || shown(c) == c) {
                true => Ok(text.into_bytes()),
                // Not all of its styles can escape. What is JSON is YAML, too (YAML 1.2, section
                // 1.3).
                false => render(Output { format: Format::Json, ..output }, table),
            }
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&table.columns).or_fail(|| "write the result as CSV")?;
            for row in &table.rows {
                writer
                    .write_record(row.iter().map(|cell| clean(cell)))
                    .or_fail(|| "write the result as CSV")?;
            }
            writer.into_inner().or_fail(|| "write the result as CSV")
        }
    }
}

/// A text that anybody may have written, as it can't steer a terminal.
fn clean(text: &str) -> String {
    if text.chars().any(|c| shown(c) != c) {
        text.escape_debug().to_string()
    } else {
        text.to_owned()
    }
}

/// JSON that says the same and can't steer a terminal: serde escapes what JSON has to have escaped
/// and no more.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        // Between strings there are newlines only.
        if c == '\n' || shown(c) == c {
            text.push(c);
        } else {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

/// Left-aligned columns, two spaces between, nothing after the last. Control characters are shown
/// escaped: a name must not be able to steer the terminal.
fn aligned(table: &Table) -> String {
    let head = table.columns.iter().map(|c| (*c).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head)
        .chain(table.rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()))
        .collect();
    let mut widths = vec![0; table.columns.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (width, cell) in widths.iter().zip(line) {
            row.push_str(cell);
            let pad = width - cell.chars().count() + 2;
            row.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// The name that an enumeration has in JSON.
pub fn name(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Bytes as people read them: `512 B`, `196 KiB`, `1.5 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 10.0 && value.fract() >= 0.05);
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            columns: vec!["ID", "NAME"],
            rows: vec![
                vec!["ami-1".into(), "a, \"b\"".into()],
                vec!["ami-22".into(), "\u{1b}[2J".into()],
            ],
            ids: vec!["ami-1".into(), "ami-22".into()],
            json: serde_json::json!({"Images": [{"ImageId": "ami-1"}]}),
        }
    }

    fn text(format: Format, quiet: bool) -> String {
        String::from_utf8(render(Output { format, quiet }, &table()).unwrap()).unwrap()
    }

    #[test]
    fn a_table_is_aligned_and_its_cells_cannot_steer_the_terminal() {
        assert_eq!(
            text(Format::Table, false),
            "ID      NAME\nami-1   a, \"b\"\nami-22  \\u{1b}[2J\n"
        );
    }

    #[test]
    fn csv_is_quoted_and_json_keeps_the_shape() {
        assert!(text(Format::Csv, false).starts_with("ID,NAME\nami-1,\"a, \"\"b\"\"\"\n"));
        let json: Value = serde_json::from_str(&text(Format::Json, false)).unwrap();
        assert_eq!(json, table().json);
        let yaml: Value = serde_yaml_ng::from_str(&text(Format::Yaml, false)).unwrap();
        assert_eq!(yaml, table().json);
    }

    #[test]
    fn nothing_that_is_printed_steers_a_terminal() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{202e}\u{7f}\r\u{2028}b";
        let table = Table {
            columns: vec!["ID"],
            rows: vec![vec![hostile.into()]],
            ids: vec![hostile.into()],
            json: serde_json::json!({ "Images": [{ "Name": hostile }] }),
        };
        for format in [Format::Table, Format::Json, Format::Yaml, Format::Csv] {
            for quiet in [false, true] {
                let text = render(Output { format, quiet }, &table).unwrap();
                let text = String::from_utf8(text).unwrap();
                assert!(text.chars().all(|c| c == '\n' || shown(c) == c), "{text:?}");
                let back: Option<Value> = match format {
                    Format::Json => serde_json::from_str(&text).ok(),
                    Format::Yaml => serde_yaml_ng::from_str(&text).ok(),
                    _ => None,
                };
                assert!(quiet || back.is_none_or(|back| back == table.json), "{text:?}");
            }
        }
    }

    #[test]
    fn quiet_prints_ids_whatever_the_format() {
        assert_eq!(text(Format::Json, true), "ami-1\nami-22\n");
    }

    #[test]
    fn bytes_read_well() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (200_704, "196 KiB"),
            (3 << 29, "1.5 GiB"),
        ] {
            assert_eq!(human_bytes(bytes), expected);
        }
    }
}
