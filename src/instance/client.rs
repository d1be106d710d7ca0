//! Talking to a running VMM over its control socket.

use super::dir::InstanceDir;
use crate::control::{MAX_LINE, Request, Response, Status};
use crate::error::{Error, OrFail, Result};
use crate::sys::passing;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A VMM answers at once; one that takes longer is as good as gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Send one request, and give the answer and the connection.
///
/// # Errors
/// No VMM listens, it does not answer in time, or it refuses.
pub fn ask(dir: &InstanceDir, request: &Request) -> Result<(Response, UnixStream)> {
    talk(dir, request, &[], Some(PATIENCE))
}

/// Send one request with descriptors, and give the answer.
///
/// # Errors
/// As [`ask`].
pub fn ask_with(dir: &InstanceDir, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Response> {
    talk(dir, request, fds, Some(PATIENCE)).map(|(response, _)| response)
}

/// As [`ask_with`], of what takes as long as it takes: until the VMM has answered or is gone.
///
/// # Errors
/// As [`ask`].
pub fn ask_patiently(
    dir: &InstanceDir,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<Response> {
    talk(dir, request, fds, None).map(|(response, _)| response)
}

fn talk(
    dir: &InstanceDir,
    request: &Request,
    fds: &[BorrowedFd<'_>],
    patience: Option<Duration>,
) -> Result<(Response, UnixStream)> {
    let (path, _dir) = dir.control_path()?;
    let doing = || format!("talk to the VMM of {}", dir.id());
    let mut stream = UnixStream::connect(&path).or_fail(doing)?;
    stream.set_read_timeout(patience).or_fail(doing)?;
    stream.set_write_timeout(Some(PATIENCE)).or_fail(doing)?;
    send(&mut stream, &request.to_line()?, fds).or_fail(doing)?;
    let response = match request {
        // What follows the line belongs to the console: read not one byte more.
        Request::Console {} => byte_by_byte(&mut stream),
        _ => buffered(&stream),
    }
    .or_fail(doing)?;
    stream.set_read_timeout(None).or_fail(doing)?;
    stream.set_write_timeout(None).or_fail(doing)?;
    match serde_json::from_slice(&response).or_fail(doing)? {
        Response::Error { message } => {
            Err(Error::failure(format!("{}: {}", dir.id(), request.explain(message))))
        }
        response => Ok((response, stream)),
    }
}

/// The descriptors go with the first byte.
fn send(stream: &mut UnixStream, line: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    if fds.is_empty() {
        return stream.write_all(line);
    }
    let sent = passing::send(&*stream, line, fds)?;
    stream.write_all(&line[sent..])
}

/// The state of a running VMM.
///
/// # Errors
/// As [`ask`].
pub fn status(dir: &InstanceDir) -> Result<Status> {
    match ask(dir, &Request::Status {})?.0 {
        Response::Status(status) => Ok(status),
        other => Err(Error::failure(format!("the VMM of {} answered {other:?}", dir.id()))),
    }
}

fn buffered(stream: &UnixStream) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE as u64)).read_until(b'\n', &mut line)?;
    Ok(line)
}

fn byte_by_byte(stream: &mut UnixStream) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_LINE && stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(line)
}
