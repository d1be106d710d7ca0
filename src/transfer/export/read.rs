//! Taking in an exported image: from anybody, so a confined process reads it, and memory is bounded by one chunk.

use crate::error::{OrFail, Result};
use crate::id::hex;
use crate::import::Reading;
use crate::kernel::BootFiles;
use crate::record::image::Image;
use crate::record::name;
use crate::snapshot::copy::Copy;
use crate::snapshot::digest::CHUNK;
use crate::store::{Staging, Store, beneath};
use crate::transfer::package::{Content, NewImage, Package, malformed};
use crate::transfer::pending::{PendingImage, register};
use sha2::{Digest, Sha256};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bring an exported image into the store. Nothing stays if that fails.
///
/// # Errors
/// `InvalidManifest`: it is damaged, cut short or contrived; the name is taken; I/O errors, no space, cancelled.
pub fn import(store: &Store, mut reading: Reading, new: NewImage) -> Result<Image> {
    receive(store, &mut reading, new)
        .map_err(|error| store.context().check().err().unwrap_or(error))
}

fn receive(store: &Store, reading: &mut Reading, mut new: NewImage) -> Result<Image> {
    let package = reading.package()?;
    if package.disks.is_empty() {
        return Err(malformed("it is deregistered"));
    }
    if new.name.is_empty() {
        new.name.clone_from(&package.image.name);
    }
    crate::image::catalog::check_name(store, &new.name)?;
    let boot = boot(store, reading, &package)?;
    let mut incoming = PendingImage::begin(store, &package, &new, boot)?;
    match disks(reading, &package, &mut incoming) {
        Ok(()) => incoming.complete(),
        Err(error) => {
            // A stream can't be gone on with.
            incoming.remove();
            Err(error)
        }
    }
}

/// Spool the kernel and the ramdisk, and register them.
fn boot(store: &Store, reading: &mut Reading, package: &Package) -> Result<BootFiles> {
    let staging = Staging::new(store)?;
    let mut boot = BootFiles::default();
    let mut work = || -> Result<()> {
        if let Some(content) = &package.kernel {
            let path = staging.path().join("kernel");
            spool(reading, 0, content, &path)?;
            boot.kernel = register(store, &path, content)?;
        }
        if let Some(content) = &package.ramdisk {
            let path = staging.path().join("ramdisk");
            spool(reading, 1, content, &path)?;
            boot.ramdisk = register(store, &path, content)?;
        }
        Ok(())
    };
    match work() {
        Ok(()) => Ok(boot),
        Err(error) => {
            boot.undo(store);
            Err(error)
        }
    }
}

fn spool(reading: &mut Reading, number: u64, content: &Content, path: &Path) -> Result<()> {
    write_file(content, path, &mut |offset| reading.chunk(number, content, offset))
}

/// Write a file from its chunks, and verify it. `chunk` gives one; `None` is zeros.
///
/// # Errors
/// As `chunk`'s; its digest is another (`InvalidManifest`); no space.
pub fn write_file(
    content: &Content,
    path: &Path,
    chunk: &mut dyn FnMut(u64) -> Result<Option<Vec<u8>>>,
) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let file = beneath::create(path, 0o600).or_fail(doing)?;
    let (mut sum, mut offset) = (Sha256::new(), 0);
    while offset < content.size_bytes {
        let bytes = match chunk(offset)? {
            Some(bytes) => bytes,
            None => vec![0; content.chunk_len(offset)],
        };
        sum.update(&bytes);
        file.write_all_at(&bytes, offset).or_fail(doing)?;
        offset += bytes.len() as u64;
    }
    if hex(&sum.finalize()) == content.digest {
        return Ok(());
    }
    let name = name::from_file(&content.name);
    Err(malformed(&format!("the content of '{name}' is not what its digest says")))
}

fn disks(reading: &mut Reading, package: &Package, incoming: &mut PendingImage<'_>) -> Result<()> {
    for (n, disk) in package.disks.iter().enumerate() {
        let Some((out, _)) = incoming.file(n)? else { continue };
        let copy = Copy::new(out);
        let mut offset = 0;
        while offset < disk.size_bytes {
            if let Some(bytes) = reading.chunk(n as u64 + 2, disk, offset)? {
                for (piece, bytes) in bytes.chunks(CHUNK).enumerate() {
                    copy.chunk(offset + (piece * CHUNK) as u64, bytes.to_vec())?;
                }
            }
            offset += disk.chunk_size();
        }
        verified(disk, &copy.finish(disk.size_bytes)?)?;
        incoming.seal(n, &disk.digest)?;
    }
    reading.done()
}

/// # Errors
/// `InvalidManifest`: the digest found is not the content's.
pub fn verified(disk: &Content, found: &str) -> Result<()> {
    if found == disk.digest {
        return Ok(());
    }
    Err(malformed(&format!("the content of {} is not what its digest says", disk.name)))
}
