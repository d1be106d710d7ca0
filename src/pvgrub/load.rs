//! From a menu to a kernel, an initial ramdisk and a command line.

use super::cmdline;
use super::find::{self, Located};
use super::menu::{Entry, Listed};
use super::uki::Program;
use super::volume::{Missing, Volume};
use crate::boot;
use crate::plan::{PvBoot, ROOT_DEVICE, SavedEnvironment};

/// Largest kernel file; distributions' have 8 to 20 MiB.
const MAX_KERNEL: u64 = 128 << 20;
/// Largest initial ramdisk, all of its parts together.
const MAX_RAMDISK: u64 = 256 << 20;
/// Longest command line of a unified kernel image.
const MAX_ARGUMENTS: u64 = 64 << 10;
/// Reasons that are told.
const MAX_REASONS: usize = 6;

/// What boots.
pub struct Loaded {
    /// The menu's path and the file system that it is on.
    pub menu: String,
    /// The entry's index and title.
    pub entry: (String, String),
    /// The kernel file.
    pub kernel: Vec<u8>,
    /// The initial ramdisk.
    pub ramdisk: Option<Vec<u8>>,
    /// The whole command line.
    pub command_line: String,
    /// Entries that could not be loaded before it, and why.
    pub skipped: Vec<String>,
    /// What the next boot is to remember.
    pub saved: Option<SavedEnvironment>,
}

/// Choose the entry as GRUB would, and load it.
///
/// # Errors
/// One line: what was looked for, or why nothing could be loaded.
pub fn load(volume: &Volume, boot: &PvBoot) -> Result<Loaded, String> {
    let located = find::find(volume, boot.from, boot.saved.as_ref())?;
    let place = located.name(volume);
    let candidates = located.menu.candidates(boot.entry.as_deref());
    let candidates = candidates.map_err(|why| format!("the menu {place}: {why}"))?;
    let mut skipped = Vec::new();
    for at in candidates {
        let entry = &located.menu.entries[at];
        match load_entry(volume, &located, entry, boot) {
            Ok((kernel, ramdisk, command_line)) => {
                skipped.splice(0..0, located.problems.iter().cloned());
                return Ok(Loaded {
                    menu: place,
                    entry: (entry.index.clone(), entry.full_title()),
                    kernel,
                    ramdisk,
                    command_line,
                    skipped,
                    saved: located.remember(at),
                });
            }
            Err(why) if skipped.len() < MAX_REASONS => {
                skipped.push(format!("entry {} '{}': {why}", entry.index, entry.full_title()));
            }
            Err(_) => {}
        }
    }
    skipped.extend(located.problems);
    Err(format!("nothing of the menu {place} can be booted: {}", skipped.join("; ")))
}

/// (kernel, initial ramdisk, command line)
type Parts = (Vec<u8>, Option<Vec<u8>>, String);
/// The file system that it is on, and what an entry says.
type Placed = (usize, Parts);

fn load_entry(
    volume: &Volume,
    located: &Located,
    entry: &Entry,
    boot: &PvBoot,
) -> Result<Parts, String> {
    if let Some(why) = entry.refused() {
        return Err(why.clone());
    }
    let path = entry.kernel.as_deref().ok_or("it has no kernel")?;
    let (at, (kernel, ramdisk, arguments)) = match entry.unified {
        Some(profile) => unified(volume, located, entry, (path, profile))?,
        None => {
            let (at, kernel) = read(volume, located, entry, path, MAX_KERNEL)
                .map_err(|why| format!("its kernel {path} can't be loaded: {why}"))?;
            let ramdisk = ramdisk(volume, located, entry)?;
            (at, (kernel, ramdisk, entry.arguments.clone()))
        }
    };
    boot::unpack::check(&kernel)
        .map_err(|why| format!("its kernel {path} is {}", why.message()))?;
    let arguments = cmdline::rewrite(&arguments, volume, at, ramdisk.is_some());
    let identity = (&boot.instance_id, boot.launch_index);
    let line = boot::cmdline::assemble(&arguments, &boot.append, ROOT_DEVICE, identity)
        .map_err(|error| error.message().to_owned())?;
    Ok((kernel, ramdisk, line))
}

