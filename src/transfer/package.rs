//! An image outside of a store: what is written beside its content in a stream or in a remote
//! region.
//!
//! It is read from wherever it comes without trust: every size and place is checked here, and
//! everything that an image's record says is checked again as a registration's manifest is.

use crate::error::{Code, Error, OrFail, Result};
use crate::id::{ImageId, SnapshotId};
use crate::image::manifest;
use crate::image::manifest::{MAX_MAPPINGS, Manifest};
use crate::image::pulled;
use crate::kernel::open_content;
use crate::plan::PvGrub;
use crate::record::image::{Image, ImageState};
use crate::record::kernel::{Kernel, Ramdisk};
use crate::record::limits::MAX_SIZE;
use crate::record::name;
use crate::record::snapshot::{Snapshot, SnapshotState};
use crate::record::tag::Tag;
use crate::record::token::ClientToken;
use crate::snapshot::{self, digest};
use crate::store::{Store, now};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;

/// What says which format it is, and its version.
pub const FORMAT: &str = "spore-image-1";
/// As [`FORMAT`], of a snapshot alone.
pub const SNAPSHOT_FORMAT: &str = "spore-snapshot-1";
/// Longest package that is read, in bytes: a disk of 1 TiB in chunks of 64 MiB has 16384 of them.
pub const MAX_PACKAGE: u64 = 16 << 20;
/// Bytes of the smallest chunk that content is cut into.
pub const MIN_CHUNK: u64 = 4 << 20;
/// Bytes of the largest.
pub const MAX_CHUNK: u64 = 64 << 20;
/// Chunks of a disk before larger ones are taken.
const MANY_CHUNKS: u64 = 16384;
/// Largest kernel or ramdisk.
const MAX_BOOT_FILE: u64 = 2 << 30;

/// An image and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Package {
    /// [`FORMAT`].
    pub format: String,
    /// The image as it was in its region, without who may launch it.
    pub image: Image,
    /// Its kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Content>,
    /// Its initial ramdisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramdisk: Option<Content>,
    /// The content of its snapshots, each once.
    pub disks: Vec<Content>,
}

/// A file's or a disk's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Content {
    /// A snapshot's id, or the name of a kernel or ramdisk.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Of a disk: its [`crate::snapshot::digest`]; of a file: its SHA-256. Hexadecimal.
    pub digest: String,
    /// Where it has other than zeros, by place. None in a stream, which has them behind the
    /// package.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Chunk>,
}

/// Which content of an image; a snapshot is a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its kernel.
    Kernel,
    /// Its initial ramdisk.
    Ramdisk,
    /// One of its disks, by their order in the package.
    Disk(usize),
}

/// A piece of content, compressed by zstd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Chunk {
    /// Where it begins: a multiple of [`Content::chunk_size`], which is how much it has, except for
    /// the last.
    pub offset: u64,
    /// SHA-256 of the compressed bytes, hexadecimal.
    pub digest: String,
    /// Compressed bytes.
    pub size: u64,
}

