//! One virtual machine in one process.

mod cdrom;
pub mod component;
pub mod console;
pub mod control;
pub mod cpu_model;
pub mod cpuid;
pub mod devices;
pub mod event;
pub mod hibernate;
mod hotplug;
pub mod kvm_vm;
mod layers;
pub mod machine;
pub mod memory_file;
mod menu;
pub mod payload;
pub mod pc;
pub mod pci;
pub mod regs;
pub mod report;
pub mod resume;
pub mod run_state;
pub mod sandbox;
pub mod state;
pub mod vcpu;
pub mod vcpu_barrier;

use crate::error::{Error, OrFail, Result};
use crate::plan::{BUILD, EndReason, PLAN_FD, PlanFd, SUBCOMMAND, VmPlan, VmReport, VsockPlan};
use crate::sys::{fds, kvm, process, trim_memory};
use event::{EventLoop, Outside};
use machine::{Machine, MachineCore};
use report::Report;
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use vcpu::VcpuThread;

/// Address space for the event thread's stack; only what it touches costs memory.
const STACK: usize = 2 << 20;
/// A plan is never longer than this.
const MAX_PLAN: u64 = 1 << 20;

/// The program `spore-vmm`, as the launcher starts it: `spore __vmm LABEL BUILD LAUNCHER`. If it is
/// of another build than its launcher it becomes that, which has a VMM of its own.
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
/// The launcher hears of a failure on the `ready` pipe and from the report; without those, from
/// stderr.
pub fn main() -> ExitCode {
    process::survive_file_size_limit();
    let plan = match read_plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("spore: the VMM has no plan: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    fds::close_all_but(&plan_fds(&plan));
    let report = match fds::take_file(plan.report) {
        Ok(file) => {
            let ready = plan.ready.and_then(|fd| fds::take_file(fd).ok());
            Arc::new(Report::new(file, ready))
        }
        Err(error) => {
            eprintln!("spore: the VMM has no report: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    report_panics(&report);
    // No directory of the launcher's is kept busy. The root is always there.
    let _ = std::env::set_current_dir("/");
    match begin(plan, &report) {
        Ok(first) => first.run(),
        Err(error) => report.fail(&error),
    }
}

/// What the event thread holds and serves.
struct Ends {
    control: Option<OwnedFd>,
    lock: Option<OwnedFd>,
    outside: Outside,
}

/// Assemble the machine and begin the event thread; the thread of its first vCPU.
fn begin(plan: VmPlan, report: &Arc<Report>) -> Result<VcpuThread> {
    trim_memory::one_allocation_arena();
    // Blocked in any case: of one that has a lifeline they are not meant.
    let signals = fds::signalfd(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    let outside = match plan.lifeline {
        Some(fd) => Outside::Lifeline(fds::take(fd)?),
        None => Outside::Signals(signals),
    };
    kvm::install_kick_handler()?;
    let control = plan.control.map(fds::take).transpose()?;
    let lock = plan.lock.map(fds::take).transpose()?;
    // The last file that this process opens by its name.
    let kvm = kvm::open()?;
    if plan.sandbox {
        sandbox::confine(report.raw_fd())?;
    }
    let core = MachineCore::assemble(kvm, plan)?;
    let first = core.vcpu_thread(0);
    let (ends, reporter) = (Ends { control, lock, outside }, report.clone());
    let serve = move || match serve_events(core, ends, &reporter) {
        Ok(never) => never,
        Err(error) => reporter.fail(&error),
    };
    let thread = std::thread::Builder::new().name("events".into()).stack_size(STACK);
    thread.spawn(serve).map_err(|cause| process::not_started("start the event thread", cause))?;
    Ok(first)
}

/// The event thread: it makes what the guest's first steps need not wait for, and serves until the
/// end.
fn serve_events(core: MachineCore, ends: Ends, report: &Arc<Report>) -> Result<Infallible> {
    let machine = Machine::complete(core, report)?;
    let Ends { control, lock, outside } = ends;
    let mut events = EventLoop::new(machine, report.clone(), control, lock, outside)?;
    events.machine.confine_event_thread()?;
    report.running(machine::engines(&events.machine));
    report.tell(&VmReport::Started { at: report::now_ms() });
    trim_memory::forget_code();
    let (reason, message) = events.run();
    events.finish(reason, &message)
}

fn read_plan() -> Result<VmPlan> {
    let file = fds::take_file(PlanFd(PLAN_FD))?;
    let len = file.metadata().or_fail(|| "look at the plan")?.len();
    if len > MAX_PLAN {
        return Err(Error::failure(format!(
            "the plan is {len} bytes long; {MAX_PLAN} is the most"
        )));
    }
    let mut bytes = vec![0; len as usize];
    // The launcher may have left its position at the end.
    file.read_exact_at(&mut bytes, 0).or_fail(|| "read the plan")?;
    VmPlan::from_bytes(&bytes)
}

/// Every descriptor that the plan names.
fn plan_fds(plan: &VmPlan) -> Vec<i32> {
    let single = [Some(plan.console), plan.times, plan.control, Some(plan.report)];
    let single = single.into_iter().chain([plan.ready, plan.lock]);
    let config = &plan.config;
    let layers = config.disks().flat_map(|(_, disk)| disk.layers.iter().map(|layer| layer.fd));
    let holds = config.disks().filter_map(|(_, disk)| disk.hold);
    let taps = config.interfaces().flat_map(|(_, net)| net.taps.iter().copied());
    let sockets = config.sockets().flat_map(VsockPlan::listeners);
    let sockets = sockets.chain(config.shares().map(|share| share.server));
    let discs = config.cdroms().map(|(_, cdrom)| cdrom.disc);
    let single = single.chain([plan.first_io, plan.resume, plan.lifeline]).flatten();
    let devices = layers.chain(holds).chain(discs).chain(taps).chain(sockets);
    single.chain(config.boot.fds()).chain(devices).map(i32::from).collect()
}

/// A panic anywhere is the end, and is reported.
fn report_panics(report: &Arc<Report>) {
    let report = report.clone();
    std::panic::set_hook(Box::new(move |info| {
        let message = info.to_string().replace('\n', " ");
        report.ended(EndReason::VmmError, &format!("the VMM failed: {message}"));
        fds::exit_now(101)
    }));
}
