//! A running machine into its memory file.

use crate::block::Disk;
use crate::control::Response;
use crate::error::{Error, OrFail, Result};
use crate::plan::EndReason;
use crate::vmm::machine::Machine;
use crate::vmm::memory_file::{self, Shape};
use crate::vmm::run_state::Stop;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// How long the vCPUs have to come to the barrier.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answer [`crate::control::Request::Hibernate`]. Once it is done the machine is over; if it can't be it runs on.
pub fn answer(machine: &Machine, fds: Vec<OwnedFd>) -> Response {
    let done = <[OwnedFd; 1]>::try_from(fds)
        .map_err(|_| Error::failure("one descriptor has to come with it"))
        .and_then(|[file]| hibernate(machine, &Arc::new(File::from(file))));
    match done {
        Ok(()) => {
            let message = "it is hibernated".to_owned();
            machine.barrier.stop(Stop::End(EndReason::Hibernated, message));
            Response::Ok {}
        }
        Err(error) => {
            machine.resume();
            machine.barrier.open();
            Response::Error { message: error.message().to_owned() }
        }
    }
}

fn hibernate(machine: &Machine, file: &Arc<File>) -> Result<()> {
    if !machine.pause(PATIENCE) {
        let why = "a vCPU waits for the host's storage, which does not answer";
        return Err(Error::failure(format!("cannot hibernate: {why}")));
    }
    if machine.barrier.is_stopping() {
        return Err(Error::failure("cannot hibernate: it is being reset, or ends"));
    }
    let parts = machine.save()?;
    // What they have written is on the medium before anything relies on it: at the end there is no way back.
    for disk in machine.disks() {
        disk.disk.close().or_fail(|| format!("make disk {} durable", disk.id))?;
    }
    let together = |work| machine.barrier.together(work);
    memory_file::write(file, Shape::of(&machine.plan().config), parts, machine.ram(), &together)
}
