//! Transports: how a guest finds a device, negotiates with it and sets up its queues.

pub mod mmio;
pub mod pci;
mod state;
pub(crate) mod virtio_core;

pub use state::{MmioState, PciState, TransportState};
pub use virtio_core::{VirtioState, status};

use crate::error::Result;
use crate::virtio::command::Ending;
use std::time::Instant;

/// What a machine does with a device, whatever its transport.
pub trait Transport: Send + Sync {
    /// Stops serving and finishes what is in flight: each request is answered, or still in its
    /// ring. The vCPUs are paused, until [`Self::resume`] was called.
    ///
    /// # Errors
    /// The device does not come to rest, for the host's storage does not answer. `resume` goes on
    /// all the same.
    fn pause(&self) -> Result<()>;
    /// Goes on after [`Self::pause`], [`Self::save`] or [`Self::restore`], with what waits in the
    /// rings, and repeats the interrupts that may have been lost with the old machine.
    fn resume(&self);
    /// Pauses, and says what a snapshot has to keep.
    ///
    /// # Errors
    /// As [`Self::pause`].
    fn save(&self) -> Result<TransportState>;
    /// Takes over a saved state; [`Self::resume`] lets it live. Guest memory is the saved machine's
    /// by then.
    ///
    /// # Errors
    /// It is the state of another device or transport.
    fn restore(&self, state: &TransportState) -> Result<()>;
    /// The machine's reset. True if nothing is in flight when it returns; else the host's storage
    /// does not answer.
    fn reset(&self) -> bool;
    /// The ends of its worker threads.
    fn endings(&self) -> &[Ending];
    /// Whether the driver is ready and the device serves it, as far as that is known at once.
    fn is_live(&self) -> bool {
        true
    }
    /// Gives back what it has of the host's: its worker threads have ended, and no guest reaches it
    /// any more.
    fn leave(&self) {}
    /// Finish what is in flight and end the worker threads, for good. True if they have ended at
    /// `deadline`.
    fn shutdown(&self, deadline: Instant) -> bool {
        self.endings().iter().for_each(Ending::order);
        self.endings().iter().all(|ending| ending.wait(deadline))
    }
}
