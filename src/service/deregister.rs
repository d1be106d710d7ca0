//! DeregisterImage, and what stays of an image on the disk.

use super::Service;
use crate::error::{Code, Result};
use crate::id::SnapshotId;
use crate::image::{builtin, catalog};
use crate::instance::dir::instances;
use crate::plan::PvGrub;
use crate::record::image::{Image, ImageState};
use crate::record::instance::{Instance, State};
use crate::record::snapshot::DATA;
use crate::snapshot;
use crate::store::Store;
use crate::transfer::endpoint::{self, Endpoint};
use serde::Serialize;
use std::os::unix::fs::MetadataExt;

/// EC2 DeregisterImage, of several.
#[derive(Clone, Debug, Default)]
pub struct DeregisterImages {
    /// Which.
    pub image_ids: Vec<String>,
    /// The region that they are in; the store at hand without one.
    pub region: Option<String>,
    /// Delete their snapshots too, but for those that something else uses.
    pub delete_associated_snapshots: bool,
}

/// EC2 DeregisterImageResult.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeregisterImageResult {
    r#return: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    delete_snapshot_results: Vec<DeleteSnapshotReturnCode>,
    /// What is Spore's own.
    pub spore: Deregistered,
}

/// EC2 DeleteSnapshotReturnCode.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteSnapshotReturnCode {
    snapshot_id: SnapshotId,
    return_code: &'static str,
}

/// What EC2 does not say of a deregistration.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Deregistered {
    /// The image; as it was given, in a bucket or a registry.
    pub image_id: String,
    /// What nothing refers to any more, and stays.
    pub left: Vec<Left>,
}

/// Something that stays of an image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Left {
    /// `snapshot`, `kernel` or `ramdisk`.
    pub resource_type: &'static str,
    /// Its id.
    pub resource_id: String,
    /// Bytes on the disk.
    pub size_bytes: u64,
}

impl Service {
    /// EC2 DeregisterImage. What became of each, in their order.
    ///
    /// # Errors
    /// The region is unknown, or has gone: none has been deregistered.
    pub fn deregister_images(
        &self,
        request: &DeregisterImages,
    ) -> Result<Vec<Result<DeregisterImageResult>>> {
        let endpoint = endpoint::find(self.swept(), request.region.as_deref())?;
        let snapshots = request.delete_associated_snapshots;
        let deregister = |text: &String| match &endpoint {
            Endpoint::Store(store) => deregister(store, text, snapshots),
            Endpoint::Remote(remote) => {
                remote.deregister(text)?;
                Ok(result(Vec::new(), Deregistered { image_id: text.clone(), left: Vec::new() }))
            }
        };
        Ok(request.image_ids.iter().map(deregister).collect())
    }
}

fn result(
    delete_snapshot_results: Vec<DeleteSnapshotReturnCode>,
    spore: Deregistered,
) -> DeregisterImageResult {
    DeregisterImageResult { r#return: true, delete_snapshot_results, spore }
}

fn deregister(store: &Store, text: &str, snapshots: bool) -> Result<DeregisterImageResult> {
    let image = catalog::resolve_own(store, text)?;
    let image = catalog::deregister(store, &image.image_id)?;
    let mut results = Vec::new();
    for id in image.snapshots().filter(|_| snapshots) {
        let return_code = match snapshot::delete(store, id, false) {
            Err(e) if e.code() == Some(Code::InvalidSnapshotInUse) => {
                store.context().note(format_args!("{id} stays: {}", e.message()));
                "skipped"
            }
            // Of an image that failed before it was made, or deleted since.
            Err(e) if e.code() == Some(Code::InvalidSnapshotNotFound) => continue,
            deleted => deleted.map(|()| "success")?,
        };
        results.push(DeleteSnapshotReturnCode { snapshot_id: id.clone(), return_code });
    }
    // A built-in one comes back with all that it has.
    let left = match builtin::is(&image.image_id) {
        true => Vec::new(),
        false => left(store, &image).unwrap_or_default(),
    };
    Ok(result(results, Deregistered { image_id: image.image_id.to_string(), left }))
}

/// What stays of an image that is deregistered, and that no other refers to.
fn left(store: &Store, image: &Image) -> Result<Vec<Left>> {
    let others = store.images().list()?.records;
    let live = |other: &&Image| {
        other.image_id != image.image_id && other.state != ImageState::Deregistered
    };
    let others: Vec<&Image> = others.iter().filter(live).collect();
    let records = instances(store).list()?.records;
    let booted = |uses: &dyn Fn(&Instance) -> bool| {
        records.iter().any(|r| r.instance.state != State::Terminated && uses(&r.instance))
    };
    let mut found = Vec::new();
    let mut add = |resource_type, id: &str, size_bytes| {
        found.push(Left { resource_type, resource_id: id.to_owned(), size_bytes });
    };
    for id in image.snapshots() {
        let used = others.iter().any(|other| other.snapshots().any(|theirs| theirs == id));
        if !used && store.snapshots().get(id).is_ok_and(|s| s.owner_id == store.owner_id()) {
            add("snapshot", id.as_str(), snapshot_bytes(store, id));
        }
    }
    if let Some(id) = image.kernel_id.as_ref().filter(|id| PvGrub::of(id).is_none()) {
        let used = others.iter().any(|other| other.kernel_id.as_ref() == Some(id));
        let kernel = store.kernels().get(id).ok();
        let mine = kernel.filter(|kernel| kernel.owner_id == store.owner_id());
        let booted = booted(&|instance| instance.kernel_id.as_ref() == Some(id));
        if let Some(kernel) = mine.filter(|_| !used && !booted) {
            add("kernel", id.as_str(), kernel.size_bytes);
        }
    }
    if let Some(id) = &image.ramdisk_id {
        let used = others.iter().any(|other| other.ramdisk_id.as_ref() == Some(id));
        let ramdisk = store.ramdisks().get(id).ok();
        let mine = ramdisk.filter(|ramdisk| ramdisk.owner_id == store.owner_id());
        let booted = booted(&|instance| instance.ramdisk_id.as_ref() == Some(id));
        if let Some(ramdisk) = mine.filter(|_| !used && !booted) {
            add("ramdisk", id.as_str(), ramdisk.size_bytes);
        }
    }
    Ok(found)
}

/// What a snapshot's own file takes on the disk.
fn snapshot_bytes(store: &Store, id: &SnapshotId) -> u64 {
    let path = store.snapshots().dir(id).join(DATA);
    path.symlink_metadata().map_or(0, |metadata| metadata.blocks() * 512)
}
