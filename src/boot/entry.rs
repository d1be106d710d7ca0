//! The state in which the first instruction finds the machine.
//! (Documentation/arch/x86/boot.rst in Linux, "64-bit Boot Protocol" and "32-bit Boot Protocol";
//! docs/misc/pvh.pandoc in Xen, whose state is the second's with ebx)

use crate::error::{OrFail, Result};
use crate::mem::GuestRam;
use crate::mem::layout::{BOOT_GDT, BOOT_PML4, PAGE};
use vm_memory::{Bytes, GuestAddress};

/// Code selector: 64-bit or 32-bit as the [`Mode`] is, base 0, execute/read, accessed (type 0xb).
pub const BOOT_CS: u16 = 0x10;
/// Data selector for ds, es, fs, gs and ss: base 0, limit 4 GiB, read/write, accessed (type 3).
pub const BOOT_DS: u16 = 0x18;
/// Task selector: 64-bit TSS, busy (type 0xb), base 0, limit 0xffff; VMX demands that one is
/// loaded.
pub const BOOT_TR: u16 = 0x20;

/// The GDT: null, unused, BOOT_CS, BOOT_DS, BOOT_TR (16 bytes). (Intel SDM vol. 3, 3.4.5 and 7.2.3)
const fn gdt(mode: Mode) -> [u64; 6] {
    let code = match mode {
        Mode::Long => 0x00af_9b00_0000_ffff,
        Mode::Protected => 0x00cf_9b00_0000_ffff,
    };
    [0, 0, code, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_ffff, 0]
}

/// The mode that a kernel is entered in: what it was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// 64-bit, with paging.
    Long,
    /// 32-bit, without.
    Protected,
}

/// How the boot processor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In a kernel.
    Kernel(EntryState),
    /// In firmware, as a CPU comes out of reset: real mode, 16 bytes below 4 GiB. (Intel SDM vol.
    /// 3, 11.1.4)
    Reset,
}

/// What the boot processor's registers are at its first instruction. All other general registers
/// are 0, rflags is 2 (interrupts off), the IDT is empty (base 0, limit 0). In 64-bit mode: cr0 =
/// PE | MP | ET | NE | WP | PG, cr4 = PAE, efer = LME | LMA (and SCE may be off); the first 4 GiB
/// are mapped one to one. In 32-bit mode: cr0 = PE | ET, no paging. The segments are those of
/// [`BOOT_CS`], [`BOOT_DS`] and [`BOOT_TR`].
///
/// Application processors start from reset (INIT, then SIPI) and take nothing from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// What it runs in.
    pub mode: Mode,
    /// First instruction, guest-physical (= virtual).
    pub rip: u64,
    /// Top of a small stack; Linux does not need it, freestanding guests do.
    pub rsp: u64,
    /// The boot_params ("zero page").
    pub rsi: u64,
    /// The start info of a kernel that is entered as a Xen guest.
    pub rbx: u64,
    /// The PML4.
    pub cr3: u64,
    /// GDTR base.
    pub gdt_base: u64,
    /// GDTR limit.
    pub gdt_limit: u16,
}

impl EntryState {
    /// Entry at `rip` with the boot_params at `rsi`. [`write_tables`] provides what the rest points
    /// to.
    pub fn new(mode: Mode, rip: u64, rsp: u64, rsi: u64) -> Self {
        let gdt_limit = (size_of_val(&gdt(mode)) - 1) as u16;
        Self { mode, rip, rsp, rsi, rbx: 0, cr3: BOOT_PML4, gdt_base: BOOT_GDT, gdt_limit }
    }
}

/// Write the GDT and the page tables: a PML4, a PDPT and four page directories that map the first
/// 4 GiB one to one with 2 MiB pages (1 GiB pages would be fewer, but not every host's CPU has
/// them).
///
/// # Errors
/// RAM does not hold them (it does: the smallest guest has 16 MiB).
pub fn write_tables(mode: Mode, ram: &GuestRam) -> Result<()> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    const DIRECTORIES: u64 = 4;
    let table = |n: u64| BOOT_PML4 + n * PAGE;
    // One at a time, of `len` entries from `first` on, `step` apart.
    let write = |n: u64, first: u64, step: u64, len: usize| {
        let mut page = [0; PAGE as usize];
        for (entry, value) in
            page.chunks_exact_mut(8).zip((first..).step_by(step as usize)).take(len)
        {
            entry.copy_from_slice(&value.to_le_bytes());
        }
        ram.write_slice(&page, GuestAddress(table(n))).or_fail(|| "write the boot page tables")
    };
    write(0, table(1) | PRESENT_WRITABLE, PAGE, 1)?;
    write(1, table(2) | PRESENT_WRITABLE, PAGE, DIRECTORIES as usize)?;
    for n in 0..DIRECTORIES {
        write(2 + n, n << 30 | LARGE | PRESENT_WRITABLE, 1 << 21, 512)?;
    }
    ram.write_obj(gdt(mode), GuestAddress(BOOT_GDT)).or_fail(|| "write the boot GDT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{layout::MIN_MEMORY, ram};

    /// Walk the tables as the CPU does.
    fn translate(ram: &GuestRam, cr3: u64, address: u64) -> Option<u64> {
        let mut table = cr3;
        for shift in [39, 30, 21] {
            let at = table + (address >> shift & 511) * 8;
            let entry: u64 = ram.read_obj(GuestAddress(at)).unwrap();
            if entry & 1 == 0 {
                return None;
            }
            table = entry & 0x000f_ffff_ffff_f000;
            if entry & 1 << 7 != 0 {
                return Some(table + (address & ((1 << shift) - 1)));
            }
        }
        None
    }

    #[test]
    fn the_first_4_gib_are_mapped_one_to_one() {
        let ram = ram::create(MIN_MEMORY).unwrap();
        write_tables(Mode::Long, &ram).unwrap();
        let entry = EntryState::new(Mode::Long, 0, 0, 0);
        for address in [0, 0x7000, 0x10_0000, 0x1234_5678, 0xd000_0000, 0xffff_ffff] {
            assert_eq!(translate(&ram, entry.cr3, address), Some(address), "{address:#x}");
        }
        assert_eq!(translate(&ram, entry.cr3, 1 << 32), None);
    }

    #[test]
    fn the_gdt_holds_the_protocols_selectors() {
        let ram = ram::create(MIN_MEMORY).unwrap();
        write_tables(Mode::Long, &ram).unwrap();
        let entry = EntryState::new(Mode::Long, 0, 0, 0);
        assert_eq!(entry.gdt_limit, 47);
        let descriptor = |selector: u16| -> u64 {
            ram.read_obj(GuestAddress(entry.gdt_base + u64::from(selector))).unwrap()
        };
        let kind = |selector| descriptor(selector) >> 40 & 0xff;
        assert_eq!((kind(BOOT_CS), kind(BOOT_DS), kind(BOOT_TR)), (0x9b, 0x93, 0x8b));
        assert_eq!(descriptor(BOOT_CS) >> 53 & 3, 1, "L: a 64-bit code segment");
        write_tables(Mode::Protected, &ram).unwrap();
        assert_eq!(descriptor(BOOT_CS) >> 53 & 3, 2, "D: a 32-bit code segment");
    }
}
