//! The confined process that reads what is imported: `__import`.
//!
//! It is given the source and two empty files, and says through a pipe where the bytes of the disk
//! are ([`super::wire`]). It copies nothing that lies in a file as it is: its parent does. What
//! comes in order and has to be read back and forth it unpacks into one of the two files first.

mod archive;
mod exported;
mod room;
mod source;
mod sparse;

use super::format::{self, HEAD, SourceFormat, What};
use super::stream::{Stream, Warnings, unreadable};
use super::wire::{Frame, MAX_DATA, Sender, Which};
use crate::block::foreign::{self, Bytes, Image, Place, vhd};
use crate::block::{self, DiskFormat};
use crate::error::{Error, OrFail, Result};
use crate::helper::{Ends, Given, Helper, Syscalls, not_ours};
use crate::import::others;
use crate::import::others::refused;
use crate::import::source::check_size;
use crate::record::limits::MAX_SIZE;
use crate::snapshot::digest::is_zero;
use crate::sys::seccomp::{Allow, Allow::Call};
use archive::Nested as _;
use source::Window;
use std::fs::File;
use std::io::{self, BufWriter, Stdout};
use std::rc::Rc;

/// Bytes of address space: an xz decoder may take 1 GiB, the tables of a qcow2 of 16 TiB as much.
const MEMORY: u64 = 3 << 30;
/// How often something may be packed in something else.
const MAX_DEPTH: u32 = 4;

/// What reading takes. Anything else ends the process.
const CALLS: &[Allow] = &[
    Call(libc::SYS_read),     // the source
    Call(libc::SYS_pread64),  // the source
    Call(libc::SYS_preadv),   // the source
    Call(libc::SYS_lseek),    // its size
    Call(libc::SYS_statx),    // the same
    Call(libc::SYS_fstat),    // the same
    Call(libc::SYS_write),    // the answer
    Call(libc::SYS_pwrite64), // what is unpacked
    Call(libc::SYS_close),    // the files
    Call(libc::SYS_fcntl),    // std looks at what it closes
];

/// The look, with the source and two empty files. The source's note is its disk's format, if that
/// was given, and how many bytes may be stored: `FORMAT/FREE`.
pub(crate) const HELPER: Helper = Helper {
    word: "__import",
    syscalls: Syscalls::These(CALLS),
    memory: MEMORY,
    seconds: None,
    ends: Ends::WithParent,
    environment: &[],
    run,
};

fn run(files: Vec<Given>) -> Result<()> {
    let mut files = files.into_iter();
    let source = files.next().ok_or_else(not_ours)?;
    let (format, free) = source.text()?.split_once('/').ok_or_else(not_ours)?;
    let mut look = Look {
        format: Some(format).filter(|f| !f.is_empty()).map(str::parse).transpose()?,
        free: free.parse().map_err(|_| not_ours())?,
        spools: files.map(|given| given.file).enumerate().collect(),
        warnings: Warnings::default(),
        out: Sender::new(BufWriter::with_capacity(1 << 16, io::stdout())),
        size: None,
    };
    let done = look.source(source.file);
    for warning in look.warnings.take() {
        look.out.send(&Frame::Warning(warning), &[])?;
    }
    match (done, look.size) {
        (Ok(()), Some(size)) => look.out.send(&Frame::End(size), &[]),
        // Everything has been said: qemu-img goes on with it.
        (Ok(()), None) => Ok(()),
        (Err(error), _) => look.out.send(&Frame::Failed(error), &[]),
    }
}

/// The look at one source.
struct Look {
    /// The disk's format, if it was given: nothing but a compression is looked into then.
    format: Option<SourceFormat>,
    /// Bytes that may be stored.
    free: u64,
    /// Empty files, with their numbers.
    spools: Vec<(usize, File)>,
    warnings: Warnings,
    out: Sender<BufWriter<Stdout>>,
    /// Bytes of the disk, when all is said.
    size: Option<u64>,
}

impl archive::Nested for Look {
    /// What can be read at any place.
    fn window(&mut self, window: Window, depth: u32) -> Result<()> {
        let (head, tail) = window.ends()?;
        check_size(window.size())?;
        match self.what(&head, tail.as_ref(), depth)? {
            // Unpacked it is not less.
            What::Packed(_) if window.size() > self.free => self.out.send(&Frame::TooLarge, &[]),
            What::Packed(compression) => {
                let stream = Stream::new(window.reader());
                let stream = stream.decompressed(compression, &self.warnings);
                self.stream(stream.or_fail(|| "decompress it")?, depth + 1)
            }
            What::Exported => {
                exported::send(Stream::new(window.reader()), &mut self.out, &mut self.size)
            }
            What::Tar => archive::tar_file(self, &window, depth),
            What::Zip => archive::zip(self, &window, depth),
            What::Disk(format) => self.disk(window, format),
        }
    }

