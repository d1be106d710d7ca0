//! systemd-boot's menu: entries of the Boot Loader Specification's type #1, which are files, and of
//! type #2, which are unified kernel images, in its own order. (UAPI.1; systemd-boot(7),
//! loader.conf(5))
//!
//! What it keeps in EFI variables, the entry that was chosen before and the one for one boot, is
//! not there without EFI. Boot counters are read and never written.

use super::bls;
use super::menu::{Entry, Menu, Place};
use std::cmp::Ordering;

/// Files of type #1 and #2, and what no entry's name may begin with.
pub const CONFIGURED: &str = ".conf";
pub const UNIFIED: &str = ".efi";
const AUTOMATIC: &str = "auto-";
/// What this machine is called in a line `architecture`.
const ARCHITECTURE: &str = "x64";

/// An entry, and what it is sorted by.
#[derive(Debug)]
pub struct Item {
    /// The file's name.
    name: String,
    /// The profile of an image.
    profile: u32,
    /// Boots that its counter has left, and has had.
    tries: Option<(u64, u64)>,
    sort_key: Option<String>,
    machine_id: String,
    version: String,
    /// What boots.
    pub entry: Entry,
}

impl Item {
    /// It is of type #1.
    pub fn is_configured(&self) -> bool {
        is_entry(&self.name, CONFIGURED)
    }
}

/// A file is an entry's by its name: that ends with `suffix`.
pub fn is_entry(name: &str, suffix: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.starts_with('.') && name.ends_with(suffix) && !name.starts_with(AUTOMATIC)
}

/// A file of type #1; `None` if it is none, or for another machine.
pub fn configured(name: &str, text: &str, place: &Place) -> Option<Item> {
    let mut entry = Entry { id: Some(name.into()), place: place.clone(), ..Entry::default() };
    let mut item = Item {
        name: name.into(),
        profile: 0,
        tries: tries(name, CONFIGURED),
        sort_key: None,
        machine_id: String::new(),
        version: String::new(),
        entry: Entry::default(),
    };
    let mut options = Vec::new();
    let mut loaded_by = None;
    for (key, value) in pairs(text, &[' ', '\t']) {
        match key {
            "title" => entry.title = value.into(),
            "version" => item.version = value.into(),
            "machine-id" => item.machine_id = value.into(),
            "sort-key" => item.sort_key = Some(value.into()),
            "architecture" if !value.eq_ignore_ascii_case(ARCHITECTURE) => return None,
            "options" => options.push(value),
            "initrd" => entry.initrds.push(path(value)),
            "profile" => item.profile = value.trim_start_matches('@').parse().unwrap_or(0),
            "linux" | "efi" | "uki" => {
                // What is loaded in two ways is not loaded at all.
                if loaded_by.is_some_and(|by| by != key) {
                    return None;
                }
                loaded_by = Some(key);
                entry.kernel = Some(path(value));
            }
            _ => {}
        }
    }
    entry.unified = (loaded_by? != "linux").then_some(item.profile);
    entry.arguments = options.join(" ");
    if entry.unified.is_none() {
        take_initrds(&mut entry);
    }
    if entry.title.is_empty() {
        entry.title = name.into();
    }
    item.entry = entry;
    Some(item)
}

/// Give an entry that is a kernel the ramdisks that its command line names: the kernel's EFI stub
/// reads them. (Documentation/admin-guide/efi-stub.rst)
pub fn take_initrds(entry: &mut Entry) {
    let (named, words): (Vec<&str>, Vec<&str>) =
        entry.arguments.split(' ').partition(|word| word.starts_with("initrd="));
    entry.initrds.extend(named.iter().map(|word| path(&word["initrd=".len()..])));
    entry.arguments = words.join(" ");
}

/// A profile of a unified kernel image, whose sections `.osrel` and `.profile` these are; `None` if
/// they say no name.
pub fn unified(
    (name, at): (&str, String),
    (profile, profiled): (u32, &str),
    release: &str,
    place: &Place,
) -> Option<Item> {
    let of = |text, wanted: &[&str]| {
        let last = |key: &&str| pairs(text, &['=']).filter(|(k, _)| k == key).last();
        let value = wanted.iter().find_map(last).map(|(_, value)| value.to_owned());
        value.filter(|value| !value.is_empty())
    };
    let title = of(release, &["PRETTY_NAME", "IMAGE_ID", "NAME", "ID"])?;
    let (id, own) = (of(profiled, &["ID"]), of(profiled, &["TITLE", "ID"]));
    let (id, title) = match (profile, own) {
        (0, None) => (name.to_owned(), title),
        (0, Some(own)) if of(profiled, &["TITLE"]).is_some() => {
            (name.to_owned(), format!("{title} ({own})"))
        }
        (0, Some(_)) => (name.to_owned(), title),
        (n, own) => (
            format!("{name}@{}", id.unwrap_or_else(|| n.to_string())),
            format!("{title} ({})", own.unwrap_or_else(|| format!("Profile #{}", n + 1))),
        ),
    };
    Some(Item {
        name: name.into(),
        profile,
        tries: tries(name, UNIFIED),
        sort_key: of(release, &["IMAGE_ID", "ID"]),
        machine_id: String::new(),
        version: of(release, &["IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"])
            .unwrap_or_default(),
        entry: Entry {
            title,
            id: Some(id),
            kernel: Some(at),
            unified: Some(profile),
            place: place.clone(),
            ..Entry::default()
        },
    })
}

