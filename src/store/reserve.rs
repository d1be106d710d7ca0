//! Room for what must be changed on a full disk.
//!
//! A few files that have blocks of their own lie in `accounts/UID/reserve`. A record that finds no space for its new
//! text gets it by one of them: the text is written into its blocks, and the two files exchange their names. What was
//! the record is the reserve's then, with its blocks, so that nothing is given up that whoever fills the disk could
//! take. Only what exists already is changed so: new objects have to find space of their own.

use super::Durability;
use rustix::fs::{
    CWD, FallocateFlags, FlockOperation, RenameFlags, fallocate, flock, renameat_with,
};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The directory in that of the account.
const RESERVE: &str = "reserve";
/// Files in it: as many records can be changed at the same time.
const FILES: usize = 8;
/// Bytes of each: records of instances have 3 KiB.
const ROOM: u64 = 16 << 10;
/// A file is in use for as long as a record takes to be written.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a write failed for want of space: ENOSPC or EDQUOT.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn slot(account: &Path, n: usize) -> PathBuf {
    account.join(RESERVE).join(n.to_string())
}

/// Set aside what is not yet. `account` is the account's directory. Without space there is less of it.
pub(super) fn fill(account: &Path) {
    let small = |n: &usize| {
        let meta = slot(account, *n).symlink_metadata();
        meta.map_or(true, |meta| meta.blocks() * 512 < ROOM)
    };
    let mut missing = (0..FILES).filter(small).peekable();
    if missing.peek().is_none() {
        return;
    }
    let _ = DirBuilder::new().mode(0o700).create(account.join(RESERVE));
    for n in missing {
        let path = slot(account, n);
        let Some(file) = claim(&path, true) else { continue };
        match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, ROOM) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => return,
            // A file system that can't reserve has bytes written.
            Err(_) => drop(file.write_all_at(&[0; ROOM as usize], 0)),
        }
    }
}

/// One of the files, for this caller alone.
fn claim(path: &Path, make: bool) -> Option<File> {
    let mut options = File::options();
    options.read(true).write(true).create(make).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    // Whoever had it may have exchanged it meanwhile.
    let (held, named) = (file.metadata().ok()?, path.symlink_metadata().ok()?);
    (held.is_file() && (held.ino(), held.dev()) == (named.ino(), named.dev())).then_some(file)
}

/// Replace the file at `path` by one with `text` and the mode of the old one, whole or not at all, without taking space.
///
/// # Errors
/// There is no reserve, or none that is large enough; I/O errors.
pub(super) fn replace(
    account: &Path,
    path: &Path,
    text: &[u8],
    durability: Durability,
) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    // Each caller begins elsewhere: a reader of the record that was exchanged last may not be done with it.
    let first = usize::try_from(super::journal::boot_ms()).unwrap_or(0);
    loop {
        let mut exist = false;
        for slot in (0..FILES).map(|n| slot(account, (first + n) % FILES)) {
            exist |= slot.exists();
            let Some(file) = claim(&slot, false) else { continue };
            if file.metadata()?.blocks() * 512 < text.len() as u64 {
                continue;
            }
            return exchange(&slot, &file, path, text, durability);
        }
        if !exist || Instant::now() >= deadline {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn exchange(
    slot: &Path,
    file: &File,
    path: &Path,
    text: &[u8],
    durability: Durability,
) -> io::Result<()> {
    let mode = path.symlink_metadata()?.permissions();
    file.write_all_at(text, 0)?;
    if file.metadata()?.len() > text.len() as u64 {
        file.set_len(text.len() as u64)?;
    }
    file.set_permissions(mode)?;
    if durability == Durability::Durable {
        file.sync_all()?;
    }
    super::fault::point("exchange of a record for the reserve");
    match renameat_with(CWD, slot, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => fs::set_permissions(slot, PermissionsExt::from_mode(0o600)),
        // A file system without this: the reserve has one less until there is space again.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            fs::rename(slot, path)
        }
        Err(error) => Err(error.into()),
    }
}

/// Give one of the files up, for what needs an inode rather than blocks. False if there is none.
pub(super) fn give_up(account: &Path) -> bool {
    (0..FILES).any(|n| fs::remove_file(slot(account, n)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_and_the_reserve_exchange_their_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        fs::write(&path, "old").unwrap();
        let write = |text: &str| replace(dir.path(), &path, text.as_bytes(), Durability::Volatile);
        assert!(is_full(&write("new").unwrap_err()), "there is no reserve yet");
        fill(dir.path());
        let blocks = |n| slot(dir.path(), n).metadata().unwrap().blocks() * 512;
        assert!((0..FILES).all(|n| blocks(n) >= ROOM), "it has blocks");
        // More often than there are files: it is never used up.
        for n in 0..3 * FILES {
            let text = format!("{n}{}", " ".repeat(n % 7));
            write(&text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path().join(RESERVE)).unwrap().count(), FILES);
        assert!(is_full(&write(&"x".repeat(1 << 20)).unwrap_err()), "it is too long");
        assert!(give_up(dir.path()));
        fill(dir.path());
        assert!((0..FILES).all(|n| blocks(n) >= ROOM), "it is whole again");
    }
}