impl Content {
    /// A snapshot's. Chunks are not listed.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            name: snapshot.snapshot_id.to_string(),
            size_bytes: snapshot.size_bytes,
            digest: snapshot.digest.clone(),
            chunks: Vec::new(),
        }
    }

    /// What its chunks have, before compression: it follows from the size, so that copies of
    /// changed images agree.
    pub fn chunk_size(&self) -> u64 {
        let mut size = MIN_CHUNK;
        while size < MAX_CHUNK && self.size_bytes / size >= MANY_CHUNKS {
            size *= 2;
        }
        size
    }

    /// Bytes of the chunk at `offset`.
    pub fn chunk_len(&self, offset: u64) -> usize {
        self.chunk_size().min(self.size_bytes.saturating_sub(offset)) as usize
    }

    /// Most bytes that its chunks become, each as often as it is named.
    pub fn stored(&self) -> u64 {
        self.chunks.iter().map(|chunk| self.chunk_len(chunk.offset) as u64).sum()
    }

    fn check_disk(&self) -> Result<()> {
        let _: SnapshotId = self.name.parse()?;
        self.check("disk", MAX_SIZE)?;
        if !self.size_bytes.is_multiple_of(512) {
            return Err(malformed("its disk ends within a sector"));
        }
        Ok(())
    }

    fn check(&self, what: &str, largest: u64) -> Result<()> {
        let bad = |why: &str| Err(malformed(&format!("its {what} {why}")));
        if self.size_bytes == 0 || self.size_bytes > largest {
            return bad("has an impossible size");
        }
        if !is_digest(&self.digest) {
            return bad("has a malformed digest");
        }
        let mut next = 0;
        for chunk in &self.chunks {
            let aligned = chunk.offset.is_multiple_of(self.chunk_size());
            if !aligned || chunk.offset < next || chunk.offset >= self.size_bytes {
                return bad("has chunks that are out of place");
            }
            if !is_digest(&chunk.digest) || chunk.size == 0 || chunk.size > largest_blob(self) {
                return bad("has a chunk of an impossible size or digest");
            }
            next = chunk.offset + self.chunk_size();
        }
        Ok(())
    }
}

/// Bytes that zstd may make of a chunk: a little more than it has.
pub fn largest_blob(content: &Content) -> u64 {
    zstd::zstd_safe::compress_bound(content.chunk_size() as usize) as u64
}

/// True for a SHA-256 in lower-case hexadecimal.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The error for what is no package, or none that can be believed.
pub fn malformed(why: &str) -> Error {
    Error::refused(
        Code::InvalidManifest,
        format!("this is not an image that Spore exported: {why}"),
    )
}

/// The error for content that is not what its digest says.
pub fn damaged(content: &Content) -> Error {
    let name = name::from_file(&content.name);
    malformed(&format!("the content of '{name}' is not what its digest says"))
}

/// What the copy is to be.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// 3 to 128 characters, not taken.
    pub name: String,
    /// The source's if absent.
    pub description: Option<String>,
    /// Take over the source's tags.
    pub copy_tags: bool,
    /// Tags, over those taken over.
    pub tags: Vec<Tag>,
    /// Where the source is.
    pub source_region: String,
    /// The token that it was asked for under.
    pub client_token: Option<ClientToken>,
}

impl Package {
    /// Describe an image of a store. Chunks are not listed.
    ///
    /// # Errors
    /// It is not available (`InvalidAMIID.Unavailable`), or its owner keeps others from copying it
    /// (`OperationNotPermitted`).
    pub fn of(store: &Store, image: &Image) -> Result<Self> {
        if image.state != ImageState::Available {
            return Err(Error::refused(
                Code::InvalidAMIIDUnavailable,
                format!("image {} ('{}') is not available", image.image_id, image.name),
            ));
        }
        if !image.product_codes.is_empty() && image.owner_id != store.owner_id() {
            return Err(Error::refused(
                Code::OperationNotPermitted,
                format!("image {} has a product code; only its owner may copy it", image.image_id),
            ));
        }
        let mut disks: Vec<Content> = Vec::new();
        for id in image.snapshots() {
            let snapshot = available(store, id)?;
            if disks.iter().all(|disk| disk.name != id.as_str()) {
                disks.push(Content::of(&snapshot));
            }
        }
        let mut package = Self {
            format: FORMAT.to_owned(),
            image: Image {
                public: false,
                launch_permissions: Vec::new(),
                client_token: None,
                ..image.clone()
            },
            kernel: None,
            ramdisk: None,
            disks,
        };
        if let Some(file) = open_kernel(store, image)? {
            let name = image.kernel_id.as_ref().map(|id| store.kernels().get(id)).transpose()?;
            package.kernel = Some(content(file, name.map(|kernel| kernel.name))?);
        }
        if let Some(file) = open_ramdisk(store, image)? {
            let name = image.ramdisk_id.as_ref().map(|id| store.ramdisks().get(id)).transpose()?;
            package.ramdisk = Some(content(file, name.map(|ramdisk| ramdisk.name))?);
        }
        Ok(package)
    }

