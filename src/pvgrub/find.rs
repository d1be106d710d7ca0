//! Where menus are looked for, and in which order.

use super::menu::{MAX_MENU, Menu, Place, SAVED_ENTRY};
use super::script::Variables;
use super::volume::{FileSystem, Missing, Volume};
use super::{bls, grubcfg, legacy};
use crate::id::hex;
use crate::plan::{PvGrub, SavedEnvironment};
use sha2::{Digest, Sha256};

/// Directories of a boot loader: on the root, and on a /boot of its own.
const DIRECTORIES: [&str; 4] = ["/boot/grub", "/grub", "/boot/grub2", "/grub2"];
const LEGACY: [&str; 2] = ["menu.lst", "grub.conf"];
const ENTRIES: [&str; 2] = ["/boot/loader", "/loader"];
/// Longest BLS entry, environment block or saved default.
const MAX_SMALL: u64 = 64 << 10;
/// Most BLS entries' bytes together.
const MAX_ENTRIES_BYTES: usize = 4 << 20;

/// A menu and where it was.
pub struct Located {
    /// The menu.
    pub menu: Menu,
    /// Its path.
    pub path: String,
    /// The file system, by its place in the volume.
    pub system: usize,
    /// What is remembered of earlier boots; none if there is no file that GRUB would write it into.
    pub saved: Option<SavedEnvironment>,
}

impl Located {
    /// What is to be remembered once the entry at `at` boots.
    pub fn remember(&self, at: usize) -> Option<SavedEnvironment> {
        let mut saved = self.saved.clone()?;
        saved.variables.extend(self.menu.saved(at));
        (!saved.variables.is_empty() && saved.is_sound()).then_some(saved)
    }
}

/// Find the menu that boots; `saved` is what earlier boots left to be remembered. A legacy menu counts for more than BLS entries, and these for more than grub.cfg.
///
/// # Errors
/// There is none, or the one that there is can't be read; what was looked for, and where.
pub fn find(
    volume: &Volume,
    which: PvGrub,
    saved: Option<&SavedEnvironment>,
) -> Result<Located, String> {
    let order = order(volume, which)?;
    let readable: Vec<usize> =
        order.iter().copied().filter(|&at| volume.systems[at].is_readable()).collect();
    if readable.is_empty() {
        return Err(format!(
            "no ext2, ext3 or ext4 file system was found on the root volume: {}; PV-GRUB reads no other: \
             boot it by firmware (no --kernel), or with --kernel FILE --initrd FILE",
            volume.described()
        ));
    }
    for language in [legacy_menu, bls_menu, grub_menu] {
        for &at in &readable {
            if let Some(located) = language(volume, at, saved)? {
                return Ok(located);
            }
        }
    }
    let names: Vec<String> = readable.iter().map(|&at| volume.systems[at].name()).collect();
    Err(format!(
        "no boot menu was found on {}; looked for {}/{{menu.lst,grub.conf}}, {}/entries/*.conf and {}/grub.cfg",
        names.join(" and "),
        format_args!("{{{}}}", DIRECTORIES.join(",")),
        format_args!("{{{}}}", ENTRIES.join(",")),
        format_args!("{{{}}}", DIRECTORIES.join(",")),
    ))
}

/// The file systems in the order in which they are searched: `hd0` is the whole disk; `hd00` is the first partition, then
/// the others, since the root of a modern image need not be the first.
fn order(volume: &Volume, which: PvGrub) -> Result<Vec<usize>, String> {
    let divided = volume.systems.iter().any(|system| system.partition.is_some());
    match (which, divided) {
        (PvGrub::Hd0, true) => Err(
            "the root volume has partitions; aki-pv-grub-hd00 is for these, aki-pv-grub-hd0 for a \
             volume that is one file system"
                .into(),
        ),
        (PvGrub::Hd00, false) => Err(format!(
            "the root volume has no partitions ({}); aki-pv-grub-hd0 is for such a volume",
            volume.described()
        )),
        _ => Ok((0..volume.systems.len()).collect()),
    }
}

type Language = Result<Option<Located>, String>;

/// A menu's text, if the file is there.
fn text(system: &FileSystem, path: &str) -> Result<Option<String>, String> {
    match system.read_text(path, MAX_MENU) {
        Ok(text) => Ok(Some(text)),
        Err(Missing::Absent) => Ok(None),
        Err(Missing::Unreadable(why)) => {
            Err(format!("the menu {path} on {} can't be read: {why}", system.name()))
        }
    }
}

