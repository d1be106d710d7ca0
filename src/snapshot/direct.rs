//! Snapshots that a client writes block by block. (EBS direct APIs)
//!
//! Until it is completed such a snapshot's content is in `blocks`, a sparse file, and the SHA-256
//! of each block that was written in `written`, which says which those are. Nobody has to be alive
//! for it to stay so. `data` is the content of its parent until then, if it has one.

use super::blocks::BLOCK;
use super::{Wanted, check, digest, open_layers, protect, settled, share};
use crate::block::Content;
use crate::disk::Disk;
use crate::error::{Code, Error, OrFail, Result};
use crate::plan::DiskFormat;
use crate::record::limits::MAX_SIZE;
use crate::record::snapshot::{BLOCKS, DATA, DirectWrite, Snapshot, SnapshotState, WRITTEN};
use crate::store::beneath;
use crate::store::{Durability, Locked, Store, check_owner, now};
use crate::sys::fault;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

/// The SHA-256 of a block.
pub type BlockDigest = [u8; 32];

/// Bytes of a block's digest.
const DIGEST: u64 = 32;
/// Digests that are read at once.
const DIGESTS: usize = 4096;

/// Begin a snapshot of `size` bytes, a multiple of [`BLOCK`], whose blocks are to be written. Those
/// that are not are `parent`'s, or zeros.
///
/// # Errors
/// `InvalidParameterValue`: the size is none, or less than the parent's; `IncorrectState`: the
/// parent is not completed; the description or a tag is malformed; no space.
pub fn start(
    store: &Store,
    wanted: Wanted,
    size: u64,
    (parent, write): (Option<&Snapshot>, DirectWrite),
) -> Result<Snapshot> {
    check(&wanted)?;
    let invalid = |why: String| Err(Error::refused(Code::InvalidParameterValue, why));
    if size == 0 || !size.is_multiple_of(BLOCK) || size > MAX_SIZE {
        return invalid(format!("a snapshot has 1 GiB to {} GiB", MAX_SIZE >> 30));
    }
    if let Some(parent) = parent {
        let id = &parent.snapshot_id;
        if parent.state != SnapshotState::Completed {
            return Err(Error::refused(Code::IncorrectState, format!("{id} is not completed")));
        }
        if parent.size_bytes > size {
            return invalid(format!("{id} has {} bytes, which is more", parent.size_bytes));
        }
    }
    let content = (parent.map_or(DiskFormat::Raw, |parent| parent.format), String::new());
    let mut snapshot = Snapshot::flat(wanted.snapshot_id, (store.owner_id(), now()), size, content);
    snapshot.state = SnapshotState::Pending;
    snapshot.layers = parent.map(|parent| parent.layers.clone()).unwrap_or_default();
    snapshot.description = wanted.description;
    snapshot.tags = wanted.tags;
    snapshot.direct_write = Some(write);
    store.snapshots().create(Durability::Durable, |dir| {
        let dir = beneath::owned(dir)?;
        let make = || {
            dir.create_anew(BLOCKS, 0o600)?.set_len(size)?;
            dir.create_anew(WRITTEN, 0o600)?.set_len(size / BLOCK * DIGEST)
        };
        make().or_fail(|| "make the file that blocks are written into")?;
        if let Some(parent) = parent {
            share(store, parent, &dir)?;
        }
        Ok(snapshot)
    })
}

/// A snapshot of the user's own whose blocks are written.
///
/// # Errors
/// `InvalidSnapshot.NotFound`, `AuthFailure`; `IncorrectState`: it is completed, in error, or none
/// that is written so.
fn unfinished(store: &Store, record: &Snapshot) -> Result<()> {
    check_owner(store, record)?;
    let writing = record.direct_write.as_ref().is_some_and(|write| !write.completing);
    let settled = settled(store, record.clone());
    if writing && settled.state == SnapshotState::Pending {
        return Ok(());
    }
    let id = &record.snapshot_id;
    let why = match settled.state_message {
        Some(why) => format!("{id} is in error: {why}"),
        None => format!("{id} is not one whose blocks are being written"),
    };
    Err(Error::refused(Code::IncorrectState, why))
}

