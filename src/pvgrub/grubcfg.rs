//! GRUB 2's grub.cfg: executed as GRUB executes it, short of what draws, waits or writes.
//! (GRUB 2 manual, "Commands"; util/grub.d in its sources)
//!
//! The script makes a list of entries. Only when all of it has run are these executed, each with a
//! copy of the variables as they are then, to find out what it would load: `set root` behind an
//! entry counts for it, as it does in GRUB.

pub use super::devices::{By, Files, Probe};
use super::grubtest;
use super::menu::{Entry, MAX_ENTRIES, Menu};
use super::scope::{Item, MAX_VARIABLES, Outside, Scope};
use super::script::{Block, Script, Statement, Values, Variables, Word};
use super::{blscfg, commands};
use std::collections::BTreeMap;

/// Most statements that are executed.
const MAX_STEPS: u32 = 200_000;
/// Commands within commands at most: blocks, functions, files.
const MAX_DEPTH: u32 = 100;
/// Files that are read at most.
const MAX_FILES: u32 = 200;

/// What grub.cfg is started with.
pub struct Start<'a> {
    /// The device that it is on, e.g. `hd0,msdos1`.
    pub device: &'a str,
    /// Its directory there.
    pub directory: &'a str,
    /// What the environment block beside it has.
    pub environment: &'a Variables,
}

/// A menu, and what was wrong with its script.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The menu.
    pub menu: Menu,
    /// What could not be understood, by line; the rest counts.
    pub problems: Vec<String>,
    /// It has read Boot Loader Specification entries.
    pub reads_entries: bool,
}

/// Execute the script `text`.
pub fn parse(text: &str, start: &Start<'_>, files: &dyn Files) -> Parsed {
    let mut run = Run {
        outside: Outside {
            environment: start.environment,
            environment_file: (start.device.to_owned(), format!("{}/grubenv", start.directory)),
            files,
        },
        functions: BTreeMap::new(),
        problems: Vec::new(),
        reads_entries: false,
        steps: MAX_STEPS,
        depth: 0,
        read: 0,
    };
    let mut scope = Scope::default();
    let prefix = format!("({}){}", start.device, start.directory);
    for (name, value) in [
        ("prefix", &*prefix),
        ("cmdpath", &prefix),
        ("config_directory", &prefix),
        ("config_file", &format!("{prefix}/grub.cfg")),
        ("root", start.device),
        ("grub_platform", "pc"),
        ("grub_cpu", "i386"),
    ] {
        scope.put(name, value.into());
        scope.exported.insert(name.into());
    }
    for name in FEATURES {
        scope.put(name, "y".into());
        scope.exported.insert(name.to_owned());
    }
    let menu = run.menu(text, &mut scope);
    Parsed { menu, problems: run.problems, reads_entries: run.reads_entries }
}

/// What this GRUB says that it can. (normal/main.c)
const FEATURES: [&str; 10] = [
    "feature_chainloader_bpb",
    "feature_ntldr",
    "feature_platform_search_hint",
    "feature_default_font_path",
    "feature_all_video_module",
    "feature_menuentry_id",
    "feature_menuentry_options",
    "feature_200_final",
    "feature_nativedisk_cmd",
    "feature_timeout_style",
];

/// Why what is being executed ends before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// So many loops, and whether the outermost of them goes on with its next turn.
    Loop(u32, bool),
    /// The function or the file.
    Return,
    /// All of it.
    Exit,
    /// What was loaded boots.
    Boot,
    /// Another menu is shown instead.
    Menu(Box<Menu>),
    /// It is too much.
    TooMuch,
}

struct Run<'a> {
    outside: Outside<'a>,
    functions: BTreeMap<String, Block>,
    problems: Vec<String>,
    reads_entries: bool,
    steps: u32,
    depth: u32,
    read: u32,
}

type Done = Result<(), Stop>;

