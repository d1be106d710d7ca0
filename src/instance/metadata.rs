//! What an instance's guest is told of itself, made of its record and of what lies beside it:
//! metadata over the network or as a volume, and systemd's credentials.

use super::dir::{InstanceDir, USER_DATA};
use super::shares;
use crate::error::{OrFail, Result};
use crate::id::{InstanceId, VolumeId, hex};
use crate::metadata::{nocloud, tree};
use crate::plan::NOTIFY_PORT;
use crate::record::instance::Instance;
use crate::sys::fds;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;

/// Most bytes of user data. (EC2 RunInstances, UserData)
pub const MAX_USER_DATA: u64 = 16 << 10;

/// The instance's user data; `None` if it has none.
///
/// # Errors
/// It can't be read.
pub fn user_data(dir: &InstanceDir) -> Result<Option<Vec<u8>>> {
    match dir.owned()?.read(USER_DATA, MAX_USER_DATA) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => {
            let data = read.or_fail(|| format!("read {}", dir.file(USER_DATA).display()))?;
            Ok((!data.is_empty()).then_some(data))
        }
    }
}

/// The volume with its metadata, which is made anew at every start and read only.
///
/// # Errors
/// Its user data can't be read; no memory.
pub fn volume(dir: &InstanceDir, instance: &Instance) -> Result<File> {
    let doing = || "write a CIDATA volume";
    let bytes = nocloud::volume(instance, user_data(dir)?.as_deref())?;
    let mut file = fds::memfd("cidata").or_fail(doing)?;
    file.write_all(&bytes).or_fail(doing)?;
    Ok(file)
}

/// What the guest sees as that disk's serial number: the same at every start.
///
/// # Errors
/// None that an instance could have.
pub fn volume_id(instance: &InstanceId) -> Result<VolumeId> {
    VolumeId::from_digest(&hex(&Sha256::digest(format!("{instance} cidata"))))
}

/// OEM strings that systemd takes for credentials: who may come in as root, who the machine is, and
/// where to say that it is up. Each version takes those that it knows.
/// (systemd.system-credentials(7))
pub fn credentials(instance: &Instance) -> Vec<String> {
    let mut strings = Vec::new();
    if let Some(key) = &instance.spore.public_key {
        strings.push(credential("ssh.authorized_keys.root", &format!("{key}\n")));
    }
    // What systemd itself would make of the UUID in a VM, for those that are asked first.
    // (machine-id(5), "Initialization")
    strings.push(credential("system.machine_id", &instance.spore.uuid.replace('-', "")));
    strings.push(credential("system.hostname", &tree::guest_name(instance)));
    // From systemd 254 on: what its fstab says beside the guest's own. (systemd-fstab-generator(8))
    if let Some(lines) = shares::fstab(instance) {
        strings.push(credential("fstab.extra", &lines));
    }
    // By the socket device; 2 is the host. (vsock(7), VMADDR_CID_HOST)
    strings.push(credential("vmm.notify_socket", &format!("vsock-stream:2:{NOTIFY_PORT}")));
    strings
}

/// A credential as an SMBIOS string, which is text without a line's end. (DSP0134 6.1.3)
fn credential(name: &str, value: &str) -> String {
    match value.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => format!("io.systemd.credential:{name}={value}"),
        false => format!("io.systemd.credential.binary:{name}={}", STANDARD.encode(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reap::tests::record;
    use super::*;
    use crate::record::image::RootDeviceType;
    use crate::record::instance::{ShutdownBehavior, State};

    #[test]
    fn credentials_are_systemds_and_lines() {
        let mut record = record(State::Pending, RootDeviceType::Ebs, ShutdownBehavior::Stop, 0);
        let instance = &mut record.instance;
        instance.spore.uuid = "ec2d1e7a-0000-4000-8000-000000000000".into();
        assert!(!credentials(instance).iter().any(|text| text.contains("authorized_keys")));
        instance.spore.public_key = Some("ssh-ed25519 AAAA mine".into());
        let expected = [
            // A file of one whole line.
            "io.systemd.credential.binary:ssh.authorized_keys.root=c3NoLWVkMjU1MTkgQUFBQSBtaW5lCg==",
            "io.systemd.credential:system.machine_id=ec2d1e7a000040008000000000000000",
            &format!("io.systemd.credential:system.hostname={}", instance.instance_id),
            "io.systemd.credential:vmm.notify_socket=vsock-stream:2:9999",
        ];
        assert_eq!(credentials(instance), expected);
    }
}