    /// Bytes in order. What must be read back and forth is spooled first.
    fn stream(&mut self, mut stream: Stream<'_>, depth: u32) -> Result<()> {
        let head = stream.peek(HEAD).map_err(unreadable)?;
        match self.what(head, None, depth)? {
            What::Packed(compression) => {
                let stream = stream.decompressed(compression, &self.warnings);
                self.stream(stream.or_fail(|| "decompress it")?, depth + 1)
            }
            What::Exported => exported::send(stream, &mut self.out, &mut self.size),
            What::Tar => archive::tar_stream(self, stream, depth),
            What::Zip => {
                let window = self.spool(stream)?;
                archive::zip(self, &window, depth)
            }
            What::Disk(SourceFormat::Raw) => self.raw_stream(stream),
            What::Disk(format) => {
                let window = self.spool(stream)?;
                self.disk(window, format)
            }
        }
    }
}

impl Look {
    fn source(&mut self, file: File) -> Result<()> {
        match Window::seekable(&file)? {
            Some(window) => self.window(window, 0),
            None => self.stream(Stream::new(file), 0),
        }
    }

    fn what(&self, head: &[u8], tail: Option<&[u8; 512]>, depth: u32) -> Result<What> {
        if depth > MAX_DEPTH {
            return Err(refused("it is packed too many times; unpack it first"));
        }
        match (self.format, format::compression(head)) {
            (Some(format), None) => Ok(What::Disk(format)),
            (Some(_), Some(compression)) => Ok(What::Packed(compression)),
            (None, _) => format::what(head, tail),
        }
    }

    fn spool(&mut self, mut stream: Stream<'_>) -> Result<Window> {
        let (number, file) = self
            .spools
            .pop()
            .ok_or_else(|| refused("it is packed too many times; unpack it first"))?;
        let (mut at, mut chunk) = (0u64, vec![0; MAX_DATA as usize]);
        loop {
            let count = stream.fill(&mut chunk).map_err(unreadable)?;
            if count == 0 {
                break;
            }
            if !is_zero(&chunk[..count]) || count < chunk.len() {
                use std::os::unix::fs::FileExt;
                file.write_all_at(&chunk[..count], at).or_fail(|| "unpack it into the store")?;
            }
            at += count as u64;
            // Its tables are more than the disk.
            if at > MAX_SIZE + MAX_SIZE / 64 {
                check_size(at)?;
            }
        }
        let window = Window::new(&file, Which::Spool(number))?;
        check_size(window.size())?;
        Ok(window)
    }

    fn disk(&mut self, window: Window, format: SourceFormat) -> Result<()> {
        let (which, whole) = (window.which(), window.is_whole());
        if format == SourceFormat::Qcow2 && !whole {
            let window = self.spool(Stream::new(window.reader()))?;
            return self.disk(window, format);
        }
        let file: Rc<dyn Bytes> = Rc::new(window.clone());
        let image: io::Result<Box<dyn Image>> = match format {
            SourceFormat::Vmdk => foreign::vmdk::Vmdk::open(file).map(|image| Box::new(image) as _),
            SourceFormat::Vhdx => foreign::vhdx::Vhdx::open(file).map(|image| Box::new(image) as _),
            SourceFormat::Raw => Ok(Box::new(Raw(window.size())) as _),
            SourceFormat::Vpc => vhd::Vhd::open(file).map(|image| Box::new(image) as _),
            SourceFormat::Qcow2 => window
                .file()
                .and_then(|file| block::import_source(file, DiskFormat::Qcow2))
                .map(|image| Box::new(image) as _),
        };
        match image {
            Ok(image) => self.image(&window, &*image).map_err(|error| explain(error, format)),
            Err(cause) if cause.kind() == io::ErrorKind::Unsupported && whole => {
                self.out.send(&Frame::Fallback(which, format, cause.to_string()), &[])
            }
            Err(cause) => Err(explain(cause, format)),
        }
    }

    fn image(&mut self, window: &Window, image: &dyn Image) -> io::Result<()> {
        let size = image.size();
        let other = |error: Error| io::Error::other(Passed(error));
        check_size(size).map_err(other)?;
        if self.format.is_none() {
            others::refuse_large_sectors(&beginning(window, image)?).map_err(other)?;
        }
        if !room::fits(window, image, self.free)? {
            return self.out.send(&Frame::TooLarge, &[]).map_err(other);
        }
        self.out.send(&Frame::Disk(Some(size)), &[]).map_err(other)?;
        let (mut buffer, mut lacks) = (Vec::new(), 0);
        foreign::each_run(image, window.size(), &mut |at, place, len| match place {
            Place::Zero => Ok(()),
            Place::At(from) => {
                lacks = lacks.max(from.saturating_add(len).saturating_sub(window.size()));
                self.copy(window, (at, from, len)).map_err(other)
            }
            Place::Packed => {
                buffer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
                image.read_exact_at(&mut buffer, at)?;
                self.data(at, &buffer).map_err(other)
            }
        })?;
        if lacks != 0 {
            // QEMU reads zeros there, and its check finds nothing.
            self.warnings.borrow_mut().push(format!(
                "the last {lacks} bytes of its last cluster are beyond its end and read as zeros: it may be cut short; \
                 compare its checksum"
            ));
        }
        self.size = Some(size.next_multiple_of(512));
        Ok(())
    }

