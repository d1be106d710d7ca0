//! Staying with instances until they end, for whoever supervises by one process (systemd, Slurm, a
//! CI agent): their consoles are shown, a signal asks them to power off, and what does not within a
//! while is ended.

use super::Service;
use super::instances::record;
use crate::error::{Error, OrFail, Result};
use crate::instance::dir::{CONSOLE, InstanceDir};
use crate::instance::lifecycle;
use crate::instance::pool::parallel;
use crate::plan::{EndReason, VmReport};
use crate::record::image::RootDeviceType;
use crate::record::instance::{InstanceRecord, ShutdownBehavior};
use crate::sys::fds;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// A signal that comes so soon after one is the same: timeout(1) and others send two.
const SAME: Duration = Duration::from_secs(1);
/// How long the last of the consoles waits for who reads it, once a signal has ended the instances.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Most bytes of a console that are shown before the next one's.
const TURN: usize = 64 << 10;

/// How it is stayed with them.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long guests may take to power off before they are ended.
    pub stop_timeout: Duration,
    /// How long they may run before they are asked to power off.
    pub timeout: Option<Duration>,
}

/// Where signals come in: a byte each.
pub trait Signals {
    /// Readable when there is one.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Takes those that have come: the number of the last of them.
    fn take(&self) -> Option<i32>;
}

/// Where the consoles are shown.
pub trait Screen: Send {
    /// Shows the next bytes of one of them.
    ///
    /// # Errors
    /// Nobody looks any more.
    fn show(&mut self, index: usize, bytes: &[u8]) -> io::Result<()>;
    /// Shows what was held back: one of them is over.
    ///
    /// # Errors
    /// As [`Screen::show`].
    fn end(&mut self, index: usize) -> io::Result<()>;
}

/// Why it was not only the guests' doing that they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By this signal.
    Signal(i32),
    /// The time was up.
    Timeout,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// What asked for it, if it was not left to the guests.
    pub asked: Option<Asked>,
    /// The instances as they are left, in their order.
    pub records: Vec<InstanceRecord>,
    /// Those that were ended from outside: by another command, in the middle of their work.
    pub cut: Vec<usize>,
}

/// Stay with running instances until all have ended. `say` is told what happens, a line each.
///
/// # Errors
/// They can't be watched or looked at. Who gives up ends them by closing their lifeline.
pub fn stay(
    service: &Service,
    records: Vec<InstanceRecord>,
    terms: Terms,
    signals: &dyn Signals,
    screen: impl Screen + 'static,
    say: &dyn Fn(&str),
) -> Result<Ended> {
    let dir = |r: &InstanceRecord| InstanceDir::new(&service.store, &r.instance.instance_id);
    let dirs: &[InstanceDir] = &records.iter().map(dir).collect::<Vec<_>>();
    let consoles = Consoles::show(dirs, screen)?;
    let mut held = Held::new(dirs, records, terms, say)?;
    held.watch(signals)?;
    let asked = held.asked();
    consoles.finish(signals, asked.is_some().then_some(LAST_WORDS))?;
    let records = dirs.iter().map(record).collect::<Result<Vec<_>>>()?;
    let is_cut = |dir: &InstanceDir| {
        let last = dir.reports().unwrap_or_default().pop();
        matches!(last, Some(VmReport::Ended { reason: EndReason::Terminated, .. }))
    };
    let cut = match asked {
        Some(_) => Vec::new(),
        None => dirs.iter().enumerate().filter(|(_, dir)| is_cut(dir)).map(|(at, _)| at).collect(),
    };
    Ok(Ended { asked, records, cut })
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody has asked for it.
    Working,
    /// The guests were asked.
    Asked { by: Asked, at: Instant },
    /// They were ended.
    Cut { by: Asked },
}

/// What a [`Stage`] becomes by what happens: asked at first, and ended if that is told once more or
/// takes too long.
fn next(stage: Stage, reported: Option<Asked>, now: Instant, patience: Duration) -> Stage {
    match (stage, reported) {
        (Stage::Working, Some(by)) => Stage::Asked { by, at: now },
        (Stage::Asked { by, at }, Some(Asked::Signal(_))) if now - at >= SAME => Stage::Cut { by },
        (Stage::Asked { by, at }, _) if now - at >= patience => Stage::Cut { by },
        (stage, _) => stage,
    }
}

/// Instances that are stayed with.
struct Held<'a> {
    dirs: &'a [InstanceDir],
    records: Vec<InstanceRecord>,
    /// Those that have not ended, by index, and a descriptor of the process of each.
    living: Vec<(usize, OwnedFd)>,
    terms: Terms,
    stage: Stage,
    begun: Instant,
    say: &'a dyn Fn(&str),
}

