//! A bundle's archive: tar with one member that is a disk, sparse in GNU's way.

use sporevm::transfer::bundle::examine;
use std::os::unix::fs::MetadataExt;

/// Bytes of the disk.
const SIZE: u64 = 1 << 20;

/// Read the disk; it never becomes larger than it is.
pub fn drive(data: &[u8]) {
    let out = super::file(&[]);
    let _ = examine::archive(&mut &data[..], SIZE, out.try_clone().unwrap());
    assert!(out.metadata().unwrap().size() <= SIZE);
}

/// A whole disk, and a sparse one.
pub fn seeds() -> Vec<Vec<u8>> {
    let header = |kind: u8, stored: u64, sparse: &[(u64, u64)]| {
        let mut block = vec![0u8; 512];
        let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, "disk");
        put(100, "0000644");
        put(124, &format!("{stored:011o}"));
        put(257, "ustar  ");
        for (n, (offset, len)) in sparse.iter().enumerate() {
            put(386 + 24 * n, &format!("{offset:011o}"));
            put(398 + 24 * n, &format!("{len:011o}"));
        }
        if !sparse.is_empty() {
            put(483, &format!("{SIZE:011o}"));
        }
        block[156] = kind;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    };
    let sparse = [&header(b'S', 1024, &[(4096, 512), (65536, 512), (SIZE, 0)])[..], &[9; 1024], &[0; 1024]].concat();
    let whole = [&header(b'0', SIZE, &[])[..], &[3; 4096]].concat();
    vec![sparse, whole]
}
