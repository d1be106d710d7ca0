//! What commands of grub.cfg work on: variables, what was made with them, and what there is outside
//! of the script.

use super::devices::Files;
use super::menu::{Entry, Place, device, split_device};
use super::script::{Block, Variables};
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes that a variable may hold, and all of them; a script could double one with each line.
const MAX_VALUE: usize = 64 << 10;
const MAX_VALUES: usize = 1 << 20;
/// Variables at most.
pub const MAX_VARIABLES: usize = 1000;

/// What commands find outside of the script.
pub struct Outside<'a> {
    /// The environment block's variables.
    pub environment: &'a Variables,
    /// The device and the path of the file that it is in.
    pub environment_file: (String, String),
    /// The disk's files.
    pub files: &'a dyn Files,
}

/// An entry that was not executed yet.
#[derive(Clone, Debug)]
pub struct Item {
    pub title: String,
    pub id: Option<String>,
    pub submenu: bool,
    /// Where there are superusers, it is only for who knows a password.
    pub restricted: bool,
    /// `$1` and so on: the title, and what follows it.
    pub arguments: Vec<String>,
    pub body: Block,
}

/// Variables, and what was made with them: GRUB's environment context.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub variables: Variables,
    pub exported: BTreeSet<String>,
    pub arguments: Vec<String>,
    /// The last command did what it should.
    pub status: bool,
    /// The last command is none: GRUB says so, and takes it for done, negated or not.
    pub unknown: bool,
    /// What was loaded.
    pub entry: Entry,
    /// Variables that are to be saved.
    pub saves: BTreeMap<String, String>,
    /// Entries of the menu.
    pub items: Vec<Item>,
}

impl Scope {
    /// What a submenu, or another configuration file, sees of it.
    pub fn nested(&self) -> Self {
        let exported = self.variables.iter().filter(|(name, _)| self.exported.contains(*name));
        Self {
            variables: exported.map(|(n, v)| (n.clone(), v.clone())).collect(),
            exported: self.exported.clone(),
            status: true,
            saves: self.saves.clone(),
            ..Self::default()
        }
    }

    /// Set a variable, if there is room for it.
    pub fn put(&mut self, name: &str, value: String) {
        let old = self.variables.get(name).map(String::len);
        let all: usize = self.variables.values().map(String::len).sum();
        let room = (old.is_some() || self.variables.len() < MAX_VARIABLES)
            && value.len() <= MAX_VALUE
            && all - old.unwrap_or(0) + value.len() <= MAX_VALUES;
        if room {
            self.variables.insert(name.to_owned(), value);
        }
    }

    /// A variable's value; empty if it is not set.
    pub fn get(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// `NAME=VALUE`
    pub fn assign(&mut self, word: &str) -> bool {
        let Some((name, value)) = word.split_once('=') else { return false };
        self.put(name, value.to_owned());
        true
    }

    /// The device and the path that a path means.
    pub fn locate<'p>(&self, path: &'p str) -> (String, &'p str) {
        match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((name, rest)) if !name.is_empty() => (name.to_owned(), rest),
            Some((_, rest)) => (self.get("root").to_owned(), rest),
            None => (self.get("root").to_owned(), path),
        }
    }
}

/// The place that a path of an entry means, and the path there.
pub fn place(path: &str, scope: &Scope) -> (Place, String) {
    let (place, path) = split_device(path, 1);
    (place.unwrap_or_else(|| device(scope.get("root"), 1)), path.to_owned())
}
