//! The one that does what groups need: a loop in `spore serve`, in one process a store.
//!
//! Each round looks at a group's instances, has [`plan`] change the record, and does what that
//! says: intents are launched under their tokens, so that one that was launched by somebody who
//! died is found and not launched again; what is marked is terminated.

use super::find::{change, configurations, groups, now_ms, own};
use super::load::Samples;
use super::plan::{self, Seen, Sight};
use super::{activity, launch, policies, refresh, schedule};
use crate::context::{Cancel, Context};
use crate::error::{Error, OrFail, Result};
use crate::id::{AutoScalingGroupId, InstanceId};
use crate::instance::dir::InstanceDir;
use crate::record::autoscaling::{AutoScalingGroup, LifecycleState, Member};
use crate::record::instance::{InstanceRecord, State};
use crate::record::scaling::ActivityStatus;
use crate::service::instances::DescribeInstances;
use crate::service::shape::status::Check;
use crate::service::{Service, idempotent, instances};
use crate::store::Store;
use crate::store::beneath::Owned;
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// Who scales holds the lock of this file in this directory of the account's.
const DIRECTORY: &str = "auto-scaling";
const LOCK: &str = "lock";
/// By what verb it does what it does.
const VERB: &str = "auto scaling";
/// How often it is looked after groups, and where there are none.
const ROUND: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_millis(500);
/// How often guests are asked how they are.
const STATUS: Duration = Duration::from_secs(15);
/// How long the end of a group's instances is waited for.
const DELETION: Duration = Duration::from_secs(60);

/// What is remembered of a group between two rounds, and can be lost.
#[derive(Default)]
pub struct Memory {
    asked: Option<Instant>,
    samples: Samples,
}

/// Whether a process does what groups need.
pub fn runs(store: &Store) -> bool {
    let dir = Owned::open(&store.account_dir()).and_then(|dir| dir.dir(DIRECTORY));
    dir.and_then(|dir| dir.is_held(LOCK)).unwrap_or(false)
}

/// Does what groups need until it is cancelled. Where another process does it is waited for the end
/// of that.
pub fn run(home: &Path, context: &Context, cancel: &Cancel) {
    let mut memories: HashMap<AutoScalingGroupId, Memory> = HashMap::new();
    let (mut service, mut lock) = (None, None);
    while !cancel.requested() {
        let mut turn = |kept: Option<Service>| -> Result<(Service, bool)> {
            let service = match kept {
                Some(service) => service,
                None => Service::open_within(home, &context.clone().by_verb(VERB.into()))?,
            };
            // Taken before there is a group, so that who makes one sees that it will be kept.
            if lock.is_none() {
                lock = take_turn(&service.store)?;
            }
            let ids = groups(&service.store).own_ids()?;
            memories.retain(|id, _| ids.contains(id));
            for id in ids.iter().filter(|_| lock.is_some()).take_while(|_| !cancel.requested()) {
                // One that fails is tried again, and keeps none of the others.
                let memory = memories.entry(id.clone()).or_default();
                let _ = round(&service, id, memory);
            }
            Ok((service, !ids.is_empty()))
        };
        // A store that can't be read has no groups, and is opened again.
        let busy = match turn(service.take()) {
            Ok((kept, busy)) => {
                service = Some(kept);
                busy
            }
            Err(_) => false,
        };
        std::thread::sleep(if busy { ROUND } else { IDLE });
    }
}

/// The turn of who scales, unless another has it.
fn take_turn(store: &Store) -> Result<Option<File>> {
    let doing = || "wait for the turn to scale groups";
    let dir = store.account()?.make_dir(DIRECTORY).or_fail(doing)?;
    let file = dir.open_or_create(LOCK).or_fail(doing)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(cause) => Err(Error::io(doing(), cause)),
    }
}

/// Ends a group that is to be deleted where nobody else would.
///
/// # Errors
/// An instance can't be terminated.
pub fn finish_without_service(service: &Service, id: &AutoScalingGroupId) -> Result<()> {
    let Some(_turn) = take_turn(&service.store)? else { return Ok(()) };
    let (mut memory, deadline) = (Memory::default(), Instant::now() + DELETION);
    while groups(&service.store).exists(id) {
        if Instant::now() > deadline {
            return Err(Error::timeout("the group's instances did not end; delete it again"));
        }
        round(service, id, &mut memory)?;
    }
    Ok(())
}

/// Brings a group one step on.
///
/// # Errors
/// Its record can't be read or written.
pub fn round(service: &Service, id: &AutoScalingGroupId, memory: &mut Memory) -> Result<()> {
    let store = &service.store;
    let group = groups(store).get(id)?;
    let sight = look(service, &group, memory);
    let load = memory.samples.look(service, &group, now_ms());
    // Of a template that is gone the version stays as it was; its launches say so.
    let numbered = service.numbered(&group.launch).ok().filter(|source| *source != group.launch);
    let launch = group.launch;
    let group = change(store, id, |group| {
        let now = now_ms();
        if numbered.is_some() && group.launch == launch {
            group.spore.numbered = numbered;
        }
        plan::advance(group, &sight, now)?;
        schedule::advance(group, now);
        if policies::track(group, load, now) {
            memory.samples.clear();
        }
        refresh::advance(group, now)?;
        plan::balance(group, now)?;
        Ok(group.clone())
    })?;
    let waits = now_ms() < group.spore.retry_at;
    for member in group.instances.iter().filter(|member| member.instance_id.is_none()) {
        if waits && member.lifecycle_state == LifecycleState::Pending && !group.deleting {
            continue;
        }
        launch_one(service, &group, member)?;
    }
    for member in &group.instances {
        let ends = member.lifecycle_state == LifecycleState::Terminating || group.deleting;
        if let (true, Some(instance)) = (ends, &member.instance_id) {
            terminate_one(service, id, member, instance)?;
        }
    }
    if group.deleting {
        delete(store, id)?;
    }
    Ok(())
}

