//! The process that looks: confined first, then reading what the guest wrote.

use super::kinds::{ACCOUNTS, kind, password};
use crate::block::signature::{self, Signature};
use crate::block::{Reader, partitions};
use crate::disk::parse_format;
use crate::error::{Error, OrFail, Result};
use crate::ext4::{Ext4, Kind};
use crate::helper::{Ends, Given, Helper, Syscalls, one_line};
use crate::sys::seccomp::{Allow, Allow::Call};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::rc::Rc;

/// Bytes of address space.
const MEMORY: u64 = 1 << 30;
/// Seconds of processor time.
const TIME: u64 = 60;
/// Most directory entries that are looked at.
const MAX_ENTRIES: u32 = 4_000_000;
/// Most directories that wait to be looked at.
const MAX_PENDING: usize = 100_000;
/// Longest line of the answer, in characters: a path.
const MAX_LINE: usize = 8192;
/// Most bytes of a file of accounts.
const MAX_ACCOUNTS: u64 = 1 << 20;
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

/// The look, with the snapshot's files, each noted with its format.
pub(crate) const HELPER: Helper = Helper {
    word: "__secrets",
    syscalls: Syscalls::These(CALLS),
    memory: MEMORY,
    seconds: Some(TIME),
    ends: Ends::WithParent,
    environment: &[],
    run,
};

fn run(files: Vec<Given>) -> Result<()> {
    look(files).inspect_err(|error| say(&format!("- {}", error.message())))
}

/// One line of the answer. Nobody hears if nobody listens.
fn say(line: &str) {
    let mut line = one_line(line, MAX_LINE);
    line.push('\n');
    let _ = std::io::stdout().write_all(line.as_bytes());
}

fn look(files: Vec<Given>) -> Result<()> {
    let layer = |given: Given| {
        let format = parse_format(given.text()?)?;
        Ok((given.file, format))
    };
    let files = files.into_iter().map(layer).collect::<Result<Vec<_>>>()?;
    name(Reader::open(files).or_fail(|| "read the disk")?, &mut say)
}

/// Name the secrets on a disk where this is called: a kind and a path each.
///
/// # Errors
/// It has no file system that can be read, one that can't, or more in it than is looked at.
pub fn name(disk: Reader, say: &mut dyn FnMut(&str)) -> Result<()> {
    let disk = &Rc::new(disk);
    let (mut any, mut unread) = (false, Vec::new());
    let mut left = Left { entries: MAX_ENTRIES, found: MAX_FOUND };
    for place in places(disk) {
        let Place { name, start, len, needed } = place;
        let part = Rc::clone(disk);
        let read = move |bytes: &mut [u8], at: u64| {
            let within = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= len);
            let at = start.checked_add(at).filter(|_| within);
            part.read_exact_at(bytes, at.ok_or(io::ErrorKind::UnexpectedEof)?)
        };
        let what = signature::of(len, &read);
        match Ext4::open(Box::new(read)) {
            Ok(ext4) => {
                any = true;
                unread.extend(ext4.unreplayed().map(|why| format!("{name}: {why}")));
                let damaged = walk(&ext4, &mut left, say)?;
                unread.extend(damaged.map(|why| format!("{name}: {why}")));
            }
            Err(why) if what == Some(Signature::Ext) => unread.push(format!("{name}: {why}")),
            Err(_) if needed && what.is_none_or(Signature::may_hold_files) => {
                let what = what.map_or("of a kind that is not known".into(), |w| w.to_string());
                unread.push(format!("{name} is {what}, which is not read"));
            }
            Err(_) => {}
        }
    }
    match (any, &unread[..]) {
        (true, []) => Ok(()),
        (false, []) => Err(Error::failure("no ext2, ext3 or ext4 file system was found on it")),
        (_, unread) => Err(Error::failure(unread.join("; "))),
    }
}

/// Where a file system may be.
struct Place {
    /// What it is called.
    name: String,
    start: u64,
    len: u64,
    /// There are files in it unless it is known that there are none.
    needed: bool,
}

/// All of the disk, which may have what an older use left there, and its partitions.
fn places(disk: &Reader) -> Vec<Place> {
    let size = disk.size();
    let table = partitions::partitions(size, &|bytes, at| disk.read_exact_at(bytes, at));
    let needed = table.partitions.is_empty();
    let mut places = vec![Place { name: "the disk".into(), start: 0, len: size, needed }];
    places.extend(table.partitions.iter().map(|partition| Place {
        name: format!("partition {}", partition.number),
        start: partition.start,
        len: partition.len,
        needed: !partition.is_auxiliary(),
    }));
    places
}

/// How much may still be done.
struct Left {
    entries: u32,
    found: u32,
}

/// Go through all of a file system. What keeps something from being read is given, the first of it.
fn walk(ext4: &Ext4, left: &mut Left, say: &mut dyn FnMut(&str)) -> Result<Option<String>> {
    let root = ext4.root().map_err(|why| Error::failure(format!("its root directory: {why}")))?;
    let mut pending = vec![(String::new(), root)];
    let (mut over, mut damaged) = (false, None);
    while let Some((parent, directory)) = pending.pop() {
        let listed = ext4.list(directory, &mut |name, found| {
            let path = format!("{parent}/{}", String::from_utf8_lossy(name));
            let room = left.entries.checked_sub(1).map(|entries| left.entries = entries);
            over |= room.is_none();
            match found.kind {
                Kind::Directory if !SKIPPED.contains(&&*path) => {
                    over |= pending.len() >= MAX_PENDING;
                    pending.push((path, found));
                }
                Kind::File if found.len > 0 => {
                    if let Some(kind) = kind(&path) {
                        match left.found.checked_sub(1) {
                            Some(found) => {
                                left.found = found;
                                say(&format!("{kind} {path}"));
                            }
                            None => over = true,
                        }
                    }
                }
                _ => {}
            }
            if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if over {
            return Err(too_much());
        }
        if let Err(why) = listed {
            damaged.get_or_insert_with(|| {
                format!("{}: {why}", if parent.is_empty() { "/" } else { &parent })
            });
        }
    }
    accounts(ext4, left, say);
    Ok(damaged)
}

/// Name the accounts whose password is none, or can be guessed at leisure. A file that can't be
/// read has been told of by its directory.
fn accounts(ext4: &Ext4, left: &mut Left, say: &mut dyn FnMut(&str)) {
    for path in ACCOUNTS {
        let bytes = ext4.read(path, MAX_ACCOUNTS).unwrap_or_default();
        for (kind, name) in String::from_utf8_lossy(&bytes).lines().filter_map(password) {
            let Some(found) = left.found.checked_sub(1) else { return };
            left.found = found;
            say(&format!("{kind} {path}: {name}"));
        }
    }
}

fn too_much() -> Error {
    Error::failure("there is more in it than is looked at")
}
