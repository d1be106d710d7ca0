//! For unit tests: a port that is a socket.

use super::{Net, NetConfig, Port};
use crate::plan::NetLimits;
use crate::sys::tap::{HEADER, offload};
use crate::virtio::Notices;
use crate::virtio::device::Services;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// A port's end of a socket, and what it was told to leave undone, in order.
pub struct Socket {
    fd: OwnedFd,
    pub offloads: Arc<Mutex<Vec<u32>>>,
    /// What it does not know.
    pub unknown: u32,
    /// How often it was attached and detached.
    pub attached: Arc<Mutex<Vec<bool>>>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Port for Socket {
    fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        if offloads & self.unknown != 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.offloads.lock().unwrap().push(offloads);
        Ok(())
    }

    fn set_attached(&self, attached: bool) -> io::Result<()> {
        self.attached.lock().unwrap().push(attached);
        Ok(())
    }
}

/// The other end of a port.
pub struct Peer(pub OwnedFd);

/// A port and its other end.
pub fn socket() -> (Socket, Peer) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let port =
        Socket { fd: pair.0, offloads: Arc::default(), unknown: 0, attached: Arc::default() };
    (port, Peer(pair.1))
}

/// A host before Linux 6.2.
pub const NO_USO: u32 = offload::USO4 | offload::USO6;

/// The device in front of a port.
pub fn net(port: Socket, limits: NetLimits, notices: Notices) -> (Arc<Net>, Services) {
    several(vec![port], limits, notices)
}

/// The device in front of a port for each pair of queues.
pub fn several(ports: Vec<Socket>, limits: NetLimits, notices: Notices) -> (Arc<Net>, Services) {
    let mac = "02:00:00:00:00:01".parse().unwrap();
    let config = NetConfig { name: "eth0", mac, mtu: 9001, limits };
    let ports = ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
    Net::create(ports, &config, notices).unwrap()
}

impl Peer {
    /// Sends the guest a frame of these bytes without anything undone. False: there is no room for
    /// it.
    pub fn send(&self, frame: &[u8]) -> bool {
        let packet = [&[0; HEADER], frame].concat();
        rustix::io::write(&self.0, &packet).is_ok()
    }

    /// The header and frame that the guest has sent, if there is one.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 128 << 10];
        let len = rustix::io::read(&self.0, &mut bytes).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }
}
