//! What the host must have before anything is launched.

use crate::error::{Error, Result};
use crate::plan::CpuidLeaf;
use crate::sys::kvm;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use rustix::fs::{Access, access};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

/// The device.
const KVM: &str = "/dev/kvm";

/// See that /dev/kvm is there and permitted, before anything is made.
///
/// # Errors
/// It is not; the line says what to do.
pub fn check_kvm() -> Result<()> {
    let metadata = match std::fs::metadata(KVM) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::failure(
                "there is no /dev/kvm: load kvm_intel or kvm_amd, and switch virtualization on in the firmware",
            ));
        }
        Err(e) => return Err(Error::io(format!("look at {KVM}"), e)),
    };
    access(KVM, Access::READ_OK | Access::WRITE_OK).map_err(|_| {
        let group = group_name(metadata.gid()).unwrap_or_else(|| metadata.gid().to_string());
        Error::failure(format!(
            "no access to /dev/kvm, which is for the group '{group}': as root, run \
             'usermod --append --groups {group} USER', then log in again"
        ))
    })
}

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

/// The name of a group, from /etc/group.
fn group_name(gid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    let gid = gid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    })
}
