//! The event thread: control socket, console, signals, and the machine's resets and end.

use crate::block;
use crate::control::{DiskStatus, Request, Response, Status};
use crate::error::{OrFail, Result};
use crate::plan::{DeviceId, EndReason, ResetBy};
use crate::sys::{eventfd, fault, fds, passing};
use crate::virtio::bucket::Bucket;
use crate::vmm::control::Control;
use crate::vmm::hibernate;
use crate::vmm::layers;
use crate::vmm::machine::Machine;
use crate::vmm::memory_file::Writing;
use crate::vmm::report::Report;
use crate::vmm::run_state::Stop;
use rustix::event::{PollFd, PollFlags};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// The console is served at most this often: output comes in batches, and pasted input no faster
/// than a guest's line discipline takes it.
const CONSOLE_TURN: Duration = Duration::from_millis(2);

/// Resets that a guest has at once, and then one a second: a kernel that reboots as soon as it
/// begins would keep a CPU of the host busy with nothing else.
const RESETS: (u64, u64) = (1, 20);

/// How long a reset waits for vCPUs, each of which may be resetting a device.
const RESET_PATIENCE: Duration = Duration::from_secs(30);
/// How long the end waits for them.
const END_PATIENCE: Duration = Duration::from_millis(300);

/// How long the end that a command asked for waits for the host's storage: less than that command
/// does before it kills.
const TERMINATED_CLOSING: Duration = Duration::from_secs(3);

/// Polled before the control socket's descriptors.
const OWN_FDS: usize = 5;

/// The event thread's state.
pub struct EventLoop {
    /// What it serves.
    pub machine: Machine,
    report: Arc<Report>,
    control: Control,
    lock: Option<OwnedFd>,
    outside: Outside,
    started: Instant,
    /// Resets that the guest may have.
    resets: Bucket,
    /// The guest's kernel has printed its panic banner since it last started.
    panicked: bool,
    console_served: Instant,
    console_due: bool,
    /// The machine on its way to its memory file.
    hibernating: Option<Arc<Writing>>,
    /// There is RAM to be written, by this thread as well as by others.
    helps: bool,
    /// Signalled when it has been written, or can't be.
    written: Arc<EventFd>,
}

/// What ends a machine from outside, beside a control request.
pub enum Outside {
    /// A signalfd: a signal does.
    Signals(File),
    /// A pipe: the end of the process that has its other end does. (VmPlan::lifeline)
    Lifeline(OwnedFd),
}

impl Outside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Signals(file) => file.as_fd(),
            Self::Lifeline(fd) => fd.as_fd(),
        }
    }

    /// What a machine's end by this is called.
    fn end(&self) -> (EndReason, String) {
        match self {
            Self::Signals(_) => (EndReason::Terminated, "a signal ended it".to_owned()),
            Self::Lifeline(_) => (EndReason::Orphaned, "its supervisor is gone".to_owned()),
        }
    }
}

/// What was ready.
struct Ready {
    console: bool,
    outside: bool,
    released: bool,
    control: Vec<PollFlags>,
}

impl EventLoop {
    /// Serve `machine`: `control` is its listening socket, `outside` ends it, `lock` is held until
    /// its end.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking; too many open files.
    pub fn new(
        machine: Machine,
        report: Arc<Report>,
        control: Option<OwnedFd>,
        lock: Option<OwnedFd>,
        outside: Outside,
    ) -> Result<Self> {
        let control =
            Control::new(control.map(UnixListener::from)).or_fail(|| "serve the control socket")?;
        let now = Instant::now();
        Ok(Self {
            machine,
            report,
            control,
            lock,
            outside,
            started: now,
            resets: Bucket::new(RESETS.0, RESETS.1),
            panicked: false,
            console_served: now,
            console_due: false,
            hibernating: None,
            helps: false,
            written: Arc::new(fds::eventfd().or_fail(|| "create an eventfd")?),
        })
    }

