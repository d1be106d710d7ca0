//! Giving back what a crash left counted and unused ("Dirty bit" of the incompatible features).
//!
//! Each step is durable before the next, and each leaves the image sound, so a crash in between
//! leaves nothing worse than was there:
//!
//! 1. A sync. After kill -9 the tables are read from the page cache; what is judged unused by them
//!    must not be in use by older ones on the disk.
//! 2. All tables are walked. What is counted and not reached is uncounted, and its space punched.
//! 3. A sync; then the file is cut after its last cluster in use and the dirty bit cleared.

use super::Qcow2File;
use super::refcount::Refcounts;
use std::io;
use std::sync::atomic::Ordering;

/// Make the refcounts of an image that nobody changes right, and clear its dirty bit. Gives how
/// many clusters had leaked.
///
/// # Errors
/// `Unsupported` if the image is not of [`crate::block::overlay::create`]'s kind; `InvalidData` if
/// its metadata is worse than leaking: nothing is changed then.
pub(crate) fn reclaim(image: &Qcow2File) -> io::Result<u64> {
    image.header.check_writable()?;
    image.host.sync()?;
    let mut used = image.claims()?;
    if image.header.foreign || used.compressed {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the image was not closed, and has compressed clusters or header extensions that overlays do \
             not have; run qemu-img check -r all on it",
        ));
    }
    let file_len = image.file_len.load(Ordering::Relaxed);
    let mut refcounts = Refcounts::open(&image.host, &image.header, file_len)?;
    let leaked = refcounts.reclaim(&image.host, &mut used)?;
    for (offset, bytes) in refcounts.take().pages {
        image.host.write_at(&bytes, offset)?;
    }
    let bits = image.header.cluster_bits;
    for run in leaked.chunk_by(|a, b| a + 1 == *b) {
        // A file system without holes keeps the space for reuse.
        let _ = image.host.punch(run[0] << bits, (run.len() as u64) << bits);
    }
    image.host.sync()?;
    image.truncate(refcounts.end(&image.host, file_len)?)?;
    image.set_dirty(false)?;
    image.host.sync()?;
    Ok(leaked.len() as u64)
}
