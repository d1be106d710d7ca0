//! Snapshots of volumes: of one, or of several at one instant.

use super::supply::{LINGER, while_in_use};
use crate::block::{Reader, overlay};
use crate::error::{OrFail, Result};
use crate::id::VolumeId;
use crate::image::record::Snapshot;
use crate::image::snapshot::{self, Frozen, Wanted};
use crate::store::{Locked, Store};
use crate::volume::record::Volume;
use crate::volume::{self, open_chain};
use std::fs::File;
use std::path::Path;

/// Make a snapshot of a volume as it is now (EC2 CreateSnapshot).
///
/// # Errors
/// `VolumeInUse`; no space; the description or a tag is malformed. The volume is as before then.
pub fn create(store: &Store, id: &VolumeId, wanted: Wanted) -> Result<Snapshot> {
    snapshot::check(&wanted)?;
    let mut locked = store.volumes().lock(id)?;
    let pending = {
        let frozen = freeze_at_rest(&mut locked)?;
        snapshot::begin(store, frozen, wanted)?
    };
    drop(locked);
    pending.complete()
}

/// Fix the content of a volume that nobody uses.
fn freeze_at_rest(locked: &mut Locked<Volume>) -> Result<Frozen> {
    let dir = locked.dir();
    let _hold = while_in_use(LINGER, || volume::hold(&dir, &locked.record, false))?;
    volume::repair_held(&dir, &locked.record)?;
    let volume = locked.record.clone();
    let unchanged = is_unchanged(&dir, &volume)?;
    let layers = volume.layers[usize::from(unchanged)..].to_vec();
    if !unchanged {
        volume::push_layer(locked, volume.size_bytes)?;
    }
    let files = open_chain(&dir, &layers, false)?;
    Ok(Frozen { volume, layers, files })
}

/// Whether the volume's own overlay is empty, and what is below it is all there is.
fn is_unchanged(dir: &Path, volume: &Volume) -> Result<bool> {
    let Some((top, below)) = volume.layers.split_first() else { return Ok(false) };
    if below.is_empty() {
        return Ok(false);
    }
    let doing = || format!("read {}", volume.volume_id);
    let file = File::open(dir.join(&top.file)).or_fail(doing)?;
    let below = Reader::open(open_chain(dir, below, false)?).or_fail(doing)?;
    Ok(below.size() == volume.size_bytes && overlay::is_empty(&file).or_fail(doing)?)
}
