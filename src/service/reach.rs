//! Being in an instance: connections to its guest, and how OpenSSH makes them.

use super::Service;
use super::instances::{find, record};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::InstanceId;
use crate::instance::dial::{Call, call};
use crate::instance::dir::{InstanceDir, KNOWN_HOSTS};
use crate::instance::host_keys::host_keys;
use crate::key;
use crate::record::instance::State;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a guest is given to answer a call before it is called again.
const ANSWER: Duration = Duration::from_secs(5);
/// Between calls of a port where nobody listens yet.
const PAUSE: Duration = Duration::from_millis(200);

/// What OpenSSH has to know of an instance.
#[derive(Clone, Debug)]
pub struct SshAccess {
    /// The instance.
    pub instance_id: InstanceId,
    /// The user whose key the guest was given.
    pub user: &'static str,
    /// The file with the private half of its key pair, if that is in the store.
    pub identity: Option<PathBuf>,
    /// The file of host keys, for this instance alone.
    pub known_hosts: PathBuf,
    /// The guest has told its host keys on its console: another key is nobody's. Otherwise the
    /// first that is seen is believed.
    pub pinned: bool,
}

impl Service {
    /// A connection to a port of a running instance's guest, for which it waits so long: by its
    /// socket device.
    ///
    /// # Errors
    /// The instance is unknown or does not run; nobody listens there, or its guest does not answer,
    /// in time.
    pub fn dial(&self, instance_id: &str, port: u32, patience: Duration) -> Result<OwnedFd> {
        let dir = find(&self.store, instance_id)?;
        let deadline = Instant::now() + patience;
        loop {
            check_running(&dir)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let nobody = match call(&dir, port, left.min(ANSWER))? {
                Call::Connected(stream) => return Ok(stream.into()),
                Call::Nobody => true,
                Call::Silent => false,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.store.context().cancelled() {
                return Err(unreached(dir.id(), port, nobody, patience));
            }
            std::thread::sleep(PAUSE.min(left));
        }
    }

    /// What OpenSSH has to know to get into a running instance.
    ///
    /// # Errors
    /// The instance is unknown, another's, or does not run.
    pub fn ssh_access(&self, instance_id: &str) -> Result<SshAccess> {
        let dir = find(&self.store, instance_id)?;
        check_running(&dir)?;
        let owned = dir.owned()?;
        let identity = key::for_instance(&self.store, &record(&dir)?.instance)?;
        let keys = host_keys(&dir)?;
        if !keys.is_empty() {
            let line = |key: &String| format!("{} {key}\n", dir.id());
            let lines: String = keys.iter().map(line).collect();
            let written = owned.replace(KNOWN_HOSTS, lines.as_bytes(), false);
            written.or_fail(|| format!("write {}", dir.file(KNOWN_HOSTS).display()))?;
        }
        Ok(SshAccess {
            instance_id: dir.id().clone(),
            user: "root",
            identity: identity.map(|file| file.path().to_owned()),
            known_hosts: dir.file(KNOWN_HOSTS),
            pinned: !keys.is_empty(),
        })
    }
}

fn check_running(dir: &InstanceDir) -> Result<()> {
    let state = record(dir)?.instance.state;
    if matches!(state, State::Running | State::Pending | State::Stopping) {
        return Ok(());
    }
    Err(Error::refused(
        Code::IncorrectInstanceState,
        format!("{} is {}; 'spore start {0}' starts it", dir.id(), state.name()),
    ))
}

fn unreached(id: &InstanceId, port: u32, nobody: bool, patience: Duration) -> Error {
    let seconds = patience.as_secs_f64();
    Error::timeout(match nobody {
        true => format!(
            "nobody listens on port {port} of {id} within {seconds} s: by vsock its guest offers sshd with systemd 256 \
             and later; 'spore logs {id}' shows how far it is"
        ),
        false => format!(
            "the guest of {id} does not answer within {seconds} s: it has no driver for virtio-vsock, or not yet; \
             'spore logs {id}' shows how far it is"
        ),
    })
}
