//! Registers, doorbells and queues of an NVMe controller under a guest that does what the bytes
//! say.

use sporevm::block::{Disk, DiskFormat, Engine};
use sporevm::chipset::pci::Function;
use sporevm::mem::layout::PCI_WINDOW;
use sporevm::nvme::{Controller, Drive, vectors};
use sporevm::virtio::Notices;
use sporevm::virtio::device::ThreadStart;
use sporevm::virtio::transport::Transport;
use sporevm::virtio::transport::pci::{Message, MsiRouting, MsixVector};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Where queues and buffers are: of each queue a page of submissions and one of completions.
const BASE: u64 = 0x20_0000;
const PAGE: u64 = 0x1000;
const BUFFERS: u64 = BASE + 4 * PAGE;
const ROOM: usize = 0x8000;
/// Bytes of the disk.
const DISK: u64 = 256 << 10;
/// Bytes of an access: kind, offset (two), value (five).
const ACCESS: usize = 8;
/// Bytes of a command.
const COMMAND: usize = 64;
const COMMANDS: usize = 8;

struct Host;

impl MsiRouting for Host {
    fn route(&self, _gsi: u32, message: Option<Message>) -> io::Result<()> {
        assert!(message.is_none_or(|message| message.address >> 20 == 0xfee), "{message:x?}");
        Ok(())
    }
    fn doorbell(&self, _address: u64, _event: &EventFd, _on: bool) -> io::Result<()> {
        panic!("it has none")
    }
}

/// Commands, half of which are in the admin queue and half in the one I/O queue, and then accesses.
pub fn drive(data: &[u8]) {
    let Some((commands, accesses)) = data.split_at_checked(COMMANDS * COMMAND) else { return };
    let ram = super::shared_ram();
    ram.write_slice(&[0; ROOM], GuestAddress(BASE)).unwrap();
    let file = super::file(&[]);
    file.set_len(DISK).unwrap();
    let disk: Arc<dyn Disk> = sporevm::block::open(vec![(file, DiskFormat::Raw)], false).unwrap();
    let volume = "vol-0123456789abcdef0".parse().unwrap();
    let notices = Notices::new(Arc::new(|line: &str| assert!(!line.contains('\n'), "{line}")));
    let limits = (Default::default(), notices.clone());
    let drive = Drive::create(&volume, "/dev/vda", &disk, Engine::Sync, 1, limits).unwrap();
    let vector = |gsi| MsixVector { irq: EventFd::new(EFD_NONBLOCK).unwrap(), gsi };
    let ends = ((24..).take(vectors(&drive)).map(vector).collect(), Arc::new(Host) as _);
    let hook: ThreadStart = Arc::new(|_| Ok(()));
    let base = PCI_WINDOW as u32;
    let controller = Controller::new(drive, ram.clone(), base, ends, notices, &hook).unwrap();
    let write = |at: u64, value: u32| controller.write_memory(at, &value.to_le_bytes());
    // A controller that is ready, with an I/O queue: the first two commands.
    controller.write_memory(0x28, &BASE.to_le_bytes());
    controller.write_memory(0x30, &(BASE + PAGE).to_le_bytes());
    write(0x24, 15 << 16 | 15);
    write(0x14, 6 << 16 | 4 << 20 | 1);
    for (place, opcode, queue, flags) in [(0u64, 5u32, 3, 3), (1, 1, 2, 1 << 16 | 1)] {
        let mut dwords = [0u32; 16];
        (dwords[0], dwords[6]) = (opcode, (BASE + queue * PAGE) as u32);
        (dwords[10], dwords[11]) = (15 << 16 | 1, flags);
        ram.write_obj(dwords, GuestAddress(BASE + place * COMMAND as u64)).unwrap();
    }
    write(0x1000, 2);
    let half = COMMANDS / 2 * COMMAND;
    ram.write_slice(&commands[..half], GuestAddress(BASE + 2 * COMMAND as u64)).unwrap();
    ram.write_slice(&commands[half..], GuestAddress(BASE + 2 * PAGE)).unwrap();
    write(0x1008, COMMANDS as u32 / 2);
    write(0x1000, 2 + COMMANDS as u32 / 2);
    for access in accesses.chunks_exact(ACCESS) {
        let offset = u64::from(u16::from_le_bytes([access[1], access[2]]));
        let value: [u8; 4] = access[3..7].try_into().unwrap();
        match access[0] & 7 {
            0 => controller.write_config(usize::from(access[1] & 0xfc), &value),
            1 => controller.read_config(usize::from(access[1]), &mut [0; 4]),
            2 => controller.read_memory(offset & 0x7fff, &mut [0; 8]),
            3 => write(0x1000 + (offset & 0x1f), value[0].into()),
            4 => ram.write_slice(&value, GuestAddress(BASE + offset % ROOM as u64)).unwrap(),
            5 | 6 => {
                controller.pause().unwrap();
                controller.resume();
            }
            _ => write(offset & 0x7fff, u32::from_le_bytes(value)),
        }
    }
    controller.save().unwrap();
    assert!(controller.reset());
    assert!(controller.shutdown(Instant::now() + Duration::from_secs(30)));
}

/// Reads, writes and what a driver asks at first.
pub fn seeds() -> Vec<Vec<u8>> {
    let command = |opcode: u32, namespace: u32, more: [u32; 3]| {
        let mut dwords = [0u32; 16];
        (dwords[0], dwords[1], dwords[6]) = (opcode, namespace, BUFFERS as u32);
        dwords[10..13].copy_from_slice(&more);
        dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect::<Vec<u8>>()
    };
    let commands = [
        command(6, 0, [1, 0, 0]),
        command(9, 0, [7, 0, 0]),
        command(2, !0, [0x7f_0002, 0, 0]),
        command(0xc, 0, [0, 0, 0]),
        command(1, 1, [3, 0, 7]),
        command(2, 1, [3, 0, 7]),
        command(9, 1, [0, 4, 0]),
        command(0, 1, [0, 0, 0]),
    ];
    let accesses: [[u8; ACCESS]; 4] = [
        [3, 12, 0, 4, 0, 0, 0, 0],
        [2, 0x1c, 0, 0, 0, 0, 0, 0],
        [5, 0, 0, 0, 0, 0, 0, 0],
        [7, 0x14, 0, 0, 0, 0, 0, 0],
    ];
    let seed = [commands.concat(), accesses.concat()].concat();
    vec![seed[..COMMANDS * COMMAND].to_vec(), seed]
}
