//! A boot menu, whatever file it came from.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most entries that are read; a menu that people use has a few dozen.
pub const MAX_ENTRIES: usize = 512;
/// The variable of the saved default. (GRUB 2 manual, "grub-set-default")
pub const SAVED_ENTRY: &str = "saved_entry";
/// Longest menu file in bytes. update-grub writes some 10 KiB.
pub const MAX_MENU: u64 = 1 << 20;

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its position as GRUB counts from 0, submenus before it: `2`, or `1>0`.
    pub index: String,
    /// What a person sees.
    pub title: String,
    /// What a program calls it: GRUB's `--id`, a BLS entry's file name.
    pub id: Option<String>,
    /// Titles and ids of the submenus around it, the outermost first.
    pub within: Vec<(String, Option<String>)>,
    /// Where paths without a device of their own are.
    pub place: Place,
    /// The kernel's path.
    pub kernel: Option<String>,
    /// What is there is a unified kernel image, of which this profile boots: its ramdisk, and its
    /// arguments where the entry has none, are in it.
    pub unified: Option<u32>,
    /// The kernel's arguments.
    pub arguments: String,
    /// The initial ramdisk's parts, in order; with a device in front, `(hd0,gpt2)/initrd`, where it
    /// is not the kernel's.
    pub initrds: Vec<String>,
    /// Why it is not for us, e.g. that it boots Xen.
    pub other: Option<String>,
    /// Why it boots nothing though it is for us, e.g. that a command of it fails. (GRUB legacy)
    pub fails: Option<String>,
    /// The entry that it makes the default when it boots, by its index. (GRUB legacy)
    pub save: Option<String>,
    /// Variables that it saves when it boots. (GRUB 2)
    pub saves: BTreeMap<String, String>,
}

/// A file system, as menus name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Where the menu itself is.
    #[default]
    Menu,
    /// The whole first disk.
    Disk,
    /// A partition of the first disk, counted from 1.
    Partition(u32),
    /// By the file system's UUID.
    Uuid(String),
    /// By the file system's label.
    Label(String),
    /// Somewhere else.
    Elsewhere(String),
}

/// A menu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Menu {
    /// Its entries, submenus flattened.
    pub entries: Vec<Entry>,
    /// What boots if nothing else is asked for: an index, an id or a title; the first entry if
    /// absent.
    pub default: Option<String>,
    /// What is tried, in this order, if that can't be loaded.
    pub fallback: Vec<String>,
    /// Variables that are saved whichever entry boots: an entry that was chosen for one boot is so
    /// no longer.
    pub saves: BTreeMap<String, String>,
}

/// One entry as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Listed {
    /// Its index: what `--boot-entry` takes.
    pub index: String,
    /// Its title, behind those of its submenus.
    pub title: String,
    /// Its id, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The kernel's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// It is what boots.
    pub default: bool,
    /// Why it can't be booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Entry {
    /// GRUB 2's variable `chosen`: the ids of the submenus around it and its own, or titles, as
    /// [`Menu::find`] takes them.
    pub fn chosen(&self) -> String {
        let own = [(self.title.clone(), self.id.clone())];
        let name = |(title, id): &(String, Option<String>)| {
            id.as_ref().unwrap_or(title).replace('>', ">>")
        };
        self.within.iter().chain(&own).map(name).collect::<Vec<_>>().join(">")
    }

    /// Why it boots nothing, whatever its files are.
    pub fn refused(&self) -> Option<&String> {
        self.other.as_ref().or(self.fails.as_ref())
    }

    /// Titles of the submenus around it and its own.
    pub fn full_title(&self) -> String {
        let around = self.within.iter().map(|(title, _)| title.as_str());
        around.chain([self.title.as_str()]).collect::<Vec<_>>().join(" > ")
    }
}

