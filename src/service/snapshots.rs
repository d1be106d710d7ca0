//! Snapshots: CreateSnapshot, CreateSnapshots, ImportSnapshot, CopySnapshot, DescribeSnapshots,
//! DeleteSnapshot.

use super::filter::{Filter, Filters, found, select};
use super::shape::image::LaunchPermissions;
pub use super::shape::snapshot::{DescribedSnapshot, SnapshotInfo};
use super::{Service, instances};
use crate::error::Result;
use crate::id::SnapshotId;
use crate::import::{Options, Source, SourceFormat, arrival};
use crate::instance::snapshots;
use crate::record::image::{Image, ImageState};
use crate::record::snapshot::Snapshot;
use crate::record::tag::Tag;
use crate::snapshot::{self, Wanted};
use crate::store::check_owner;
use crate::transfer::copy::Announce;
use crate::transfer::endpoint::{self, Endpoint};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// EC2 CreateSnapshot, and CreateSnapshots of an instance.
#[derive(Clone, Debug)]
pub struct CreateSnapshot {
    /// The volume, or the instance.
    pub volume_id: String,
    /// Free text.
    pub description: String,
    /// Tags.
    pub tags: Vec<Tag>,
}

/// EC2 ImportSnapshot.
#[derive(Clone, Debug)]
pub struct ImportSnapshot {
    /// The disk: a file or a block device; `-` is standard input.
    pub disk: PathBuf,
    /// Its format, if it is not to be told from its first bytes.
    pub format: Option<SourceFormat>,
    /// The snapshot's id, if somebody knows it already.
    pub snapshot_id: Option<SnapshotId>,
    /// Free text.
    pub description: String,
    /// Tags.
    pub tags: Vec<Tag>,
}

/// EC2 CopySnapshot.
#[derive(Clone, Debug)]
pub struct CopySnapshot {
    /// The snapshot.
    pub source_snapshot_id: String,
    /// The region that it is in; the store at hand without one.
    pub source_region: Option<String>,
    /// The region that the copy goes to; the store at hand without one.
    pub destination_region: Option<String>,
    /// Free text.
    pub description: String,
    /// The copy's tags.
    pub tags: Vec<Tag>,
}

/// EC2 DescribeSnapshots.
#[derive(Clone, Debug, Default)]
pub struct DescribeSnapshots {
    /// Which; all if there is none.
    pub snapshot_ids: Vec<String>,
    /// Only those for which all of these hold.
    pub filters: Vec<Filter>,
}

/// EC2's filters of DescribeSnapshots, and where its answer has their values.
const FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("description", "Description"),
        ("encrypted", "Encrypted"),
        ("owner-id", "OwnerId"),
        ("progress", "Progress"),
        ("snapshot-id", "SnapshotId"),
        ("start-time", "StartTime"),
        ("status", "State"),
        ("volume-id", "VolumeId"),
        ("volume-size", "VolumeSize"),
    ],
};

/// The names of the filters that there are.
pub fn filter_names() -> Vec<&'static str> {
    FILTERS.names.iter().map(|(name, _)| *name).collect()
}

impl Service {
    /// EC2 CreateSnapshot: of a volume as it is now.
    ///
    /// # Errors
    /// The volume is unknown; as [`snapshots::create`]'s.
    pub fn create_snapshot(&self, request: &CreateSnapshot) -> Result<Snapshot> {
        let store = self.swept();
        let volume = store.volumes().resolve(&request.volume_id)?.volume_id;
        snapshots::create(store, &volume, wanted(&request.description, &request.tags)?)
    }

    /// EC2 CreateSnapshots: of all volumes of an instance at one instant.
    ///
    /// # Errors
    /// The instance is unknown; as [`snapshots::create_all`]'s.
    pub fn create_snapshots(&self, request: &CreateSnapshot) -> Result<Vec<Snapshot>> {
        let store = self.swept();
        let dir = instances::find(store, &request.volume_id)?;
        snapshots::create_all(store, &dir, &wanted(&request.description, &request.tags)?)
    }

    /// EC2 ImportSnapshot.
    ///
    /// # Errors
    /// As [`arrival::snapshot`]'s.
    pub fn import_snapshot(&self, request: &ImportSnapshot) -> Result<Snapshot> {
        let store = self.swept();
        let source = Source::from_argument(request.disk.clone());
        let options = Options { format: request.format, context: store.context().clone() };
        let mut wanted = wanted(&request.description, &request.tags)?;
        wanted.snapshot_id = request.snapshot_id.clone().unwrap_or(wanted.snapshot_id);
        arrival::snapshot(store, &source, &options, wanted)
    }

