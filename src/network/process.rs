//! The process that holds a network while an instance is on it (`spore __net`): started when the
//! first one comes, and asked over its control socket. It ends by itself.

use super::collection::networks;
use crate::control::network::{MAX_PACKET, Request, Response};
use crate::error::{Error, OrFail, Result};
use crate::helper::launcher;
use crate::plan::network::{GroupRules, NetworkPlan};
use crate::record::vpc::{SecurityGroup, Vpc};
use crate::store::Store;
use crate::store::beneath::Owned;
use crate::sys::fds;
use crate::sys::passing::{receive, send};
use crate::sys::process::{Process, spawn_with};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    sockopt,
};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Where it listens.
const CONTROL: &str = "control";
/// Whose flock it holds.
const LOCK: &str = "net.lock";
/// Whose flock whoever gives it back its interfaces holds.
const REVIVING: &str = "reviving.lock";
/// What it has to tell.
const LOG: &str = "net.log";
/// A log that has become longer begins anew. Bytes.
const MAX_LOG: u64 = 1 << 20;
/// How long it may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is tried to reach one that is ending.
const TRIES: usize = 250;
/// Between two of them.
const TICK: Duration = Duration::from_millis(20);
/// Connections that may wait.
const BACKLOG: i32 = 256;
/// Where its programs are.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Asks the process of a network, with descriptors; it is started if there is none. `tap` gives a
/// tap of a network whose process was killed, if a VMM has one.
///
/// # Errors
/// It can't be started; it refuses.
pub fn ask(
    store: &Store,
    network: &Vpc,
    request: &Request,
    fds: &[BorrowedFd<'_>],
    tap: &dyn Fn() -> Option<OwnedFd>,
) -> Result<Vec<OwnedFd>> {
    for _ in 0..TRIES {
        start(store, network, tap)?;
        match talk(store, network, request, fds) {
            // It ended between the two.
            Err(error) if is_gone(&error) => std::thread::sleep(TICK),
            answered => return answered.map(|(_, fds)| fds),
        }
    }
    Err(Error::failure(format!("the process of network '{}' does not stay", network.spore.name)))
}

/// Asks the process of a network if there is one.
///
/// # Errors
/// It refuses, or does not answer.
pub fn ask_running(
    store: &Store,
    network: &Vpc,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<Option<(Response, Vec<OwnedFd>)>> {
    match talk(store, network, request, fds) {
        Err(error) if is_gone(&error) => Ok(None),
        answered => answered.map(Some),
    }
}

/// Whether the process of a network lives.
///
/// # Errors
/// The network is gone.
pub fn is_running(store: &Store, network: &Vpc) -> Result<bool> {
    let dir = directory(store, network)?;
    dir.is_held(LOCK).or_fail(|| format!("look after network '{}'", network.spore.name))
}

fn directory(store: &Store, network: &Vpc) -> Result<Owned> {
    let path = networks(store).dir(&network.vpc_id);
    Owned::open(&path).or_fail(|| format!("open {}", path.display()))
}

/// Whether an error says that nobody was there to answer.
fn is_gone(error: &Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            ErrorKind::NotFound
                | ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
                | ErrorKind::NotConnected
        )
    })
}

fn talk(
    store: &Store,
    network: &Vpc,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Response, Vec<OwnedFd>)> {
    let doing = || format!("ask the process of network '{}'", network.spore.name);
    let socket = reach(&directory(store, network)?).or_fail(doing)?;
    for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, direction, Some(PATIENCE)).or_fail(doing)?;
    }
    let packet = serde_json::to_vec(request).or_fail(doing)?;
    if packet.len() > MAX_PACKET {
        return Err(Error::failure(format!("cannot {}: the request is too long", doing())));
    }
    send(&socket, &packet, fds).or_fail(doing)?;
    let (packet, fds) = receive(&socket, MAX_PACKET).or_fail(doing)?;
    if packet.is_empty() {
        return Err(io::Error::from(ErrorKind::UnexpectedEof)).or_fail(doing);
    }
    match serde_json::from_slice(&packet).or_fail(doing)? {
        Response::Error { message } => {
            Err(Error::failure(format!("network '{}': {message}", network.spore.name)))
        }
        response => Ok((response, fds)),
    }
}

/// A connection to the process of the network whose directory this is.
fn reach(dir: &Owned) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    let address = SocketAddrUnix::new(dir.through(CONTROL))?;
    rustix::io::retry_on_intr(|| connect(&socket, &address))?;
    Ok(socket)
}

/// Removes the socket that a process has left.
///
/// # Errors
/// The network is gone.
pub fn clear(store: &Store, network: &Vpc) -> Result<()> {
    let left = |dir: &Owned| {
        reach(dir).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            && !dir.is_held(LOCK).unwrap_or(true)
    };
    if !left(&directory(store, network)?) {
        return Ok(());
    }
    // Who starts one holds this.
    let locked = networks(store).lock(&network.vpc_id)?;
    let dir = locked.owned();
    if left(dir) {
        dir.remove_if_there(CONTROL).or_fail(|| "remove a socket that is left")?;
    }
    Ok(())
}

fn seqpacket() -> io::Result<OwnedFd> {
    let kind = SocketType::SEQPACKET;
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(Into::into)
}

