//! What a store has, as the model says it and as it is read from the disk: one type for both, so
//! that `==` decides.

use crate::users::as_user;
use sporevm::block::Reader;
use sporevm::image::catalog;
use sporevm::instance::dir::instances;
use sporevm::plan::DiskFormat;
use sporevm::record::image::{ImageState, LaunchPermission, RootDeviceType};
use sporevm::record::instance::State;
use sporevm::record::snapshot::SnapshotState;
use sporevm::record::tag::Tag;
use sporevm::record::volume::{Layer, LayerName};
use sporevm::store::Store;
use sporevm::{snapshot, volume};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

pub type Tags = BTreeMap<String, String>;

/// The bytes of a disk.
#[derive(Clone)]
pub struct Bytes(pub Arc<Vec<u8>>);

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = self.0.iter().fold(0u64, |sum, b| sum.rotate_left(5) ^ u64::from(*b));
        write!(f, "{} bytes, {sum:016x}", self.0.len())
    }
}

impl Bytes {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }

    /// The same with `bytes` at `offset`.
    pub fn with(&self, offset: usize, bytes: &[u8]) -> Self {
        let mut all = self.0.to_vec();
        all[offset..offset + bytes.len()].copy_from_slice(bytes);
        Self::new(all)
    }

    /// The same with zeros up to `size`.
    pub fn grown(&self, size: usize) -> Self {
        if self.0.len() == size {
            return self.clone();
        }
        let mut all = self.0.to_vec();
        all.resize(size, 0);
        Self::new(all)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub name: String,
    pub snapshot: Option<String>,
    pub delete: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub owner: u32,
    pub name: String,
    pub state: ImageState,
    pub description: Option<String>,
    pub public: bool,
    pub shared: BTreeSet<u32>,
    pub codes: BTreeSet<String>,
    pub rate: Option<String>,
    pub deprecated: Option<String>,
    pub root: RootDeviceType,
    /// Without one it boots from its disk.
    pub has_kernel: bool,
    pub devices: Vec<Device>,
    pub tags: Tags,
    pub instance: Option<String>,
    pub source: Option<String>,
}

impl Image {
    pub fn snapshots(&self) -> impl Iterator<Item = &String> {
        self.devices.iter().filter_map(|device| device.snapshot.as_ref())
    }

    pub fn is_seen_by(&self, user: u32) -> bool {
        self.owner == user || self.public || self.shared.contains(&user)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub owner: u32,
    pub state: SnapshotState,
    pub volume: Option<String>,
    pub tags: Tags,
    /// Of a completed one.
    pub content: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    pub instance: String,
    pub device: String,
    pub delete: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    pub owner: u32,
    pub snapshot: Option<String>,
    pub attachment: Option<Attachment>,
    pub tags: Tags,
    pub content: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub owner: u32,
    pub image: String,
    pub state: State,
    pub root: RootDeviceType,
    pub kind: String,
    /// Device names and volumes.
    pub volumes: Vec<(String, String)>,
    pub tags: Tags,
}

impl Instance {
    pub fn is_alive(&self) -> bool {
        self.state != State::Terminated
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    pub images: BTreeMap<String, Image>,
    pub snapshots: BTreeMap<String, Snapshot>,
    pub volumes: BTreeMap<String, Volume>,
    pub instances: BTreeMap<String, Instance>,
    /// Accepted product codes, by account.
    pub products: BTreeMap<u32, BTreeSet<String>>,
}

fn tags(tags: &[Tag]) -> Tags {
    tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()
}

fn uid(text: &str) -> u32 {
    text.parse().unwrap()
}

/// Reads stores. What was read of a file that has not changed since need not be read again.
#[derive(Default)]
pub struct Eyes {
    seen: HashMap<Vec<Stamp>, Bytes>,
}

type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Eyes {
    /// Read everything anew from now on.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    fn content(&mut self, dir: &Path, layers: &[Layer]) -> Bytes {
        let stamp = |layer: &Layer| -> Stamp {
            let meta = dir.join(&layer.file).metadata();
            let m = meta.unwrap_or_else(|e| panic!("{} of {}: {e}", layer.file, dir.display()));
            (m.dev(), m.ino(), m.len(), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()))
        };
        let stamps: Vec<Stamp> = layers.iter().map(stamp).collect();
        if let Some(bytes) = self.seen.get(&stamps) {
            return bytes.clone();
        }
        let owner = dir.metadata().unwrap().uid();
        let files = as_user(owner, || volume::open_chain(dir, layers, false)).unwrap();
        let reader = Reader::open(files).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let mut bytes = vec![0; reader.size() as usize];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        let bytes = Bytes::new(bytes);
        self.seen.insert(stamps, bytes.clone());
        bytes
    }

    /// All that the accounts `users` have in the store.
    ///
    /// # Panics
    /// A record or a chain can't be read, or a name is taken twice.
    pub fn look(&mut self, store: &Store, users: &[u32]) -> World {
        let mut world = World::default();
        for record in all(store.images().list()) {
            let owner = uid(&record.owner_id);
            let record = as_user(owner, || catalog::settled(store, record));
            let devices = record.block_device_mappings.iter().map(|m| Device {
                name: m.device_name.clone(),
                snapshot: m.ebs.as_ref().and_then(|e| Some(e.snapshot_id.as_ref()?.to_string())),
                delete: m.ebs.as_ref().is_some_and(|e| e.delete_on_termination == Some(true)),
            });
            let shared = record.launch_permissions.iter().map(|entry| match entry {
                LaunchPermission::UserId(id) | LaunchPermission::Group(id) => uid(id),
            });
            let image = Image {
                owner: uid(&record.owner_id),
                name: record.name.clone(),
                state: record.state,
                description: record.description.clone(),
                public: record.public,
                shared: shared.collect(),
                codes: record.product_codes.iter().map(|c| c.product_code_id.clone()).collect(),
                rate: record.hourly_rate.clone(),
                deprecated: record.deprecation_time.clone(),
                root: record.root_device_type,
                has_kernel: record.kernel_id.is_some(),
                devices: devices.collect(),
                tags: tags(&record.tags),
                instance: record.source_instance_id.as_ref().map(ToString::to_string),
                source: record.source_image_id.as_ref().map(ToString::to_string),
            };
            world.images.insert(record.image_id.to_string(), image);
        }
        self.look_at_disks(store, &mut world);
        look_at_instances(store, &mut world);
        for &user in users {
            let dir = store.home().join(format!("accounts/{user}/products"));
            let codes = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let codes: BTreeSet<String> =
                codes.map(|code| code.file_name().into_string().unwrap()).collect();
            world.products.insert(user, codes);
        }
        world.check_names();
        world
    }

