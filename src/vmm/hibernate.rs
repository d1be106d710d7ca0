//! A running machine into its memory file.

use crate::block::Disk;
use crate::control::Response;
use crate::error::{Error, OrFail, Result};
use crate::plan::EndReason;
use crate::sys::fault;
use crate::vmm::machine::Machine;
use crate::vmm::memory_file::{Shape, Writing};
use crate::vmm::run_state::Stop;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// How long the vCPUs have to come to the barrier.
const PATIENCE: Duration = Duration::from_secs(30);

/// Begin [`crate::control::Request::Hibernate`]: the vCPUs' threads write the machine, which stands
/// still, and signal `finished` then.
///
/// # Errors
/// It can't be hibernated, and runs on.
pub fn begin(
    machine: &Machine,
    fds: Vec<OwnedFd>,
    finished: &Arc<EventFd>,
) -> Result<Arc<Writing>> {
    let [file] = <[OwnedFd; 1]>::try_from(fds)
        .map_err(|_| Error::failure("one descriptor has to come with it"))?;
    if !machine.pause(PATIENCE) {
        // No device has been asked to rest, and the one that a vCPU waits for could not answer.
        machine.barrier.open();
        let why = "a vCPU waits for the host's storage, which does not answer";
        return Err(Error::failure(format!("cannot hibernate: {why}")));
    }
    write(machine, File::from(file), finished).inspect_err(|_| go_on(machine))
}

fn go_on(machine: &Machine) {
    machine.resume();
    machine.barrier.open();
}

/// Have the vCPUs' threads write the machine, which is paused.
fn write(machine: &Machine, file: File, finished: &Arc<EventFd>) -> Result<Arc<Writing>> {
    if machine.barrier.is_stopping() {
        return Err(Error::failure("cannot hibernate: it is being reset, or ends"));
    }
    fault::vmm_point();
    let parts = machine.save()?;
    fault::vmm_point();
    // What they have written is on the medium before anything relies on it: at the end there is no
    // way back.
    for disk in machine.disks() {
        disk.disk.close().or_fail(|| format!("make disk {} durable", disk.id))?;
    }
    fault::vmm_point();
    let shape = Shape::of(machine.config());
    let writing = Writing::begin(file, shape, parts, machine.ram(), finished.clone())?;
    let work = writing.clone();
    machine.barrier.assign(Arc::new(move || work.work()));
    Ok(writing)
}

/// What is answered once the machine is written, if it is. Then it is over; if it can't be written
/// it runs on.
pub fn complete(machine: &Machine, writing: &Writing) -> Option<Response> {
    let outcome = writing.outcome()?;
    machine.barrier.unassign();
    Some(match outcome {
        Ok(()) => {
            fault::vmm_point();
            let message = "it is hibernated".to_owned();
            machine.barrier.stop(Stop::End(EndReason::Hibernated, message));
            Response::Ok {}
        }
        Err(error) => {
            go_on(machine);
            Response::Error { message: error.message().to_owned() }
        }
    })
}
