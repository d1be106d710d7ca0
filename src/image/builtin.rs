//! Images that the program brings along. They are put into the store when they are first asked for,
//! and again when the program brings another version.

use crate::demo;
use crate::error::{Code, Error, Result};
use crate::id::{ImageId, KernelId, SnapshotId, hex};
use crate::image::manifest;
use crate::image::manifest::Manifest;
use crate::kernel::{self, KERNEL};
use crate::plan::{DiskBus, DiskFormat, TransportKind};
use crate::record::image::{Architecture, Image, ImageState, RootDeviceType};
use crate::record::kernel::Kernel;
use crate::record::snapshot::{DATA, Snapshot};
use crate::record::tag::Tag;
use crate::snapshot::digest;
use crate::store::{Durability, Staging, Store, beneath, now};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The name of the image with a guest.
pub const DEMO: &str = "demo";
/// Its id, in every store.
const DEMO_ID: &str = "ami-00000000000000de0";
/// The name of the image whose root volume is empty: what is installed from a disc begins with it.
const BLANK: &str = "blank";
/// Its id, by which it is meant whatever else has its name.
pub const BLANK_ID: &str = "ami-00000000000001de0";
/// GiB of its root volume, unless a launch asks for more: as EC2's console has it.
const BLANK_GIB: u64 = 8;
/// Bytes of its snapshot: the rest of a volume that is larger than that is zeros as well.
const BLANK_LEN: usize = 1 << 20;

/// The built-in image that `name` (or an id) means, put into the store if it is not there; `None`
/// if there is none of that name. Any number of commands may ask at once.
///
/// # Errors
/// It can't be written.
pub fn ensure(store: &Store, name: &str) -> Result<Option<Image>> {
    match name {
        DEMO | DEMO_ID => ensure_one(store, DEMO, DEMO_ID).map(Some),
        // Stores of before it may have one of that name.
        BLANK if store.images().resolve(BLANK).is_ok_and(|found| !is(&found.image_id)) => Ok(None),
        BLANK | BLANK_ID => ensure_one(store, BLANK, BLANK_ID).map(Some),
        _ => Ok(None),
    }
}

fn ensure_one(store: &Store, name: &str, id: &str) -> Result<Image> {
    let id: ImageId = id.parse()?;
    let kernel_digest = (name == DEMO).then(|| hex(&Sha256::digest(demo::KERNEL)));
    if let Some(image) = current(store, &id, kernel_digest.as_deref()) {
        return Ok(image);
    }
    if store.administrator().is_some_and(|uid| uid.to_string() != store.owner_id()) {
        return Err(Error::refused(
            Code::InvalidAMIIDNotFound,
            format!(
                "this shared store lacks the image '{name}' of this version; its administrator runs 'spore store share' again"
            ),
        ));
    }
    let _lock = store.lock()?;
    if let Some(image) = current(store, &id, kernel_digest.as_deref()) {
        return Ok(image);
    }
    let manifest = match &kernel_digest {
        Some(digest) => demo(store, digest)?,
        None => blank(store)?,
    };
    let image = manifest::resolve_manifest(store, manifest, id.clone())?;
    if store.images().exists(&id) {
        // Another version's, or one that can't be read.
        store.images().remove(&id)?;
    }
    Staging::new(store)?.publish(store, &image, Durability::Durable)?;
    Ok(image)
}

fn demo(store: &Store, kernel_digest: &str) -> Result<Manifest> {
    let kernel_id = ensure_kernel(store, kernel_digest)?;
    let snapshot = ensure_snapshot(store, DEMO, &demo::root())?;
    let mut manifest = Manifest::with_root(DEMO, snapshot);
    manifest.description = Some("Built-in guest: finds its disk, proves it, powers off".into());
    manifest.kernel_id = Some(kernel_id);
    manifest.transport = Some(TransportKind::Mmio);
    manifest.root_device_type = Some(RootDeviceType::InstanceStore);
    let tag = Tag { key: "spore:instance-type".into(), value: "spore.tiny".into() };
    manifest.tags = vec![tag];
    Ok(manifest)
}

fn blank(store: &Store) -> Result<Manifest> {
    let snapshot = ensure_snapshot(store, BLANK, &vec![0; BLANK_LEN])?;
    let mut manifest = Manifest::with_root(BLANK, snapshot);
    manifest.description = Some("Built-in empty disk, to be installed on from a disc".into());
    for ebs in manifest.block_device_mappings.iter_mut().filter_map(|one| one.ebs.as_mut()) {
        ebs.volume_size = BLANK_GIB;
    }
    Ok(manifest)
}

