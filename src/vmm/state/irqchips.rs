//! KVM's interrupt controllers and interval timer.

use crate::error::{OrFail, Result};
use crate::vmm::component::{Component, decode, encode};
use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip, kvm_pit_state2,
};
use kvm_ioctls::VmFd;
use std::sync::Arc;

const VERSION: u16 = 1;

/// The I/O APIC and the two 8259s.
pub struct Irqchips {
    vm: Arc<VmFd>,
    /// Those that a reset brings back, as KVM made them.
    fresh: Vec<kvm_irqchip>,
}

impl Irqchips {
    /// Those of `vm`, of which a reset brings `fresh` back.
    pub fn new(vm: Arc<VmFd>, fresh: Vec<kvm_irqchip>) -> Self {
        Self { vm, fresh }
    }
}

impl Component for Irqchips {
    fn name(&self) -> &str {
        "interrupt controllers"
    }

    fn reset(&self) -> Result<()> {
        let set = |chip| self.vm.set_irqchip(chip).or_fail(|| "reset an interrupt controller");
        self.fresh.iter().try_for_each(set)
    }

    fn save(&self) -> Result<Vec<u8>> {
        let all = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];
        let read = |chip_id| {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            self.vm.get_irqchip(&mut chip).or_fail(|| "read an interrupt controller")?;
            Ok(chip)
        };
        encode(VERSION, &all.into_iter().map(read).collect::<Result<Vec<_>>>()?)
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        let chips: Vec<kvm_irqchip> = decode(self.name(), VERSION, state)?;
        let set = |chip| self.vm.set_irqchip(chip).or_fail(|| "set an interrupt controller");
        chips.iter().try_for_each(set)
    }
}

/// A PC's interval timer, with port 0x61.
pub struct Pit {
    vm: Arc<VmFd>,
    /// As KVM made it.
    fresh: kvm_pit_state2,
}

impl Pit {
    /// That of `vm`, of which a reset brings `fresh` back.
    pub fn new(vm: Arc<VmFd>, fresh: kvm_pit_state2) -> Self {
        Self { vm, fresh }
    }
}

impl Component for Pit {
    fn name(&self) -> &str {
        "interval timer"
    }

    fn reset(&self) -> Result<()> {
        self.vm.set_pit2(&self.fresh).or_fail(|| "reset the interval timer")
    }

    fn save(&self) -> Result<Vec<u8>> {
        encode(VERSION, &self.vm.get_pit2().or_fail(|| "read the interval timer")?)
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        let pit: kvm_pit_state2 = decode(self.name(), VERSION, state)?;
        self.vm.set_pit2(&pit).or_fail(|| "set the interval timer")
    }
}