/// Write a block of an unfinished snapshot. Several may be written at once.
///
/// # Errors
/// As [`unfinished`]'s; `InvalidParameterValue`: there is no such block; no space.
pub fn put(store: &Store, record: &Snapshot, index: u64, bytes: &[u8]) -> Result<BlockDigest> {
    unfinished(store, record)?;
    let id = &record.snapshot_id;
    if index >= record.size_bytes / BLOCK || bytes.len() as u64 != BLOCK {
        let why =
            format!("{id} has blocks 0 to {} of {BLOCK} bytes", record.size_bytes / BLOCK - 1);
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    let doing = || format!("write block {index} of {id}");
    let dir = beneath::owned(&store.snapshots().dir(id))?;
    let written = dir.writable(WRITTEN).or_fail(doing)?;
    flock(&written, FlockOperation::LockShared).or_fail(doing)?;
    // It may have been completed before this one's turn.
    unfinished(store, &store.snapshots().get(id)?)?;
    let content = dir.writable(BLOCKS).or_fail(doing)?;
    let at = index * BLOCK;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let made = digest::is_zero(bytes) && fallocate(&content, hole, at, BLOCK).is_ok();
    if !made {
        content.write_all_at(bytes, at).or_fail(doing)?;
    }
    fault::point("a block that is not said to be written");
    let digest: BlockDigest = Sha256::digest(bytes).into();
    written.write_all_at(&digest, index * DIGEST).or_fail(doing)?;
    Ok(digest)
}

/// An unfinished snapshot of which nothing is written any more.
#[derive(Debug)]
pub struct Completing {
    locked: Locked<Snapshot>,
}

/// Let nobody write blocks of a snapshot any more. `None`: it is completed, or being so.
///
/// # Errors
/// As [`unfinished`]'s; `InvalidParameterValue`: other blocks were written than the client says by
/// their number or by the SHA-256 of their digests.
pub fn seal(
    store: &Store,
    record: &Snapshot,
    (count, checksum): (u64, Option<BlockDigest>),
) -> Result<Option<Completing>> {
    check_owner(store, record)?;
    let id = &record.snapshot_id;
    let done = |record: &Snapshot| {
        record.direct_write.is_some() && record.state == SnapshotState::Completed
    };
    let completing = record.direct_write.as_ref().is_some_and(|write| write.completing);
    if done(record) || completing && store.snapshots().is_locked(id)? {
        return Ok(None);
    }
    let mut locked = store.snapshots().lock(id)?;
    if done(&locked.record) {
        return Ok(None);
    }
    if !locked.record.direct_write.as_ref().is_some_and(|write| write.completing) {
        unfinished(store, &locked.record)?;
    }
    let doing = || format!("complete {id}");
    let written = locked.owned().writable(WRITTEN).or_fail(doing)?;
    flock(&written, FlockOperation::LockExclusive).or_fail(doing)?;
    let (mut found, mut sum) = (0, Sha256::new());
    each_written(&written, &mut |_, digest| {
        found += 1;
        sum.update(digest);
        Ok(())
    })?;
    let invalid = |why: String| Err(Error::refused(Code::InvalidParameterValue, why));
    if found != count {
        return invalid(format!("{found} blocks of {id} were written, and not {count}"));
    }
    if checksum.is_some_and(|checksum| checksum != <BlockDigest>::from(sum.finalize())) {
        return invalid(format!("the blocks of {id} have another checksum"));
    }
    if let Some(write) = &mut locked.record.direct_write {
        write.completing = true;
    }
    locked.save(Durability::Durable)?;
    Ok(Some(Completing { locked }))
}

/// Each block that was written, in order.
fn each_written(
    written: &File,
    each: &mut dyn FnMut(u64, &BlockDigest) -> Result<()>,
) -> Result<()> {
    let doing = || "read which blocks were written";
    let mut buffer = vec![0; DIGESTS * DIGEST as usize];
    let size = written.metadata().or_fail(doing)?.len();
    let mut at = 0;
    while at < size {
        // Most of a large one was never written.
        match rustix::fs::seek(written, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => at = at.max(data / DIGEST * DIGEST),
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(_) => {}
        }
        let some = &mut buffer[..(size - at).min(DIGESTS as u64 * DIGEST) as usize];
        written.read_exact_at(some, at).or_fail(doing)?;
        for (n, digest) in (at / DIGEST..).zip(some.chunks_exact(DIGEST as usize)) {
            if let Some(digest) = digest.first_chunk().filter(|digest| **digest != [0; 32]) {
                each(n, digest)?;
            }
        }
        at += some.len() as u64;
    }
    Ok(())
}

impl Completing {
    /// The record so far.
    pub fn record(&self) -> &Snapshot {
        &self.locked.record
    }

    /// Make it whole: what was written is looked at, the parent's blocks come to it, and it is
    /// completed. If that fails it is in error.
    ///
    /// # Errors
    /// What was written is not there any more, since the host lost power; no space; cancelled.
    pub fn complete(mut self) -> Result<Snapshot> {
        match self.whole() {
            Ok(()) => Ok(self.locked.record.clone()),
            Err(error) => {
                let record = &mut self.locked.record;
                record.state = SnapshotState::Error;
                record.state_message = Some(error.message().to_owned());
                // If even that can't be written, it can be completed again.
                let _ = self.locked.save(Durability::Durable);
                Err(error)
            }
        }
    }

    fn whole(&mut self) -> Result<()> {
        let id = self.locked.record.snapshot_id.clone();
        let doing = || format!("complete {id}");
        let context = self.locked.store().context().clone();
        let below = self.locked.record.layers.clone();
        match self.locked.owned().writable(BLOCKS) {
            // It was made whole before, by what was killed then.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            blocks => {
                let blocks = blocks.or_fail(doing)?;
                self.fill(&blocks)?;
                blocks.sync_all().or_fail(doing)?;
                fault::point("the content of a snapshot that was written block by block");
                self.locked.owned().rename(BLOCKS, DATA).or_fail(doing)?;
            }
        }
        protect(self.locked.owned(), DATA)?;
        let data = self.locked.owned().file(DATA).or_fail(doing)?;
        let disk = Disk::open(vec![(data, DiskFormat::Raw)]).or_fail(doing)?;
        let record = &mut self.locked.record;
        record.digest = digest::disk(&disk, &mut |_| context.check())?;
        (record.format, record.state) = (DiskFormat::Raw, SnapshotState::Completed);
        record.layers.clear();
        if let Some(write) = &mut record.direct_write {
            write.completing = false;
        }
        fault::point("completion of a snapshot that was written block by block");
        self.locked.save(Durability::Durable)?;
        let left = std::iter::once(WRITTEN).chain(below.iter().map(|layer| &*layer.file));
        // What stays only costs space.
        left.for_each(|name| drop(self.locked.owned().remove(name)));
        Ok(())
    }

    /// Looks whether what was written is there, and gives it the parent's blocks beside.
    fn fill(&self, blocks: &File) -> Result<()> {
        let record = &self.locked.record;
        let store = self.locked.store();
        let id = &record.snapshot_id;
        let parent = record.direct_write.as_ref().and_then(|w| w.parent_snapshot_id.as_ref());
        let mut parent = match parent {
            None => None,
            Some(_) => Some(Disk::open(open_layers(store, record)?).or_fail(|| "read the parent")?),
        };
        let mut bytes = vec![0; BLOCK as usize];
        let mut next = 0;
        let written = self.locked.owned().writable(WRITTEN).or_fail(|| format!("complete {id}"))?;
        each_written(&written, &mut |index, digest| {
            store.context().check()?;
            if let Some(parent) = &mut parent {
                bring(parent, blocks, next..index)?;
            }
            next = index + 1;
            let read = blocks.read_exact_at(&mut bytes, index * BLOCK);
            read.or_fail(|| format!("read block {index} of {id}"))?;
            if <BlockDigest>::from(Sha256::digest(&bytes)) == *digest {
                return Ok(());
            }
            Err(Error::failure(format!(
                "block {index} of {id} is not what was written; write it again"
            )))
        })?;
        match &parent {
            None => Ok(()),
            Some(parent) => bring(parent, blocks, next..record.size_bytes / BLOCK),
        }
    }
}

