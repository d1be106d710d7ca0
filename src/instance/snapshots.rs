//! Snapshots of volumes: of one, or of all of an instance's at one instant, whether or not it runs.
//!
//! While a VMM writes to a volume the order of steps is: the new overlay is made and the volume's
//! record names it as the top, durably; only then the VMM is told to write there. Killed before
//! that, VMM or command, the record's chain reads the same as what the VMM has, because its top is
//! empty; and the next attempt hands the VMM that same overlay.

use super::attached::attached_to;
use super::dir::InstanceDir;
use super::resources::{LINGER, while_in_use};
use super::{client, hibernation, lifecycle};
use crate::control::{DiskLayers, DiskTop, Request, Response};
use crate::disk::{self, overlay};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{SnapshotId, VolumeId};
use crate::plan::{DeviceId, VmReport};
use crate::record::instance::{Disk, Mapping, State};
use crate::record::snapshot::Snapshot;
use crate::record::volume::Volume;
use crate::snapshot::{self, Frozen, Pending, Wanted};
use crate::store::{Locked, Store, beneath};
use crate::volume::{self, open_chain};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// A begun snapshot of a volume.
#[derive(Debug)]
pub struct Begun {
    /// The snapshot.
    pub pending: Pending,
    /// The volume.
    pub volume_id: VolumeId,
    /// Its chain at that moment, as it is called in its directory.
    layers: Vec<crate::record::volume::Layer>,
    /// The VMM has yet to seal it.
    live: Option<Live>,
}

/// What a VMM has of a disk that was frozen under it.
#[derive(Clone, Debug)]
struct Live {
    /// The disk, and what it writes to since.
    disk: DiskTop,
    /// The VMM's process id.
    pid: Option<u32>,
}

/// Make a snapshot of a volume as it is now (EC2 CreateSnapshot).
///
/// # Errors
/// `VolumeInUse`; no space; the description or a tag is malformed. The volume reads as before then.
pub fn create(store: &Store, id: &VolumeId, wanted: Wanted) -> Result<Snapshot> {
    snapshot::check(&wanted)?;
    let volume = store.volumes().get(id)?;
    let Some(user) = attached_to(store, &volume) else {
        let mut locked = store.volumes().lock(id)?;
        let begun =
            begin(store, &locked.record.clone(), freeze_at_rest(&mut locked)?, None, wanted)?;
        drop(locked);
        return complete(store, None, begun);
    };
    let dir = InstanceDir::new(store, &user);
    let this = |mapping: &Mapping| (mapping.ebs.volume_id == *id).then(|| wanted.clone());
    let (mut begun, _) = freeze(store, &dir, this)?;
    let begun = begun.pop().ok_or_else(|| {
        Error::refused(Code::IncorrectState, format!("{id} was just taken off {user}; try again"))
    })?;
    complete(store, Some(&dir), begun)
}

/// Make snapshots of all of an instance's volumes as they are at one instant (EC2 CreateSnapshots).
///
/// # Errors
/// As [`create`]'s, and `IncorrectInstanceState`. What was begun is in error then.
pub fn create_all(store: &Store, dir: &InstanceDir, wanted: &Wanted) -> Result<Vec<Snapshot>> {
    snapshot::check(wanted)?;
    let each = |_: &Mapping| {
        let snapshot_id = SnapshotId::generate().ok()?;
        Some(Wanted { snapshot_id, ..wanted.clone() })
    };
    let (begun, _) = freeze(store, dir, each)?;
    begun.into_iter().map(|begun| complete(store, Some(dir), begun)).collect()
}

