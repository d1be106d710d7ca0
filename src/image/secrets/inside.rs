//! The process that looks: confined first, then reading what the guest wrote.

use super::{kind, parse_layer};
use crate::block::Reader;
use crate::error::{Error, OrFail, Result};
use crate::sys::fds;
use crate::sys::seccomp::{Allow, Allow::Call, Filter};
use ext4_view::{Ext4, Ext4Read, FileType, PathBuf};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;

/// Bytes of address space.
const MEMORY: u64 = 1 << 30;
/// Seconds of processor time.
const TIME: u64 = 60;
/// Most directory entries that are looked at.
const MAX_ENTRIES: u32 = 4_000_000;
/// Most directories that wait to be looked at.
const MAX_PENDING: usize = 100_000;
/// Most secrets that are named.
const MAX_FOUND: u32 = 100;
/// What a distribution brings, or is not on the disk.
const SKIPPED: &[&str] = &["/usr", "/boot", "/proc", "/sys", "/dev", "/lib", "/lost+found"];

/// What reading takes. Anything else ends the process.
const CALLS: &[Allow] = &[
    Call(libc::SYS_read),           // the disk
    Call(libc::SYS_pread64),        // the disk
    Call(libc::SYS_preadv),         // the disk
    Call(libc::SYS_lseek),          // holes of the disk
    Call(libc::SYS_statx),          // size of the disk
    Call(libc::SYS_fstat),          // the same
    Call(libc::SYS_write),          // the answer
    Call(libc::SYS_mmap),           // allocator
    Call(libc::SYS_munmap),         // allocator
    Call(libc::SYS_mremap),         // allocator
    Call(libc::SYS_madvise),        // allocator
    Call(libc::SYS_brk),            // allocator
    Call(libc::SYS_futex),          // locks
    Call(libc::SYS_close),          // the disk
    Call(libc::SYS_fcntl),          // std looks at what it closes
    Call(libc::SYS_sigaltstack),    // the end
    Call(libc::SYS_rt_sigprocmask), // the end
    Call(libc::SYS_exit_group),     // the end
];

/// `spore __secrets FD:FORMAT…`.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match look(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("- {}", error.message()));
            ExitCode::from(125)
        }
    }
}

/// One line of the answer. Nobody hears if nobody listens.
fn say(line: &str) {
    let mut line: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    line.push('\n');
    let _ = std::io::stdout().write_all(line.as_bytes());
}

fn look(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let layer = |text: OsString| parse_layer(&text.to_string_lossy());
    let layers = arguments.map(layer).collect::<Result<Vec<_>>>()?;
    fds::close_all_but(&layers.iter().map(|(fd, _)| *fd).collect::<Vec<_>>());
    let open =
        |&(fd, format): &(i32, _)| -> Result<(File, _)> { Ok((fds::take_file(fd)?, format)) };
    let files = layers.iter().map(open).collect::<Result<Vec<_>>>()?;
    confine()?;
    let disk = Rc::new(Reader::open(files).or_fail(|| "read the disk")?);
    let mut any = false;
    let mut left = Left { entries: MAX_ENTRIES, found: MAX_FOUND };
    for offset in file_systems(&disk)? {
        let part = Part { disk: Rc::clone(&disk), offset };
        if let Ok(ext4) = Ext4::load(Box::new(part)) {
            any = true;
            walk(&ext4, &mut left)?;
        }
    }
    if any {
        return Ok(());
    }
    Err(Error::failure("no ext2, ext3 or ext4 file system was found on it"))
}

fn confine() -> Result<()> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    };
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limits = [(Resource::As, MEMORY), (Resource::Cpu, TIME), (Resource::Core, 0)];
    for (resource, value) in limits {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).or_fail(|| "limit a process")?;
    }
    let abi = ABI::V5;
    // Best effort: a kernel without Landlock still has the filter below, which opens nothing.
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self())
        .or_fail(|| "confine a process")?;
    Filter::compile(CALLS)?.apply()
}

/// Where file systems may begin: at the disk's first byte, or where a partition does.
fn file_systems(disk: &Reader) -> Result<Vec<u64>> {
    let mut offsets = vec![0];
    let mut sector = [0u8; 512];
    if disk.read_exact_at(&mut sector, 0).is_err() || sector[510..] != [0x55, 0xaa] {
        return Ok(offsets);
    }
    // The four entries of a master boot record: type at 4, first sector at 8 (UEFI 2.10, 5.2.1).
    for entry in sector[446..510].chunks_exact(16) {
        match entry[4] {
            0 => {}
            0xee => offsets.extend(guid_partitions(disk)),
            _ => offsets.push(u64::from(u32_at(entry, 8)) * 512),
        }
    }
    offsets.dedup();
    Ok(offsets)
}

/// The first bytes of the partitions of a GUID partition table (UEFI 2.10, 5.3.2 and 5.3.3).
fn guid_partitions(disk: &Reader) -> Vec<u64> {
    let mut header = [0u8; 512];
    if disk.read_exact_at(&mut header, 512).is_err() || !header.starts_with(b"EFI PART") {
        return Vec::new();
    }
    let (table, count, size) = (u64_at(&header, 72), u32_at(&header, 80), u32_at(&header, 84));
    if !(128..=4096).contains(&size) {
        return Vec::new();
    }
    let entry = |n: u32| -> Option<u64> {
        let at = table.checked_mul(512)?.checked_add(u64::from(n) * u64::from(size))?;
        let mut entry = [0u8; 128];
        disk.read_exact_at(&mut entry, at).ok()?;
        let used = entry[..16].iter().any(|byte| *byte != 0);
        used.then(|| u64_at(&entry, 32).checked_mul(512)).flatten()
    };
    (0..count.min(128)).filter_map(entry).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// A file system's part of the disk.
struct Part {
    disk: Rc<Reader>,
    offset: u64,
}

impl Ext4Read for Part {
    fn read(
        &mut self,
        start: u64,
        to: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let at = self.offset.checked_add(start).ok_or("a block beyond the disk")?;
        Ok(self.disk.read_exact_at(to, at)?)
    }
}

/// How much may still be done.
struct Left {
    entries: u32,
    found: u32,
}

fn walk(ext4: &Ext4, left: &mut Left) -> Result<()> {
    let mut pending = vec![PathBuf::new("/")];
    while let Some(dir) = pending.pop() {
        // A directory that can't be read hides what is in it from a guest as well.
        for entry in ext4.read_dir(&dir).into_iter().flatten().flatten() {
            left.entries = left.entries.checked_sub(1).ok_or_else(too_much)?;
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = entry.path();
            let text = path.display().to_string();
            match entry.file_type() {
                Ok(FileType::Directory) if !SKIPPED.contains(&&*text) => {
                    if pending.len() >= MAX_PENDING {
                        return Err(too_much());
                    }
                    pending.push(path);
                }
                Ok(FileType::Regular) => {
                    let Some(kind) = kind(&text) else { continue };
                    if entry.metadata().is_ok_and(|meta| meta.len() > 0) {
                        left.found = left.found.checked_sub(1).ok_or_else(too_much)?;
                        say(&format!("{kind} {text}"));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn too_much() -> Error {
    Error::failure("there is more in it than is looked at")
}
