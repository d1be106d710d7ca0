//! Whether there can be networks here.

use super::Store;
use super::skip::{has_kvm, skip_anywhere};

/// Whether this host lets this user have networks; says so if not.
pub fn has_networks(store: &Store) -> bool {
    if !has_kvm() {
        return false;
    }
    let probe = store.spore(&["run", "demo", "-q", "-m", "128M", "--network", "default"]);
    if !probe.status.success() {
        let err = String::from_utf8_lossy(&probe.stderr);
        // What a host lacks; all else is a fault of ours.
        let lacks = ["namespace", "/dev/net/tun", "nftables", "/proc/sys"];
        assert!(lacks.iter().any(|lacking| err.contains(lacking)), "{err}");
        skip_anywhere(err.trim());
    }
    probe.status.success()
}