    /// Read one, and check all that content is found by.
    ///
    /// # Errors
    /// `InvalidManifest`: it is none, or none that can be believed.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let package: Self = serde_json::from_slice(json).map_err(|e| malformed(&e.to_string()))?;
        if package.format != FORMAT {
            let shown: String = package.format.escape_debug().take(40).collect();
            return Err(malformed(&format!("its format is '{shown}', not {FORMAT}")));
        }
        let deregistered = package.image.state == ImageState::Deregistered;
        if package.disks.is_empty() != deregistered || package.disks.len() > MAX_MAPPINGS {
            return Err(malformed("it has no disk, or too many"));
        }
        for (n, disk) in package.disks.iter().enumerate() {
            disk.check_disk()?;
            if package.disks[..n].iter().any(|other| other.name == disk.name) {
                return Err(malformed("it has a disk twice"));
            }
        }
        for id in package.image.snapshots().filter(|_| !deregistered) {
            package.disk(id)?;
        }
        for (what, file) in [("kernel", &package.kernel), ("ramdisk", &package.ramdisk)] {
            file.as_ref().map_or(Ok(()), |file| file.check(what, MAX_BOOT_FILE))?;
        }
        Ok(package)
    }

    /// Bytes that its kernel and its ramdisk take at most while they are registered: each is there
    /// twice.
    pub fn boot_bytes(&self) -> u64 {
        self.kernel.iter().chain(&self.ramdisk).map(|file| file.size_bytes.saturating_mul(2)).sum()
    }

    /// As JSON.
    ///
    /// # Errors
    /// It has too many chunks (`InvalidParameterValue`).
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).or_fail(|| "describe the image")?;
        if json.len() as u64 > MAX_PACKAGE {
            return Err(Error::refused(
                Code::InvalidParameterValue,
                "the image has more content than can be described; copy it to a directory",
            ));
        }
        Ok(json)
    }

    /// All of its content, in the order in which it is copied: what it boots is registered before
    /// the image appears.
    pub fn parts(&self) -> Vec<(Part, &Content)> {
        let kernel = self.kernel.iter().map(|content| (Part::Kernel, content));
        let ramdisk = self.ramdisk.iter().map(|content| (Part::Ramdisk, content));
        let disks = self.disks.iter().enumerate().map(|(n, content)| (Part::Disk(n), content));
        kernel.chain(ramdisk).chain(disks).collect()
    }

    /// Which disk has a snapshot's content.
    ///
    /// # Errors
    /// None has.
    pub fn disk(&self, id: &SnapshotId) -> Result<usize> {
        let found = self.disks.iter().position(|disk| disk.name == id.as_str());
        found.ok_or_else(|| malformed("it lacks a snapshot that it refers to"))
    }

    /// What the copy is registered by; its mapping has the source's snapshots still.
    pub fn manifest(&self, new: &NewImage) -> Result<Manifest> {
        let image = &self.image;
        let mut tags = if new.copy_tags { image.tags.clone() } else { Vec::new() };
        pulled::forget(&mut tags);
        crate::record::tag::set_tags(&mut tags, &new.tags)?;
        Ok(Manifest {
            name: new.name.clone(),
            description: new.description.clone().or_else(|| image.description.clone()),
            architecture: Some(image.architecture),
            virtualization_type: Some(image.virtualization_type),
            kernel_id: None,
            ramdisk_id: None,
            command_line: image.command_line.clone(),
            root_device_type: Some(image.root_device_type),
            root_device_name: Some(image.root_device_name.clone()),
            block_device_mappings: image.block_device_mappings.clone(),
            boot_mode: image.boot_mode,
            uefi_variables: image.uefi_variables.clone(),
            imds_support: image.imds_support,
            transport: image.transport,
            disk_bus: image.disk_bus,
            platform: image.platform.clone(),
            source_instance_id: None,
            source_image_id: Some(image.image_id.clone()),
            source_image_region: Some(new.source_region.clone()).filter(|r| !r.is_empty()),
            image_location: None,
            tags,
        })
    }

    /// What stays of it in a remote region once it is deregistered: that it was there.
    pub fn deregistered(mut self) -> Self {
        self.image.state = ImageState::Deregistered;
        (self.kernel, self.ramdisk, self.disks) = (None, None, Vec::new());
        self
    }

    /// As it is to be in a remote region: under a new id, and the account `owner_id`'s.
    ///
    /// # Errors
    /// The name, the description or a tag is malformed.
    pub fn renew(&mut self, new: &NewImage, owner_id: String) -> Result<()> {
        let manifest = self.manifest(new)?;
        name::check(&manifest.name)?;
        crate::record::tag::check_tags(&manifest.tags)?;
        manifest::check_description(manifest.description.as_deref())?;
        let image = &mut self.image;
        image.source_image_id = manifest.source_image_id;
        image.source_image_region = manifest.source_image_region;
        image.image_id = ImageId::generate()?;
        (image.name, image.description) = (manifest.name, manifest.description);
        (image.owner_id, image.creation_date) = (owner_id, now());
        image.tags = manifest.tags;
        image.deregistration_protection = None;
        Ok(())
    }
}

