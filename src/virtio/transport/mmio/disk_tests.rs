//! The whole way of a disk request: registers, ring, worker, engine, files.

use super::tests::Rig;
use super::*;
use crate::block::overlay::{Backing, create};
use crate::block::{Disk, DiskFormat, Engine, open};
use crate::virtio::blk::Blk;
use crate::virtio::testing::*;
use proptest::prelude::*;
use std::os::unix::fs::FileExt;
use virtio_bindings::virtio_blk::*;
use vm_memory::{Bytes, GuestAddress};

/// Sectors of the disk.
const SECTORS: u64 = 2048;

/// What a guest does in one batch: (kind, sector, sectors, byte).
type Step = (u32, u64, u32, u8);

/// An overlay over a raw base of ones.
fn overlay(engine: Engine) -> Option<(Arc<dyn Disk>, Arc<Blk>, Services)> {
    let (base, top) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    base.write_all_at(&vec![1; (SECTORS * 512) as usize], 0).unwrap();
    let backing = Backing { name: "base", format: DiskFormat::Raw };
    create(&top, SECTORS * 512, Some(backing)).unwrap();
    let disk: Arc<dyn Disk> =
        open(vec![(top, DiskFormat::Qcow2), (base, DiskFormat::Raw)], false).unwrap();
    let volume = "vol-0123456789abcdef0".parse().unwrap();
    // A host without io_uring has only the other engine to show.
    let (device, services) =
        Blk::create(&volume, &disk, engine, 1, Default::default(), notices().0).ok()?;
    Some((disk, device, services))
}

/// Offer all steps at once, as chains of three descriptors; their status bytes when all came back.
fn batch(rig: &Rig, driver: &mut Driver, steps: &[Step]) -> Vec<u8> {
    let place = |n: usize| BUFFERS + 0x4000 * n as u64;
    for (n, &(kind, sector, sectors, byte)) in steps.iter().enumerate() {
        let (at, first) = (place(n), 3 * n as u16);
        rig.ram.write_obj([u64::from(kind), sector], GuestAddress(at)).unwrap();
        let (mut data, mut len) = (vec![byte; 512 * sectors as usize], 512 * sectors);
        if matches!(kind, VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES) {
            data = [sector.to_le_bytes(), u64::from(sectors).to_le_bytes()].concat();
            len = 16;
        }
        rig.ram.write_slice(&data, GuestAddress(at + 512)).unwrap();
        let data = (at + 512, len, kind == VIRTIO_BLK_T_IN);
        driver.chain(first, &[(at, 16, false), data, (at + 16, 1, true)]);
        driver.offer(first);
    }
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    rig.wait_used(driver, steps.len());
    (0..steps.len()).map(|n| rig.ram.read_obj(GuestAddress(place(n) + 16)).unwrap()).collect()
}

fn run(engine: Engine, batches: &[Vec<Step>]) -> Result<(), TestCaseError> {
    let Some((disk, device, services)) = overlay(engine) else { return Ok(()) };
    let rig = Rig::new(&ram(), device, services, Arc::new(|_| Ok(())));
    let (mut driver, mut model) = (rig.start(), vec![1u8; (SECTORS * 512) as usize]);
    let bytes = |sector: u64, sectors: u32| {
        let start = (sector * 512) as usize;
        start..start + 512 * sectors as usize
    };
    for steps in batches {
        // Operations of one batch are unordered: each has its own 1/15 of the disk.
        let place =
            |(n, &(kind, at, len, byte)): (usize, &Step)| (kind, 136 * n as u64 + at, len, byte);
        let steps: Vec<Step> = steps.iter().enumerate().map(place).collect();
        let status = batch(&rig, &mut driver, &steps);
        prop_assert!(status.iter().all(|status| *status == 0), "{status:?}");
        for &(kind, sector, sectors, byte) in &steps {
            match kind {
                VIRTIO_BLK_T_OUT => model[bytes(sector, sectors)].fill(byte),
                VIRTIO_BLK_T_WRITE_ZEROES => model[bytes(sector, sectors)].fill(0),
                _ => {}
            }
        }
    }
    // Every sector is read back through the same path.
    for sector in (0..SECTORS).step_by(16) {
        batch(&rig, &mut driver, &[(VIRTIO_BLK_T_IN, sector, 16, 0xee)]);
        let mut read = vec![0; 16 * 512];
        rig.ram.read_slice(&mut read, GuestAddress(BUFFERS + 512)).unwrap();
        prop_assert_eq!(&read[..], &model[bytes(sector, 16)], "sector {}", sector);
    }
    assert!(rig.transport.shutdown(std::time::Instant::now() + std::time::Duration::from_secs(30)));
    disk.close().unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// A guest reads what it wrote last, whichever way the host does its I/O.
    #[test]
    fn a_guest_reads_what_it_wrote(batches in proptest::collection::vec(
        proptest::collection::vec((
            prop_oneof![
                Just(VIRTIO_BLK_T_IN), Just(VIRTIO_BLK_T_OUT), Just(VIRTIO_BLK_T_OUT),
                Just(VIRTIO_BLK_T_FLUSH), Just(VIRTIO_BLK_T_WRITE_ZEROES),
            ],
            0u64..120, 1u32..16, any::<u8>(),
        ), 1..15), 1..8)
    ) {
        run(Engine::Sync, &batches)?;
        run(Engine::Uring, &batches)?;
    }
}
