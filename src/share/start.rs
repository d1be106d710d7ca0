//! The launcher's side of a shared directory: the directory, and the start of its server.

use super::wire::{self, Answer, HELLO, MAX_PAYLOAD};
use super::{HELPER, READ_ONLY};
use crate::error::{Code, Error, OrFail, Result, one_line};
use crate::helper::{self, Child};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// A server is ready within milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is to be shared, as a place.
///
/// # Errors
/// It is not there, or no directory, or this user may not enter it: one line with a remedy.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| {
        let shown = path.display();
        let why = match errno {
            Errno::NOENT => {
                format!("there is no directory {shown} to share; make it, or share another")
            }
            Errno::NOTDIR => format!("{shown} is no directory, and only such are shared"),
            Errno::ACCESS => format!("this user may not enter {shown}; share another directory"),
            _ => return Error::io(format!("share {shown}"), errno),
        };
        Error::refused(Code::InvalidParameterValue, why)
    })
}

/// Starts the server of a directory for the guest that `label` names, and waits until it is
/// confined. It ends when the socket that is given back is closed by all that have it; that does
/// not block.
///
/// # Errors
/// No more processes; it can't be confined here.
pub fn start(directory: &OwnedFd, label: &str, read_only: bool) -> Result<(OwnedFd, Child)> {
    let doing = || "start the server of a shared directory";
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .or_fail(doing)?;
    let mode = if read_only { READ_ONLY } else { "" };
    let child = helper::start(
        &HELPER,
        &[(theirs.as_fd(), OsStr::new(label)), (directory.as_fd(), OsStr::new(mode))],
    )?;
    drop(theirs);
    set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE)).or_fail(doing)?;
    let (packet, _) = wire::receive(&ours, MAX_PAYLOAD).or_fail(doing)?;
    match Answer::parse(packet) {
        Some(Answer { number: HELLO, payload, .. }) if payload.is_empty() => {}
        Some(Answer { number: HELLO, payload, .. }) => {
            return Err(Error::failure(one_line(&String::from_utf8_lossy(&payload))));
        }
        _ => return Err(Error::failure("the server of a shared directory said nonsense")),
    }
    let flags = fcntl_getfl(&ours).or_fail(doing)?;
    fcntl_setfl(&ours, flags | OFlags::NONBLOCK).or_fail(doing)?;
    Ok((ours, child))
}
