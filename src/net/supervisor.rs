//! Process 1 of a network: on the host's network, it starts what the worker can't, and ends with
//! it. It reads nothing that a guest has sent.

use super::begin::{Beginning, say};
use super::channel::{self, Answer, Ask, MAX_ASK};
use super::log::Log;
use super::pasta::Pasta;
use super::{dns, worker};
use crate::control::network::Response;
use crate::error::{Error, OrFail, Result};
use crate::sys::process::{Ended, Fork, fork, in_fork};
use crate::sys::{fds, namespace};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// The longest resolv.conf that is read, in bytes.
const MAX_RESOLVERS: u64 = 64 << 10;

/// Runs a network until its worker ends.
pub fn run(beginning: Beginning) -> ExitCode {
    let Some(log) = Log::open() else { return ExitCode::from(125) };
    let ready = beginning.ready.try_clone();
    match begin(beginning, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.line(&error);
            if let Ok(ready) = ready {
                let message = error.message().to_owned();
                say(&ready, &Response::Error { message });
            }
            ExitCode::from(125)
        }
    }
}

fn begin(beginning: Beginning, log: &Log) -> Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .or_fail(|| "make a network's process")?;
    let mut worker = match fork()? {
        Fork::Child => {
            drop(ours);
            let code = worker::run(beginning, theirs);
            fds::exit_now(code)
        }
        Fork::Parent(worker) => worker,
    };
    drop(theirs);
    // The lock stays with both, and ends with the last.
    let Beginning { control, lock: _lock, ready, network, .. } = beginning;
    drop((control, ready, network));
    let served = serve(&ours, log);
    match worker.wait()? {
        Ended::Exit(0) => Ok(()),
        Ended::Exit(_) => served,
        Ended::Signal(signal) => {
            Err(Error::failure(format!("the worker was ended by signal {signal}")))
        }
    }
}

/// Does what the worker asks, one after the other, until it ends.
fn serve(worker: &OwnedFd, log: &Log) -> Result<()> {
    let children = fds::signalfd(&[libc::SIGCHLD])?;
    let mut network: Option<OwnedFd> = None;
    let mut pasta: Option<Pasta> = None;
    loop {
        let timeout = pasta.as_ref().and_then(Pasta::timeout);
        let mut ready = [
            PollFd::from_borrowed_fd(worker.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(children.as_fd(), PollFlags::IN),
        ];
        fds::wait(&mut ready, timeout).or_fail(|| "wait for a network's worker")?;
        let asked = !ready[0].revents().is_empty();
        let _ = (&children).read(&mut [0; 128]);
        if let Some(pasta) = &mut pasta {
            pasta.look(log);
        }
        if !asked {
            continue;
        }
        let doing = || "hear a network's worker";
        let (packet, mut came) = channel::receive_framed(worker, MAX_ASK).or_fail(doing)?;
        if packet.is_empty() {
            return Ok(());
        }
        let answer = match serde_json::from_slice(&packet).or_fail(doing)? {
            Ask::Namespace { out } => {
                network = came.pop();
                if let Some(network) = network.as_ref().filter(|_| out) {
                    pasta = Some(Pasta::start(network.as_fd(), log)?);
                }
                Answer::Done
            }
            Ask::Rules { script } => match network.as_ref().map(|n| rules(n.as_fd(), &script)) {
                Some(Ok(())) => Answer::Done,
                Some(Err(error)) => Answer::Failed(error.message().to_owned()),
                None => Answer::Failed("there is no network namespace".into()),
            },
            Ask::OtherWayOut => {
                if let Some(pasta) = &mut pasta {
                    pasta.again(log);
                }
                Answer::Done
            }
            Ask::Resolvers => Answer::Resolvers(resolvers()),
        };
        let answer = serde_json::to_vec(&answer).or_fail(doing)?;
        channel::send_framed(worker, &answer, &[]).or_fail(doing)?;
    }
}

/// Gives nft(8) a script in a network namespace.
fn rules(network: BorrowedFd<'_>, script: &str) -> Result<()> {
    let doing = || "set which packets pass";
    let mut input = fds::memfd("rules")?;
    input.write_all(script.as_bytes()).or_fail(doing)?;
    std::io::Seek::rewind(&mut input).or_fail(doing)?;
    let ended = in_fork(|| {
        if namespace::enter_network(network).is_err() {
            return 101;
        }
        let mut nft = Command::new("nft");
        // It takes this process's place, and is back only if it could not.
        let _ = nft.args(["-f", "-"]).stdin(Stdio::from(input)).stdout(Stdio::null()).exec();
        127
    })?;
    match ended {
        Ended::Exit(0) => Ok(()),
        Ended::Exit(127) => Err(Error::failure(
            "cannot set which packets pass: nft is not found; install it (package nftables)",
        )),
        ended => Err(Error::failure(format!(
            "cannot set which packets pass: nft failed ({ended:?}); the network's log has its words"
        ))),
    }
}

fn resolvers() -> Vec<std::net::IpAddr> {
    let mut text = String::new();
    if let Ok(file) = File::open("/etc/resolv.conf") {
        let _ = file.take(MAX_RESOLVERS).read_to_string(&mut text);
    }
    dns::resolvers(&text)
}
