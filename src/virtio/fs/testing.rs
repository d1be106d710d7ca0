//! For unit tests: a shared directory and its server, which is a thread.

use super::Fs;
use crate::share::{self, Server, open_directory};
use crate::virtio::Notices;
use crate::virtio::device::Services;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// A directory that is shared.
pub struct Share {
    dir: tempfile::TempDir,
    /// The server's end.
    server: OwnedFd,
    device: OwnedFd,
}

impl Share {
    pub fn new() -> Self {
        Self::with(false)
    }

    pub fn with(read_only: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flags = SocketFlags::CLOEXEC;
        let (device, server) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        rustix::io::ioctl_fionbio(&device, true).unwrap();
        let root = open_directory(dir.path()).unwrap();
        let socket = server.try_clone().unwrap();
        std::thread::spawn(move || {
            let _ = share::serve(socket.as_fd(), &mut Server::new(root, read_only));
        });
        Self { dir, server, device }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The device in front of it.
    pub fn device(&self, notices: Notices) -> (Arc<Fs>, Services) {
        Fs::create("share0", self.device.try_clone().unwrap(), notices)
    }

    /// The server ends.
    pub fn end(&self) {
        shutdown(&self.server, Shutdown::Both).unwrap();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.end();
    }
}
