//! Instances that are started again when they have ended, and when the host has started.

use super::{Service, instances};
use crate::error::Result;
use crate::helper::launcher;
use crate::instance::dir::{InstanceDir, VMM_LOG};
use crate::instance::{lifecycle, restart};
use crate::record::instance::{InstanceRecord, State};
use crate::record::restart::RestartPolicy;
use crate::sys::fds::null;
use crate::sys::process::spawn_with;
use std::ffi::OsString;
use std::os::fd::AsFd;

/// The verb, which nobody types, by which `spore` stays with an instance.
pub const HOLD: &str = "__hold";

impl Service {
    /// Stay by an instance, starting it again as its policy says, until that says no more.
    ///
    /// # Errors
    /// The instance is unknown, or can't be looked after.
    pub fn hold_instance(&self, instance_id: &str) -> Result<()> {
        restart::hold(&instances::find(&self.store, instance_id)?)
    }

    /// Change when an instance is started again, whether or not it runs.
    ///
    /// # Errors
    /// `InvalidParameterCombination`: it is gone when it ends.
    pub fn modify_restart_policy(
        &self,
        instance_id: &str,
        policy: RestartPolicy,
    ) -> Result<InstanceRecord> {
        let dir = instances::find(&self.store, instance_id)?;
        let record = restart::change(&dir, policy)?;
        self.have_held(&record);
        Ok(record)
    }

    /// Have a process stay by a running instance whose policy wants that. It is no reason to fail
    /// if none can be started: the instance runs.
    pub(super) fn have_held(&self, record: &InstanceRecord) {
        let instance = &record.instance;
        let runs = matches!(instance.state, State::Pending | State::Running);
        if instance.spore.restart.is_no() || !runs {
            return;
        }
        if let Err(error) = self.start_holder(record) {
            let id = &instance.instance_id;
            self.store.context().warn(format_args!("{id} won't be started again: {error}"));
        }
    }

    fn start_holder(&self, record: &InstanceRecord) -> Result<()> {
        let dir = InstanceDir::new(&self.store, &record.instance.instance_id);
        let null = null()?;
        let log = dir.open_log(VMM_LOG)?;
        let fds = [(null.as_fd(), 0), (null.as_fd(), 1), (log.as_fd(), 2)];
        let home = OsString::from("SPORE_HOME");
        let variable = |(name, value): (OsString, OsString)| {
            let mut variable = name;
            variable.push("=");
            variable.push(value);
            variable
        };
        let others = std::env::vars_os().filter(|(name, _)| *name != home);
        let own = (home.clone(), self.store.home().as_os_str().to_owned());
        let environment: Vec<OsString> = others.chain([own]).map(variable).collect();
        let words = ["spore", HOLD, dir.id().as_str()];
        spawn_with(&launcher()?, &words, &environment, &fds).map(drop)
    }

    /// Start what is to run when the host has started. What was started, and what could not be.
    ///
    /// # Errors
    /// The instances can't be listed.
    pub fn start_with_the_host(&self) -> Result<Vec<Result<InstanceRecord>>> {
        let wanted = self.wanted_with_the_host()?;
        let start = |record: &InstanceRecord| {
            let dir = InstanceDir::new(&self.store, &record.instance.instance_id);
            let change = lifecycle::start(&dir, true, None, false)?;
            self.have_held(&change.record);
            Ok(change.record)
        };
        Ok(wanted.iter().map(start).collect())
    }

    /// The running instances of this user that are started again.
    ///
    /// # Errors
    /// They can't be listed.
    pub fn held_instances(&self) -> Result<Vec<String>> {
        let listed = self.describe_instances(&Default::default())?;
        let is_held = |record: &&InstanceRecord| {
            record.owner_id == self.store.owner_id()
                && record.instance.state == State::Running
                && !record.instance.spore.restart.is_no()
        };
        let held = listed.iter().filter(is_held);
        Ok(held.map(|record| record.instance.instance_id.to_string()).collect())
    }

    /// The stopped instances of this user that are to run when the host has started.
    ///
    /// # Errors
    /// They can't be listed.
    pub fn wanted_with_the_host(&self) -> Result<Vec<InstanceRecord>> {
        let listed = self.describe_instances(&Default::default())?;
        let is_wanted = |record: &InstanceRecord| {
            let instance = &record.instance;
            let policy = instance.spore.restart;
            record.owner_id == self.store.owner_id()
                && instance.state == State::Stopped
                && policy.starts_with_the_host(instance.state_reason.as_ref())
        };
        Ok(listed.into_iter().filter(is_wanted).collect())
    }
}
