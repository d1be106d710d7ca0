//! What the host must have before anything is launched.

use crate::error::{Error, Result};
use rustix::fs::{Access, access};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

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
