//! One disk's content from file to file: shared where the file system can, else what is data in it.

use crate::block::DiskFormat;
use crate::context::{Context, Progress};
use crate::disk::Disk;
use crate::error::{Error, OrFail, Result};
use crate::record::snapshot::Snapshot;
use crate::snapshot::copy::{Copy, copy_extents_with};
use crate::snapshot::digest;
use std::fs::File;

/// Bring the content of `source`, whose files are `layers`, into `out`, which may have `begun` to have it. It is
/// durable then, and verified.
///
/// # Errors
/// The source is not what its digest says; I/O errors, no space, cancelled.
pub(super) fn transfer(
    layers: Vec<(File, DiskFormat)>,
    (out, begun): (&File, bool),
    source: &Snapshot,
    context: &Context,
) -> Result<()> {
    let progress = context.progress(Some(source.size_bytes));
    let id = &source.snapshot_id;
    let digest = if !begun && clone_file(&layers, out) {
        out.sync_all().or_fail(|| "sync the copy")?;
        verify(out, &progress)?
    } else {
        let disk = Disk::open(layers).or_fail(|| format!("read {id}"))?;
        let out = || out.try_clone().or_fail(|| "duplicate a descriptor");
        let resumed = if begun {
            copy_extents_with(&disk, Copy::resume(out()?), &progress)?;
            Some(verify(&out()?, &progress)?)
        } else {
            None
        };
        match resumed.filter(|digest| *digest == source.digest) {
            Some(digest) => digest,
            None => {
                // What an interrupted copy left may be other than what it wrote: a power failure.
                out()?.set_len(0).or_fail(|| "begin the copy again")?;
                copy_extents_with(&disk, Copy::new(out()?), &progress)?
            }
        }
    };
    if digest == source.digest {
        return Ok(());
    }
    Err(Error::failure(format!(
        "{id} can't be copied: its content has changed (its digest is {digest}, recorded was {})",
        source.digest
    )))
}

/// Have the file system share the blocks (FICLONE, ioctl_ficlonerange(2)), if it can and there is only one raw file.
fn clone_file(layers: &[(File, DiskFormat)], out: &File) -> bool {
    match layers {
        [(file, DiskFormat::Raw)] => rustix::fs::ioctl_ficlone(out, file).is_ok(),
        _ => false,
    }
}

fn verify(out: &File, progress: &Progress) -> Result<String> {
    let out = out.try_clone().or_fail(|| "duplicate a descriptor")?;
    let disk = Disk::open(vec![(out, DiskFormat::Raw)]).or_fail(|| "read the copy")?;
    digest::disk(&disk, &mut |at| {
        progress.at(at);
        progress.check()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn source() -> (File, Snapshot) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        for n in [0, 5, 40] {
            file.write_all_at(&[n as u8 + 1; 9000], (n << 20) + 512).unwrap();
        }
        let digest = digest::file(&file, DiskFormat::Raw).unwrap();
        let id = crate::id::SnapshotId::generate().unwrap();
        let made = ("0".to_owned(), String::new());
        (file, Snapshot::flat(id, made, 64 << 20, (DiskFormat::Raw, digest)))
    }

    fn layers(file: &File) -> Vec<(File, DiskFormat)> {
        vec![(file.try_clone().unwrap(), DiskFormat::Raw)]
    }

    #[test]
    fn only_data_is_copied_and_what_is_there_is_left() {
        let (file, snapshot) = source();
        let out = tempfile::tempfile().unwrap();
        transfer(layers(&file), (&out, false), &snapshot, &Context::default()).unwrap();
        assert_eq!(digest::file(&out, DiskFormat::Raw).unwrap(), snapshot.digest);
        assert!(out.metadata().unwrap().blocks() * 512 < 1 << 20);
        // An interrupted copy, with some of it, nothing after it, and the wrong length.
        let cut = tempfile::tempfile().unwrap();
        let mut some = vec![0; 9512];
        file.read_exact_at(&mut some, 0).unwrap();
        cut.write_all_at(&some, 0).unwrap();
        transfer(layers(&file), (&cut, true), &snapshot, &Context::default()).unwrap();
        assert_eq!(digest::file(&cut, DiskFormat::Raw).unwrap(), snapshot.digest);
        // One that a power failure left with other bytes, where there should be none.
        let wrong = tempfile::tempfile().unwrap();
        wrong.write_all_at(&[7; 4096], 10 << 20).unwrap();
        transfer(layers(&file), (&wrong, true), &snapshot, &Context::default()).unwrap();
        assert_eq!(digest::file(&wrong, DiskFormat::Raw).unwrap(), snapshot.digest);
    }

    #[test]
    fn a_source_that_has_changed_is_not_copied() {
        let (file, snapshot) = source();
        file.write_all_at(b"x", 6 << 20).unwrap();
        let out = tempfile::tempfile().unwrap();
        let error =
            transfer(layers(&file), (&out, false), &snapshot, &Context::default()).unwrap_err();
        assert!(error.to_string().contains("has changed"), "{error}");
    }
}
