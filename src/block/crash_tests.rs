//! Power loss: every write of a run is recorded, and at many points the run is cut. What a sync had
//! made durable is there then, and of what came after it any part, page by page.

use super::chain::LayerChain;
use super::host::Event;
use super::layer::Layer;
use super::state::Shared;
use super::{DiskFormat, Reader, overlay};
use crate::sys::file_io::Part;
use crate::sys::iobuf::IoBuf;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

const SIZE: usize = 12 << 20;
const SECTOR: usize = 512;
const OPS: usize = 240;
/// Small clusters, so that the run makes several L2 tables and refcount blocks.
const CLUSTER_BITS: u32 = 12;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % n
    }
}

/// What an operation did to the disk's content, and how many events had been recorded after it.
struct Step {
    events: usize,
    flushed: bool,
    offset: usize,
    bytes: Vec<u8>,
}

fn shared(dir: &Path, name: &str) -> Shared {
    let top = open_rw(&dir.join(name));
    let base = File::open(dir.join("base")).unwrap();
    let layers = vec![(top, DiskFormat::Qcow2), (base, DiskFormat::Raw)];
    let mut chain = LayerChain::open(layers).unwrap();
    let top = std::sync::Arc::get_mut(&mut chain.layers[0]).unwrap();
    let Layer::Qcow2(image) = top else { panic!("the top is qcow2") };
    image.host.log = Some(Mutex::default());
    Shared::new(chain, false).unwrap()
}

fn events(shared: &Shared) -> Vec<Event> {
    shared.chain.layers[0].host().log.as_ref().unwrap().lock().unwrap().clone()
}

fn recorded(shared: &Shared) -> usize {
    shared.chain.layers[0].host().log.as_ref().unwrap().lock().unwrap().len()
}

/// Do random operations.
fn run(shared: &Shared, rng: &mut Rng) -> Vec<Step> {
    let step = |n: usize| {
        let offset = rng.below(SIZE / SECTOR) * SECTOR;
        let most = [4, 32, 512][rng.below(3)];
        let len = ((1 + rng.below(most)) * SECTOR).min(SIZE - offset);
        let (flushed, bytes) = match rng.below(8) {
            0 => {
                shared.flush().unwrap();
                (true, Vec::new())
            }
            1 => {
                shared.zero(offset as u64, len as u64, true).unwrap();
                (false, vec![0; len])
            }
            _ => {
                let bytes: Vec<u8> = (0..len).map(|at| (n + at / SECTOR) as u8 | 1).collect();
                let buf = IoBuf::from_bytes(bytes.clone().into());
                shared.write(offset as u64, Part::whole(&buf)).unwrap();
                (false, bytes)
            }
        };
        Step { events: recorded(shared), flushed, offset, bytes }
    };
    (0..OPS).map(step).collect()
}

