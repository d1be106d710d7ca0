//! Process 1 of a network: on the host's network, it starts what the worker can't, and ends with
//! it. It reads nothing that a guest has sent.

use super::begin::{Beginning, say};
use super::channel::{self, Answer, Ask, MAX_ASK};
use super::log::Log;
use super::pasta::Pasta;
use super::{dns, worker};
use crate::control::network::Response;
use crate::error::{Error, OrFail, Result};
use crate::sys::fds;
use crate::sys::process::{Ended, Fork, fork};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

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
                if let Some(network) = came.pop().filter(|_| out) {
                    pasta = Some(Pasta::start(network.as_fd(), log)?);
                }
                Answer::Done
            }
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

fn resolvers() -> Vec<std::net::IpAddr> {
    let mut text = String::new();
    if let Ok(file) = File::open("/etc/resolv.conf") {
        let _ = file.take(MAX_RESOLVERS).read_to_string(&mut text);
    }
    dns::resolvers(&text)
}
