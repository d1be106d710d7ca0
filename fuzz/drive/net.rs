//! A network interface's chains, headers and packets: the input is the guest's memory, the driver's
//! features and what comes from the network.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sporevm::virtio::Notices;
use sporevm::virtio::device::Outcome;
use sporevm::virtio::net::{Net, NetConfig, Port};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

/// Where the rings of each queue and its tables are.
const BASE: u64 = 0x30_0000;
/// Bytes between queues.
const STRIDE: u64 = 0x1000;
/// Descriptors, and bytes of memory that the input fills.
const SIZE: u16 = 16;
const ROOM: usize = 3 * STRIDE as usize;
/// Bytes of a header.
const HEADER: usize = 12;

struct Socket(OwnedFd);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Port for Socket {
    fn set_offloads(&self, _: u32) -> io::Result<()> {
        Ok(())
    }
    fn set_attached(&self, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the host's kernel may get this header: what it leaves to the kernel lies within the
/// frame.
fn check(packet: &[u8]) {
    let (header, frame) = packet.split_at(HEADER);
    let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    assert!(frame.len() >= 14 && header[0] <= 1 && header[10..] == [0, 0]);
    if header[0] == 1 {
        assert!(word(6) >= 14 && word(6) + word(8) + 2 <= frame.len(), "{header:?}");
    }
    if header[1] != 0 {
        assert!(header[0] == 1 && word(2) <= frame.len() && word(4) > 0, "{header:?}");
    }
}

/// Features (8 bytes), the length of what comes from the network (2), that, then memory.
pub fn drive(data: &[u8]) {
    let Some((head, rest)) = data.split_at_checked(10) else { return };
    let (features, len) = head.split_at(8);
    let features = u64::from_le_bytes(features.try_into().unwrap());
    let len = usize::from(u16::from_le_bytes(len.try_into().unwrap())).min(rest.len());
    let (incoming, memory) = rest.split_at(len);
    let ram = super::shared_ram();
    ram.write_slice(&vec![0; ROOM], GuestAddress(BASE)).unwrap();
    ram.write_slice(&memory[..memory.len().min(ROOM)], GuestAddress(BASE)).unwrap();
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (port, wire) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    for packet in incoming.chunks(100).filter(|_| incoming.len() < 1000).chain([incoming]) {
        if !packet.is_empty() {
            rustix::io::write(&wire, packet).unwrap();
        }
    }
    let mac = "02:00:00:00:00:01".parse().unwrap();
    let config = NetConfig { name: "eth0", mac, mtu: 1500, limits: Default::default() };
    let notices = Notices::new(Arc::new(|_: &str| {}));
    let (_net, mut services) = Net::create(vec![Box::new(Socket(port))], &config, notices).unwrap();
    let handler = &mut services[0].handler;
    handler.start(features, Default::default());
    let mut queues = super::queues(&ram, (BASE, STRIDE), SIZE);
    let mut kept = Vec::new();
    for (number, queue) in (0u16..).zip(&mut queues) {
        for _ in 0..SIZE {
            let Ok(Some(chain)) = queue.pop() else { break };
            let (head, writable) = (chain.head(), chain.writable_len());
            match handler.handle(number, chain) {
                Outcome::Done(len) => {
                    assert!(len <= writable, "{len} of {writable} bytes written");
                    let _ = queue.push_used(head, len);
                }
                Outcome::Kept => {
                    assert_eq!(number, 0, "only receive buffers are kept");
                    kept.push((head, writable));
                }
                Outcome::NotNow => break,
                Outcome::Deferred => panic!("nothing is deferred"),
                Outcome::Stop(why) => {
                    assert!(!why.is_empty());
                    break;
                }
            }
        }
        handler.completions(&mut |number, head, len| {
            let (first, writable) = kept.remove(0);
            assert_eq!((number, head), (0, first), "in order");
            assert!(len <= writable);
        });
    }
    assert_eq!(handler.in_flight(), 0);
    let mut packet = vec![0; 128 << 10];
    while let Ok(len @ 1..) = rustix::io::read(&wire, &mut packet) {
        check(&packet[..len]);
    }
}

/// A packet each way, a large one into three buffers, and one to be cut.
pub fn seeds() -> Vec<Vec<u8>> {
    let desc = |addr: u64, len: u32, flags: u16, next: u16| {
        [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    let input = |incoming: &[u8], header: [u8; HEADER], frame: u32, buffer: u32| {
        let mut memory = vec![0; ROOM];
        let mut put = |queue: u64, at: usize, bytes: &[u8]| {
            let at = queue as usize * STRIDE as usize + at;
            memory[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let buffers = |n: u64| desc(BASE + 0x10_0000 + n * 0x1000, buffer, 2, 0);
        put(0, 0, &[buffers(0), buffers(1), buffers(2)].concat());
        put(0, 0x100, &[0, 0, 3, 0, 0, 0, 1, 0, 2, 0]);
        let sent = BASE + STRIDE + 0x400;
        put(1, 0, &[desc(sent, 12, 1, 1), desc(sent + 12, frame, 0, 0)].concat());
        put(1, 0x100, &[0, 0, 1, 0, 0, 0]);
        put(1, 0x400, &header);
        put(2, 0, &[desc(sent, 2, 1, 1), desc(sent + 0x200, 1, 2, 0)].concat());
        put(2, 0x100, &[0, 0, 1, 0, 0, 0]);
        let len = incoming.len() as u16;
        [&u64::MAX.to_le_bytes()[..], &len.to_le_bytes(), incoming, &memory].concat()
    };
    let sums = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    vec![
        input(&[0; 80], [0; HEADER], 60, 1526),
        input(&[7; 3000], sums, 60, 1526),
        input(&[0; 80], [1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0], 900, 200),
    ]
}
