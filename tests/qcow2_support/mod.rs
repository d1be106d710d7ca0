//! qemu-img, sources and kinds of bases.
#![allow(dead_code)] // each test binary that shares this uses its part

use crate::skip;
use std::path::Path;
use std::process::Command;

/// Whether qemu-img is there; says so if not. In CI its absence is an error.
pub fn have_qemu_img() -> bool {
    let there = Command::new("qemu-img").arg("--version").output().is_ok();
    if !there {
        skip::skip("qemu-img is missing: install qemu-utils");
    }
    there
}

/// Run qemu-img and insist on success.
pub fn qemu_img(args: &[&str]) -> String {
    let output = Command::new("qemu-img").args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {args:?}: {text}{error}");
    text
}

/// A small fast generator (xorshift64*), so that a failure names its seed and no more.
pub struct Rng(pub u64);

impl Rng {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % n
    }
}

/// `source.raw` in `dir`: runs of random bytes, of text that compresses, and of holes.
pub fn source(dir: &Path, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut rng = Rng(0x5907e);
    let mut at = 0;
    while at < size {
        let len = (4096 * (1 + rng.below(64)) as usize).min(size - at);
        match rng.below(4) {
            0 => bytes[at..at + len].fill_with(|| rng.below(256) as u8),
            1 => bytes[at..at + len].fill_with(|| b'a' + rng.below(3) as u8),
            _ => {}
        }
        at += len;
    }
    std::fs::write(dir.join("source.raw"), &bytes).unwrap();
    bytes
}

/// A way to make a base.
pub struct Kind {
    pub name: &'static str,
    pub format: &'static str,
    pub options: &'static [&'static str],
}

/// What qemu-img can make of raw and qcow2.
pub fn base_kinds() -> Vec<Kind> {
    let qcow2 = |name, options| Kind { name, format: "qcow2", options };
    vec![
        Kind { name: "raw", format: "raw", options: &[] },
        qcow2("512", &["-o", "cluster_size=512"]),
        qcow2("4k", &["-o", "cluster_size=4k"]),
        qcow2("64k", &["-o", "cluster_size=64k"]),
        qcow2("2m", &["-o", "cluster_size=2M"]),
        qcow2("deflate", &["-c"]),
        qcow2("deflate-2m", &["-c", "-o", "cluster_size=2M"]),
        qcow2("deflate-512", &["-c", "-o", "cluster_size=512"]),
        qcow2("zstd", &["-c", "-o", "compression_type=zstd"]),
        qcow2("extended-l2", &["-o", "extended_l2=on,cluster_size=128k"]),
        qcow2("extended-l2-c", &["-c", "-o", "extended_l2=on,cluster_size=64k"]),
        qcow2("lazy", &["-o", "lazy_refcounts=on,compat=1.1"]),
        qcow2("v2", &["-o", "compat=0.10"]),
        qcow2("v2-deflate", &["-c", "-o", "compat=0.10,cluster_size=8k"]),
        qcow2("refcount-1", &["-o", "refcount_bits=1"]),
        qcow2("preallocated", &["-o", "preallocation=metadata"]),
    ]
}

use sporevm::block::{Disk, DiskFormat, Engine, Op, Queue, open_aside, overlay};
use sporevm::sys::iobuf::IoBuf;
use std::fs::{File, OpenOptions};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Largest request of these tests.
pub const MAX_LEN: u64 = 1 << 20;

/// A queue with guest memory to transfer through.
pub struct Driver {
    queue: Box<dyn Queue>,
    ram: Arc<GuestMemoryMmap>,
}

