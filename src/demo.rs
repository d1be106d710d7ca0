//! The built-in image `demo`: a freestanding guest that `build.rs` compiles from `images/demo`, and
//! the root volume that it reads.

/// The guest: a static ELF whose segments begin on pages, entered by the Linux 64-bit boot
/// protocol.
pub static KERNEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo.elf"));

/// Bytes of the root volume. The guest keeps its identity in the last 512 of them.
pub const ROOT_SIZE: usize = 1 << 20;

const README: &str = "This is the root volume of Spore's built-in image `demo`.\n\
    Every instance reads it whole and prints its digest, all but the last sector, where each keeps\n\
    its own identity. The rest is noise, the same for everybody.\n";

/// The content of the root volume: a text, noise, and an empty last sector. The same on every call.
pub fn root() -> Vec<u8> {
    let mut root = vec![0; ROOT_SIZE];
    let (content, _identity) = root.split_at_mut(ROOT_SIZE - 512);
    let mut state = 0x5350_4f52_4544_454d_u64;
    for word in content.chunks_exact_mut(8) {
        // xorshift64 (Marsaglia 2003): incompressible, so that no layer can leave any of it out.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    content[..4096].fill(0);
    content[..README.len()].copy_from_slice(README.as_bytes());
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_can_be_mapped_page_by_page() {
        let number = |at: usize, len: usize| {
            KERNEL[at..at + len].iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b))
        };
        assert_eq!(&KERNEL[..4], b"\x7fELF");
        assert_eq!(number(0x10, 2), 2, "ET_EXEC");
        assert_eq!(number(0x18, 8), 0x10_0000, "entry at 1 MiB");
        let (table, count) = (number(0x20, 8) as usize, number(0x38, 2) as usize);
        let headers = (0..count).map(|n| table + 56 * n).filter(|&at| number(at, 4) == 1);
        assert!(headers.clone().count() >= 2);
        for at in headers {
            let (offset, address) = (number(at + 8, 8), number(at + 24, 8));
            assert_eq!((offset % 4096, address % 4096), (0, 0));
        }
    }

    #[test]
    fn the_root_is_the_same_every_time_and_its_last_sector_is_free() {
        let root = root();
        assert_eq!(root, super::root());
        assert_eq!(root.len(), ROOT_SIZE);
        assert!(root.starts_with(b"This is the root volume"));
        assert!(root[ROOT_SIZE - 512..].iter().all(|&byte| byte == 0));
        assert!(root[ROOT_SIZE - 1024..ROOT_SIZE - 512].iter().any(|&byte| byte != 0));
    }
}
