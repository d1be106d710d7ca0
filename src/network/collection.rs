//! Where networks are in a store.

use crate::error::{OrFail, Result};
use crate::id::InstanceId;
use crate::record::Record;
use crate::record::instance::{InstanceRecord, State};
use crate::record::vpc::Vpc;
use crate::store::beneath::Owned;
use crate::store::{Collection, Store};

/// The networks of a store.
///
/// # Errors
/// A store of an older Spore has no place for them, and gets none.
pub fn networks(store: &Store) -> Result<Collection<Vpc>> {
    if store.administrator().is_none() {
        let place = store.home().join(Vpc::DIRECTORY);
        let made = Owned::make_if_absent(&place);
        made.or_fail(|| format!("make the store's directory {}", place.display()))?;
    }
    Ok(store.collection())
}

/// Whether an instance may come to run again; `None` if it is not there.
pub fn lives(store: &Store, instance: &InstanceId) -> Option<bool> {
    let record = store.collection::<InstanceRecord>().get(instance).ok()?;
    Some(record.instance.state != State::Terminated)
}
