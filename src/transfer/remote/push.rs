//! Copies of images into remote regions.

use super::collect;
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{SnapshotId, hex};
use crate::plan::DiskFormat;
use crate::record::image::Image;
use crate::record::name;
use crate::record::snapshot::Snapshot;
use crate::snapshot::digest::is_zero;
use crate::snapshot::{self, Wanted};
use crate::store::{Store, now};
use crate::sys::threads;
use crate::transfer::chunk::pack;
use crate::transfer::copy;
use crate::transfer::export::each_chunk;
use crate::transfer::package::{
    self, Chunk, Content, NewImage, Package, SNAPSHOT_FORMAT, SnapshotPackage,
};
use crate::transfer::remote::client::{PARALLEL, Remote, all_chunks, each_once};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

/// Copy an image of a store into a remote region.
///
/// # Errors
/// The image can't be copied, the name is malformed or taken there, the region fails: what it has by then is not
/// sent again.
pub fn image(from: &Store, image: &Image, to: &Remote, new: &NewImage) -> Result<Image> {
    let mut package = Package::of(from, image)?;
    package.renew(new, to.account())?;
    check_free(to, &new.name)?;
    let _flag = collect::announce(to)?;
    send_all(from, image, to, &mut package).map_err(|error| match error.code() {
        Some(Code::Unavailable) => {
            error.remedy("what it has is not sent again when you run this again")
        }
        _ => error,
    })?;
    to.context().check()?;
    to.publish(&package)?;
    Ok(package.image)
}

/// Copy an image from one remote region to another. Nothing of it is kept here.
///
/// # Errors
/// As [`image`]'s; there is no such image in `from`.
pub fn relay(from: &Remote, text: &str, to: &Remote, new: &NewImage) -> Result<Image> {
    let mut package = from.resolve(text)?;
    package.renew(new, to.account())?;
    check_free(to, &new.name)?;
    let _flag = collect::announce(to)?;
    pass(from, &all_chunks(&package), to)?;
    to.publish(&package)?;
    Ok(package.image)
}

/// Copy a snapshot of a store into a remote region.
///
/// # Errors
/// It is not completed, `wanted` is malformed, the region fails.
pub fn snapshot(from: &Store, id: &SnapshotId, to: &Remote, wanted: Wanted) -> Result<Snapshot> {
    let source = package::available(from, id)?;
    let mut disk = Content::of(&source);
    let copy = renewed(source, wanted, to)?;
    let _flag = collect::announce(to)?;
    let reader = copy::open(from, id)?;
    send(to, &mut disk, |disk, take| each_chunk(&reader, disk, take))?;
    let format = SNAPSHOT_FORMAT.to_owned();
    to.publish_snapshot(&SnapshotPackage { format, snapshot: copy.clone(), disk: Some(disk) })?;
    Ok(copy)
}

/// Copy a snapshot from one remote region to another.
///
/// # Errors
/// As [`snapshot`]'s; there is no such snapshot in `from`.
pub fn relay_snapshot(
    from: &Remote,
    id: &SnapshotId,
    to: &Remote,
    wanted: Wanted,
) -> Result<Snapshot> {
    let package = from.snapshot(id)?;
    let copy = renewed(package.snapshot, wanted, to)?;
    let _flag = collect::announce(to)?;
    pass(from, &each_once(package.disk.iter()), to)?;
    to.publish_snapshot(&SnapshotPackage { snapshot: copy.clone(), ..package })?;
    Ok(copy)
}

/// A snapshot as it is to be in a remote region, where it is one file.
fn renewed(source: Snapshot, wanted: Wanted, to: &Remote) -> Result<Snapshot> {
    snapshot::check(&wanted)?;
    let made = (to.account(), now());
    let content = (DiskFormat::Raw, source.digest);
    let mut copy = Snapshot::flat(wanted.snapshot_id, made, source.size_bytes, content);
    (copy.description, copy.tags) = (wanted.description, wanted.tags);
    Ok(copy)
}

/// Hand on what the other region lacks, several chunks at a time.
fn pass(from: &Remote, chunks: &[&Chunk], to: &Remote) -> Result<()> {
    threads::try_each(PARALLEL, chunks.iter().copied().map(Ok), |chunk| {
        to.context().check()?;
        if to.has(chunk)? { Ok(()) } else { to.put(chunk, from.get(chunk)?) }
    })
}