/// Starts the process of a network, unless there is one.
fn start(store: &Store, network: &Vpc, tap: &dyn Fn() -> Option<OwnedFd>) -> Result<()> {
    if is_running(store, network)? {
        return Ok(());
    }
    // Who starts it holds the network's lock: one does, and others wait.
    let locked = networks(store).lock(&network.vpc_id)?;
    let dir = locked.owned();
    let name = locked.record.spore.name.clone();
    let doing = || format!("start the process of network '{name}'");
    if dir.is_held(LOCK).or_fail(doing)? {
        return Ok(());
    }
    let lock = dir.open_or_create(LOCK).or_fail(doing)?;
    hold(&lock).or_fail(doing)?;
    dir.remove_if_there(CONTROL).or_fail(doing)?;
    let control = seqpacket().or_fail(doing)?;
    let path = dir.through(CONTROL);
    bind(&control, &SocketAddrUnix::new(&path).or_fail(doing)?)
        .map_err(io::Error::from)
        .or_fail(doing)?;
    let private = rustix::fs::chmod(&path, Mode::RUSR | Mode::WUSR);
    private.map_err(io::Error::from).or_fail(doing)?;
    listen(&control, BACKLOG).map_err(io::Error::from).or_fail(doing)?;
    let tap = tap();
    let plan = NetworkPlan {
        vpc_id: locked.record.vpc_id.clone(),
        cidr: locked.record.cidr_block,
        isolated: locked.record.spore.isolated,
        groups: rules(&locked.record.spore.security_groups),
        lives: tap.is_some(),
    };
    if !plan.isolated && !has("pasta") {
        let why = format!(
            "network '{name}' has no way out: pasta is not found; install it (package passt), or make the network with \
             --isolated"
        );
        store.context().warn(why);
    }
    let log = log(dir).or_fail(doing)?;
    let ready = spawn(&plan, [&control, &lock.into()], &log, tap.as_ref())?;
    let said = line(&ready, Instant::now() + PATIENCE).or_fail(doing)?;
    match serde_json::from_slice(&said) {
        Ok(Response::Ok {}) => Ok(()),
        Ok(Response::Error { message }) => Err(Error::failure(message)),
        _ => Err(Error::failure(format!(
            "cannot {}: it ended at once; see {}",
            doing(),
            dir.path().join(LOG).display()
        ))),
    }
}

/// Takes the lock of the process that is to be started. Whoever looks whether there is one holds it
/// for a moment.
fn hold(lock: &File) -> io::Result<()> {
    for _ in 0..TRIES {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(TICK),
            done => return done.map_err(Into::into),
        }
    }
    Err(ErrorKind::WouldBlock.into())
}

/// Only one at a time gives a network back what it was killed with: until this is dropped, or
/// another has had it for too long.
///
/// # Errors
/// The network is gone.
pub fn reviving(store: &Store, network: &Vpc) -> Result<File> {
    let doing = || format!("look after network '{}'", network.spore.name);
    let lock = directory(store, network)?.open_or_create(REVIVING).or_fail(doing)?;
    match hold(&lock) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error).or_fail(doing),
        _ => Ok(lock),
    }
}

/// Whether a program is where a network's process looks for it.
pub fn has(program: &str) -> bool {
    let mut places = PATH.trim_start_matches("PATH=").split(':');
    places.any(|place| std::path::Path::new(place).join(program).is_file())
}

/// The rules of security groups as the process takes them.
pub fn rules(groups: &[SecurityGroup]) -> Vec<GroupRules> {
    let rules = |group: &SecurityGroup| GroupRules {
        group: group.group_id.clone(),
        ingress: group.ip_permissions.clone(),
        egress: group.ip_permissions_egress.clone(),
    };
    groups.iter().map(rules).collect()
}

fn log(dir: &Owned) -> io::Result<File> {
    let log = dir.append(LOG)?;
    if log.metadata()?.len() > MAX_LOG {
        log.set_len(0)?;
    }
    Ok(log)
}

/// The pipe that it says into that it is ready.
fn spawn(
    plan: &NetworkPlan,
    [control, lock]: [&OwnedFd; 2],
    log: &File,
    tap: Option<&OwnedFd>,
) -> Result<File> {
    let doing = || "start the process of a network";
    let mut memory = fds::memfd("plan")?;
    memory.write_all(&serde_json::to_vec(plan).or_fail(doing)?).or_fail(doing)?;
    io::Seek::rewind(&mut memory).or_fail(doing)?;
    let (ready, theirs) = fds::pipe()?;
    let null = fds::null()?;
    let mut all = vec![
        (null.as_fd(), 0),
        (null.as_fd(), 1),
        (log.as_fd(), 2),
        (memory.as_fd(), NetworkPlan::FD),
        (control.as_fd(), NetworkPlan::CONTROL),
        (lock.as_fd(), NetworkPlan::LOCK),
        (theirs.as_fd(), NetworkPlan::READY),
    ];
    all.extend(tap.map(|tap| (tap.as_fd(), NetworkPlan::TAP)));
    let words = ["spore", NetworkPlan::SUBCOMMAND, plan.vpc_id.as_str()];
    let pid = spawn_with(&launcher()?, &words, &[PATH], &all)?;
    // What was started forks, and ends.
    let mut started = Process::new(pid)?;
    if started.wait_for(PATIENCE)?.is_none() {
        return Err(Error::failure("the process of a network does not start"));
    }
    Ok(ready)
}

/// One line of the pipe, or what came until it was closed.
fn line(mut pipe: &File, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < MAX_PACKET {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut ready = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
        fds::wait(&mut ready, Some(left))?;
        if ready[0].revents().is_empty() {
            continue;
        }
        let mut bytes = [0; 4096];
        match pipe.read(&mut bytes)? {
            0 => break,
            count => line.extend(&bytes[..count]),
        }
    }
    Ok(line)
}
