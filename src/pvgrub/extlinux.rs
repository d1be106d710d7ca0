//! SYSLINUX's configuration, as EXTLINUX reads it from the disk that it boots: extlinux.conf or
//! syslinux.cfg. (com32/elflink/ldlinux/readconfig.c and ldlinux.c in SYSLINUX 6; doc/syslinux.txt
//! and doc/menu.txt)
//!
//! A person who chooses is not there: a prompt and a menu end as if their time were over.

use super::devices::Files;
use super::menu::{Entry, MAX_ENTRIES, Menu, Place};

/// Bytes of a line; what follows is the next. (readconfig.c, MAX_LINE without the end of a string)
const MAX_LINE: usize = 4095;
/// Files that include one another, at most.
const MAX_DEPTH: u32 = 16;
/// Files that are included, at most.
const MAX_INCLUDED: u32 = 64;
/// Submenus at most.
const MAX_SUBMENUS: usize = 64;

/// The words that say what boots. (readconfig.c, kernel_types)
const KINDS: &[&str] = &[
    "kernel",
    "linux",
    "localboot",
    "boot",
    "bss",
    "pxe",
    "fdimage",
    "comboot",
    "com32",
    "config",
];
/// What a file is by the end of its name, where KERNEL names it. (ldlinux.c, parse_kernel_type())
const PROGRAMS: &[(&str, &str)] = &[
    (".c32", "it is a module of SYSLINUX"),
    (".cbt", "it is a module of SYSLINUX"),
    (".com", "it is a module of SYSLINUX"),
    (".0", "it is a boot program for networks"),
    (".bs", "it is a boot sector"),
    (".bss", "it is a boot sector"),
    (".bin", "it is a boot sector"),
    (".img", "it is a floppy disk"),
];

/// Where a configuration is.
pub struct Start<'a> {
    /// The device that it is on, as GRUB 2 calls it, e.g. `hd0,msdos1`.
    pub device: &'a str,
    /// Its directory, where paths begin; empty for the root.
    pub directory: &'a str,
}

/// Read a configuration. Nothing in it is an error: SYSLINUX passes over lines that it does not
/// know.
pub fn parse(text: &str, start: &Start<'_>, files: &dyn Files) -> Menu {
    let mut reader = Reader {
        start,
        files,
        included: 0,
        all: Configuration { submenus: vec![Submenu::default()], ..Configuration::default() },
        label: None,
        current: 0,
    };
    reader.file(text, 0);
    reader.record();
    reader.all.menu(start.directory)
}

/// A LABEL that is being read.
#[derive(Default)]
struct Label {
    name: String,
    /// What KERNEL or one of its relatives names, and which of these.
    kernel: String,
    kind: &'static str,
    append: Option<String>,
    initrd: Option<String>,
    title: Option<String>,
    is_default: bool,
    is_disabled: bool,
}

/// The top of the menu, or what is between MENU BEGIN and MENU END.
#[derive(Default)]
struct Submenu {
    parent: usize,
    tag: String,
    title: String,
    /// What is in front of its entries' numbers: its own, and those around it.
    prefix: String,
    /// Entries that it has.
    count: usize,
    /// The one that MENU DEFAULT names.
    default: Option<String>,
}

/// A label that has been read.
struct Recorded {
    entry: Entry,
    /// Everything behind the kernel's name.
    arguments: String,
    submenu: usize,
}

/// What a configuration says.
#[derive(Default)]
struct Configuration {
    labels: Vec<Recorded>,
    submenus: Vec<Submenu>,
    /// APPEND in front of all labels.
    append: Option<String>,
    /// What DEFAULT says, and UI.
    default: Option<String>,
    ui: Option<String>,
    /// PROMPT: a person is asked.
    prompts: bool,
    on_timeout: Option<String>,
    on_error: Option<String>,
}

struct Reader<'a> {
    start: &'a Start<'a>,
    files: &'a dyn Files,
    included: u32,
    all: Configuration,
    label: Option<Label>,
    /// The submenu that is being read.
    current: usize,
}

/// A word and what is behind it. (readconfig.c, skipspace() and my_isspace(): all that is no
/// character parts words)
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches(is_space);
    let end = text.find(is_space).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start_matches(is_space))
}

fn is_space(c: char) -> bool {
    c <= ' '
}

/// The lines of a file as fgets(3) gives them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| {
        let mut rest = line.split('\r').next().unwrap_or_default();
        std::iter::from_fn(move || {
            let mut end = rest.len().min(MAX_LINE);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, behind) = rest.split_at(end);
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        })
    })
}

