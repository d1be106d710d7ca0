//! Linux's boot_params, the "zero page", in linux-loader's translation of the kernel's own header.
//! (Documentation/arch/x86/boot.rst and zero-page.rst; struct boot_params in
//! arch/x86/include/uapi/asm/bootparam.h)

use super::Mode;
use crate::error::{OrFail, Result};
use crate::mem::GuestRam;
use crate::mem::layout::{
    ACPI, CMDLINE, HIGH_RAM, KVM_IDENTITY_MAP, LOW_RAM_END, MMIO_HOLE, PAGE, RAM_ABOVE_4G,
    ZERO_PAGE,
};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams as Written};
use linux_loader::loader::bootparam::{
    LOADED_HIGH, XLF_KERNEL_64, boot_e820_entry, boot_params, setup_header,
};
use std::mem::offset_of;
use std::ops::Range;
use vm_memory::{ByteValued, GuestAddress};

/// What a zero page begins its setup_header at, in the page and in a bzImage.
pub const SETUP_HEADER: usize = offset_of!(boot_params, hdr);
/// Room for the setup_header in the page, which newer kernels' may fill.
pub const SETUP_HEADER_END: usize = offset_of!(boot_params, edd_mbr_sig_buffer);

/// setup_header.boot_flag.
pub const BOOT_FLAG: u16 = 0xaa55;
/// setup_header.header.
pub const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// End of the EBDA, where the VGA window begins.
const EBDA_END: u64 = 0xa_0000;

/// The zero page, to be written at [`ZERO_PAGE`].
pub struct BootParams(boot_params);

impl BootParams {
    /// For a machine with `memory` bytes of RAM. `header` is what a bzImage holds from
    /// [`SETUP_HEADER`] on; without one (an ELF vmlinux has none) it is made up as a stock
    /// bzImage's.
    pub fn new(memory: u64, mode: Mode, header: Option<&[u8]>) -> Self {
        let mut page = boot_params::default();
        match header {
            Some(header) => {
                let room = &mut page.as_mut_slice()[SETUP_HEADER..SETUP_HEADER_END];
                let len = header.len().min(room.len());
                room[..len].copy_from_slice(&header[..len]);
            }
            None => page.hdr = default_header(mode),
        }
        page.hdr.type_of_loader = 0xff; // "undefined": no loader type is assigned to us
        page.hdr.cmd_line_ptr = CMDLINE as u32;
        page.acpi_rsdp_addr = ACPI;
        let map = e820(memory);
        page.e820_entries = map.len() as u8;
        for (n, (range, kind)) in map.into_iter().enumerate() {
            let (addr, size) = (range.start, range.end - range.start);
            page.e820_table[n] = boot_e820_entry { addr, size, r#type: kind };
        }
        Self(page)
    }

    /// Where the initial ramdisk lies.
    pub fn set_ramdisk(&mut self, range: Range<u64>) {
        self.0.hdr.ramdisk_image = range.start as u32;
        self.0.hdr.ramdisk_size = (range.end - range.start) as u32;
    }

    /// The last address that the initial ramdisk may take.
    pub fn initrd_addr_max(&self) -> u64 {
        self.0.hdr.initrd_addr_max.into()
    }

    /// The page.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Write it.
    ///
    /// # Errors
    /// RAM does not hold it (it does: the smallest guest has 16 MiB).
    pub fn write(&self, ram: &GuestRam) -> Result<()> {
        let written = Written::new(&self.0, GuestAddress(ZERO_PAGE));
        LinuxBootConfigurator::write_bootparams(&written, &**ram)
            .or_fail(|| "write the boot parameters")
    }
}

fn default_header(mode: Mode) -> setup_header {
    const ROOT_RDONLY: u16 = 1; // as every bzImage: the root is mounted read-only unless `rw` is given
    // A 32-bit kernel maps less than 1 GiB of RAM for itself.
    let (initrd_addr_max, xloadflags) = match mode {
        Mode::Long => (0x7fff_ffff, XLF_KERNEL_64),
        Mode::Protected => (0x37ff_ffff, 0),
    };
    setup_header {
        root_flags: ROOT_RDONLY,
        boot_flag: BOOT_FLAG,
        header: MAGIC,
        version: 0x20c,
        loadflags: LOADED_HIGH,
        initrd_addr_max,
        kernel_alignment: 0x20_0000,
        xloadflags,
        cmdline_size: super::cmdline::MAX as u32,
        ..Default::default()
    }
}

/// The memory map. (ACPI 6.5 section 15, address range types)
pub(super) fn e820(memory: u64) -> Vec<(Range<u64>, u32)> {
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
    use vm_memory::Bytes;

    const ACPI_RSDP_ADDR: usize = 0x70;
    const HEADER: usize = 0x202;
    const TYPE_OF_LOADER: usize = 0x210;
    const RAMDISK_SIZE: usize = 0x21c;
    const INITRD_ADDR_MAX: usize = 0x22c;

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

    /// A page written by the offsets of zero-page.rst and boot.rst.
    #[test]
    fn the_page_is_byte_for_byte_the_protocols() {
        let mut expected = [0; PAGE as usize];
        let mut put =
            |at: usize, bytes: &[u8]| expected[at..at + bytes.len()].copy_from_slice(bytes);
        put(ACPI_RSDP_ADDR, &ACPI.to_le_bytes());
        let map = e820(5 << 30);
        put(0x1e8, &[map.len() as u8]);
        for (n, (range, kind)) in map.iter().enumerate() {
            let entry = [range.start.to_le_bytes(), (range.end - range.start).to_le_bytes()];
            put(0x2d0 + n * 20, &entry.concat());
            put(0x2d0 + n * 20 + 16, &kind.to_le_bytes());
        }
        put(0x1f2, &[1, 0]);
        put(0x1fe, &[0x55, 0xaa]);
        put(HEADER, b"HdrS\x0c\x02");
        put(TYPE_OF_LOADER, &[0xff, 1]);
        put(RAMDISK_SIZE - 4, &0x1000_0000u32.to_le_bytes());
        put(RAMDISK_SIZE, &0x1234u32.to_le_bytes());
        put(0x228, &(CMDLINE as u32).to_le_bytes());
        put(INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
        put(0x230, &0x20_0000u32.to_le_bytes());
        put(0x236, &[1, 0]);
        put(0x238, &2047u32.to_le_bytes());
        let mut page = BootParams::new(5 << 30, Mode::Long, None);
        page.set_ramdisk(0x1000_0000..0x1000_1234);
        assert!(page.as_bytes() == expected);
        let ram = ram::create(16 << 20).unwrap();
        page.write(&ram).unwrap();
        let mut written = [0; PAGE as usize];
        ram.read_slice(&mut written, GuestAddress(ZERO_PAGE)).unwrap();
        assert!(written == expected);
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
