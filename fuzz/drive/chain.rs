//! A virtqueue whose rings and descriptors are the input: every chain is taken, read, written and
//! given back.

use sporevm::virtio::feature;
use sporevm::virtio::queue::{QueueState, SplitQueue};
use vm_memory::{Bytes, GuestAddress};

/// Where rings and tables are.
const BASE: u64 = 0x10_0000;
/// Bytes of guest memory that the input fills.
const ROOM: usize = 0x2000;

/// First size, features and places of the rings, then memory.
pub fn drive(data: &[u8]) {
    let Some((head, memory)) = data.split_at_checked(8) else { return };
    let ram = super::shared_ram();
    ram.write_slice(&vec![0; ROOM], GuestAddress(BASE)).unwrap();
    ram.write_slice(&memory[..memory.len().min(ROOM)], GuestAddress(BASE)).unwrap();
    let place = |n: usize| BASE + u64::from(head[n]) * 32;
    let state = QueueState {
        size: 1 << (head[0] & 15),
        ready: true,
        desc: place(2),
        avail: place(3),
        used: place(4),
        next_avail: head[5].into(),
        next_used: head[6].into(),
    };
    let bits = [feature::INDIRECT_DESC, feature::EVENT_IDX];
    let features = bits.iter().enumerate().filter(|(n, _)| head[1] >> n & 1 == 1).map(|(_, bit)| bit).sum();
    let Ok(mut queue) = SplitQueue::new(ram.clone(), state, 256, features) else { return };
    // The driver may give as many chains as the queue has descriptors; here the device gives each
    // back at once.
    for _ in 0..256 {
        let Ok(Some(chain)) = queue.pop() else { break };
        assert!(chain.head() < state.size);
        let (readable, writable) = (chain.readable_len(), chain.writable_len());
        let mut bytes = [0; 64];
        let some = bytes.len().min(readable as usize);
        let _ = chain.read(0, &mut bytes[..some]);
        assert!(!chain.read(readable, &mut [0]), "beyond its end");
        assert!(!chain.write(writable, &[0]), "beyond its end");
        assert!(chain.readable(readable, 1).is_none() && chain.writable(u32::MAX, 2).is_none());
        if queue.push_used(chain.head(), writable).is_err() || queue.publish().is_err() {
            break;
        }
        let _ = (queue.disable_notification(), queue.enable_notification());
    }
}

/// Two chains, one of them by an indirect table.
pub fn seeds() -> Vec<Vec<u8>> {
    let desc = |addr: u64, len: u32, flags: u16, next: u16| {
        [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    let mut memory = vec![0; 0x600];
    let table = [
        desc(BASE + 0x800, 16, 1, 1),
        desc(BASE + 0x900, 512, 3, 2),
        desc(BASE + 0xa00, 1, 2, 0),
        desc(BASE + 0x400, 32, 4, 0),
    ];
    memory[..64].copy_from_slice(&table.concat());
    let indirect = [desc(BASE + 0x800, 16, 1, 1), desc(BASE + 0x900, 512, 2, 0)].concat();
    memory[0x400..0x420].copy_from_slice(&indirect);
    // flags, index, ring
    memory[0x100..0x108].copy_from_slice(&[0, 0, 2, 0, 0, 0, 3, 0]);
    let head = |size: u8, features: u8| vec![size, features, 0, 8, 16, 0, 0, 0];
    vec![[head(4, 3), memory.clone()].concat(), [head(4, 0), memory.clone()].concat(), [head(2, 1), memory].concat()]
}
