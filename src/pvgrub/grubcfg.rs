//! GRUB 2's grub.cfg: what update-grub and grub2-mkconfig write is executed, short of what draws or waits.
//! (GRUB 2 manual, "Commands"; util/grub.d in its sources)

use super::menu::{Entry, MAX_ENTRIES, Menu, Place, Save, device, split_device};
use super::script::{self, Statement, Variables, Word};

/// Most statements that are executed.
const MAX_STEPS: u32 = 200_000;
/// Most bytes that variables may hold; a script could double one with each line.
const MAX_VALUE: usize = 64 << 10;
/// Variables at most.
const MAX_VARIABLES: usize = 1000;

/// What a script asks of the disk.
pub trait Files {
    /// Whether there is a file, or (`-d`) a directory; `nonempty`: and it has something in it.
    fn exists(&self, place: &Place, path: &str, nonempty: bool) -> bool;
}

/// Execute the script `text`, which lies in the directory `prefix`. `environment` is what grubenv has.
///
/// # Errors
/// It is no script, or too much of one.
pub fn parse(
    text: &str,
    prefix: &str,
    environment: &Variables,
    files: &dyn Files,
) -> Result<Menu, String> {
    let statements = script::parse(text)?;
    let mut variables = Variables::new();
    for (name, value) in [
        ("prefix", prefix),
        ("config_directory", prefix),
        ("grub_platform", "pc"),
        ("grub_cpu", "i386"),
        ("feature_menuentry_id", "y"),
        ("feature_menuentry_options", "y"),
        ("feature_platform_search_hint", "y"),
        ("feature_default_font_path", "y"),
        ("feature_all_video_module", "y"),
        ("feature_timeout_style", "y"),
        ("feature_200_final", "y"),
        ("feature_chainloader_bpb", "y"),
        ("feature_ntldr", "y"),
        ("feature_nativedisk_cmd", "y"),
    ] {
        variables.insert(name.into(), value.into());
    }
    let mut run = Run { environment, files, menu: Menu::default(), steps: MAX_STEPS };
    let mut level = Level { variables, place: Place::Menu, ..Level::default() };
    run.statements(&statements, &mut level, &mut None)?;
    let Run { mut menu, .. } = run;
    let value = |name: &str| level.variables.get(name).filter(|value| !value.is_empty());
    menu.default = value("default").cloned();
    menu.fallback = value("fallback").map(|text| words_of_fallback(text)).unwrap_or_default();
    Ok(menu)
}

/// Numbers are separated by spaces; a title is one.
fn words_of_fallback(text: &str) -> Vec<String> {
    let numbers =
        text.split_whitespace().all(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    if numbers { text.split_whitespace().map(str::to_owned).collect() } else { vec![text.into()] }
}

struct Run<'a> {
    environment: &'a Variables,
    files: &'a dyn Files,
    menu: Menu,
    steps: u32,
}

/// A menu, main or sub: its variables and how far it is counted.
#[derive(Clone, Default)]
struct Level {
    variables: Variables,
    place: Place,
    /// `1>` in the submenu with index 1.
    prefix: String,
    within: Vec<(String, Option<String>)>,
    entries: usize,
}