/// The menu of these entries, with its configuration, `loader.conf`.
pub fn menu(mut items: Vec<Item>, configuration: &str) -> Menu {
    items.sort_by(order);
    let titles: Vec<String> = items.iter().map(|item| item.entry.title.clone()).collect();
    let mut menu = Menu::default();
    for (n, mut item) in items.into_iter().enumerate() {
        item.entry.index = n.to_string();
        // As there, what several are called has its version behind it.
        let named = titles.iter().filter(|title| **title == item.entry.title).count();
        if named > 1 && !item.version.is_empty() {
            item.entry.title = format!("{} ({})", item.entry.title, item.version);
        }
        menu.push(item.entry);
    }
    // The one that was booted before (@saved) is in an EFI variable.
    let default = pairs(configuration, &[' ', '\t']).filter(|(key, _)| *key == "default").last();
    let pattern = default.map(|(_, value)| value.to_lowercase());
    menu.default = pattern.filter(|pattern| !pattern.starts_with('@')).and_then(|pattern| {
        let id = |entry: &Entry| entry.id.clone().unwrap_or_default().to_lowercase();
        let found = menu.entries.iter().find(|entry| bls::matches(&pattern, &id(entry)));
        found.map(|entry| entry.index.clone())
    });
    menu
}

/// The pairs of a file's lines, but of comments and of what is none, without quotes.
fn pairs<'a>(text: &'a str, apart: &'a [char]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter_map(move |line| {
        let (key, value) = line.split_once(apart)?;
        let value = value.trim();
        let quoted = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
        Some((key, quoted.unwrap_or(value)))
    })
}

/// A path with slashes.
fn path(text: &str) -> String {
    let path = text.replace('\\', "/");
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// A name's counter, `+LEFT` or `+LEFT-DONE` in front of the suffix. (UAPI.1, "Boot counting")
fn tries(name: &str, suffix: &str) -> Option<(u64, u64)> {
    let stem = name.get(..name.len().checked_sub(suffix.len())?)?;
    let (_, counter) = stem.rsplit_once('+')?;
    let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok());
    Some((number(left)??, number(done)??))
}

/// What was tried in vain comes last, what has no sort key before that; then by sort key, machine,
/// and the newest version; then by name, the newest first.
fn order(a: &Item, b: &Item) -> Ordering {
    let exhausted = |item: &Item| matches!(item.tries, Some((0, _)));
    let keyed = || match (&a.sort_key, &b.sort_key) {
        (Some(one), Some(other)) => one
            .cmp(other)
            .then_with(|| a.machine_id.cmp(&b.machine_id))
            .then_with(|| compare(&b.version, &a.version)),
        (one, other) => one.is_none().cmp(&other.is_none()),
    };
    let name = |item: &Item| item.name.to_lowercase();
    let counted = || match (a.tries, b.tries) {
        (Some((left, done)), Some((other, tried))) => other.cmp(&left).then(done.cmp(&tried)),
        (one, other) => one.is_some().cmp(&other.is_some()),
    };
    (exhausted(a).cmp(&exhausted(b)))
        .then_with(keyed)
        .then_with(|| compare(&name(b), &name(a)))
        .then_with(|| a.profile.cmp(&b.profile))
        .then_with(counted)
}

/// Compare versions: (UAPI.10 "Version Format Specification")
pub fn compare(a: &str, b: &str) -> Ordering {
    let counts = |byte: &u8| byte.is_ascii_alphanumeric() || b"~-^.".contains(byte);
    let strip = |text: &str| text.bytes().filter(counts).collect::<Vec<u8>>();
    let (a, b) = (strip(a), strip(b));
    let (mut a, mut b) = (&a[..], &b[..]);
    loop {
        let (one, other) = (a.first().copied(), b.first().copied());
        // Whoever has a pre-release here is older, then whoever ends here; then whoever has one of
        // the others.
        let with = |byte: u8| (other == Some(byte)).cmp(&(one == Some(byte)));
        let ends = || one.is_some().cmp(&other.is_some());
        let unequal = with(b'~')
            .then_with(ends)
            .then_with(|| with(b'-'))
            .then_with(|| with(b'^'))
            .then_with(|| with(b'.'));
        match (unequal, one) {
            (Ordering::Equal, None) => return Ordering::Equal,
            (Ordering::Equal, Some(b'~' | b'-' | b'^' | b'.')) => {
                (a, b) = (&a[1..], &b[1..]);
                continue;
            }
            (Ordering::Equal, Some(_)) => {}
            (unequal, _) => return unequal,
        }
        let number = a[0].is_ascii_digit() || b[0].is_ascii_digit();
        let part = |text: &[u8]| {
            let is = |byte: &&u8| match number {
                true => byte.is_ascii_digit(),
                false => byte.is_ascii_alphabetic(),
            };
            text.iter().take_while(is).count()
        };
        let (m, n) = (part(a), part(b));
        let unequal = match number {
            // Letters are older than a number.
            true if m == 0 || n == 0 => m.cmp(&n),
            true => {
                let digits = |text: &[u8]| -> Vec<u8> {
                    text.iter().copied().skip_while(|digit| *digit == b'0').collect()
                };
                let (x, y) = (digits(&a[..m]), digits(&b[..n]));
                x.len().cmp(&y.len()).then_with(|| x.cmp(&y))
            }
            false => a[..m].cmp(&b[..n]),
        };
        if unequal != Ordering::Equal {
            return unequal;
        }
        (a, b) = (&a[m..], &b[n..]);
    }
}