/// Copies the data of a range of blocks.
fn bring(from: &Disk, to: &File, range: std::ops::Range<u64>) -> Result<()> {
    let end = (range.end * BLOCK).min(from.size());
    let mut at = range.start * BLOCK;
    let mut bytes = vec![0; BLOCK as usize];
    while at < end {
        let Some(extent) = from.extent_at(at).or_fail(|| "read the parent's tables")? else {
            break;
        };
        let len = extent.len.min(end - at).min(BLOCK);
        if extent.content == Content::Data {
            let some = &mut bytes[..len as usize];
            from.read_exact_at(some, at).or_fail(|| "read the parent")?;
            to.write_all_at(some, at).or_fail(|| "write the parent's blocks")?;
        }
        at += if extent.content == Content::Data { len } else { extent.len.max(512) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SnapshotId;
    use crate::snapshot::blocks;
    use crate::snapshot::delete;
    use crate::store::beneath::Owned;

    fn begun(store: &Store, parent: Option<&Snapshot>) -> Snapshot {
        let wanted = Wanted {
            snapshot_id: SnapshotId::generate().unwrap(),
            description: String::new(),
            tags: Vec::new(),
        };
        let write = DirectWrite {
            client_token: None,
            parent_snapshot_id: parent.map(|parent| parent.snapshot_id.clone()),
            timeout: 60,
            completing: false,
        };
        start(store, wanted, 8 * BLOCK, (parent, write)).unwrap()
    }

    fn block(byte: u8) -> Vec<u8> {
        vec![byte; BLOCK as usize]
    }

    fn first_bytes(store: &Store, snapshot: &Snapshot) -> Vec<u8> {
        let disk = Disk::open(open_layers(store, snapshot).unwrap()).unwrap();
        (0..8).map(|n| blocks::read(&disk, n).unwrap()[7]).collect()
    }

    fn completed(store: &Store, snapshot: &Snapshot, count: u64) -> Snapshot {
        let sealed = seal(store, snapshot, (count, None)).unwrap();
        sealed.unwrap().complete().unwrap()
    }

    #[test]
    fn what_was_written_and_the_parents_rest_is_the_content() {
        let (_dir, store) = Store::scratch();
        let first = begun(&store, None);
        for (index, byte) in [(0, 1), (2, 2), (7, 3), (2, 4)] {
            put(&store, &first, index, &block(byte)).unwrap();
        }
        let first = completed(&store, &first, 3);
        assert_eq!(first_bytes(&store, &first), [1, 0, 4, 0, 0, 0, 0, 3]);
        let second = begun(&store, Some(&first));
        put(&store, &second, 0, &block(0)).unwrap();
        put(&store, &second, 1, &block(5)).unwrap();
        delete(&store, &first.snapshot_id, false).unwrap();
        let second = completed(&store, &second, 2);
        assert_eq!(first_bytes(&store, &second), [0, 5, 4, 0, 0, 0, 0, 3]);
        crate::snapshot::verify(&store, &second).unwrap();
        assert!(seal(&store, &second, (2, None)).unwrap().is_none(), "it is completed already");
        assert_eq!(
            put(&store, &second, 0, &block(1)).unwrap_err().code(),
            Some(Code::IncorrectState)
        );
    }

    #[test]
    fn what_dies_halfway_goes_on() {
        let (_dir, store) = Store::scratch();
        let first = begun(&store, None);
        put(&store, &first, 1, &block(1)).unwrap();
        assert_eq!(settled(&store, first.clone()).state, SnapshotState::Pending);
        // Whoever completes it dies before and after the content has its name.
        for renamed in [false, true] {
            let sealed = seal(&store, &first, (1, None)).unwrap().unwrap();
            if renamed {
                sealed.locked.owned().rename(BLOCKS, DATA).unwrap();
            }
            drop(sealed);
            let found = store.snapshots().get(&first.snapshot_id).unwrap();
            assert_eq!(settled(&store, found.clone()).state, SnapshotState::Error);
            assert!(put(&store, &found, 1, &block(2)).is_err());
        }
        let first = completed(&store, &first, 1);
        assert_eq!(first_bytes(&store, &first), [0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_not_what_the_client_says_is_refused() {
        let (_dir, store) = Store::scratch();
        let first = begun(&store, None);
        let digest = put(&store, &first, 1, &block(1)).unwrap();
        for bad in [(2, None), (1, Some(digest)), (0, None)] {
            let error = seal(&store, &first, bad).unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidParameterValue), "{bad:?}");
        }
        for (index, bytes) in [(8, block(1)), (0, vec![1; 512]), (u64::MAX, block(1))] {
            let error = put(&store, &first, index, &bytes).unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidParameterValue), "{index}");
        }
        // As after a loss of power.
        let dir = Owned::open(&store.snapshots().dir(&first.snapshot_id)).unwrap();
        dir.writable(BLOCKS).unwrap().write_all_at(&[9], BLOCK).unwrap();
        let whole = Sha256::digest(digest).into();
        let sealed = seal(&store, &first, (1, Some(whole))).unwrap().unwrap();
        assert!(sealed.complete().unwrap_err().message().contains("not what was written"));
        let found = store.snapshots().get(&first.snapshot_id).unwrap();
        assert_eq!(found.state, SnapshotState::Error);
        delete(&store, &first.snapshot_id, false).unwrap();
    }

    #[test]
    fn what_nobody_writes_any_more_is_in_error() {
        let (_dir, store) = Store::scratch();
        let first = begun(&store, None);
        let dir = Owned::open(&store.snapshots().dir(&first.snapshot_id)).unwrap();
        let written = dir.writable(WRITTEN).unwrap();
        let past = std::time::SystemTime::now() - std::time::Duration::from_secs(3700);
        written.set_modified(past).unwrap();
        let error = put(&store, &first, 0, &block(1)).unwrap_err();
        assert!(error.message().contains("for 60 minutes"), "{error}");
        assert_eq!(settled(&store, first.clone()).state, SnapshotState::Error);
        delete(&store, &first.snapshot_id, false).unwrap();
    }
}
