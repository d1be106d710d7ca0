//! Putting a volume with a long chain on the flat content of a snapshot that was made of it.
//!
//! Both chains read the same, so it does not matter at which moment record and VMM change from the
//! one to the other.

use super::dir::InstanceDir;
use super::resources::{LINGER, while_in_use};
use super::{client, lifecycle};
use crate::block::overlay::Backing;
use crate::control::{DiskTop, Request};
use crate::disk::overlay;
use crate::error::{OrFail, Result};
use crate::id::VolumeId;
use crate::record::instance::{Disk, State};
use crate::record::snapshot::{DATA, Snapshot};
use crate::record::volume::{Layer, LayerName};
use crate::store::{Durability, Store, beneath};
use crate::sys::fault;
use crate::volume;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Replace `frozen`, what is below the volume's top, by the snapshot's content. Nothing happens if
/// the volume has changed its layers meanwhile: the next snapshot will do it.
///
/// # Errors
/// No hard links, the volume is in use by somebody unknown, or its VMM can't.
pub fn rebase(
    store: &Store,
    dir: Option<&InstanceDir>,
    id: &VolumeId,
    frozen: &[Layer],
    snapshot: &Snapshot,
) -> Result<()> {
    let instance = dir.map(lifecycle::current).transpose()?;
    let mut locked = store.volumes().lock(id)?;
    let Some((top, below)) = locked.record.layers.split_first() else { return Ok(()) };
    if below != frozen {
        return Ok(());
    }
    let running = instance.as_ref().filter(|i| i.record.instance.state == State::Running);
    let volume = locked.dir();
    let _hold = match running {
        Some(_) => None,
        None => Some(while_in_use(LINGER, || volume::hold(store, &volume, &locked.record, false))?),
    };
    let top = top.clone();
    let base = Layer { file: LayerName::from(&snapshot.snapshot_id), format: snapshot.format };
    let link = volume.join(&*base.file);
    let content = beneath::owned(&store.snapshots().dir(&snapshot.snapshot_id))?;
    fault::point("link of a flat base");
    let linked = content.link(DATA, locked.owned(), &base.file);
    linked.or_fail(|| format!("link {}", link.display()))?;
    locked.record.layers = vec![top.clone(), base.clone()];
    if let Err(error) = locked.save(Durability::Durable) {
        let _ = locked.owned().remove(&base.file);
        return Err(error);
    }
    fault::point("naming of a flat base");
    let path = volume.join(&*top.file);
    let doing = || format!("change {}", path.display());
    let file = locked.owned().writable(&top.file).or_fail(doing)?;
    overlay::name_base(&file, &Backing { name: &base.file, format: base.format }).or_fail(doing)?;
    for layer in frozen {
        // Who has it open keeps it; a name that stays only costs space.
        let _ = locked.owned().remove(&layer.file);
    }
    let (Some(instance), Some(dir)) = (running, dir) else { return Ok(()) };
    let instance = &instance.record.instance;
    let mapping = instance.block_device_mappings.iter().find(|m| m.ebs.volume_id == *id);
    let Some(mapping) = mapping else { return Ok(()) };
    let disk = instance.device_of(Disk::Volume(mapping))?;
    let ino = file.metadata().or_fail(doing)?.ino();
    let base_file =
        locked.owned().file(&base.file).or_fail(|| format!("open {}", link.display()))?;
    let request = Request::Rebase { disk: DiskTop { disk, top: ino }, format: base.format };
    client::ask_with(dir, &request, &[base_file.as_fd()]).map(|_| ())
}
