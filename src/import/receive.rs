//! Taking in what the confined reader says: the bytes of a disk are copied and digested here, and
//! every number is checked.

use super::source::{Imported, Options, Source, check_size};
use super::stream::Cancellable;
use super::wire::{Frame, MAX_WARNINGS, Receiver, Which, nonsense};
use super::{SourceFormat, external, room};
use crate::block::DiskFormat;
use crate::context::{Context, Progress};
use crate::error::{Code, Error, OrFail, Result};
use crate::helper::{self, Child, one_line};
use crate::record::limits::MAX_SIZE;
use crate::record::snapshot::DATA;
use crate::snapshot::copy::Copy;
use crate::snapshot::digest::{self, CHUNK};
use crate::store::beneath::Owned;
use crate::transfer::package::{Content, MAX_PACKAGE, Package};
use rustix::fs::SeekFrom;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Names of the files in the target directory that the reader may unpack into.
const SPOOLS: [&str; 2] = ["spool-0", "spool-1"];
/// Bytes of the pipe between the processes.
const PIPE: usize = 1 << 20;

/// What turned out to be at a source.
pub enum Opened {
    /// A disk.
    Disk(Reading),
    /// An exported image.
    Exported(Reading),
}

/// A source that is being read.
pub struct Reading {
    source: Source,
    dir: PathBuf,
    context: Context,
    /// The source and the spools, in the order of their numbers.
    files: Vec<File>,
    /// The source's size and time of change, of a regular file.
    stamp: Option<Stamp>,
    child: Child,
    frames: Receiver<Cancellable>,
    warnings: usize,
}

#[derive(PartialEq, Eq)]
struct Stamp(u64, i64, i64);

impl Stamp {
    fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file())?;
        Some(Self(metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    }
}

/// Begins to read a source; `dir` is where it is brought to.
///
/// # Errors
/// It can't be read, or is neither a disk nor an exported image.
pub fn open(source: &Source, dir: &Path, options: &Options) -> Result<Opened> {
    begin(source, dir, options).map_err(|error| source.explain(&options.context, error))
}

fn begin(source: &Source, dir: &Path, options: &Options) -> Result<Opened> {
    let mut files = vec![source.file(options.context.cancel())?];
    for name in SPOOLS {
        files.push(create(dir, name)?);
    }
    let (format, free) = (options.format.map_or("", SourceFormat::name), room::free(dir));
    let note = format!("{format}/{}", free.unwrap_or(u64::MAX));
    let notes = [&*note, "", ""].map(OsStr::new);
    let given: Vec<_> = files.iter().map(File::as_fd).zip(notes).collect();
    let stamp = files.first().and_then(Stamp::of);
    let child = helper::start(&super::HELPER, &given)?;
    let answer = child.answer.try_clone().or_fail(|| "duplicate a descriptor")?;
    // A smaller one does as well, and is all that the user may have if there are many.
    let _ = rustix::pipe::fcntl_setpipe_size(&answer, PIPE);
    let mut reading = Reading {
        source: source.clone(),
        dir: dir.to_owned(),
        context: options.context.clone(),
        files,
        stamp,
        child,
        frames: Receiver::new(Cancellable(answer, options.context.cancel().clone())),
        warnings: 0,
    };
    reading.heed()?;
    match reading.frames.peek()? {
        Some(Frame::Disk(_) | Frame::Fallback(..)) => Ok(Opened::Disk(reading)),
        Some(Frame::Package(_)) => Ok(Opened::Exported(reading)),
        _ => Err(nonsense()),
    }
}

fn create(dir: &Path, name: &str) -> Result<File> {
    let created = Owned::open(dir).and_then(|dir| dir.create_anew(name, 0o600));
    created.or_fail(|| format!("create {}", dir.join(name).display()))
}

impl Reading {
    /// Prefixes an error with what was read.
    pub fn explain(&self, error: Error) -> Error {
        self.source.explain(&self.context, error)
    }

    /// Brings the disk to its place, complete and synced.
    ///
    /// # Errors
    /// As [`crate::import::arrival::disk`]'s.
    pub fn into_disk(mut self) -> Result<Imported> {
        // A file that changes under a reader looks damaged, or cut short.
        let imported = self.disk().or_else(|error| self.unchanged().and(Err(error)));
        for name in SPOOLS {
            let _ = Owned::open(&self.dir).map(|dir| dir.remove(name));
        }
        imported.map_err(|error| self.explain(error))
    }

    fn disk(&mut self) -> Result<Imported> {
        let size = match self.frames.next()? {
            Some(Frame::Disk(size)) => size,
            Some(Frame::Fallback(which, format, why)) => return self.fallback(which, format, &why),
            _ => return Err(nonsense()),
        };
        let progress = self.context.progress(size);
        let mut sink = Sink::new(create(&self.dir, DATA)?, &progress);
        let size_bytes = loop {
            self.heed()?;
            match self.frames.next()? {
                Some(Frame::Copy { at, len, which, from }) => {
                    copy(self.file(which)?, from, &mut sink, (at, len))?;
                }
                Some(Frame::Data { at, len }) => {
                    sink.fill(at, len, &mut |bytes, _| self.frames.fill(bytes))?;
                }
                Some(Frame::End(size)) => break size,
                _ => return Err(nonsense()),
            }
        };
        let digest = sink.finish(size_bytes)?;
        self.unchanged()?;
        Ok(Imported { format: DiskFormat::Raw, size_bytes, digest })
    }

