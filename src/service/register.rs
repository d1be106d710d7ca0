//! ImportImage and RegisterImage: images of disks, snapshots and bundles. What was registered or
//! imported on the way goes again if the image does not come to be.

use super::Service;
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::image::catalog;
use crate::image::manifest::Manifest;
pub use crate::import::SourceFormat;
use crate::import::{self, Opened, Options, Reading, Source, arrival};
use crate::inspect::boot_method;
pub use crate::inspect::boot_method::Proposal;
use crate::kernel::{BootFiles, find};
use crate::plan::{DiskBus, TransportKind};
use crate::record::image::{BootMode, Image, RootDeviceType};
use crate::record::tag::Tag;
use crate::snapshot;
use crate::store::{Durability, Staging, Store};
use crate::transfer::bundle::{self, KeyFiles, RegisterBundle};
use crate::transfer::export;
use crate::transfer::package::NewImage;
use std::path::{Path, PathBuf};

/// How an image boots, and what is said of it.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// A kernel, or a file to register as one; firmware boots without.
    pub kernel_id: Option<String>,
    /// Its initial ramdisk, or a file to register as one.
    pub ramdisk_id: Option<String>,
    /// The kernel's command line.
    pub command_line: Option<String>,
    /// The firmware interface that it is made for: without a kernel, what the disk has if absent.
    pub boot_mode: Option<BootMode>,
    /// How its guest finds its devices; what its ramdisk has drivers for if absent.
    pub transport: Option<TransportKind>,
    /// What its guest's disks are.
    pub disk_bus: Option<DiskBus>,
    /// Whether its instances' roots are volumes; they are if absent.
    pub root_device_type: Option<RootDeviceType>,
    /// Free text.
    pub description: Option<String>,
    /// Tags.
    pub tags: Vec<Tag>,
}

/// EC2 ImportImage: of a disk, or of what ExportImage wrote.
#[derive(Clone, Debug)]
pub struct ImportImage {
    /// A file or a block device; `-` is standard input.
    pub disk: PathBuf,
    /// Its format, if it is not to be told from its first bytes.
    pub format: Option<SourceFormat>,
    /// The image's name, which an exported image brings.
    pub name: Option<String>,
    /// How it boots.
    pub boot: Boot,
}

/// EC2 RegisterImage.
#[derive(Clone, Debug)]
pub struct RegisterImage {
    /// The image's name, which a bundle brings.
    pub name: Option<String>,
    /// What its root begins as.
    pub root: Root,
    /// How it boots.
    pub boot: Boot,
}

/// What an image's root begins as.
#[derive(Clone, Debug)]
pub enum Root {
    /// A disk, which is imported.
    Disk {
        /// A file or a block device; `-` is standard input.
        path: PathBuf,
        /// Its format, if it is not to be told from its first bytes.
        format: Option<SourceFormat>,
    },
    /// A snapshot.
    Snapshot(String),
    /// A bundle.
    Bundle {
        /// Its manifest (EC2 ImageLocation): see [`is_bundle`].
        location: String,
        /// With which keys it is read.
        keys: KeyFiles,
    },
}

/// Whether a name is a bundle's manifest: a file, or `s3://…`.
pub fn is_bundle(location: &str) -> bool {
    location.split('?').next().is_some_and(|path| path.ends_with(bundle::SUFFIX))
}

impl Service {
    /// EC2 ImportImage.
    ///
    /// # Errors
    /// The name is malformed, taken or missing; as [`arrival::import`]'s and
    /// [`export::read::import`]'s.
    pub fn import_image(&self, request: &ImportImage) -> Result<Image> {
        let source = Source::from_argument(request.disk.clone());
        let name = request.name.as_deref();
        import_from(self.swept(), &source, request.format, name, &request.boot)
    }

    /// EC2 RegisterImage.
    ///
    /// # Errors
    /// The name is malformed or taken; as [`arrival::import`]'s, [`catalog::register`]'s and
    /// [`bundle::register`]'s.
    pub fn register_image(&self, request: &RegisterImage) -> Result<Image> {
        let (store, name, boot) = (self.swept(), request.name.as_deref(), &request.boot);
        match &request.root {
            Root::Disk { path, format } => match open(store, path, *format)? {
                (staging, Opened::Disk(reading)) => {
                    import_disk(store, (staging, reading), name.unwrap_or_default(), boot)
                }
                (_, Opened::Exported(_)) => {
                    Err(Error::usage("it is an exported image: 'spore image import' takes it"))
                }
            },
            Root::Snapshot(text) => register_snapshot(store, name.unwrap_or_default(), text, boot),
            Root::Bundle { location, keys } => register_bundle(store, name, location, keys, boot),
        }
    }

    /// EC2 RegisterImage, all of it as JSON.
    ///
    /// # Errors
    /// As [`Manifest::parse`]'s and [`catalog::register`]'s.
    pub fn register_manifest(&self, json: &[u8]) -> Result<Image> {
        catalog::register(self.swept(), Manifest::parse(json)?)
    }

    /// How a disk or a snapshot would boot, and why.
    ///
    /// # Errors
    /// It can't be read; it is a bundle.
    pub fn propose_boot_method(&self, root: &Root) -> Result<Proposal> {
        let store = self.swept();
        match root {
            Root::Disk { path, format } => boot_method::of_file(path, *format),
            Root::Snapshot(text) => {
                boot_method::of_snapshot(store, &snapshot::resolve(store, text)?)
            }
            Root::Bundle { .. } => Err(Error::usage("nothing looks into a bundle: register it")),
        }
    }
}

