//! Loading what a machine executes first: kernel, initial ramdisk, command line, and the tables
//! that describe the machine.

pub mod acpi;
pub mod bzimage;
pub mod cmdline;
pub mod decompress;
pub mod elf;
pub mod entry;
pub mod firmware;
pub mod fw_cfg;
pub mod generation;
pub mod mptable;
pub mod params;
pub mod pci_map;
mod pvh;
pub mod reset;
pub mod smbios;
pub mod source;
pub mod unpack;

pub use entry::{Entry, EntryState, Mode};
pub use unpack::{UnpackedKernel, unpack};

use crate::error::{Code, Error, OrFail, Result};
use crate::mem::layout::{ACPI, BOOT_STACK, PAGE, RESET_VECTOR, SMBIOS, ZERO_PAGE};
use crate::mem::{GuestRam, ram};
use crate::plan::VmPlan;
use crate::sys::fds;
use elf::Elf;
use params::BootParams;
use source::Source;
use std::fs::File;
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress};

/// Load a kernel (ELF vmlinux or bzImage) and an initial ramdisk into RAM that is all zero (fresh,
/// or [`ram::clear`]ed), and describe the plan's machine.
///
/// An ELF is entered at its physical entry point with a zero page in rsi, which is what a bzImage's
/// own decompressor does too; a bzImage is unpacked first, which takes long: registration does it
/// once. An ELF that has an entry point for Xen's guests only is entered as those are.
///
/// # Errors
/// The kernel is not one, it or the ramdisk does not fit into RAM, the command line is too long, or
/// a file cannot be read.
pub fn load(
    kernel: &File,
    initrd: Option<&File>,
    cmdline: &str,
    plan: &VmPlan,
    ram: &GuestRam,
) -> Result<EntryState> {
    let (elf, extent, header) = load_kernel(Source::file(kernel)?, ram)?;
    let mut params = BootParams::new(ram::size(ram), elf.mode, header.as_deref());
    let limit = ram::low_end(ram).min(params.initrd_addr_max() + 1);
    let ramdisk =
        initrd.map(|file| load_initrd(file, extent.end..limit, ram)).transpose()?.flatten();
    let mode = if elf.pvh { Mode::Protected } else { elf.mode };
    cmdline::write(cmdline, ram)?;
    entry::write_tables(mode, ram)?;
    mptable::write(plan.config.cpus, ram)?;
    let put =
        |bytes: &[u8], at| ram.write_slice(bytes, GuestAddress(at)).or_fail(|| "write the tables");
    put(&acpi::build(&plan.config), ACPI)?;
    generation::write(ram, generation::address(&plan.config))?;
    put(&smbios::build(plan)?, SMBIOS)?;
    put(&reset::vector(), RESET_VECTOR)?;
    if elf.pvh {
        let info = pvh::write(&params::e820(ram::size(ram)), ramdisk, ram)?;
        return Ok(EntryState { rbx: info, ..EntryState::new(mode, elf.entry, BOOT_STACK, 0) });
    }
    ramdisk.into_iter().for_each(|range| params.set_ramdisk(range));
    params.write(ram)?;
    Ok(EntryState::new(mode, elf.entry, BOOT_STACK, ZERO_PAGE))
}

/// (the kernel, addresses taken, a bzImage's setup header)
fn load_kernel(source: Source, ram: &GuestRam) -> Result<(Elf, Range<u64>, Option<Vec<u8>>)> {
    if source.head(elf::MAGIC.len() as u64)? == elf::MAGIC {
        let elf = Elf::parse(source)?;
        let extent = elf.load(source, ram)?;
        return Ok((elf, extent, None));
    }
    let image = unpack::expand(source)?;
    let source = Source::Bytes(&image.elf);
    let elf = Elf::parse(source)?;
    let extent = elf.load(source, ram)?;
    Ok((elf, extent, image.setup_header))
}

/// Lay the initial ramdisk as high as it goes within `room`, where the kernel's own early
/// allocations are least in its way. `None` if it is empty.
fn load_initrd(file: &File, room: Range<u64>, ram: &GuestRam) -> Result<Option<Range<u64>>> {
    let len = fds::len(file).or_fail(|| "read the initial ramdisk's size")?;
    if len == 0 {
        return Ok(None);
    }
    let lowest = room.start.next_multiple_of(PAGE);
    let pages = len.checked_next_multiple_of(PAGE);
    let highest = pages.and_then(|pages| Some((room.end.checked_sub(pages)? & !(PAGE - 1), pages)));
    let Some((start, pages)) = highest.filter(|(start, _)| *start >= lowest) else {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!(
                "the initial ramdisk of {} MiB does not fit beside the kernel, which leaves {} MiB of the \
                 instance's memory: give it more (`Memory`), or a smaller ramdisk",
                len.div_ceil(1 << 20),
                room.end.saturating_sub(lowest) >> 20
            ),
        ));
    };
    ram::lay_file(ram, start, file, 0, pages)?;
    Ok(Some(start..start + len))
}

#[cfg(test)]
pub(crate) mod tests;
