//! An image as one stream of bytes: a file to keep, or a pipe to another machine.
//!
//! It is a tar archive. The first member is the [`Package`]; the kernel's, the ramdisk's and the
//! disks' chunks follow in that order, each compressed by zstd and named by what it belongs to and
//! where in that it begins; what is zeros is left out. An empty member ends it. Digests in the
//! package say whether all has arrived.

pub mod disk;
pub mod read;

use super::copy::{self, Need, Pending, Piece, Source, Writer};
use super::package::{Content, Package, Part};
use super::stored::Stored;
use crate::context::Context;
use crate::error::{Error, OrFail, Result};
use crate::record::image::Image;
use crate::store::Store;
use crate::store::beneath::foreign_replace;
use crate::transfer::members::{END, PACKAGE, disk_member, member};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Write an image.
///
/// # Errors
/// It is not available, a snapshot has changed, or `out` can't be written.
pub fn write(store: &Store, image: &Image, out: &mut (dyn Write + Send)) -> Result<()> {
    let package = Package::of(store, image)?;
    let mut archive = Archive { tar: tar::Builder::new(out), context: store.context().clone() };
    archive.append(PACKAGE, &package.to_json()?)?;
    let source = Stored::new(store, Some(image.clone()));
    copy::run(&package.parts(), &source, Box::new(archive), store.context())
}

/// The archive being written.
struct Archive<W: Write> {
    tar: tar::Builder<W>,
    context: Context,
}

impl<W: Write> Archive<W> {
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.context.check()?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        self.tar.append_data(&mut header, name, bytes).or_fail(|| "write the exported image")
    }
}

impl<W: Write + Send> Pending for Archive<W> {
    type Made = ();

    fn open<'a>(
        &'a mut self,
        part: Part,
        _content: &'a Content,
        _source: &dyn Source,
    ) -> Result<Option<Box<dyn Writer + 'a>>> {
        let what = match part {
            Part::Kernel => "kernel".to_owned(),
            Part::Ramdisk => "ramdisk".to_owned(),
            Part::Disk(n) => disk_member(n),
        };
        Ok(Some(Box::new(Members { archive: Mutex::new(self), what })))
    }

    fn complete(&mut self) -> Result<()> {
        self.append(END, &[])?;
        let doing = || "write the exported image";
        self.tar.finish().or_fail(doing)?;
        self.tar.get_mut().flush().or_fail(doing)
    }

    fn failed(self: Box<Self>, error: Error) -> Error {
        error
    }
}

/// A content's members.
struct Members<'a, W: Write> {
    archive: Mutex<&'a mut Archive<W>>,
    what: String,
}

impl<W: Write + Send> Writer for Members<'_, W> {
    fn need(&self) -> Need {
        Need::Chunks
    }

    fn threads(&self) -> usize {
        1
    }

    fn take(&self, piece: Piece<'_>) -> Result<()> {
        let name = member(&self.what, piece.offset);
        let Some(bytes) = piece.compressed()? else { return Ok(()) };
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        archive.append(&name, &bytes)
    }

    fn seal(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Write an image to a file, which is there whole or not at all, or to standard output.
///
/// # Errors
/// As [`write`]'s; standard output is a terminal.
pub fn to(store: &Store, image: &Image, path: &Path) -> Result<()> {
    if path.as_os_str() == "-" {
        let out = io::stdout();
        if out.is_terminal() {
            return Err(Error::usage("an image is not for a terminal: give -o FILE, or a pipe"));
        }
        let out = rustix::io::dup(&out).or_fail(|| "use standard output")?;
        return write(store, image, &mut File::from(out));
    }
    // A pipe or a device takes it as it comes.
    if path.metadata().is_ok_and(|meta| !meta.is_file()) {
        let file = File::options().write(true).open(path);
        return write(store, image, &mut file.or_fail(|| format!("open {}", path.display()))?);
    }
    foreign_replace(path, |file| write(store, image, file))
}