fn check_free(to: &Remote, name: &str) -> Result<()> {
    name::check(name)?;
    let me = to.account();
    match to.images()?.iter().find(|p| p.image.name == name && p.image.owner_id == me) {
        None => Ok(()),
        Some(holder) => Err(Error::refused(
            Code::InvalidAMINameDuplicate,
            format!(
                "the name '{name}' is taken in '{}' by {}; choose another",
                to.name(),
                holder.image.image_id
            ),
        )),
    }
}

fn send_all(from: &Store, image: &Image, to: &Remote, package: &mut Package) -> Result<()> {
    if let (Some(file), Some(content)) = (package::open_kernel(from, image)?, &mut package.kernel) {
        send(to, content, |content, take| each_piece(&file, content, take))?;
    }
    if let (Some(file), Some(content)) = (package::open_ramdisk(from, image)?, &mut package.ramdisk)
    {
        send(to, content, |content, take| each_piece(&file, content, take))?;
    }
    for disk in &mut package.disks {
        let reader = copy::open(from, &disk.name.parse()?)?;
        send(to, disk, |disk, take| each_chunk(&reader, disk, take))?;
    }
    Ok(())
}

/// Takes a chunk's place and bytes.
type Take<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<()>;

/// A kernel's or ramdisk's chunks.
fn each_piece(file: &File, content: &Content, take: Take<'_>) -> Result<()> {
    let (mut sum, mut offset) = (Sha256::new(), 0);
    while offset < content.size_bytes {
        let mut bytes = vec![0; content.chunk_len(offset)];
        file.read_exact_at(&mut bytes, offset).or_fail(|| format!("read {}", content.name))?;
        sum.update(&bytes);
        take(offset, &bytes)?;
        offset += bytes.len() as u64;
    }
    if hex(&sum.finalize()) == content.digest {
        return Ok(());
    }
    Err(Error::failure(format!("{} changed while it was read; try again", content.name)))
}

/// Send content's chunks, several at a time, and list them in it.
fn send(
    to: &Remote,
    content: &mut Content,
    read: impl FnOnce(&Content, Take<'_>) -> Result<()>,
) -> Result<()> {
    let progress = to.context().progress(Some(content.size_bytes));
    let (sender, receiver) = sync_channel::<(u64, Vec<u8>)>(1);
    let (receiver, done) = (Mutex::new(receiver), Mutex::new(Ok(Vec::new())));
    let result = std::thread::scope(|scope| {
        let start = || Builder::new().spawn_scoped(scope, || work(to, &receiver, &done));
        start().or_fail(|| "start a sending thread")?;
        // Where the user may have no more threads, there are fewer.
        let _more = (1..PARALLEL).map_while(|_| start().ok()).count();
        // Dropped at the end, so that the threads end.
        let sender = sender;
        read(content, &mut |offset, bytes| {
            progress.check()?;
            progress.at(offset);
            if done.lock().unwrap_or_else(PoisonError::into_inner).is_err() {
                return Err(Error::failure("the region failed"));
            }
            if is_zero(bytes) {
                return Ok(());
            }
            sender.send((offset, bytes.to_vec())).or_fail(|| "hand a chunk to a sending thread")
        })
    });
    let mut chunks = done.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    result?;
    chunks.sort_by_key(|chunk| chunk.offset);
    content.chunks = chunks;
    Ok(())
}

type Done = Mutex<Result<Vec<Chunk>>>;

fn work(to: &Remote, receiver: &Mutex<Receiver<(u64, Vec<u8>)>>, done: &Done) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((offset, bytes)) = next else { return };
        if done.lock().unwrap_or_else(PoisonError::into_inner).is_err() {
            continue;
        }
        let sent = pack(&bytes, offset).and_then(|(chunk, packed)| {
            if !to.has(&chunk)? {
                to.put(&chunk, packed)?;
            }
            Ok(chunk)
        });
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *done, sent) {
            (Ok(chunks), Ok(chunk)) => chunks.push(chunk),
            (Ok(_), Err(error)) => *done = Err(error),
            (Err(_), _) => {}
        }
    }
}
