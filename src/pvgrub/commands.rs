//! grub.cfg's commands that change nothing of how it runs: what finds devices, what loads, what
//! keeps variables. (GRUB 2 manual, "Commands")

use super::devices::{By, Files, Probe};
use super::scope::{Outside, Scope, place};
use super::script::Variables;
use crate::ext4::Kind;

/// What an environment block begins with. (GRUB 2 manual, "Environment block")
const BLOCK: &str = "# GRUB Environment Block\n";
/// Variables of an environment block at most.
const MAX_SAVED: usize = 256;

/// Commands that do what they should, as far as what boots depends on it.
const DONE: &[&str] = &[
    "insmod",
    "rmmod",
    "echo",
    "true",
    "sleep",
    "terminal_output",
    "terminal_input",
    "terminfo",
    "serial",
    "background_color",
    "clear",
    "cat",
    "ls",
    "play",
    "password",
    "password_pbkdf2",
    "list_env",
    "lsmod",
    "devicetree",
    "acpi",
    "read",
    "export_list",
    "cutmem",
    "gfxpayload",
    "hexdump",
    "videoinfo",
    "date",
    "setpci",
    "outb",
    "cpuid",
];

/// Commands that boot something else.
const OTHERS: &[(&[&str], &str)] = &[
    (
        &["multiboot", "multiboot2", "module", "module2", "xen_hypervisor", "xen_module"],
        "it boots Xen or another multiboot kernel",
    ),
    (&["chainloader", "legacy_kernel", "ntldr", "freedos"], "it starts another boot loader"),
    (&["fwsetup", "reboot", "halt"], "it boots nothing"),
    (&["legacy_configfile", "syslinux_configfile"], "it reads another loader's menu"),
];

/// Execute one. `None` if it is none of these, otherwise whether it did what it should.
pub(super) fn plain(
    outside: &Outside<'_>,
    name: &str,
    arguments: &[String],
    scope: &mut Scope,
) -> Option<bool> {
    let first = arguments.first().map_or("", String::as_str);
    Some(match name {
        name if DONE.contains(&name) => true,
        // No key is pressed; what is not known of a machine or a file is not so.
        "false" | "keystatus" | "authenticate" | "regexp" | "smbios" | "cmp" | "loopback"
        | "cryptomount" | "hashsum" | "parttool" | "hdparm" => false,
        "unset" => {
            arguments.iter().for_each(|name| drop(scope.variables.remove(name)));
            true
        }
        "export" => {
            let names = arguments.iter().map(|word| word.split_once('=').map_or(&**word, |w| w.0));
            scope.exported.extend(names.map(str::to_owned).take(1000));
            true
        }
        "increment" | "decrement" => count(first, if name == "increment" { 1 } else { -1 }, scope),
        "load_env" => load_env(outside, arguments, scope),
        "save_env" => save_env(outside, arguments, scope),
        "search" | "search.file" | "search.fs_uuid" | "search.fs_label" => {
            search(outside.files, name, arguments, scope)
        }
        "probe" => probe(outside.files, arguments, scope),
        // A font or a picture that is not there is none.
        "loadfont" | "background_image" => exists(outside.files, first, scope),
        "linux" | "linux16" | "linuxefi" => linux(outside.files, arguments, scope),
        "initrd" | "initrd16" | "initrdefi" => initrd(outside.files, arguments, scope),
        name => {
            let (_, why) = OTHERS.iter().find(|(names, _)| names.contains(&name))?;
            scope.entry.other = Some((*why).to_owned());
            true
        }
    })
}

/// Fedora's `increment` and `decrement`.
fn count(name: &str, by: i64, scope: &mut Scope) -> bool {
    let number = scope.get(name).parse::<i64>().unwrap_or(0).saturating_add(by);
    scope.put(name, number.to_string());
    true
}

fn exists(files: &dyn Files, path: &str, scope: &Scope) -> bool {
    let (device, path) = scope.locate(path);
    files.stat(&device, path).is_some_and(|(kind, _)| kind == Kind::File)
}