    /// Serve until the machine is over.
    pub fn run(&mut self) -> (EndReason, String) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => return (EndReason::VmmError, error.to_string()),
            };
            if ready.outside {
                return self.outside.end();
            }
            self.console_due |= ready.console;
            if self.console_due && self.console_served.elapsed() >= CONSOLE_TURN {
                self.serve_console();
            }
            if ready.released {
                self.machine.take_released(&self.report);
            }
            self.serve_control(&ready.control);
            self.serve_hibernation();
            match self.machine.barrier.take_stop(self.resets.wait().is_none()) {
                None => {}
                Some(Stop::Reset(by)) => {
                    self.resets.take(1);
                    if let Err(end) = self.reset(by) {
                        return end;
                    }
                }
                Some(Stop::End(reason, message)) => return self.judge(reason, message),
            }
        }
    }

    fn wait(&self) -> Result<Ready> {
        let mut polled = Vec::with_capacity(OWN_FDS + 4);
        for fd in [
            eventfd::as_fd(&self.machine.barrier.stopped),
            eventfd::as_fd(&self.machine.console.wake),
            self.outside.as_fd(),
            eventfd::as_fd(&self.written),
        ] {
            polled.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        polled.push(match &self.machine.hot {
            Some(hot) => PollFd::from_borrowed_fd(eventfd::as_fd(hot.ports.wake()), PollFlags::IN),
            None => PollFd::from_borrowed_fd(self.outside.as_fd(), PollFlags::empty()),
        });
        if self.console_due {
            // Nothing new is to be learned from it before its turn.
            polled[1] = PollFd::from_borrowed_fd(self.outside.as_fd(), PollFlags::empty());
        }
        for (fd, flags) in self.control.poll_fds() {
            polled.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let left = CONSOLE_TURN.saturating_sub(self.console_served.elapsed());
        let waits = [self.console_due.then_some(left), self.control.patience(), self.resets.wait()];
        let helps = self.helps.then_some(Duration::ZERO);
        let timeout = waits.into_iter().flatten().chain(helps).min();
        fds::wait(&mut polled, timeout).or_fail(|| "wait for events")?;
        let is = |n: usize| polled[n].revents().contains(PollFlags::IN);
        let control = polled[OWN_FDS..].iter().map(PollFd::revents).collect();
        Ok(Ready {
            console: is(1) && !self.console_due,
            outside: !polled[2].revents().is_empty(),
            released: is(4),
            control,
        })
    }

    fn serve_console(&mut self) {
        self.machine.console.acknowledge();
        self.console_due = false;
        self.console_served = Instant::now();
        let (bytes, panicked) = self.machine.console.flush();
        self.control.broadcast(&bytes);
        if panicked {
            self.panicked = true;
            self.report.notice("the guest's kernel panicked; its console says why");
        }
        // What is typed at a machine whose state is saved would be lost.
        if self.hibernating.is_none() {
            let serial = &self.machine.serial;
            self.control.feed(&mut |bytes| serial.input(bytes));
        }
    }

    fn serve_control(&mut self, ready: &[PollFlags]) {
        let (machine, report) = (&mut self.machine, &self.report);
        let (started, resets) = (self.started, report.resets());
        let (hibernating, written) = (&mut self.hibernating, &self.written);
        let answer = &mut |request: &Request, fds: Vec<OwnedFd>| match request {
            Request::Status {} => {
                Some(Response::Status(status(machine, started, resets, hibernating.is_some())))
            }
            Request::Terminate {} | Request::Console {} | Request::Wait {} => {
                Some(answer(machine, request))
            }
            _ if hibernating.is_some() => {
                let message = "it is being hibernated; start it again afterwards".to_owned();
                Some(Response::Error { message })
            }
            Request::Layers {} | Request::Freeze { .. } | Request::Rebase { .. } => {
                Some(layers::answer(machine, request, fds))
            }
            Request::Attach { .. } | Request::Detach { .. } => {
                Some(plug(machine, request, fds, report))
            }
            Request::Tap { interface } => Some(pass_tap(machine, interface, &fds)),
            Request::Hibernate {} => match hibernate::begin(machine, fds, written) {
                Ok(writing) => {
                    *hibernating = Some(writing);
                    None
                }
                Err(error) => Some(Response::Error { message: error.message().to_owned() }),
            },
            Request::PowerButton {} | Request::Reset {} => Some(answer(machine, request)),
        };
        self.control.serve(ready, answer);
        // Newly typed: offer it in the next turn. What the guest has no room for waits for it to
        // ask.
        self.console_due |= self.control.has_input() && ready.iter().any(|r| !r.is_empty());
    }

    /// Help with a machine on its way to its memory file, between two looks at who asks, and answer
    /// once it is there.
    fn serve_hibernation(&mut self) {
        let Some(writing) = &self.hibernating else { return };
        self.helps = writing.help();
        let Some(response) = hibernate::complete(&self.machine, writing) else { return };
        let _ = self.written.read();
        self.hibernating = None;
        self.control.answer_later(&response);
    }

    /// Reset the machine, or say why it ends instead.
    fn reset(&mut self, by: ResetBy) -> Result<(), (EndReason, String)> {
        if !self.machine.pause(RESET_PATIENCE) {
            let message =
                "cannot reset: a vCPU waits for the host's storage, which does not answer";
            return Err((EndReason::VmmError, message.to_owned()));
        }
        self.serve_console();
        if self.panicked && by != ResetBy::Control {
            return Err(self.judge(EndReason::GuestPanic, String::new()));
        }
        self.machine.take_leaving(&self.report);
        let failed = |error: crate::Error| (EndReason::VmmError, format!("cannot reset: {error}"));
        let chosen = self.machine.reset().map_err(failed)?;
        if let Some(chosen) = &chosen {
            self.report.notice(&chosen.message);
        }
        self.report.reset(by, chosen.and_then(|chosen| chosen.saved));
        self.panicked = false;
        self.machine.barrier.open();
        Ok(())
    }

    /// What the end is called: a panic explains a triple fault or a reset that comes after it.
    fn judge(&mut self, reason: EndReason, message: String) -> (EndReason, String) {
        self.serve_console();
        match reason {
            EndReason::TripleFault | EndReason::GuestPanic if self.panicked => {
                let message = "the guest's kernel panicked; its console says why".to_owned();
                (EndReason::GuestPanic, message)
            }
            _ => (reason, message),
        }
    }

    /// End the process. First what others wait for: devices come to rest, disks are durable, the
    /// report says how it ended, the lock is released. The kernel takes the VM apart after that, on
    /// nobody's time.
    pub fn finish(mut self, reason: EndReason, message: &str) -> ! {
        // A vCPU that does not come waits for a device, which is ended next.
        self.machine.pause(END_PATIENCE);
        self.serve_console();
        if self.hibernating.take().is_some() {
            let message = "it was ended before it was written".to_owned();
            self.control.answer_later(&Response::Error { message });
        }
        let terminated = reason == EndReason::Terminated;
        let patience = if terminated { TERMINATED_CLOSING } else { block::CLOSING };
        let closed = self.machine.close(&self.report, patience);
        self.machine.release();
        let lost = reason == EndReason::Hibernated && !closed;
        let (reason, message) = match lost {
            true => (EndReason::VmmError, "its disks could not be closed as it was hibernated"),
            false => (reason, message),
        };
        fault::vmm_point();
        self.report.ended(reason, message);
        fault::vmm_point();
        drop(self.lock.take());
        let failed = matches!(reason, EndReason::KvmError | EndReason::VmmError);
        fds::exit_now(i32::from(failed))
    }
}

fn status(machine: &Machine, started: Instant, resets: u32, hibernating: bool) -> Status {
    let cpus_online =
        if hibernating { machine.cpus_online_paused() } else { machine.cpus_online() };
    let disks = machine.disks().map(|disk| {
        let status = disk.device.status();
        (disk.id.clone(), DiskStatus { state: machine.disk_state(disk), ..status })
    });
    let slots = machine.config().devices.iter().map(|device| (device.id.clone(), device.slot));
    let interfaces = machine.interfaces().map(|(id, device)| (id.clone(), device.status()));
    Status {
        pid: std::process::id(),
        uptime_ms: started.elapsed().as_millis() as u64,
        resets,
        cpus_online,
        hibernating,
        disks: disks.collect(),
        slots: slots.collect(),
        interfaces: interfaces.collect(),
        lost_shares: machine.lost_shares(),
        notified: machine.notified(),
    }
}

/// Answer [`Request::Attach`] or [`Request::Detach`].
fn plug(
    machine: &mut Machine,
    request: &Request,
    fds: Vec<OwnedFd>,
    report: &Arc<Report>,
) -> Response {
    let done = match request {
        Request::Attach { disk, plan } => machine.attach(disk, plan, fds, report).map(drop),
        Request::Detach { disk, force } => machine.detach(disk, *force, report),
        _ => Ok(()),
    };
    match done {
        Ok(()) => Response::Ok {},
        Err(error) => Response::Error { message: error.message().to_owned() },
    }
}

/// Answer [`Request::Tap`].
fn pass_tap(machine: &Machine, interface: &DeviceId, to: &[OwnedFd]) -> Response {
    let passed = match (machine.tap(interface), to) {
        (Some(tap), [to]) => {
            passing::send_at_once(to, b"t", &[tap]).map_err(|error| error.to_string())
        }
        (None, _) => Err(format!("there is no interface {interface}")),
        _ => Err("a socket has to come with it".to_owned()),
    };
    match passed {
        Ok(()) => Response::Ok {},
        Err(message) => Response::Error { message },
    }
}

fn answer(machine: &Machine, request: &Request) -> Response {
    match request {
        Request::PowerButton {} => machine.power.press_button(),
        Request::Reset {} => machine.barrier.stop(Stop::Reset(ResetBy::Control)),
        Request::Terminate {} => {
            let message =
                "spore ended it (terminate, or a stop that the guest did not follow)".to_owned();
            machine.barrier.stop(Stop::End(EndReason::Terminated, message));
        }
        // The connection changes its nature once this is answered.
        Request::Console {} | Request::Wait {} => {}
        // Answered by others.
        Request::Status {}
        | Request::Hibernate {}
        | Request::Tap { .. }
        | Request::Attach { .. }
        | Request::Detach { .. }
        | Request::Layers {}
        | Request::Freeze { .. }
        | Request::Rebase { .. } => {}
    }
    Response::Ok {}
}
