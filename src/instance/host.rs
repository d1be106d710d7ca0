//! What the host must have before anything is launched.

use crate::error::{Code, Error, Result};
use crate::plan::{CpuidLeaf, Processor};
use crate::sys::kvm;
use std::sync::OnceLock;

/// What this host's KVM supports of CPUID, asked once for all instances that are launched. It takes
/// its time: a thread may ask beforehand. Empty if KVM does not say: the VMM will hear why.
pub fn cpuid() -> &'static [CpuidLeaf] {
    static TOLD: OnceLock<Vec<CpuidLeaf>> = OnceLock::new();
    TOLD.get_or_init(|| kvm::open().and_then(|kvm| kvm::supported_cpuid(&kvm)).unwrap_or_default())
}

/// Check that a guest can have this processor here.
///
/// # Errors
/// `UnsupportedOperation`: the host lacks something of it.
pub fn check(processor: &Processor) -> Result<()> {
    if processor.is_default() {
        return Ok(());
    }
    match processor.refused_by(cpuid()) {
        None => Ok(()),
        Some(why) => Err(Error::refused(Code::UnsupportedOperation, why)),
    }
}