/// Fix those volumes of an instance for which something is wanted, all at one instant, and begin
/// their snapshots. If it runs, for how many microseconds its disks stood still.
///
/// # Errors
/// `IncorrectInstanceState`, no space, or its VMM can't. Every volume reads as before then.
pub fn freeze(
    store: &Store,
    dir: &InstanceDir,
    wanted: impl Fn(&Mapping) -> Option<Wanted>,
) -> Result<(Vec<Begun>, Option<u64>)> {
    // Nobody starts, stops, attaches or detaches meanwhile.
    let instance = lifecycle::current(dir)?;
    let disks = instance.record.instance.disks();
    let chosen: Vec<(&Mapping, Wanted)> = disks
        .filter_map(|disk| match disk {
            Disk::Volume(mapping) => Some((mapping, wanted(mapping)?)),
            Disk::InstanceStore | Disk::Ephemeral(_) => None,
        })
        .collect();
    let lock = |(mapping, _): &(&Mapping, Wanted)| store.volumes().lock(&mapping.ebs.volume_id);
    let mut volumes = chosen.iter().map(lock).collect::<Result<Vec<_>>>()?;
    let before: Vec<Volume> = volumes.iter().map(|locked| locked.record.clone()).collect();
    let (frozen, pause_us) = match instance.record.instance.state {
        State::Stopped => {
            hibernation::check_none(&instance.record, "a snapshot")?;
            let frozen = volumes.iter_mut().map(freeze_at_rest).collect::<Result<Vec<_>>>()?;
            (frozen.into_iter().map(|frozen| (frozen, None)).collect(), None)
        }
        State::Running => {
            let device = |(mapping, _): &(&Mapping, Wanted)| {
                let id = instance.record.instance.device_of(Disk::Volume(mapping))?;
                Ok((id, mapping.ebs.read_only))
            };
            let disks = chosen.iter().map(device).collect::<Result<Vec<_>>>()?;
            let (frozen, pause_us) = freeze_live(dir, &disks, &mut volumes)?;
            (frozen, Some(pause_us))
        }
        _ => return Err(lifecycle::incorrect_state(&instance, "imaged now")),
    };
    let mut begun = Vec::with_capacity(chosen.len());
    let together: Vec<(Frozen, Option<Live>)> = frozen;
    for (((frozen, live), (_, wanted)), volume) in together.into_iter().zip(chosen).zip(&before) {
        begun.push(begin(store, volume, frozen, live, wanted)?);
    }
    Ok((begun, pause_us))
}

fn begin(
    store: &Store,
    volume: &Volume,
    frozen: Frozen,
    live: Option<Live>,
    wanted: Wanted,
) -> Result<Begun> {
    let (volume_id, layers) = (volume.volume_id.clone(), frozen.layers.clone());
    Ok(Begun { pending: snapshot::begin(store, frozen, wanted)?, volume_id, layers, live })
}

/// Fix the content of a volume that nobody uses.
fn freeze_at_rest(locked: &mut Locked<Volume>) -> Result<Frozen> {
    let dir = locked.dir();
    let _hold = while_in_use(LINGER, || volume::hold(locked.store(), &dir, &locked.record, false))?;
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
    let file = beneath::owned(dir)?.file(&top.file).or_fail(doing)?;
    let below = disk::Disk::open(open_chain(dir, below, false)?).or_fail(doing)?;
    Ok(below.size() == volume.size_bytes && overlay::is_empty(&file).or_fail(doing)?)
}

type FrozenLive = (Vec<(Frozen, Option<Live>)>, u64);

/// Fix the content of volumes that a VMM has open as these disks; some it only reads.
fn freeze_live(
    dir: &InstanceDir,
    disks: &[(DeviceId, bool)],
    volumes: &mut [Locked<Volume>],
) -> Result<FrozenLive> {
    let at_vmm = disk_layers(dir)?;
    let (mut tops, mut files, mut frozen) = (Vec::new(), Vec::new(), Vec::new());
    for ((disk, read_only), locked) in disks.iter().zip(&mut *volumes) {
        let unknown = || Error::failure(format!("the VMM of {} has no disk {disk}", dir.id()));
        let vmm = at_vmm.get(disk).ok_or_else(unknown)?;
        let size = locked.record.size_bytes;
        let new = next_top(locked, vmm.top, size)?;
        let volume = locked.record.clone();
        let layers = volume.layers[1..].to_vec();
        let mut live = None;
        if !read_only {
            let top = new.metadata().or_fail(|| "look at a new overlay")?.ino();
            tops.push(DiskTop { disk: disk.clone(), top: vmm.top });
            live =
                Some(Live { disk: DiskTop { disk: disk.clone(), top }, pid: dir.recorded_pid() });
            // The flock on `in-use` goes on; the overlay itself needs none.
            files.push(new);
        }
        let open = open_chain(&locked.dir(), &layers, false)?;
        frozen.push((Frozen { volume, layers, files: open }, live));
    }
    if tops.is_empty() {
        return Ok((frozen, 0));
    }
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    match client::ask_with(dir, &Request::Freeze { disks: tops }, &fds)? {
        Response::Frozen { pause_us } => Ok((frozen, pause_us)),
        other => Err(Error::failure(format!("the VMM of {} answered {other:?}", dir.id()))),
    }
}

