//! What a freestanding guest needs to be one: entry, memory, console, tables, devices.

#![allow(dead_code, reason = "each guest uses its own part of it")]

pub mod acpi;
pub mod blk;
pub mod boot;
pub mod cpu;
mod entry;
pub mod machine;
pub mod memory;
pub mod nic;
pub mod pci;
pub mod random;
pub mod rng;
pub mod sha256;
pub mod virtio;
