//! A connection to a port of an instance's guest, by whatever way it answers: its socket device, or
//! else its network.

use super::dial::{self, Call, is_ssh};
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
    let (mut calls, mut tried) = Calls::by_socket(dir, port, soon)?;
    if port != u32::from(SSH) && !calls.is_over() {
        return Ok(Reached::of(calls.0.pop(), tried));
    }
    if let Some(stream) = calls.speaker(soon.min(left())) {
        return Ok(Reached::Connected(stream));
    }
    if let Some(port) = by_network {
        tried.network = Some(calls.by_network(dir, instance, port, left())?);
    }
    if port != u32::from(SSH) {
        return Ok(Reached::of(calls.0.pop(), tried));
    }
    Ok(Reached::of(calls.speaker(left()), tried))
}

impl Reached {
    fn of(stream: Option<OwnedFd>, tried: Tried) -> Self {
        stream.map_or(Self::Not(tried), Self::Connected)
    }
}

/// Connections to one port that were taken, of which it is not known yet who is there.
#[derive(Debug, Default)]
pub struct Calls(Vec<OwnedFd>);

impl Calls {
    /// Calls sshd's port by each way, as [`reach`].
    ///
    /// # Errors
    /// As [`reach`]'s.
    pub fn of_ssh(dir: &InstanceDir, instance: &Instance, patience: Duration) -> Result<Self> {
        let (mut calls, _) = Self::by_socket(dir, SSH.into(), SOON.min(patience))?;
        if vpc::is_on(instance) {
            calls.by_network(dir, instance, SSH, patience)?;
        }
        Ok(calls)
    }

    fn by_socket(dir: &InstanceDir, port: u32, patience: Duration) -> Result<(Self, Tried)> {
        let mut calls = Self::default();
        let socket = calls.take(dial::call(dir, port, patience)?);
        Ok((calls, Tried { socket, network: None }))
    }

    fn by_network(
        &mut self,
        dir: &InstanceDir,
        instance: &Instance,
        port: u16,
        patience: Duration,
    ) -> Result<Refusal> {
        let call = vpc::connect(dir.store(), instance, port, patience)?;
        Ok(self.take(call))
    }

    /// Keeps a connection. What is said of it if nobody speaks.
    fn take(&mut self, call: Call) -> Refusal {
        match call {
            Call::Connected(stream) => {
                self.0.push(stream);
                Refusal::Nobody
            }
            Call::Nobody => Refusal::Nobody,
            Call::Silent => Refusal::Silent,
        }
    }

    /// Whether nobody is at the other end of any any more.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The connection whose other end speaks first within so long, of which nothing has been read.
    /// Those that it closes are given up.
    pub fn speaker(&mut self, patience: Duration) -> Option<OwnedFd> {
        let deadline = Instant::now() + patience;
        while !self.is_over() {
            let left = deadline.saturating_duration_since(Instant::now());
            let ready = dial::readable(&self.0, left).ok()?;
            for (n, ready) in ready.into_iter().enumerate().rev() {
                if !ready {
                    continue;
                }
                let stream = self.0.remove(n);
                if dial::speaks(&stream) {
                    return Some(stream);
                }
            }
            if left.is_zero() {
                return None;
            }
        }
        None
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn who_speaks_first_is_found_and_who_is_slow_is_kept() {
        let pair = || UnixStream::pair().unwrap();
        let ((socket, mut slow), (network, closed)) = (pair(), pair());
        let mut calls = Calls(vec![socket.into(), network.into()]);
        drop(closed);
        let soon = Duration::from_millis(1);
        assert!(calls.speaker(soon).is_none());
        assert_eq!((calls.0.len(), calls.is_over()), (1, false), "who has closed is let go");
        slow.write_all(b"SSH-2.0-x\r\n").unwrap();
        let found = calls.speaker(Duration::from_secs(60)).unwrap();
        assert!(is_ssh(found, soon).unwrap(), "nothing has been read of it");
        assert!(calls.is_over() && calls.speaker(Duration::from_secs(60)).is_none());
        // Beside one that says nothing, and without waiting for that.
        let ((socket, silent), (network, mut prompt)) = (pair(), pair());
        let mut calls = Calls(vec![socket.into(), network.into()]);
        prompt.write_all(b"SSH-2.0-y\r\n").unwrap();
        assert!(calls.speaker(Duration::from_secs(3600)).is_some());
        assert_eq!(calls.0.len(), 1);
        drop(silent);
    }
}
