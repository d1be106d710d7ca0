//! The files that content is written into.

use crate::context::Context;
use crate::disk::Disk;
use crate::error::{Code, OrFail, Result};
use crate::import::room;
use crate::kernel::{self, BootFile, Registered};
use crate::plan::DiskFormat;
use crate::record::name;
use crate::record::snapshot::{DATA, Snapshot, SnapshotState};
use crate::record::volume::Layer;
use crate::snapshot::copy::Sparse;
use crate::snapshot::digest::{self, CHUNK};
use crate::store::beneath::Owned;
use crate::store::{Durability, Locked, Staging, Store, now};
use crate::sys::fault;
use crate::transfer::chunk::pack;
use crate::transfer::copy::{Need, Piece, Writer};
use crate::transfer::package::{Chunk, Content};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A disk's content on its way into a pending snapshot.
pub(super) struct DiskWriter<'a> {
    snapshot: &'a mut Locked<Snapshot>,
    content: &'a Content,
    context: Context,
    out: Sparse,
    /// It had something to begin with, which may be what an earlier copy wrote.
    begun: bool,
    /// It shares the source's blocks.
    cloned: bool,
}

impl<'a> DiskWriter<'a> {
    /// `raw` is the source's file, whose blocks are shared if the file system can (FICLONE,
    /// ioctl_ficlonerange(2)).
    pub(super) fn open(
        snapshot: &'a mut Locked<Snapshot>,
        content: &'a Content,
        raw: Option<&File>,
    ) -> Result<Self> {
        let (out, begun) = open_data(snapshot.owned())?;
        let cloned = !begun && raw.is_some_and(|raw| rustix::fs::ioctl_ficlone(&out, raw).is_ok());
        let context = snapshot.store().context().clone();
        let out = Sparse::new(out, begun);
        Ok(Self { snapshot, content, context, out, begun, cloned })
    }

    /// The bytes of a chunk that an interrupted copy has brought.
    fn has(&self, chunk: &Chunk) -> Option<Vec<u8>> {
        let mut bytes = vec![0; self.content.chunk_len(chunk.offset)];
        self.out.file().read_exact_at(&mut bytes, chunk.offset).ok()?;
        if digest::is_zero(&bytes) {
            return None;
        }
        let (there, _) = pack(&bytes, chunk.offset).ok()?;
        (there == *chunk).then_some(bytes)
    }
}