fn legacy_menu(volume: &Volume, at: usize, saved: Option<&SavedEnvironment>) -> Language {
    let system = &volume.systems[at];
    for directory in DIRECTORIES {
        for name in LEGACY {
            let path = format!("{directory}/{name}");
            let Some(text) = text(system, &path)? else { continue };
            let file = system.read_text(&format!("{directory}/default"), MAX_SMALL).ok();
            let saved = file.as_deref().map(|text| still(text, saved));
            let number = || file.as_deref()?.split_whitespace().next();
            let remembered = saved.as_ref().and_then(|saved| saved.variables.get(SAVED_ENTRY));
            let menu = legacy::parse(&text, remembered.map(String::as_str).or_else(number));
            // pv-grub's package leaves one without an entry behind where GRUB 2 took over.
            if !menu.entries.is_empty() {
                return Ok(Some(Located { menu, path, system: at, saved }));
            }
        }
    }
    Ok(None)
}

fn bls_menu(volume: &Volume, at: usize, saved: Option<&SavedEnvironment>) -> Language {
    let system = &volume.systems[at];
    let (environment, saved) = environment(system, saved);
    for directory in ENTRIES {
        let path = format!("{directory}/entries");
        let mut files = Vec::new();
        let mut total = 0;
        for name in system.names(&path).into_iter().filter(|name| name.ends_with(".conf")) {
            let Ok(text) = system.read_text(&format!("{path}/{name}"), MAX_SMALL) else { continue };
            total += text.len();
            if total > MAX_ENTRIES_BYTES {
                return Err(format!("{path} on {} has too much in it", system.name()));
            }
            files.push((name, text));
        }
        if files.is_empty() {
            continue;
        }
        let conf = system.read_text(&format!("{directory}/loader.conf"), MAX_SMALL);
        let place = Place::Menu;
        let menu = bls::parse(&files, &place, &environment, &conf.unwrap_or_default());
        return Ok(Some(Located { menu, path, system: at, saved }));
    }
    Ok(None)
}

fn grub_menu(volume: &Volume, at: usize, saved: Option<&SavedEnvironment>) -> Language {
    let system = &volume.systems[at];
    let (environment, saved) = environment(system, saved);
    for directory in DIRECTORIES {
        let path = format!("{directory}/grub.cfg");
        let Some(text) = text(system, &path)? else { continue };
        let files = Files { volume, menu: at };
        let menu = grubcfg::parse(&text, directory, &environment, &files)
            .map_err(|why| format!("the menu {path} on {} is no script: {why}", system.name()))?;
        if menu.entries.is_empty() {
            continue;
        }
        return Ok(Some(Located { menu, path, system: at, saved }));
    }
    Ok(None)
}

/// What is remembered beside a file that says `text`: nothing yet if it was another when `saved` was.
fn still(text: &str, saved: Option<&SavedEnvironment>) -> SavedEnvironment {
    let digest = hex(&Sha256::digest(text));
    let still = saved.filter(|saved| saved.digest == digest).cloned();
    still.unwrap_or(SavedEnvironment { digest, ..SavedEnvironment::default() })
}

/// What grubenv says: lines `name=value` behind a comment, padded with `#`; and over it, what is remembered.
/// (GRUB 2 manual, "Environment block")
fn environment(
    system: &FileSystem,
    saved: Option<&SavedEnvironment>,
) -> (Variables, Option<SavedEnvironment>) {
    let text = |directory: &&str| system.read_text(&format!("{directory}/grubenv"), MAX_SMALL).ok();
    let Some(text) = DIRECTORIES.iter().find_map(text) else { return Default::default() };
    let saved = still(&text, saved);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut variables: Variables = lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .take(256)
        .collect();
    variables.extend(saved.variables.clone());
    (variables, Some(saved))
}

/// What a script may ask.
struct Files<'a> {
    volume: &'a Volume,
    menu: usize,
}

impl grubcfg::Files for Files<'_> {
    fn exists(&self, place: &Place, path: &str, nonempty: bool) -> bool {
        let Ok(at) = self.volume.find(place, self.menu) else { return false };
        self.volume.systems[at].stat(path).is_some_and(|(_, len)| len > 0 || !nonempty)
    }
}
