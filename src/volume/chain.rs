//! The files of a chain: named, linked from one object to another, opened, repaired.

use super::users;
use crate::disk::overlay::{self, Repaired};
use crate::error::{Code, Error, OrFail, Result};
use crate::plan::DiskFormat;
use crate::record::snapshot::{DATA, Snapshot};
use crate::record::volume::{Layer, LayerName, Volume};
use crate::store::beneath::{self, Dir, Owned};
use crate::store::shared::open_file;
use crate::store::{Store, StoreLock};
use crate::sys::fault;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

/// The chain below the overlay of a new volume that begins as `snapshot`.
///
/// What is below a snapshot's `data` keeps its name, which is written in the overlay above it.
pub(super) fn below(snapshot: &Snapshot) -> Vec<Layer> {
    let name = match snapshot.layers.is_empty() {
        true => LayerName::base(),
        false => LayerName::from(&snapshot.snapshot_id),
    };
    let data = Layer { file: name, format: snapshot.format };
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

/// Link a snapshot's files as the layers of a volume. What it gives must be held until the volume
/// is in the store.
pub(super) fn link_snapshot(
    store: &Store,
    snapshot: &Snapshot,
    volume: &Volume,
    dir: &Path,
) -> Result<Option<Held>> {
    let layers = &volume.layers;
    let id = &snapshot.snapshot_id;
    let gone = || {
        let message = format!("the snapshot {id} has no content any more");
        Error::refused(Code::InvalidSnapshotNotFound, message)
    };
    let from = match Dir::open(&store.snapshots().dir(id)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(gone()),
        from => from.or_fail(|| format!("open {id}"))?,
    };
    let to = beneath::owned(dir)?;
    let names = || layers.iter().enumerate().map(|(n, layer)| (source(n, layer), &*layer.file));
    // Another's content is referred to even by whom the kernel would let link it: its owner is to
    // know.
    let ours = from.is_ours();
    let from = match ours {
        true => Some(from.owned().or_fail(|| format!("open {id}"))?),
        false => None,
    };
    match from
        .map_or_else(|| Err(ErrorKind::Unsupported.into()), |from| link_all(&from, &to, names()))
    {
        Ok(()) => Ok(None),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(gone()),
        // EMLINK, EXDEV, EPERM, EOPNOTSUPP: link(2). A snapshot is deleted under the store's lock,
        // if no volume needs it.
        Err(_) => {
            let held = match ours {
                true => Held::Lock { _lock: store.lock()? },
                false => Held::Data { _data: users::enter(store, id, &volume.volume_id)? },
            };
            let from = store.snapshots().dir(id);
            for (source, name) in names() {
                open_file(&from, source).map_err(|_| gone())?;
                fault::point("symbolic link of a layer");
                let _ = to.remove(name);
                to.symlink(name, &from.join(source))
                    .or_fail(|| format!("link {}", dir.join(name).display()))?;
            }
            Ok(Some(held))
        }
    }
}

fn link_all<'a>(
    from: &Owned,
    to: &Owned,
    names: impl Iterator<Item = (&'a str, &'a str)>,
) -> io::Result<()> {
    for (source, name) in names {
        fault::point("link of a layer");
        from.link(source, to, name)?;
    }
    Ok(())
}

/// Link the `layers` of a volume in `from` as the content of a snapshot in the empty directory
/// `to`: the first as [`DATA`], the others under their names.
///
/// # Errors
/// The file system has no hard links (or no more), or they are symbolic links: the content has to
/// be copied then.
pub fn link_chain(from: &Path, layers: &[Layer], to: &Path) -> io::Result<()> {
    let names = layers.iter().enumerate().map(|(n, layer)| (&*layer.file, source(n, layer)));
    link_all(&Owned::open(from)?, &Owned::open(to)?, names)
}

/// Open the files of a chain, top first; with `write` the top for writing, too.
///
/// # Errors
/// One can't be opened.
pub fn open_chain(dir: &Path, layers: &[Layer], write: bool) -> Result<Vec<(File, DiskFormat)>> {
    let opened = Dir::open(dir).or_fail(|| format!("open {}", dir.display()))?;
    if !opened.is_ours() {
        // Another's snapshot: its own files, and no link of theirs.
        let open = |layer: &Layer| Ok((open_file(dir, &layer.file)?, layer.format));
        return layers.iter().map(open).collect();
    }
    let opened = opened.owned().or_fail(|| format!("open {}", dir.display()))?;
    let open = |(n, layer): (usize, &Layer)| {
        let name = &*layer.file;
        // A symbolic link leads to what may be another's.
        if let Ok(target) = opened.read_link(name) {
            let file = target.file_name().unwrap_or_default().to_string_lossy();
            return Ok((open_file(target.parent().unwrap_or(dir), &file)?, layer.format));
        }
        let file = if write && n == 0 { opened.writable(name) } else { opened.link_target(name) };
        Ok((file.or_fail(|| format!("open {}", dir.join(name).display()))?, layer.format))
    };
    layers.iter().enumerate().map(open).collect()
}

/// Repair the overlays that were not closed: the top, and one that was the top when its VMM was
/// killed in the middle of a snapshot. The caller holds the volume.
///
/// # Errors
/// An overlay is worse than leaking, or can't be written.
pub fn repair_held(dir: &Path, volume: &Volume) -> Result<Repaired> {
    let mut repaired = Repaired::default();
    let opened = beneath::owned(dir)?;
    for layer in volume.layers.iter().filter(|layer| layer.file.is_overlay()) {
        if opened.read_link(&layer.file).is_ok() {
            continue;
        }
        let doing = || format!("repair the overlay {}", dir.join(&*layer.file).display());
        let file = opened.link_target(&layer.file).or_fail(doing)?;
        if overlay::is_dirty(&file).or_fail(doing)? {
            let file = opened.writable(&layer.file).or_fail(doing)?;
            repaired.clusters += overlay::repair(&file).or_fail(doing)?.clusters;
        }
    }
    Ok(repaired)
}

/// Remove the files of a chain that the volume's record does not name: what a killed command left.
/// Failing only costs space. The caller holds the volume's lock.
pub(super) fn sweep(dir: &Owned, volume: &Volume) {
    for name in dir.names().unwrap_or_default() {
        let of_a_chain =
            name == LayerName::BASE || name.starts_with("overlay-") || name.starts_with("snap-");
        if of_a_chain && volume.layers.iter().all(|layer| *layer.file != name) {
            let _ = dir.remove(&name);
        }
    }
}
