//! A machine from its memory file.

use crate::error::{OrFail, Result};
use crate::mem::GuestRam;
use crate::plan::{DeviceConfig, DeviceKind, VmConfig, VmPlan};
use crate::sys::fds;
use crate::vmm::cpuid::Model;
use crate::vmm::memory_file::{self, Saved, Shape};
use crate::vmm::state::processors;
use kvm_bindings::CpuId;
use std::fs::File;

/// Leaves out the socket device of a machine that was hibernated by a Spore which gave machines
/// none: the guest knows nothing of it. Nobody listens for programs of the host's then.
fn leave_out(config: &mut VmConfig, then: &Shape) -> Result<()> {
    let added = |device: &DeviceConfig| match &device.kind {
        DeviceKind::Vsock(vsock) if !then.has(&device.id.to_string()) => Some(vsock.listeners()),
        _ => None,
    };
    for listener in config.devices.iter().filter_map(added).flatten() {
        drop(fds::take(listener)?);
    }
    config.devices.retain(|device| added(device).is_none());
    Ok(())
}

/// A hibernated machine that is to go on.
pub struct Resuming {
    file: File,
    saved: Saved,
}

impl Resuming {
    /// Read a memory file, for the machine of this plan, which loses what it had not at the time.
    ///
    /// # Errors
    /// It is none, or of another machine.
    pub fn read(file: File, plan: &mut VmPlan) -> Result<Self> {
        let saved = memory_file::read(&file)?;
        leave_out(&mut plan.config, &saved.shape)?;
        match saved.shape.unlike(&Shape::of(&plan.config)) {
            None => Ok(Self { file, saved }),
            Some(why) => Err(memory_file::refused(why)),
        }
    }

    /// Lay the saved RAM over RAM that is fresh.
    ///
    /// # Errors
    /// The file can't be mapped.
    pub fn map(&self, ram: &GuestRam) -> Result<()> {
        memory_file::map(&self.file, &self.saved, ram)
    }

    /// The saved CPUID of each vCPU, if this host, which would give a new machine `model`, has all
    /// that is in it.
    ///
    /// # Errors
    /// It has not.
    pub fn cpuid(&self, model: &Model) -> Result<Vec<CpuId>> {
        let saved = processors::saved_cpuid(self.saved.part(processors::NAME)?)?;
        let first = saved.first().map_or(&[][..], |entries| entries);
        model.check_saved(first).map_err(memory_file::refused)?;
        let list = |entries: &Vec<_>| CpuId::from_entries(entries);
        let lists = saved.iter().map(list).collect::<Result<Vec<_>, _>>();
        lists.map_err(|e| format!("{e:?}")).or_fail(|| "build a CPUID list")
    }

    /// The states of all parts.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }
}