impl Writer for DiskWriter<'_> {
    fn need(&self) -> Need {
        if self.cloned { Need::Nothing } else { Need::Bytes }
    }

    fn take(&self, piece: Piece<'_>) -> Result<()> {
        fault::point("piece of a disk");
        let offset = piece.offset;
        let there = piece.chunk().filter(|_| self.begun).and_then(|chunk| self.has(chunk));
        let bytes = match there {
            Some(bytes) => bytes,
            None => {
                let bytes = piece.bytes()?;
                if !digest::is_zero(&bytes) {
                    // Stop before the last block is taken.
                    room::check(self.snapshot.store().home(), bytes.len() as u64)?;
                }
                bytes
            }
        };
        for (n, bytes) in bytes.chunks(CHUNK).enumerate() {
            self.out.chunk(offset + (n * CHUNK) as u64, bytes)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Option<String>> {
        let digest = self.out.finish(self.content.size_bytes)?;
        if !self.begun && !self.cloned {
            return Ok(Some(digest));
        }
        let file = self.out.file().try_clone().or_fail(|| "duplicate a descriptor")?;
        let disk = Disk::open(vec![(file, DiskFormat::Raw)]);
        let disk = disk.or_fail(|| "read the copy")?;
        let progress = self.context.progress(Some(self.content.size_bytes));
        let mut reported = |at| {
            progress.at(at);
            progress.check()
        };
        digest::disk(&disk, &mut reported).map(Some)
    }

    fn restart(&mut self) -> Result<bool> {
        let anew = self.begun || self.cloned;
        if anew {
            self.out.empty().or_fail(|| "begin the copy again")?;
            (self.begun, self.cloned) = (false, false);
        }
        Ok(anew)
    }

    fn seal(self: Box<Self>) -> Result<()> {
        seal(self.snapshot, DiskFormat::Raw, Vec::new(), &self.content.digest)
    }
}

/// The content's file in a pending snapshot's directory, and whether it may have something already.
fn open_data(dir: &Owned) -> Result<(File, bool)> {
    let path = dir.path().join(DATA);
    // It was sealed, and its maker killed before the record said so.
    let _ = dir.set_mode(DATA, 0o600);
    let file = dir.open_or_create(DATA).or_fail(|| format!("write {}", path.display()))?;
    let begun = file.metadata().or_fail(|| format!("read {}", path.display()))?.len() > 0;
    Ok((file, begun))
}

/// Record that a snapshot's files are complete.
pub(super) fn seal(
    snapshot: &mut Locked<Snapshot>,
    format: DiskFormat,
    layers: Vec<Layer>,
    digest: &str,
) -> Result<()> {
    crate::snapshot::protect(snapshot.owned(), DATA)?;
    snapshot.owned().sync().or_fail(|| format!("sync {}", snapshot.dir().display()))?;
    let record = &mut snapshot.record;
    (record.format, record.layers) = (format, layers);
    record.digest = digest.to_owned();
    record.state = SnapshotState::Completed;
    record.start_time = now();
    snapshot.save(Durability::Durable)
}

/// Register a kernel's or ramdisk's file under its name if that is free, else under one made of it
/// and of a part of the content's digest.
pub(super) fn register<R: BootFile>(
    store: &Store,
    path: &Path,
    content: &Content,
) -> Result<Option<Registered<R>>> {
    let name = name::from_file(&content.name);
    let registered = match kernel::register(store, path, Some(&name)) {
        Err(e) if e.code() == Some(Code::InvalidAMINameDuplicate) => {
            let name = format!("{name}-{}", &content.digest[..8]);
            kernel::register(store, path, Some(&name))
        }
        registered => registered,
    };
    registered.map(Some)
}

/// A kernel's or ramdisk's content on its way into a file that is then registered.
pub(super) struct BootWriter<'a, R: BootFile> {
    store: &'a Store,
    content: &'a Content,
    registered: &'a mut Option<Registered<R>>,
    /// Where the file is, which goes when this does.
    staging: Staging,
    out: Sparse,
}

impl<'a, R: BootFile> BootWriter<'a, R> {
    pub(super) fn open(
        store: &'a Store,
        content: &'a Content,
        registered: &'a mut Option<Registered<R>>,
    ) -> Result<Self> {
        let staging = Staging::new(store)?;
        let file = staging.dir()?.create(R::FILE, 0o600);
        let file = file.or_fail(|| format!("write {}", staging.path().display()))?;
        let out = Sparse::new(file, false);
        Ok(Self { store, content, registered, staging, out })
    }
}

impl<R: BootFile + Send + Sync> Writer for BootWriter<'_, R> {
    fn need(&self) -> Need {
        Need::Bytes
    }

    fn take(&self, piece: Piece<'_>) -> Result<()> {
        let offset = piece.offset;
        self.out.write(offset, &piece.bytes()?)
    }

    fn finish(&mut self) -> Result<Option<String>> {
        self.out.finish(self.content.size_bytes)?;
        let sum = digest::copy(&mut self.out.file(), &mut std::io::sink());
        sum.or_fail(|| format!("read the {}", R::WHAT)).map(|(sum, _)| Some(sum))
    }

    fn seal(self: Box<Self>) -> Result<()> {
        let path = self.staging.path().join(R::FILE);
        *self.registered = register(self.store, &path, self.content)?;
        Ok(())
    }
}
