//! An open remote region.

use super::backend::{Backend, Fault, Objects};
use super::helper;
use crate::context::Context;
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{Id, ImageId, SnapshotId};
use crate::image::catalog;
use crate::record::image::{Image, ImageState};
use crate::record::snapshot::Snapshot;
use crate::store::{Record, not_owned};
use crate::transfer::package::{
    Chunk, Content, MAX_PACKAGE, Package, SnapshotPackage, is_digest, malformed,
};
use crate::transfer::region::{Location, Region};

/// What stands between an image's name and the digest of its manifest.
const PIN: &str = "@sha256:";

/// An open remote region.
pub struct Remote {
    pub(super) name: String,
    pub(super) location: Location,
    pub(super) context: Context,
    pub(super) backend: Box<dyn Backend>,
    /// The same as a place for objects, if it keeps content until somebody says otherwise.
    pub(super) objects: Option<Box<dyn Objects>>,
}

impl Remote {
    /// Open a region. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The client can't be set up; it is a directory.
    pub fn open(context: &Context, region: &Region) -> Result<Self> {
        let context = context.clone();
        let backend = (helper::helper(&context)?.region)(&region.endpoint)?;
        let (name, location) = (region.region_name.clone(), region.endpoint.clone());
        let objects = match &location {
            Location::S3(location) => Some((helper::helper(&context)?.bucket)(location)?),
            _ => None,
        };
        Ok(Self { name, location, context, backend, objects })
    }

    /// # Errors
    /// `AuthFailure`: the object is another's.
    pub(super) fn check_owner<R: Record>(&self, record: &R) -> Result<()> {
        let own = record.owner() == self.account();
        if own { Ok(()) } else { Err(not_owned(record)) }
    }

    /// The caller's account: its uid in decimal.
    pub(super) fn account(&self) -> String {
        self.context.caller().to_string()
    }