impl Reader<'_> {
    fn file(&mut self, text: &str, depth: u32) {
        let mut lines = lines(text);
        while let Some(line) = lines.next() {
            let (key, rest) = word(line);
            match &*key.to_ascii_lowercase() {
                // Help for a person, up to its end.
                "text" => {
                    let ends = |line: &str| word(line).0.eq_ignore_ascii_case("endtext");
                    lines.by_ref().find(|line| ends(line));
                }
                "include" => self.include(rest, depth),
                "menu" => self.menu(rest, depth),
                key => self.command(key, rest),
            }
        }
    }

    fn command(&mut self, key: &str, rest: &str) {
        let text = || Some(rest.to_owned());
        match (key, &mut self.label) {
            ("label", _) => {
                self.record();
                let name = word(rest).0.to_owned();
                let kernel = name.clone();
                self.label = Some(Label { name, kernel, kind: "kernel", ..Label::default() });
            }
            ("append", Some(label)) => label.append = text(),
            ("append", None) => self.all.append = text(),
            ("initrd", Some(label)) => label.initrd = text(),
            ("default", _) => self.all.default = text(),
            ("ui", _) => self.all.ui = text(),
            ("prompt", _) => self.all.prompts = !rest.starts_with('0') && !rest.is_empty(),
            ("ontimeout", _) => self.all.on_timeout = text(),
            ("onerror", _) => self.all.on_error = text(),
            (key, Some(label)) => {
                if let Some(kind) = KINDS.iter().find(|kind| **kind == key) {
                    (label.kind, label.kernel) = (kind, rest.to_owned());
                }
            }
            // TIMEOUT, SAY, DISPLAY, SERIAL and what else is for a person; FDT and FDTDIR,
            // which other machines have.
            _ => {}
        }
    }

    fn menu(&mut self, text: &str, depth: u32) {
        let (key, rest) = word(text);
        match (&*key.to_ascii_lowercase(), &mut self.label) {
            ("label", Some(label)) => label.title = Some(rest.replace('^', "")),
            ("label" | "title", None) => {
                self.all.submenus[self.current].title = rest.replace('^', "");
            }
            ("default", Some(label)) => label.is_default = true,
            ("default", None) => {
                let (at, parent) = (self.current, self.all.submenus[self.current].parent);
                let own = self.all.submenus[at].prefix.trim_end_matches('>').to_owned();
                if at != parent {
                    self.all.submenus[parent].default = Some(own);
                }
            }
            ("disable" | "disabled" | "goto" | "exit" | "quit", Some(label)) => {
                label.is_disabled = true;
            }
            ("separator", _) => self.record(),
            ("begin", _) => self.begin(rest),
            ("end", _) => {
                self.record();
                self.current = self.all.submenus[self.current].parent;
            }
            ("include", _) => match word(rest) {
                (_, "") => self.include(rest, depth),
                (file, tag) => {
                    self.begin(tag);
                    self.include(file, depth);
                    self.record();
                    self.current = self.all.submenus[self.current].parent;
                }
            },
            _ => {}
        }
    }

    /// Begin a submenu.
    fn begin(&mut self, tag: &str) {
        self.record();
        let (parent, next) = (self.current, self.all.submenus.len());
        // More of them are as if they were not apart.
        if next >= MAX_SUBMENUS {
            return;
        }
        let around = &mut self.all.submenus[parent];
        let prefix = format!("{}{}>", around.prefix, around.count);
        around.count += 1;
        let tag = tag.to_owned();
        self.all.submenus.push(Submenu { parent, tag, prefix, ..Submenu::default() });
        self.current = next;
    }

    fn include(&mut self, text: &str, depth: u32) {
        if depth >= MAX_DEPTH || self.included >= MAX_INCLUDED {
            return;
        }
        self.included += 1;
        let path = path(self.start.directory, word(text).0);
        if let Some(text) = self.files.read(self.start.device, &path) {
            self.file(&text, depth + 1);
        }
    }

    /// Take the label that has been read.
    fn record(&mut self) {
        let Some(label) = self.label.take() else { return };
        if label.is_disabled || self.all.labels.len() >= MAX_ENTRIES {
            return;
        }
        let append = label.append.as_ref().or(self.all.append.as_ref());
        let append = append.map_or("", String::as_str);
        let mut arguments = if append == "-" { String::new() } else { append.to_owned() };
        if let Some(initrd) = &label.initrd {
            arguments.push_str(" initrd=");
            arguments.push_str(initrd);
        }
        let submenu = &mut self.all.submenus[self.current];
        let index = format!("{}{}", submenu.prefix, submenu.count);
        submenu.count += 1;
        if label.is_default {
            submenu.default = Some(index.clone());
        }
        let (kernel, options) = word(&label.kernel);
        let entry = Entry {
            index,
            title: label.title.unwrap_or_else(|| label.name.clone()),
            id: Some(label.name),
            kernel: Some(kernel.to_owned()),
            other: not_linux(label.kind, kernel),
            place: Place::Menu,
            ..Entry::default()
        };
        let arguments = format!("{options} {arguments}");
        self.all.labels.push(Recorded { entry, arguments, submenu: self.current });
    }
}