fn store(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    file.resize(file.len().max(offset + bytes.len()), 0);
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Do to `file` what the event did; with `dice`, only some of its pages.
fn apply(file: &mut Vec<u8>, event: &Event, dice: Option<&mut Rng>) {
    let mut nothing = Rng(1);
    let (partial, dice) = match dice {
        Some(dice) => (true, dice),
        None => (false, &mut nothing),
    };
    let mut keep = || !partial || dice.below(2) == 0;
    match event {
        Event::Write { offset, bytes } => {
            for (n, page) in bytes.chunks(4096).enumerate() {
                if keep() {
                    store(file, *offset as usize + n * 4096, page);
                }
            }
        }
        Event::Punch { offset, len } if keep() => {
            let end = ((offset + len) as usize).min(file.len());
            file[(*offset as usize).min(end)..end].fill(0);
        }
        Event::SetLen(len) if keep() => file.resize(*len as usize, 0),
        _ => {}
    }
}

/// No corruption; leaks, where a crash was and nobody has repaired it yet.
fn check(path: &Path, leaks: bool) {
    let command = Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(path).output();
    let Ok(output) = command else {
        assert!(std::env::var_os("CI").is_none(), "qemu-img is missing: install qemu-utils");
        return;
    };
    let sound = output.status.success() || (leaks && output.status.code() == Some(3));
    assert!(sound, "{}", String::from_utf8_lossy(&output.stdout));
}

/// Repair `cut` as opening it does, and lose the power in the middle of that too.
fn repair(dir: &Path, rng: &mut Rng, mut judge: impl FnMut()) {
    let mut durable = std::fs::read(dir.join("cut")).unwrap();
    let events = events(&shared(dir, "cut"));
    check(&dir.join("cut"), false);
    judge();
    let end = rng.below(events.len() + 1);
    let synced = events[..end].iter().rposition(|e| matches!(e, Event::Sync)).unwrap_or(0);
    events[..synced].iter().for_each(|e| apply(&mut durable, e, None));
    events[synced..end].iter().for_each(|e| apply(&mut durable, e, Some(rng)));
    std::fs::write(dir.join("cut"), &durable).unwrap();
    check(&dir.join("cut"), true);
    overlay::repair(&open_rw(&dir.join("cut"))).unwrap();
    check(&dir.join("cut"), false);
    judge();
}

fn open_rw(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Each sector is as it was at the last flush before the cut, or as something later made it.
fn judge(dir: &Path, base: &[u8], steps: &[Step], cut: usize) {
    let flushed = steps.iter().rposition(|s| s.flushed && s.events <= cut).unwrap_or(0);
    let later = steps.iter().position(|s| s.events > cut).unwrap_or(steps.len() - 1);
    let open = |name| File::open(dir.join(name)).unwrap();
    let layers = vec![(open("cut"), DiskFormat::Qcow2), (open("base"), DiskFormat::Raw)];
    let mut bytes = vec![0; SIZE];
    Reader::open(layers).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    let mut expected = base.to_vec();
    steps[..flushed].iter().for_each(|s| store(&mut expected, s.offset, &s.bytes));
    for at in (0..SIZE).step_by(SECTOR) {
        let sector = &bytes[at..at + SECTOR];
        let later = || {
            steps[flushed..=later].iter().any(|s| {
                let from = at.checked_sub(s.offset);
                from.and_then(|from| s.bytes.get(from..from + SECTOR)) == Some(sector)
            })
        };
        assert!(
            sector == &expected[at..at + SECTOR] || later(),
            "cut at {cut}: sector {} is neither as flushed nor as written since",
            at / SECTOR
        );
    }
}

#[test]
fn power_loss_at_any_point_keeps_what_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut rng = Rng(0x0ff);
    let base: Vec<u8> = (0..SIZE).map(|at| (at / SECTOR * 7) as u8).collect();
    std::fs::write(dir.join("base"), &base).unwrap();
    let backing = overlay::Backing { name: "base", format: DiskFormat::Raw };
    let top = File::create(dir.join("top")).unwrap();
    overlay::create_with(&top, SIZE as u64, Some(backing), CLUSTER_BITS).unwrap();
    let mut durable = std::fs::read(dir.join("top")).unwrap();

    let first = shared(dir, "top");
    let steps = run(&first, &mut rng);
    first.writer.as_ref().unwrap().close(&first.chain).unwrap();
    check(&dir.join("top"), false);
    let events = events(&first);
    assert!(events.iter().filter(|e| matches!(e, Event::Punch { .. })).count() > 5);
    let mut since_sync: Vec<&Event> = Vec::new();
    let mut cuts = 0;
    for (n, event) in events.iter().enumerate() {
        since_sync.push(event);
        if matches!(event, Event::Sync) {
            since_sync.drain(..).for_each(|e| apply(&mut durable, e, None));
        }
        // Every place around metadata writes, and some of the many others.
        let metadata = matches!(event, Event::Write { bytes, .. } if bytes.len() <= 4096);
        if rng.below(if metadata { 8 } else { 40 }) != 0 {
            continue;
        }
        let mut cut = durable.clone();
        since_sync.iter().for_each(|e| apply(&mut cut, e, Some(&mut rng)));
        std::fs::write(dir.join("cut"), &cut).unwrap();
        check(&dir.join("cut"), true);
        repair(dir, &mut rng, || judge(dir, &base, &steps, n + 1));
        cuts += 1;
        if cuts % 20 == 0 {
            // It can be written again, and stays sound.
            let again = shared(dir, "cut");
            run(&again, &mut rng);
            again.writer.as_ref().unwrap().close(&again.chain).unwrap();
            check(&dir.join("cut"), false);
        }
    }
    assert!(cuts > 30, "{cuts} cuts");
}

/// Clusters that are counted and that nothing points to come back at the next opening. An overlay
/// that was closed is opened without a write.
#[test]
fn opening_reclaims_what_a_crash_leaked() {
    const MIB: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("base"), vec![7; SIZE]).unwrap();
    let top = File::create(dir.join("top")).unwrap();
    overlay::create_with(&top, SIZE as u64, None, CLUSTER_BITS).unwrap();
    let disk = shared(dir, "top");
    let write = |disk: &Shared, offset, fill| {
        let buf = IoBuf::from_bytes(vec![fill; MIB].into());
        disk.write(offset, Part::whole(&buf)).unwrap();
    };
    write(&disk, 0, 1);
    disk.writer.as_ref().unwrap().close(&disk.chain).unwrap();
    let closed = std::fs::read(dir.join("top")).unwrap();
    assert_eq!(overlay::repair(&open_rw(&dir.join("top"))).unwrap().clusters, 0);

    let disk = shared(dir, "top");
    assert!(events(&disk).is_empty(), "opening what was closed writes nothing");
    write(&disk, 4 << 20, 2);
    disk.flush().unwrap();
    // Cut off when the counts are durable and the tables are not.
    let events = events(&disk);
    let syncs: Vec<usize> =
        (0..events.len()).filter(|n| matches!(events[*n], Event::Sync)).collect();
    let mut cut = closed.clone();
    events[..syncs[syncs.len() - 2]].iter().for_each(|e| apply(&mut cut, e, None));
    std::fs::write(dir.join("cut"), &cut).unwrap();
    let leaked = (MIB >> CLUSTER_BITS) as u64 + 1; // the data, and an L2 table
    assert_eq!(overlay::repair(&open_rw(&dir.join("cut"))).unwrap().clusters, leaked);
    assert_eq!(std::fs::metadata(dir.join("cut")).unwrap().len(), closed.len() as u64);

    std::fs::write(dir.join("cut"), &cut).unwrap();
    let disk = shared(dir, "cut");
    check(&dir.join("cut"), false);
    let mut expected = vec![7; SIZE];
    expected[..MIB].fill(1);
    let mut bytes = vec![0; SIZE];
    disk.chain.read_at(&mut bytes, 0).unwrap();
    assert!(bytes == expected, "repairing changed what the disk reads as");
    write(&disk, 4 << 20, 3);
    disk.writer.as_ref().unwrap().close(&disk.chain).unwrap();
    check(&dir.join("cut"), false);
}

