//! Instances: resolved, prepared, spawned, watched and cleaned up after.
//!
//! An instance is a directory. Its files, all private to the owner:
//!
//! | file | what |
//! |---|---|
//! | `record.json` | the [`InstanceRecord`], replaced atomically |
//! | `lock` | flock: held while a command changes the instance's state |
//! | `vmm.lock` | flock: held by the VMM for as long as it lives; the one truth about liveness |
//! | `control.sock` | where the VMM answers [`crate::control`] |
//! | `vsock.sock` | where programs of the host reach those of the guest ([`dial`]) |
//! | `vsock-seqpacket.sock` | the same of SOCK_SEQPACKET |
//! | `known_hosts` | the guest's SSH host keys ([`host_keys`]), or those that it showed first |
//! | `console.log` | all the guest said on its serial line |
//! | `console.times` | when it said that |
//! | `vmm.log`, `report.jsonl` | what the VMM has to say |
//! | `memory` | RAM and devices of a hibernated instance |
//! | `ephemeralN` | a disk that goes with its VM |
//! | `user-data` | as given to `run` |

pub mod attach;
pub mod attached;
mod boot_menu;
mod buses;
pub mod cdroms;
pub mod cgroup;
pub mod client;
pub mod cloud_init;
pub mod console;
pub mod create_image;
pub mod dial;
pub mod dir;
pub mod disk_usage;
pub mod ephemeral;
pub mod fds;
pub mod firmware;
pub mod hibernate;
pub mod hibernation;
pub mod host;
pub mod ids;
pub mod launch;
mod launch_metadata;
pub mod lifecycle;
pub mod mapping;
pub mod metadata;
pub mod modify;
pub mod network;
pub mod plain;
pub mod pool;
pub mod prepare;
pub mod reach;
pub mod readiness;
pub mod reap;
mod rebase;
pub mod refresh;
pub mod resources;
pub mod restart;
pub mod shares;
pub mod snapshots;
pub mod spawn;
mod times;
pub mod types;
pub mod uefi;
pub mod vpc;
