//! Copies into remote regions: content first, the package last. Another attempt finds what has
//! arrived by its digest.

use super::collect::{self, Flag};
use crate::error::{Code, Error, Result};
use crate::plan::DiskFormat;
use crate::record::image::Image;
use crate::record::name;
use crate::record::snapshot::Snapshot;
use crate::snapshot::{self, Wanted};
use crate::store::now;
use crate::transfer::copy::{Need, Pending, Piece, Source, Writer};
use crate::transfer::package::{
    Chunk, Content, NewImage, Package, Part, SnapshotPackage, malformed,
};
use crate::transfer::remote::Remote;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// What describes an object in a region, and lists its content.
pub(super) trait Described {
    /// The object.
    type Made: Clone;
    /// The object as it is to be.
    fn made(&self) -> &Self::Made;
    /// A part's content; `None` if there is none.
    fn content(&mut self, part: Part) -> Option<&mut Content>;
    /// Let it appear.
    fn publish(&self, to: &Remote) -> Result<()>;
}

impl Described for Package {
    type Made = Image;

    fn made(&self) -> &Image {
        &self.image
    }

    fn content(&mut self, part: Part) -> Option<&mut Content> {
        match part {
            Part::Kernel => self.kernel.as_mut(),
            Part::Ramdisk => self.ramdisk.as_mut(),
            Part::Disk(n) => self.disks.get_mut(n),
        }
    }

    fn publish(&self, to: &Remote) -> Result<()> {
        to.publish(self)
    }
}

impl Described for SnapshotPackage {
    type Made = Snapshot;

    fn made(&self) -> &Snapshot {
        &self.snapshot
    }

    fn content(&mut self, _part: Part) -> Option<&mut Content> {
        self.disk.as_mut()
    }

    fn publish(&self, to: &Remote) -> Result<()> {
        to.publish_snapshot(self)
    }
}

/// An image or a snapshot on its way into a region.
pub(super) struct PendingCopy<'a, P> {
    to: &'a Remote,
    package: P,
    /// Says that a copy is going on.
    _flag: Option<Flag<'a>>,
}

impl<'a> PendingCopy<'a, Package> {
    /// # Errors
    /// The name is malformed or taken there; the region fails.
    pub(super) fn image(to: &'a Remote, package: &Package, new: &NewImage) -> Result<Self> {
        let mut package = package.clone();
        package.renew(new, to.account())?;
        check_free(to, &new.name)?;
        Ok(Self { to, package, _flag: collect::announce(to)? })
    }
}

impl<'a> PendingCopy<'a, SnapshotPackage> {
    /// # Errors
    /// What it is to be said to be is malformed; the region fails.
    pub(super) fn snapshot(
        to: &'a Remote,
        package: &SnapshotPackage,
        wanted: Wanted,
    ) -> Result<Self> {
        snapshot::check(&wanted)?;
        let source = &package.snapshot;
        // There it is one file.
        let (made, content) = ((to.account(), now()), (DiskFormat::Raw, source.digest.clone()));
        let mut copy = Snapshot::flat(wanted.snapshot_id, made, source.size_bytes, content);
        (copy.description, copy.tags) = (wanted.description, wanted.tags);
        let package = SnapshotPackage { snapshot: copy, ..package.clone() };
        Ok(Self { to, package, _flag: collect::announce(to)? })
    }
}

fn check_free(to: &Remote, name: &str) -> Result<()> {
    name::check(name)?;
    let me = to.account();
    let holder = match to.named(name)? {
        // A tag is one image's, whoever has it.
        Some(holder) => holder,
        None => {
            let mut all = to.images()?.into_iter();
            all.find(|p| p.image.name == name && p.image.owner_id == me)
        }
    };
    match holder {
        None => Ok(()),
        Some(holder) => Err(Error::refused(
            Code::InvalidAMINameDuplicate,
            format!(
                "the name '{name}' is taken in '{}' by {}; choose another",
                to.name(),
                holder.image.image_id
            ),
        )),
    }
}

impl<P: Described> Pending for PendingCopy<'_, P> {
    type Made = P::Made;

    fn open<'a>(
        &'a mut self,
        part: Part,
        _content: &'a Content,
        _source: &dyn Source,
    ) -> Result<Option<Box<dyn Writer + 'a>>> {
        let content = self.package.content(part).ok_or_else(|| malformed("it lacks content"))?;
        let (asked, sent) = Default::default();
        Ok(Some(Box::new(Sender { to: self.to, content, asked, sent })))
    }

    fn complete(&mut self) -> Result<P::Made> {
        self.package.publish(self.to)?;
        Ok(self.package.made().clone())
    }

    fn failed(self: Box<Self>, error: Error) -> Error {
        match error.code() {
            Some(Code::Unavailable) => {
                error.remedy("what it has is not sent again when you run this again")
            }
            _ => error,
        }
    }
}

/// A content on its way: what the region has already is not sent, and what it has several times is
/// sent once. Some registries fail if they are asked for a blob that another connection is
/// bringing.
struct Sender<'a> {
    to: &'a Remote,
    content: &'a mut Content,
    /// Digests of chunks that a thread has seen to, or is seeing to: if it fails, all of the copy
    /// does.
    asked: Mutex<HashSet<String>>,
    sent: Mutex<Vec<Chunk>>,
}

impl Writer for Sender<'_> {
    fn need(&self) -> Need {
        Need::Chunks
    }

    fn take(&self, piece: Piece<'_>) -> Result<()> {
        let lacks = |chunk: &Chunk| {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if !asked.insert(chunk.digest.clone()) {
                return Ok(false);
            }
            drop(asked);
            self.to.has(chunk).map(|has| !has)
        };
        let Some((chunk, packed)) = piece.packed(lacks)? else { return Ok(()) };
        if let Some(packed) = packed {
            self.to.put(&chunk, packed)?;
        }
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<()> {
        let mut sent = self.sent.into_inner().unwrap_or_else(PoisonError::into_inner);
        sent.sort_by_key(|chunk| chunk.offset);
        self.content.chunks = sent;
        Ok(())
    }
}