fn linux(files: &dyn Files, arguments: &[String], scope: &mut Scope) -> bool {
    let Some((path, arguments)) = arguments.split_first() else { return false };
    let found = exists(files, path, scope);
    // What can't be loaded leaves what was loaded, and says why if nothing was.
    if found || scope.entry.kernel.is_none() {
        let (place, path) = place(path, scope);
        scope.entry.place = place;
        scope.entry.kernel = Some(path);
        scope.entry.arguments =
            arguments.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        scope.entry.initrds.clear();
    }
    found
}

/// A word of a command line: one with a space in it is quoted, and what quotes is escaped.
fn quoted(word: &str) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some(c) = rest.chars().next() {
        let hex = rest.strip_prefix("\\x").and_then(|digits| digits.get(..2));
        let is_hex = hex.is_some_and(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()));
        if matches!(c, '\\' | '\'' | '"') && !is_hex {
            text.push('\\');
        }
        text.push(c);
        rest = &rest[c.len_utf8()..];
    }
    if word.contains(' ') { format!("\"{text}\"") } else { text }
}

fn initrd(files: &dyn Files, arguments: &[String], scope: &mut Scope) -> bool {
    if scope.entry.kernel.is_none() {
        return false;
    }
    let kernel = scope.entry.place.clone();
    let paths: Vec<&String> = arguments.iter().filter(|word| !word.starts_with("--")).collect();
    let named = |path: &&String| {
        let (place, plain) = place(path, scope);
        match (place == kernel, path.starts_with('(')) {
            (true, _) => plain,
            (false, true) => (*path).clone(),
            (false, false) => format!("({}){plain}", scope.get("root")),
        }
    };
    let initrds = paths.iter().map(named).collect();
    let found = paths.iter().all(|path| exists(files, path, scope));
    scope.entry.initrds = initrds;
    found
}

/// The options of a command, each with its argument, and the words that are none.
pub(super) type Options<'a> = (Vec<(&'a str, Option<&'a str>)>, Vec<&'a str>);

/// Take options apart: `valued` have an argument, joined by `=` or behind it. `set` has one if it
/// is joined, or if more than the word that the command needs follows.
pub(super) fn options<'a>(arguments: &'a [String], valued: &[&str]) -> Options<'a> {
    let (mut found, mut rest) = (Vec::new(), Vec::new());
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word.split_once('=') {
            _ if !word.starts_with('-') || word == "-" => rest.push(word),
            Some((name, value)) if word.starts_with("--") => found.push((name, Some(value))),
            _ if word == "--" => rest.extend(words.by_ref()),
            _ if valued.contains(&word) => found.push((word, words.next())),
            _ => found.push((word, None)),
        }
    }
    (found, rest)
}

/// The path of the environment block, of this option if it is given.
fn block_of(
    outside: &Outside<'_>,
    found: &[(&str, Option<&str>)],
    scope: &Scope,
) -> (String, String) {
    let file = found.iter().rfind(|(name, _)| matches!(*name, "-f" | "--file"));
    match file.and_then(|(_, path)| *path) {
        Some(path) => {
            let (device, path) = scope.locate(path);
            (device, path.to_owned())
        }
        None => outside.environment_file.clone(),
    }
}

fn load_env(outside: &Outside<'_>, arguments: &[String], scope: &mut Scope) -> bool {
    let (found, names) = options(arguments, &["-f", "--file"]);
    let file = block_of(outside, &found, scope);
    let variables = if file == outside.environment_file {
        // What the script has saved is in it, though it is written when something boots.
        let mut variables = outside.environment.clone();
        variables.extend(scope.saves.clone());
        variables
    } else {
        let text = outside.files.read(&file.0, &file.1);
        let Some(parsed) = text.and_then(|text| environment(&text)) else { return false };
        parsed
    };
    for (name, value) in variables {
        if names.is_empty() || names.contains(&name.as_str()) {
            scope.put(&name, value);
        }
    }
    true
}

/// What an environment block has: lines `NAME=VALUE` behind its first line, padded with `#`; a
/// backslash is doubled, and before a line's end keeps that. `None` if it is none.
pub fn environment(text: &str) -> Option<Variables> {
    let text = text.strip_prefix(BLOCK)?;
    let mut lines = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' => lines.push(String::new()),
            '\\' => lines.last_mut()?.extend(chars.next()),
            c => lines.last_mut()?.push(c),
        }
    }
    let variables = lines.iter().filter(|line| !line.starts_with('#'));
    let pairs = variables.filter_map(|line| line.split_once('='));
    Some(pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).take(MAX_SAVED).collect())
}

