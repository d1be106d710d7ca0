//! Taking in an exported image: from anybody, so a confined process reads it, and memory is bounded
//! by a few chunks.

use crate::error::{Error, Result};
use crate::import::Reading;
use crate::record::image::Image;
use crate::store::Store;
use crate::transfer::copy::{self, Chunks, Need, Piece, Region, Source};
use crate::transfer::package::{Content, NewImage, Part, damaged};
use std::sync::{Mutex, PoisonError};

/// Bring an exported image into the store. Nothing stays if that fails.
///
/// # Errors
/// `InvalidManifest`: it is damaged, cut short or contrived; the name is taken; I/O errors, no
/// space, cancelled.
pub fn import(store: &Store, reading: Reading, new: NewImage) -> Result<Image> {
    receive(store, reading, new).map_err(|error| store.context().check().err().unwrap_or(error))
}

fn receive(store: &Store, mut reading: Reading, mut new: NewImage) -> Result<Image> {
    let package = reading.package()?;
    if new.name.is_empty() {
        new.name.clone_from(&package.image.name);
    }
    let source = Archive(Mutex::new(reading));
    copy::run(&package.parts(), &source, store.begin(&package, &new)?, store.context())
}

/// An exported image that is being read, from its beginning to its end.
struct Archive(Mutex<Reading>);

impl Source for Archive {
    fn chunks<'a>(
        &'a self,
        part: Part,
        content: &'a Content,
        _need: Need,
    ) -> Result<Box<dyn Chunks + 'a>> {
        let number = match part {
            Part::Kernel => 0,
            Part::Ramdisk => 1,
            Part::Disk(n) => n as u64 + 2,
        };
        Ok(Box::new(Members { reading: &self.0, number, content, next: Mutex::new(0) }))
    }

    fn changed(&self, content: &Content, _found: &str) -> Error {
        damaged(content)
    }

    fn done(&self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).done()
    }
}

/// A content's members.
struct Members<'a> {
    reading: &'a Mutex<Reading>,
    /// What the reader calls the content.
    number: u64,
    content: &'a Content,
    /// Where the next may begin.
    next: Mutex<u64>,
}

impl Chunks for Members<'_> {
    fn next(&self) -> Option<Result<Piece<'_>>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        while *next < self.content.size_bytes {
            let offset = *next;
            *next += self.content.chunk_size();
            let found = reading.chunk(self.number, self.content, offset).transpose();
            if let Some(found) = found {
                return Some(found.map(|bytes| Piece::of_bytes(offset, bytes)));
            }
        }
        None
    }
}
