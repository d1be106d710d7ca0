//! What the host must have before anything is launched.

use crate::plan::CpuidLeaf;
use crate::sys::kvm;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use std::sync::OnceLock;

/// What this host's KVM supports of CPUID, asked once for all instances that are launched. Where the host is a virtual
/// machine itself, each CPUID instruction that KVM executes for the answer is an exit, and all of them take as long as making
/// a VM: a thread may ask beforehand. Empty if KVM does not say: the VMM will hear why.
pub fn cpuid() -> &'static [CpuidLeaf] {
    static TOLD: OnceLock<Vec<CpuidLeaf>> = OnceLock::new();
    TOLD.get_or_init(|| {
        let told =
            kvm::open().ok().and_then(|kvm| kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).ok());
        let entries = told.iter().flat_map(|told| told.as_slice());
        entries.map(|e| [e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx]).collect()
    })
}
