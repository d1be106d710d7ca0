//! Groups and launch configurations by their names, and how their records are changed.

use crate::error::{Code, Error, Result};
use crate::id::{AutoScalingGroupId, InstanceId};
use crate::record::autoscaling::{AutoScalingGroup, LaunchConfiguration, Member};
use crate::store::time::since_epoch;
use crate::store::{Collection, Durability, Record, Store};

/// Most characters of a name.
const MAX_NAME: usize = 255;

/// What is wrong with a request, as Auto Scaling says it.
pub fn validation(why: impl Into<String>) -> Error {
    Error::refused(Code::ValidationError, why)
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// A uuid. (RFC 9562, version 4)
pub fn uuid() -> Result<String> {
    let mut hex = crate::id::random_hex(32)?;
    hex.replace_range(12..13, "4");
    hex.replace_range(16..17, "8");
    let part = |range| hex.get(range).unwrap_or_default();
    Ok([part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-"))
}

/// # Errors
/// `ValidationError`: it can't be the name of a group, a configuration, a policy or an action.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let fits = (1..=MAX_NAME).contains(&name.chars().count());
    let bad = |c: char| c.is_control() || matches!(c, ':' | '/' | '*' | '?');
    if fits && !name.contains(bad) && name.trim() == name && !name.starts_with('-') {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(100).collect();
    Err(validation(format!(
        "'{shown}' is no name of {what}: give 1 to {MAX_NAME} characters without any of : / * ? and \
         control characters"
    )))
}

/// The groups of a store.
pub fn groups(store: &Store) -> Collection<AutoScalingGroup> {
    store.collection()
}

/// The launch configurations of a store.
pub fn configurations(store: &Store) -> Collection<LaunchConfiguration> {
    store.collection()
}

/// The caller's own objects, by name.
///
/// # Errors
/// The store can't be read.
pub fn own<R: Record>(store: &Store, collection: &Collection<R>) -> Result<Vec<R>> {
    let mut records = collection.list()?.or_warn();
    records.retain(|record| record.owner() == store.owner_id());
    records.sort_by(|a, b| a.name().cmp(&b.name()));
    Ok(records)
}

/// The caller's own object of that name or id.
///
/// # Errors
/// `ValidationError`: there is none.
pub fn named<R: Record>(store: &Store, collection: &Collection<R>, name: &str) -> Result<R> {
    let is = |record: &R| record.name() == Some(name) || record.id().as_ref() == name;
    own(store, collection)?.into_iter().find(is).ok_or_else(|| {
        let shown: String = name.escape_debug().take(100).collect();
        validation(format!("{} name not found: there is none called '{shown}'", R::KIND))
    })
}

/// The caller's group of that name.
///
/// # Errors
/// `ValidationError`: there is none.
pub fn group(store: &Store, name: &str) -> Result<AutoScalingGroup> {
    named(store, &groups(store), name)
}

/// Changes a group's record under its lock; it is written if it has become another.
///
/// # Errors
/// As `change`'s; the group is gone; it can't be written.
pub fn change<T>(
    store: &Store,
    id: &AutoScalingGroupId,
    change: impl FnOnce(&mut AutoScalingGroup) -> Result<T>,
) -> Result<T> {
    let mut locked = groups(store).lock(id)?;
    let before = locked.record.clone();
    let done = change(&mut locked.record)?;
    if locked.record != before {
        locked.save(Durability::Durable)?;
    }
    Ok(done)
}

/// As [`change`], of the group of that name.
///
/// # Errors
/// As there.
pub fn change_named<T>(
    store: &Store,
    name: &str,
    what: impl FnOnce(&mut AutoScalingGroup) -> Result<T>,
) -> Result<T> {
    change(store, &group(store, name)?.auto_scaling_group_id, what)
}

/// A group's member that is that instance.
pub fn member<'a>(group: &'a mut AutoScalingGroup, id: &InstanceId) -> Option<&'a mut Member> {
    group.instances.iter_mut().find(|member| member.instance_id.as_ref() == Some(id))
}

/// The id that a text is, which need not be of an instance that there is.
///
/// # Errors
/// `ValidationError`: it is none.
pub fn instance_id(text: &str) -> Result<InstanceId> {
    text.parse().map_err(|error: Error| validation(error.message()))
}

/// The group that an instance is of.
///
/// # Errors
/// `ValidationError`: it is of none.
pub fn of_instance(store: &Store, id: &InstanceId) -> Result<AutoScalingGroup> {
    let has = |group: &AutoScalingGroup| {
        group.instances.iter().any(|member| member.instance_id.as_ref() == Some(id))
    };
    own(store, &groups(store))?
        .into_iter()
        .find(has)
        .ok_or_else(|| validation(format!("the instance {id} is not in an Auto Scaling group")))
}
