//! Where menus are looked for, and in which order.

use super::grubcfg::{By, Parsed, Probe, Start};
use super::menu::{self, Entry, MAX_MENU, Menu, Place, SAVED_ENTRY, split_device};
use super::script::Variables;
use super::volume::{FileSystem, Missing, Volume};
use super::{bls, commands, esp, extlinux, grubcfg, legacy};
use crate::block::partitions::Scheme;
use crate::ext4::Kind;
use crate::id::hex;
use crate::plan::{PvGrub, SavedEnvironment};
use sha2::{Digest, Sha256};

/// Directories of a boot loader: on the root, and on a /boot of its own.
const DIRECTORIES: [&str; 4] = ["/boot/grub", "/grub", "/boot/grub2", "/grub2"];
const LEGACY: [&str; 2] = ["menu.lst", "grub.conf"];
const ENTRIES: [&str; 2] = ["/boot/loader", "/loader"];
/// Where EXTLINUX is installed, and its configuration beside it; the empty one is the root.
const EXTLINUX: [&str; 6] =
    ["/boot/extlinux", "/boot/syslinux", "/boot", "/extlinux", "/syslinux", ""];
const CONFIGURATIONS: [&str; 2] = ["extlinux.conf", "syslinux.cfg"];
/// Most directories of vendors on an EFI system partition that are looked into.
const MAX_VENDORS: usize = 32;
/// Longest BLS entry, environment block or saved default.
const MAX_SMALL: u64 = 64 << 10;
/// Menus that can't be read, and are told, at most.
const MAX_PROBLEMS: usize = 4;
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
    /// What of it, or of menus before it, could not be read.
    pub problems: Vec<String>,
    /// It is a grub.cfg that reads Boot Loader Specification entries.
    reads_entries: bool,
}

/// What finds menus of a language on a file system of the volume.
type Language = fn(&Volume, usize, Option<&SavedEnvironment>, &mut Vec<String>) -> Vec<Located>;

impl Located {
    /// What is to be remembered once the entry at `at` boots.
    pub fn remember(&self, at: usize) -> Option<SavedEnvironment> {
        let mut saved = self.saved.clone()?;
        saved.variables.extend(self.menu.saved(at));
        (!saved.variables.is_empty() && saved.is_sound()).then_some(saved)
    }

    /// Its path and file system, for messages.
    pub fn name(&self, volume: &Volume) -> String {
        format!("{} on {}", self.path, volume.systems[self.system].name())
    }

    /// Why an entry can't be loaded, as far as that is known without reading its files.
    pub fn problem(&self, volume: &Volume, entry: &Entry) -> Option<String> {
        if let Some(why) = entry.refused() {
            return Some(why.clone());
        }
        let kernel = entry.kernel.as_deref()?;
        let wrong = |path: &str| {
            let at = match self.at(volume, entry, path) {
                Ok((at, path)) => volume.systems[at].stat(path),
                Err(why) => return Some(why),
            };
            match at {
                None => Some(format!("{path} is not there")),
                Some((Kind::File, _)) => None,
                Some(_) => Some(format!("{path} is no file")),
            }
        };
        std::iter::once(kernel).chain(entry.initrds.iter().map(String::as_str)).find_map(wrong)
    }

    /// The file system of a path of an entry, by its place in the volume, and the path there.
    ///
    /// # Errors
    /// There is none.
    pub fn at<'p>(
        &self,
        volume: &Volume,
        entry: &Entry,
        path: &'p str,
    ) -> Result<(usize, &'p str), String> {
        let (place, path) = split_device(path, 1);
        Ok((volume.find(place.as_ref().unwrap_or(&entry.place), self.system)?, path))
    }

    /// Something of it can be loaded.
    fn is_of_use(&self, volume: &Volume) -> bool {
        self.menu.entries.iter().any(|entry| self.problem(volume, entry).is_none())
    }
}

