//! The control socket's requests. (Protocol: [`crate::control::network`])

use super::forward;
use super::port::{make_tap, serve as serve_port, stop, update};
use super::shared::Shared;
use crate::control::network::{MAX_PACKET, Request, Response};
use crate::error::{Code, Error, OrFail, Result};
use crate::sys::fds;
use crate::sys::passing::{MAX_FDS, receive, send};
use rustix::net::{SocketFlags, accept_with};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Most connections at a time.
const MAX_CLIENTS: usize = 256;
/// A client says what it wants at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers whoever connects.
pub async fn accept(shared: Rc<Shared>, listener: OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let _ = rustix::io::ioctl_fionbio(&listener, true);
    let Ok(listener) = fds::awaited(listener) else { return };
    let mut clients = JoinSet::new();
    loop {
        let Ok(mut readable) = listener.readable().await else { return };
        let accepted = readable.try_io(|fd| Ok(accept_with(fd.get_ref(), flags)?));
        while clients.try_join_next().is_some() {}
        match accepted {
            Ok(Ok(client)) if clients.len() < MAX_CLIENTS => {
                clients.spawn_local(serve(shared.clone(), client));
            }
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            _ => {}
        }
    }
}

async fn serve(shared: Rc<Shared>, client: OwnedFd) {
    shared.busy.set(shared.busy.get() + 1);
    let _ = timeout(PATIENCE, answer(&shared, client)).await;
    shared.busy.set(shared.busy.get().saturating_sub(1));
}

async fn answer(shared: &Rc<Shared>, client: OwnedFd) -> io::Result<()> {
    let client = fds::awaited(client)?;
    let (packet, came) = loop {
        let mut readable = client.readable().await?;
        if let Ok(received) = readable.try_io(|fd| receive(fd.get_ref(), MAX_PACKET)) {
            break received?;
        }
    };
    let request = serde_json::from_slice(&packet).map_err(|error| {
        // Another version's.
        Error::refused(
            Code::UnsupportedOperation,
            format!(
                "the network's process was started by another spore and does not understand this: stop the network's \
                 instances, and start them again ({error})"
            ),
        )
    });
    let done = match request {
        Ok(request) => do_it(shared, request, came).await,
        Err(error) => Err(error),
    };
    let (response, fds) = match done {
        Ok((response, fds)) => (response, fds),
        Err(error) => (Response::Error { message: error.message().to_owned() }, Vec::new()),
    };
    let bytes = serde_json::to_vec(&response).map_err(io::Error::other)?;
    let fds: Vec<_> = fds.iter().take(MAX_FDS).map(AsFd::as_fd).collect();
    loop {
        let mut writable = client.writable().await?;
        if let Ok(sent) = writable.try_io(|fd| send(fd.get_ref(), &bytes, &fds)) {
            return sent.map(drop);
        }
    }
}

type Answered = (Response, Vec<OwnedFd>);

async fn do_it(shared: &Rc<Shared>, request: Request, came: Vec<OwnedFd>) -> Result<Answered> {
    let ok = |fds| Ok((Response::Ok {}, fds));
    match request {
        Request::Add { port, publish } => {
            let taps = make_tap(&port)?;
            let sockets = publish.into_iter().zip(came).collect();
            serve_port(shared, *port, sockets).await?;
            ok(taps)
        }
        Request::Update { interface, names, metadata } => {
            update(shared, &interface, names, metadata)?;
            ok(Vec::new())
        }
        Request::Remove { interface } => {
            if stop(shared, &interface).await.is_some() {
                shared.changed();
            }
            ok(Vec::new())
        }
        Request::Groups { groups } => {
            *shared.groups.borrow_mut() = groups;
            shared.changed();
            ok(Vec::new())
        }
        Request::Connect { address, port, patience } => {
            connect(address, port, Duration::from_millis(patience.into())).await
        }
        Request::Status {} => Ok((Response::Status(shared.status()), Vec::new())),
    }
}

async fn connect(address: Ipv4Addr, port: u16, patience: Duration) -> Result<Answered> {
    let stream = match forward::connect(address, port, patience.min(forward::CONNECT)).await {
        Ok(stream) => stream,
        Err(error) => {
            let without = |response| Ok((response, Vec::new()));
            return match error.kind() {
                ErrorKind::ConnectionRefused => without(Response::Refused {}),
                // Nobody there answers ARP, or what is asked.
                ErrorKind::TimedOut | ErrorKind::HostUnreachable => without(Response::Silent {}),
                _ => Err(error).or_fail(|| format!("connect to port {port} of {address}")),
            };
        }
    };
    let stream = stream.into_std().or_fail(|| "pass a connection")?;
    stream.set_nonblocking(false).or_fail(|| "pass a connection")?;
    Ok((Response::Ok {}, vec![stream.into()]))
}
