//! Commands to a CD-ROM drive: the input is the chains of its request queue or of another one, and
//! the bytes of the requests.

use sporevm::block::{Disk, DiskFormat, Engine};
use sporevm::virtio::Notices;
use sporevm::virtio::device::{Device, Outcome};
use sporevm::virtio::queue::{QueueState, SplitQueue};
use sporevm::virtio::scsi::{CONTROL, REQUESTS, Scsi};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

/// Where the rings and tables are, and the buffers.
const BASE: u64 = 0x20_0000;
const BUFFERS: u64 = BASE + 0x1000;
/// Descriptors, and bytes of memory that the input fills.
const SIZE: u16 = 16;
const ROOM: usize = 0x3000;
/// Bytes of the disc.
const DISC: u64 = 256 << 10;

/// The queue, what is written to its configuration (offset and value), then memory from the
/// descriptor table on.
pub fn drive(data: &[u8]) {
    let Some((&[queue, at, a, b, c, d], memory)) = data.split_first_chunk() else { return };
    let ram = super::shared_ram();
    ram.write_slice(&vec![0; ROOM], GuestAddress(BASE)).unwrap();
    ram.write_slice(&memory[..memory.len().min(ROOM)], GuestAddress(BASE)).unwrap();
    let file = super::file(&[]);
    file.set_len(DISC).unwrap();
    let disc: Arc<dyn Disk> = sporevm::block::open(vec![(file, DiskFormat::Raw)], true).unwrap();
    let notices = Notices::new(Arc::new(|_: &str| {}));
    let (device, mut services) =
        Scsi::create("cdrom0", &disc, Engine::Sync, Default::default(), notices).unwrap();
    device.write_config(at.into(), &[a, b, c, d]);
    let handler = &mut services[0].handler;
    handler.start(1 << 28, Default::default());
    let (avail, used) = (BASE + 0x100, BASE + 0x200);
    let state = QueueState { size: SIZE, ready: true, desc: BASE, avail, used, ..QueueState::default() };
    let mut ring = SplitQueue::new(ram.clone(), state, 128, 1 << 28).unwrap();
    let number = if queue & 3 == 0 { u16::from(queue >> 2) % 3 } else { REQUESTS };
    for _ in 0..SIZE {
        let Ok(Some(chain)) = ring.pop() else { break };
        let (head, writable) = (chain.head(), chain.writable_len());
        match handler.handle(number, chain) {
            Outcome::Done(len) => {
                assert!(len <= writable, "{len} of {writable} bytes written");
                let _ = ring.push_used(head, len);
            }
            Outcome::Deferred | Outcome::Kept => {}
            Outcome::NotNow => assert!(number != REQUESTS || handler.in_flight() > 0),
            Outcome::Stop(why) => {
                assert!(!why.is_empty());
                break;
            }
        }
        handler.submit_batch().unwrap();
        handler.completions(&mut |queue, head, len| {
            assert_eq!(queue, REQUESTS);
            let _ = ring.push_used(head, len);
        });
        assert_eq!(handler.in_flight(), 0, "what is begun is done");
    }
    let saved = device.save();
    device.restore(&saved).unwrap();
    assert_eq!(device.save(), saved);
}

/// What drivers ask, a command each, and one of the control queue.
pub fn seeds() -> Vec<Vec<u8>> {
    let desc = |at: u64, len: u32, flags: u16, next: u16| {
        [&(BUFFERS + at).to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    let memory = |table: Vec<u8>, request: &[u8]| {
        let mut memory = vec![0; 0x1100];
        memory[..table.len()].copy_from_slice(&table);
        // Two chains: the first command only tells of the reset.
        memory[0x100..0x108].copy_from_slice(&[0, 0, 2, 0, 3, 0, 0, 0]);
        memory[0x1000..0x1000 + request.len()].copy_from_slice(request);
        memory[0x1080] = 1;
        memory
    };
    let command = |cdb: &[u8]| {
        let mut request = vec![0; 51];
        request[0] = 1;
        request[19..19 + cdb.len()].copy_from_slice(cdb);
        let table = [
            desc(0, 51, 1, 1),
            desc(0x200, 108, 3, 2),
            desc(0x400, 4096, 2, 0),
            desc(0x80, 51, 1, 4),
            desc(0x300, 108, 2, 0),
        ];
        [&[1, 24, 32, 0, 0, 0][..], &memory(table.concat(), &request)].concat()
    };
    let control = || {
        let table = [desc(0, 24, 1, 1), desc(0x200, 5, 2, 0), vec![0; 16], desc(0x80, 24, 1, 4), desc(0x300, 5, 2, 0)];
        let request = [0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        [&[CONTROL as u8, 0, 0, 0, 0, 0][..], &memory(table.concat(), &request)].concat()
    };
    let commands: [&[u8]; 14] = [
        &[0x12, 0, 0, 0, 36],
        &[0x12, 1, 0x83, 0, 255],
        &[0x25],
        &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32],
        &[0x28, 0, 0, 0, 0, 3, 0, 0, 2],
        &[0xa8, 0, 0, 0, 0, 3, 0, 0, 0, 1],
        &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1],
        &[0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0],
        &[0x43, 2, 0, 0, 0, 0, 0, 1, 0],
        &[0x46, 0, 0, 0, 0, 0, 0, 1, 0],
        &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8],
        &[0x51, 0, 0, 0, 0, 0, 0, 1, 0],
        &[0x1b, 0, 0, 0, 2],
        &[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    ];
    commands.into_iter().map(command).chain([control()]).collect()
}
