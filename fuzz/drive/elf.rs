//! An ELF kernel that is loaded into guest memory.

use sporevm::boot::elf::Elf;
use sporevm::boot::source::Source;

/// Parse and load it.
pub fn drive(data: &[u8]) {
    let Ok(elf) = Elf::parse(Source::Bytes(data)) else { return };
    let ram = super::shared_ram();
    if let Ok(range) = elf.load(Source::Bytes(data), &ram) {
        assert!(range.start <= range.end && range.end <= sporevm::mem::layout::MIN_MEMORY, "{range:#x?}");
        assert!(range.start >= 1 << 20, "{range:#x?}");
    }
}

/// An ELF for x86-64 with two segments at 1 MiB.
pub fn small() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [0x10_0000u64, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"\0\0\0\0\x40\0\x38\0\x02\0\0\0\0\0\0\0");
    for (offset, at, size, memory) in [(176u64, 0x10_0000u64, 16u64, 64u64), (192, 0x10_2000, 16, 4096)] {
        elf.extend(b"\x01\0\0\0\x07\0\0\0");
        for word in [offset, at, at, size, memory, 16] {
            elf.extend(word.to_le_bytes());
        }
    }
    elf.extend([0xf4; 32]);
    elf
}

/// For x86-64, and a header that says i386.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut i386 = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0".to_vec();
    for word in [0x10_0000u32, 52, 0, 0] {
        i386.extend(word.to_le_bytes());
    }
    i386.extend(b"\x34\0\x20\0\x01\0\0\0\0\0\0\0");
    for word in [1u32, 84, 0x10_0000, 0x10_0000, 16, 64, 7, 16] {
        i386.extend(word.to_le_bytes());
    }
    i386.extend([0xf4; 16]);
    vec![small(), i386]
}
