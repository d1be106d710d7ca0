//! Hibernating a running instance.

use super::client;
use super::dir::{self, InstanceDir};
use super::hibernation::{self, MEMORY};
use super::lifecycle::{self, Change};
use super::reap;
use crate::control::Request;
use crate::error::{Error, OrFail, Result};
use crate::record::instance::{InstanceRecord, State};
use crate::store::Locked;
use crate::sys::fault;
use std::os::fd::AsFd;

/// Write a running instance's machine to its directory and end its VMM. One that is stopped stays
/// so.
///
/// # Errors
/// `UnsupportedHibernationConfiguration`, `IncorrectInstanceState`; no space, or its VMM can't: the
/// instance runs on.
pub fn hibernate(dir: &InstanceDir) -> Result<Change> {
    let mut locked = lifecycle::current(dir)?;
    let previous = locked.record.instance.state;
    match previous {
        State::Stopped => return Ok(Change { previous, record: locked.record.clone() }),
        State::Running => {}
        _ => return Err(lifecycle::incorrect_state(&locked, "hibernated; it must be running")),
    }
    hibernation::check_supported(&locked.record)?;
    locked.record.instance.state = State::Stopping;
    locked.record.instance.state_reason = Some(hibernation::reason());
    dir::save(&mut locked)?;
    if let Err(error) = write(dir) {
        if dir.vmm_alive()? {
            go_on(dir, &mut locked)?;
        } else {
            reap::settle_locked(dir, &mut locked)?;
        }
        return Err(error);
    }
    fault::point("end of a hibernated VMM");
    dir.await_vmm_end()?;
    fault::point("record of a hibernated instance");
    reap::settle_locked(dir, &mut locked)?;
    if locked.record.instance.spore.hibernated.is_none() {
        let why = locked.record.instance.state_reason.as_ref().map_or("", |reason| &reason.message);
        return Err(Error::failure(format!("{} stopped without its memory: {why}", dir.id())));
    }
    Ok(Change { previous, record: locked.record.clone() })
}

/// Have the VMM write its memory file.
fn write(dir: &InstanceDir) -> Result<()> {
    fault::point("making of a memory file");
    let file = dir.owned()?.create_anew(MEMORY, 0o600);
    let file = file.or_fail(|| format!("make {}", dir.file(MEMORY).display()))?;
    fault::point("hibernation of a VMM");
    client::ask_patiently(dir, &Request::Hibernate {}, &[file.as_fd()]).map(|_| ())
}

/// It runs on, as before.
fn go_on(dir: &InstanceDir, locked: &mut Locked<InstanceRecord>) -> Result<()> {
    locked.record.instance.state = State::Running;
    locked.record.instance.state_reason = None;
    dir::save(locked)?;
    hibernation::sweep(dir, &locked.record)
}