/// Why what KERNEL or a relative of it names is no kernel, if it is not.
fn not_linux(kind: &str, kernel: &str) -> Option<String> {
    let reason = match kind {
        "kernel" => {
            let ends = |(end, _): &&(&str, &str)| kernel.ends_with(end);
            PROGRAMS.iter().find(ends).map(|(_, what)| *what)
        }
        "linux" => None,
        "localboot" => Some("it boots another disk"),
        "config" => Some("it is another configuration"),
        "com32" | "comboot" => Some("it is a module of SYSLINUX"),
        _ => Some("it is a boot sector"),
    };
    reason.map(str::to_owned)
}

/// An absolute path of one that begins in a directory.
fn path(directory: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") }
}

/// Whether a command line starts a menu for a person, in which labels are chosen.
fn is_menu(line: &str) -> bool {
    let (program, _) = word(line);
    program.rsplit('/').next().is_some_and(|name| name.ends_with("menu.c32"))
}

impl Configuration {
    fn menu(mut self, directory: &str) -> Menu {
        let mut menu = Menu::default();
        for at in 0..self.labels.len() {
            let entry = self.entry(at, "", directory);
            menu.push(entry);
        }
        let asked = self.ui.clone().or_else(|| self.default.clone());
        let shows_menu = asked.as_deref().is_some_and(is_menu);
        // What asks a person ends with what ONTIMEOUT says; a menu else with the entry that it
        // begins at.
        let on_timeout = self.on_timeout.clone().filter(|_| shows_menu || self.prompts);
        let line = match (on_timeout, shows_menu) {
            (None, false) => asked.clone(),
            (None, true) => {
                self.default.clone().filter(|line| self.labelled(word(line).0).is_some())
            }
            (line, _) => line,
        };
        menu.default = match line {
            Some(line) => self.command_line(&line, directory, &mut menu),
            None => self.submenus[0].default.take(),
        };
        // (ldlinux.c, load_kernel())
        let instead = self.on_error.as_ref().and_then(|line| {
            let line = format!("{line} {}", asked.unwrap_or_default());
            self.command_line(&line, directory, &mut menu)
        });
        menu.fallback.extend(instead);
        menu
    }

    fn labelled(&self, name: &str) -> Option<usize> {
        self.labels.iter().position(|label| label.entry.id.as_deref() == Some(name))
    }

    /// The index of what a command line boots: a label, or with more words a copy of it with these;
    /// or a kernel by its file.
    fn command_line(&self, line: &str, directory: &str, menu: &mut Menu) -> Option<String> {
        let (name, more) = word(line);
        let mut entry = match self.labelled(name) {
            Some(at) if more.is_empty() => return Some(self.labels[at].entry.index.clone()),
            Some(at) => self.entry(at, more, directory),
            None if name.is_empty() => return None,
            None => {
                let (id, other) = (Some(name.to_owned()), not_linux("kernel", name));
                let kernel = Some(path(directory, name));
                with_arguments(Entry { id, kernel, other, ..Entry::default() }, more, directory)
            }
        };
        let top = &self.submenus[0];
        let made = menu.entries.len() - self.labels.len();
        (entry.index, entry.title) = ((top.count + made).to_string(), line.to_owned());
        entry.within.clear();
        let index = entry.index.clone();
        menu.push(entry);
        Some(index)
    }

    /// The entry of a label, with more words behind its own.
    fn entry(&self, at: usize, more: &str, directory: &str) -> Entry {
        let Recorded { entry, arguments, submenu } = &self.labels[at];
        let mut entry = entry.clone();
        entry.kernel = entry.kernel.map(|kernel| path(directory, &kernel));
        let mut around = *submenu;
        while around != 0 {
            let menu = &self.submenus[around];
            let title = if menu.title.is_empty() { &menu.tag } else { &menu.title };
            entry.within.insert(0, (title.clone(), Some(menu.tag.clone())));
            around = menu.parent;
        }
        with_arguments(entry, &format!("{arguments} {more}"), directory)
    }
}

