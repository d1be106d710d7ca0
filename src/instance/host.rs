//! What the host must have before anything is launched.

use crate::plan::CpuidLeaf;
use crate::sys::kvm;
use std::sync::OnceLock;

/// What this host's KVM supports of CPUID, asked once for all instances that are launched. It takes
/// its time: a thread may ask beforehand. Empty if KVM does not say: the VMM will hear why.
pub fn cpuid() -> &'static [CpuidLeaf] {
    static TOLD: OnceLock<Vec<CpuidLeaf>> = OnceLock::new();
    TOLD.get_or_init(|| kvm::open().and_then(|kvm| kvm::supported_cpuid(&kvm)).unwrap_or_default())
}