/// What is saved into the block beside the menu is remembered; another is the guest's alone.
fn save_env(outside: &Outside<'_>, arguments: &[String], scope: &mut Scope) -> bool {
    let (found, names) = options(arguments, &["-f", "--file"]);
    let (device, path) = block_of(outside, &found, scope);
    let there = outside.files.stat(&device, &path).is_some();
    if there && (device, path) == outside.environment_file {
        for name in names {
            if let Some(value) = scope.variables.get(name) {
                scope.saves.insert(name.to_owned(), value.clone());
            } else {
                scope.saves.insert(name.to_owned(), String::new());
            }
        }
    }
    there
}

/// `search --fs-uuid --set=root … NAME`: the variable is the device where it is found, and stays as
/// it is otherwise.
fn search(files: &dyn Files, command: &str, arguments: &[String], scope: &mut Scope) -> bool {
    const HINTS: [&str; 7] = [
        "-h",
        "--hint",
        "--hint-bios",
        "--hint-efi",
        "--hint-baremetal",
        "--hint-ieee1275",
        "--hint-arc",
    ];
    let (found, words) = options(arguments, &HINTS);
    let has = |names: [&str; 2]| found.iter().any(|(name, _)| names.contains(name));
    let hint = |(name, value): &(&'_ str, Option<&'_ str>)| {
        matches!(*name, "-h" | "--hint" | "--hint-bios").then_some(*value)?.map(str::to_owned)
    };
    let mut hints: Vec<String> = found.iter().filter_map(hint).collect();
    let (by, name, variable);
    if let Some(kind) = command.strip_prefix("search.") {
        // search.fs_uuid NAME VARIABLE [HINT…]
        by = match kind {
            "fs_uuid" => By::Uuid,
            "fs_label" => By::Label,
            _ => By::File,
        };
        name = words.first().copied();
        variable = words.get(1).copied();
        hints.extend(words.iter().skip(2).map(|&word| word.to_owned()));
    } else {
        by = match () {
            () if has(["--fs-uuid", "-u"]) => By::Uuid,
            () if has(["--label", "-l"]) => By::Label,
            () if has(["--file", "-f"]) => By::File,
            () => return false,
        };
        let set = found.iter().rfind(|(name, _)| matches!(*name, "--set" | "-s"));
        (name, variable) = match (set, &words[..]) {
            (Some((_, Some(value))), [name, ..]) => (Some(*name), Some(*value)),
            (Some((_, None)), [variable, name, ..]) => (Some(*name), Some(*variable)),
            (Some((_, None)), [name]) => (Some(*name), Some("root")),
            (_, [name, ..]) => (Some(*name), None),
            (_, []) => (None, None),
        };
    }
    let hints: Vec<&str> = hints.iter().map(|hint| hint.trim_end_matches(',')).collect();
    let Some(device) = name.and_then(|name| files.search(by, name, &hints)) else { return false };
    if let Some(variable) = variable {
        scope.put(variable, device);
    }
    true
}

/// `probe --set=NAME --fs-uuid DEVICE`
fn probe(files: &dyn Files, arguments: &[String], scope: &mut Scope) -> bool {
    let (found, words) = options(arguments, &["--set", "-s"]);
    let has = |names: [&str; 2]| found.iter().any(|(name, _)| names.contains(name));
    let what = match () {
        () if has(["--fs-uuid", "-u"]) => Probe::Uuid,
        () if has(["--label", "-l"]) => Probe::Label,
        () if has(["--fs", "-f"]) => Probe::FileSystem,
        () if has(["--partmap", "-p"]) => Probe::Table,
        () if has(["--part-uuid", "--part-uuid"]) => Probe::PartUuid,
        () => return false,
    };
    let set = found.iter().rfind(|(name, _)| matches!(*name, "--set" | "-s"));
    let device = words.first().map(|device| device.trim_matches(['(', ')']));
    let Some(value) = device.and_then(|device| files.probe(device, what)) else { return false };
    if let Some((_, Some(name))) = set {
        scope.put(name, value);
    }
    true
}
