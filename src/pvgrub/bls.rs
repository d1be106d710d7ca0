//! Boot Loader Specification entries: one small file a kernel, below `loader/entries`.
//! (UAPI.1 "Boot Loader Specification", type #1. What grub.cfg makes of them is in `blscfg`.)

use super::menu::{Entry, MAX_ENTRIES, Menu, Place, SAVED_ENTRY};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// One file.
struct File {
    /// Its name without `.conf` and without a boot counter: the entry's id.
    id: String,
    /// All boots that it had were counted, and none succeeded.
    exhausted: bool,
    keys: BTreeMap<String, Vec<String>>,
}

/// The menu of these files (name, content), which are on the file system `place`, without a script
/// around them. `environment` is GRUB's, for the variables that Fedora writes into them, and the
/// saved entry; `loader_conf` is systemd-boot's configuration.
pub fn parse(
    files: &[(String, String)],
    place: &Place,
    environment: &BTreeMap<String, String>,
    loader_conf: &str,
) -> Menu {
    let mut files: Vec<File> = files.iter().take(MAX_ENTRIES).map(|(n, t)| file(n, t)).collect();
    files.sort_by(order);
    let mut menu = Menu::default();
    for (index, file) in files.iter().enumerate() {
        let version = file.last("version").filter(|_| file.last("title").is_some());
        let mut entry = file.entry(environment);
        entry.index = index.to_string();
        entry.place = place.clone();
        if let Some(version) = version.filter(|version| !entry.title.contains(*version)) {
            entry.title = format!("{} ({version})", entry.title);
        }
        menu.push(entry);
    }
    let value = |name| environment.get(name).filter(|value| !value.is_empty());
    let next = value("next_entry");
    if next.is_some() {
        menu.saves.insert("next_entry".into(), String::new());
    }
    menu.default = next.or_else(|| value(SAVED_ENTRY)).cloned().or_else(|| {
        let pattern =
            loader_conf.lines().find_map(|line| key(line).filter(|k| k.0 == "default"))?;
        let pattern = pattern.1.strip_suffix(".conf").unwrap_or(pattern.1);
        let found = menu.entries.iter().find(|e| matches(pattern, e.id.as_deref().unwrap_or("")));
        found.map(|entry| entry.index.clone())
    });
    menu
}

impl File {
    /// The last value of a key that is to be there once.
    fn last(&self, key: &str) -> Option<&str> {
        self.keys.get(key)?.last().map(String::as_str)
    }

    /// The values of a key that may be there more than once, with variables set in.
    fn words(&self, key: &str, variables: &BTreeMap<String, String>) -> String {
        let all = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        all.iter().map(|text| expand(text, variables)).collect::<Vec<_>>().join(" ")
    }

    fn entry(&self, variables: &BTreeMap<String, String>) -> Entry {
        // `$root/vmlinuz` and `($root)/vmlinuz`: the device is the entry's anyway.
        let path = |text: &str| {
            let rest = text.strip_prefix("($root)").or_else(|| text.strip_prefix("$root"));
            expand(rest.unwrap_or(text), variables)
        };
        let initrds = self.keys.get("initrd").map(Vec::as_slice).unwrap_or_default();
        let initrds = initrds.iter().flat_map(|text| text.split_whitespace()).map(path);
        let mut entry = Entry {
            title: self.last("title").map_or_else(|| self.id.clone(), str::to_owned),
            id: Some(self.id.clone()),
            kernel: self.last("linux").map(path),
            arguments: self.words("options", variables).trim().to_owned(),
            initrds: initrds.flat_map(|text| words_of(&text)).collect(),
            ..Entry::default()
        };
        entry.other = match self.last("efi").or_else(|| self.last("uki")) {
            Some(_) => Some("it is an EFI program".into()),
            None => super::not_linux(&entry),
        };
        entry
    }
}

fn words_of(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A line's key and value; `None` for a comment or an empty line.
fn key(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (key, value) = line.split_once(char::is_whitespace)?;
    (!key.starts_with('#')).then(|| (key, value.trim()))
}

fn file(name: &str, text: &str) -> File {
    let stem = name.strip_suffix(".conf").unwrap_or(name);
    // "+LEFT" or "+LEFT-DONE" (UAPI.1, "Boot counting")
    let counter = stem.rsplit_once('+').filter(|(_, counter)| {
        !counter.is_empty() && counter.chars().all(|c| c.is_ascii_digit() || c == '-')
    });
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in text.lines().filter_map(key) {
        keys.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    File {
        id: counter.map_or(stem, |(stem, _)| stem).to_owned(),
        exhausted: counter.is_some_and(|(_, counter)| counter.split('-').next() == Some("0")),
        keys,
    }
}

/// Variables that are set; others vanish, as in GRUB.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, behind) = braced.unwrap_or_else(|| {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            after.split_at(end.unwrap_or(after.len()))
        });
        out.push_str(variables.get(name).map_or("", String::as_str));
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The order of the specification: what was tried in vain last; by sort key where both have one;
/// the newest first.
fn order(a: &File, b: &File) -> Ordering {
    let key = |file: &File, key: &str| file.keys.get(key).and_then(|values| values.last().cloned());
    let version = |file: &File| key(file, "version").unwrap_or_default();
    let keys = key(a, "sort-key").cmp(&key(b, "sort-key"));
    let without = key(a, "sort-key").is_none().cmp(&key(b, "sort-key").is_none());
    (a.exhausted.cmp(&b.exhausted))
        .then(without)
        .then(keys)
        .then_with(|| compare_versions(&version(b), &version(a)))
        .then_with(|| compare_versions(&b.id, &a.id))
}

