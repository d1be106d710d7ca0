//! The files of a chain: named, linked from one object to another, opened, repaired.

use super::record::{Layer, Volume};
use super::users;
use crate::block::overlay::{self, Repaired};
use crate::error::{Error, OrFail, Result};
use crate::image::DATA;
use crate::image::record::Snapshot;
use crate::plan::DiskFormat;
use crate::store::shared::open_file;
use crate::store::{Store, StoreLock, fault};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// What the lowest file of a volume's chain is called.
pub const BASE: &str = "base";

/// The chain below the overlay of a new volume that begins as `snapshot`.
///
/// What is below a snapshot's `data` keeps its name, which is written in the overlay above it.
pub(super) fn below(snapshot: &Snapshot) -> Vec<Layer> {
    let name = if snapshot.layers.is_empty() { BASE } else { snapshot.snapshot_id.as_str() };
    let data = Layer { file: name.to_owned(), format: snapshot.format };
    std::iter::once(data).chain(snapshot.layers.iter().cloned()).collect()
}

/// The name of a file of `below` in the snapshot's own directory.
fn source(n: usize, layer: &Layer) -> &str {
    if n == 0 { DATA } else { &layer.file }
}

/// What keeps a snapshot until a volume that needs it is in the store.
pub(super) enum Held {
    /// Nobody deletes one's own.
    Lock { _lock: StoreLock },
    /// Its owner waits.
    Data { _data: File },
}

/// Link a snapshot's files as the layers of a volume. What it gives must be held until the volume is in the store.
pub(super) fn link_snapshot(
    store: &Store,
    snapshot: &Snapshot,
    volume: &Volume,
    dir: &Path,
) -> Result<Option<Held>> {
    let layers = &volume.layers;
    let id = &snapshot.snapshot_id;
    let from = store.snapshots().dir(id);
    let gone = || {
        let message = format!("the snapshot {id} has no content any more");
        Error::refused("InvalidSnapshot.NotFound", message)
    };
    let names = || layers.iter().enumerate().map(|(n, layer)| (source(n, layer), &*layer.file));
    match link_all(&from, dir, names()) {
        Ok(()) => Ok(None),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(gone()),
        // EMLINK, EXDEV, EPERM, EOPNOTSUPP: link(2). A snapshot is deleted under the store's lock, if no volume needs it.
        Err(_) => {
            let held = if snapshot.owner_id == super::owner_id() {
                Held::Lock { _lock: store.lock()? }
            } else {
                Held::Data { _data: users::enter(store, id, &volume.volume_id)? }
            };
            for (source, name) in names() {
                let (data, link) = (from.join(source), dir.join(name));
                if !data.is_file() {
                    return Err(gone());
                }
                fault::point("symbolic link of a layer");
                let _ = fs::remove_file(&link);
                std::os::unix::fs::symlink(&data, &link)
                    .or_fail(|| format!("link {}", link.display()))?;
            }
            Ok(Some(held))
        }
    }
}

fn link_all<'a>(
    from: &Path,
    to: &Path,
    names: impl Iterator<Item = (&'a str, &'a str)>,
) -> io::Result<()> {
    for (source, name) in names {
        fault::point("link of a layer");
        fs::hard_link(from.join(source), to.join(name))?;
    }
    Ok(())
}

/// Link the `layers` of a volume in `from` as the content of a snapshot in the empty directory `to`: the first as
/// [`DATA`], the others under their names.
///
/// # Errors
/// The file system has no hard links (or no more), or they are symbolic links: the content has to be copied then.
pub fn link_chain(from: &Path, layers: &[Layer], to: &Path) -> io::Result<()> {
    if layers.iter().any(|layer| from.join(&layer.file).is_symlink()) {
        return Err(ErrorKind::Unsupported.into());
    }
    let names = layers.iter().enumerate().map(|(n, layer)| (&*layer.file, source(n, layer)));
    link_all(from, to, names)
}

/// Open the files of a chain, top first; with `write` the top for writing, too.
///
/// # Errors
/// One can't be opened.
pub fn open_chain(dir: &Path, layers: &[Layer], write: bool) -> Result<Vec<(File, DiskFormat)>> {
    let open = |(n, layer): (usize, &Layer)| {
        let path = dir.join(&layer.file);
        // A symbolic link leads to what may be another's.
        if let Ok(target) = fs::read_link(&path) {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            return Ok((open_file(target.parent().unwrap_or(dir), &name)?, layer.format));
        }
        let opened = File::options().read(true).write(write && n == 0).open(&path);
        Ok((opened.or_fail(|| format!("open {}", path.display()))?, layer.format))
    };
    layers.iter().enumerate().map(open).collect()
}

/// Repair the overlays that were not closed: the top, and one that was the top when its VMM was killed in the
/// middle of a snapshot. The caller holds the volume.
///
/// # Errors
/// An overlay is worse than leaking, or can't be written.
pub fn repair_held(dir: &Path, volume: &Volume) -> Result<Repaired> {
    let mut repaired = Repaired::default();
    for layer in volume.layers.iter().filter(|layer| layer.file.starts_with("overlay-")) {
        let path = dir.join(&layer.file);
        if path.is_symlink() {
            continue;
        }
        let doing = || format!("repair the overlay {}", path.display());
        let file = File::open(&path).or_fail(doing)?;
        if overlay::is_dirty(&file).or_fail(doing)? {
            let file = File::options().read(true).write(true).open(&path).or_fail(doing)?;
            repaired.clusters += overlay::repair(&file).or_fail(doing)?.clusters;
        }
    }
    Ok(repaired)
}

/// Remove the files of a chain that the volume's record does not name: what a killed command left. Failing only costs
/// space. The caller holds the volume's lock.
pub(super) fn sweep(dir: &Path, volume: &Volume) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let of_a_chain = name == BASE || name.starts_with("overlay-") || name.starts_with("snap-");
        if of_a_chain && volume.layers.iter().all(|layer| layer.file != name) {
            let _ = fs::remove_file(dir.join(name));
        }
    }
}
