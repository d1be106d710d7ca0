//! Regions that are not directories: content by its digest in a bucket or in a registry, and a package for each image.
//!
//! Content goes first, the package last: an image is there whole or not at all, and what an interrupted copy has sent
//! is not sent again. Only [`net`] knows of asynchronous code, and only [`helper`]'s program has that.

pub mod helper;
mod net;
pub mod pull;
pub mod push;

use super::package::{Chunk, MAX_PACKAGE, Package};
use super::record::Image;
use super::region::{Location, Region};
use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::store::Record;
use helper::Backend;
use std::time::Duration;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing may be heard on one.
const SILENCE: Duration = Duration::from_secs(60);
/// Chunks in flight at once.
pub(super) const PARALLEL: usize = 4;

/// An open remote region.
pub struct Remote {
    name: String,
    location: Location,
    backend: Box<dyn Backend>,
}

/// What a backend says went wrong.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is not there.
    Absent,
    /// The user may not.
    Denied(String),
    /// Anything else.
    Failed(String),
}

/// What a backend gives.
type Answer<T> = std::result::Result<T, Fault>;

impl Remote {
    /// Open a region. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The client can't be set up; it is a directory.
    pub fn open(region: &Region) -> Result<Self> {
        let backend = (helper::helper()?.region)(&region.endpoint)?;
        let (name, location) = (region.region_name.clone(), region.endpoint.clone());
        Ok(Self { name, location, backend })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn told(&self, doing: &str, fault: Fault) -> Error {
        let place = format!("the region '{}' ({})", self.name, self.location);
        let (code, why) = match fault {
            Fault::Absent => ("Unavailable", "it is not there".to_owned()),
            Fault::Denied(why) => ("AuthFailure", why),
            Fault::Failed(why) => ("Unavailable", why),
        };
        // A server's answer may have many lines, and be long.
        let why: String = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let why: String = why.chars().take(300).collect();
        Error::refused(code, format!("{place} can't {doing}: {why}"))
    }

    fn ids(&self) -> Result<Vec<ImageId>> {
        self.backend.list().map_err(|fault| self.told("list its images", fault))
    }

    /// See whether it answers.
    ///
    /// # Errors
    /// It does not.
    pub fn probe(&self) -> Result<()> {
        self.ids().map(drop)
    }

    /// The images in it.
    ///
    /// # Errors
    /// It can't be reached. What is no image of ours is told on stderr.
    pub fn images(&self) -> Result<Vec<Package>> {
        let mut packages = Vec::new();
        for id in self.ids()? {
            match self.package(&id) {
                Ok(package) => packages.push(package),
                Err(e) if e.code() == Some("Unavailable") => return Err(e),
                // It went meanwhile.
                Err(e) if e.code() == Some(Image::NOT_FOUND) => {}
                Err(e) => eprintln!("spore: warning: {id}: {e}"),
            }
        }
        Ok(packages)
    }

    fn package(&self, id: &ImageId) -> Result<Package> {
        let json = self.backend.package(id, MAX_PACKAGE);
        let json = json.map_err(|fault| match fault {
            Fault::Absent => self.not_found(id.as_str()),
            fault => self.told("give an image", fault),
        })?;
        let package = Package::parse(&json)?;
        if package.image.image_id != *id {
            return Err(super::package::malformed("it is another image's"));
        }
        Ok(package)
    }

    fn not_found(&self, text: &str) -> Error {
        let shown: String = text.escape_debug().take(200).collect();
        Error::refused(
            Image::NOT_FOUND,
            format!("there is no image '{shown}' in the region '{}'", self.name),
        )
    }

    /// The image that `text` addresses: its id, its name or a prefix of its id that no other has.
    ///
    /// # Errors
    /// `InvalidAMIID.NotFound`; several match; it can't be reached.
    pub fn resolve(&self, text: &str) -> Result<Package> {
        if let Ok(id) = text.parse() {
            return self.package(&id);
        }
        let all = self.images()?;
        let named = |p: &&Package| p.image.name == text;
        let begins = |p: &&Package| p.image.image_id.as_str().starts_with(text);
        let mut found: Vec<&Package> = all.iter().filter(named).collect();
        if found.is_empty() && text.starts_with(ImageId::PREFIX) {
            found = all.iter().filter(begins).collect();
        }
        match found[..] {
            [one] => Ok(one.clone()),
            [] => Err(self.not_found(text)),
            _ => Err(Error::refused(
                "InvalidParameterValue",
                format!("'{}' addresses {} images; give an id", text.escape_debug(), found.len()),
            )),
        }
    }

    /// Whether it has a chunk already.
    fn has(&self, chunk: &Chunk) -> Result<bool> {
        let found = self.backend.has(&chunk.digest);
        found.map_err(|fault| self.told("say what it has", fault))
    }

    fn put(&self, chunk: &Chunk, bytes: Vec<u8>) -> Result<()> {
        let put = self.backend.put(&chunk.digest, bytes);
        put.map_err(|fault| self.told("take content", fault))
    }

    /// A chunk's compressed bytes. They are verified.
    fn get(&self, chunk: &Chunk) -> Result<Vec<u8>> {
        let bytes = self.backend.get(&chunk.digest, chunk.size);
        let bytes = bytes.map_err(|fault| self.told("give content", fault))?;
        if bytes.len() as u64 == chunk.size && push::sha256(&bytes) == chunk.digest {
            return Ok(bytes);
        }
        Err(super::package::malformed("a chunk is not what its digest says"))
    }

    /// Let an image appear, all of whose chunks are there.
    fn publish(&self, package: &Package) -> Result<()> {
        let (id, json) = (&package.image.image_id, package.to_json()?);
        let published = self.backend.publish(id, json, &all_chunks(package));
        published.map_err(|fault| self.told("take an image", fault))
    }
}

/// Every chunk of an image, each once.
fn all_chunks(package: &Package) -> Vec<&Chunk> {
    let files = package.kernel.iter().chain(&package.ramdisk).chain(&package.disks);
    let mut chunks: Vec<&Chunk> = files.flat_map(|content| &content.chunks).collect();
    chunks.sort_by(|a, b| a.digest.cmp(&b.digest));
    chunks.dedup_by(|a, b| a.digest == b.digest);
    chunks
}