impl Menu {
    /// Add an entry, unless there are too many.
    pub fn push(&mut self, entry: Entry) {
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(entry);
        }
    }

    /// The entry that `text` means: an index (`1`, `1>0`), an id or a title, behind those of its
    /// submenus or alone. What means a submenu means its first entry, as it does to GRUB.
    pub fn find(&self, text: &str) -> Option<usize> {
        let text = text.trim();
        let at = |test: &dyn Fn(&Entry) -> bool| self.entries.iter().position(test);
        let below = |entry: &Entry, index: &str| {
            entry.index.strip_prefix(index).is_some_and(|rest| rest.starts_with('>'))
        };
        at(&|entry| entry.index == text)
            .or_else(|| at(&|entry| !text.is_empty() && below(entry, text)))
            .or_else(|| at(&|entry| entry.matches(text)))
            .or_else(|| at(&|entry| entry.title == text || entry.id.as_deref() == Some(text)))
    }

    /// What is saved when the entry at `at` boots.
    pub fn saved(&self, at: usize) -> BTreeMap<String, String> {
        let mut saves = self.saves.clone();
        let entry = &self.entries[at];
        saves.extend(entry.saves.clone());
        saves.extend(entry.save.clone().map(|entry| (SAVED_ENTRY.to_owned(), entry)));
        saves
    }

    /// The entries in the order in which they are tried. `wanted` is the only one if it is given.
    ///
    /// # Errors
    /// There is no such entry, or none at all.
    pub fn candidates(&self, wanted: Option<&str>) -> Result<Vec<usize>, String> {
        if self.entries.is_empty() {
            return Err("it has no entries".into());
        }
        if let Some(wanted) = wanted {
            let found = self.find(wanted).ok_or_else(|| self.no_such(wanted))?;
            return Ok(vec![found]);
        }
        // As GRUB, which boots the first entry if the default means none.
        let first = self.default.as_deref().and_then(|text| self.find(text)).unwrap_or(0);
        let mut order = vec![first];
        order.extend(self.fallback.iter().filter_map(|text| self.find(text)));
        if order.len() == 1 && self.entries[first].other.is_some() {
            // Not for this machine at all, and nothing said instead: the next that is.
            let rest = (first + 1..self.entries.len()).chain(0..first);
            order.extend(rest.filter(|&n| self.entries[n].other.is_none()).take(1));
        }
        let mut seen = std::collections::BTreeSet::new();
        order.retain(|n| seen.insert(*n));
        Ok(order)
    }

    fn no_such(&self, wanted: &str) -> String {
        const TOLD: usize = 8;
        let mut titles: Vec<_> = self
            .entries
            .iter()
            .take(TOLD)
            .map(|entry| format!("{} '{}'", entry.index, entry.full_title()))
            .collect();
        if self.entries.len() > TOLD {
            titles.push(format!("and {} more", self.entries.len() - TOLD));
        }
        format!("it has no entry '{wanted}'; it has {}", titles.join(", "))
    }
}

impl Entry {
    /// GRUB's way of naming it: for each submenu and itself an index, a title or an id, joined by
    /// `>`.
    fn matches(&self, text: &str) -> bool {
        let levels = self.within.len() + 1;
        let mut indices = self.index.split('>');
        // A title may have a `>` in it, which GRUB doubles.
        let text = text.replace(">>", "\u{1}");
        let named: Vec<&str> = text.split('>').collect();
        let own = [(self.title.clone(), self.id.clone())];
        let mut names = self.within.iter().chain(&own);
        named.len() <= levels
            && named.iter().all(|name| {
                let (Some(index), Some((title, id))) = (indices.next(), names.next()) else {
                    return false;
                };
                let name = name.trim().replace('\u{1}', ">");
                name == index || name == *title || id.as_deref() == Some(name.as_str())
            })
    }
}

/// The partition or disk that `(hd0,1)`, `hd0,msdos1` and the like mean. Legacy GRUB counts
/// partitions `from` 0, GRUB 2 from 1.
pub fn device(text: &str, from: u32) -> Place {
    let inner = text.trim().trim_start_matches('(').trim_end_matches(')');
    let (disk, partition) = match inner.split_once(',') {
        Some((disk, partition)) => (disk, Some(partition)),
        None => (inner, None),
    };
    if disk != "hd0" && disk != "xen/xvda" && disk != "xen/xvda1" {
        return Place::Elsewhere(text.to_owned());
    }
    let Some(partition) = partition else { return Place::Disk };
    // A BSD slice (`hd0,0,a`) would follow a comma.
    let digits = partition.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    match digits.parse::<u32>() {
        Ok(number) if number >= from => Place::Partition(number - from + 1),
        _ => Place::Elsewhere(text.to_owned()),
    }
}

