//! qemu-img, sources and kinds of bases.

use std::path::Path;
use std::process::Command;

/// Whether qemu-img is there; says so if not. In CI its absence is an error.
pub fn have_qemu_img() -> bool {
    let there = Command::new("qemu-img").arg("--version").output().is_ok();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "qemu-img is missing: install qemu-utils");
        eprintln!("skipped: qemu-img is missing (install qemu-utils)");
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
