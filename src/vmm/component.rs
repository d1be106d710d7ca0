//! The life cycle of a machine's parts.
//!
//! A machine has one list of them, made once in the order of assembly: what others deliver to comes
//! first (vCPUs, interrupt controllers), devices come last. What a walk towards the guest does
//! (restore, resume) goes forward; what comes to rest (pause, save, reset, halt) goes backward, so
//! that the last interrupt of a device still finds its controller.

use crate::error::{Code, Error, OrFail, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Instant;

/// A part of a machine. The vCPUs stand at the barrier whenever one of these is called.
pub trait Component: Send + Sync {
    /// What saved state and messages call it. No other part of the machine has the same.
    fn name(&self) -> &str;

    /// Finishes what is in flight and begins nothing more, until [`Self::resume`].
    ///
    /// # Errors
    /// It does not come to rest. `resume` goes on all the same.
    fn pause(&self) -> Result<()> {
        Ok(())
    }

    /// Goes on after [`Self::pause`] or [`Self::restore`], and repeats interrupts that may be lost.
    fn resume(&self) {}

    /// Brings it to the state of the machine's start.
    ///
    /// # Errors
    /// The host refuses, or it does not come to rest.
    fn reset(&self) -> Result<()>;

    /// Ends it for good, what is in flight finished by `deadline`, and makes durable what it has
    /// written.
    ///
    /// # Errors
    /// Something of it may be lost.
    fn halt(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    /// The state that a hibernated machine keeps of it, by [`encode`]. It is paused.
    ///
    /// # Errors
    /// The host can't tell, or it can't be saved now.
    fn save(&self) -> Result<Vec<u8>>;

    /// Begins in a machine that was saved by a Spore which had no such part. False if that can't
    /// be.
    fn restore_new(&self) -> bool {
        false
    }

    /// Takes over a state that [`Self::save`] gave; [`Self::resume`] lets it live.
    ///
    /// # Errors
    /// It is another's state, or the host refuses it.
    fn restore(&self, state: &[u8]) -> Result<()>;
}

/// A component's state as bytes, which begin with the number of its form.
///
/// # Errors
/// None that a state could have.
pub fn encode(version: u16, state: &impl Serialize) -> Result<Vec<u8>> {
    postcard::to_stdvec(&(version, state)).or_fail(|| "write a saved state")
}

/// The state that [`encode`] wrote, if it has this version.
///
/// # Errors
/// It has another, or is none.
pub fn decode<T: DeserializeOwned>(name: &str, version: u16, bytes: &[u8]) -> Result<T> {
    let refused = |why| Error::refused(Code::IncorrectInstanceState, why);
    let damaged = || refused(format!("the saved state of {name} is damaged"));
    let (found, rest) = postcard::take_from_bytes::<u16>(bytes).map_err(|_| damaged())?;
    if found != version {
        return Err(refused(format!(
            "the saved state of {name} has version {found}; this Spore reads version {version}"
        )));
    }
    match postcard::take_from_bytes(rest) {
        Ok((state, [])) => Ok(state),
        _ => Err(damaged()),
    }
}