/// The host's file system fills up at any write: the request fails, what was there stays, and with
/// room again all goes on.
#[test]
fn no_space_left_is_an_error_and_no_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut rng = Rng(0xf11);
    let mut model: Vec<u8> = (0..SIZE).map(|at| (at / SECTOR * 7) as u8).collect();
    std::fs::write(dir.join("base"), &model).unwrap();
    let backing = overlay::Backing { name: "base", format: DiskFormat::Raw };
    let top = File::create(dir.join("top")).unwrap();
    overlay::create_with(&top, SIZE as u64, Some(backing), CLUSTER_BITS).unwrap();
    let disk = shared(dir, "top");
    let room = |n| disk.chain.layers[0].host().room.store(n, std::sync::atomic::Ordering::SeqCst);
    let mut refused = 0;
    for n in 0..400 {
        room(rng.below(6) as u64);
        let offset = rng.below(SIZE / SECTOR) * SECTOR;
        let len = ((1 + rng.below(64)) * SECTOR).min(SIZE - offset);
        let bytes = vec![n as u8 | 1; len];
        let buf = IoBuf::from_bytes(bytes.clone().into());
        let result = match rng.below(6) {
            0 => disk.flush(),
            1 => disk.discard(offset as u64, len as u64),
            _ => disk.write(offset as u64, Part::whole(&buf)),
        };
        if let Err(e) = result {
            assert_eq!(e.raw_os_error(), Some(28), "{e}");
            refused += 1;
        }
        // A refused write may have been done in part, as on a real disk: old or new, sector by
        // sector.
        let mut now = vec![0; len];
        disk.chain.read_at(&mut now, offset as u64).unwrap();
        let pieces = now.chunks(SECTOR).zip(model[offset..].chunks(SECTOR));
        for (now, before) in pieces {
            let right = now == before || now == &bytes[..SECTOR] || now.iter().all(|b| *b == 0);
            assert!(right, "operation {n} shows foreign bytes");
        }
        model[offset..offset + len].copy_from_slice(&now);
    }
    assert!(refused > 50, "{refused} refused");
    room(u64::MAX);
    disk.writer.as_ref().unwrap().close(&disk.chain).unwrap();
    let mut bytes = vec![0; SIZE];
    disk.chain.read_at(&mut bytes, 0).unwrap();
    assert!(bytes == model, "bytes of another operation changed");
    let output =
        Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(dir.join("top")).output();
    if let Ok(output) = output {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
