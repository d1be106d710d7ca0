//! For unit tests: the host's side of a socket device.

use super::Vsock;
use crate::virtio::device::Services;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
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
        let (device, services) = Vsock::create(listener.into()).unwrap();
        (host, device, services)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("vsock.sock")
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