/// How a group's instances are.
fn look(service: &Service, group: &AutoScalingGroup, memory: &mut Memory) -> Sight {
    let mut sight = Sight::new();
    for id in group.instances.iter().filter_map(|member| member.instance_id.clone()) {
        let record = instances::record(&InstanceDir::new(&service.store, &id));
        let state = match record {
            Ok(record) => Some(record.instance.state),
            Err(error) if error.code() == Some(crate::error::Code::InvalidInstanceIDNotFound) => {
                None
            }
            // Nobody knows.
            Err(_) => continue,
        };
        sight.insert(id, Seen { state, impaired: false });
    }
    let due = memory.asked.is_none_or(|at| at.elapsed() > STATUS);
    let running: Vec<String> = sight
        .iter()
        .filter(|(_, seen)| seen.state == Some(State::Running))
        .map(|(id, _)| id.to_string())
        .collect();
    if due && !running.is_empty() && plan::does(group, "HealthCheck") {
        memory.asked = Some(Instant::now());
        let asked = DescribeInstances { instance_ids: running, filters: Vec::new() };
        for status in service.describe_instance_status(&asked, false).unwrap_or_default() {
            let failed = status.system == Check::Failed || status.instance == Check::Failed;
            if let Some(seen) = sight.get_mut(&status.record.instance.instance_id) {
                seen.impaired = failed;
            }
        }
    }
    sight
}

/// Launches what a member is the intent of, unless somebody has who died then.
fn launch_one(service: &Service, group: &AutoScalingGroup, member: &Member) -> Result<()> {
    let store = &service.store;
    let launched = idempotent::launched(store, &launch::client_token(&member.token))?;
    let wanted = member.lifecycle_state == LifecycleState::Pending && !group.deleting;
    let came = match launched.into_iter().next() {
        Some(record) => Ok(Some(record)),
        None if !wanted => Ok(None),
        None => launch::request(store, group, member)
            .and_then(|request| service.run_instances(&request))
            .map(|launched| launched.records.into_iter().next()),
    };
    let token = &member.token;
    change(store, &group.auto_scaling_group_id, |group| {
        let Some(at) = group.instances.iter().position(|one| one.token == *token) else {
            return Ok(());
        };
        match &came {
            Ok(Some(record)) => launched_as(group, at, record),
            Ok(None) => {
                let member = group.instances.remove(at);
                activity::end(group, &member.activity_id, ActivityStatus::Cancelled, None);
            }
            Err(error) => {
                let member = group.instances.remove(at);
                activity::end(group, &member.activity_id, ActivityStatus::Failed, Some(error));
                plan::failed(group, now_ms());
            }
        }
        Ok(())
    })?;
    came.map(drop)
}

/// Says which instance a member is.
fn launched_as(group: &mut AutoScalingGroup, at: usize, record: &InstanceRecord) {
    let instance = &record.instance;
    let Some(member) = group.instances.get_mut(at) else { return };
    member.instance_id = Some(instance.instance_id.clone());
    member.instance_type.clone_from(&instance.instance_type);
    member.image_id = Some(instance.image_id.clone());
    let activity_id = member.activity_id.clone();
    if member.lifecycle_state == LifecycleState::Pending {
        let description = format!("Launching a new EC2 instance: {}", instance.instance_id);
        activity::describe(group, &activity_id, &description);
    }
}

fn terminate_one(
    service: &Service,
    id: &AutoScalingGroupId,
    member: &Member,
    instance: &InstanceId,
) -> Result<()> {
    let gone = match service.terminate_instances(&[instance.to_string()]) {
        Ok(changes) => changes.into_iter().try_for_each(|change| change.map(drop)),
        Err(error) => Err(error),
    };
    let absent = Some(crate::error::Code::InvalidInstanceIDNotFound);
    let gone = gone.or_else(|error| if error.code() == absent { Ok(()) } else { Err(error) });
    gone?;
    change(&service.store, id, |group| {
        group.instances.retain(|one| one.instance_id.as_ref() != Some(instance));
        activity::end(group, &member.activity_id, ActivityStatus::Successful, None);
        Ok(())
    })
}

/// Removes a group without instances, and the launch configurations that were made for it.
fn delete(store: &Store, id: &AutoScalingGroupId) -> Result<()> {
    let locked = groups(store).lock(id)?;
    if !locked.record.instances.is_empty() {
        return Ok(());
    }
    let name = locked.record.auto_scaling_group_name.clone();
    locked.remove()?;
    let made = own(store, &configurations(store))?;
    let mut made = made.iter().filter(|one| one.made_for.as_deref() == Some(&name));
    made.try_for_each(|one| configurations(store).remove(&one.launch_configuration_id))
}
