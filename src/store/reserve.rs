//! Room for what must be changed on a full disk.
//!
//! A few files that have blocks of their own lie in `accounts/UID/reserve`. A record that finds no
//! space for its new text gets it by one of them: the text is written into its blocks, and the two
//! files exchange their names. What was the record is the reserve's then, with its blocks, so that
//! nothing is given up that whoever fills the disk could take. Only what exists already is changed
//! so: new objects have to find space of their own.

use super::beneath::Owned;
use super::time::boot_ms;
use crate::record::Durability;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, fstat};
use rustix::io::Errno;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
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

/// The reserve of the account whose directory that is.
fn open(account: &Path) -> io::Result<Owned> {
    Owned::open(account)?.dir(RESERVE)
}

fn slots() -> impl Iterator<Item = String> {
    (0..FILES).map(|n| n.to_string())
}

/// Set aside what is not yet. `account` is the account's directory. Without space there is less of
/// it.
pub(super) fn fill(account: &Owned) {
    let Ok(dir) = account.make_dir(RESERVE) else { return };
    let small = |slot: &String| {
        dir.stat(slot).map_or(true, |stat| stat.st_blocks.cast_unsigned() * 512 < ROOM)
    };
    for slot in slots().filter(small) {
        let Some(file) = claim(&dir, &slot, true) else { continue };
        match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, ROOM) {
            Ok(()) => {}
            Err(Errno::NOSPC | Errno::DQUOT) => return,
            // A file system that can't reserve has bytes written.
            Err(_) => drop(file.write_all_at(&[0; ROOM as usize], 0)),
        }
    }
}

/// One of the files, for this caller alone.
fn claim(dir: &Owned, slot: &str, make: bool) -> Option<File> {
    let file = if make { dir.open_or_create(slot) } else { dir.writable(slot) }.ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    // Whoever had it may have exchanged it meanwhile.
    let (held, named) = (fstat(&file).ok()?, dir.stat(slot).ok()?);
    ((held.st_ino, held.st_dev) == (named.st_ino, named.st_dev)).then_some(file)
}

/// Replace the file `name` in `to` by one with `text` and the mode of the old one, whole or not at
/// all, without taking space.
///
/// # Errors
/// There is no reserve, or none that is large enough; I/O errors.
pub(super) fn replace(
    account: &Path,
    to: &Owned,
    name: &str,
    text: &[u8],
    durability: Durability,
) -> io::Result<()> {
    let none = || io::Error::from_raw_os_error(libc::ENOSPC);
    let dir = open(account).map_err(|_| none())?;
    let deadline = Instant::now() + PATIENCE;
    // Each caller begins elsewhere: a reader of the record that was exchanged last may not be done
    // with it.
    let first = usize::try_from(boot_ms()).unwrap_or(0);
    loop {
        let mut exist = false;
        for slot in (0..FILES).map(|n| ((first + n) % FILES).to_string()) {
            exist |= dir.has(&slot);
            let Some(file) = claim(&dir, &slot, false) else { continue };
            if file.metadata()?.blocks() * 512 < text.len() as u64 {
                continue;
            }
            return exchange((&dir, &slot), &file, (to, name), text, durability);
        }
        if !exist || Instant::now() >= deadline {
            return Err(none());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn exchange(
    (dir, slot): (&Owned, &str),
    file: &File,
    (to, name): (&Owned, &str),
    text: &[u8],
    durability: Durability,
) -> io::Result<()> {
    let mode = to.stat(name)?.st_mode & 0o777;
    file.write_all_at(text, 0)?;
    if file.metadata()?.len() > text.len() as u64 {
        file.set_len(text.len() as u64)?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    if durability == Durability::Durable {
        file.sync_all()?;
    }
    crate::sys::fault::point("exchange of a record for the reserve");
    match dir.exchange(slot, to, name) {
        Ok(()) => dir.set_mode(slot, 0o600),
        // A file system without this: the reserve has one less until there is space again.
        Err(e)
            if [libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP]
                .map(Some)
                .contains(&e.raw_os_error()) =>
        {
            dir.move_to(slot, to, name)
        }
        Err(error) => Err(error),
    }
}

/// Give one of the files up, for what needs an inode rather than blocks. False if there is none.
pub fn give_up(account: &Path) -> bool {
    open(account).is_ok_and(|dir| slots().any(|slot| dir.remove(&slot).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_record_and_the_reserve_exchange_their_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let owned = Owned::open(dir.path()).unwrap();
        let path = dir.path().join("record.json");
        fs::write(&path, "old").unwrap();
        let write = |text: &str| {
            replace(dir.path(), &owned, "record.json", text.as_bytes(), Durability::Volatile)
        };
        assert!(is_full(&write("new").unwrap_err()), "there is no reserve yet");
        fill(&owned);
        let reserve = dir.path().join(RESERVE);
        let blocks = |n: usize| reserve.join(n.to_string()).metadata().unwrap().blocks() * 512;
        assert!((0..FILES).all(|n| blocks(n) >= ROOM), "it has blocks");
        // More often than there are files: it is never used up.
        for n in 0..3 * FILES {
            let text = format!("{n}{}", " ".repeat(n % 7));
            write(&text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(&reserve).unwrap().count(), FILES);
        assert!(is_full(&write(&"x".repeat(1 << 20)).unwrap_err()), "it is too long");
        assert!(give_up(dir.path()));
        fill(&owned);
        assert!((0..FILES).all(|n| blocks(n) >= ROOM), "it is whole again");
    }
}
