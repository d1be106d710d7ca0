//! For unit tests: the host's side of a socket device.

use super::Vsock;
use crate::virtio::device::Services;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

/// Where programs of the host reach the guest.
pub struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> (Self, Arc<Vsock>, Services) {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        let listener = UnixListener::bind(host.path()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let messages = seqpacket();
        bind(&messages, &host.messages()).unwrap();
        listen(&messages, 128).unwrap();
        let (device, services) = Vsock::create(listener.into(), messages).unwrap();
        (host, device, services)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("vsock.sock")
    }

    fn messages(&self) -> SocketAddrUnix {
        SocketAddrUnix::new(self.dir.path().join("vsock-seqpacket.sock")).unwrap()
    }

    /// A program that has come by the socket of SOCK_SEQPACKET and said this.
    pub fn say_message(&self, text: &str) -> OwnedFd {
        let socket = seqpacket();
        connect(&socket, &self.messages()).unwrap();
        rustix::io::write(&socket, text.as_bytes()).unwrap();
        socket
    }

    /// A program that has come and said this. `None`: too many wait to be let in.
    pub fn say(&self, text: &str) -> Option<UnixStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(self.path()).unwrap()).ok()?;
        rustix::io::write(&socket, text.as_bytes()).unwrap();
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        Some(stream)
    }
}

fn seqpacket() -> OwnedFd {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}