/// True for an image that the program brings along.
pub fn is(id: &ImageId) -> bool {
    [DEMO_ID, BLANK_ID].contains(&id.as_str())
}

/// # Errors
/// `InvalidAMIName.Duplicate`: the name is a built-in image's.
pub fn refuse_name(name: &str) -> Result<()> {
    if [DEMO, BLANK].contains(&name) {
        return Err(Error::refused(
            Code::InvalidAMINameDuplicate,
            format!("the name '{name}' is taken by a built-in image; choose another"),
        ));
    }
    Ok(())
}

/// The image as it is in the store, if it and all of its parts are there in this program's version;
/// with a kernel of this digest, if it has one.
fn current(store: &Store, id: &ImageId, kernel_digest: Option<&str>) -> Option<Image> {
    let image = store.images().get(id).ok()?;
    let owner = store.images().owner(id);
    let snapshot = image.block_device_mappings.first()?.ebs.as_ref()?.snapshot_id.as_ref()?;
    let administrators = |uid: u32| uid.to_string() == image.owner_id;
    let has_kernel = || match (kernel_digest, image.kernel_id.as_ref()) {
        (None, kernel) => kernel.is_none(),
        (Some(digest), kernel) => kernel.is_some_and(|kernel| {
            let current = store.kernels().get(kernel).is_ok_and(|kernel| kernel.digest == digest);
            current
                && image.transport == Some(TransportKind::Mmio)
                && store.kernels().owner(kernel) == owner
        }),
    };
    let whole = store.administrator().is_none_or(administrators)
        && image.state == ImageState::Available
        && has_kernel()
        && store.snapshots().owner(snapshot) == owner;
    whole.then_some(image)
}

/// An id that follows from what the program brings along could be guessed, and taken by somebody
/// else, who is not believed: then it is any other. With it whether the object is there.
fn free<T>(owner: Option<u32>, id: T, other: impl FnOnce() -> Result<T>) -> Result<(T, bool)> {
    match owner {
        Some(owner) if owner == beneath::user() => Ok((id, true)),
        Some(_) => Ok((other()?, false)),
        None => Ok((id, false)),
    }
}

fn ensure_kernel(store: &Store, digest: &str) -> Result<KernelId> {
    let id = KernelId::from_digest(digest)?;
    let (id, there) = free(store.kernels().owner(&id), id, KernelId::generate)?;
    if there {
        return Ok(id);
    }
    let staging = Staging::new(store)?;
    kernel::write(staging.dir()?, KERNEL, &mut &demo::KERNEL[..])?;
    let record = Kernel {
        kernel_id: id.clone(),
        // Not the plain name: an older version's kernel may still have that.
        name: format!("{DEMO}-{}", &digest[..8]),
        owner_id: store.owner_id(),
        creation_date: now(),
        architecture: Architecture::X86_64,
        version: Some(env!("CARGO_PKG_VERSION").into()),
        digest: digest.to_owned(),
        size_bytes: demo::KERNEL.len() as u64,
        transports: vec![TransportKind::Mmio],
        disk_buses: vec![DiskBus::Virtio],
        tags: Vec::new(),
    };
    staging.publish(store, &record, Durability::Durable)?;
    Ok(id)
}

fn ensure_snapshot(store: &Store, name: &str, root: &[u8]) -> Result<SnapshotId> {
    let chunks: BTreeMap<_, _> = root
        .chunks(digest::CHUNK)
        .enumerate()
        .map(|(index, bytes)| (index as u64, digest::chunk(bytes)))
        .collect();
    let digest = digest::combine(root.len() as u64, &chunks);
    let id = SnapshotId::from_digest(&digest)?;
    let (id, there) = free(store.snapshots().owner(&id), id, SnapshotId::generate)?;
    if there {
        return Ok(id);
    }
    let staging = Staging::new(store)?;
    kernel::write(staging.dir()?, DATA, &mut &*root)?;
    let size = root.len() as u64;
    let mut record =
        Snapshot::flat(id.clone(), (store.owner_id(), now()), size, (DiskFormat::Raw, digest));
    record.description = format!("Root volume of the built-in image {name}");
    staging.publish(store, &record, Durability::Durable)?;
    Ok(id)
}
