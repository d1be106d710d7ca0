//! GRUB 2's command `blscfg`: Boot Loader Specification entries as GRUB reads them, each of which
//! becomes an entry's script. (grub-core/commands/blsuki.c in GRUB 2.14, and the command of the
//! same name in Fedora's patches)

use super::devices::Files;
use super::menu::MAX_ENTRIES;
use super::scope::{Item, Scope};
use super::script::{Script, Variables};
use std::cmp::Ordering;

/// What the files' names end with.
const CONF: &str = ".conf";

/// A file, and what it says: keys and values in their order.
struct Snippet {
    /// Its name.
    file: String,
    keys: Vec<(String, String)>,
}

impl Snippet {
    /// A line that is empty or has no value ends it.
    fn new(file: String, text: &str) -> Self {
        let blanks = [' ', '\t'];
        let text = text.replace('\r', "");
        let mut keys = Vec::new();
        for line in text.split('\n').map(|line| line.trim_start_matches(blanks)) {
            if line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once(blanks) else { break };
            let value = value.trim_start_matches(blanks);
            if value.is_empty() {
                break;
            }
            keys.push((key.to_owned(), value.to_owned()));
        }
        Self { file, keys }
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.keys.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of a key counts.
    fn first(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// What the entry executes, if it loads a kernel.
    fn source(&self, variables: &Variables) -> Option<String> {
        let mut lines = Vec::new();
        let wanted = |name: &str| {
            let value = variables.get(name).map_or("", String::as_str);
            !["", "0", "false", "disable", "no"].contains(&value)
        };
        if wanted("blsuki_save_default") || wanted("save_default") {
            lines.push("savedefault".to_owned());
        }
        let options = self.first("options").and_then(|text| expand(text, variables));
        // Fedora's, for entries of a kernel that was built on the machine.
        let options = options.or_else(|| variables.get("default_kernelopts").cloned());
        let options = options.map(|options| format!(" {options}")).unwrap_or_default();
        lines.push(format!("linux {}{options}", self.first("linux")?));
        let initrds: Vec<&str> = self.all("initrd").collect();
        if !initrds.is_empty() {
            lines.push(format!("initrd {}", initrds.join(" ")));
        }
        Some(lines.join("\n"))
    }

    fn item(&self, variables: &Variables) -> Option<Item> {
        let source = self.source(variables)?;
        let title = self.first("title").or_else(|| self.first("linux"))?.to_owned();
        let arguments = std::iter::once(title.as_str()).chain(self.all("grub_arg"));
        Some(Item {
            arguments: arguments.map(str::to_owned).collect(),
            id: Some(self.file.strip_suffix(CONF).unwrap_or(&self.file).to_owned()),
            submenu: false,
            restricted: self.first("grub_users").and_then(|text| expand(text, variables)).is_some(),
            body: Script::new(&source).filter_map(Result::ok).flatten().collect(),
            title,
        })
    }

    /// Whether `default` means it, which is the one at `at`.
    fn is_default(&self, default: &str, at: usize) -> bool {
        !default.is_empty()
            && (self.file == default
                || self.first("title") == Some(default)
                || default.parse() == Ok(at))
    }
}

/// Variables of a value. What is behind one is a space, and a piece of one character before a
/// variable or at the end is lost, as GRUB has it; nothing at all if a variable that is not set
/// begins it and another one follows. (blsuki.c, blsuki_expand_val())
fn expand(value: &str, variables: &Variables) -> Option<String> {
    let chars: Vec<char> = value.chars().collect();
    let mut out: Option<String> = None;
    let append = |out: &mut Option<String>, variable: bool, from: usize, to: usize| {
        let piece: String = chars.get(from..to + 1).unwrap_or_default().iter().collect();
        let found = if variable { variables.get(&piece) } else { Some(&piece) };
        if let Some(found) = found {
            let out = out.get_or_insert_default();
            out.push_str(found);
            out.push_str(if variable { " " } else { "" });
        }
    };
    let (mut start, mut end, mut variable) = (0, 0, false);
    for (at, c) in chars.iter().enumerate() {
        if *c == '$' {
            if start != end {
                append(&mut out, variable, start, end);
                out.as_ref()?;
            }
            (variable, start) = (true, at + 1);
        } else if variable && !c.is_ascii_alphanumeric() && *c != '_' {
            append(&mut out, true, start, end);
            (variable, start) = (false, at + usize::from(*c == ' '));
        }
        end = at;
    }
    if start != end {
        append(&mut out, variable, start, end);
    }
    out
}

/// What is shown of the entries.
struct Shown<'a> {
    default: bool,
    others: bool,
    /// One file's.
    file: Option<&'a str>,
}

/// `blscfg`: the entries below `loader/entries`, with the script's variables set in. In `$blsdir`,
/// on the device `$boot` or the root; with `default` or `non-default`, that of these only, as
/// Fedora has it, or by GRUB's own options.
pub(super) fn items(files: &dyn Files, arguments: &[String], scope: &Scope) -> Vec<Item> {
    let (options, words) = super::commands::options(arguments, &["-p", "--path", "-e", "--entry"]);
    let has = |names: [&str; 2]| options.iter().any(|(name, _)| names.contains(name));
    let value = |names: [&str; 2]| options.iter().rfind(|(name, _)| names.contains(name))?.1;
    let file = value(["-e", "--entry"]);
    let (default, others) = match words.first() {
        Some(&"default") => (true, false),
        Some(&"non-default") => (false, true),
        _ => (has(["-d", "--show-default"]), has(["-n", "--show-non-default"])),
    };
    let all = !default && !others && file.is_none();
    let shown = Shown { default: default || all, others: others || all, file };
    let path = words.iter().copied().find(|word| word.starts_with(['(', '/']));
    let path = path.or_else(|| value(["-p", "--path"])).filter(|path| path.starts_with(['(', '/']));
    let found = found(files, path, has(["-f", "--enable-fallback"]), scope);
    let fedoras = ["default", "non-default"].map(|word| words.first() == Some(&word));
    let wanted = match scope.get("default") {
        "" if fedoras.contains(&true) => match scope.get("saved_entry") {
            "" => "0",
            saved => saved,
        },
        default => default,
    };
    let is_default = |at: usize, snippet: &Snippet| {
        let id = snippet.file.strip_suffix(CONF);
        snippet.is_default(wanted, at) || (fedoras.contains(&true) && id == Some(wanted))
    };
    let numbered =
        found.iter().enumerate().filter(|(at, snippet)| match is_default(*at, snippet) {
            _ if shown.file == Some(&*snippet.file) => true,
            true => shown.default,
            false => shown.others,
        });
    numbered.filter_map(|(_, snippet)| snippet.item(&scope.variables)).take(MAX_ENTRIES).collect()
}

/// The entries' files, the newest first.
fn found(files: &dyn Files, path: Option<&str>, fallback: bool, scope: &Scope) -> Vec<Snippet> {
    let set = |name: &str| Some(scope.get(name)).filter(|value| !value.is_empty());
    let device = set("boot").or_else(|| set("root")).unwrap_or_default();
    let device = device.trim_matches(['(', ')']);
    // Where /boot is no file system of its own, entries are below it.
    let usual = ["/loader/entries", "/boot/loader/entries"].map(|path| (device.to_owned(), path));
    let mut directories: Vec<(String, &str)> = Vec::new();
    match path.map(|path| scope.locate(path)) {
        Some((device, path)) if path.ends_with(CONF) => {
            let name = path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned();
            let text = files.read(&device, path);
            return text.map(|text| Snippet::new(name, &text)).into_iter().collect();
        }
        Some(wanted) => {
            directories.push(wanted);
            directories.extend(usual.into_iter().take(usize::from(fallback)));
        }
        None => {
            directories.extend(set("blsdir").map(|path| (device.to_owned(), path)));
            directories.extend(usual);
        }
    }
    let read = |(device, directory): &(String, &str)| -> Vec<Snippet> {
        let directory = directory.trim_end_matches('/');
        let names = files.names(device, directory).into_iter();
        let text = |name: String| {
            let text = files.read(device, &format!("{directory}/{name}"))?;
            Some(Snippet::new(name, &text))
        };
        names.filter(|name| name.ends_with(CONF)).filter_map(text).take(MAX_ENTRIES).collect()
    };
    let found = directories.iter().map(read).find(|found| !found.is_empty());
    let mut found = found.unwrap_or_default();
    found.sort_by(|a, b| compare(&b.file, &a.file));
    found
}

/// Compare names of files by the versions in them, as GNU's `sort -V` does: first without what
/// follows a dot and a letter at their ends. (grub-core/lib/gnulib/filevercmp.c)
fn compare(a: &str, b: &str) -> Ordering {
    let hidden = |name: &str| name.starts_with('.');
    (a.is_empty().cmp(&b.is_empty()).reverse())
        .then(hidden(a).cmp(&hidden(b)).reverse())
        .then_with(|| versions(stem(a), stem(b)))
        .then_with(|| versions(a.as_bytes(), b.as_bytes()))
}

/// A name without its endings, such as `.tar.gz`.
fn stem(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    let mut end = bytes.len();
    while let Some(dot) = bytes[..end].iter().rposition(|byte| *byte == b'.') {
        let ending = &bytes[dot + 1..end];
        let first = ending.first().is_some_and(|c| c.is_ascii_alphabetic() || *c == b'~');
        if !first || !ending.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'~') {
            break;
        }
        end = dot;
    }
    &bytes[..end]
}

