//! The devices of the chipset.

use crate::chipset::flash::Flash;
use crate::chipset::fw_cfg::FwCfg;
use crate::chipset::pc::Piix4Pm;
use crate::chipset::pci::hotplug::{HotPlug, HotPlugState};
use crate::chipset::pci::{ConfigPorts, PciRoot};
use crate::chipset::power::AcpiPower;
use crate::chipset::rtc::Rtc;
use crate::chipset::serial::Serial;
use crate::error::Result;
use crate::vmm::component::{Component, decode, encode};
use std::time::Instant;

const VERSION: u16 = 1;

/// Each of these devices has a state of its own type, which it gives and takes; what else it does
/// is in braces.
macro_rules! components {
    ($($device:ty, $name:literal { $($more:tt)* })*) => {$(
        impl Component for $device {
            fn name(&self) -> &str {
                $name
            }

            $($more)*

            fn reset(&self) -> Result<()> {
                self.reset();
                Ok(())
            }

            fn save(&self) -> Result<Vec<u8>> {
                encode(VERSION, &self.save())
            }

            fn restore(&self, state: &[u8]) -> Result<()> {
                self.restore(decode($name, VERSION, state)?);
                Ok(())
            }
        }
    )*};
}

components! {
    Serial, "serial line" {
        fn resume(&self) {
            self.repeat_interrupt();
        }
    }
    AcpiPower, "power" {
        fn resume(&self) {
            self.repeat_interrupt();
        }
    }
    Rtc, "real-time clock" {}
    FwCfg, "firmware configuration" {}
    ConfigPorts, "PCI configuration ports" {}
    Piix4Pm, "PIIX4 power management" {}
    HotPlug, "PCI hot-plug" {
        /// Its tables have no slots until it is reset.
        fn restore_new(&self) -> bool {
            self.restore(HotPlugState::default());
            true
        }
    }
}

const OWN_FUNCTIONS: &str = "PCI functions of the chipset";

impl Component for PciRoot {
    fn name(&self) -> &str {
        OWN_FUNCTIONS
    }

    fn reset(&self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>> {
        encode(VERSION, &self.save())
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        let state: Vec<Vec<u8>> = decode(OWN_FUNCTIONS, VERSION, state)?;
        self.restore(&state)
    }
}

const VARIABLES: &str = "UEFI variables";

impl Component for Flash {
    fn name(&self) -> &str {
        VARIABLES
    }

    fn reset(&self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn halt(&self, _deadline: Instant) -> Result<()> {
        self.sync()
    }

    fn save(&self) -> Result<Vec<u8>> {
        self.sync()?;
        encode(VERSION, &self.save())
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        self.restore(decode(VARIABLES, VERSION, state)?);
        Ok(())
    }
}