    /// What the work in it is done for.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn reported(&self, doing: &str, fault: Fault) -> Error {
        let place = format!("the region '{}' ({})", self.name, self.location);
        let (code, why) = match fault {
            Fault::Absent => (Code::Unavailable, "it is not there".to_owned()),
            Fault::Denied(why) => (Code::AuthFailure, why),
            Fault::Failed(why) => (Code::Unavailable, why),
        };
        Error::refused(code, format!("{place} can't {doing}: {}", Fault::reported(&why)))
    }

    pub(super) fn objects(&self) -> Option<&dyn Objects> {
        self.objects.as_deref()
    }

    fn ids<I: Id>(&self) -> Result<Vec<I>> {
        let all = self.backend.list().map_err(|fault| self.reported("list its images", fault))?;
        Ok(all.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// See whether it answers.
    ///
    /// # Errors
    /// It does not.
    pub fn probe(&self) -> Result<()> {
        self.ids::<ImageId>().map(drop)
    }

    /// The images in it.
    ///
    /// # Errors
    /// It can't be reached. What is no image of ours is a warning.
    pub fn images(&self) -> Result<Vec<Package>> {
        let mut packages = Vec::new();
        for id in self.ids()? {
            match self.package(&id) {
                Ok(package) if package.image.state == ImageState::Deregistered => {}
                Ok(package) => packages.push(package),
                Err(e) if e.code() == Some(Code::Unavailable) => return Err(e),
                // It went meanwhile.
                Err(e) if e.code() == Some(Image::NOT_FOUND) => {}
                Err(e) => self.context.warn(format_args!("{id}: {e}")),
            }
        }
        Ok(packages)
    }

    fn package(&self, id: &ImageId) -> Result<Package> {
        let package = Package::parse(&self.json::<Image>(id.as_str())?)?;
        if package.image.image_id != *id {
            return Err(malformed("it is another image's"));
        }
        Ok(package)
    }

    fn json<R: Record>(&self, id: &str) -> Result<Vec<u8>> {
        self.backend.package(id, MAX_PACKAGE).map_err(|fault| match fault {
            Fault::Absent => self.not_found::<R>(id),
            fault => self.reported("give what it has", fault),
        })
    }

    fn not_found<R: Record>(&self, text: &str) -> Error {
        let shown: String = text.escape_debug().take(200).collect();
        Error::refused(
            R::NOT_FOUND,
            format!("there is no {} '{shown}' in the region '{}'", R::KIND, self.name),
        )
    }

    /// The snapshots in it that are not an image's.
    ///
    /// # Errors
    /// As [`Remote::images`]'s.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut snapshots = Vec::new();
        for id in self.ids()? {
            match self.snapshot(&id) {
                Ok(package) => snapshots.push(package.snapshot),
                Err(e) if e.code() == Some(Code::Unavailable) => return Err(e),
                Err(e) if e.code() == Some(Snapshot::NOT_FOUND) => {}
                Err(e) => self.context.warn(format_args!("{id}: {e}")),
            }
        }
        Ok(snapshots)
    }

    /// A snapshot that is not an image's.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`; it can't be reached, or what it has is none.
    pub fn snapshot(&self, id: &SnapshotId) -> Result<SnapshotPackage> {
        let package = SnapshotPackage::parse(&self.json::<Snapshot>(id.as_str())?)?;
        if package.snapshot.snapshot_id != *id {
            return Err(malformed("it is another snapshot's"));
        }
        match package.disk {
            Some(_) => Ok(package),
            None => Err(self.not_found::<Snapshot>(id.as_str())),
        }
    }

    /// The digests of all content that something in the region refers to.
    pub(super) fn needed(&self) -> Result<Vec<String>> {
        let mut needed = Vec::new();
        for id in self.ids::<ImageId>()? {
            let package = self.package(&id).map_err(|e| e.context(&id))?;
            needed.extend(all_chunks(&package).into_iter().map(|chunk| chunk.digest.clone()));
        }
        for id in self.ids::<SnapshotId>()? {
            let package = SnapshotPackage::parse(&self.json::<Snapshot>(id.as_str())?);
            let package = package.map_err(|e| e.context(&id))?;
            let chunks = package.disk.into_iter().flat_map(|disk| disk.chunks);
            needed.extend(chunks.map(|chunk| chunk.digest));
        }
        Ok(needed)
    }

    /// The image that `text` addresses: its id, its name, a prefix of its id that no other has, or
    /// `NAME@sha256:HEX`, by the digest of its manifest in a registry.
    ///
    /// # Errors
    /// `InvalidAMIID.NotFound`; `InvalidAMIID.Unavailable`: it is deregistered; several match; it
    /// can't be reached.
    pub fn resolve(&self, text: &str) -> Result<Package> {
        if let Some((name, digest)) = text.split_once(PIN) {
            return self.pinned(text, name, digest);
        }
        if let Ok(id) = text.parse() {
            let package = self.package(&id)?;
            catalog::check_registered(&package.image)?;
            return Ok(package);
        }
        let tagged = self.named(text)?;
        if let Some(Some(package)) = tagged {
            return Ok(package);
        }
        let mut found = match tagged {
            // What has a tag for each name has no other name.
            Some(_) => Vec::new(),
            None => self.images()?.into_iter().filter(|p| p.image.name == text).collect(),
        };
        if found.is_empty() && text.starts_with(ImageId::PREFIX) {
            let ids = self.ids::<ImageId>()?.into_iter();
            for id in ids.filter(|id| id.as_str().starts_with(text)) {
                let package = self.package(&id)?;
                found.extend(Some(package).filter(is_registered));
            }
        }
        match found.len() {
            1 => Ok(found.swap_remove(0)),
            0 => Err(self.not_found::<Image>(text)),
            count => Err(Error::refused(
                Code::InvalidParameterValue,
                format!("'{}' addresses {count} images; give an id", text.escape_debug()),
            )),
        }
    }

    /// The image that has the tag of this name; `None` where names have no tags.
    ///
    /// # Errors
    /// It can't be reached, or what it has there is no image.
    pub(super) fn named(&self, name: &str) -> Result<Option<Option<Package>>> {
        match self.backend.tagged(&tag(name), MAX_PACKAGE) {
            None => Ok(None),
            Some(Err(Fault::Absent)) => Ok(Some(None)),
            Some(json) => {
                let json = json.map_err(|fault| self.reported("give what it has", fault))?;
                let found = Some(Package::parse(&json)?);
                Ok(Some(found.filter(|p| p.image.name == name).filter(is_registered)))
            }
        }
    }

    fn pinned(&self, text: &str, name: &str, digest: &str) -> Result<Package> {
        let refused = |why: &str| {
            let shown: String = text.escape_debug().take(200).collect();
            Err(Error::refused(Code::InvalidParameterValue, format!("'{shown}': {why}")))
        };
        if !is_digest(digest) {
            return refused("a digest has 64 hexadecimal digits, in lower case");
        }
        match self.backend.tagged(&format!("sha256:{digest}"), MAX_PACKAGE) {
            None => refused("only what is in a registry has a digest; give its name or its id"),
            Some(Err(Fault::Absent)) => Err(self.not_found::<Image>(text)),
            Some(json) => {
                let json = json.map_err(|fault| self.reported("give what it has", fault))?;
                let package = Package::parse(&json)?;
                match name.is_empty() || package.image.name == name {
                    true => Ok(package),
                    false => Err(self.not_found::<Image>(text)),
                }
            }
        }
    }

    /// Whether it has a chunk already.
    pub(super) fn has(&self, chunk: &Chunk) -> Result<bool> {
        let found = self.backend.has(&chunk.digest);
        found.map_err(|fault| self.reported("say what it has", fault))
    }

    pub(super) fn put(&self, chunk: &Chunk, bytes: Vec<u8>) -> Result<()> {
        let put = self.backend.put(&chunk.digest, bytes);
        put.map_err(|fault| self.reported("take content", fault))
    }

    /// A chunk's compressed bytes. They are verified.
    pub(super) fn get(&self, chunk: &Chunk) -> Result<Vec<u8>> {
        let bytes = self.backend.get(&chunk.digest, chunk.size);
        let bytes = bytes.map_err(|fault| self.reported("give content", fault))?;
        if bytes.len() as u64 == chunk.size
            && crate::transfer::chunk::sha256(&bytes) == chunk.digest
        {
            return Ok(bytes);
        }
        Err(malformed("a chunk is not what its digest says"))
    }

    /// Let an image appear, all of whose chunks are there.
    pub(super) fn publish(&self, package: &Package) -> Result<()> {
        let (id, json) = (&package.image.image_id, package.to_json()?);
        let name = &package.image.name;
        // Another image may have the name since this one was deregistered.
        let holder = match is_registered(package) {
            true => None,
            false => self.named(name)?.flatten(),
        };
        let published = self.backend.publish(id.as_str(), json, &all_chunks(package));
        published.map_err(|fault| self.reported("take an image", fault))?;
        let has_name = holder.is_none_or(|holder| holder.image.image_id == *id);
        let tagged = if has_name { self.backend.tag(id.as_str(), &tag(name)) } else { Ok(()) };
        tagged.map_err(|fault| self.reported("give an image its tag", fault))
    }

    /// Let a snapshot appear, all of whose chunks are there.
    pub(super) fn publish_snapshot(&self, package: &SnapshotPackage) -> Result<()> {
        let json = serde_json::to_vec(package).or_fail(|| "describe the snapshot")?;
        let id = package.snapshot.snapshot_id.as_str();
        let published = self.backend.publish(id, json, &each_once(package.disk.iter()));
        published.map_err(|fault| self.reported("take a snapshot", fault))
    }
}

