//! The VM generation ID: 16 random bytes in memory. (Microsoft, "Virtual Machine Generation ID")

use crate::error::{OrFail, Result};
use crate::mem::GuestRam;
use crate::mem::layout::{VM_GENERATION, firmware_generation};
use crate::plan::{BootPlan, VmConfig};
use rustix::rand::{GetRandomFlags, getrandom};
use vm_memory::{Bytes, GuestAddress};

/// Where it lies in the machine with this configuration. A guest finds that in the ACPI tables.
pub fn address(config: &VmConfig) -> u64 {
    match config.boot {
        BootPlan::Direct { .. } => VM_GENERATION,
        BootPlan::Firmware { .. } => firmware_generation(config.memory),
    }
}

/// Gives the machine another, at [`address`].
///
/// # Errors
/// The host has no random numbers; that is not RAM.
pub fn write(ram: &GuestRam, address: u64) -> Result<()> {
    let doing = || "write the VM generation ID";
    let mut id = [0u8; 16];
    // getrandom(2) never cuts 256 bytes or fewer short.
    getrandom(&mut id[..], GetRandomFlags::empty()).or_fail(doing)?;
    ram.write_slice(&id, GuestAddress(address)).or_fail(doing)
}
