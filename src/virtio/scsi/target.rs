//! What the vCPUs' threads and that of the queues share of a host device.

use super::unit::Unit;
use crate::virtio::blk::shared::Shared;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The queue of task management. (5.6.2)
pub const CONTROL: u16 = 0;
/// The queue of events, of which there are none: no target comes or goes.
pub const EVENT: u16 = 1;
/// The queue of commands.
pub const REQUESTS: u16 = 2;

/// Bytes of sense data and of a CDB, until the driver says otherwise.
const DEFAULT_SENSE_SIZE: u32 = 96;
const DEFAULT_CDB_SIZE: u32 = 32;
/// Most that either may be: no command and no sense data is longer. (SPC-4, 4.2.5.1 and 4.5.1)
const MAX_FIELD: u32 = 260;

/// Sizes that the driver chooses. (5.6.4)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Bytes of sense data.
    pub sense: u32,
    /// Bytes of a CDB.
    pub cdb: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { sense: DEFAULT_SENSE_SIZE, cdb: DEFAULT_CDB_SIZE }
    }
}

impl Sizes {
    /// A driver can choose them.
    pub fn are_sound(self) -> bool {
        (1..=MAX_FIELD).contains(&self.cdb) && self.sense <= MAX_FIELD
    }
}

/// What the guest has made of the device.
#[derive(Debug)]
pub struct Guest {
    /// The sizes that its driver chose.
    pub sizes: Sizes,
    /// The drive.
    pub unit: Unit,
}

/// The drive, with its disc.
pub struct Target {
    /// Its disc.
    pub disk: Arc<Shared>,
    /// What the guest has made of it.
    pub guest: Mutex<Guest>,
}

impl Target {
    /// It is valid between any two statements.
    pub fn guest(&self) -> MutexGuard<'_, Guest> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