/// Compare as strverscmp and rpm do in what they agree on: runs of digits as numbers, `~` before
/// everything.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (m, n) = (digits(a), digits(b));
        if m > 0 && n > 0 {
            let number = |text: &[u8]| -> Vec<u8> {
                text.iter().copied().skip_while(|&digit| digit == b'0').collect()
            };
            let (x, y) = (number(&a[..m]), number(&b[..n]));
            let unequal = x.len().cmp(&y.len()).then(x.cmp(&y));
            if unequal != Ordering::Equal {
                return unequal;
            }
            (a, b) = (&a[m..], &b[n..]);
            continue;
        }
        let rank = |byte: Option<&u8>| match byte {
            Some(b'~') => -1,
            None => 0,
            Some(byte) => i32::from(*byte) + 1,
        };
        let unequal = rank(a.first()).cmp(&rank(b.first()));
        if unequal != Ordering::Equal || a.is_empty() {
            return unequal;
        }
        (a, b) = (&a[1..], &b[1..]);
    }
}

/// A shell pattern of `*` and `?`. In steps bounded by the product of both lengths.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for wanted in pattern {
        let mut next = vec![false; text.len() + 1];
        next[0] = row[0] && wanted == '*';
        for (n, found) in text.iter().enumerate() {
            next[n + 1] = match wanted {
                '*' => row[n + 1] || next[n],
                '?' => row[n],
                _ => row[n] && wanted == *found,
            };
        }
        row = next;
    }
    row[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fedora(version: &str) -> (String, String) {
        let text = format!(
            "title Fedora Linux ({version}) 40\nversion {version}\nlinux /vmlinuz-{version}\n\
             initrd /initramfs-{version}.img $tuned_initrd\n# a comment\noptions root=UUID=1 ro $kernelopts\n\
             options quiet\ngrub_users $grub_users\nid fedora-{version}\n"
        );
        (format!("0123-{version}.conf"), text)
    }

    #[test]
    fn the_newest_comes_first_and_variables_are_set_in() {
        let files = [fedora("6.8.5-301.fc40"), fedora("6.8.10-300.fc40"), fedora("6.8.9-300.fc40")];
        let environment = BTreeMap::from([("kernelopts".into(), "rhgb".into())]);
        let menu = parse(&files, &Place::Partition(2), &environment, "");
        let ids: Vec<_> = menu.entries.iter().map(|e| e.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["0123-6.8.10-300.fc40", "0123-6.8.9-300.fc40", "0123-6.8.5-301.fc40"]);
        let first = &menu.entries[0];
        assert_eq!(first.title, "Fedora Linux (6.8.10-300.fc40) 40");
        assert_eq!(first.kernel.as_deref(), Some("/vmlinuz-6.8.10-300.fc40"));
        assert_eq!(first.arguments, "root=UUID=1 ro rhgb quiet");
        assert_eq!(first.initrds, ["/initramfs-6.8.10-300.fc40.img"]);
        assert_eq!(first.place, Place::Partition(2));
        assert_eq!(menu.default, None);
    }

    #[test]
    fn a_saved_entry_or_loader_conf_names_the_default() {
        let files = [fedora("1"), fedora("2")];
        let saved = BTreeMap::from([("saved_entry".into(), "0123-1".into())]);
        let menu = parse(&files, &Place::Menu, &saved, "default 0123-2");
        assert_eq!(menu.candidates(None), Ok(vec![1]));
        let menu = parse(&files, &Place::Menu, &BTreeMap::new(), "timeout 3\ndefault *-1.conf\n");
        assert_eq!(menu.candidates(None), Ok(vec![1]));
    }

    #[test]
    fn what_failed_each_time_and_what_is_no_kernel_come_last() {
        let plain = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let files = [
            plain("a+0-3.conf", "title A\nversion 9\nlinux /a"),
            plain("b+2.conf", "title B\nversion 5\nlinux /b"),
            plain("c.conf", "title C\nversion 4\nefi /c.efi"),
        ];
        let menu = parse(&files, &Place::Menu, &BTreeMap::new(), "");
        let titles: Vec<_> = menu.entries.iter().map(|e| e.title.as_str()).collect();
        assert_eq!(titles, ["B (5)", "C (4)", "A (9)"]);
        assert_eq!(menu.entries[0].id.as_deref(), Some("b"));
        assert!(menu.entries[1].other.as_ref().unwrap().contains("EFI"));
    }

    #[test]
    fn versions_compare_as_numbers() {
        for (less, more) in
            [("6.9", "6.10"), ("6.1.0-9", "6.1.0-18"), ("6.1~rc1", "6.1"), ("a", "a1"), ("", "1")]
        {
            assert_eq!(compare_versions(less, more), Ordering::Less, "{less} {more}");
            assert_eq!(compare_versions(more, less), Ordering::Greater, "{less} {more}");
        }
        assert_eq!(compare_versions("1.02", "1.2"), Ordering::Equal);
    }

    #[test]
    fn patterns_match_as_a_shells() {
        assert!(matches("*", "") && matches("a*c?", "abbcd") && !matches("a?", "a"));
        assert!(!matches(&"*a".repeat(200), &"a".repeat(150)), "and end");
    }
}
