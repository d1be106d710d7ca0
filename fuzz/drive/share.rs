//! A share: the guest's chains and requests at its device, and what a server answers there; and
//! requests at a server. The input's first byte says which.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sporevm::share::wire::Request;
use sporevm::share::{Server, open_directory};
use sporevm::virtio::Notices;
use sporevm::virtio::device::Outcome;
use sporevm::virtio::fs::Fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use vm_memory::{Bytes, GuestAddress};

/// Where the rings of each queue and its tables are.
const BASE: u64 = 0x30_0000;
/// Bytes between queues.
const STRIDE: u64 = 0x1000;
/// Descriptors, and bytes of memory that the input fills.
const SIZE: u16 = 16;
const ROOM: usize = 2 * STRIDE as usize;

/// Which, then an input of that.
pub fn drive(data: &[u8]) {
    match super::number(data) {
        (which, rest) if which % 2 == 0 => device(rest),
        (_, rest) => server(rest),
    }
}

/// The length of what the server answers (1 byte), that, then memory.
fn device(data: &[u8]) {
    let (len, rest) = super::number(data);
    let (said, memory) = rest.split_at(usize::from(len).min(rest.len()));
    let ram = super::shared_ram();
    ram.write_slice(&vec![0; ROOM], GuestAddress(BASE)).unwrap();
    ram.write_slice(&memory[..memory.len().min(ROOM)], GuestAddress(BASE)).unwrap();
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let notices = Notices::new(Arc::new(|_: &str| ()));
    let (_device, mut services) = Fs::create("share0", ours, notices);
    let handler = &mut services[0].handler;
    handler.start(0, Default::default());
    let mut queues = super::queues(&ram, (BASE, STRIDE), SIZE);
    let mut taken: Vec<(u16, u16, u32)> = Vec::new();
    for (number, queue) in (0u16..2).zip(&mut queues) {
        for _ in 0..4 {
            let Ok(Some(chain)) = queue.pop() else { break };
            let (head, writable) = (chain.head(), chain.writable_len());
            match handler.handle(number, chain) {
                Outcome::Done(len) => assert!(len <= writable, "{len} of {writable} bytes written"),
                Outcome::Deferred => taken.push((number, head, writable)),
                Outcome::NotNow | Outcome::Stop(_) => break,
                Outcome::Kept => panic!("nothing is kept"),
            }
        }
    }
    if !said.is_empty() {
        let _ = rustix::io::write(&theirs, said);
    }
    let mut given_back = |queue: u16, head: u16, len: u32| {
        let at = taken.iter().position(|(q, h, room)| (*q, *h) == (queue, head) && len <= *room);
        taken.swap_remove(at.expect("a chain that was taken, and no more than it has room for"));
    };
    handler.completions(&mut given_back);
    // All others come back when the server is gone.
    drop(theirs);
    handler.completions(&mut given_back);
    assert_eq!((taken.len(), handler.in_flight()), (0, 0));
}

/// A directory that one server after the other has, with a secret beside it.
fn directory() -> &'static PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("spore-fuzz-share-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("shared")).unwrap();
        std::fs::write(dir.join("secret"), "secret").unwrap();
        dir
    })
}

/// Requests: operation, node and bytes of the body (1 byte each), the body.
fn server(mut data: &[u8]) {
    let dir = directory();
    let shared = dir.join("shared");
    let _ = std::fs::remove_dir_all(&shared);
    std::fs::create_dir_all(shared.join("dir")).unwrap();
    std::fs::write(shared.join("file"), "content").unwrap();
    std::os::unix::fs::symlink("../secret", shared.join("link")).unwrap();
    let mut server = Server::new(open_directory(&shared).unwrap(), false);
    for number in 1..20 {
        let [opcode, node, len, rest @ ..] = data else { break };
        let (body, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        data = rest;
        let (opcode, node) = (u32::from(*opcode), u64::from(*node));
        let request = Request { number, node, opcode, room: 4096, body };
        if let Some(answer) = server.serve(&request) {
            assert!(answer.payload.len() <= 4096 && answer.number == number);
            assert!((0..4096).contains(&answer.errno));
        }
    }
    assert_eq!(std::fs::read(dir.join("secret")).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 2, "something was made beside it");
}

/// Lookups, a file that is made, opened and moved; and a request that a device passes on.
pub fn seeds() -> Vec<Vec<u8>> {
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let requests = |list: &[(u8, u8, Vec<u8>)]| {
        let mut input = vec![1];
        for (opcode, node, body) in list {
            input.extend([*opcode, *node, body.len() as u8]);
            input.extend(body);
        }
        input
    };
    let named = |head: &[u32], name: &str| [words(head), name.as_bytes().to_vec(), vec![0]].concat();
    let desc = |addr: u64, len: u32, flags: u16, next: u16| {
        [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    let mut memory = vec![0; ROOM];
    let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
    let queue = STRIDE as usize;
    put(queue, &desc(BASE + STRIDE + 0x400, 45, 1, 1));
    put(queue + 16, &desc(BASE + STRIDE + 0x600, 144, 2, 0));
    put(queue + 32, &desc(BASE + STRIDE + 0x500, 80, 1, 3));
    put(queue + 48, &desc(BASE + STRIDE + 0x700, 32, 2, 0));
    put(queue + 0x100, &[0, 0, 2, 0, 0, 0, 2, 0]);
    put(queue + 0x400, &[words(&[45, 1, 7, 0, 1, 0, 0, 0, 0, 0]), b"file\0".to_vec()].concat());
    put(queue + 0x500, &words(&[80, 15, 8, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0]));
    let answer = words(&[1, 0, 0, 0, 0, 0, 5, 0]);
    vec![
        requests(&[
            (26, 0, words(&[7, 31, 65536, u32::MAX])),
            (1, 1, named(&[], "file")),
            (1, 1, named(&[], "dir")),
            (1, 1, named(&[], "link")),
            (5, 4, vec![]),
            (14, 2, words(&[2, 0])),
            (4, 2, [words(&[9, 0, 1, 0, 3, 0]), vec![0; 64]].concat()),
            (35, 3, named(&[0o2, 0o644, 0, 0], "new")),
            (45, 3, [words(&[1, 0, 0, 0]), b"new\0moved\0".to_vec()].concat()),
            (27, 1, vec![0; 8]),
            (44, 1, words(&[3, 0, 0, 0, 4096, 0, 0, 0, 0, 0])),
            (10, 1, named(&[], "moved")),
            (2, 2, words(&[1, 0])),
        ]),
        [&[0, answer.len() as u8][..], &answer, &memory].concat(),
    ]
}
