//! The parts of a machine as [`Component`](super::component::Component)s: what each keeps, and how
//! it is brought back.

mod chipset;
mod clock;
mod generation;
mod irqchips;
pub mod processors;
mod software;
mod vcpu;
mod virtio;

pub use clock::Clock;
pub use generation::Generation;
pub use irqchips::{Irqchips, Pit};
pub use processors::Processors;
pub use software::Software;
pub use virtio::VirtioDevice;

#[cfg(test)]
mod tests;
