//! The MultiProcessor table, version 1.4, for kernels without ACPI and for the sake of time: a
//! Linux with CONFIG_X86_MPPARSE that finds none maps and unmaps its search area some 65,000 times
//! before it looks at ACPI. With ACPI it reads no further than the floating pointer.

use crate::error::{OrFail, Result};
use crate::mem::GuestRam;
use crate::mem::layout::{IOAPIC, LAPIC, LOW_RAM_END};
use vm_memory::{Bytes, GuestAddress};

/// The floating pointer is where the EBDA, searched first, begins. (MP 1.4, 4)
const FLOATING: u64 = LOW_RAM_END;
/// The table follows. That of many CPUs runs on beyond 640 KiB, where this machine has RAM and no
/// VGA.
const TABLE: u64 = FLOATING + 16;
/// Of integrated local APICs.
const APIC_VERSION: u8 = 0x14;
/// ISA interrupts, wired to the same pins of the I/O APIC.
const ISA_IRQS: u8 = 16;

/// Write the table of a machine with `cpus` CPUs.
///
/// # Errors
/// RAM does not hold it (it does: the smallest guest has 16 MiB).
pub fn write(cpus: u8, ram: &GuestRam) -> Result<()> {
    let put = |bytes: &[u8], at| {
        ram.write_slice(bytes, GuestAddress(at)).or_fail(|| "write the MultiProcessor table")
    };
    put(&floating_pointer(), FLOATING)?;
    put(&table(cpus), TABLE)
}

/// Make the bytes sum up to 0 by the one at `at`.
fn checksum(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
}

/// MP 1.4, 4.1.
fn floating_pointer() -> [u8; 16] {
    let mut pointer = *b"_MP_\0\0\0\0\x01\x04\0\0\0\0\0\0";
    pointer[4..8].copy_from_slice(&(TABLE as u32).to_le_bytes());
    checksum(&mut pointer, 10);
    pointer
}

/// MP 1.4, 4.2 and 4.3.
fn table(cpus: u8) -> Vec<u8> {
    let ioapic_id = cpus;
    let mut entries = Vec::new();
    for id in 0..cpus {
        // Enabled; the first is the boot processor. Signature and features are CPUID's to tell.
        let flags = if id == 0 { 3 } else { 1 };
        entries.extend([0, id, APIC_VERSION, flags]);
        entries.extend([0; 16]);
    }
    entries.extend(*b"\x01\0ISA   ");
    entries.extend([2, ioapic_id, 0x11, 1]);
    entries.extend((IOAPIC as u32).to_le_bytes());
    for irq in 0..ISA_IRQS {
        // INT, polarity and trigger as the bus has them: high, edge.
        entries.extend([3, 0, 0, 0, 0, irq, ioapic_id, irq]);
    }
    // LINT1 of every CPU is NMI.
    entries.extend([4, 1, 0, 0, 0, 0, 0xff, 1]);

    let count = u16::from(cpus) + u16::from(ISA_IRQS) + 3;
    let mut table = b"PCMP\0\0\x04\0SPORE   INSTANCE    ".to_vec();
    table.extend([0; 6]); // no OEM table
    table.extend(count.to_le_bytes());
    table.extend((LAPIC as u32).to_le_bytes());
    table.extend([0; 4]); // no extended table
    table.extend(entries);
    let len = table.len() as u16;
    table[4..6].copy_from_slice(&len.to_le_bytes());
    checksum(&mut table, 7);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
    }

    #[test]
    fn a_kernel_finds_every_cpu() {
        for cpus in [1u8, 2, 64] {
            let table = table(cpus);
            assert_eq!((sum(&table), sum(&floating_pointer())), (0, 0));
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            let count = u16::from_le_bytes([table[34], table[35]]);
            let (mut at, mut seen, mut found) = (44, 0, Vec::new());
            while at < table.len() {
                if table[at] == 0 {
                    found.push(table[at + 1]);
                }
                at += if table[at] == 0 { 20 } else { 8 };
                seen += 1;
            }
            assert_eq!((at, seen), (table.len(), count));
            assert_eq!(found, (0..cpus).collect::<Vec<_>>());
        }
    }
}