/// A path and the device in front of it, if there is one.
pub fn split_device(path: &str, from: u32) -> (Option<Place>, &str) {
    match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        // `($root)/vmlinuz` with an empty variable.
        Some(("", rest)) => (None, rest),
        Some((name, rest)) => (Some(device(name, from)), rest),
        None => (None, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn menu() -> Menu {
        let entry = |index: &str, title: &str, id: &str, within: &[(&str, &str)]| Entry {
            index: index.into(),
            title: title.into(),
            id: Some(id.into()),
            within: within.iter().map(|(t, i)| (t.to_string(), Some(i.to_string()))).collect(),
            kernel: Some("/vmlinuz".into()),
            ..Entry::default()
        };
        let sub = [("Advanced", "adv")];
        Menu {
            entries: vec![
                entry("0", "Debian", "simple", &[]),
                entry("1>0", "Debian, 6.1", "adv-6.1", &sub),
                entry("1>1", "Debian, 5.10", "adv-5.10", &sub),
                entry("2", "Memory > test", "mem", &[]),
            ],
            ..Menu::default()
        }
    }

    #[test]
    fn entries_are_found_as_grub_finds_them() {
        let menu = menu();
        for (text, found) in [
            ("0", Some(0)),
            ("Debian", Some(0)),
            ("simple", Some(0)),
            ("1", Some(1)),
            ("1>1", Some(2)),
            ("adv>adv-5.10", Some(2)),
            ("Advanced>Debian, 5.10", Some(2)),
            ("Advanced>1", Some(2)),
            ("adv-5.10", Some(2)),
            ("Advanced", Some(1)),
            ("Memory >> test", Some(3)),
            ("Memory > test", Some(3)),
            ("3", None),
            ("1>7", None),
            ("", None),
        ] {
            assert_eq!(menu.find(text), found, "{text}");
        }
    }

    #[test]
    fn the_default_comes_first_and_then_the_fallbacks_once_each() {
        let mut menu = menu();
        assert_eq!(menu.candidates(None), Ok(vec![0]));
        menu.default = Some("1>1".into());
        menu.fallback = vec!["0".into(), "9".into(), "1>1".into(), "2".into()];
        assert_eq!(menu.candidates(None), Ok(vec![2, 0, 3]));
        assert_eq!(menu.candidates(Some("mem")), Ok(vec![3]));
        assert!(menu.candidates(Some("9")).unwrap_err().contains("0 'Debian', 1>0 'Advanced > D"));
        menu.default = Some("gone".into());
        menu.fallback.clear();
        assert_eq!(menu.candidates(None), Ok(vec![0]));
        menu.entries[0].other = Some("it boots Xen".into());
        assert_eq!(menu.candidates(None), Ok(vec![0, 1]));
        assert!(Menu::default().candidates(None).is_err());
    }

    #[test]
    fn devices_are_counted_as_their_grub_does() {
        assert_eq!(device("(hd0,0)", 0), Place::Partition(1));
        assert_eq!(device("hd0,msdos1", 1), Place::Partition(1));
        assert_eq!(device("(hd0,gpt14)", 1), Place::Partition(14));
        assert_eq!(device("(hd0)", 0), Place::Disk);
        assert_eq!(device("hd0,0", 1), Place::Elsewhere("hd0,0".into()));
        assert!(matches!(device("(hd1,0)", 0), Place::Elsewhere(_)));
        assert!(matches!(device("(hd0,99999999999)", 0), Place::Elsewhere(_)));
        assert_eq!(split_device("(hd0,0)/vmlinuz", 0), (Some(Place::Partition(1)), "/vmlinuz"));
        assert_eq!(split_device("/vmlinuz", 0), (None, "/vmlinuz"));
        assert_eq!(split_device("()/vmlinuz", 0), (None, "/vmlinuz"));
    }
}
