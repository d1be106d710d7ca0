//! The VM generation ID: a number in memory that is another each time the machine goes on from
//! where it was, so that a guest knows that its random numbers and session keys may be another's,
//! too. (Microsoft, "Virtual Machine Generation ID")

use crate::boot::generation;
use crate::chipset::power::AcpiPower;
use crate::error::Result;
use crate::mem::GuestRam;
use crate::vmm::component::{Component, decode, encode};
use std::sync::Arc;

const NAME: &str = "generation ID";
const VERSION: u16 = 1;

/// The number. It lies in RAM, where loading puts it.
pub struct Generation {
    ram: GuestRam,
    address: u64,
    power: Arc<AcpiPower>,
}

impl Generation {
    /// That which lies at `address` ([`generation::address`]); `power` tells the guest.
    pub fn new(ram: GuestRam, address: u64, power: Arc<AcpiPower>) -> Self {
        Self { ram, address, power }
    }
}

impl Component for Generation {
    fn name(&self) -> &str {
        NAME
    }

    /// Loading has put a new one there.
    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>> {
        encode(VERSION, &())
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        let () = decode(NAME, VERSION, state)?;
        generation::write(&self.ram, self.address)?;
        self.power.tell_generation();
        Ok(())
    }
}