/// Compare as Debian's policy has it, 5.6.12: digits as numbers; between them a tilde comes before
/// the end, that before letters, and these before all others.
fn versions(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let rank = |byte: Option<&u8>| match byte {
        Some(b'~') => -2,
        None => -1,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let text = |bytes: &[u8]| bytes.first().is_some_and(|byte| !byte.is_ascii_digit());
    while !a.is_empty() || !b.is_empty() {
        while text(a) || text(b) {
            let unequal = rank(a.first()).cmp(&rank(b.first()));
            if unequal != Ordering::Equal {
                return unequal;
            }
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
        }
        let number = |bytes: &[u8]| -> (usize, usize) {
            let end = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (bytes[..end].iter().take_while(|byte| **byte == b'0').count(), end)
        };
        let ((from, to), (start, end)) = (number(a), number(b));
        let (x, y) = (&a[from..to], &b[start..end]);
        let unequal = x.len().cmp(&y.len()).then(x.cmp(y));
        if unequal != Ordering::Equal {
            return unequal;
        }
        (a, b) = (&a[to..], &b[end..]);
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ordered_by_the_versions_in_their_names() {
        let ordered = [
            ".a.conf",
            "0-1.conf",
            "a.conf",
            "f-6.1~rc1.conf",
            "f-6.1.conf",
            "f-6.1a.conf",
            "f-6.1.0-9.conf",
            "f-6.1.0-18.conf",
            "f-6.9.conf",
            "f-6.10.conf",
            "f-6.10+3.conf",
            "f-rescue.conf",
        ];
        for (at, less) in ordered.iter().enumerate() {
            for more in &ordered[at + 1..] {
                assert_eq!(compare(less, more), Ordering::Less, "{less} {more}");
                assert_eq!(compare(more, less), Ordering::Greater, "{less} {more}");
            }
        }
        assert_eq!(compare("f-6.01.conf", "f-6.1.conf"), Ordering::Equal);
    }

    #[test]
    fn variables_are_set_in_as_grub_does() {
        let variables = [("kernelopts", "ro quiet"), ("b", "c")];
        let variables = variables.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        for (value, expanded) in [
            ("root=x ro", Some("root=x ro")),
            ("root=x $kernelopts", Some("root=x ro quiet ")),
            ("$kernelopts debug", Some("ro quiet debug")),
            ("$kernelopts 3", Some("ro quiet ")),
            ("root=x $none rw", Some("root=x rw")),
            ("$none", None),
            ("$none$kernelopts x", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(expand(value, &variables).as_deref(), expanded, "{value}");
        }
    }
}
