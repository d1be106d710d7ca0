//! What all tasks of the worker share.

use super::askers::Askers;
use super::channel::{self, Answer, Ask, MAX_ASK};
use super::dns::Names;
use super::log::Log;
use super::netlink::Netlink;
use super::pasta::{ADDRESS, UPLINK};
use super::rules::Rules;
use crate::control::network::NetworkStatus;
use crate::error::{OrFail, Result};
use crate::id::NetworkInterfaceId;
use crate::metadata::Metadata;
use crate::metadata::token::Tokens;
use crate::plan::network::{GroupRules, NetworkPlan, Port, tap_name};
use socket2::Socket;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;

/// Packets that may wait for the way out: at the usual 1000 its ring loses some.
const UPLINK_QUEUE: u32 = 10_000;

/// How long pasta takes at most from an interface to its address.
const BEING_MADE: Duration = Duration::from_secs(2);

/// An interface that is served.
#[derive(Debug)]
pub struct Served {
    /// What it is.
    pub port: Port,
    /// Its services, which end with this.
    pub tasks: JoinSet<()>,
    /// Those of its instance metadata service.
    pub tokens: Arc<Tokens>,
    /// What that answers from, and its sockets.
    pub metadata: Option<ServedMetadata>,
}

/// The instance metadata service of an interface.
#[derive(Debug)]
pub struct ServedMetadata {
    /// What it answers from; it is served until this is dropped.
    pub newest: watch::Sender<Arc<Metadata>>,
    /// Its listening sockets.
    pub sockets: Vec<Socket>,
}

/// What all tasks of the worker share.
#[derive(Debug)]
pub struct Shared {
    /// What the network is.
    pub plan: NetworkPlan,
    /// The way to its interfaces.
    pub netlink: Netlink,
    /// What is told.
    pub log: Log,
    /// Its interfaces.
    pub served: RefCell<BTreeMap<NetworkInterfaceId, Served>>,
    /// Their names.
    pub names: RefCell<Names>,
    /// Which packets pass.
    pub rules: RefCell<Rules>,
    /// The rules of its security groups.
    pub groups: RefCell<Vec<GroupRules>>,
    /// Who asks the host's resolvers.
    pub askers: Askers,
    /// The host has IPv6.
    pub six: bool,
    /// Requests that are being answered.
    pub busy: Cell<usize>,
    /// The way to the supervisor.
    pub supervisor: Mutex<UnixStream>,
    /// The rules are to be made anew.
    pub stale: Notify,
    /// The kernel's count of interfaces may have changed, or ours.
    pub changed: Notify,
    /// The way out is there.
    pub way_out: Cell<bool>,
    /// Since when there is one with another address than it is to have.
    pub wrong_since: Cell<Option<Instant>>,
}

impl Shared {
    /// Asks the supervisor.
    ///
    /// # Errors
    /// It is gone.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer> {
        let doing = || "ask the supervisor";
        let packet = channel::framed(&serde_json::to_vec(ask).or_fail(doing)?);
        let mut supervisor = self.supervisor.lock().await;
        supervisor.write_all(&packet).await.or_fail(doing)?;
        let length = supervisor.read_u32().await.or_fail(doing)? as usize;
        let mut packet = vec![0; length.min(MAX_ASK)];
        supervisor.read_exact(&mut packet).await.or_fail(doing)?;
        serde_json::from_slice(&packet).or_fail(doing)
    }

    /// Has the rules of all interfaces hold.
    ///
    /// # Errors
    /// The kernel lacks a part of nf_tables.
    pub fn apply_rules(&self) -> Result<()> {
        let served = self.served.borrow();
        let ports = served.values().map(|served| &served.port);
        self.rules.borrow_mut().apply(self.plan.isolated, &self.groups.borrow(), ports)
    }

    /// The interfaces or their rules have changed.
    pub fn changed(&self) {
        let served = self.served.borrow();
        *self.names.borrow_mut() = Names::of(served.values().map(|served| &served.port));
        self.stale.notify_one();
        self.changed.notify_one();
    }

    /// Lets go of interfaces whose taps are gone, and looks after the way out. Whether nothing is
    /// left to serve.
    pub fn look(&self) -> bool {
        let Ok(names) = self.netlink.names() else { return false };
        let names: BTreeSet<String> = names.into_iter().collect();
        let before = self.served.borrow().len();
        self.served.borrow_mut().retain(|interface, _| names.contains(&tap_name(interface)));
        if self.served.borrow().len() < before {
            self.changed();
        }
        let up = names.contains(UPLINK);
        self.way_out.set(up && (self.way_out.get() || self.take_uplink().unwrap_or(false)));
        let wrong = up && !self.way_out.get();
        self.wrong_since.set(wrong.then(|| self.wrong_since.get().unwrap_or_else(Instant::now)));
        let taps = names.iter().any(|name| name.starts_with('t'));
        !taps && self.busy.get() == 0
    }

    /// Whether the way out has had a wrong address for longer than it is being made. It has as long
    /// again from now.
    pub fn uplink_is_wrong(&self) -> bool {
        let wrong = self.wrong_since.get().is_some_and(|since| since.elapsed() > BEING_MADE);
        if wrong {
            self.wrong_since.set(None);
        }
        wrong
    }

    /// Whether the way out is as it has to be: without a route of its own the host's pasta may have
    /// taken another address, in which instance metadata lies.
    fn take_uplink(&self) -> std::io::Result<bool> {
        let index = self.netlink.index(UPLINK)?;
        self.netlink.set_queue(index, UPLINK_QUEUE)?;
        self.netlink.has_address(index, ADDRESS.into())
    }

    /// How the network is.
    pub fn status(&self) -> NetworkStatus {
        let interfaces = self.served.borrow().keys().cloned().collect();
        NetworkStatus { interfaces, way_out: self.way_out.get() }
    }
}