/// A snapshot in a remote region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SnapshotPackage {
    /// [`SNAPSHOT_FORMAT`].
    pub format: String,
    /// The snapshot; it has its content in one raw file.
    pub snapshot: Snapshot,
    /// Its content; none of one that has been deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Content>,
}

impl SnapshotPackage {
    /// Its content.
    pub fn parts(&self) -> Vec<(Part, &Content)> {
        self.disk.iter().map(|content| (Part::Disk(0), content)).collect()
    }

    /// Read one, and check all that content is found by.
    ///
    /// # Errors
    /// `InvalidManifest`: it is none, or none that can be believed.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let package: Self = serde_json::from_slice(json).map_err(|e| malformed(&e.to_string()))?;
        if package.format != SNAPSHOT_FORMAT {
            return Err(malformed(&format!("its format is not {SNAPSHOT_FORMAT}")));
        }
        if let Some(disk) = &package.disk {
            disk.check_disk()?;
            if disk.size_bytes != package.snapshot.size_bytes {
                return Err(malformed("its disk has another size than its snapshot"));
            }
        }
        Ok(package)
    }
}

/// A snapshot that can be copied.
///
/// # Errors
/// It does not exist, or is not completed (`IncorrectState`).
pub fn available(store: &Store, id: &SnapshotId) -> Result<Snapshot> {
    let snapshot = snapshot::settled(store, store.snapshots().get(id)?);
    if snapshot.state == SnapshotState::Completed {
        return Ok(snapshot);
    }
    Err(Error::refused(Code::IncorrectState, format!("{id} is not completed")))
}

/// The image's kernel, if it has one of its own.
///
/// # Errors
/// It is not registered any more.
pub fn open_kernel(store: &Store, image: &Image) -> Result<Option<File>> {
    // Where the copy goes has PV-GRUB's, too.
    let own = image.kernel_id.as_ref().filter(|id| PvGrub::of(id).is_none());
    own.map(|id| open_content::<Kernel>(store, id)).transpose()
}

/// The image's initial ramdisk, if it has one.
///
/// # Errors
/// It is not registered any more.
pub fn open_ramdisk(store: &Store, image: &Image) -> Result<Option<File>> {
    image.ramdisk_id.as_ref().map(|id| open_content::<Ramdisk>(store, id)).transpose()
}

fn content(mut file: File, name: Option<String>) -> Result<Content> {
    let (digest, size_bytes) =
        digest::copy(&mut file, &mut io::sink()).or_fail(|| "read the kernel or ramdisk")?;
    Ok(Content { name: name.unwrap_or_default(), size_bytes, digest, chunks: Vec::new() })
}