/// Brings a disk, or what ExportImage wrote, into the store as an image.
///
/// # Errors
/// As [`Service::import_image`]'s.
pub(super) fn import_from(
    store: &Store,
    source: &Source,
    format: Option<SourceFormat>,
    name: Option<&str>,
    boot: &Boot,
) -> Result<Image> {
    match open_source(store, source, format)? {
        (_, Opened::Exported(_)) if boot.kernel_id.is_some() || boot.command_line.is_some() => {
            Err(Error::usage("an exported image brings its own kernel and command line"))
        }
        // What it is read from lies in the staging directory.
        (_staging, Opened::Exported(reading)) => {
            let new = NewImage {
                name: name.unwrap_or_default().to_owned(),
                description: boot.description.clone(),
                copy_tags: true,
                tags: boot.tags.clone(),
                source_region: String::new(),
                client_token: None,
            };
            export::read::import(store, reading, new)
        }
        (staging, Opened::Disk(reading)) => {
            let name = name.ok_or_else(|| Error::usage("a disk has no name: give `Name`"))?;
            import_disk(store, (staging, reading), name, boot)
        }
    }
}

/// Opens a disk, in a directory for what that leaves.
fn open(store: &Store, disk: &Path, format: Option<SourceFormat>) -> Result<(Staging, Opened)> {
    open_source(store, &Source::from_argument(disk.into()), format)
}

fn open_source(
    store: &Store,
    source: &Source,
    format: Option<SourceFormat>,
) -> Result<(Staging, Opened)> {
    let staging = Staging::new(store)?;
    let options = Options { format, context: store.context().clone() };
    let opened = import::open(source, staging.path(), &options)?;
    Ok((staging, opened))
}

/// Find or register what the image boots.
fn boot_files(store: &Store, boot: &Boot) -> Result<BootFiles> {
    let (kernel, ramdisk) = (boot.kernel_id.as_deref(), boot.ramdisk_id.as_deref());
    Ok(BootFiles {
        kernel: kernel.map(|text| find::kernel(store, text)).transpose()?,
        ramdisk: ramdisk.map(|text| find::ramdisk(store, text)).transpose()?,
    })
}

fn manifest(files: &BootFiles, root: SnapshotId, name: &str, boot: &Boot) -> Manifest {
    let mut manifest = Manifest::with_root(name, root);
    manifest.kernel_id = files.kernel_id();
    manifest.ramdisk_id = files.ramdisk_id();
    manifest.command_line = boot.command_line.clone();
    manifest.root_device_type = boot.root_device_type;
    manifest.transport = boot.transport;
    manifest.boot_mode = boot.boot_mode;
    manifest.disk_bus = boot.disk_bus;
    manifest.description = boot.description.clone();
    manifest.tags = boot.tags.clone();
    manifest
}

/// Import a disk that is being read, register an image of it, and warn if nothing on it boots.
fn import_disk(store: &Store, disk: (Staging, Reading), name: &str, boot: &Boot) -> Result<Image> {
    // A long copy must not end in a refusal that could have come first.
    catalog::check_name(store, name)?;
    let files = boot_files(store, boot)?;
    let description = format!("Imported for image {name}");
    let manifest = |root: SnapshotId| manifest(&files, root, name, boot);
    let image = arrival::import(store, disk, &description, manifest)?;
    looked_at(store, image)
}

/// Registers an image of a snapshot, and warns if nothing on it boots.
///
/// # Errors
/// As [`Service::register_image`]'s.
pub(super) fn register_snapshot(
    store: &Store,
    name: &str,
    root: &str,
    boot: &Boot,
) -> Result<Image> {
    catalog::check_name(store, name)?;
    let root = store.snapshots().resolve(root)?.snapshot_id;
    let files = boot_files(store, boot)?;
    looked_at(store, catalog::register(store, manifest(&files, root, name, boot))?)
}

fn register_bundle(
    store: &Store,
    name: Option<&str>,
    location: &str,
    keys: &KeyFiles,
    boot: &Boot,
) -> Result<Image> {
    bundle::prepare(store)?;
    let files = boot_files(store, boot)?;
    let request = RegisterBundle {
        location: location.to_owned(),
        name: name.map(str::to_owned),
        description: boot.description.clone(),
        kernel: files.kernel_id(),
        ramdisk: files.ramdisk_id(),
        command_line: boot.command_line.clone(),
        tags: boot.tags.clone(),
        keys: keys.clone(),
    };
    bundle::register(store, &request)
}

/// The image that was registered, with the boot mode that its disk has if it has but one and nobody
/// said another. Warns of one that firmware is to boot and can't.
fn looked_at(store: &Store, image: Image) -> Result<Image> {
    if image.kernel_id.is_some() {
        return Ok(image);
    }
    let look = |id| boot_method::of_snapshot(store, &store.snapshots().get(id)?);
    // The image is registered; a disk that can't be looked at is no reason to say otherwise.
    let Some(Ok(proposal)) = image.root_snapshot().map(look) else { return Ok(image) };
    if let (None, Some(BootMode::Uefi)) = (image.boot_mode, proposal.boot_mode) {
        let mut locked = store.images().lock(&image.image_id)?;
        locked.record.boot_mode = proposal.boot_mode;
        locked.save(Durability::Durable)?;
        return Ok(locked.record.clone());
    }
    warn(store, &image, &proposal);
    Ok(image)
}

fn warn(store: &Store, image: &Image, proposal: &Proposal) {
    let (id, why) = (&image.image_id, proposal.reasons.join("; "));
    match (proposal.virtualization_type, proposal.kernel_id) {
        (Some("hvm"), _) => {}
        (_, Some(kernel)) => store
            .context()
            .warn(format_args!("firmware may not boot {id}: {why}; `KernelId` {kernel} would")),
        _ => store.context().warn(format_args!(
            "nothing was found on {id} that boots: {why}; give `KernelId` and `RamdiskId`"
        )),
    }
}
