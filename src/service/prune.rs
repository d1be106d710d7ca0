//! What nothing refers to any more, and its removal.
//!
//! Looking and removing are two steps: whoever asks hears first what would go and how much that
//! gives back. Each removal is the ordinary one of its kind, which looks once more whether
//! something refers to it.

use super::Service;
use crate::error::Result;
use crate::id::{InstanceId, KernelId, RamdiskId, SnapshotId, VolumeId};
use crate::instance::dir::{InstanceDir, instances};
use crate::instance::{attach, attached, disk_usage};
use crate::kernel::{self, BootFile};
use crate::record::Record;
use crate::record::image::{Image, ImageState};
use crate::record::instance::{InstanceRecord, State};
use crate::record::kernel::{Kernel, Ramdisk};
use crate::snapshot;
use crate::store::Store;
use serde::Serialize;
use std::collections::HashMap;

/// What is to be looked for beside terminated instances, the snapshots of deregistered images, and
/// kernels and ramdisks that no image and no instance names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prune {
    /// Volumes that are attached to nothing.
    pub volumes: bool,
    /// All snapshots that no image refers to, backups too.
    pub snapshots: bool,
    /// What can be made again.
    pub cache: bool,
}

/// Something that nothing refers to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Unused {
    /// `instance`, `snapshot`, `volume`, `kernel`, `ramdisk` or `cache`.
    pub resource_type: &'static str,
    /// Its id; a name in the cache.
    pub resource_id: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes on the disk that its removal gives back.
    pub size_bytes: u64,
    /// Why nothing needs it.
    pub why: &'static str,
}

impl Service {
    /// What of the caller's nothing refers to.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn find_unused(&self, request: Prune) -> Result<Vec<Unused>> {
        let store = self.swept();
        let usages = disk_usage::usages(store)?;
        let own = usages.objects.into_iter().map(|usage| ((usage.kind, usage.id), usage.own));
        let mut look = Look { store, own: own.collect(), found: Vec::new() };
        let (over, live): (Vec<_>, Vec<_>) = super::instances::all(store)?
            .into_iter()
            .partition(|record| record.instance.state == State::Terminated);
        look.instances(&over);
        let (gone, images): (Vec<Image>, Vec<Image>) = store
            .images()
            .list()?
            .or_warn()
            .into_iter()
            .partition(|image| image.state == ImageState::Deregistered);
        look.snapshots(&gone, &images, request.snapshots)?;
        if request.volumes {
            look.volumes()?;
        }
        look.boot_files::<Kernel>(&images, &live)?;
        look.boot_files::<Ramdisk>(&images, &live)?;
        if request.cache {
            look.cache();
        }
        Ok(look.found)
    }

    /// Removes what [`Service::find_unused`] found. What became of each, in their order.
    pub fn prune(&self, unused: &[Unused]) -> Vec<Result<()>> {
        unused.iter().map(|unused| remove(self.swept(), unused)).collect()
    }
}

/// What is found, kind by kind.
struct Look<'a> {
    store: &'a Store,
    /// Bytes that an object alone has, by its kind and its id.
    own: HashMap<(&'static str, String), u64>,
    found: Vec<Unused>,
}

impl Look<'_> {
    fn add(
        &mut self,
        resource_type: &'static str,
        id: &str,
        name: Option<&str>,
        why: &'static str,
    ) {
        let key = (resource_type, id.to_owned());
        let size_bytes = self.own.get(&key).copied().unwrap_or(0);
        let (resource_id, name) = (key.1, name.map(str::to_owned));
        self.found.push(Unused { resource_type, resource_id, name, size_bytes, why });
    }

    fn is_mine(&self, record: &impl Record) -> bool {
        record.owner() == self.store.owner_id()
    }

    fn instances(&mut self, over: &[InstanceRecord]) {
        for record in over.iter().filter(|record| self.is_mine(*record)).collect::<Vec<_>>() {
            let (id, name) = (&record.instance.instance_id, record.instance.name());
            let size = disk_usage::bytes_of(&instances(self.store).dir(id));
            self.own.insert(("instance", id.to_string()), size);
            self.add("instance", id.as_str(), name, "terminated");
        }
    }

    fn snapshots(&mut self, gone: &[Image], images: &[Image], all: bool) -> Result<()> {
        for snapshot in self.store.snapshots().list()?.or_warn() {
            let id = &snapshot.snapshot_id;
            let of = |images: &[Image]| images.iter().any(|i| i.snapshots().any(|s| s == id));
            let why = match of(gone) {
                true => "its image is deregistered",
                false => "no image refers to it",
            };
            if self.is_mine(&snapshot) && !of(images) && (of(gone) || all) {
                self.add("snapshot", id.as_str(), snapshot.name(), why);
            }
        }
        Ok(())
    }

    fn volumes(&mut self) -> Result<()> {
        for volume in self.store.volumes().list()?.or_warn() {
            if self.is_mine(&volume) && attached::attached_to(self.store, &volume).is_none() {
                self.add("volume", volume.volume_id.as_str(), volume.name(), "attached to nothing");
            }
        }
        Ok(())
    }

    fn boot_files<R: BootFile>(&mut self, images: &[Image], live: &[InstanceRecord]) -> Result<()> {
        for file in self.store.collection::<R>().list()?.or_warn() {
            let id = Some(file.id());
            let named = images.iter().any(|image| R::of_image(image) == id)
                || live.iter().any(|record| R::of_instance(&record.instance) == id);
            let claimed = kernel::is_claimed(self.store, file.id().as_ref());
            if self.is_mine(&file) && !named && !claimed {
                const WHY: &str = "no image and no instance names it";
                self.add(R::KIND, file.id().as_ref(), file.name(), WHY);
            }
        }
        Ok(())
    }

    fn cache(&mut self) {
        for name in self.store.cached() {
            let size = disk_usage::bytes_of(&self.store.cache().join(&name));
            self.own.insert(("cache", name.clone()), size);
            self.add("cache", &name, None, "can be made again");
        }
    }
}

fn remove(store: &Store, unused: &Unused) -> Result<()> {
    let id = unused.resource_id.as_str();
    match unused.resource_type {
        "instance" => {
            let id = id.parse::<InstanceId>()?;
            let Some(locked) = InstanceDir::new(store, &id).lock()? else { return Ok(()) };
            match locked.record.instance.state {
                State::Terminated => locked.remove(),
                _ => Ok(()),
            }
        }
        "snapshot" => snapshot::delete(store, &id.parse::<SnapshotId>()?, false),
        "volume" => attach::delete(store, &store.volumes().get(&id.parse::<VolumeId>()?)?),
        // A command that runs means to refer to it.
        "kernel" | "ramdisk" if kernel::is_claimed(store, id) => Ok(()),
        "kernel" => kernel::deregister::<Kernel>(store, &id.parse::<KernelId>()?, false),
        "ramdisk" => kernel::deregister::<Ramdisk>(store, &id.parse::<RamdiskId>()?, false),
        _ => store.discard_cached(id),
    }
}
