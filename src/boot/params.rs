//! Linux's boot_params, the "zero page".
//! (Documentation/arch/x86/boot.rst and zero-page.rst; struct boot_params in arch/x86/include/uapi/asm/bootparam.h)

use super::Mode;
use crate::mem::layout::{
    ACPI, CMDLINE, HIGH_RAM, KVM_IDENTITY_MAP, LOW_RAM_END, MMIO_HOLE, PAGE, RAM_ABOVE_4G,
};
use std::ops::Range;

/// What a zero page begins its setup_header at, in the page and in a bzImage.
pub const SETUP_HEADER: usize = 0x1f1;
/// Room for the setup_header in the page (edd_mbr_sig_buffer follows).
pub const SETUP_HEADER_END: usize = 0x290;

const ACPI_RSDP_ADDR: usize = 0x70;
const E820_ENTRIES: usize = 0x1e8;
const ROOT_FLAGS: usize = 0x1f2;
const BOOT_FLAG: usize = 0x1fe;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const INITRD_ADDR_MAX: usize = 0x22c;
const KERNEL_ALIGNMENT: usize = 0x230;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const E820_TABLE: usize = 0x2d0;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// End of the EBDA, where the VGA window begins.
const EBDA_END: u64 = 0xa_0000;

/// The zero page, to be written at [`crate::mem::layout::ZERO_PAGE`].
pub struct BootParams(Box<[u8; PAGE as usize]>);

impl BootParams {
    /// For a machine with `memory` bytes of RAM. `setup_header` is what a bzImage holds from
    /// [`SETUP_HEADER`] on; without one (an ELF vmlinux has none) it is made up as a stock bzImage's.
    pub fn new(memory: u64, mode: Mode, setup_header: Option<&[u8]>) -> Self {
        let mut page = Self(Box::new([0; PAGE as usize]));
        match setup_header {
            Some(header) => {
                let len = header.len().min(SETUP_HEADER_END - SETUP_HEADER);
                page.put(SETUP_HEADER, &header[..len]);
            }
            None => page.default_header(mode),
        }
        page.put(TYPE_OF_LOADER, &[0xff]); // "undefined": no loader type is assigned to us
        page.put(CMD_LINE_PTR, &(CMDLINE as u32).to_le_bytes());
        page.put(ACPI_RSDP_ADDR, &ACPI.to_le_bytes());
        let map = e820(memory);
        page.put(E820_ENTRIES, &[map.len() as u8]);
        for (n, (range, kind)) in map.iter().enumerate() {
            let at = E820_TABLE + n * 20;
            page.put(at, &range.start.to_le_bytes());
            page.put(at + 8, &(range.end - range.start).to_le_bytes());
            page.put(at + 16, &kind.to_le_bytes());
        }
        page
    }

    fn default_header(&mut self, mode: Mode) {
        const ROOT_RDONLY: u16 = 1; // as every bzImage: the root is mounted read-only unless `rw` is given
        const LOADED_HIGH: u8 = 1;
        const XLF_KERNEL_64: u16 = 1;
        self.put(ROOT_FLAGS, &ROOT_RDONLY.to_le_bytes());
        self.put(BOOT_FLAG, &0xaa55u16.to_le_bytes());
        self.put(HEADER, b"HdrS");
        self.put(VERSION, &0x20cu16.to_le_bytes());
        self.put(LOADFLAGS, &[LOADED_HIGH]);
        // A 32-bit kernel maps less than 1 GiB of RAM for itself.
        let (initrd_max, xloadflags): (u32, u16) = match mode {
            Mode::Long => (0x7fff_ffff, XLF_KERNEL_64),
            Mode::Protected => (0x37ff_ffff, 0),
        };
        self.put(INITRD_ADDR_MAX, &initrd_max.to_le_bytes());
        self.put(KERNEL_ALIGNMENT, &0x20_0000u32.to_le_bytes());
        self.put(XLOADFLAGS, &xloadflags.to_le_bytes());
        self.put(CMDLINE_SIZE, &(super::cmdline::MAX as u32).to_le_bytes());
    }

    /// Where the initial ramdisk lies.
    pub fn set_ramdisk(&mut self, range: Range<u64>) {
        self.put(RAMDISK_IMAGE, &(range.start as u32).to_le_bytes());
        self.put(RAMDISK_SIZE, &((range.end - range.start) as u32).to_le_bytes());
    }

    /// The last address that the initial ramdisk may take.
    pub fn initrd_addr_max(&self) -> u64 {
        super::source::u32_at(&self.0[..], INITRD_ADDR_MAX).unwrap_or(0).into()
    }

    /// The page.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0[..]
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// The memory map. (ACPI 6.5 section 15, address range types)
fn e820(memory: u64) -> Vec<(Range<u64>, u32)> {
    let mut map = vec![
        (0..LOW_RAM_END, E820_RAM),
        (LOW_RAM_END..EBDA_END, E820_RESERVED),
        (ACPI..HIGH_RAM, E820_RESERVED),
        (HIGH_RAM..memory.min(MMIO_HOLE), E820_RAM),
        (KVM_IDENTITY_MAP..KVM_IDENTITY_MAP + 4 * PAGE, E820_RESERVED),
    ];
    if memory > MMIO_HOLE {
        map.push((RAM_ABOVE_4G..RAM_ABOVE_4G + (memory - MMIO_HOLE), E820_RAM));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::super::source::{u32_at, u64_at};
    use super::*;
    use crate::mem::ram;

    #[test]
    fn the_map_is_sorted_free_of_overlap_and_usable_only_where_ram_is() {
        for memory in [16 << 20, MMIO_HOLE, 5 << 30] {
            let map = e820(memory);
            assert!(map.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start));
            for (range, _) in map.iter().filter(|(_, kind)| *kind == E820_RAM) {
                let inside =
                    |(start, len): (u64, u64)| start <= range.start && range.end <= start + len;
                assert!(ram::ranges(memory).any(inside), "{range:#x?}");
            }
            let usable: u64 = map
                .iter()
                .filter(|(_, kind)| *kind == E820_RAM)
                .map(|(range, _)| range.end - range.start)
                .sum();
            assert_eq!(usable, memory - (HIGH_RAM - LOW_RAM_END));
        }
    }

    #[test]
    fn an_elf_kernel_gets_a_header_and_a_bzimage_keeps_its_own() {
        let page = BootParams::new(16 << 20, Mode::Long, None);
        assert_eq!(&page.as_bytes()[HEADER..HEADER + 4], b"HdrS");
        assert_eq!(u64_at(page.as_bytes(), ACPI_RSDP_ADDR), Some(ACPI));
        let mut header = vec![0x5a; 0x7b];
        header[INITRD_ADDR_MAX - SETUP_HEADER..][..4].copy_from_slice(&[0xff, 0xff, 0xff, 0x37]);
        let mut page = BootParams::new(16 << 20, Mode::Long, Some(&header));
        page.set_ramdisk(0x10_0000..0x10_1234);
        assert_eq!(page.initrd_addr_max(), 0x37ff_ffff);
        assert_eq!(page.as_bytes()[HEADER], 0x5a);
        assert_eq!(u32_at(page.as_bytes(), RAMDISK_SIZE), Some(0x1234));
        assert_eq!(page.as_bytes()[TYPE_OF_LOADER], 0xff);
    }

    #[test]
    fn an_overlong_header_does_not_spill() {
        let page = BootParams::new(16 << 20, Mode::Long, Some(&[0x5a; 4096]));
        assert_eq!(page.as_bytes()[SETUP_HEADER_END], 0);
    }
}
