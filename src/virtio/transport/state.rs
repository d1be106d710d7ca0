//! What a snapshot keeps of a device behind its transport.

use super::pci::Vectors;
use super::virtio_core::VirtioState;
use crate::virtio::device::DeviceState;
use serde::{Deserialize, Serialize};

/// What a snapshot keeps of a virtio-mmio device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MmioState {
    /// What is not peculiar to this transport.
    pub core: VirtioState,
    /// DeviceFeaturesSel.
    pub device_features_sel: u32,
    /// DriverFeaturesSel.
    pub driver_features_sel: u32,
    /// QueueSel.
    pub queue_sel: u32,
    /// InterruptStatus.
    pub interrupt_status: u32,
}

/// What a snapshot keeps of a virtio-pci device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciState {
    /// What is not peculiar to this transport.
    pub core: VirtioState,
    /// device_feature_select.
    pub device_feature_select: u32,
    /// driver_feature_select.
    pub driver_feature_select: u32,
    /// queue_select.
    pub queue_select: u32,
    /// ISR status.
    pub isr: u8,
    /// MSI-X, and who has which vector.
    pub vectors: Vectors,
    /// The configuration space.
    pub config: Vec<u8>,
}

/// What a snapshot keeps of a device behind its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportState {
    /// Over virtio-mmio.
    Mmio(MmioState),
    /// Over virtio-pci.
    Pci(PciState),
    /// An NVMe controller, with its function.
    Nvme(DeviceState),
}
