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
use crate::plan::{EndReason, PLAN_FD, PlanFd, Ready, VmPlan, VmReport};
use crate::sys::{fds, footprint, kvm};
use event::EventLoop;
use machine::Machine;
use report::Report;
use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

/// A plan is never longer than this.
const MAX_PLAN: u64 = 1 << 20;

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
    match start(plan, &report) {
        Ok(mut events) => {
            let engines = machine::engines(&events.machine);
            report::ready(ready, &Ready::Running { engines });
            report.tell(&VmReport::Started { at: report::now_ms() });
            footprint::forget_code();
            let (reason, message) = events.run();
            events.finish(reason, &message)
        }
        Err(error) => {
            let message = error.to_string();
            report.ended(EndReason::VmmError, &message);
            report::ready(ready, &Ready::Failed { message });
            fds::exit_now(error.exit_code().into())
        }
    }
}

/// Everything up to the moment at which the vCPUs run.
fn start(plan: VmPlan, report: &Arc<Report>) -> Result<EventLoop> {
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
    let machine = Machine::assemble(&kvm, plan, report)?;
    let events = EventLoop::new(machine, report.clone(), control, lock, signals)?;
    events.machine.run()?;
    // The guest need not wait for this: nothing of what it does is served before.
    events.machine.confine_event_thread()?;
    Ok(events)
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
