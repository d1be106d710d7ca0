//! DescribeInstanceStatus: whether the host and the guest do what they should.

use super::Service;
use super::instances::DescribeInstances;
use super::shape::status::{Check, InstanceStatus};
use crate::error::Result;
use crate::id::InstanceId;
use crate::instance::client;
use crate::instance::dir::InstanceDir;
use crate::instance::pool::parallel;
use crate::instance::readiness::{self, Stage};
use crate::instance::vpc;
use crate::record::instance::{InstanceRecord, State};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a guest may take to be heard of before that counts against it.
const BOOT: Duration = Duration::from_secs(300);

impl Service {
    /// EC2 DescribeInstanceStatus: of those named or all, those that run; `all` has the others,
    /// too. Guests are asked.
    ///
    /// # Errors
    /// As [`Service::describe_instances`]'s.
    pub fn describe_instance_status(
        &self,
        request: &DescribeInstances,
        all: bool,
    ) -> Result<Vec<InstanceStatus>> {
        let mut records = self.describe_instances(request)?;
        records.retain(|record| all || record.instance.state == State::Running);
        let dir =
            |record: &InstanceRecord| InstanceDir::new(&self.store, &record.instance.instance_id);
        Ok(parallel(&records, |record| status(&dir(record), record)))
    }

    /// The running instances that lack something which they were launched with: their network is
    /// not there and could not be started again, so that they run on without metadata, names or
    /// ports; or the server of a shared directory is gone.
    pub fn degraded(&self, records: &[InstanceRecord]) -> BTreeSet<InstanceId> {
        let running = || records.iter().filter(|record| record.instance.state == State::Running);
        let on = running().any(|record| vpc::is_on(&record.instance));
        let mut degraded = if on { vpc::unserved(&self.store) } else { BTreeSet::new() };
        let lost = |id: &InstanceId| {
            let status = client::status(&InstanceDir::new(&self.store, id));
            status.is_ok_and(|status| !status.lost_shares.is_empty())
        };
        let sharing = running().filter(|record| !record.instance.spore.shares.is_empty());
        let ids = sharing.map(|record| &record.instance.instance_id);
        degraded.extend(ids.filter(|id| lost(id)).cloned());
        degraded
    }

    /// How far an instance's guest is by its own word, as [`Stage::word`] has it: it is not asked.
    pub fn ready(&self, record: &InstanceRecord) -> &'static str {
        let dir = InstanceDir::new(&self.store, &record.instance.instance_id);
        let runs = record.instance.state == State::Running && !dir.is_anothers(record);
        let stage = if runs { readiness::stage_by_word(&dir, record) } else { Stage::Running };
        stage.word()
    }
}

/// The status of an instance. Another's is not asked.
fn status(dir: &InstanceDir, record: &InstanceRecord) -> InstanceStatus {
    let (record, without) = (record.clone(), Check::NotApplicable);
    if record.instance.state != State::Running {
        return InstanceStatus { record, system: without, instance: without, stage: None };
    }
    let Ok(vmm) = client::status(dir) else {
        // It is another's, or its end is seen by whoever looks next.
        let (system, instance) = (Check::Failed, Check::InsufficientData);
        return InstanceStatus { record, system, instance, stage: None };
    };
    let stage = readiness::stage(dir, &record);
    let heard = stage > Stage::Running;
    let early = Duration::from_millis(vmm.uptime_ms) < BOOT;
    let instance = judge(heard, early, vpc::is_on(&record.instance));
    InstanceStatus { record, system: Check::Passed, instance, stage: Some(stage) }
}

/// Whether a guest is reachable. Of one that is on no network, and has no driver for the socket
/// device, nothing can be known.
fn judge(heard: bool, early: bool, on_network: bool) -> Check {
    match (heard, early, on_network) {
        (true, ..) => Check::Passed,
        (false, true, _) => Check::Initializing,
        (false, false, true) => Check::Failed,
        (false, false, false) => Check::InsufficientData,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_against_a_guest_that_could_be_heard_and_has_had_its_time() {
        assert_eq!(judge(true, true, false), Check::Passed);
        assert_eq!(judge(false, true, true), Check::Initializing);
        assert_eq!(judge(false, false, true), Check::Failed);
        assert_eq!(judge(false, false, false), Check::InsufficientData);
    }
}
