//! Kernels and ramdisks, which EC2 lists by DescribeImages (ImageType kernel and ramdisk):
//! registered, and given up.

use super::Service;
use super::filter::{Filter, Filters, found, select};
use crate::error::{Code, Error, Result};
use crate::kernel;
use crate::plan::PvGrub;
use crate::record::kernel::{Kernel, Ramdisk};
use std::path::Path;

const KERNEL_FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("architecture", "Architecture"),
        ("creation-date", "CreationDate"),
        ("kernel-id", "KernelId"),
        ("name", "Name"),
        ("owner-id", "OwnerId"),
        ("version", "Version"),
    ],
};
const RAMDISK_FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("creation-date", "CreationDate"),
        ("name", "Name"),
        ("owner-id", "OwnerId"),
        ("ramdisk-id", "RamdiskId"),
    ],
};

/// The names of the filters that there are.
pub fn filter_names() -> Vec<&'static str> {
    KERNEL_FILTERS.names.iter().map(|(name, _)| *name).collect()
}

impl Service {
    /// Registers the kernel in a file, under a name or one made of the file's. A file that is
    /// registered already gives the same kernel.
    ///
    /// # Errors
    /// As [`kernel::register`]'s.
    pub fn register_kernel(&self, file: &Path, name: Option<&str>) -> Result<Kernel> {
        kernel::register_itself(self.swept(), file, name)
    }

    /// Registers the initial ramdisk in a file, as [`Service::register_kernel`].
    ///
    /// # Errors
    /// As [`kernel::register`]'s.
    pub fn register_ramdisk(&self, file: &Path, name: Option<&str>) -> Result<Ramdisk> {
        kernel::register_itself(self.swept(), file, name)
    }

    /// The kernels named, or all, of which all filters hold.
    ///
    /// # Errors
    /// One of those named is not there, a filter is unknown, the store can't be read.
    pub fn describe_kernels(&self, ids: &[String], filters: &[Filter]) -> Result<Vec<Kernel>> {
        let kernels = self.swept().kernels();
        let listed = match ids {
            [] => {
                let mut all = kernels.list()?.or_warn();
                all.extend(Kernel::pv_grub());
                all
            }
            ids => found(ids, |id| kernels.find(id))?,
        };
        select(listed, filters, KERNEL_FILTERS)
    }

    /// The initial ramdisks named, or all, of which all filters hold.
    ///
    /// # Errors
    /// As [`Service::describe_kernels`]'s.
    pub fn describe_ramdisks(&self, ids: &[String], filters: &[Filter]) -> Result<Vec<Ramdisk>> {
        let ramdisks = self.swept().ramdisks();
        let listed = match ids {
            [] => ramdisks.list()?.or_warn(),
            ids => found(ids, |id| ramdisks.find(id))?,
        };
        select(listed, filters, RAMDISK_FILTERS)
    }

    /// Deregisters a kernel, with `force` even if instances of other accounts boot it.
    ///
    /// # Errors
    /// `InvalidAKIID.InUse`: an image refers to it or an instance boots it. It is another's, or
    /// built in.
    pub fn deregister_kernel(&self, text: &str, force: bool) -> Result<()> {
        let kernel = self.swept().kernels().resolve(text)?;
        if PvGrub::of(&kernel.kernel_id).is_some() {
            let why = format!("{} is built in, and stays", kernel.kernel_id);
            return Err(Error::refused(Code::OperationNotPermitted, why));
        }
        kernel::deregister::<Kernel>(&self.store, &kernel.kernel_id, force)
    }

    /// Deregisters an initial ramdisk.
    ///
    /// # Errors
    /// As [`Service::deregister_kernel`]'s.
    pub fn deregister_ramdisk(&self, text: &str, force: bool) -> Result<()> {
        let ramdisk = self.swept().ramdisks().resolve(text)?;
        kernel::deregister::<Ramdisk>(&self.store, &ramdisk.ramdisk_id, force)
    }
}
