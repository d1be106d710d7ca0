//! Being in an instance: connections to its guest, and what OpenSSH has to know of it.

use super::Service;
use super::instances::{find, record};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::InstanceId;
use crate::instance::cloud_init;
pub use crate::instance::cloud_init::is_user;
use crate::instance::dir::{InstanceDir, KNOWN_HOSTS, save};
use crate::instance::reach::{Reached, Refusal, Tried, reach};
use crate::instance::reap::now_ms;
use crate::key;
use crate::record::instance::{Instance, State};
use crate::record::metadata::Endpoint;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a guest is given to answer the first call before it is called again; each later one is
/// given twice as long as that before it, for the guest may be slow.
const ANSWER: Duration = Duration::from_secs(5);
/// The longest that one call is waited for.
const LONGEST_ANSWER: Duration = Duration::from_secs(120);
/// Between calls of a port where nobody listens yet.
const PAUSE: Duration = Duration::from_millis(200);

/// What OpenSSH has to know of an instance.
#[derive(Clone, Debug)]
pub struct SshAccess {
    /// The instance.
    pub instance_id: InstanceId,
    /// Whom the guest lets in by the instance's key.
    pub login: Login,
    /// The file with the private half of its key pair, if that is in the store.
    pub identity: Option<PathBuf>,
    /// The file of host keys, for this instance alone.
    pub known_hosts: PathBuf,
    /// The guest has told its host keys on its console: another key is nobody's. Otherwise the
    /// first that is seen is believed.
    pub pinned: bool,
}

/// Whom a guest lets in by its instance's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Root: nobody but systemd tells the guest of the key.
    Root,
    /// This user: cloud-init has told so on the guest's console.
    User(String),
    /// Root, or the user of cloud-init's image, if the guest has cloud-init: it gets metadata.
    RootUnlessCloudInit,
}

impl Service {
    /// A connection to a port of a running instance's guest, for which it waits so long: by its
    /// socket device or, where nobody answers there, by the store's network that it is on.
    ///
    /// # Errors
    /// The instance is unknown or does not run; nobody listens there, or its guest does not answer,
    /// in time: by which ways, and why.
    pub fn dial(&self, instance_id: &str, port: u32, patience: Duration) -> Result<OwnedFd> {
        let dir = find(&self.store, instance_id)?;
        let deadline = Instant::now() + patience;
        let mut answer = ANSWER;
        loop {
            let instance = running(&dir)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let begun = Instant::now();
            let tried = match reach(&dir, &instance, port, left.min(answer))? {
                Reached::Connected(stream) => return Ok(stream),
                Reached::Not(tried) => tried,
            };
            // Who refuses at once is not slow.
            if begun.elapsed() >= answer {
                answer = (answer * 2).min(LONGEST_ANSWER);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.store.context().cancelled() {
                return Err(unreached(dir.id(), port, tried, patience));
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
        let instance = running(&dir)?;
        let owned = dir.owned()?;
        let identity = key::for_instance(&self.store, &instance)?;
        let cloud_init::Words { host_keys: keys, user } =
            cloud_init::words(&dir, instance.spore.forgotten)?;
        if !keys.is_empty() {
            let line = |key: &String| format!("{} {key}\n", dir.id());
            let lines: String = keys.iter().map(line).collect();
            let written = owned.replace(KNOWN_HOSTS, lines.as_bytes(), false);
            written.or_fail(|| format!("write {}", dir.file(KNOWN_HOSTS).display()))?;
        }
        Ok(SshAccess {
            instance_id: dir.id().clone(),
            login: match user {
                Some(user) => Login::User(user),
                None if has_metadata(&instance) => Login::RootUnlessCloudInit,
                None => Login::Root,
            },
            identity: identity.map(|file| file.path().to_owned()),
            known_hosts: dir.file(KNOWN_HOSTS),
            pinned: !keys.is_empty(),
        })
    }

    /// Lets go of what is known of an instance's guest by its console, which has been made to
    /// forget itself: it is another at its next boot.
    ///
    /// # Errors
    /// The instance is gone; its record can't be written.
    pub fn forget_guest(&self, found: &SshAccess) -> Result<()> {
        let dir = InstanceDir::new(&self.store, &found.instance_id);
        let doing = || format!("forget the host keys of {}", dir.id());
        if let Some(mut locked) = dir.lock()? {
            locked.record.instance.spore.forgotten = Some(now_ms());
            save(&mut locked)?;
        }
        dir.owned()?.remove_if_there(KNOWN_HOSTS).or_fail(doing)
    }
}

/// An instance's record, if it runs.
fn running(dir: &InstanceDir) -> Result<Instance> {
    let instance = record(dir)?.instance;
    let state = instance.state;
    if matches!(state, State::Running | State::Pending | State::Stopping) {
        return Ok(instance);
    }
    Err(Error::refused(
        Code::IncorrectInstanceState,
        format!("{} is {}; 'spore start {0}' starts it", dir.id(), state.name()),
    ))
}

/// Whether a guest may get the instance's key from its metadata.
fn has_metadata(instance: &Instance) -> bool {
    let own = instance.network_interfaces.iter().any(|each| each.private_ip_address.is_some());
    let served = own && instance.metadata_options.http_endpoint == Endpoint::Enabled;
    instance.spore.no_cloud || served
}

fn unreached(id: &InstanceId, port: u32, tried: Tried, patience: Duration) -> Error {
    let seconds = patience.as_secs_f64();
    let socket = match tried.socket {
        Refusal::Nobody => "nobody listens there by vsock, where systemd 256 and later offer sshd",
        Refusal::Silent => "by vsock its guest does not answer: it has no driver, or not yet",
    };
    let network = match tried.network {
        Some(Refusal::Nobody) => "nobody listens there on its network",
        Some(Refusal::Silent) => "on its network its guest does not answer",
        None => "it is on no network of the store's (run --network default)",
    };
    Error::timeout(format!(
        "port {port} of {id} was not reached within {seconds} s: {socket}; {network}; 'spore logs {id}' shows how far \
         it is; a guest with neither cloud-init nor systemd 252 takes no key from outside, and has only its serial line, \
         'spore console {id}'"
    ))
}
