//! The devices of the chipset.

use crate::chipset::fw_cfg::FwCfg;
use crate::chipset::pci::ConfigPorts;
use crate::chipset::pci::hotplug::{HotPlug, HotPlugState};
use crate::chipset::power::AcpiPower;
use crate::chipset::rtc::Rtc;
use crate::chipset::serial::Serial;
use crate::error::Result;
use crate::vmm::component::{Component, decode, encode};

const VERSION: u16 = 1;

/// Each of these devices has a state of its own type, which it gives and takes.
macro_rules! components {
    ($($device:ty, $name:literal $(, $resume:ident)?;)*) => {$(
        impl Component for $device {
            fn name(&self) -> &str {
                $name
            }

            $(fn resume(&self) {
                self.$resume();
            })?

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
    Serial, "serial line", repeat_interrupt;
    AcpiPower, "power", repeat_interrupt;
    Rtc, "real-time clock";
    FwCfg, "firmware configuration";
    ConfigPorts, "PCI configuration ports";
}

const HOT_PLUG: &str = "PCI hot-plug";

impl Component for HotPlug {
    fn name(&self) -> &str {
        HOT_PLUG
    }

    fn reset(&self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>> {
        encode(VERSION, &self.save())
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        self.restore(decode(HOT_PLUG, VERSION, state)?);
        Ok(())
    }

    /// Its tables have no slots until it is reset.
    fn restore_new(&self) -> bool {
        self.restore(HotPlugState::default());
        true
    }
}