fn is_registered(package: &Package) -> bool {
    package.image.state != ImageState::Deregistered
}

/// The tag of a name: the name itself, if it can be one. (distribution-spec, "Pulling manifests")
fn tag(name: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let plain = name.chars().all(fine) && !name.starts_with(['.', '-']) && name.len() <= 128;
    // An id is the tag of what has it.
    let id = [ImageId::PREFIX, SnapshotId::PREFIX].iter().any(|prefix| name.starts_with(prefix));
    match plain && !id {
        true => name.to_owned(),
        false => format!("name-{}", crate::transfer::chunk::sha256(name.as_bytes())),
    }
}

/// Every chunk of an image, each once.
pub(super) fn all_chunks(package: &Package) -> Vec<&Chunk> {
    each_once(package.kernel.iter().chain(&package.ramdisk).chain(&package.disks))
}

pub(super) fn each_once<'a>(contents: impl Iterator<Item = &'a Content>) -> Vec<&'a Chunk> {
    let mut chunks: Vec<&Chunk> = contents.flat_map(|content| &content.chunks).collect();
    chunks.sort_by(|a, b| a.digest.cmp(&b.digest));
    chunks.dedup_by(|a, b| a.digest == b.digest);
    chunks
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn a_name_is_its_tag_where_it_can_be_one() {
        assert_eq!(tag("debian-12"), "debian-12");
        for name in ["my disk", "debian/12", "ami-0123456789abcdef0", ".hidden", "a@b"] {
            let tag = tag(name);
            assert!(tag.starts_with("name-") && tag.len() <= 128, "{name}: {tag}");
        }
    }
}
