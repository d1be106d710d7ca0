//! Copies of images and snapshots, whatever they are in: stores, buckets, registries, archives.
//!
//! There is one way to copy. A [`Region`] gives what it has as a [`Source`] and takes what is to be
//! in it as a [`Pending`]; an archive is one or the other. [`run`] goes through the [`Part`]s: what
//! the pending object lacks of one comes in chunks, by several threads, into its [`Writer`], is
//! verified, and counts from then on. If anything fails, the pending object says what stays for the
//! next attempt.

use super::chunk::{compress, pack};
use super::package::{Chunk, Content, NewImage, Package, Part, SnapshotPackage};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::record::image::Image;
use crate::record::snapshot::Snapshot;
use crate::snapshot::Wanted;
use crate::snapshot::digest::is_zero;
use crate::sys::threads;
use std::fs::File;
use std::path::PathBuf;

/// Chunks that are on their way at once.
pub(super) const PARALLEL: usize = 4;

/// Where images and snapshots are.
pub trait Region {
    /// On whose behalf it is used, and what stops that.
    fn context(&self) -> &Context;

    /// The image that `text` addresses, and what its content is read by.
    ///
    /// # Errors
    /// There is none; it can't be copied.
    fn image(&self, text: &str) -> Result<(Package, Box<dyn Source + '_>)>;

    /// The snapshot that `text` addresses.
    ///
    /// # Errors
    /// There is none; it can't be copied.
    fn snapshot(&self, text: &str) -> Result<(SnapshotPackage, Box<dyn Source + '_>)>;

    /// Begin a copy of an image, or go on with one that was interrupted.
    ///
    /// # Errors
    /// The name is malformed or taken, or something of what the package says can't be.
    fn begin<'a>(
        &'a self,
        package: &'a Package,
        new: &'a NewImage,
    ) -> Result<Box<dyn Pending<Made = Image> + 'a>>;

    /// Begin a copy of a snapshot.
    ///
    /// # Errors
    /// What it is to be said to be is malformed.
    fn begin_snapshot<'a>(
        &'a self,
        package: &SnapshotPackage,
        wanted: Wanted,
    ) -> Result<Box<dyn Pending<Made = Snapshot> + 'a>>;
}

/// What an image's or a snapshot's content is read from.
pub trait Source: Sync {
    /// What a content has other than zeros, as it is needed. Reading it fails at the end if it is
    /// not what its digest says and [`Need::Chunks`] are wanted.
    ///
    /// # Errors
    /// It can't be read.
    fn chunks<'a>(
        &'a self,
        part: Part,
        content: &'a Content,
        need: Need,
    ) -> Result<Box<dyn Chunks + 'a>>;

    /// The error for a content whose digest was `found` where it arrived.
    fn changed(&self, content: &Content, found: &str) -> Error;

    /// The files that a part is in here, for a target that can share them.
    ///
    /// # Errors
    /// They can't be opened.
    fn files(&self, part: Part, content: &Content) -> Result<Option<Files>> {
        let _ = (part, content);
        Ok(None)
    }

    /// All parts have been read.
    ///
    /// # Errors
    /// There is more than there should be.
    fn done(&self) -> Result<()> {
        Ok(())
    }
}

/// The files that a part is in.
pub enum Files {
    /// A kernel's or ramdisk's.
    Boot(File),
    /// A snapshot's.
    Disk {
        /// The store.
        home: PathBuf,
        /// What they are.
        snapshot: Box<Snapshot>,
        /// The only one, if it is raw.
        raw: Option<File>,
    },
}

/// A content's chunks.
pub trait Chunks: Sync {
    /// The next, by place. `None` at the end.
    fn next(&self) -> Option<Result<Piece<'_>>>;
}

/// What a writer needs of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it has shared the source's.
    Nothing,
    /// Bytes, of which it tells the digest.
    Bytes,
    /// The chunks that a [`Content`] is cut into outside of stores. The source verifies them.
    Chunks,
}

/// One chunk on its way: bytes, or what a region outside gives by its digest.
pub struct Piece<'a> {
    /// Where it begins in its content.
    pub offset: u64,
    form: Form<'a>,
}

