//! Instances as they truly are: what a killed command or an ended VMM left is brought to its end by
//! whoever looks next.

use super::dir::{self, InstanceDir};
use super::{client, hibernation, lifecycle, reap};
use crate::error::Result;
use crate::record::instance::{InstanceRecord, State};
use std::time::Duration;

/// How long the record of a terminated instance can be seen, as on EC2.
pub const TOMBSTONE: Duration = Duration::from_secs(3600);

/// The instance's record as it truly is, brought up to date if its VMM is gone or its launcher
/// died. `None` if the instance is no more.
///
/// # Errors
/// The record can't be read or replaced.
pub fn refresh(dir: &InstanceDir) -> Result<Option<InstanceRecord>> {
    let Some(record) = dir.record()? else { return Ok(None) };
    // Another's is what its record says: nothing else of it is looked at, and nothing done about
    // it.
    if dir.is_anothers(&record) {
        return Ok(Some(record));
    }
    match record.instance.state {
        State::Stopped => return Ok(Some(record)),
        State::Terminated if !is_old(&record) => return Ok(Some(record)),
        State::Terminated => {}
        // Whoever launches, starts or terminates it holds the lock and will say how it went.
        _ if dir.is_locked()? => return Ok(Some(record)),
        State::Pending => {}
        // Whoever was terminating it is dead: what was begun is brought to its end.
        State::ShuttingDown => return lifecycle::terminate(dir).map(|c| Some(c.record)),
        State::Running | State::Stopping => {
            if dir.vmm_alive()? {
                if record.instance.state == State::Stopping
                    && hibernation::is_reason(record.instance.state_reason.as_ref())
                {
                    return went_on(dir, record).map(Some);
                }
                let reported = record.instance.state == State::Running
                    || record.instance.state_reason.is_some();
                if reported {
                    return Ok(Some(record));
                }
                return lifecycle::ask_to_stop(dir).map(|c| Some(c.record));
            }
        }
    }
    let Some(mut locked) = dir.lock()? else { return Ok(None) };
    reap::settle_locked(dir, &mut locked)?;
    if is_old(&locked.record) {
        locked.remove()?;
        return Ok(None);
    }
    Ok(Some(locked.record.clone()))
}

/// As [`refresh`]; who only looks gets the record as it is where it can't be brought up to date: in
/// a store on a read-only file system, say.
///
/// # Errors
/// As [`refresh`]'s.
pub fn seen(dir: &InstanceDir) -> Result<Option<InstanceRecord>> {
    match refresh(dir) {
        Err(error) if dir.store().context().reads() && error.is_denied() => dir.record(),
        refreshed => refreshed,
    }
}

/// Whoever was hibernating the instance is dead, and its VMM lives. If that is not at it any more,
/// it could not be hibernated and runs on.
fn went_on(dir: &InstanceDir, record: InstanceRecord) -> Result<InstanceRecord> {
    if !client::status(dir).is_ok_and(|status| !status.hibernating) {
        return Ok(record);
    }
    let Some(mut locked) = dir.lock()? else { return Ok(record) };
    let still = locked.record.instance.state == State::Stopping && dir.vmm_alive()?;
    if still && hibernation::is_reason(locked.record.instance.state_reason.as_ref()) {
        locked.record.instance.state = State::Running;
        locked.record.instance.state_reason = None;
        dir::save(&mut locked)?;
        hibernation::sweep(dir, &locked.record)?;
    }
    Ok(locked.record.clone())
}

fn is_old(record: &InstanceRecord) -> bool {
    let limit = u64::try_from(TOMBSTONE.as_millis()).unwrap_or(u64::MAX);
    let at = record.instance.spore.terminated_at;
    at.is_some_and(|at| reap::now_ms().saturating_sub(at) > limit)
}