impl Driver {
    /// A queue of `disk`.
    pub fn new(disk: &dyn Disk, engine: Engine) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MAX_LEN as usize)]).unwrap();
        Self { queue: disk.queue(engine).unwrap(), ram: Arc::new(ram) }
    }

    /// Do one operation and wait for it.
    pub fn run(&mut self, op: Op) -> std::io::Result<()> {
        self.queue.submit(7, op);
        self.queue.submit_batch().unwrap();
        let mut answer = None;
        while answer.is_none() {
            self.queue.completions(&mut |token, result| {
                assert_eq!(token, 7);
                answer = Some(result);
            });
            if let (None, Some(fd)) = (&answer, self.queue.completion_fd()) {
                let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
                let patience = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
                let ready = rustix::event::poll(&mut fds, Some(&patience)).unwrap();
                assert_eq!(ready, 1, "a completion must make the queue's descriptor readable");
            }
        }
        answer.unwrap()
    }

    /// Guest memory cut in odd pieces, as drivers do.
    fn buf(&self, len: usize) -> IoBuf {
        let cut = (len / 3) & !511;
        let pieces =
            [(GuestAddress(0), cut as u32), (GuestAddress(cut as u64), (len - cut) as u32)];
        IoBuf::guest(&self.ram, &pieces).unwrap()
    }

    /// Read through the queue.
    pub fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        self.ram.write_slice(&vec![0xa5; len], GuestAddress(0)).unwrap();
        self.run(Op::Read { offset, buf: self.buf(len) }).unwrap();
        let mut bytes = vec![0; len];
        self.ram.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    }

    /// Write through the queue.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(0)).unwrap();
        self.run(Op::Write { offset, buf: self.buf(bytes.len()) }).unwrap();
    }

    /// Do something random to `model` and to the disk alike.
    pub fn step(&mut self, rng: &mut Rng, model: &mut [u8]) {
        let sectors = model.len() as u64 / 512;
        let most = [8, 64, 400, 2048][rng.below(4) as usize];
        let offset = rng.below(sectors) * 512;
        let len = ((1 + rng.below(most)) * 512).min(model.len() as u64 - offset);
        let range = offset as usize..(offset + len) as usize;
        match rng.below(10) {
            0..4 => {
                let fill = rng.below(255) as u8 + 1;
                let bytes: Vec<u8> = (0..len).map(|n| fill.wrapping_add((n / 512) as u8)).collect();
                self.write(offset, &bytes);
                model[range].copy_from_slice(&bytes);
            }
            4..7 => assert!(self.read(offset, len as usize) == model[range], "read {offset}+{len}"),
            7 => self.run(Op::Flush).unwrap(),
            8 => {
                self.run(Op::Discard { offset, len }).unwrap();
                let after = self.read(offset, len as usize);
                let kept = after.iter().zip(&model[range.clone()]).all(|(a, b)| *a == 0 || a == b);
                assert!(kept, "a discard of {offset}+{len} shows foreign bytes");
                model[range].copy_from_slice(&after);
            }
            _ => {
                let unmap = rng.below(2) == 1;
                self.run(Op::WriteZeroes { offset, len, unmap }).unwrap();
                model[range].fill(0);
            }
        }
    }
}

/// An overlay of `size` bytes in `dir`, over the named base there.
pub fn new_overlay(dir: &Path, name: &str, size: u64, base: &str, format: DiskFormat) {
    let file = File::create_new(dir.join(name)).unwrap();
    let backing = overlay::Backing { name: base, format };
    overlay::create(&file, size, Some(backing)).unwrap();
}

/// The overlay, writable, over its base.
pub fn open_overlay(dir: &Path, name: &str, base: &str, format: DiskFormat) -> Arc<dyn Disk> {
    let top = OpenOptions::new().read(true).write(true).open(dir.join(name)).unwrap();
    let base = File::open(dir.join(base)).unwrap();
    let layers = vec![(top, DiskFormat::Qcow2), (base, format)];
    open_aside(layers, false, Box::new(|| Ok(()))).unwrap()
}

/// qemu-img finds nothing wrong and the same bytes as `model`.
pub fn judge(dir: &Path, name: &str, model: &[u8]) {
    let path = dir.join(name);
    let (path, raw) = (path.to_str().unwrap(), dir.join("expected.raw"));
    std::fs::write(&raw, model).unwrap();
    qemu_img(&["check", "-f", "qcow2", path]);
    qemu_img(&["compare", "-f", "qcow2", "-F", "raw", path, raw.to_str().unwrap()]);
}
