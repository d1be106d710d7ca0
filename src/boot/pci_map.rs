//! Where things are on the PCI bus of the machine with a configuration.

use crate::mem::layout::PciMap;
use crate::plan::VmConfig;

/// What boots the machine may know no other place.
pub fn of(config: &VmConfig) -> PciMap {
    match config.boot.is_uefi() {
        true => PciMap::i440fx(config.memory),
        false => PciMap::GENERIC,
    }
}