impl<'a> Held<'a> {
    fn new(
        dirs: &'a [InstanceDir],
        records: Vec<InstanceRecord>,
        terms: Terms,
        say: &'a dyn Fn(&str),
    ) -> Result<Self> {
        let mut living = Vec::new();
        for (index, dir) in dirs.iter().enumerate() {
            // Our child: until we wait for it, its number is nobody else's.
            let pid = dir.recorded_pid().and_then(|pid| i32::try_from(pid).ok());
            let pid = pid.and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| Error::failure(format!("{} has no VMM", dir.id())))?;
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(process) => living.push((index, process)),
                // It has ended, and whoever started us ignores SIGCHLD.
                Err(rustix::io::Errno::SRCH) => {}
                Err(error) => {
                    return Err(error).or_fail(|| format!("watch the VMM of {}", dir.id()));
                }
            }
        }
        let (stage, begun) = (Stage::Working, Instant::now());
        Ok(Self { dirs, records, living, terms, stage, begun, say })
    }

    fn asked(&self) -> Option<Asked> {
        match self.stage {
            Stage::Working => None,
            Stage::Asked { by, .. } | Stage::Cut { by } => Some(by),
        }
    }

    /// Until all have ended.
    fn watch(&mut self, signals: &dyn Signals) -> Result<()> {
        while !self.living.is_empty() {
            self.wait(signals)?;
            let now = Instant::now();
            let signal = signals.take().map(Asked::Signal);
            let late = self.terms.timeout.is_some_and(|timeout| now - self.begun >= timeout);
            let reported =
                signal.or((late && self.stage == Stage::Working).then_some(Asked::Timeout));
            let before = self.stage;
            self.stage = next(before, reported, now, self.terms.stop_timeout);
            match self.stage {
                stage if stage == before => {}
                Stage::Working => {}
                Stage::Asked { by, .. } => self.ask(by),
                Stage::Cut { .. } => self.cut()?,
            }
        }
        Ok(())
    }

    /// Waits for a signal, an end or a time, and takes those that have ended off the list.
    fn wait(&mut self, signals: &dyn Signals) -> Result<()> {
        let due = match self.stage {
            Stage::Working => self.terms.timeout.map(|timeout| self.begun + timeout),
            Stage::Asked { at, .. } => Some(at + self.terms.stop_timeout),
            Stage::Cut { .. } => None,
        };
        let mut polled = vec![PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
        let processes = self.living.iter().map(|(_, process)| PollFd::new(process, PollFlags::IN));
        polled.extend(processes);
        wait(&mut polled, due)?;
        let over: Vec<bool> = polled[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut over = over.into_iter();
        self.living.retain(|_| !over.next().unwrap_or(false));
        Ok(())
    }

    fn living(&self) -> Vec<(&InstanceDir, &InstanceRecord)> {
        self.living.iter().map(|(index, _)| (&self.dirs[*index], &self.records[*index])).collect()
    }

    /// Presses the power buttons.
    fn ask(&self, by: Asked) {
        let patience = self.terms.stop_timeout.as_secs_f64();
        let why = match by {
            Asked::Signal(number) => signal_name(number),
            Asked::Timeout => "the time is up",
        };
        (self.say)(&format!(
            "{why}: power buttons are pressed, and plugs pulled after {patience} s"
        ));
        let press = |(dir, record): &(&InstanceDir, &InstanceRecord)| match goes_by_itself(record) {
            true => lifecycle::press_button(dir),
            false => lifecycle::ask_to_stop(dir).map(|_| ()),
        };
        for error in parallel(&self.living(), press).into_iter().filter_map(Result::err) {
            // It has ended, or is deaf: then its plug is pulled in time.
            (self.say)(&error.to_string());
        }
    }

    /// Pulls the plugs.
    fn cut(&self) -> Result<()> {
        let cut = |(dir, record): &(&InstanceDir, &InstanceRecord)| match goes_by_itself(record) {
            true => lifecycle::terminate(dir).map(|_| ()),
            false => lifecycle::force_stop(dir).map(|_| ()),
        };
        let living = self.living();
        let count = living.len();
        (self.say)(&format!("plugs pulled of guests that did not power off: {count}"));
        parallel(&living, cut).into_iter().collect()
    }
}

/// Whether a guest's power-off terminates the instance: then there is nothing to be asked of its
/// record before.
fn goes_by_itself(record: &InstanceRecord) -> bool {
    let instance = &record.instance;
    instance.root_device_type == RootDeviceType::InstanceStore
        || instance.instance_initiated_shutdown_behavior == ShutdownBehavior::Terminate
}

fn signal_name(number: i32) -> &'static str {
    match number {
        libc::SIGINT => "SIGINT",
        libc::SIGHUP => "SIGHUP",
        _ => "SIGTERM",
    }
}

