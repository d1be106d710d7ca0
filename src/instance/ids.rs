//! The ids of a launch.

use crate::error::Result;
use crate::id::{InstanceId, ReservationId};

/// Where the ids of a launch come from: the system's random generator, or a test's list.
pub trait Ids {
    /// A reservation id.
    ///
    /// # Errors
    /// The random generator is not readable.
    fn reservation(&mut self) -> Result<ReservationId>;
    /// An instance id.
    ///
    /// # Errors
    /// As [`Ids::reservation`].
    fn instance(&mut self) -> Result<InstanceId>;
}

/// Random ids.
pub struct RandomIds;

impl Ids for RandomIds {
    fn reservation(&mut self) -> Result<ReservationId> {
        ReservationId::generate()
    }
    fn instance(&mut self) -> Result<InstanceId> {
        InstanceId::generate()
    }
}
