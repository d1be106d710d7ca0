//! What a machine has besides if it starts as a PC does, in firmware.

use crate::boot::fw_cfg;
use crate::chipset::bus::Bus;
use crate::chipset::flash::Flash;
use crate::chipset::fw_cfg::FwCfg;
use crate::chipset::pc::Piix4Pm;
use crate::chipset::pci::PciRoot;
use crate::chipset::power::SystemControl;
use crate::chipset::rtc::Rtc;
use crate::error::Result;
use crate::mem::GuestRam;
use crate::mem::layout::{
    FW_CFG_LEN, FW_CFG_PORT, PIIX4_PM_LEN, PIIX4_PM_PORT, RTC_PORT, SYSTEM_CONTROL_PORT,
};
use crate::mem::ram::RamRegion;
use crate::plan::VmPlan;
use crate::vmm::component::Component;
use crate::vmm::vcpu_barrier::VcpuBarrier;
use std::sync::Arc;

/// UEFI's variables, and where the guest has them.
pub type Variables = (Arc<Flash>, RamRegion);

/// The devices of a PC that firmware and boot loaders need.
pub struct Pc {
    parts: Vec<Arc<dyn Component>>,
}

impl Pc {
    /// Give them to the machine of `plan`, with its PCI bus and its variables if UEFI boots it.
    ///
    /// # Errors
    /// The plan's identity is none.
    pub fn create(
        plan: &VmPlan,
        ram: &GuestRam,
        (ports, memory): (&mut Bus, &mut Bus),
        (root, variables): (Option<Arc<PciRoot>>, Option<Variables>),
        barrier: &Arc<VcpuBarrier>,
    ) -> Result<Self> {
        let items = fw_cfg::items(plan)?;
        let fw_cfg = Arc::new(FwCfg::new(items, ram.clone()));
        let rtc = Arc::new(Rtc::new(plan.config.cpus));
        ports.insert(FW_CFG_PORT.into(), FW_CFG_LEN.into(), fw_cfg.clone())?;
        ports.insert(RTC_PORT.into(), 2, rtc.clone())?;
        ports.insert(SYSTEM_CONTROL_PORT.into(), 1, Arc::new(SystemControl(barrier.clone())))?;
        let mut pc = Self { parts: vec![fw_cfg, rtc] };
        if let Some(root) = root.filter(|_| plan.config.boot.is_uefi()) {
            pc.add_uefi(root, variables, (ports, memory), barrier)?;
        }
        Ok(pc)
    }

    /// Add what UEFI firmware needs besides: the chipset's functions of `root`, whose power
    /// management has ports, and its variables.
    ///
    /// # Errors
    /// They lie where others are.
    fn add_uefi(
        &mut self,
        root: Arc<PciRoot>,
        variables: Option<Variables>,
        (ports, memory): (&mut Bus, &mut Bus),
        barrier: &Arc<VcpuBarrier>,
    ) -> Result<()> {
        let power = Arc::new(Piix4Pm::new(barrier.clone()));
        ports.insert(PIIX4_PM_PORT.into(), PIIX4_PM_LEN.into(), power.clone())?;
        self.parts.extend([power as Arc<dyn Component>, root]);
        if let Some((flash, region)) = variables {
            memory.insert(region.gpa, region.len, flash.clone())?;
            self.parts.push(flash);
        }
        Ok(())
    }

    /// Those that have a state.
    pub fn into_parts(self) -> Vec<Arc<dyn Component>> {
        self.parts
    }
}