impl Run<'_> {
    /// Execute; the result is the last command's. In a `menuentry`, `entry` is what it becomes.
    fn statements(
        &mut self,
        statements: &[Statement],
        level: &mut Level,
        entry: &mut Option<Entry>,
    ) -> Result<bool, String> {
        let mut last = true;
        for statement in statements {
            self.steps = self.steps.checked_sub(1).ok_or("it has too many commands")?;
            last = match statement {
                Statement::Command(words, block) => {
                    self.command(words, block.as_deref(), level, entry)?
                }
                Statement::If(branches, otherwise) => {
                    let mut chosen = otherwise;
                    for (condition, body) in branches {
                        if self.statements(condition, level, entry)? {
                            chosen = body;
                            break;
                        }
                    }
                    self.statements(chosen, level, entry)?
                }
            };
        }
        Ok(last)
    }

    fn command(
        &mut self,
        words: &[Word],
        block: Option<&[Statement]>,
        level: &mut Level,
        entry: &mut Option<Entry>,
    ) -> Result<bool, String> {
        let words: Vec<String> = words.iter().flat_map(|w| w.expand(&level.variables)).collect();
        let Some((name, arguments)) = words.split_first() else { return Ok(true) };
        match (name.as_str(), block) {
            ("menuentry", Some(body)) => return self.menuentry(arguments, body, level),
            ("submenu", Some(body)) => return self.submenu(arguments, body, level),
            ("set" | "export", _) => {
                arguments.iter().for_each(|word| assign(word, level));
            }
            ("unset", _) => arguments.iter().for_each(|name| drop(level.variables.remove(name))),
            ("load_env", _) => {
                for (name, value) in self.environment {
                    put(name, value.clone(), level);
                }
            }
            ("[" | "test", _) => return Ok(self.test(arguments, level)),
            ("search" | "search.fs_uuid" | "search.fs_label", _) => search(name, arguments, level),
            // Boot Loader Specification entries (Fedora's blscfg) are looked for before any script is.
            ("insmod" | "blscfg" | "true" | "sleep" | "terminal_output" | "terminal_input", _) => {}
            ("savedefault", _) => {
                // As update-grub's function of this name: what was chosen for one boot is not.
                let once = level.variables.get("boot_once").is_some_and(|once| !once.is_empty());
                if let Some(entry) = entry.as_mut().filter(|_| !once) {
                    entry.save = Some(Save::Own);
                }
            }
            // What a submenu saves when it is opened, or an entry when it boots, is none that programs write.
            ("save_env", _) if entry.is_none() && level.prefix.is_empty() => {
                for name in arguments.iter().filter(|name| !name.starts_with('-')) {
                    let value = level.variables.get(name).cloned().unwrap_or_default();
                    self.menu.saves.insert(name.clone(), value);
                }
            }
            _ if name.contains('=') => assign(name, level),
            _ => {
                return Ok(entry.as_mut().is_some_and(|entry| load(entry, name, arguments, level)));
            }
        }
        Ok(true)
    }

    fn menuentry(
        &mut self,
        arguments: &[String],
        body: &[Statement],
        level: &mut Level,
    ) -> Result<bool, String> {
        let (title, id) = title(arguments);
        let index = format!("{}{}", level.prefix, level.entries);
        level.entries += 1;
        if self.menu.entries.len() >= MAX_ENTRIES {
            return Ok(true);
        }
        let within = level.within.clone();
        let mut entry = Some(Entry { index, title, id, within, ..Entry::default() });
        let mut inner = level.clone();
        self.statements(body, &mut inner, &mut entry)?;
        if let Some(mut entry) = entry {
            if entry.other.is_none() {
                entry.other = super::not_linux(&entry);
            }
            self.menu.push(entry);
        }
        Ok(true)
    }

    fn submenu(
        &mut self,
        arguments: &[String],
        body: &[Statement],
        level: &mut Level,
    ) -> Result<bool, String> {
        let (title, id) = title(arguments);
        let mut inner = level.clone();
        inner.prefix = format!("{}{}>", level.prefix, level.entries);
        inner.within.push((title, id));
        inner.entries = 0;
        level.entries += 1;
        self.statements(body, &mut inner, &mut None)
    }

    /// `[ … ]`: one test, or several joined by -a and -o from left to right.
    fn test(&self, arguments: &[String], level: &Level) -> bool {
        let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if words.last() == Some(&"]") {
            words.pop();
        }
        let mut holds = true;
        let mut or = false;
        for clause in words.split_inclusive(|word| matches!(*word, "-a" | "-o")) {
            let (clause, next_or) = match clause.split_last() {
                Some((&"-o", clause)) => (clause, true),
                Some((&"-a", clause)) => (clause, false),
                _ => (clause, false),
            };
            let one = self.one_test(clause, level);
            holds = if or { holds || one } else { holds && one };
            or = next_or;
        }
        holds
    }

    fn one_test(&self, words: &[&str], level: &Level) -> bool {
        let number = |text: &str| text.parse::<i64>().unwrap_or(0);
        let exists = |path: &str, nonempty| {
            let (place, path) = split_device(path, 1);
            self.files.exists(&place.unwrap_or_else(|| level.place.clone()), path, nonempty)
        };
        match words {
            ["!", rest @ ..] => !self.one_test(rest, level),
            [] => false,
            [one] => !one.is_empty(),
            ["-n", text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            ["-s", path] => exists(path, true),
            ["-f" | "-e" | "-d", path] => exists(path, false),
            [a, "=" | "==", b] => a == b,
            [a, "!=", b] => a != b,
            [a, "-eq", b] => number(a) == number(b),
            [a, "-ne", b] => number(a) != number(b),
            [a, "-lt", b] => number(a) < number(b),
            [a, "-le", b] => number(a) <= number(b),
            [a, "-gt", b] => number(a) > number(b),
            [a, "-ge", b] => number(a) >= number(b),
            _ => false,
        }
    }
}