enum Form<'a> {
    Bytes(Vec<u8>),
    Packed(&'a Chunk, &'a dyn Fetch),
}

/// What gives chunks by their digest.
pub trait Fetch: Sync {
    /// A chunk as it is there, verified.
    ///
    /// # Errors
    /// It can't be had; it is something else (`InvalidManifest`).
    fn packed(&self, chunk: &Chunk) -> Result<Vec<u8>>;

    /// The same, decompressed.
    ///
    /// # Errors
    /// As [`Fetch::packed`]'s.
    fn bytes(&self, chunk: &Chunk) -> Result<Vec<u8>>;
}

impl<'a> Piece<'a> {
    /// A piece whose bytes are at hand.
    pub fn of_bytes(offset: u64, bytes: Vec<u8>) -> Self {
        Self { offset, form: Form::Bytes(bytes) }
    }

    /// A piece that is yet to be fetched.
    pub fn of_chunk(chunk: &'a Chunk, from: &'a dyn Fetch) -> Self {
        Self { offset: chunk.offset, form: Form::Packed(chunk, from) }
    }

    /// The chunk that it is, if that is known before it has come.
    pub fn chunk(&self) -> Option<&Chunk> {
        match self.form {
            Form::Bytes(_) => None,
            Form::Packed(chunk, _) => Some(chunk),
        }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// As [`Fetch::bytes`]'s.
    pub fn bytes(self) -> Result<Vec<u8>> {
        match self.form {
            Form::Bytes(bytes) => Ok(bytes),
            Form::Packed(chunk, from) => from.bytes(chunk),
        }
    }

    /// What it is in an archive, which gives it no digest: compressed. `None` of zeros, which are
    /// left out.
    ///
    /// # Errors
    /// As [`Fetch::packed`]'s.
    pub fn compressed(self) -> Result<Option<Vec<u8>>> {
        match self.form {
            Form::Bytes(bytes) if is_zero(&bytes) => Ok(None),
            Form::Bytes(bytes) => compress(&bytes).map(Some),
            Form::Packed(chunk, from) => from.packed(chunk).map(Some),
        }
    }

    /// What it is outside of stores; `lacks` says whether the bytes of that are needed. `None` of
    /// zeros, which are left out.
    ///
    /// # Errors
    /// As those of `lacks` and of [`Fetch::packed`].
    pub fn packed(
        self,
        lacks: impl FnOnce(&Chunk) -> Result<bool>,
    ) -> Result<Option<(Chunk, Option<Vec<u8>>)>> {
        match self.form {
            Form::Bytes(bytes) if is_zero(&bytes) => Ok(None),
            Form::Bytes(bytes) => {
                let (chunk, packed) = pack(&bytes, self.offset)?;
                let packed = lacks(&chunk)?.then_some(packed);
                Ok(Some((chunk, packed)))
            }
            Form::Packed(chunk, from) => {
                let packed = if lacks(chunk)? { Some(from.packed(chunk)?) } else { None };
                Ok(Some((chunk.clone(), packed)))
            }
        }
    }
}

/// An object in the making.
pub trait Pending {
    /// What it becomes.
    type Made;

    /// Begin to write a part; `None` if that is there already, or needs no copying from this
    /// source.
    ///
    /// # Errors
    /// It can't be written.
    fn open<'a>(
        &'a mut self,
        part: Part,
        content: &'a Content,
        source: &dyn Source,
    ) -> Result<Option<Box<dyn Writer + 'a>>>;

    /// It is there, pending, before this part is begun, if it can be: the id that it has then.
    ///
    /// # Errors
    /// It can't be written.
    fn appear(&mut self, part: Part) -> Result<Option<String>> {
        let _ = part;
        Ok(None)
    }

    /// It has all of its parts, and is there from now on.
    ///
    /// # Errors
    /// That can't be recorded; cancelled.
    fn complete(&mut self) -> Result<Self::Made>;

    /// It did not work out. Gives the error, with what to do about it.
    fn failed(self: Box<Self>, error: Error) -> Error;
}

