//! `spore __net`: one network. Its process holds a namespace of users, processes and network, makes
//! the taps of the instances on it, and serves them DHCP, DNS and instance metadata.
//!
//! ```text
//! spore __net --fork--> supervisor, process 1 of its namespace, on the host's network
//!                         |  starts pasta
//!                         +--fork--> worker, in the network namespace, confined
//! ```
//!
//! A port is routed, not bridged, as in a VPC: what comes in on a tap is that interface's, whatever
//! addresses it has. The network ends with its last tap; a tap that a VMM has keeps the namespace
//! when this process is killed, and the next one goes on in it.

mod advertise;
mod askers;
mod begin;
mod channel;
mod confine;
mod control;
pub mod dhcp;
pub mod dhcp6;
pub mod dns;
mod forward;
mod limit;
mod log;
mod netlink;
mod nftables;
mod pasta;
mod pool;
mod port;
mod questions;
mod rules;
mod shared;
mod sockets;
mod supervisor;
mod worker;

use crate::control::network::Response;
use crate::plan::network::NetworkPlan;
use crate::sys::fds;
use begin::{begin, say};
use std::process::ExitCode;

/// A network's process, from its first instruction.
pub fn main() -> ExitCode {
    let (first, last) = (NetworkPlan::FD, NetworkPlan::TAP);
    fds::close_all_but(&(first..=last).collect::<Vec<_>>());
    let ready = match fds::take_file(NetworkPlan::READY) {
        Ok(ready) => ready,
        Err(_) => return ExitCode::from(2),
    };
    let refused = ready.try_clone();
    match begin(ready) {
        Ok(Some(beginning)) => supervisor::run(beginning),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            if let Ok(ready) = refused {
                say(&ready, &Response::Error { message: error.message().to_owned() });
            }
            ExitCode::from(125)
        }
    }
}
