//! What the pages are made of: the templates, which the compiler checks, and their parts.

use super::mappings::VolumeRow;
use super::monitor::Charts;
use askama::Template;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// What is around each page.
pub struct Frame {
    /// Its heading.
    pub title: String,
    /// The section it is in, by its path.
    pub section: &'static str,
    /// The caller's account.
    pub account: String,
    /// The region at hand.
    pub region: String,
    /// What each form brings.
    pub csrf: String,
    /// What was done, with the object that it was done to.
    pub done: Option<Done>,
}

/// A message about what was done.
pub struct Done {
    /// What.
    pub text: &'static str,
    /// The object's id; may be empty.
    pub id: String,
    /// Where it is.
    pub href: String,
}

impl Frame {
    /// The sections: path and name.
    pub fn sections(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("", "Dashboard"),
            ("instances", "Instances"),
            ("images", "AMIs"),
            ("volumes", "Volumes"),
            ("snapshots", "Snapshots"),
            ("keys", "Key pairs"),
            ("networks", "Networks"),
            ("groups", "Security groups"),
            ("scaling", "Auto Scaling groups"),
            ("regions", "Regions"),
            ("usage", "Usage"),
            ("events", "Events"),
        ]
    }
}

/// One cell of a table.
#[derive(Default)]
pub struct Cell {
    /// Its text.
    pub text: String,
    /// Where it leads; nowhere if empty.
    pub href: String,
    /// The state that it shows, for its colour; none if empty.
    pub state: String,
}

impl Cell {
    /// Plain text.
    pub fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A member of a record, by a JSON pointer.
    pub fn at(record: &Value, pointer: &str) -> Self {
        Self::of(at(record, pointer))
    }

    /// A link.
    pub fn link(text: impl Into<String>, href: String) -> Self {
        Self { text: text.into(), href, ..Self::default() }
    }

    /// A member of a record: a link where it is an id, a state where it is one.
    pub fn shown(record: &Value, pointer: &str) -> Self {
        match (at(record, pointer), pointer) {
            (state, "/State" | "/State/Name" | "/Attachments/0/State") => Self::state(state),
            (text, _) => Self::known(text),
        }
    }

    /// A text: a link where it is the id of something that has a page.
    pub fn known(text: String) -> Self {
        match section_of(&text) {
            Some(section) => Self::link(text.clone(), format!("/console/{section}/{text}")),
            None => Self::of(text),
        }
    }

    /// A state.
    pub fn state(text: impl Into<String>) -> Self {
        let text = text.into();
        let plain = text.bytes().all(|c| c.is_ascii_lowercase() || c == b'-');
        Self { state: if plain { text.clone() } else { String::new() }, text, ..Self::default() }
    }
}

/// A member of a record as text, by a JSON pointer; `-` where there is none.
pub fn at(record: &Value, pointer: &str) -> String {
    match record.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        _ => "-".to_owned(),
    }
}

/// The value of a record's tag.
pub fn tag(record: &Value, key: &str) -> String {
    let tags = record["Tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    tags.iter().find(|tag| tag["Key"] == key).map_or_else(|| "-".to_owned(), |t| at(t, "/Value"))
}

/// Where what has that id is listed.
pub fn section_of(id: &str) -> Option<&'static str> {
    let prefixes = [
        ("i-", "instances"),
        ("ami-", "images"),
        ("vol-", "volumes"),
        ("snap-", "snapshots"),
        ("key-", "keys"),
        ("subnet-", "networks"),
        ("sg-", "groups"),
    ];
    let plain = |rest: &str| rest.len() >= 8 && rest.bytes().all(|c| c.is_ascii_hexdigit());
    let is = |prefix: &str| id.strip_prefix(prefix).is_some_and(plain);
    prefixes.iter().find(|(prefix, _)| is(prefix)).map(|(_, section)| *section)
}

/// A text as a part of an address's path.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string().replace("%2D", "-")
}

/// A row, and the object that it is of.
pub struct Row {
    /// The object's id.
    pub id: String,
    /// One for each column.
    pub cells: Vec<Cell>,
}

/// A table.
#[derive(Default)]
pub struct Table {
    /// What it is of.
    pub caption: &'static str,
    /// The columns' headings.
    pub columns: Vec<&'static str>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether its rows can be chosen.
    pub choose: bool,
}

/// The names that a page lists something under: address, text, whether it is this.
pub struct Tab {
    /// Where it leads.
    pub href: String,
    /// Its text.
    pub text: &'static str,
    /// Whether it is the one that is shown.
    pub here: bool,
}

/// The login page.
#[derive(Template)]
#[template(path = "login.html")]
pub struct Login {
    /// Why the last try came to nothing.
    pub refused: &'static str,
}

/// What was wrong.
#[derive(Template)]
#[template(path = "error.html")]
pub struct Wrong {
    /// Around it.
    pub frame: Frame,
    /// The error's code.
    pub code: String,
    /// What it says.
    pub message: String,
}

/// The dashboard.
#[derive(Template)]
#[template(path = "dashboard.html")]
pub struct Dashboard {
    /// Around it.
    pub frame: Frame,
    /// How many there are of what, and where they are listed.
    pub counts: Vec<(usize, &'static str, &'static str)>,
    /// The youngest instances.
    pub table: Table,
}

