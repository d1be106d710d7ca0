//! Directories of the host's that guests see, by virtio-fs: the server of one directory for one
//! guest, `spore __share`, a confined process beside the VMM.
//!
//! ```text
//! guest -- virtqueue --> device (spore-vmm) -- socket --> server (spore __share)
//!                          |  reads and writes open files    |  names, attributes, opening
//!                          +<-------- each open file --------+
//! ```
//!
//! The server's root is the shared directory. What the guest opens comes to the device as a
//! descriptor, which is all that the VMM has of the directory: data goes between the file and
//! guest memory without a process between them.

mod attributes;
mod confine;
pub mod fuse;
mod handles;
mod listing;
mod nodes;
mod server;
mod start;
mod tree;
pub mod wire;

pub use server::Server;
pub use start::{open_directory, start};

use crate::error::{Error, Result};
use crate::helper::{Ends, Given, Helper, Syscalls, not_ours};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use wire::{Answer, HELLO, MAX_BODY, Request};

/// Address space of a server, in bytes: what a guest can have it know takes a quarter.
const MEMORY: u64 = 1 << 30;
/// What a directory is noted with that the guest only reads.
const READ_ONLY: &str = "ro";

/// The server, with the socket of its device, noted with the instance, and the directory.
pub(crate) const HELPER: Helper = Helper {
    word: "__share",
    syscalls: Syscalls::OfADirectory,
    memory: MEMORY,
    seconds: None,
    ends: Ends::WithSocket,
    environment: &[],
    run,
};

fn run(files: Vec<Given>) -> Result<()> {
    let mut files = files.into_iter();
    let (socket, directory) = files.next().zip(files.next()).ok_or_else(not_ours)?;
    let read_only = directory.text()? == READ_ONLY;
    let (socket, root) = (OwnedFd::from(socket.file), OwnedFd::from(directory.file));
    let confined = confine::confine(&root, read_only);
    let why = confined.as_ref().err().map_or("", Error::message);
    let hello = Answer { number: HELLO, payload: why.as_bytes().to_vec(), ..Answer::default() };
    let reported = hello.send(&socket, None);
    confined?;
    match reported.and_then(|()| serve(socket.as_fd(), &mut Server::new(root, read_only))) {
        Ok(()) => Ok(()),
        Err(cause) => Err(Error::io("serve a shared directory", cause)),
    }
}

/// Serves until the device is gone.
///
/// # Errors
/// The socket fails.
pub fn serve(socket: BorrowedFd<'_>, server: &mut Server) -> io::Result<()> {
    loop {
        let packet = match wire::receive(socket, MAX_BODY) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            received => received?.0,
        };
        let Some(request) = Request::parse(&packet) else { continue };
        if let Some(answer) = server.serve(&request) {
            let file = server.file(&answer);
            answer.send(socket, file)?;
        }
    }
}