    fn file(&self, which: Which) -> Result<&File> {
        let number = match which {
            Which::Source => 0,
            Which::Spool(n) => n.saturating_add(1),
        };
        self.files.get(number).ok_or_else(nonsense)
    }

    /// Says the warnings that come next, and fails where the reader did.
    fn heed(&mut self) -> Result<()> {
        loop {
            match self.frames.peek()? {
                Some(Frame::Warning(why)) if self.warnings < MAX_WARNINGS => {
                    self.context.warn(one_line(why, 300));
                    self.warnings += 1;
                }
                Some(Frame::Warning(_)) => {}
                Some(Frame::TooLarge) => {
                    let free = room::free(&self.dir).unwrap_or(0);
                    return Err(room::refused(free, &self.dir));
                }
                Some(Frame::Failed(_)) => {
                    let Some(Frame::Failed(error)) = self.frames.next()? else { return Ok(()) };
                    return Err(error);
                }
                Some(_) => return Ok(()),
                None => {
                    self.context.check()?;
                    return Err(self.child.failure("reading it"));
                }
            }
            self.frames.next()?;
        }
    }

    /// # Errors
    /// The source is not as it was when it was opened.
    fn unchanged(&self) -> Result<()> {
        if self.stamp.is_none() || self.files.first().and_then(Stamp::of) == self.stamp {
            return Ok(());
        }
        Err(Error::refused(
            Code::IncorrectState,
            "it changed while it was read; import it again when nobody writes it",
        ))
    }

    /// Has qemu-img read what the reader does not.
    fn fallback(&mut self, which: Which, format: SourceFormat, why: &str) -> Result<Imported> {
        let dir = self.dir.canonicalize().or_fail(|| "find the store")?;
        let path = match (which, &self.source) {
            (Which::Source, Source::Path(path) | Source::Fetched { path, .. }) => {
                path.canonicalize().or_fail(|| "find it")?
            }
            (Which::Spool(n), _) => dir.join(SPOOLS.get(n).ok_or_else(nonsense)?),
            (Which::Source, Source::Stdin) => {
                return Err(Error::refused(
                    Code::InvalidParameterValue,
                    format!("{}; import it from a file", one_line(why, 300)),
                ));
            }
        };
        external::convert((self.file(which)?, &path), format, &dir, self.context.cancel())?;
        self.unchanged()?;
        adopt(&dir)
    }

    /// The package of an exported image.
    ///
    /// # Errors
    /// `InvalidManifest`: it is damaged, cut short or contrived.
    pub fn package(&mut self) -> Result<Package> {
        let len = match self.frames.next()? {
            Some(Frame::Package(len)) if len <= MAX_PACKAGE => len,
            _ => return Err(nonsense()),
        };
        let mut json = vec![0; len as usize];
        self.frames.fill(&mut json)?;
        Package::parse(&json)
    }