    fn look_at_disks(&mut self, store: &Store, world: &mut World) {
        for record in all(store.snapshots().list()) {
            let owner = uid(&record.owner_id);
            let record = as_user(owner, || snapshot::settled(store, record));
            let data = Layer { file: LayerName::data(), format: record.format };
            let layers: Vec<Layer> = [data].into_iter().chain(record.layers.clone()).collect();
            let complete = record.state == SnapshotState::Completed;
            let dir = store.snapshots().dir(&record.snapshot_id);
            let new = Snapshot {
                owner: uid(&record.owner_id),
                state: record.state,
                volume: record.volume_id.as_ref().map(ToString::to_string),
                tags: tags(&record.tags),
                content: complete.then(|| self.content(&dir, &layers)),
            };
            world.snapshots.insert(record.snapshot_id.to_string(), new);
        }
        for record in all(store.volumes().list()) {
            let dir = store.volumes().dir(&record.volume_id);
            assert_eq!(record.layers[0].format, DiskFormat::Qcow2);
            let attachment = record.attachment.as_ref().map(|a| Attachment {
                instance: a.instance_id.to_string(),
                device: a.device.clone(),
                delete: a.delete_on_termination,
            });
            let new = Volume {
                owner: uid(&record.owner_id),
                snapshot: record.snapshot_id.as_ref().map(ToString::to_string),
                attachment,
                tags: tags(&record.tags),
                content: self.content(&dir, &record.layers),
            };
            world.volumes.insert(record.volume_id.to_string(), new);
        }
    }
}

fn look_at_instances(store: &Store, world: &mut World) {
    for record in all(instances(store).list()) {
        let (owner, it) = (uid(&record.owner_id), record.instance);
        let mapped = it.block_device_mappings.iter();
        let new = Instance {
            owner,
            image: it.image_id.to_string(),
            state: it.state,
            root: it.root_device_type,
            kind: it.instance_type.clone(),
            volumes: mapped.map(|m| (m.device_name.clone(), m.ebs.volume_id.to_string())).collect(),
            tags: tags(&it.tags),
        };
        world.instances.insert(it.instance_id.to_string(), new);
    }
    // A volume is attached if both records say so.
    for (id, volume) in &mut world.volumes {
        let mapped = |a: &Attachment| {
            let instance = world.instances.get(&a.instance);
            instance.is_some_and(|i| i.volumes.contains(&(a.device.clone(), id.clone())))
        };
        volume.attachment = volume.attachment.take().filter(mapped);
    }
}

fn all<R>(listing: sporevm::Result<sporevm::store::Listing<R>>) -> Vec<R> {
    let listing = listing.unwrap();
    assert!(listing.broken.is_empty(), "{:?}", listing.broken);
    listing.records
}

impl World {
    fn check_names(&self) {
        let mut names = BTreeSet::new();
        for image in self.images.values().filter(|i| i.state == ImageState::Available) {
            assert!(names.insert((image.owner, &image.name)), "two are called {}", image.name);
        }
    }

    /// Where the worlds differ, one line each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        differ(&self.images, &other.images, &mut lines);
        differ(&self.snapshots, &other.snapshots, &mut lines);
        differ(&self.volumes, &other.volumes, &mut lines);
        differ(&self.instances, &other.instances, &mut lines);
        if self.products != other.products {
            lines.push(format!("products: {:?} != {:?}", self.products, other.products));
        }
        lines
    }
}

fn differ<T: PartialEq + std::fmt::Debug>(
    one: &BTreeMap<String, T>,
    other: &BTreeMap<String, T>,
    lines: &mut Vec<String>,
) {
    let ids: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for id in ids.into_iter().filter(|id| one.get(*id) != other.get(*id)) {
        lines.push(format!("{id}: {:?}\n    is {:?}", one.get(id), other.get(id)));
    }
}

impl Snapshot {
    /// One that is completed.
    pub fn whole(owner: u32, volume: Option<String>, content: Bytes) -> Self {
        let state = SnapshotState::Completed;
        Self { owner, state, volume, tags: Tags::new(), content: Some(content) }
    }
}

impl World {
    /// Whether something keeps a snapshot from being deleted: an image, or a volume of another
    /// account, which can't have hard links to its content.
    pub fn is_in_use(&self, snapshot: &str) -> bool {
        let Some(owner) = self.snapshots.get(snapshot).map(|s| s.owner) else { return false };
        let registered = |i: &&Image| i.state != ImageState::Deregistered;
        let mut images = self.images.values().filter(registered);
        let needs = |v: &Volume| v.owner != owner && v.snapshot.as_deref() == Some(snapshot);
        images.any(|i| i.snapshots().any(|s| s == snapshot)) || self.volumes.values().any(needs)
    }
}
