//! What objects take on the disk, and what of it they share.
//!
//! A file counts with the blocks that are allocated for it, once, however many names it has. What
//! belongs to an object alone is what deleting it would give back.

use super::ephemeral::GIB;
use super::{dir, hibernation};
use crate::error::Result;
use crate::record::image::{Image, ImageState};
use crate::record::snapshot::DATA;
use crate::record::volume::Layer;
use crate::store::beneath::Dir;
use crate::store::{Listing, Store};
use rustix::fs::FileType;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One object's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// image, snapshot, volume, instance, kernel or ramdisk; or cache, logs, memory (of hibernated
    /// instances), journal, other.
    pub kind: &'static str,
    /// Its id; empty of what is no object.
    pub id: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Bytes of the disks as a guest sees them.
    pub size: u64,
    /// Bytes on the disk that others have, too.
    pub shared: u64,
    /// Bytes on the disk that it alone has.
    pub own: u64,
}

/// Of the whole store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usages {
    /// Each object's, by kind.
    pub objects: Vec<Usage>,
    /// Bytes that all of the store takes, each file counted once.
    pub total: u64,
}

/// A file, wherever its names are.
type File = (u64, u64);

/// Who has which files.
#[derive(Default)]
struct Files {
    /// Allocated bytes and holders of each.
    files: BTreeMap<File, (u64, BTreeSet<String>)>,
    /// Each holder's files, and its disk's size.
    holders: BTreeMap<String, (Vec<File>, u64)>,
}

impl Files {
    fn add<'a>(
        &mut self,
        holder: &str,
        size: u64,
        dir: &Path,
        names: impl Iterator<Item = &'a str>,
    ) {
        let entry = self.holders.entry(holder.to_owned()).or_default();
        entry.1 = size;
        let Ok(opened) = Dir::open(dir) else { return };
        for name in names {
            // What has gone meanwhile takes nothing. A link is followed only if it is this user's.
            let metadata = dir.join(name).symlink_metadata();
            let metadata = match metadata {
                Ok(link) if link.is_symlink() && opened.is_ours() => dir.join(name).metadata(),
                metadata => metadata,
            };
            let Ok(metadata) = metadata else { continue };
            let file = (metadata.dev(), metadata.ino());
            entry.0.push(file);
            let known = self.files.entry(file).or_default();
            known.0 = metadata.blocks() * 512;
            known.1.insert(holder.to_owned());
        }
    }

    /// The share of an object that consists of these holders.
    fn usage(&self, kind: &'static str, id: &str, name: Option<&str>, of: &[String]) -> Usage {
        let (mut size, mut files) = (0, BTreeSet::new());
        for (held, bytes) in of.iter().filter_map(|holder| self.holders.get(holder)) {
            size += bytes;
            files.extend(held);
        }
        let (mut shared, mut own) = (0, 0);
        for (bytes, holders) in files.into_iter().filter_map(|file| self.files.get(file)) {
            let alone = holders.iter().all(|holder| of.contains(holder));
            *(if alone { &mut own } else { &mut shared }) += bytes;
        }
        Usage { kind, id: id.to_owned(), name: name.map(str::to_owned), size, shared, own }
    }
}

fn names(layers: &[Layer]) -> impl Iterator<Item = &str> {
    layers.iter().map(|layer| &*layer.file)
}

/// Look at every object. What can't be read is told on stderr.
///
/// # Errors
/// The store can't be read.
pub fn usages(store: &Store) -> Result<Usages> {
    let (snapshots, volumes) =
        (store.snapshots().list()?.or_warn(), store.volumes().list()?.or_warn());
    let mut files = Files::default();
    for snapshot in &snapshots {
        let id = snapshot.snapshot_id.as_str();
        let all = std::iter::once(DATA).chain(names(&snapshot.layers));
        files.add(id, snapshot.size_bytes, &store.snapshots().dir(&snapshot.snapshot_id), all);
    }
    for volume in &volumes {
        let dir = store.volumes().dir(&volume.volume_id);
        files.add(volume.volume_id.as_str(), volume.size_bytes, &dir, names(&volume.layers));
    }
    let mut objects = Vec::new();
    for image in store.images().list()?.or_warn() {
        if image.state != ImageState::Deregistered {
            let (id, of) = (image.image_id.as_str(), snapshots_of(&image));
            objects.push(files.usage("image", id, Some(&image.name), &of));
        }
    }
    let tag = |tags: &[crate::record::tag::Tag]| {
        tags.iter().find(|tag| tag.key == "Name").map(|tag| tag.value.clone())
    };
    for snapshot in &snapshots {
        let id = snapshot.snapshot_id.as_str();
        objects.push(files.usage("snapshot", id, tag(&snapshot.tags).as_deref(), &[id.to_owned()]));
    }
    for volume in &volumes {
        let id = volume.volume_id.as_str();
        objects.push(files.usage("volume", id, tag(&volume.tags).as_deref(), &[id.to_owned()]));
    }
    for record in dir::instances(store).list()?.or_warn() {
        let instance = &record.instance;
        let id = instance.instance_id.as_str();
        let mapped = instance.block_device_mappings.iter();
        let mut of: Vec<String> = mapped.map(|m| m.ebs.volume_id.to_string()).collect();
        // Its instance-store disks lie beside its record.
        let ephemeral = &record.instance.spore.ephemeral;
        let size = ephemeral.iter().map(|disk| disk.size.saturating_mul(GIB)).sum();
        let dir = dir::instances(store).dir(&instance.instance_id);
        files.add(id, size, &dir, ephemeral.iter().map(|disk| disk.virtual_name.as_str()));
        of.push(id.to_owned());
        objects.push(files.usage("instance", id, instance.name(), &of));
    }
    let mut trees = Trees::default();
    let all = Dir::place(store.home()).map_or(0, |home| trees.bytes(&home, DEPTH));
    add_boot_files(store, &mut objects);
    objects.extend(places(
        store,
        all,
        files.files.values().map(|(bytes, _)| bytes).sum(),
        &objects,
    ));
    Ok(Usages { objects, total: all })
}

