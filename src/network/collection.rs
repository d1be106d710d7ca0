//! Where networks are in a store.

use crate::id::InstanceId;
use crate::record::instance::{InstanceRecord, State};
use crate::record::vpc::Vpc;
use crate::store::{Collection, Store};

/// The networks of a store.
pub fn networks(store: &Store) -> Collection<Vpc> {
    store.collection()
}

/// Whether an instance may come to run again; `None` if it is not there.
pub fn lives(store: &Store, instance: &InstanceId) -> Option<bool> {
    let record = store.collection::<InstanceRecord>().get(instance).ok()?;
    Some(record.instance.state != State::Terminated)
}