/// Find the menu that boots; `saved` is what earlier boots left to be remembered. What firmware
/// would start on an EFI system partition counts for most, if it is a kernel or systemd-boot. Then
/// a legacy menu counts for more than grub.cfg, that for more than EXTLINUX's, and that for more
/// than BLS entries alone; but a menu of which nothing can be loaded counts for nothing, as one
/// that a distribution's upgrade left behind.
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
            "no ext2, ext3, ext4 or FAT file system was found on the root volume: {}; PV-GRUB reads no other: \
             boot it by firmware (no --kernel), or with --kernel FILE --initrd FILE",
            volume.described()
        ));
    }
    let (mut useless, mut problems) = (None, Vec::new());
    let mut entries_are_read = false;
    for (language, alone) in [
        (started_programs as Language, false),
        (legacy_menus, false),
        (grub_menus, false),
        (vendors_grub_menus, false),
        (extlinux_menus, false),
        (efi_menus, false),
        (bls_menus, true),
    ] {
        // What grub.cfg makes of entries is all that they are: it may have locked them.
        if alone && entries_are_read {
            break;
        }
        for &at in &readable {
            for mut located in language(volume, at, saved, &mut problems) {
                if located.is_of_use(volume) {
                    located.problems.splice(0..0, problems);
                    return Ok(located);
                }
                entries_are_read |= located.reads_entries;
                useless.get_or_insert(located);
            }
        }
    }
    if let Some(mut located) = useless {
        located.problems.splice(0..0, problems);
        return Ok(located);
    }
    let names: Vec<String> = readable.iter().map(|&at| volume.systems[at].name()).collect();
    let unreadable = problems.iter().map(|why| format!("; {why}")).collect::<String>();
    let not_read = volume.systems.iter().filter(|s| !s.is_readable() && s.may_hold_files());
    let not_read: Vec<String> =
        not_read.map(|s| format!("; {} is not read: {}", s.name(), s.described())).collect();
    Err(format!(
        "no boot menu was found on {}; looked for {}/{{menu.lst,grub.conf,grub.cfg}}, {}/{{{}}}, {}/entries/*.conf \
         and /EFI/{{Linux/*.efi,BOOT/BOOTX64.EFI}}{unreadable}{}",
        names.join(" and "),
        format_args!("{{{}}}", DIRECTORIES.join(",")),
        format_args!("{{{}}}", EXTLINUX.join(",")),
        CONFIGURATIONS.join(","),
        format_args!("{{{}}}", ENTRIES.join(",")),
        not_read.concat(),
    ))
}

/// The file systems in the order in which they are searched: `hd0` is the whole disk; `hd00` is the
/// first partition, then the others, since the root of a modern image need not be the first.
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

/// A menu's text, if the file is there and can be read.
fn text(system: &FileSystem, path: &str, problems: &mut Vec<String>) -> Option<String> {
    match system.read_text(path, MAX_MENU) {
        Ok(text) => Some(text),
        Err(Missing::Absent) => None,
        Err(Missing::Unreadable(why)) => {
            if problems.len() < MAX_PROBLEMS {
                problems.push(format!("the menu {path} on {} can't be read: {why}", system.name()));
            }
            None
        }
    }
}

fn legacy_menus(
    volume: &Volume,
    at: usize,
    saved: Option<&SavedEnvironment>,
    problems: &mut Vec<String>,
) -> Vec<Located> {
    let system = &volume.systems[at];
    let mut found = Vec::new();
    for directory in DIRECTORIES {
        for name in LEGACY {
            let path = format!("{directory}/{name}");
            let Some(text) = text(system, &path, problems) else { continue };
            let file = system.read_text(&format!("{directory}/default"), MAX_SMALL).ok();
            let saved = file.as_deref().map(|text| still(text, saved));
            let remembered = saved.as_ref().and_then(|saved| saved.variables.get(SAVED_ENTRY));
            let start = legacy::Start {
                device: &volume.device(at),
                saved: remembered.map(String::as_str),
                default_file: file.as_deref(),
            };
            let menu = legacy::parse(&text, &start, &Files { volume, menu: at });
            // pv-grub's package leaves one without an entry behind where GRUB 2 took over.
            if !menu.entries.is_empty() {
                found.push(Located {
                    menu,
                    path,
                    system: at,
                    saved,
                    problems: Vec::new(),
                    reads_entries: false,
                });
            }
        }
    }
    found
}

