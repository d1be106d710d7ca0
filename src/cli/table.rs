//! Tables: typed cells, which people read in as many columns as their terminal has, and programs as
//! CSV.

use crate::error::{Error, Result};
use crate::service::time;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// Most characters of a text that is not essential, on a terminal.
const MOST: usize = 24;
/// Fewest characters that a text is cut down to.
const LEAST: usize = 8;
/// Between two columns.
const GAP: usize = 2;

/// One result in all its forms.
#[derive(Clone, Debug)]
pub struct Table {
    /// The most important first: the last is the first to go where a terminal is too narrow.
    pub columns: Vec<Column>,
    /// Cells, each row as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
    /// What `-q` prints, a line each.
    pub ids: Vec<String>,
    /// What `-o json` and `-o yaml` print.
    pub json: Value,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// EC2's name, by which programs know it.
    pub field: &'static str,
    /// What people read above it.
    pub head: &'static str,
    /// Its texts may be cut: names, descriptions.
    pub text: bool,
}

impl Column {
    /// One that EC2 calls `field`.
    pub const fn new(field: &'static str, head: &'static str) -> Self {
        Self { field, head, text: false }
    }

    /// One of texts that anybody may have written, at any length.
    pub const fn text(field: &'static str, head: &'static str) -> Self {
        Self { field, head, text: true }
    }

    /// Whether it is called so.
    fn is(&self, name: &str) -> bool {
        [self.field, self.head].iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

impl From<&'static str> for Column {
    fn from(head: &'static str) -> Self {
        Self::new(head, head)
    }
}

/// What stands in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    None,
    /// As it is.
    Text(String),
    /// The id of something that people know by its name.
    Named {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// So many.
    Bytes(u64),
    /// RFC 3339, UTC.
    Time(String),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Self::None, Into::into)
    }
}

impl Cell {
    /// As a person reads it, at a moment if times are to be told from there.
    fn read(&self, now: Option<Duration>) -> String {
        match self {
            Self::None => "-".to_owned(),
            Self::Text(text) | Self::Named { name: text, .. } => text.clone(),
            Self::Bytes(bytes) => human_bytes(*bytes),
            Self::Time(text) => {
                let since = now.zip(time::parse(text)).map(|(now, then)| ago(now, then));
                since.unwrap_or_else(|| text.clone())
            }
        }
    }

    /// As a program reads it.
    fn raw(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(text) | Self::Named { id: text, .. } | Self::Time(text) => text.clone(),
            Self::Bytes(bytes) => bytes.to_string(),
        }
    }
}

impl Table {
    /// One whose cells are texts.
    pub fn of_texts(
        columns: Vec<&'static str>,
        rows: Vec<Vec<String>>,
        ids: Vec<String>,
        json: Value,
    ) -> Self {
        let columns = columns.into_iter().map(Column::from).collect();
        let rows = rows.into_iter().map(|row| row.into_iter().map(Cell::from).collect());
        Self { columns, rows: rows.collect(), ids, json }
    }

    /// With these columns only, in that order.
    ///
    /// # Errors
    /// There is none of such a name.
    pub fn with_columns(&self, names: &[String]) -> Result<Self> {
        let find = |name: &String| {
            let found = self.columns.iter().position(|column| column.is(name));
            found.ok_or_else(|| {
                let known: Vec<&str> = self.columns.iter().map(|column| column.field).collect();
                Error::usage(format!(
                    "there is no column '{}'; there are {}",
                    name.escape_debug(),
                    known.join(", ")
                ))
            })
        };
        let chosen = names.iter().map(find).collect::<Result<Vec<usize>>>()?;
        let row = |row: &Vec<Cell>| chosen.iter().map(|n| row[*n].clone()).collect();
        Ok(Self {
            columns: chosen.iter().map(|n| self.columns[*n]).collect(),
            rows: self.rows.iter().map(row).collect(),
            ..self.clone()
        })
    }

    /// Its rows as programs read them.
    pub fn raw(&self) -> impl Iterator<Item = Vec<String>> {
        self.rows.iter().map(|row| row.iter().map(Cell::raw).collect())
    }

