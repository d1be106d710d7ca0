//! The protocol of a network's control socket, which is of type SOCK_SEQPACKET: a connection is one
//! [`Request`], a packet of JSON, and its [`Response`]. Descriptors go with the packets
//! (SCM_RIGHTS, unix(7)).

use crate::id::NetworkInterfaceId;
use crate::plan::network::{GroupRules, Port};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The longest packet, in bytes. (net.core.wmem_default is 208 KiB)
pub const MAX_PACKET: usize = 192 << 10;

/// What may be asked of a network's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request", deny_unknown_fields)]
pub enum Request {
    /// Have this interface, in place of what was known of it, and pass on what comes to the host's
    /// ports whose sockets come with this. The answer comes with its tap, a descriptor a queue;
    /// without one if the tap is in use, as it is after a restart.
    Add {
        /// The interface.
        port: Box<Port>,
        /// What each of the sockets is for.
        #[serde(default)]
        publish: Vec<Published>,
    },
    /// It has other names and metadata now. One that is not served has not.
    Update {
        /// The interface.
        interface: NetworkInterfaceId,
        /// Its names.
        names: Vec<String>,
        /// Its instance's metadata.
        metadata: serde_json::Value,
    },
    /// It is gone.
    Remove {
        /// The interface.
        interface: NetworkInterfaceId,
    },
    /// These are the rules of all security groups.
    Groups {
        /// The rules.
        groups: Vec<GroupRules>,
    },
    /// Connect to a port of an instance by TCP. The answer comes with the socket, or is
    /// [`Response::Refused`] or [`Response::Silent`].
    Connect {
        /// The instance's address.
        address: Ipv4Addr,
        /// Its port.
        port: u16,
        /// Milliseconds that the instance may take.
        patience: u32,
    },
    /// How is the network?
    Status {},
}

/// A bound socket of the host's, whose connections or packets an instance gets. It is closed with
/// the interface.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The instance's port.
    pub port: u16,
    /// The socket is a listening one of TCP; else one of UDP.
    pub tcp: bool,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "response")]
pub enum Response {
    /// Done. Descriptors come with it where that was asked for.
    Ok {},
    /// The instance says that nobody listens there.
    Refused {},
    /// The instance does not answer.
    Silent {},
    /// The answer to [`Request::Status`].
    Status(NetworkStatus),
    /// Refused, with the reason in one line.
    Error {
        /// The reason.
        message: String,
    },
}

/// How a network is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkStatus {
    /// Its interfaces.
    pub interfaces: Vec<NetworkInterfaceId>,
    /// There is a way out of it now.
    pub way_out: bool,
}