fn bls_menus(
    volume: &Volume,
    at: usize,
    saved: Option<&SavedEnvironment>,
    problems: &mut Vec<String>,
) -> Vec<Located> {
    let system = &volume.systems[at];
    // There they are systemd-boot's.
    if system.is_efi_system() {
        return Vec::new();
    }
    let environments = DIRECTORIES.iter().map(|directory| environment(system, directory, saved));
    let (environment, saved) =
        environments.into_iter().find(|(_, saved)| saved.is_some()).unwrap_or_default();
    let mut found = Vec::new();
    for directory in ENTRIES {
        let path = format!("{directory}/entries");
        let mut files = Vec::new();
        let mut total = 0;
        for name in system.names(&path).into_iter().filter(|name| name.ends_with(".conf")) {
            let Ok(text) = system.read_text(&format!("{path}/{name}"), MAX_SMALL) else { continue };
            total += text.len();
            if total > MAX_ENTRIES_BYTES {
                problems.push(format!("{path} on {} has too much in it", system.name()));
                break;
            }
            files.push((name, text));
        }
        if files.is_empty() {
            continue;
        }
        let conf = system.read_text(&format!("{directory}/loader.conf"), MAX_SMALL);
        let menu = bls::parse(&files, &Place::Menu, &environment, &conf.unwrap_or_default());
        let saved = saved.clone();
        found.push(Located {
            menu,
            path,
            system: at,
            saved,
            problems: Vec::new(),
            reads_entries: false,
        });
    }
    found
}

fn grub_menus(
    volume: &Volume,
    at: usize,
    saved: Option<&SavedEnvironment>,
    problems: &mut Vec<String>,
) -> Vec<Located> {
    grub_menus_in(&DIRECTORIES, volume, at, saved, problems)
}

/// What distributions whose GRUB is for UEFI alone have beside it, as EL 7 and 8 did; others have a
/// few lines there that lead to the one in /boot.
fn vendors_grub_menus(
    volume: &Volume,
    at: usize,
    saved: Option<&SavedEnvironment>,
    problems: &mut Vec<String>,
) -> Vec<Located> {
    let system = &volume.systems[at];
    if !system.is_efi_system() {
        return Vec::new();
    }
    let vendors = system.names("/EFI").into_iter().take(MAX_VENDORS);
    let vendors: Vec<String> = vendors.map(|name| format!("/EFI/{name}")).collect();
    let vendors: Vec<&str> = vendors.iter().map(String::as_str).collect();
    grub_menus_in(&vendors, volume, at, saved, problems)
}

fn grub_menus_in(
    directories: &[&str],
    volume: &Volume,
    at: usize,
    saved: Option<&SavedEnvironment>,
    problems: &mut Vec<String>,
) -> Vec<Located> {
    let system = &volume.systems[at];
    let mut found = Vec::new();
    for &directory in directories {
        let path = format!("{directory}/grub.cfg");
        let Some(text) = text(system, &path, problems) else { continue };
        let (environment, saved) = environment(system, directory, saved);
        let device = volume.device(at);
        let start = Start { device: &device, directory, environment: &environment };
        let parsed = grubcfg::parse(&text, &start, &Files { volume, menu: at });
        let located = || format!("the menu {path} on {}", system.name());
        let wrong = parsed.problems.iter().map(|why| format!("{} has a mistake: {why}", located()));
        if parsed.menu.entries.is_empty() {
            problems.extend(wrong.take(MAX_PROBLEMS));
            continue;
        }
        let problems = wrong.collect();
        let Parsed { menu, reads_entries, .. } = parsed;
        found.push(Located { menu, path, system: at, saved, problems, reads_entries });
    }
    found
}

fn extlinux_menus(
    volume: &Volume,
    at: usize,
    _saved: Option<&SavedEnvironment>,
    problems: &mut Vec<String>,
) -> Vec<Located> {
    let system = &volume.systems[at];
    let device = volume.device(at);
    let mut found = Vec::new();
    for directory in EXTLINUX {
        for name in CONFIGURATIONS {
            let path = format!("{directory}/{name}");
            let Some(text) = text(system, &path, problems) else { continue };
            let start = extlinux::Start { device: &device, directory };
            let menu = extlinux::parse(&text, &start, &Files { volume, menu: at });
            if !menu.entries.is_empty() {
                found.push(Located {
                    menu,
                    path,
                    system: at,
                    saved: None,
                    problems: Vec::new(),
                    reads_entries: false,
                });
            }
        }
    }
    found
}

