//! The records of all kinds of objects, in the shapes of EC2's API, and what each kind asks of the
//! store.
//!
//! A store knows of a kind what [`Record`] says, and nothing else.

pub mod autoscaling;
pub mod image;
pub mod instance;
pub mod kernel;
pub mod key;
pub mod kinds;
pub mod launch_template;
pub mod limits;
pub mod metadata;
pub mod name;
pub mod network;
pub mod restart;
pub mod scaling;
pub mod share;
pub mod snapshot;
pub mod tag;
pub mod task;
pub mod token;
pub mod uefi;
pub mod volume;
pub mod vpc;

use crate::error::Code;
use crate::id::Id;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What must survive a power failure (a killed process never loses what was done, whichever it is).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Files, record and directory entries are on the medium before the object counts as made. For
    /// images, snapshots, kernels and for what outlives its VM: `ebs` volumes and instances with
    /// one.
    Durable,
    /// Nothing is synced: 100 clones cost no disk flush. For what is meaningless once the power was
    /// off: instance-store volumes and their instances. A record that a power failure left empty
    /// counts as absent and is swept.
    Volatile,
}

/// A kind of object in the store.
pub trait Record: Serialize + DeserializeOwned + Clone {
    /// Its id.
    type Id: Id;
    /// The directory under the store that holds this kind.
    const DIRECTORY: &'static str;
    /// What it is called in messages.
    const KIND: &'static str;
    /// EC2's error code for an unknown one.
    const NOT_FOUND: Code;
    /// The command that lists this kind; `spore KIND ls` if that is empty.
    const LISTED_BY: &'static str = "";
    /// Whether several of one owner may have one name.
    const NAMES_ARE_SHARED: bool = false;
    /// The file in its directory whose space on the medium is noted with it, if there is one.
    const CONTENT: Option<&'static str> = None;
    /// How lasting the journal's word of its removal is when that is done. An instance's volumes go
    /// with it, in one transition that is noted when it ends.
    const REMOVAL: Durability = Durability::Volatile;
    /// What every store has without a directory for it.
    fn built_in() -> Vec<Self> {
        Vec::new()
    }
    /// Its id.
    fn id(&self) -> &Self::Id;
    /// What else it may be addressed by.
    fn name(&self) -> Option<&str>;
    /// Its position among those that were made together, where there are such.
    fn index(&self) -> Option<u32> {
        None
    }
    /// Whether nobody else of its owner may have its name. `made` is whether its maker is at work.
    fn holds_name(&self, made: bool) -> bool {
        let _ = made;
        true
    }
    /// Whether it exists for nobody any more, though something of it stays.
    fn is_deleted(&self) -> bool {
        false
    }
    /// The uid in decimal of whom it belongs to.
    fn owner(&self) -> &str;
    /// What the journal says of it; a change of anything else is not worth a line.
    fn journal_view(&self) -> Value;
}
