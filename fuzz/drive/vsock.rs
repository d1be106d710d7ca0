//! A socket device's chains and packets: the input is what a program of the host's says and the
//! guest's memory.

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
};
use sporevm::virtio::device::Outcome;
use sporevm::virtio::vsock::Vsock;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use vm_memory::{Bytes, GuestAddress};

/// Where the rings of each queue and its tables are.
const BASE: u64 = 0x30_0000;
/// Bytes between queues.
const STRIDE: u64 = 0x1000;
/// Descriptors, and bytes of memory that the input fills.
const SIZE: u16 = 16;
const ROOM: usize = 3 * STRIDE as usize;
/// Bytes of a header.
const HEADER: usize = 44;

/// A listening socket without a file, and one that has connected.
fn stream() -> (UnixListener, UnixStream) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("spore-fuzz-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let stream = UnixStream::connect_addr(&address).unwrap();
    stream.set_nonblocking(true).unwrap();
    (listener, stream)
}

/// The same of SOCK_SEQPACKET.
fn seqpacket() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let new = || socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let (listener, socket) = (new(), new());
    // The kernel names it. (unix(7), autobind)
    bind(&listener, &SocketAddrUnix::new_unnamed()).unwrap();
    listen(&listener, 1).unwrap();
    connect(&socket, &getsockname(&listener).unwrap()).unwrap();
    (listener, socket)
}

/// The length of what the host's program says (1 byte), that, then memory. A program that has come
/// for messages says each line as one.
pub fn drive(data: &[u8]) {
    let Some((len, rest)) = data.split_first() else { return };
    let (said, memory) = rest.split_at(usize::from(*len).min(rest.len()));
    let ram = super::shared_ram();
    ram.write_slice(&vec![0; ROOM], GuestAddress(BASE)).unwrap();
    ram.write_slice(&memory[..memory.len().min(ROOM)], GuestAddress(BASE)).unwrap();
    let ((listener, mut stream), (packets, socket)) = (stream(), seqpacket());
    stream.write_all(said).unwrap();
    for message in said.split_inclusive(|byte| *byte == b'\n') {
        rustix::io::write(&socket, message).unwrap();
    }
    let (device, mut services) = Vsock::create(listener.into(), packets).unwrap();
    let handler = &mut services[0].handler;
    // VIRTIO_VSOCK_F_SEQPACKET.
    handler.start(2, Default::default());
    let mut queues = super::queues(&ram, (BASE, STRIDE), SIZE);
    // A connection's packets are taken by turns.
    for _ in 0..4 {
        for (number, queue) in (0u16..).zip(&mut queues) {
            for _ in 0..4 {
                let Ok(Some(chain)) = queue.pop() else { break };
                let (head, writable) = (chain.head(), chain.writable_len());
                match handler.handle(number, chain) {
                    Outcome::Done(len) => {
                        assert!(len <= writable, "{len} of {writable} bytes written");
                        let _ = queue.push_used(head, len);
                    }
                    Outcome::NotNow => {
                        queue.put_back(head);
                        break;
                    }
                    Outcome::Kept | Outcome::Deferred => panic!("nothing is kept"),
                    Outcome::Stop(why) => return assert!(!why.is_empty()),
                }
            }
        }
        handler.submit_batch().unwrap();
    }
    assert_eq!(handler.in_flight(), 0);
    let mut heard = vec![0; 64 << 10];
    while let Ok(1..) = stream.read(&mut heard) {}
    while let Ok(1..) = rustix::io::read(&socket, &mut heard) {}
    for (name, value) in device.notified() {
        let printable = |text: &str| !text.contains(|c: char| c.is_control());
        assert!(printable(&name) && printable(&value) && value.len() <= 256);
    }
}

/// A header of the guest's.
fn packet(kind: u16, src: u32, dst: u32, len: u32, op: u16, flags: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(&3u64.to_le_bytes());
    bytes.extend_from_slice(&2u64.to_le_bytes());
    for word in [src, dst, len] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&op.to_le_bytes());
    for word in [flags, 4096, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// What the host's programs say, and the guest's packets with room for what comes.
fn input(said: &[u8], packets: &[(Vec<u8>, &[u8])]) -> Vec<u8> {
    let desc = |addr: u64, len: u32, flags: u16, next: u16| {
        [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    let mut memory = vec![0; ROOM];
    let mut put = |queue: u64, at: usize, bytes: &[u8]| {
        let at = queue as usize * STRIDE as usize + at;
        memory[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let (mut avail, mut buffers) = (vec![0, 0, 8, 0], Vec::new());
    for n in 0..8u16 {
        avail.extend_from_slice(&n.to_le_bytes());
        buffers.extend(desc(BASE + 0x10_0000 + u64::from(n) * 0x1000, 4096, 2, 0));
    }
    put(0, 0, &buffers);
    put(0, 0x100, &avail);
    put(2, 0, &desc(BASE + 0x20_0000, 4, 2, 0));
    put(2, 0x100, &[0, 0, 1, 0, 0, 0]);
    let (mut avail, mut chains) = (vec![0, 0, packets.len() as u8, 0], Vec::new());
    for (n, (header, data)) in (0u16..).zip(packets) {
        let at = 0x400 + 0x100 * usize::from(n);
        avail.extend_from_slice(&n.to_le_bytes());
        let bytes = [&header[..], data].concat();
        chains.extend(desc(BASE + STRIDE + at as u64, bytes.len() as u32, 0, 0));
        put(1, at, &bytes);
    }
    put(1, 0, &chains);
    put(1, 0x100, &avail);
    [&[said.len() as u8][..], said, &memory].concat()
}

/// A connection of the host's that is answered, has data and ends, and a message of the guest's.
pub fn seeds() -> Vec<Vec<u8>> {
    let (port, first) = (22, 1 << 30);
    let header = |src, dst, len, op, flags| packet(1, src, dst, len, op, flags);
    let message = |src, dst, len, op, flags| packet(2, src, dst, len, op, flags);
    vec![
        // The program that has come for streams is let in first.
        input(
            b"CONNECT 22\nhello\nworld",
            &[
                (message(port, first + 1, 0, 2, 0), b""),
                (message(port, first + 1, 5, 5, 0), b"hello"),
                (message(port, first + 1, 6, 5, 1), b" world"),
                (message(port, first + 1, 0, 4, 3), b""),
            ],
        ),
        input(b"LISTEN 80\n", &[(message(6, 80, 0, 1, 0), b""), (message(6, 80, 1, 5, 1), b"x")]),
        input(
            b"CONNECT 22\nhello",
            &[
                (header(port, first, 0, 2, 0), b""),
                (header(port, first, 5, 5, 0), b"world"),
                (header(port, first, 0, 7, 0), b""),
                (header(port, first, 0, 4, 3), b""),
            ],
        ),
        input(
            b"LISTEN 80\n",
            &[
                (header(5, 9999, 0, 1, 0), b""),
                (header(5, 9999, 7, 5, 0), b"READY=1"),
                (header(5, 9999, 0, 4, 3), b""),
                (header(6, 80, 0, 1, 0), b""),
            ],
        ),
    ]
}
