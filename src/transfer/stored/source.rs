//! Reading images and snapshots of a store.

use crate::block::Content as Kind;
use crate::disk::Disk;
use crate::error::{Error, OrFail, Result};
use crate::id::{SnapshotId, hex};
use crate::plan::DiskFormat;
use crate::record::image::Image;
use crate::snapshot;
use crate::snapshot::digest::{self, CHUNK, ChunkDigest, is_zero};
use crate::store::Store;
use crate::transfer::copy::{Chunks, Files, Need, Piece, Source};
use crate::transfer::package::{self, Content, Part, available};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// An image or a snapshot of a store.
pub struct Stored<'a> {
    store: &'a Store,
    image: Option<Image>,
}

impl<'a> Stored<'a> {
    /// An image, which its [`package::Package`] is made of; of a snapshot alone `None`.
    pub fn new(store: &'a Store, image: Option<Image>) -> Self {
        Self { store, image }
    }

    /// The file of a kernel or ramdisk; `None` of a disk.
    fn boot_file(&self, part: Part) -> Result<Option<File>> {
        match (&self.image, part) {
            (Some(image), Part::Kernel) => package::open_kernel(self.store, image),
            (Some(image), Part::Ramdisk) => package::open_ramdisk(self.store, image),
            _ => Ok(None),
        }
    }
}

impl Source for Stored<'_> {
    fn chunks<'a>(
        &'a self,
        part: Part,
        content: &'a Content,
        need: Need,
    ) -> Result<Box<dyn Chunks + 'a>> {
        let verify = need == Need::Chunks;
        if let Some(file) = self.boot_file(part)? {
            let state = Mutex::new((0, Sha256::new()));
            return Ok(Box::new(FileChunks { file, content, verify, state }));
        }
        let disk = disk(self.store, &content.name.parse()?)?;
        let step = if verify { content.chunk_size() } else { CHUNK as u64 };
        let state = Mutex::new(Read::default());
        Ok(Box::new(DiskChunks { disk, content, verify, step, state }))
    }

    fn changed(&self, content: &Content, found: &str) -> Error {
        changed(content, found)
    }

    fn files(&self, part: Part, content: &Content) -> Result<Option<Files>> {
        if let Some(file) = self.boot_file(part)? {
            return Ok(Some(Files::Boot(file)));
        }
        let snapshot = available(self.store, &content.name.parse()?)?;
        let mut layers = snapshot::open_layers(self.store, &snapshot)?;
        let raw = match &layers[..] {
            [(_, DiskFormat::Raw)] => layers.pop().map(|(file, _)| file),
            _ => None,
        };
        let home = self.store.home().to_owned();
        Ok(Some(Files::Disk { home, snapshot: Box::new(snapshot), raw }))
    }
}

/// Open a snapshot's content.
///
/// # Errors
/// It is not completed; a file can't be opened or believed.
pub fn disk(store: &Store, id: &SnapshotId) -> Result<Disk> {
    let snapshot = available(store, id)?;
    Disk::open(snapshot::open_layers(store, &snapshot)?).or_fail(|| format!("read {id}"))
}

fn changed(content: &Content, found: &str) -> Error {
    Error::failure(format!(
        "{} can't be copied: its content has changed (its digest is {found}, recorded was {})",
        content.name, content.digest
    ))
}

/// A kernel's or ramdisk's chunks.
struct FileChunks<'a> {
    file: File,
    content: &'a Content,
    verify: bool,
    /// Where the next begins, and the digest of those before.
    state: Mutex<(u64, Sha256)>,
}

impl Chunks for FileChunks<'_> {
    fn next(&self) -> Option<Result<Piece<'_>>> {
        let content = self.content;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, sum) = &mut *state;
        if *at >= content.size_bytes {
            let found = hex(&std::mem::take(sum).finalize());
            let as_it_was = !self.verify || found == content.digest;
            return (!as_it_was).then(|| Err(changed(content, &found)));
        }
        let mut bytes = vec![0; content.chunk_len(*at)];
        if let Err(cause) = self.file.read_exact_at(&mut bytes, *at) {
            return Some(Err(Error::io(format!("read {}", content.name), cause)));
        }
        if self.verify {
            sum.update(&bytes);
        }
        let offset = *at;
        *at += bytes.len() as u64;
        Some(Ok(Piece::of_bytes(offset, bytes)))
    }
}

/// The chunks of a disk that have data.
struct DiskChunks<'a> {
    disk: Disk,
    content: &'a Content,
    verify: bool,
    /// Bytes of a chunk: a multiple of [`CHUNK`].
    step: u64,
    state: Mutex<Read>,
}

/// How far a disk has been read.
#[derive(Default)]
struct Read {
    at: u64,
    digests: BTreeMap<u64, ChunkDigest>,
}

impl Chunks for DiskChunks<'_> {
    fn next(&self) -> Option<Result<Piece<'_>>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.advance(&mut state).transpose()
    }
}

impl DiskChunks<'_> {
    fn advance(&self, state: &mut Read) -> Result<Option<Piece<'_>>> {
        let doing = || format!("read {}", self.content.name);
        while let Some(extent) = self.disk.extent_at(state.at).or_fail(doing)? {
            if extent.content == Kind::Zero {
                state.at += extent.len;
                continue;
            }
            let offset = state.at / self.step * self.step;
            let len = self.step.min(self.disk.size() - offset);
            let mut bytes = vec![0; len as usize];
            self.disk.read_exact_at(&mut bytes, offset).or_fail(doing)?;
            let pieces = bytes.chunks(CHUNK).enumerate().filter(|_| self.verify);
            for (n, piece) in pieces.filter(|(_, piece)| !is_zero(piece)) {
                state.digests.insert(offset / CHUNK as u64 + n as u64, digest::chunk(piece));
            }
            state.at = offset + len;
            return Ok(Some(Piece::of_bytes(offset, bytes)));
        }
        let found = self.verify.then(|| digest::combine(self.disk.size(), &state.digests));
        match found.filter(|found| *found != self.content.digest) {
            None => Ok(None),
            Some(found) => Err(changed(self.content, &found)),
        }
    }
}