/// Directories below one another that are looked into: a store has no more.
const DEPTH: u32 = 8;

/// What lies in directories, every file once.
#[derive(Default)]
struct Trees(BTreeSet<File>);

impl Trees {
    /// Bytes on the disk of the user's own files in a directory and `depth` levels below it.
    fn bytes(&mut self, dir: &Dir, depth: u32) -> u64 {
        let each = |name: &String| -> u64 {
            let Ok(stat) = dir.stat(name) else { return 0 };
            let bytes = match self.0.insert((stat.st_dev, stat.st_ino)) {
                true => u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
                false => 0,
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let below = dir.place_in(name).ok().filter(|_| is_dir && depth > 0);
            bytes + below.map_or(0, |below| self.bytes(&below, depth - 1))
        };
        dir.own_names().unwrap_or_default().iter().map(each).sum()
    }

    /// The same of a path in the store.
    fn at(path: &Path) -> u64 {
        Dir::place(path).map_or(0, |dir| Self::default().bytes(&dir, DEPTH))
    }
}

/// Bytes on the disk of the user's own files in a directory of the store, or of one file.
pub fn bytes_of(path: &Path) -> u64 {
    let own = path.symlink_metadata().map_or(0, |metadata| metadata.blocks() * 512);
    own + Trees::at(path)
}

/// Kernels and initial ramdisks.
fn add_boot_files(store: &Store, objects: &mut Vec<Usage>) {
    let usage = |kind, id: &str, name: &str, size, path: &Path| Usage {
        kind,
        id: id.to_owned(),
        name: Some(name.to_owned()),
        size,
        shared: 0,
        own: Trees::at(path),
    };
    for kernel in store.kernels().list().map(Listing::or_warn).unwrap_or_default() {
        let (id, dir) = (&kernel.kernel_id, store.kernels().dir(&kernel.kernel_id));
        objects.push(usage("kernel", id.as_str(), &kernel.name, kernel.size_bytes, &dir));
    }
    for ramdisk in store.ramdisks().list().map(Listing::or_warn).unwrap_or_default() {
        let (id, dir) = (&ramdisk.ramdisk_id, store.ramdisks().dir(&ramdisk.ramdisk_id));
        objects.push(usage("ramdisk", id.as_str(), &ramdisk.name, ramdisk.size_bytes, &dir));
    }
}

/// What is no object: of `all` bytes `disks` are those of disks.
fn places(store: &Store, all: u64, disks: u64, objects: &[Usage]) -> Vec<Usage> {
    let place = |kind, own| Usage { kind, id: String::new(), name: None, size: 0, shared: 0, own };
    let (mut logs, mut memory) = (0u64, 0);
    for id in dir::instances(store).own_ids().unwrap_or_default() {
        let dir = dir::InstanceDir::new(store, &id);
        let bytes = |name: &str| {
            dir.file(name).symlink_metadata().map_or(0, |metadata| metadata.blocks() * 512)
        };
        memory += bytes(hibernation::MEMORY);
        let record = dir.record().ok().flatten();
        let ephemeral = record.map_or(0, |record| {
            record.instance.spore.ephemeral.iter().map(|disk| bytes(&disk.virtual_name)).sum()
        });
        logs += Trees::at(&dir::instances(store).dir(&id)).saturating_sub(ephemeral);
    }
    let kernels = objects.iter().filter(|usage| matches!(usage.kind, "kernel" | "ramdisk"));
    let kernels: u64 = kernels.map(|usage| usage.own).sum();
    let (cache, journal) = (Trees::at(&store.cache()), Trees::at(&store.account_dir()));
    let logs = logs.saturating_sub(memory);
    let other = all.saturating_sub(disks + kernels + cache + journal + logs + memory);
    vec![
        place("cache", cache),
        place("logs", logs),
        place("memory", memory),
        place("journal", journal),
        place("other", other),
    ]
}

fn snapshots_of(image: &Image) -> Vec<String> {
    let mappings = image.block_device_mappings.iter().filter_map(|m| m.ebs.as_ref());
    mappings.filter_map(|ebs| ebs.snapshot_id.as_ref().map(ToString::to_string)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_alone_has_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, blocks: usize| {
            std::fs::write(dir.path().join(name), vec![1; blocks * 4096]).unwrap();
        };
        file("base", 10);
        file("a", 3);
        file("b", 5);
        std::fs::hard_link(dir.path().join("base"), dir.path().join("link")).unwrap();
        let mut files = Files::default();
        files.add("A", 1 << 20, dir.path(), ["a", "base"].into_iter());
        files.add("B", 2 << 20, dir.path(), ["b", "link"].into_iter());
        files.add("C", 0, dir.path(), ["gone"].into_iter());
        let share = |of: &[&str]| {
            let of: Vec<String> = of.iter().map(ToString::to_string).collect();
            let usage = files.usage("volume", "x", None, &of);
            (usage.size >> 20, usage.shared / 4096, usage.own / 4096)
        };
        assert_eq!(share(&["A"]), (1, 10, 3));
        assert_eq!(share(&["B"]), (2, 10, 5));
        assert_eq!(share(&["C"]), (0, 0, 0));
        assert_eq!(share(&["A", "B"]), (3, 0, 18), "together they share it with nobody");
    }
}