    /// `len` bytes of the disk at `at` are in the window at `from`.
    fn copy(&mut self, window: &Window, (at, from, len): (u64, u64, u64)) -> Result<()> {
        let from = window.start() + from;
        self.out.send(&Frame::Copy { at, len, which: window.which(), from }, &[])
    }

    fn data(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        for (n, piece) in bytes.chunks(MAX_DATA as usize).enumerate().filter(|(_, p)| !is_zero(p)) {
            let at = at + n as u64 * MAX_DATA;
            self.out.send(&Frame::Data { at, len: piece.len() as u64 }, piece)?;
        }
        Ok(())
    }

    /// A raw disk, or a fixed VHD, which is one with a footer behind it. A chunk is kept until the
    /// next has come.
    fn raw_stream(&mut self, mut stream: Stream<'_>) -> Result<()> {
        self.out.send(&Frame::Disk(None), &[])?;
        let (mut last, mut next) = (Vec::new(), vec![0; MAX_DATA as usize]);
        let mut at = 0u64;
        loop {
            next.resize(MAX_DATA as usize, 0);
            let count = stream.fill(&mut next).map_err(unreadable)?;
            if count == 0 {
                break;
            }
            let before = at - last.len() as u64;
            self.data(before, &last)?;
            next.truncate(count);
            at += count as u64;
            check_size(at)?;
            std::mem::swap(&mut last, &mut next);
        }
        check_size(at)?;
        let before = at - last.len() as u64;
        if self.format != Some(SourceFormat::Raw)
            && let footer_len = vhd::footer_len(at) as usize
            && let Some(found) = last.len().checked_sub(footer_len).map(|from| &last[from..])
        {
            let (mut footer, disk) = ([0; 512], at - footer_len as u64);
            footer[..footer_len].copy_from_slice(found);
            let size = vhd::fixed_size(&footer, disk);
            match size.map_err(|cause| explain(cause, SourceFormat::Vpc))? {
                Some(size) if size != disk => {
                    return Err(refused(
                        "it is a fixed VHD whose disk ends before its footer; decompress it into a file, and import that",
                    ));
                }
                Some(size) => {
                    last.truncate(last.len() - footer_len);
                    at = size;
                }
                None => {}
            }
        }
        self.data(before, &last)?;
        check_size(at)?;
        self.size = Some(at.next_multiple_of(512));
        Ok(())
    }
}

/// What an image's disk begins with. What its file does not have is told when it is copied.
fn beginning(window: &Window, image: &dyn Image) -> io::Result<Vec<u8>> {
    let mut head = vec![0; image.size().min(HEAD as u64) as usize];
    let mut at = 0;
    while at < head.len() {
        let (place, len) = image.place_at(at as u64)?;
        let end = head.len().min(at + len.clamp(1, HEAD as u64) as usize);
        match place {
            Place::Zero => {}
            Place::At(from) => drop(window.read_exact_at(&mut head[at..end], from)),
            Place::Packed => image.read_exact_at(&mut head[at..end], at as u64)?,
        }
        at = end;
    }
    Ok(head)
}

/// A disk that is its file.
struct Raw(u64);

impl Image for Raw {
    fn size(&self) -> u64 {
        self.0
    }

    fn place_at(&self, offset: u64) -> io::Result<(Place, u64)> {
        Ok((Place::At(offset), self.0 - offset))
    }

    fn read_exact_at(&self, _bytes: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// An error of ours that passes through a reader.
#[derive(Debug)]
struct Passed(Error);

impl std::fmt::Display for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Passed {}

/// Why an image can't be read, and the one thing to do.
fn explain(cause: io::Error, format: SourceFormat) -> Error {
    let kind = cause.kind();
    let cause = match cause.downcast::<Passed>() {
        Ok(passed) => return passed.0,
        Err(cause) => cause,
    };
    let why = cause.to_string();
    match kind {
        // What it refers to, with the remedy, or what it is.
        io::ErrorKind::PermissionDenied if why.contains("; ") => refused(why),
        io::ErrorKind::PermissionDenied => refused(format!(
            "{why}, and no other file is ever opened; flatten it where it was made: qemu-img convert -O qcow2"
        )),
        io::ErrorKind::Unsupported => {
            refused(format!("it is a {format} that can't be read here: {why}; {}", others::CONVERT))
        }
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            let error = refused(format!("the disk can't be read as {format}: {why}"));
            match format {
                _ if why.contains("; ") => error,
                SourceFormat::Qcow2 => error.remedy("check it with 'qemu-img check'"),
                _ => error.remedy("fetch it again"),
            }
        }
        _ => Error::io("read it", cause),
    }
}