impl Run<'_> {
    /// Execute a configuration file, and then each of its entries.
    fn menu(&mut self, text: &str, scope: &mut Scope) -> Menu {
        let ended = self.lines(text, scope);
        // Its entries are executed when it is read no more.
        scope.variables.remove("config_file");
        scope.variables.remove("config_directory");
        if let Err(Stop::Menu(menu)) = ended {
            return *menu;
        }
        let mut menu = Menu::default();
        if matches!(ended, Err(Stop::Boot)) {
            // It boots without having shown a menu.
            let title = "what the script boots".to_owned();
            scope.items.clear();
            menu.push(finished(Entry { index: "0".into(), title, ..scope.entry.clone() }));
        }
        self.entries(scope, "", &[], &mut menu);
        let value = |name: &str| Some(scope.get(name).to_owned()).filter(|value| !value.is_empty());
        menu.default = value("default");
        menu.fallback = value("fallback").map(|text| words_of_fallback(&text)).unwrap_or_default();
        menu.saves.clone_from(&scope.saves);
        menu
    }

    /// Execute a script, line by line. What can't be understood is told and left out.
    pub fn lines(&mut self, text: &str, scope: &mut Scope) -> Done {
        for line in Script::new(text) {
            match line {
                Ok(statements) => match self.statements(&statements, scope) {
                    Err(Stop::Loop(..)) => {}
                    ended => ended?,
                },
                Err(why) if self.problems.len() < 3 => self.problems.push(why),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Execute the entries of a menu, and add what they load.
    fn entries(
        &mut self,
        scope: &Scope,
        prefix: &str,
        within: &[(String, Option<String>)],
        menu: &mut Menu,
    ) {
        for (n, item) in scope.items.iter().enumerate() {
            let index = format!("{prefix}{n}");
            if menu.entries.len() >= MAX_ENTRIES {
                return;
            }
            let (title, id) = (item.title.clone(), item.id.clone());
            let empty = Entry { index, title, id, within: within.to_vec(), ..Entry::default() };
            let locked = item.restricted && scope.variables.contains_key("superusers");
            let fails = locked.then(|| "it takes a superuser's password".to_owned());
            let mut inner = if item.submenu { scope.nested() } else { scope.clone() };
            inner.items.clear();
            inner.saves.clear();
            inner.arguments.clone_from(&item.arguments);
            inner.put("chosen", empty.chosen());
            inner.exported.insert("chosen".into());
            let ended = self.statements(&item.body, &mut inner);
            if item.submenu {
                let within = [within, &[(item.title.clone(), item.id.clone())]].concat();
                let first = menu.entries.len();
                self.entries(&inner, &format!("{}>", empty.index), &within, menu);
                if fails.is_some() {
                    menu.entries[first..]
                        .iter_mut()
                        .for_each(|entry| entry.fails.clone_from(&fails));
                }
                continue;
            }
            let loaded = match ended {
                Err(Stop::Menu(other)) => from_another(*other),
                Err(Stop::TooMuch) => {
                    Entry { other: Some("it has too many commands".into()), ..inner.entry }
                }
                _ => Entry { saves: inner.saves, ..inner.entry },
            };
            let Entry { index, title, id, within, .. } = empty;
            menu.push(finished(Entry { index, title, id, within, fails, ..loaded }));
        }
    }

    /// Execute; the scope's status is the last command's.
    fn statements(&mut self, statements: &[Statement], scope: &mut Scope) -> Done {
        self.depth += 1;
        let done = if self.depth > MAX_DEPTH {
            Err(Stop::TooMuch)
        } else {
            statements.iter().try_for_each(|statement| self.statement(statement, scope))
        };
        self.depth -= 1;
        done
    }

    fn statement(&mut self, statement: &Statement, scope: &mut Scope) -> Done {
        self.steps = self.steps.checked_sub(1).ok_or(Stop::TooMuch)?;
        match statement {
            Statement::Command(words, block) => {
                let words = expanded(words, scope);
                match words.split_first() {
                    Some((name, arguments)) => self.command(name, arguments, block.as_ref(), scope),
                    None => Ok(()),
                }
            }
            Statement::If(branches, otherwise) => {
                for (condition, body) in branches {
                    self.statements(condition, scope)?;
                    if scope.status {
                        return self.statements(body, scope);
                    }
                }
                scope.status = true;
                self.statements(otherwise, scope)
            }
            Statement::For(words, body) => {
                let words = expanded(words, scope);
                let Some(("in", values)) = words.get(1).map(String::as_str).zip(words.get(2..))
                else {
                    return Ok(());
                };
                for value in values {
                    scope.put(&words[0], value.clone());
                    if self.turn(body, scope)? {
                        break;
                    }
                }
                Ok(())
            }
            Statement::While { until, condition, body } => loop {
                self.steps = self.steps.checked_sub(1).ok_or(Stop::TooMuch)?;
                self.statements(condition, scope)?;
                if scope.status == *until || self.turn(body, scope)? {
                    return Ok(());
                }
            },
            Statement::Function(name, body) => {
                let name = expanded(name, scope).concat();
                if self.functions.len() < MAX_VARIABLES {
                    self.functions.insert(name, body.clone());
                }
                Ok(())
            }
        }
    }

    /// A loop's turn; gives whether it was the last.
    fn turn(&mut self, body: &[Statement], scope: &mut Scope) -> Result<bool, Stop> {
        match self.statements(body, scope) {
            Ok(()) | Err(Stop::Loop(1, true)) => Ok(false),
            Err(Stop::Loop(1, false)) => Ok(true),
            Err(Stop::Loop(more, goes_on)) => Err(Stop::Loop(more - 1, goes_on)),
            Err(other) => Err(other),
        }
    }

    fn command(
        &mut self,
        name: &str,
        arguments: &[String],
        block: Option<&Block>,
        scope: &mut Scope,
    ) -> Done {
        let first = arguments.first().map_or("", String::as_str);
        let number = || first.parse::<u32>().unwrap_or(1).max(1);
        scope.unknown = false;
        match name {
            "!" => {
                if let Some((name, arguments)) = arguments.split_first() {
                    self.command(name, arguments, block, scope)?;
                }
                scope.status = !scope.status || scope.unknown;
                return Ok(());
            }
            "menuentry" | "submenu" => scope.status = item(name, arguments, block, scope),
            "set" => scope.status = first.is_empty() || scope.assign(first),
            "[" | "test" => {
                let exists = |path: &str| {
                    let (device, path) = scope.locate(path);
                    self.outside.files.stat(&device, path)
                };
                scope.status = grubtest::holds(name, arguments, &exists);
            }
            "source" | "." => return self.source(first, scope),
            "configfile" | "normal" if !first.is_empty() => return self.configfile(first, scope),
            "eval" => {
                let text = arguments.join(" ");
                return self.within(scope, |run, scope| run.lines(&text, scope));
            }
            "break" => return Err(Stop::Loop(number(), false)),
            "continue" => return Err(Stop::Loop(number(), true)),
            "return" => {
                scope.status = first.is_empty() || first == "0";
                return Err(Stop::Return);
            }
            "exit" | "normal_exit" => return Err(Stop::Exit),
            "boot" if scope.entry.kernel.is_some() || scope.entry.other.is_some() => {
                return Err(Stop::Boot);
            }
            "shift" => drop(scope.arguments.drain(..scope.arguments.len().min(number() as usize))),
            "setparams" => scope.arguments = arguments.to_vec(),
            "blscfg" => {
                let items = blscfg::items(self.outside.files, arguments, scope);
                self.reads_entries |= !items.is_empty();
                scope.items.extend(items);
                scope.status = true;
            }
            _ => match commands::plain(&self.outside, name, arguments, scope) {
                Some(status) => scope.status = status,
                None => match self.functions.get(name).cloned() {
                    Some(body) => return self.call(&body, arguments, scope),
                    None => {
                        scope.unknown = !scope.assign(name);
                        scope.status = true;
                    }
                },
            },
        }
        Ok(())
    }

    /// One level deeper, unless that is too deep.
    fn within(
        &mut self,
        scope: &mut Scope,
        inside: impl FnOnce(&mut Self, &mut Scope) -> Done,
    ) -> Done {
        self.depth += 1;
        let done = if self.depth > MAX_DEPTH { Err(Stop::TooMuch) } else { inside(self, scope) };
        self.depth -= 1;
        done
    }

    fn call(&mut self, body: &[Statement], arguments: &[String], scope: &mut Scope) -> Done {
        let outer = std::mem::replace(&mut scope.arguments, arguments.to_vec());
        let done = self.statements(body, scope);
        scope.arguments = outer;
        match done {
            Err(Stop::Return) => Ok(()),
            done => done,
        }
    }

    fn file(&mut self, path: &str, scope: &Scope) -> Option<String> {
        self.read += 1;
        let (device, path) = scope.locate(path);
        if self.read > MAX_FILES { None } else { self.outside.files.read(&device, path) }
    }

    /// Execute another file as if it stood here.
    fn source(&mut self, path: &str, scope: &mut Scope) -> Done {
        let Some(text) = self.file(path, scope) else {
            scope.status = false;
            return Ok(());
        };
        let outer = (scope.get("config_file").to_owned(), scope.get("config_directory").to_owned());
        configured(path, scope);
        scope.status = true;
        let done = self.within(scope, |run, scope| run.lines(&text, scope));
        scope.put("config_file", outer.0);
        scope.put("config_directory", outer.1);
        match done {
            Err(Stop::Return) => Ok(()),
            done => done,
        }
    }

    /// Show the menu of another file, if it has one; it sees what is exported.
    fn configfile(&mut self, path: &str, scope: &mut Scope) -> Done {
        let Some(text) = self.file(path, scope) else {
            scope.status = false;
            return Ok(());
        };
        let mut inner = scope.nested();
        configured(path, &mut inner);
        let mut menu = Menu::default();
        self.within(&mut inner, |run, inner| {
            menu = run.menu(&text, inner);
            Ok(())
        })?;
        scope.status = true;
        if menu.entries.is_empty() { Ok(()) } else { Err(Stop::Menu(Box::new(menu))) }
    }
}

/// Tell a file where it is.
fn configured(path: &str, scope: &mut Scope) {
    let (device, path) = scope.locate(path);
    let path = format!("({device}){path}");
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
    scope.put("config_directory", directory);
    scope.put("config_file", path);
}

fn expanded(words: &[Word], scope: &Scope) -> Vec<String> {
    let values =
        Values { variables: &scope.variables, arguments: &scope.arguments, status: scope.status };
    words.iter().flat_map(|word| word.expand(values)).collect()
}

/// What an entry loads that shows another menu: what that would boot.
fn from_another(menu: Menu) -> Entry {
    let order = menu.candidates(None).unwrap_or_default();
    let first = order.into_iter().find(|&at| menu.entries[at].refused().is_none());
    let saves = first.map(|at| menu.saved(at)).unwrap_or_default();
    match first.and_then(|at| menu.entries.into_iter().nth(at)) {
        Some(entry) => Entry { saves, ..entry },
        None => Entry {
            other: Some("it reads another menu, which boots nothing".into()),
            ..Entry::default()
        },
    }
}

fn finished(mut entry: Entry) -> Entry {
    if entry.other.is_none() || entry.kernel.is_some() {
        entry.other = super::not_linux(&entry);
    }
    entry
}

/// Numbers are separated by spaces; a title is one.
fn words_of_fallback(text: &str) -> Vec<String> {
    let numbers =
        text.split_whitespace().all(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    if numbers { text.split_whitespace().map(str::to_owned).collect() } else { vec![text.into()] }
}

/// `menuentry` or `submenu`: an entry of the scope's menu.
fn item(command: &str, arguments: &[String], block: Option<&Block>, scope: &mut Scope) -> bool {
    let (Some(body), true) = (block, scope.items.len() < MAX_ENTRIES) else { return false };
    let (mut title, mut id, mut rest, mut restricted) = (None, None, Vec::new(), true);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--id" => id = words.next().cloned(),
            "--class" | "--users" | "--hotkey" | "--source" => drop(words.next()),
            word if word.starts_with("--id=") => id = Some(word["--id=".len()..].to_owned()),
            "--unrestricted" => restricted = false,
            word if word.starts_with("--") => {}
            word => {
                title.get_or_insert_with(|| word.to_owned());
                rest.push(word.to_owned());
            }
        }
    }
    scope.items.push(Item {
        title: title.unwrap_or_default(),
        id,
        submenu: command == "submenu",
        restricted,
        arguments: rest,
        body: Block::clone(body),
    });
    true
}

#[cfg(test)]
#[path = "grubcfg_tests.rs"]
mod tests;
