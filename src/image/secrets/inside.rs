//! The process that looks: confined first, then reading what the guest wrote.

use super::{kind, parse_layer};
use crate::block::{Reader, partitions};
use crate::error::{Error, OrFail, Result};
use crate::sys::seccomp::{Allow, Allow::Call, Filter};
use crate::sys::{confine, fds};
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
    Call(libc::SYS_read),    // the disk
    Call(libc::SYS_pread64), // the disk
    Call(libc::SYS_preadv),  // the disk
    Call(libc::SYS_lseek),   // holes of the disk
    Call(libc::SYS_statx),   // size of the disk
    Call(libc::SYS_fstat),   // the same
    Call(libc::SYS_write),   // the answer
    Call(libc::SYS_close),   // the disk
    Call(libc::SYS_fcntl),   // std looks at what it closes
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
    name(Reader::open(files).or_fail(|| "read the disk")?, &mut say)
}

/// Name the secrets on a disk where this is called: a kind and a path each.
///
/// # Errors
/// It has no file system that can be read, or more in it than is looked at.
pub fn name(disk: Reader, say: &mut dyn FnMut(&str)) -> Result<()> {
    let disk = Rc::new(disk);
    let mut any = false;
    let mut left = Left { entries: MAX_ENTRIES, found: MAX_FOUND };
    for offset in file_systems(&disk) {
        let part = Part { disk: Rc::clone(&disk), offset };
        if let Ok(ext4) = Ext4::load(Box::new(part)) {
            any = true;
            walk(&ext4, &mut left, say)?;
        }
    }
    if any {
        return Ok(());
    }
    Err(Error::failure("no ext2, ext3 or ext4 file system was found on it"))
}

fn confine() -> Result<()> {
    confine::limit(MEMORY, Some(TIME))?;
    confine::close_files()?;
    Filter::compile(&[CALLS, confine::MEMORY_AND_END].concat())?.apply()
}

/// Where file systems may begin: at the disk's first byte, or where a partition does.
fn file_systems(disk: &Reader) -> Vec<u64> {
    let table = partitions::partitions(disk.size(), &|bytes, at| disk.read_exact_at(bytes, at));
    let mut offsets = vec![0];
    offsets.extend(table.partitions.iter().map(|partition| partition.start));
    offsets
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

fn walk(ext4: &Ext4, left: &mut Left, say: &mut dyn FnMut(&str)) -> Result<()> {
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
