//! One virtual machine in one process.

pub mod console;
pub mod control;
pub mod cpuid;
pub mod devices;
pub mod event;
pub mod gate;
mod layers;
pub mod machine;
mod menu;
pub mod payload;
pub mod pc;
pub mod pci;
pub mod regs;
pub mod report;
pub mod sandbox;
pub mod vcpu;

use crate::error::{Error, OrFail, Result};
use crate::plan::{BUILD, EndReason, PLAN_FD, PlanFd, Ready, SUBCOMMAND, VmPlan, VmReport};
use crate::sys::{fds, footprint, kvm};
use event::EventLoop;
use machine::Machine;
use report::Report;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use vcpu::Seat;

/// A plan is never longer than this.
const MAX_PLAN: u64 = 1 << 20;

/// The program `spore-vmm`, as the launcher starts it: `spore __vmm LABEL BUILD LAUNCHER`. If it is of another build than
/// its launcher it becomes that, which has a VMM of its own.
pub fn alone() -> ExitCode {
    let mut words = std::env::args_os().skip(2);
    let (label, build, launcher) = (words.next(), words.next(), words.next());
    if let (Some(label), Some(build), Some(launcher)) = (label, build, launcher)
        && build != BUILD
    {
        let error = Command::new(launcher).arg0("spore").arg(SUBCOMMAND).arg(label).exec();
        eprintln!("spore: spore-vmm is of another build, and cannot run the launcher: {error}");
        return ExitCode::FAILURE;
    }
    main()
}

/// The hidden command `__vmm`: be the machine whose plan is on [`PLAN_FD`].
///
/// The launcher hears of a failure on the `ready` pipe and from the report; without those, from stderr.
pub fn main() -> ExitCode {
    let plan = match read_plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("spore: the VMM has no plan: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    fds::close_all_but(&plan_fds(&plan));
    let report = match fds::take_file(plan.report) {
        Ok(file) => Arc::new(Report::new(file)),
        Err(error) => {
            eprintln!("spore: the VMM has no report: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    report_panics(&report);
    let ready = plan.ready.and_then(|fd| fds::take_file(fd).ok());
    let events = match assemble(plan, &report) {
        Ok(events) => events,
        Err(error) => fail(&report, ready, &error),
    };
    let mut seats = events.machine.run();
    let first = seats.remove(0); // every machine has one
    let told = report.clone();
    let serve = move || serve_events(events, seats, &told, ready);
    let thread = std::thread::Builder::new().name("events".into());
    match thread.spawn(serve).or_fail(|| "start the event thread") {
        Ok(_) => first.take(),
        Err(error) => fail(&report, None, &error),
    }
}

/// What does not run, ends.
fn fail(report: &Report, ready: Option<File>, error: &Error) -> ! {
    let message = error.to_string();
    report.ended(EndReason::VmmError, &message);
    report::ready(ready, &Ready::Failed { message });
    fds::exit_now(error.exit_code().into())
}

/// The event thread: it begins what the guest's first steps need not wait for.
fn serve_events(
    mut events: EventLoop,
    other_vcpus: Vec<Seat>,
    report: &Arc<Report>,
    ready: Option<File>,
) -> ! {
    let machine = &mut events.machine;
    let mut others = (1..).zip(other_vcpus);
    let started = others.try_for_each(|(index, seat)| seat.spawn(index));
    let started = started.and_then(|()| machine.add_devices(report));
    // Nothing of what the guest does is served before.
    if let Err(error) = started.and_then(|()| machine.confine_event_thread()) {
        fail(report, ready, &error);
    }
    report::ready(ready, &Ready::Running { engines: machine::engines(machine) });
    report.tell(&VmReport::Started { at: report::now_ms() });
    footprint::forget_code();
    let (reason, message) = events.run();
    events.finish(reason, &message)
}

/// Everything up to the moment at which the first vCPU runs.
fn assemble(plan: VmPlan, report: &Arc<Report>) -> Result<EventLoop> {
    footprint::one_allocation_arena();
    let signals = fds::signalfd(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    kvm::install_kick_handler()?;
    let control = plan.control.map(fds::take).transpose()?;
    let lock = plan.lock.map(fds::take).transpose()?;
    // The last file that this process opens by its name.
    let kvm = kvm::open()?;
    if plan.sandbox {
        sandbox::confine(report.raw_fd())?;
    }
    let machine = Machine::assemble(&kvm, plan)?;
    EventLoop::new(machine, report.clone(), control, lock, signals)
}

fn read_plan() -> Result<VmPlan> {
    let file = fds::take_file(PlanFd(PLAN_FD))?;
    let len = file.metadata().or_fail(|| "look at the plan")?.len();
    if len > MAX_PLAN {
        return Err(Error::failure(format!(
            "the plan is {len} bytes long; {MAX_PLAN} is the most"
        )));
    }
    let mut text = Vec::with_capacity(len as usize);
    // The launcher may have left its position at the end.
    std::io::Seek::rewind(&mut &file).or_fail(|| "rewind the plan")?;
    file.take(MAX_PLAN).read_to_end(&mut text).or_fail(|| "read the plan")?;
    serde_json::from_slice(&text).or_fail(|| "understand the plan")
}

/// Every descriptor that the plan names.
fn plan_fds(plan: &VmPlan) -> Vec<i32> {
    let single = [Some(plan.console), plan.control, Some(plan.report), plan.ready, plan.lock];
    let layers = plan.disks.iter().flat_map(|disk| disk.layers.iter().map(|layer| layer.fd));
    let holds = plan.disks.iter().filter_map(|disk| disk.hold);
    let single = single.into_iter().chain([plan.first_io]).flatten();
    single.chain(plan.boot.fds()).chain(layers).chain(holds).map(i32::from).collect()
}

/// A panic anywhere is the end, and is told.
fn report_panics(report: &Arc<Report>) {
    let report = report.clone();
    std::panic::set_hook(Box::new(move |info| {
        let message = info.to_string().replace('\n', " ");
        report.ended(EndReason::VmmError, &format!("the VMM failed: {message}"));
        fds::exit_now(101)
    }));
}