/// poll(2) until `due`.
fn wait(polled: &mut [PollFd<'_>], due: Option<Instant>) -> Result<()> {
    let left = due.map(|due| due.saturating_duration_since(Instant::now()));
    fds::wait(polled, left).or_fail(|| "wait for instances")
}

/// The thread that shows consoles. Who does not read what it writes keeps nothing else from being
/// done.
struct Consoles {
    /// Closed when nothing more is said.
    over: OwnedFd,
    /// Ends when all is shown.
    shown: PipeReader,
    thread: JoinHandle<Result<()>>,
}

impl Consoles {
    fn show(dirs: &[InstanceDir], screen: impl Screen + 'static) -> Result<Self> {
        let doing = || "watch consoles";
        let (end, over) = io::pipe().or_fail(doing)?;
        let (shown, showing) = io::pipe().or_fail(doing)?;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = inotify::init(flags).or_fail(doing)?;
        let mut logs = Vec::new();
        for dir in dirs {
            let path = dir.file(CONSOLE);
            inotify::add_watch(&changes, &path, inotify::WatchFlags::MODIFY)
                .or_fail(|| format!("watch {}", path.display()))?;
            let log = dir.open_file(CONSOLE)?;
            logs.push(log.ok_or_else(|| Error::failure(format!("{} is gone", path.display())))?);
        }
        let follow = move || {
            let _showing = showing;
            follow(logs, &changes, &end, screen)
        };
        let thread = Builder::new().name("consoles".into()).spawn(follow).or_fail(doing)?;
        Ok(Self { over: over.into(), shown, thread })
    }

    /// Nothing more is said: waits until all is shown, or for a signal, or so long.
    fn finish(self, signals: &dyn Signals, patience: Option<Duration>) -> Result<()> {
        drop(self.over);
        let due = patience.map(|patience| Instant::now() + patience);
        let mut polled = [
            PollFd::new(&self.shown, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN),
        ];
        wait(&mut polled, due)?;
        match polled[0].revents().is_empty() {
            true => Ok(()),
            false => self.thread.join().unwrap_or(Ok(())),
        }
    }
}

/// Shows what the logs have and will have, until nothing is at the other end of `end`.
fn follow(
    mut logs: Vec<File>,
    changes: &OwnedFd,
    end: &PipeReader,
    mut screen: impl Screen,
) -> Result<()> {
    let mut over = false;
    let mut chunk = vec![0; TURN];
    loop {
        let mut more = false;
        for (index, log) in logs.iter_mut().enumerate() {
            let count = log.read(&mut chunk).or_fail(|| "read a console's log")?;
            more |= count > 0;
            if count > 0 && screen.show(index, &chunk[..count]).is_err() {
                // Nobody looks any more. The logs have it all, and the instances go on.
                return Ok(());
            }
        }
        if more {
            continue;
        }
        if over {
            break;
        }
        let mut polled = [
            PollFd::new(changes, PollFlags::IN),
            PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN),
        ];
        wait(&mut polled, None)?;
        over = !polled[1].revents().is_empty();
        // That something changed is all there is to know.
        let _ = rustix::io::read(changes, &mut [0u8; 4096]);
    }
    for index in 0..logs.len() {
        if screen.end(index).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_counts_after_a_second() {
        let (begin, patience) = (Instant::now(), Duration::from_secs(25));
        let after = |millis| begin + Duration::from_millis(millis);
        let (term, int) = (Asked::Signal(15), Asked::Signal(2));
        let asked = next(Stage::Working, Some(term), begin, patience);
        assert_eq!(asked, Stage::Asked { by: term, at: begin });
        for (reported, at, expected) in [
            (None, 999, asked),
            (Some(term), 999, asked),
            (Some(int), 1000, Stage::Cut { by: term }),
            (Some(Asked::Timeout), 2000, asked),
            (None, 24_999, asked),
            (None, 25_000, Stage::Cut { by: term }),
        ] {
            assert_eq!(
                next(asked, reported, after(at), patience),
                expected,
                "{reported:?} at {at}"
            );
        }
        assert_eq!(next(Stage::Working, None, after(99_999), patience), Stage::Working);
        let cut = Stage::Cut { by: int };
        assert_eq!(next(cut, Some(term), after(99_999), patience), cut);
    }
}