fn started_programs(
    volume: &Volume,
    at: usize,
    _saved: Option<&SavedEnvironment>,
    _problems: &mut Vec<String>,
) -> Vec<Located> {
    offered(volume, at, true)
}

fn efi_menus(
    volume: &Volume,
    at: usize,
    _saved: Option<&SavedEnvironment>,
    _problems: &mut Vec<String>,
) -> Vec<Located> {
    offered(volume, at, false)
}

/// What an EFI system partition boots, if it is as `started` says.
fn offered(volume: &Volume, at: usize, started: bool) -> Vec<Located> {
    let offer = esp::offer(volume, at).filter(|offer| offer.started == started);
    let located = offer.map(|offer| Located {
        menu: offer.menu,
        path: offer.path.into(),
        system: at,
        saved: None,
        problems: Vec::new(),
        reads_entries: false,
    });
    located.into_iter().collect()
}

/// What is remembered beside a file that says `text`: nothing yet if it was another when `saved`
/// was.
fn still(text: &str, saved: Option<&SavedEnvironment>) -> SavedEnvironment {
    let digest = hex(&Sha256::digest(text));
    let still = saved.filter(|saved| saved.digest == digest).cloned();
    still.unwrap_or(SavedEnvironment { digest, ..SavedEnvironment::default() })
}

/// What the environment block in a directory says; and over it, what is remembered. Nothing if
/// there is none.
fn environment(
    system: &FileSystem,
    directory: &str,
    saved: Option<&SavedEnvironment>,
) -> (Variables, Option<SavedEnvironment>) {
    let text = system.read_text(&format!("{directory}/grubenv"), MAX_SMALL).ok();
    let Some((text, mut variables)) = text.and_then(|text| {
        let variables = commands::environment(&text)?;
        Some((text, variables))
    }) else {
        return Default::default();
    };
    let saved = still(&text, saved);
    variables.extend(saved.variables.clone());
    (variables, Some(saved))
}

/// What a script may ask.
struct Files<'a> {
    volume: &'a Volume,
    menu: usize,
}

impl Files<'_> {
    fn system(&self, device: &str) -> Option<&FileSystem> {
        let at = self.volume.find(&menu::device(device, 1), self.menu).ok()?;
        self.volume.systems.get(at)
    }
}

impl grubcfg::Files for Files<'_> {
    fn is_there(&self, device: &str) -> bool {
        self.system(device).is_some()
    }

    fn stat(&self, device: &str, path: &str) -> Option<(Kind, u64)> {
        self.system(device)?.stat(path)
    }

    fn read(&self, device: &str, path: &str) -> Option<String> {
        self.system(device)?.read_text(path, MAX_MENU).ok()
    }

    fn names(&self, device: &str, path: &str) -> Vec<String> {
        self.system(device).map(|system| system.names(path)).unwrap_or_default()
    }

    fn search(&self, by: By, text: &str, hints: &[&str]) -> Option<String> {
        let is = |system: &FileSystem| match by {
            By::Uuid => system.uuid.as_ref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(text)),
            By::Label => system.label.as_deref() == Some(text),
            By::File => system.stat(text).is_some(),
        };
        let hinted = hints
            .iter()
            .filter_map(|hint| self.volume.find(&menu::device(hint, 1), self.menu).ok());
        let mut all = hinted.chain(0..self.volume.systems.len());
        all.find(|&at| is(&self.volume.systems[at])).map(|at| self.volume.device(at))
    }

    fn probe(&self, device: &str, what: Probe) -> Option<String> {
        let system = self.system(device)?;
        match what {
            Probe::Uuid => system.uuid.clone(),
            Probe::Label => system.uuid.as_ref().map(|_| system.label.clone().unwrap_or_default()),
            Probe::FileSystem => system.kind().map(Into::into),
            Probe::Table => Some(match self.volume.scheme {
                Scheme::None => "none".into(),
                Scheme::Mbr => "msdos".into(),
                Scheme::Gpt => "gpt".into(),
            }),
            Probe::PartUuid => system.partuuid.clone(),
        }
    }
}