    /// Left-aligned columns, two spaces between, nothing after the last. On a terminal of `width`
    /// characters times are told from now, long texts are cut, and the last columns left out until
    /// the others fit. `clean` is what may be shown of a text.
    pub fn aligned(&self, width: Option<usize>, clean: impl Fn(&str) -> String) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = width.map(|_| now);
        let head = self.columns.iter().map(|column| column.head.to_owned()).collect();
        let read = |row: &Vec<Cell>| row.iter().map(|cell| clean(&cell.read(now))).collect();
        let mut lines: Vec<Vec<String>> = vec![head];
        lines.extend(self.rows.iter().map(read));
        if let Some(width) = width {
            self.fit(&mut lines, width);
        }
        let widths = widths(&lines);
        let mut text = String::new();
        for line in &lines {
            let mut row = String::new();
            for (width, cell) in widths.iter().zip(line) {
                row.push_str(cell);
                let pad = width - cell.chars().count() + GAP;
                row.extend(std::iter::repeat_n(' ', pad));
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }

    /// Cuts texts and leaves out the last columns until lines fit. Of one column something stays.
    fn fit(&self, lines: &mut [Vec<String>], width: usize) {
        let total = |lines: &[Vec<String>]| {
            let widths = widths(lines);
            widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
        };
        let shorten = |lines: &mut [Vec<String>], most: usize| {
            for line in lines.iter_mut().skip(1) {
                for (cell, _) in line.iter_mut().zip(&self.columns).filter(|(_, c)| c.text) {
                    cut(cell, most);
                }
            }
        };
        if total(lines) > width {
            shorten(lines, MOST);
        }
        while total(lines) > width && lines.first().is_some_and(|head| head.len() > 2) {
            for line in lines.iter_mut() {
                line.pop();
            }
        }
        if total(lines) > width {
            shorten(lines, LEAST.max(MOST.saturating_sub(total(lines) - width)));
        }
    }
}

fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let mut widths = vec![0; lines.first().map_or(0, Vec::len)];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// Leaves so many characters of a text, the last of which says that there were more.
fn cut(text: &mut String, most: usize) {
    if text.chars().count() > most {
        *text = text.chars().take(most.saturating_sub(1)).chain(['…']).collect();
    }
}

/// How long ago it was, in the largest unit that there are two of.
fn ago(now: Duration, then: Duration) -> String {
    let Some(past) = now.checked_sub(then) else {
        // Another machine's clock may have set it, or it is a day to come.
        return format!("in {}", span(then.saturating_sub(now)));
    };
    format!("{} ago", span(past))
}

fn span(time: Duration) -> String {
    const UNITS: [(u64, &str); 4] =
        [(86_400 * 365, "years"), (86_400, "days"), (3600, "h"), (60, "min")];
    let seconds = time.as_secs();
    let unit = UNITS.iter().find(|(unit, _)| seconds >= 2 * unit);
    unit.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
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

    fn table(name: &str) -> Table {
        let row = |id: &str, name: &str| {
            let image = Cell::Named { id: "ami-1".into(), name: "debian".into() };
            let time = Cell::Time("2020-01-01T00:00:00.000Z".into());
            vec![id.into(), Cell::from(Some(name)), image, Cell::Bytes(3 << 29), time, Cell::None]
        };
        Table {
            columns: vec![
                Column::new("InstanceId", "INSTANCE"),
                Column::text("Name", "NAME"),
                Column::new("ImageId", "IMAGE"),
                Column::new("Memory", "MEMORY"),
                Column::new("LaunchTime", "LAUNCHED"),
                Column::new("Platform", "PLATFORM"),
            ],
            rows: vec![row("i-1", name), row("i-2", "b")],
            ids: vec!["i-1".into(), "i-2".into()],
            json: Value::Null,
        }
    }

    fn aligned(table: &Table, width: Option<usize>) -> String {
        table.aligned(width, str::to_owned)
    }

    #[test]
    fn a_table_in_a_pipe_is_as_wide_as_it_is() {
        let name = "x".repeat(60);
        let text = aligned(&table(&name), None);
        assert!(text.contains(&name) && text.contains("2020-01-01T00:00:00.000Z"), "{text}");
        assert_eq!(text.lines().next().unwrap().split_whitespace().count(), 6);
        assert_eq!(
            text.lines().nth(2).unwrap().split_whitespace().collect::<Vec<_>>(),
            ["i-2", "b", "debian", "1.5", "GiB", "2020-01-01T00:00:00.000Z", "-"]
        );
    }

    #[test]
    fn a_table_fits_its_terminal() {
        for width in [10, 20, 40, 60, 79, 80, 200] {
            let text = aligned(&table(&"name ".repeat(20)), Some(width));
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width.max(21), "{width}: {text}");
            assert!(text.starts_with("INSTANCE") && text.contains("i-2"), "{text}");
        }
        let text = aligned(&table("web"), Some(80));
        assert!(text.contains(" years ago") && text.contains("PLATFORM"), "{text}");
        let text = aligned(&table("web"), Some(40));
        assert!(!text.contains("LAUNCHED") && text.contains("MEMORY"), "{text}");
        // One long name does not widen every row.
        let text = aligned(&table(&"n".repeat(60)), Some(80));
        assert!(text.contains(&format!("{}…", "n".repeat(23))), "{text}");
    }

    #[test]
    fn columns_are_chosen_by_either_name() {
        let chosen = ["launched".to_owned(), "InstanceId".to_owned()];
        let table = table("web").with_columns(&chosen).unwrap();
        let rows: Vec<Vec<String>> = table.raw().collect();
        assert_eq!(rows[0], ["2020-01-01T00:00:00.000Z", "i-1"]);
        let error = table.with_columns(&["colour".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no column 'colour'; there are LaunchTime, InstanceId"
        );
    }

    #[test]
    fn programs_read_bytes_times_ids_and_nothing() {
        let row = table("web").raw().next().unwrap();
        assert_eq!(row, ["i-1", "web", "ami-1", "1610612736", "2020-01-01T00:00:00.000Z", ""]);
    }

    #[test]
    fn times_are_told_from_now() {
        let now = Duration::from_secs(1_000_000);
        for (before, reported) in [
            (0, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7199, "119 min ago"),
            (7200, "2 h ago"),
            (172_800, "2 days ago"),
        ] {
            assert_eq!(ago(now, now - Duration::from_secs(before)), reported);
        }
        assert_eq!(ago(now, now + Duration::from_secs(300)), "in 5 min");
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
