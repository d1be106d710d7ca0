//! From a menu to a kernel, an initial ramdisk and a command line.

use super::cmdline;
use super::find::{self, Located};
use super::menu::{Entry, Listed};
use super::volume::{Missing, Volume};
use crate::boot;
use crate::plan::{PvBoot, ROOT_DEVICE, SavedEnvironment};

/// Largest kernel file; distributions' have 8 to 20 MiB.
const MAX_KERNEL: u64 = 128 << 20;
/// Largest initial ramdisk, all of its parts together.
const MAX_RAMDISK: u64 = 256 << 20;
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
    let (at, kernel) = read(volume, located, entry, path, MAX_KERNEL)
        .map_err(|why| format!("its kernel {path} can't be loaded: {why}"))?;
    boot::unpack::check(&kernel)
        .map_err(|why| format!("its kernel {path} is {}", why.message()))?;
    let mut ramdisk: Vec<u8> = Vec::new();
    for initrd in &entry.initrds {
        let room = MAX_RAMDISK - ramdisk.len() as u64;
        let (_, part) = read(volume, located, entry, initrd, room)
            .map_err(|why| format!("its initial ramdisk {initrd} can't be loaded: {why}"))?;
        // The parts of an initramfs begin at multiples of four.
        // (Documentation/driver-api/early-userspace/buffer-format)
        ramdisk.resize(ramdisk.len().next_multiple_of(4), 0);
        ramdisk.extend_from_slice(&part);
    }
    let has_initrd = !entry.initrds.is_empty();
    let arguments = cmdline::rewrite(&entry.arguments, volume, at, has_initrd);
    let identity = (&boot.instance_id, boot.launch_index);
    let line = boot::cmdline::assemble(&arguments, &boot.append, ROOT_DEVICE, identity)
        .map_err(|error| error.message().to_owned())?;
    Ok((kernel, has_initrd.then_some(ramdisk), line))
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
