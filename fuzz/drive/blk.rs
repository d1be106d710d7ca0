//! Requests to a disk: the input is the requests' chains and the bytes of their headers.

use sporevm::block::{Disk, DiskFormat, Engine};
use sporevm::plan::{DiskLimits, Rate};
use sporevm::virtio::Notices;
use sporevm::virtio::blk::Blk;
use sporevm::virtio::device::Outcome;
use sporevm::virtio::queue::{QueueState, SplitQueue};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

/// Where the rings and tables are, and the buffers.
const BASE: u64 = 0x20_0000;
const BUFFERS: u64 = BASE + 0x1000;
/// Descriptors, and bytes of memory that the input fills.
const SIZE: u16 = 16;
const ROOM: usize = 0x3000;
/// Bytes of the disk.
const DISK: usize = 256 << 10;

/// Features (the device's own, low 32 bits), limits, then memory from the descriptor table on.
pub fn drive(data: &[u8]) {
    let Some((&[limit], data)) = data.split_first_chunk() else { return };
    let Some((head, memory)) = data.split_at_checked(4) else { return };
    let ram = super::shared_ram();
    ram.write_slice(&vec![0; ROOM], GuestAddress(BASE)).unwrap();
    ram.write_slice(&memory[..memory.len().min(ROOM)], GuestAddress(BASE)).unwrap();
    let file = super::file(&[]);
    file.set_len(DISK as u64).unwrap();
    let disk: Arc<dyn Disk> = sporevm::block::open(vec![(file, DiskFormat::Raw)], head[3] & 0x80 != 0).unwrap();
    let volume = "vol-0123456789abcdef0".parse().unwrap();
    let notices = Notices::new(Arc::new(|_: &str| {}));
    let (_blk, mut services) = Blk::create(&volume, &disk, Engine::Sync, 1, limits(limit), notices).unwrap();
    let handler = &mut services[0].handler;
    let features = u64::from(u32::from_le_bytes(head.try_into().unwrap()));
    handler.start(features, Default::default());
    let (avail, used) = (BASE + 0x100, BASE + 0x200);
    let state = QueueState { size: SIZE, ready: true, desc: BASE, avail, used, ..QueueState::default() };
    let mut queue = SplitQueue::new(ram.clone(), state, 256, 1 << 28).unwrap();
    for _ in 0..SIZE {
        let Ok(Some(chain)) = queue.pop() else { break };
        let (head, writable) = (chain.head(), chain.writable_len());
        match handler.handle(0, chain) {
            Outcome::Done(len) => {
                assert!(len <= writable, "{len} of {writable} bytes written");
                let _ = queue.push_used(head, len);
            }
            Outcome::Deferred | Outcome::Kept | Outcome::NotNow => {}
            Outcome::Stop(why) => {
                assert!(!why.is_empty());
                break;
            }
        }
    }
    while handler.in_flight() > 0 {
        handler.submit_batch().unwrap();
        handler.completions(&mut |_, head, len| {
            assert!(head < SIZE);
            let _ = queue.push_used(head, len);
        });
        // What a limit holds back for seconds is not waited for.
        if handler.due().is_some() {
            break;
        }
    }
}

/// Those of all kinds, from none to the smallest, with bursts smaller and larger than a request.
fn limits(byte: u8) -> DiskLimits {
    let rate = |bits: u8| {
        let per_second = [1, 1 << 20, u64::MAX][usize::from(bits & 3).checked_sub(1)?];
        Some(Rate { per_second, burst: [1, 512, 1 << 20, u64::MAX][usize::from(bits >> 2 & 3)] })
    };
    DiskLimits { iops: rate(byte), bandwidth: rate(byte >> 4) }
}

/// A read, a write, a discard, zeroing, a flush and the disk's id.
pub fn seeds() -> Vec<Vec<u8>> {
    let desc = |n: u64, len: u32, flags: u16, next: u16| {
        [&(BUFFERS + n * 0x200).to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()]
            .concat()
    };
    let request = |kind: u32, sector: u64, data: (u32, u16), content: &[u8]| {
        let mut memory = vec![0; 0x1400];
        let mut table = [desc(0, 16, 1, 1), desc(1, data.0, 1 | data.1, 2), desc(4, 1, 2, 0)].concat();
        if data.0 == 0 {
            table = [desc(0, 16, 1, 2), vec![0; 16], desc(4, 1, 2, 0)].concat();
        }
        memory[..48].copy_from_slice(&table);
        memory[0x100..0x106].copy_from_slice(&[0, 0, 1, 0, 0, 0]);
        let head = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        memory[0x1000..0x1010].copy_from_slice(&head);
        memory[0x1200..0x1200 + content.len()].copy_from_slice(content);
        [&[0][..], &0x6246_u32.to_le_bytes(), &memory].concat()
    };
    let range = [&8u64.to_le_bytes()[..], &16u32.to_le_bytes(), &1u32.to_le_bytes()].concat();
    let mut seeds = vec![
        request(0, 3, (1024, 2), &[]),
        request(1, 5, (1024, 0), b"written"),
        request(4, 0, (0, 0), &[]),
        request(8, 0, (20, 2), &[]),
        request(11, 0, (16, 0), &range),
        request(13, 0, (16, 0), &range),
    ];
    let limited = [0x11, 0x12, 0x26, 0xdd].map(|limits| [&[limits], &seeds[1][1..]].concat());
    seeds.extend(limited);
    seeds
}
