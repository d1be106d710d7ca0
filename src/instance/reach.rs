//! A connection to a port of an instance's guest, by whatever way it answers: its socket device, or
//! else its network.

use super::dial::{self, Call, is_ssh, speaks};
use super::dir::InstanceDir;
use super::vpc;
use crate::error::Result;
use crate::record::instance::Instance;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// sshd's port.
pub const SSH: u16 = 22;
/// How long a guest that can be reached by its network, too, has to answer by its socket device: at
/// once, if it has a driver.
const SOON: Duration = Duration::from_secs(1);

/// What became of it.
#[derive(Debug)]
pub enum Reached {
    /// The guest's program is at the other end.
    Connected(OwnedFd),
    /// It was not there: what was tried.
    Not(Tried),
}

/// Ways that were tried in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The guest's socket device.
    pub socket: Refusal,
    /// The store's network that the instance is on, if it is on one.
    pub network: Option<Refusal>,
}

/// Why a way was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The guest's kernel says that nobody listens there.
    Nobody,
    /// The guest does not answer.
    Silent,
}

/// Calls a port once by each way, for so long altogether. At sshd's port whoever says nothing is
/// nobody: a guest's service manager may listen there in its place, and let go of who comes before
/// sshd can run.
///
/// # Errors
/// There is no VMM; the network's process is not there and can't be started.
pub fn reach(
    dir: &InstanceDir,
    instance: &Instance,
    port: u32,
    patience: Duration,
) -> Result<Reached> {
    let deadline = Instant::now() + patience;
    let left = || deadline.saturating_duration_since(Instant::now());
    let by_network = u16::try_from(port).ok().filter(|_| vpc::is_on(instance));
    let soon = if by_network.is_some() { SOON.min(patience / 2) } else { patience };
    let socket = match heard(dial::call(dir, port, soon)?, port, left()) {
        Ok(stream) => return Ok(Reached::Connected(stream)),
        Err(refusal) => refusal,
    };
    let mut tried = Tried { socket, network: None };
    if let Some(port16) = by_network {
        let call = vpc::connect(dir.store(), instance, port16, left())?;
        match heard(call, port, left()) {
            Ok(stream) => return Ok(Reached::Connected(stream)),
            Err(refusal) => tried.network = Some(refusal),
        }
    }
    Ok(Reached::Not(tried))
}

/// The connection, if somebody is there.
fn heard(call: Call, port: u32, patience: Duration) -> Result<OwnedFd, Refusal> {
    match call {
        Call::Connected(stream) if port != u32::from(SSH) => Ok(stream),
        Call::Connected(stream) => match speaks(&stream, patience) {
            Ok(true) => Ok(stream),
            _ => Err(Refusal::Nobody),
        },
        Call::Nobody => Err(Refusal::Nobody),
        Call::Silent => Err(Refusal::Silent),
    }
}

/// Whether an SSH server answers, by whatever way.
///
/// # Errors
/// As [`reach`]'s.
pub fn has_ssh(dir: &InstanceDir, instance: &Instance, patience: Duration) -> Result<bool> {
    let deadline = Instant::now() + patience;
    let Reached::Connected(stream) = reach(dir, instance, SSH.into(), patience)? else {
        return Ok(false);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    // Who does not read on is no longer there.
    Ok(is_ssh(stream, left).unwrap_or(false))
}
