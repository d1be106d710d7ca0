//! How far a guest is, by what it says and does itself.

use super::client;
use super::console::{CLOUD_INIT, ConsoleWatch, PROMPT};
use super::dial::{Call, call, is_ssh};
use super::dir::InstanceDir;
use super::reach::{Calls, Reached, SSH, has_ssh, reach};
use super::vpc;
use crate::error::Result;
use crate::record::instance::{Instance, InstanceRecord};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// A port at which nobody is expected: the guest's kernel refuses it.
const NOBODYS: u16 = 1;
/// Between looks at a guest, which cost it something.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a guest has for its answer to one of them.
const ANSWER: Duration = Duration::from_millis(500);
/// How long a connection is kept at whose other end nobody speaks.
const SLOWEST: Duration = Duration::from_secs(120);
/// What systemd says when it has started everything. (sd_notify(3))
const READY: (&str, &str) = ("READY", "1");

/// What a guest can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Its kernel is up: it answers by its socket device, or there is a login prompt.
    Boot,
    /// Its console shows a login prompt.
    Login,
    /// It answers on the store's network that it is on.
    Network,
    /// Its sshd says its version.
    Ssh,
    /// Its systemd has started everything.
    Systemd,
    /// cloud-init has ended.
    CloudInit,
    /// Somebody listens on this port.
    Port(u32),
}

/// How far a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its vCPUs run, and nothing has been heard.
    Running,
    /// Its kernel is up.
    Boot,
    /// It answers on its network.
    Network,
    /// Its console shows a login prompt.
    Login,
    /// Its sshd answers.
    Ssh,
    /// Its systemd has started everything.
    Systemd,
}

impl Stage {
    /// It in a word, as what is waited for has it; `-` if there is none.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "-",
            Self::Boot => "boot",
            Self::Network => "network",
            Self::Login => "login",
            Self::Ssh => "ssh",
            Self::Systemd => "systemd",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "nothing has been heard of its guest",
            Self::Boot => "its guest's kernel is up",
            Self::Network => "its guest answers on its network",
            Self::Login => "its console shows a login prompt",
            Self::Ssh => "its sshd answers",
            Self::Systemd => "its systemd has started everything",
        })
    }
}

/// Looks at one running guest until it is as wanted.
#[derive(Debug)]
pub struct Probe {
    goal: Goal,
    prompt: ConsoleWatch,
    cloud_init: ConsoleWatch,
    next: Option<Instant>,
    /// Connections to sshd's port at which nobody has spoken yet, and since when they are open.
    calls: Option<(Calls, Instant)>,
}

impl Probe {
    /// For this goal of a running instance.
    pub fn new(record: &InstanceRecord, goal: Goal) -> Self {
        let start = record.instance.spore.console_start;
        let watch = |pieces| ConsoleWatch::new(start, pieces);
        let (prompt, cloud_init) = (watch(PROMPT), watch(CLOUD_INIT));
        Self { goal, prompt, cloud_init, next: None, calls: None }
    }

    /// Whether it is so. The guest itself is asked now and then only.
    ///
    /// # Errors
    /// Its console's log can't be read; its network is waited for, and it is on none.
    pub fn reached(&mut self, dir: &InstanceDir, instance: &Instance) -> Result<bool> {
        match self.goal {
            Goal::Login => return self.prompt.seen(dir),
            Goal::CloudInit => return self.cloud_init.seen(dir),
            Goal::Boot if self.prompt.seen(dir)? => return Ok(true),
            _ => {}
        }
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return Ok(false);
        }
        self.next = Some(now + PAUSE);
        // Its VMM may end at any time, which its record says then.
        Ok(match self.goal {
            Goal::Boot => answers(dir),
            Goal::Network => on_network(dir, instance)?,
            Goal::Ssh => self.ssh(dir, instance),
            Goal::Systemd => is_ready(&notified(dir)),
            Goal::Port(port) => {
                matches!(reach(dir, instance, port, ANSWER), Ok(Reached::Connected(_)))
            }
            Goal::Login | Goal::CloudInit => false,
        })
    }

    /// Whether an SSH server answers. One that takes longer than a look to begin is not called anew
    /// by the next, for that would only begin another.
    fn ssh(&mut self, dir: &InstanceDir, instance: &Instance) -> bool {
        let kept = self.calls.take();
        let kept = kept.filter(|(calls, since)| !calls.is_over() && since.elapsed() < SLOWEST);
        let begin = || Calls::of_ssh(dir, instance, ANSWER).map(|calls| (calls, Instant::now()));
        let Some((mut calls, since)) = kept.or_else(|| begin().ok()) else { return false };
        match calls.speaker(ANSWER) {
            Some(stream) => is_ssh(stream, ANSWER).unwrap_or(false),
            None => {
                self.calls = Some((calls, since));
                false
            }
        }
    }
}

/// How far a running guest is.
pub fn stage(dir: &InstanceDir, record: &InstanceRecord) -> Stage {
    let (instance, said) = (&record.instance, notified(dir));
    let prompt = || {
        let mut watch = ConsoleWatch::new(instance.spore.console_start, PROMPT);
        watch.seen(dir).unwrap_or(false)
    };
    match () {
        () if is_ready(&said) => Stage::Systemd,
        () if has_ssh(dir, instance, ANSWER).unwrap_or(false) => Stage::Ssh,
        () if prompt() => Stage::Login,
        () if vpc::is_on(instance) && on_network(dir, instance).unwrap_or(false) => Stage::Network,
        () if !said.is_empty() || answers(dir) => Stage::Boot,
        () => Stage::Running,
    }
}

/// How far a running guest is by what it has said so far.
pub fn stage_by_word(dir: &InstanceDir, record: &InstanceRecord) -> Stage {
    let said = notified(dir);
    let prompt = || {
        let mut watch = ConsoleWatch::new(record.instance.spore.console_start, PROMPT);
        watch.seen(dir).unwrap_or(false)
    };
    match () {
        () if is_ready(&said) => Stage::Systemd,
        () if prompt() => Stage::Login,
        () if !said.is_empty() => Stage::Boot,
        () => Stage::Running,
    }
}

/// What systemd has said.
fn notified(dir: &InstanceDir) -> BTreeMap<String, String> {
    client::status(dir).map(|status| status.notified).unwrap_or_default()
}

fn is_ready(said: &BTreeMap<String, String>) -> bool {
    said.get(READY.0).is_some_and(|value| value == READY.1)
}

/// Whether the guest's kernel answers.
fn answers(dir: &InstanceDir) -> bool {
    matches!(call(dir, NOBODYS.into(), ANSWER), Ok(Call::Connected(_) | Call::Nobody))
}

/// Whether the guest answers on its network: by a refusal, too. Where a firewall of its own lets
/// little pass, sshd is what that is.
fn on_network(dir: &InstanceDir, instance: &Instance) -> Result<bool> {
    for port in [NOBODYS, SSH] {
        if !matches!(vpc::connect(dir.store(), instance, port, ANSWER)?, Call::Silent) {
            return Ok(true);
        }
    }
    Ok(false)
}