/// A part of a pending object that is being written.
pub trait Writer: Sync {
    /// What it needs.
    fn need(&self) -> Need;

    /// How many threads may hand it pieces; with one they come in order.
    fn threads(&self) -> usize {
        PARALLEL
    }

    /// Takes a piece in.
    ///
    /// # Errors
    /// As those of [`Piece::bytes`]; it can't be written.
    fn take(&self, piece: Piece<'_>) -> Result<()>;

    /// All pieces are in. Gives the digest of what is there then, durably; `None` if the source had
    /// to verify it.
    ///
    /// # Errors
    /// It can't be made durable, or read.
    fn finish(&mut self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Begin with nothing, for what it began with is not what it seemed to be. False if it began
    /// with nothing already.
    ///
    /// # Errors
    /// It can't be emptied.
    fn restart(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// It is what it should be.
    ///
    /// # Errors
    /// That can't be recorded.
    fn seal(self: Box<Self>) -> Result<()>;
}

/// Is told the id of what is being copied once it is there, pending, where that is to be seen.
pub type Announce<'a> = &'a mut dyn FnMut(&str);

/// Copy an image (EC2 CopyImage).
///
/// # Errors
/// As [`Region::image`]'s, [`Region::begin`]'s and [`run`]'s.
pub fn image(
    from: &dyn Region,
    text: &str,
    to: &dyn Region,
    new: &NewImage,
    announce: Announce<'_>,
) -> Result<Image> {
    let (package, source) = from.image(text)?;
    run_telling(&package.parts(), &*source, to.begin(&package, new)?, to.context(), announce)
}

/// Copy a snapshot (EC2 CopySnapshot).
///
/// # Errors
/// As [`Region::snapshot`]'s, [`Region::begin_snapshot`]'s and [`run`]'s.
pub fn snapshot(
    from: &dyn Region,
    text: &str,
    to: &dyn Region,
    wanted: Wanted,
    announce: Announce<'_>,
) -> Result<Snapshot> {
    let (package, source) = from.snapshot(text)?;
    let pending = to.begin_snapshot(&package, wanted)?;
    run_telling(&package.parts(), &*source, pending, to.context(), announce)
}

/// Bring all `parts` into the pending object, and complete it.
///
/// # Errors
/// A content can't be read, is not what its digest says, or can't be written; cancelled.
pub fn run<M>(
    parts: &[(Part, &Content)],
    source: &dyn Source,
    pending: Box<dyn Pending<Made = M> + '_>,
    context: &Context,
) -> Result<M> {
    run_telling(parts, source, pending, context, &mut |_| ())
}

fn run_telling<M>(
    parts: &[(Part, &Content)],
    source: &dyn Source,
    mut pending: Box<dyn Pending<Made = M> + '_>,
    context: &Context,
    announce: Announce<'_>,
) -> Result<M> {
    let mut work = || {
        for (part, content) in parts {
            if let Some(id) = pending.appear(*part)? {
                announce(&id);
            }
            bring(source, *part, content, &mut *pending, context)?;
        }
        source.done()?;
        context.check()?;
        pending.complete()
    };
    work().map_err(|error| pending.failed(error))
}

/// Bring one part into the pending object, durable and verified.
fn bring<M>(
    source: &dyn Source,
    part: Part,
    content: &Content,
    pending: &mut (dyn Pending<Made = M> + '_),
    context: &Context,
) -> Result<()> {
    let Some(mut writer) = pending.open(part, content, source)? else { return Ok(()) };
    let progress = context.progress(Some(content.size_bytes));
    loop {
        if writer.need() != Need::Nothing {
            let chunks = source.chunks(part, content, writer.need())?;
            let pieces = std::iter::from_fn(|| chunks.next());
            threads::try_each(writer.threads(), pieces, |piece| {
                progress.check()?;
                progress.at(piece.offset);
                writer.take(piece)
            })?;
        }
        match writer.finish()? {
            Some(found) if found != content.digest => {
                // What an interrupted copy left may be other than what it wrote: a power failure.
                if !writer.restart()? {
                    return Err(source.changed(content, &found));
                }
            }
            _ => return writer.seal(),
        }
    }
}
