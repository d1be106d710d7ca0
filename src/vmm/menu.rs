//! A boot menu on a disk: read again before each reset, so that a guest that installed a kernel
//! reboots into it.
//!
//! The menu is read by the process that the launcher started for it (`crate::pvgrub`). It sees the
//! disk as this one does, through the chain that the guest has just written.

use crate::block::{Disk, FileDisk};
use crate::error::{Error, Result};
use crate::plan::{DeviceId, MenuPlan, PvBoot, SavedEnvironment};
use crate::pvgrub::{Bytes, Child, Wanted};
use crate::sys::fds;
use std::fs::File;
use std::io;

/// What boots, and where it came from.
pub struct BootMenu {
    /// The disk that has it.
    pub disk: DeviceId,
    child: Child,
    boot: PvBoot,
    kernel_digest: Option<String>,
    ramdisk_digest: Option<String>,
}

/// What the menu says now.
pub struct Changes {
    /// The kernel, if it is another than before.
    pub kernel: Option<File>,
    /// The initial ramdisk, if it is another.
    pub initrd: Option<Option<File>>,
    /// The kernel's command line.
    pub command_line: String,
    /// For the report.
    pub selection: Selection,
}

/// What a menu chose.
pub struct Selection {
    /// What boots, and what was skipped.
    pub message: String,
    /// What the next boot is to remember, if that is not what this one remembered.
    pub saved: Option<Option<SavedEnvironment>>,
}

impl BootMenu {
    /// As the plan says.
    ///
    /// # Errors
    /// Its descriptor is missing.
    pub fn take(plan: &MenuPlan) -> Result<Self> {
        Ok(Self {
            disk: plan.disk.clone(),
            child: Child::from_socket(fds::take(plan.reader)?),
            boot: plan.boot.clone(),
            kernel_digest: plan.kernel_digest.clone(),
            ramdisk_digest: plan.ramdisk_digest.clone(),
        })
    }

    /// Read it.
    ///
    /// # Errors
    /// Nothing boots from the disk any more; one line.
    pub fn select(&mut self, disk: &FileDisk) -> Result<Changes> {
        let (old_kernel, old_ramdisk) = (&self.kernel_digest, &self.ramdisk_digest);
        let (found, files) = self.child.boot(&Root(disk), &self.boot, &mut |found| Wanted {
            kernel: Some(&found.kernel_digest) != old_kernel.as_ref(),
            unpacked: true,
            ramdisk: found.ramdisk_digest != *old_ramdisk && found.ramdisk_digest.is_some(),
        })?;
        let missing = || Error::failure("the process that reads the root volume left a file out");
        let new_kernel = Some(&found.kernel_digest) != old_kernel.as_ref();
        let new_ramdisk = found.ramdisk_digest != *old_ramdisk;
        let kernel = if new_kernel { Some(files.kernel.ok_or_else(missing)?) } else { None };
        let initrd = match (new_ramdisk, &found.ramdisk_digest) {
            (false, _) => None,
            (true, None) => Some(None),
            (true, Some(_)) => Some(Some(files.ramdisk.ok_or_else(missing)?)),
        };
        crate::boot::cmdline::check(&found.command_line)?;
        let mut message =
            format!("boots entry {} '{}' of {}", found.index, found.title, found.menu);
        for why in found.skipped {
            message = format!("{message}; skipped {why}");
        }
        self.kernel_digest = Some(found.kernel_digest);
        self.ramdisk_digest = found.ramdisk_digest;
        let saved = (found.saved != self.boot.saved).then(|| found.saved.clone());
        self.boot.saved = found.saved;
        let selection = Selection { message, saved };
        Ok(Changes { kernel, initrd, command_line: found.command_line, selection })
    }
}

/// A disk, for its bytes.
struct Root<'a>(&'a FileDisk);

impl Bytes for Root<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }
}
