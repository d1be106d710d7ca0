//! The directories that an instance's guest sees: what may be shared, and the start of their
//! servers.

use super::fds::Fds;
use crate::error::{Code, Error, Result};
use crate::helper::Child;
use crate::plan::{DeviceId, DeviceKind, SharePlan};
use crate::record::instance::Instance;
use crate::record::share::Share;
use crate::share;
use crate::store::Store;
use std::path::Path;

/// Checks that these can be shared before anything is made.
///
/// # Errors
/// One is not there or no directory; there are too many, or two in the same place of the guest's;
/// a guest could change the store by one.
pub fn check(store: &Store, shares: &[Share]) -> Result<()> {
    if shares.len() > Share::MOST {
        let why = format!("an instance has {} shared directories at most", Share::MOST);
        return Err(Error::refused(Code::InvalidParameterCombination, why));
    }
    for (index, share) in shares.iter().enumerate() {
        share.check()?;
        drop(share::open_directory(&share.host_path)?);
        if shares[..index].iter().any(|other| other.guest_path == share.guest_path) {
            let why = format!("two directories are shared at {}", share.guest_path);
            return Err(Error::refused(Code::InvalidParameterCombination, why));
        }
        check_store(store.home(), share)?;
    }
    Ok(())
}

/// Who writes the store's files is Spore: a guest that did could have other instances' disks, keys
/// and records.
fn check_store(root: &Path, share: &Share) -> Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (root, path) = (real(root), real(&share.host_path));
    if share.read_only || !(root.starts_with(&path) || path.starts_with(&root)) {
        return Ok(());
    }
    Err(Error::refused(
        Code::InvalidParameterValue,
        format!(
            "the guest could change the store {} by {share}; share a directory beside it, or give :ro",
            root.display()
        ),
    ))
}

/// Servers of shared directories that have been started. They end with their VMM, or with this if
/// none is started.
pub type Servers = Vec<Child>;

/// Starts the server of each of the instance's shared directories; their devices.
///
/// # Errors
/// A directory is not there any more; a server can't be confined.
pub fn open(fds: &mut Fds, instance: &Instance) -> Result<(Vec<(DeviceId, DeviceKind)>, Servers)> {
    let (mut devices, mut servers) = (Vec::new(), Vec::new());
    for (index, share) in instance.spore.shares.iter().enumerate() {
        let directory = share::open_directory(&share.host_path)?;
        let label = instance.instance_id.as_str();
        let (server, child) = share::start(&directory, label, share.read_only)?;
        let tag = Share::tag(index);
        let id = tag.parse()?;
        devices.push((id, DeviceKind::Share(SharePlan { tag, server: fds.add(server) })));
        servers.push(child);
    }
    Ok((devices, servers))
}

/// The lines of fstab(5) by which the guest mounts them; `None` if there are none.
pub fn fstab(instance: &Instance) -> Option<String> {
    let shares = &instance.spore.shares;
    let lines = shares.iter().enumerate().map(|(index, share)| share.fstab(index));
    (!shares.is_empty()).then(|| lines.collect())
}
