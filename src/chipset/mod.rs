//! The few devices of a PC that are not virtio, and the bus that all devices hang on.

pub mod bus;
pub mod flash;
pub mod fw_cfg;
pub mod pc;
pub mod pci;
pub mod power;
pub mod rtc;
pub mod serial;
