//! How results are printed: a table for people, JSON in EC2's shapes, YAML or CSV for programs.

pub use super::table::{Cell, Column, Table, human_bytes};
use crate::error::{Error, OrFail, Result, shown};
use clap::builder::{EnumValueParser, PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// The output options that every command takes.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Output format
    #[arg(id = OutputArg::ID, short = 'o', long = "output", global = true, help_heading = GLOBAL, display_order = 1000, value_parser = OutputArg::format(), default_value = "table", value_name = "FORMAT")]
    output: OutputArg,
    /// Print ids only, one a line
    #[arg(short, long, global = true, help_heading = GLOBAL, display_order = 1001)]
    quiet: bool,
    /// Of a table or CSV these columns only, in this order: their heads, or EC2's names, which are
    /// CSV's heads
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        display_order = 1002,
        value_name = "COLUMN[,COLUMN]",
        value_delimiter = ',',
        hide_short_help = true
    )]
    columns: Vec<String>,
}

/// What the options are under that every command takes.
pub const GLOBAL: &str = "Output options";

impl OutputArgs {
    /// How results are printed.
    pub fn output(&self) -> Output {
        let format = match self.output {
            OutputArg::Format(format) => format,
            OutputArg::File(_) => Format::default(),
        };
        let width = io::stdout().is_terminal().then(width).flatten();
        Output { format, quiet: self.quiet, columns: self.columns.clone(), width }
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

/// How many characters a line of the terminal has.
fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// How results are printed.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// In which form.
    pub format: Format,
    /// Ids only, one a line.
    pub quiet: bool,
    /// The columns of a table or of CSV; all without any.
    pub columns: Vec<String>,
    /// Characters of a line, on a terminal.
    pub width: Option<usize>,
}

impl Output {
    /// Whether people read it, and not programs.
    pub fn is_table(&self) -> bool {
        self.format == Format::Table && !self.quiet
    }
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
    /// Rows of comma-separated values under EC2's names (RFC 4180): bytes, times, empty for nothing
    Csv,
}

/// Print `table` on stdout in the format asked for.
///
/// # Errors
/// Stdout can't be written (a closed pipe is no error: the reader has seen enough).
pub fn emit(output: &Output, table: &Table) -> Result<()> {
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
        // Where it goes is nothing that Spore has a say in.
        result => result.map_err(|cause| {
            let remedy = "what it is redirected to has to take it";
            Error::failure(format!("cannot write to standard output: {cause}")).remedy(remedy)
        }),
    }
}

fn render(output: &Output, table: &Table) -> Result<Vec<u8>> {
    if output.quiet {
        let lines: String = table.ids.iter().map(|id| format!("{}\n", clean(id))).collect();
        return Ok(lines.into_bytes());
    }
    if !output.columns.is_empty() {
        let table = table.with_columns(&output.columns)?;
        return render(&Output { columns: Vec::new(), ..output.clone() }, &table);
    }
    match output.format {
        Format::Table => Ok(table.aligned(output.width, clean).into_bytes()),
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
                false => render(&Output { format: Format::Json, ..output.clone() }, table),
            }
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            let fields = table.columns.iter().map(|column| column.field);
            writer.write_record(fields).or_fail(|| "write the result as CSV")?;
            for row in table.raw() {
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
pub fn escaped(json: &str) -> String {
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

/// The name that an enumeration has in JSON.
pub fn name(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn table() -> Table {
        Table::of_texts(
            vec!["ID", "NAME"],
            vec![
                vec!["ami-1".into(), "a, \"b\"".into()],
                vec!["ami-22".into(), "\u{1b}[2J".into()],
            ],
            vec!["ami-1".into(), "ami-22".into()],
            serde_json::json!({"Images": [{"ImageId": "ami-1"}]}),
        )
    }

    fn text(format: Format, quiet: bool) -> String {
        String::from_utf8(render(&Output { format, quiet, ..Output::default() }, &table()).unwrap())
            .unwrap()
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
        let table = Table::of_texts(
            vec!["ID"],
            vec![vec![hostile.into()]],
            vec![hostile.into()],
            serde_json::json!({ "Images": [{ "Name": hostile }] }),
        );
        for format in [Format::Table, Format::Json, Format::Yaml, Format::Csv] {
            for quiet in [false, true] {
                let text = render(&Output { format, quiet, ..Output::default() }, &table).unwrap();
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
}