/// The overlay that a VMM whose disk writes to the file with inode number `top` is to write to
/// next: one of `size` bytes, unless an earlier attempt has made one.
fn next_top(locked: &mut Locked<Volume>, top: u64, size: u64) -> Result<File> {
    if is_layer(locked, 1, top) {
        // An earlier attempt got as far as this.
        let name = &locked.record.layers[0].file;
        let opened = locked.owned().writable(name);
        return opened.or_fail(|| format!("open {}", locked.dir().join(&**name).display()));
    }
    if !is_layer(locked, 0, top) {
        return Err(Error::failure(format!(
            "the VMM writes to a file of {} that its record doesn't name; stop the instance first",
            locked.record.volume_id
        )));
    }
    volume::push_layer(locked, size)
}

/// Whether layer `n` of the volume is the file with this inode number.
fn is_layer(locked: &Locked<Volume>, n: usize, inode: u64) -> bool {
    let layer = locked.record.layers.get(n);
    layer.is_some_and(|l| locked.owned().stat(&l.file).is_ok_and(|stat| stat.st_ino == inode))
}

/// Make a volume larger that a VMM has open as `disk`: it writes to a larger overlay from then on,
/// and tells its guest. The caller holds the instance's lock.
///
/// # Errors
/// No space, or its VMM can't; the volume reads as before then.
pub fn grow(
    dir: &InstanceDir,
    disk: &DeviceId,
    locked: &mut Locked<Volume>,
    size: u64,
) -> Result<()> {
    // The first time round may find what a killed command left.
    for _ in 0..2 {
        let at_vmm = disk_layers(dir)?;
        let unknown = || Error::failure(format!("the VMM of {} has no disk {disk}", dir.id()));
        let top = at_vmm.get(disk).ok_or_else(unknown)?.top;
        if is_layer(locked, 0, top) && locked.record.size_bytes >= size {
            break;
        }
        let new = next_top(locked, top, size)?;
        let inode = new.metadata().or_fail(|| "look at a new overlay")?.ino();
        let request = Request::Freeze { disks: vec![DiskTop { disk: disk.clone(), top }] };
        client::ask_with(dir, &request, &[new.as_fd()])?;
        let live = DiskTop { disk: disk.clone(), top: inode };
        await_seal(dir, &Live { disk: live, pid: dir.recorded_pid() })?;
    }
    Ok(())
}

fn disk_layers(dir: &InstanceDir) -> Result<BTreeMap<DeviceId, DiskLayers>> {
    match client::ask(dir, &Request::Layers {})?.0 {
        Response::Layers { disks } => Ok(disks),
        other => Err(Error::failure(format!("the VMM of {} answered {other:?}", dir.id()))),
    }
}

/// Bring a begun snapshot to its end; `dir` is the instance of a volume that is in use. A volume
/// whose chain has grown too long is put on the snapshot's flat content.
///
/// # Errors
/// No space, I/O errors, or the VMM was killed before the content was whole: the snapshot is in
/// error then.
pub fn complete(store: &Store, dir: Option<&InstanceDir>, mut begun: Begun) -> Result<Snapshot> {
    if let (Some(dir), Some(live)) = (dir, &begun.live)
        && let Err(error) = await_seal(dir, live)
    {
        begun.pending.fail(error.message());
        return Err(error);
    }
    let flattened = begun.pending.is_copied();
    let snapshot = begun.pending.complete()?;
    if flattened {
        // The snapshot is whole; the volume only reads slower for the time being.
        if let Err(error) =
            super::rebase::rebase(store, dir, &begun.volume_id, &begun.layers, &snapshot)
        {
            let id = &begun.volume_id;
            store.context().warn(format_args!("{id} keeps its long chain: {error}"));
        }
    }
    Ok(snapshot)
}

/// Wait until the VMM has brought to disk what was the top before it was exchanged for `live`.
fn await_seal(dir: &InstanceDir, live: &Live) -> Result<()> {
    loop {
        dir.store().context().check()?;
        let disks = match disk_layers(dir) {
            Ok(disks) => disks,
            Err(_) if !dir.vmm_alive()? => {
                // A clean end seals everything, and says so last.
                let reports = dir.reports()?;
                let clean = matches!(reports.last(), Some(VmReport::Ended { .. }));
                return if clean { Ok(()) } else { Err(killed(dir)) };
            }
            Err(error) => return Err(error),
        };
        if dir.recorded_pid() != live.pid {
            return Err(killed(dir));
        }
        match disks.get(&live.disk.disk) {
            // Exchanged again: that was only possible once it was sealed.
            Some(disk) if disk.top != live.disk.top || disk.sealed => return Ok(()),
            Some(DiskLayers { error: Some(why), .. }) => {
                return Err(Error::failure(format!("the content can't be made durable: {why}")));
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn killed(dir: &InstanceDir) -> Error {
    Error::failure(format!(
        "the VMM of {} ended before the snapshot was whole; make it again",
        dir.id()
    ))
}
