//! What a machine executes first, kept for its resets.

use super::menu::{BootMenu, Selection};
use crate::block::FileDisk;
use crate::boot::firmware::Firmware;
use crate::boot::{self, Entry, generation};
use crate::chipset::flash::Flash;
use crate::error::{Error, Result};
use crate::mem::ram::RamRegion;
use crate::mem::{GuestRam, ram};
use crate::plan::{BootPlan, DeviceId, VmPlan};
use crate::sys::{fds, kvm};
use kvm_bindings::{KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE};
use std::fs::File;
use std::sync::Arc;

/// A kernel, or firmware.
pub enum Payload {
    /// Entered directly.
    Kernel {
        /// An ELF vmlinux or a bzImage; none until the next reset, where a menu says what that
        /// boots.
        kernel: Option<File>,
        /// The initial ramdisk.
        initrd: Option<File>,
        /// The kernel's command line.
        cmdline: String,
        /// Where these came from, if it is asked again before each reset.
        menu: Option<Box<BootMenu>>,
    },
    /// A PC's BIOS, or UEFI.
    Firmware {
        /// Its image.
        firmware: Firmware,
        /// UEFI's variables, and where the guest has them.
        variables: Option<(Arc<Flash>, RamRegion)>,
    },
}

impl Payload {
    /// Take the descriptors of a plan.
    ///
    /// # Errors
    /// One is missing, or the firmware is none.
    pub fn take(boot: &BootPlan) -> Result<Self> {
        Ok(match boot {
            BootPlan::Direct { kernel, initrd, cmdline, menu } => Self::Kernel {
                kernel: kernel.map(fds::take_file).transpose()?,
                initrd: initrd.map(fds::take_file).transpose()?,
                cmdline: cmdline.clone(),
                menu: menu.as_deref().map(BootMenu::take).transpose()?.map(Box::new),
            },
            BootPlan::Firmware { image, kind, variables } => {
                let firmware = Firmware::map(*kind, fds::take_file(*image)?)?;
                let variables = variables.map(fds::take_file).transpose()?.map(|file| {
                    let flash = Flash::open(file)?;
                    let region = flash.region(firmware.len())?;
                    Ok::<_, Error>((Arc::new(flash), region))
                });
                Self::Firmware { firmware, variables: variables.transpose()? }
            }
        })
    }

    /// UEFI's variables, and the addresses of theirs.
    pub fn variables(&self) -> Option<(Arc<Flash>, RamRegion)> {
        match self {
            Self::Kernel { .. } => None,
            Self::Firmware { variables, .. } => variables.clone(),
        }
    }

    /// Ask the boot menu what is to be executed, if there is one: `disks` finds the disk that has
    /// it. With it comes what it chose.
    ///
    /// # Errors
    /// Nothing boots by it any more, or the machine has no such disk.
    pub fn select<'a>(
        &mut self,
        disks: impl Fn(&DeviceId) -> Option<&'a FileDisk>,
    ) -> Result<Option<Selection>> {
        let Self::Kernel { kernel, initrd, cmdline, menu: Some(menu) } = self else {
            return Ok(None);
        };
        let none = || Error::failure(format!("the boot menu's disk {} is not there", menu.disk));
        let root = disks(&menu.disk).ok_or_else(none)?;
        let changes = menu.select(root)?;
        if let Some(new) = changes.kernel {
            *kernel = Some(new);
        }
        if let Some(new) = changes.initrd {
            *initrd = new;
        }
        *cmdline = changes.command_line;
        Ok(Some(changes.selection))
    }

    /// Put it into RAM, for the plan's machine. All of `ram` has to be zero before, fresh or
    /// cleared: a kernel's uninitialised data, what its segments have in memory beyond the file, is
    /// not written, nor is what surrounds its tables.
    ///
    /// # Errors
    /// The kernel, the ramdisk or the command line is not loadable, or the host refuses to map a
    /// file.
    pub fn load(&self, plan: &VmPlan, ram: &GuestRam) -> Result<Entry> {
        match self {
            Self::Kernel { kernel, initrd, cmdline, .. } => {
                let none = || Error::failure("the plan has no kernel to boot");
                let kernel = kernel.as_ref().ok_or_else(none)?;
                let state = boot::load(kernel, initrd.as_ref(), cmdline, plan, ram)?;
                Ok(Entry::Kernel(state))
            }
            Self::Firmware { firmware, .. } => {
                firmware.shadow(ram)?;
                generation::write(ram, generation::address(&plan.config))?;
                Ok(Entry::Reset)
            }
        }
    }

    /// What a hibernated machine must find again when it goes on, if it must find anything: the
    /// digest of its firmware, which is not in RAM.
    ///
    /// # Errors
    /// It can't be read.
    pub fn mark(&self) -> Result<Option<[u8; 32]>> {
        match self {
            // It is in RAM; a menu's reader keeps nothing between two resets.
            Self::Kernel { .. } => Ok(None),
            Self::Firmware { firmware, .. } => firmware.digest().map(Some),
        }
    }

    /// The machine's memory: RAM, and the firmware with its variables.
    pub fn memory(&self, ram: &GuestRam) -> impl Iterator<Item = kvm::Memory> {
        let rom = match self {
            Self::Kernel { .. } => [None, None],
            Self::Firmware { firmware, variables } => {
                let variables = variables.as_ref().map(|(_, region)| *region);
                [Some((firmware.region(), true)), variables.map(|region| (region, true))]
            }
        };
        let ram = ram::regions(ram).map(|region| (region, false));
        ram.chain(rom.into_iter().flatten()).map(|(region, read_only)| kvm::Memory {
            gpa: region.gpa,
            host: region.host,
            len: region.len,
            read_only,
        })
    }

    /// The interrupt controllers that it uses. (KVM_GET_IRQCHIP)
    pub fn irqchips(&self) -> &'static [u32] {
        match self {
            Self::Kernel { .. } => &[KVM_IRQCHIP_IOAPIC],
            Self::Firmware { .. } => {
                &[KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE]
            }
        }
    }
}