/// An entry with its arguments, without those that name its initial ramdisk. (kernel.c,
/// new_linux_kernel(): the first counts)
fn with_arguments(mut entry: Entry, arguments: &str, directory: &str) -> Entry {
    let named = arguments.split(is_space).find_map(|word| word.strip_prefix("initrd="));
    let initrds = named.unwrap_or_default().split(',').filter(|name| !name.is_empty());
    entry.initrds = initrds.map(|name| path(directory, name)).collect();
    let kept = arguments.split(is_space).filter(|w| !w.is_empty() && !w.starts_with("initrd="));
    entry.arguments = kept.collect::<Vec<_>>().join(" ");
    entry
}

#[cfg(test)]
mod tests {
    use super::super::devices::{By, Probe};
    use super::*;
    use crate::ext4::Kind;

    /// Every file of that directory says this.
    struct Says<'a>(&'a str, &'a str);

    impl Files for Says<'_> {
        fn is_there(&self, _device: &str) -> bool {
            true
        }
        fn stat(&self, _device: &str, _path: &str) -> Option<(Kind, u64)> {
            Some((Kind::File, 1))
        }
        fn read(&self, _device: &str, path: &str) -> Option<String> {
            path.starts_with(self.0).then(|| self.1.to_owned())
        }
        fn names(&self, _device: &str, _path: &str) -> Vec<String> {
            Vec::new()
        }
        fn search(&self, _by: By, _text: &str, _hints: &[&str]) -> Option<String> {
            None
        }
        fn probe(&self, _device: &str, _what: Probe) -> Option<String> {
            None
        }
    }

    fn read(text: &str, files: &Says<'_>) -> Menu {
        parse(text, &Start { device: "hd0,msdos1", directory: "/boot/extlinux" }, files)
    }

    fn chosen(menu: &Menu) -> &Entry {
        &menu.entries[menu.candidates(None).unwrap()[0]]
    }

    #[test]
    fn a_label_is_an_entry_with_paths_from_where_the_file_is() {
        let text = "DEFAULT a\nLABEL a\n MENU LABEL ^Linux 6.1\n LINUX ../vmlinuz\n INITRD a.img,/b.img\n\
                    APPEND root=/dev/sda1 quiet\nLABEL b\n KERNEL chain.c32\nLABEL c\n LOCALBOOT 0\n";
        let menu = read(text, &Says("/", ""));
        let entry = chosen(&menu);
        assert_eq!((entry.title.as_str(), entry.id.as_deref()), ("Linux 6.1", Some("a")));
        assert_eq!(entry.kernel.as_deref(), Some("/boot/extlinux/../vmlinuz"));
        assert_eq!(entry.initrds, ["/boot/extlinux/a.img", "/b.img"]);
        assert_eq!(entry.arguments, "root=/dev/sda1 quiet");
        let others = menu.entries[1..].iter().map(|entry| entry.refused().unwrap().as_str());
        let reasons = ["it is a module of SYSLINUX", "it boots another disk"];
        assert_eq!(others.collect::<Vec<_>>(), reasons);
    }

    #[test]
    fn labels_of_submenus_have_titles_and_numbers_around_them() {
        let text = "DEFAULT deep\nLABEL a\nKERNEL k\nMENU BEGIN m\nMENU TITLE ^More\nMENU BEGIN n\n\
                    LABEL deep\nKERNEL k\nMENU END\nMENU END\nLABEL z\nKERNEL k\n";
        let menu = read(text, &Says("/", ""));
        let indices: Vec<_> = menu.entries.iter().map(|entry| entry.index.as_str()).collect();
        assert_eq!(indices, ["0", "1>0>0", "2"]);
        assert_eq!(chosen(&menu).full_title(), "More > n > deep");
        assert_eq!(menu.find("1"), Some(1));
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let text = "LABEL a\nKERNEL k\nINCLUDE self\nMENU INCLUDE self again\nINCLUDE self\n";
        let menu = read(text, &Says("/boot/extlinux/self", text));
        assert_eq!(menu.entries.len() as u32, 1 + MAX_INCLUDED);
        let begins = "MENU BEGIN x\n".repeat(10_000);
        let menu = read(&format!("{begins}LABEL a\nKERNEL k\n"), &Says("/", ""));
        assert!(menu.entries[0].within.len() < MAX_SUBMENUS);
        let long = format!("LABEL a\nKERNEL k\nAPPEND {}", "\u{e9}".repeat(10_000));
        assert!(read(&long, &Says("/", "")).entries[0].arguments.len() < MAX_LINE);
    }
}