    /// EC2 CopySnapshot. `announce` hears the copy's id once it is there, pending.
    ///
    /// # Errors
    /// A region is unknown or has gone; the snapshot is not there; as
    /// [`endpoint::copy_snapshot`]'s.
    pub fn copy_snapshot(
        &self,
        request: &CopySnapshot,
        announce: Announce<'_>,
    ) -> Result<Snapshot> {
        let store = self.swept();
        let from = endpoint::find(store, request.source_region.as_deref())?;
        let to = endpoint::find(store, request.destination_region.as_deref())?;
        let wanted = wanted(&request.description, &request.tags)?;
        endpoint::copy_snapshot(&from, &request.source_snapshot_id, &to, wanted, announce)
    }

    /// EC2 DescribeSnapshots.
    ///
    /// # Errors
    /// One of those named is not there, a filter is unknown, the store can't be read.
    pub fn describe_snapshots(
        &self,
        request: &DescribeSnapshots,
    ) -> Result<Vec<DescribedSnapshot>> {
        let store = self.swept();
        let listed = match request.snapshot_ids.as_slice() {
            [] => store.snapshots().list()?.or_warn(),
            ids => found(ids, |id| store.snapshots().find(id))?,
        };
        let settled = listed.into_iter().map(|listed| snapshot::settled(store, listed));
        let described = |snapshot: Snapshot| DescribedSnapshot {
            written: snapshot::bytes_there(store, &snapshot),
            snapshot,
        };
        let found = settled.map(described).collect();
        select(found, &request.filters, FILTERS)
    }

    /// EC2 DescribeSnapshotAttribute: a snapshot of one's own, and who may make volumes of it.
    /// Those are who may launch an image of one's own that has it.
    ///
    /// # Errors
    /// It is unknown, or another's.
    pub fn create_volume_permissions(&self, snapshot_id: &str) -> Result<(Snapshot, Vec<Value>)> {
        let store = self.swept();
        let snapshot = store.snapshots().resolve(snapshot_id)?;
        check_owner(store, &snapshot)?;
        let images = store.images().list()?.or_warn();
        let has = |image: &&Image| {
            image.state == ImageState::Available
                && image.owner_id == snapshot.owner_id
                && image.snapshots().any(|id| *id == snapshot.snapshot_id)
        };
        let mut found = BTreeSet::new();
        for image in images.iter().filter(has) {
            let described = serde_json::to_value(LaunchPermissions::of(image)).unwrap_or_default();
            let list = described["LaunchPermissions"].as_array().cloned().unwrap_or_default();
            found.extend(list.iter().map(Value::to_string));
        }
        let permissions = found.iter().filter_map(|text| serde_json::from_str(text).ok());
        Ok((snapshot, permissions.collect()))
    }

    /// Compares a snapshot's content with its digest.
    ///
    /// # Errors
    /// It is unknown, or differs.
    pub fn verify_snapshot(&self, snapshot_id: &str) -> Result<SnapshotId> {
        let found = snapshot::resolve(self.swept(), snapshot_id)?;
        snapshot::verify(&self.store, &found)?;
        Ok(found.snapshot_id)
    }

    /// EC2 DeleteSnapshot, of several in a region (the store at hand without one). What became of
    /// each, in their order.
    ///
    /// # Errors
    /// The region is unknown, or has gone: none has been deleted.
    pub fn delete_snapshots(
        &self,
        snapshot_ids: &[String],
        region: Option<&str>,
        force: bool,
    ) -> Result<Vec<Result<()>>> {
        let place = endpoint::find(self.swept(), region)?;
        let delete = |text: &String| match &place {
            Endpoint::Store(store) => {
                // What is deleted already is found by its whole id only.
                let id = match text.parse() {
                    Ok(id) => id,
                    Err(_) => store.snapshots().resolve(text)?.snapshot_id,
                };
                snapshot::delete(store, &id, force)
            }
            Endpoint::Remote(remote) => remote.delete_snapshot(&text.parse()?),
        };
        Ok(snapshot_ids.iter().map(delete).collect())
    }
}

fn wanted(description: &str, tags: &[Tag]) -> Result<Wanted> {
    Ok(Wanted {
        snapshot_id: SnapshotId::generate()?,
        description: description.to_owned(),
        tags: tags.to_vec(),
    })
}