/// A list of objects.
#[derive(Template)]
#[template(path = "list.html")]
pub struct List {
    /// Around it.
    pub frame: Frame,
    /// Under which names.
    pub tabs: Vec<Tab>,
    /// What is searched for.
    pub search: String,
    /// What the search goes on with.
    pub keep: Vec<(&'static str, String)>,
    /// What may be done with what is chosen: action and name.
    pub actions: Vec<(&'static str, &'static str)>,
    /// The objects.
    pub table: Table,
    /// What can be made.
    pub forms: Vec<FormView>,
    /// What is said of all.
    pub hint: &'static str,
}

/// A form.
pub struct FormView {
    /// Where it is sent.
    pub to: String,
    /// Its heading.
    pub title: &'static str,
    /// What becomes of it.
    pub note: &'static str,
    /// Whether something is lost by it.
    pub danger: bool,
    /// What is asked.
    pub fields: Vec<FieldView>,
}

/// A field of a form.
pub struct FieldView {
    /// Its id in the page.
    pub id: String,
    /// Its name in the form.
    pub member: &'static str,
    /// What is written before it.
    pub label: &'static str,
    /// line, lines, number, check or one.
    pub kind: &'static str,
    /// Most characters of a line.
    pub most: u32,
    /// Whether it has to be filled in.
    pub required: bool,
    /// What it is filled in with.
    pub value: String,
    /// What can be chosen.
    pub choices: Vec<Choice>,
}

/// One object of any kind.
#[derive(Template)]
#[template(path = "object.html")]
pub struct Object {
    /// Around it.
    pub frame: Frame,
    /// Names and values.
    pub details: Vec<(&'static str, Cell)>,
    /// What it has.
    pub tables: Vec<Table>,
    /// What can be done to it.
    pub forms: Vec<FormView>,
    /// What is said of all.
    pub hint: &'static str,
}

/// What is asked before something is done that can't be undone.
#[derive(Template)]
#[template(path = "confirm.html")]
pub struct Confirm {
    /// Around it.
    pub frame: Frame,
    /// Where the form is sent.
    pub to: String,
    /// What becomes of it.
    pub note: &'static str,
    /// To what it is done.
    pub what: Vec<String>,
    /// The text of the button.
    pub button: &'static str,
    /// The form's fields.
    pub fields: Vec<(String, String)>,
}

/// One instance.
#[derive(Template)]
#[template(path = "instance.html")]
pub struct Instance {
    /// Around it.
    pub frame: Frame,
    /// Its id.
    pub id: String,
    /// Names and values.
    pub details: Vec<(&'static str, Cell)>,
    /// Its volumes.
    pub volumes: Table,
    /// Its tags.
    pub tags: Table,
    /// Whether it has a serial console that lives.
    pub running: bool,
    /// Its volumes, and others that an image of it may have.
    pub rows: Vec<VolumeRow>,
    /// What it has used.
    pub drawn: Charts,
    /// What its serial console has shown.
    pub console: String,
    /// What may be done.
    pub actions: Vec<(&'static str, &'static str)>,
}

/// One image.
#[derive(Template)]
#[template(path = "image.html")]
pub struct Image {
    /// Around it.
    pub frame: Frame,
    /// Its id.
    pub id: String,
    /// Whether it is the caller's.
    pub own: bool,
    /// Whether everybody may launch it.
    pub public: bool,
    /// The accounts that may.
    pub accounts: Vec<String>,
    /// What can be done to it.
    pub forms: Vec<FormView>,
    /// Names and values.
    pub details: Vec<(&'static str, Cell)>,
    /// Its devices.
    pub devices: Table,
    /// Its tags.
    pub tags: Table,
}

/// Something that can be chosen: value, text, whether it is.
pub struct Choice {
    /// What the form brings.
    pub value: String,
    /// What is shown.
    pub text: String,
    /// Whether it is chosen.
    pub chosen: bool,
}

impl Choice {
    /// One that is not chosen.
    pub fn of(value: &str, text: &str) -> Self {
        Self { value: value.to_owned(), text: text.to_owned(), chosen: false }
    }

    /// An object, by its id and its name.
    pub fn named(record: &Value, id: &str) -> Self {
        let (id, name) = (at(record, id), tag(record, "Name"));
        let text = if name == "-" { id.clone() } else { format!("{id} {name}") };
        Self { value: id, text, chosen: false }
    }
}

/// The launch wizard.
#[derive(Template)]
#[template(path = "launch.html")]
pub struct Launch {
    /// Around it.
    pub frame: Frame,
    /// Quick Start, My AMIs, AWS Marketplace, Community AMIs.
    pub tabs: Vec<Tab>,
    /// The images under that name.
    pub images: Vec<Choice>,
    /// The types.
    pub types: Vec<Choice>,
    /// The key pairs.
    pub keys: Vec<Choice>,
    /// The subnets.
    pub networks: Vec<Choice>,
    /// The security groups.
    pub groups: Vec<Choice>,
    /// The root volume, and others.
    pub rows: Vec<VolumeRow>,
}

/// What is about to be launched.
#[derive(Template)]
#[template(path = "review.html")]
pub struct Review {
    /// Around it.
    pub frame: Frame,
    /// Names and values.
    pub details: Vec<(&'static str, String)>,
    /// The command line that does the same.
    pub command: String,
    /// The form's fields.
    pub fields: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_it_is_listed() {
        assert_eq!(section_of("vol-0123456789abcdef0"), Some("volumes"));
        assert_eq!(section_of("i-\"><script>"), None);
        assert_eq!(section_of("web"), None);
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(escaped("web/../é?"), "web%2F%2E%2E%2F%C3%A9%3F");
        assert_eq!(escaped("i-0"), "i-0");
    }
}