    /// The chunk at `offset` of content `number` (0 the kernel, 1 the ramdisk, 2 the first disk);
    /// `None` if it is zeros.
    ///
    /// # Errors
    /// `InvalidManifest`, I/O errors, cancelled.
    pub fn chunk(
        &mut self,
        number: u64,
        content: &Content,
        offset: u64,
    ) -> Result<Option<Vec<u8>>> {
        self.context.check()?;
        self.heed()?;
        match self.frames.peek()? {
            Some(Frame::Chunk { content, at, .. }) if (*content, *at) == (number, offset) => {}
            _ => return Ok(None),
        }
        let expected = content.chunk_len(offset);
        match self.frames.next()? {
            Some(Frame::Chunk { len, .. }) if len == expected as u64 => {}
            _ => return Err(nonsense()),
        }
        let mut bytes = vec![0; expected];
        self.frames.fill(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Nothing is left of an exported image.
    ///
    /// # Errors
    /// `InvalidManifest`: there is something else.
    pub fn done(&mut self) -> Result<()> {
        self.heed()?;
        match self.frames.next()? {
            Some(Frame::End(_)) => self.unchanged(),
            _ => Err(nonsense()),
        }
    }
}

/// Brings the disk of `size` bytes that a helper gives in frames into `out`, complete and synced.
/// Gives its digest.
///
/// # Errors
/// The helper's own; it was stopped; no space, cancelled.
pub(crate) fn disk_of(
    context: &Context,
    child: &mut Child,
    out: File,
    size: u64,
) -> Result<String> {
    let answer = child.answer.try_clone().or_fail(|| "duplicate a descriptor")?;
    let mut frames = Receiver::new(Cancellable(answer, context.cancel().clone()));
    let progress = context.progress(Some(size));
    let mut sink = Sink::new(out, &progress);
    loop {
        match frames.next()? {
            Some(Frame::Data { at, len }) => {
                sink.fill(at, len, &mut |bytes, _| frames.fill(bytes))?;
            }
            Some(Frame::End(end)) if end == size => return sink.finish(size),
            Some(Frame::Failed(error)) => return Err(error),
            Some(_) => return Err(nonsense()),
            None => {
                context.check()?;
                return Err(child.failure("reading it"));
            }
        }
    }
}

/// Copies `len` bytes of the disk at `at` from `from` of a file. Its holes are holes.
fn copy(file: &File, from: u64, sink: &mut Sink<'_>, (at, len): (u64, u64)) -> Result<()> {
    let mut done = 0;
    while done < len {
        let here = from.checked_add(done).ok_or_else(nonsense)?;
        let (skip, data) = match rustix::fs::seek(file, SeekFrom::Data(here)) {
            Ok(data) => {
                let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(u64::MAX);
                (data.saturating_sub(here), hole.saturating_sub(data))
            }
            Err(rustix::io::Errno::NXIO) => break,
            // Block devices and some file systems don't know their holes.
            Err(_) => (0, len - done),
        };
        done = done.saturating_add(skip);
        if done >= len {
            break;
        }
        let data = data.min(len.saturating_sub(done));
        let place = at.checked_add(done).ok_or_else(nonsense)?;
        sink.fill(place, data, &mut |bytes, more| {
            let offset = from + done + more;
            file.read_exact_at(bytes, offset).or_fail(|| format!("read it at byte {offset}"))
        })?;
        done = done.saturating_add(data);
    }
    sink.reach(at.checked_add(len).ok_or_else(nonsense)?)
}

/// A disk's bytes on their way into its file, in order, a [`CHUNK`] at a time.
struct Sink<'a> {
    copy: Copy,
    progress: &'a Progress,
    /// The chunk that is being filled, and where it begins.
    chunk: Option<(u64, Vec<u8>)>,
    /// No earlier byte may come any more.
    next: u64,
}

impl<'a> Sink<'a> {
    fn new(out: File, progress: &'a Progress) -> Self {
        Self { copy: Copy::new(out), progress, chunk: None, next: 0 }
    }

    /// The disk is known up to `end`.
    fn reach(&mut self, end: u64) -> Result<()> {
        if end < self.next || end > MAX_SIZE {
            return Err(nonsense());
        }
        self.next = end;
        Ok(())
    }

    /// Takes `len` bytes at `at`, which `read` fills pieces with; it is told how many were before.
    fn fill(
        &mut self,
        at: u64,
        len: u64,
        read: &mut dyn FnMut(&mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        const SIZE: u64 = CHUNK as u64;
        if at < self.next {
            return Err(nonsense());
        }
        self.reach(at.checked_add(len).ok_or_else(nonsense)?)?;
        let mut done = 0;
        while done < len {
            self.progress.check()?;
            let start = (at + done) / SIZE * SIZE;
            if self.chunk.as_ref().is_none_or(|(begins, _)| *begins != start) {
                self.flush(CHUNK)?;
                self.progress.at(start);
                self.chunk = Some((start, vec![0; CHUNK]));
            }
            let Some((_, bytes)) = &mut self.chunk else { break };
            let within = (at + done - start) as usize;
            let count = (len - done).min(SIZE - within as u64) as usize;
            read(&mut bytes[within..within + count], done)?;
            done += count as u64;
        }
        Ok(())
    }

    fn flush(&mut self, len: usize) -> Result<()> {
        let Some((start, mut bytes)) = self.chunk.take() else { return Ok(()) };
        bytes.truncate(len);
        self.copy.chunk(start, bytes)
    }

    /// Waits until all is durable. Gives the digest.
    fn finish(mut self, size: u64) -> Result<String> {
        check_size(size)?;
        if size < self.next || !size.is_multiple_of(512) {
            return Err(nonsense());
        }
        let last = self.chunk.as_ref().map_or(0, |(start, _)| size - start);
        self.flush(last.min(CHUNK as u64) as usize)?;
        self.copy.finish(size)
    }
}

/// Take what qemu-img wrote: make it durable and digest it.
fn adopt(dir: &Path) -> Result<Imported> {
    let file = Owned::open(dir).and_then(|dir| dir.writable(DATA));
    let file = file.or_fail(|| "open the converted disk")?;
    let size = file.metadata().or_fail(|| "examine the converted disk")?.len();
    check_size(size)?;
    let size_bytes = size.next_multiple_of(512);
    file.set_len(size_bytes).or_fail(|| "set the size of the converted disk")?;
    let digest = digest::file(&file, DiskFormat::Raw)?;
    file.sync_all().or_fail(|| "sync the converted disk")?;
    Ok(Imported { format: DiskFormat::Raw, size_bytes, digest })
}