fn assign(word: &str, level: &mut Level) {
    let Some((name, value)) = word.split_once('=') else { return };
    if name == "root" {
        level.place = device(value, 1);
    }
    put(name, value.to_owned(), level);
}

fn put(name: &str, value: String, level: &mut Level) {
    let room = level.variables.len() < MAX_VARIABLES || level.variables.contains_key(name);
    if room && value.len() <= MAX_VALUE {
        level.variables.insert(name.to_owned(), value);
    }
}

/// `search --fs-uuid --set=root … NAME`: the root device is where it is found.
fn search(command: &str, arguments: &[String], level: &mut Level) {
    let has = |names: &[&str]| arguments.iter().any(|word| names.contains(&word.as_str()));
    let mut name = None;
    let mut variable = "root";
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--hint" | "--hint-bios" | "--hint-efi" | "--hint-baremetal" | "--hint-ieee1275" => {
                words.next();
            }
            // Its argument is optional, and no name of a file system is ever written there.
            "--set" | "-s" => {
                let mut ahead = words.clone();
                if ahead.next().is_some_and(|next| !next.starts_with('-')) && ahead.next().is_some()
                {
                    variable = words.next().map_or("root", String::as_str);
                }
            }
            word if word.starts_with("--set=") => variable = &word["--set=".len()..],
            word if word.starts_with('-') => {}
            word if name.is_none() => name = Some(word),
            // search.fs_uuid NAME VARIABLE [HINT…]
            word if command.contains('.') => {
                variable = word;
                break;
            }
            _ => {}
        }
    }
    let Some(name) = name.filter(|_| variable == "root") else { return };
    if has(&["--fs-uuid", "-u"]) || command.ends_with("uuid") {
        level.place = Place::Uuid(name.to_owned());
    } else if has(&["--label", "-l"]) || command.ends_with("label") {
        level.place = Place::Label(name.to_owned());
    }
}

/// A menuentry's title and id.
fn title(arguments: &[String]) -> (String, Option<String>) {
    let (mut title, mut id) = (None, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--id" => id = words.next().cloned(),
            "--class" | "--users" | "--hotkey" | "--source" => drop(words.next()),
            word if word.starts_with("--id=") => id = Some(word["--id=".len()..].to_owned()),
            word if word.starts_with("--") => {}
            word if title.is_none() => title = Some(word.to_owned()),
            _ => {}
        }
    }
    (title.unwrap_or_default(), id)
}

/// A command that loads something. Gives whether it is one.
fn load(entry: &mut Entry, command: &str, arguments: &[String], level: &Level) -> bool {
    match command {
        "linux" | "linux16" | "linuxefi" => {
            let Some((path, arguments)) = arguments.split_first() else { return false };
            let (place, path) = split_device(path, 1);
            entry.place = place.unwrap_or_else(|| level.place.clone());
            entry.kernel = Some(path.to_owned());
            entry.arguments = arguments.join(" ");
        }
        "initrd" | "initrd16" | "initrdefi" => {
            let paths = arguments.iter().filter(|word| !word.starts_with("--"));
            entry.initrds = paths.map(|path| split_device(path, 1).1.to_owned()).collect();
        }
        "multiboot" | "multiboot2" | "module" | "module2" | "xen_hypervisor" | "xen_module" => {
            entry.other = Some("it boots Xen or another multiboot kernel".into());
        }
        "chainloader" => entry.other = Some("it starts another boot loader".into()),
        "configfile" | "source" | "." => entry.other = Some("it reads another menu".into()),
        "fwsetup" | "reboot" | "halt" => entry.other = Some("it boots nothing".into()),
        _ => return false,
    }
    true
}

#[cfg(test)]
#[path = "grubcfg_tests.rs"]
mod tests;
