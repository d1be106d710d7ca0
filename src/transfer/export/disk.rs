//! The root disk of an image as a raw file, for whoever knows nothing of Spore's images.

use crate::error::{Code, Error, OrFail, Result};
use crate::record::image::Image;
use crate::store::Store;
use crate::store::beneath::foreign_replace;
use crate::transfer::copy::{self, Need, Pending, Piece, Source, Writer};
use crate::transfer::package::{Content, Package, Part};
use crate::transfer::stored::Stored;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Write an image's root disk to a file, which is sparse, and there whole or not at all.
///
/// # Errors
/// The image is not available, or has none; its content has changed; the file can't be written.
pub fn to(store: &Store, image: &Image, path: &Path) -> Result<()> {
    let package = Package::of(store, image)?;
    let root = image.root_snapshot().map(ToString::to_string);
    let root = package.parts().into_iter().find(|(part, content)| {
        matches!(part, Part::Disk(_)) && Some(&content.name) == root.as_ref()
    });
    let root = root.ok_or_else(|| {
        let why = format!("the root of {} begins as no snapshot", image.image_id);
        Error::refused(Code::InvalidParameterValue, why)
    })?;
    let source = Stored::new(store, Some(image.clone()));
    foreign_replace(path, |file| {
        copy::run(&[root], &source, Box::new(Raw { file }), store.context())
    })
}

/// The file being written.
struct Raw<'f> {
    file: &'f File,
}

impl Pending for Raw<'_> {
    type Made = ();

    fn open<'a>(
        &'a mut self,
        _part: Part,
        content: &'a Content,
        _source: &dyn Source,
    ) -> Result<Option<Box<dyn Writer + 'a>>> {
        self.file.set_len(content.size_bytes).or_fail(|| "write the exported disk")?;
        Ok(Some(Box::new(Bytes { file: self.file })))
    }

    fn complete(&mut self) -> Result<()> {
        Ok(())
    }

    fn failed(self: Box<Self>, error: Error) -> Error {
        error
    }
}

struct Bytes<'f> {
    file: &'f File,
}

impl Writer for Bytes<'_> {
    fn need(&self) -> Need {
        Need::Chunks
    }

    fn take(&self, piece: Piece<'_>) -> Result<()> {
        let at = piece.offset;
        let bytes = piece.bytes()?;
        self.file.write_all_at(&bytes, at).or_fail(|| "write the exported disk")
    }

    fn seal(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