/// The initial ramdisk of an entry's files.
fn ramdisk(volume: &Volume, located: &Located, entry: &Entry) -> Result<Option<Vec<u8>>, String> {
    let mut ramdisk = Vec::new();
    for initrd in &entry.initrds {
        let room = room_behind(&ramdisk);
        let (_, part) = read(volume, located, entry, initrd, room)
            .map_err(|why| format!("its initial ramdisk {initrd} can't be loaded: {why}"))?;
        append(&mut ramdisk, part);
    }
    Ok((!entry.initrds.is_empty()).then_some(ramdisk))
}

/// Bytes that a further part of an initramfs may have.
fn room_behind(ramdisk: &[u8]) -> u64 {
    MAX_RAMDISK.saturating_sub((ramdisk.len() as u64).next_multiple_of(4))
}

/// Add a part of an initramfs. Each begins at a multiple of four.
/// (Documentation/driver-api/early-userspace/buffer-format)
fn append(ramdisk: &mut Vec<u8>, part: Vec<u8>) {
    if ramdisk.is_empty() {
        *ramdisk = part;
        return;
    }
    ramdisk.resize(ramdisk.len().next_multiple_of(4), 0);
    ramdisk.extend_from_slice(&part);
}

/// What a unified kernel image has: the file system that it is on, its kernel, its initial ramdisk
/// behind the processor's microcode, and its arguments unless the entry has others. (UAPI.5)
fn unified(
    volume: &Volume,
    located: &Located,
    entry: &Entry,
    (path, profile): (&str, u32),
) -> Result<Placed, String> {
    let (at, path) = located.at(volume, entry, path)?;
    let file = (&volume.systems[at], path);
    let failed = |why: Missing| format!("its image {path} can't be loaded: {why}");
    let image = Program::open(file.0, path).map_err(failed)?;
    let read = |name, limit| image.read(file, (profile, name), limit).map_err(failed);
    let kernel = read(".linux", MAX_KERNEL)?.ok_or("it has no kernel in it")?;
    let mut ramdisk = None;
    for name in [".ucode", ".initrd"] {
        let room = ramdisk.as_deref().map_or(MAX_RAMDISK, room_behind);
        if let Some(part) = read(name, room)? {
            append(ramdisk.get_or_insert_default(), part);
        }
    }
    let arguments = match entry.arguments.is_empty() {
        true => {
            let text = image.text(file, (profile, ".cmdline"), MAX_ARGUMENTS).map_err(failed)?;
            // As its stub does, which takes what is no character for what is between words.
            text.replace(char::is_control, " ").trim().to_owned()
        }
        false => entry.arguments.clone(),
    };
    Ok((at, (kernel, ramdisk, arguments)))
}

/// Read a file of an entry. A path of the root's view is found on a /boot of its own as well, and
/// the other way round. With it comes the file system.
fn read(
    volume: &Volume,
    located: &Located,
    entry: &Entry,
    path: &str,
    limit: u64,
) -> Result<(usize, Vec<u8>), String> {
    let (at, path) = located.at(volume, entry, path)?;
    match volume.systems[at].read(path, limit) {
        Ok(bytes) => Ok((at, bytes)),
        Err(Missing::Absent) => {
            let name = volume.systems[at].name();
            Err(format!("there is no such file on {name}"))
        }
        Err(Missing::Unreadable(why)) => Err(why),
    }
}

/// The entries of the volume's menu, and the menu's path.
///
/// # Errors
/// As [`load`], short of what concerns one entry.
pub fn list(volume: &Volume, boot: &PvBoot) -> Result<(String, Vec<Listed>), String> {
    let located = find::find(volume, boot.from, boot.saved.as_ref())?;
    let order = located.menu.candidates(None).unwrap_or_default();
    let problem = |entry: &Entry| located.problem(volume, entry);
    let problems: Vec<Option<String>> = located.menu.entries.iter().map(problem).collect();
    let default = order.into_iter().find(|&at| problems[at].is_none());
    let listed = located.menu.entries.iter().zip(problems).enumerate();
    let listed = listed.map(|(at, (entry, problem))| Listed {
        index: entry.index.clone(),
        title: entry.full_title(),
        id: entry.id.clone(),
        kernel: entry.kernel.clone(),
        default: default == Some(at),
        problem,
    });
    Ok((located.name(volume), listed.collect()))
}
