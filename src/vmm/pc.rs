//! What a machine has besides if it starts as a PC does, in firmware.

use crate::boot::fw_cfg;
use crate::chipset::bus::Bus;
use crate::chipset::fw_cfg::FwCfg;
use crate::chipset::power::SystemControl;
use crate::chipset::rtc::Rtc;
use crate::error::Result;
use crate::mem::GuestRam;
use crate::mem::layout::{FW_CFG_LEN, FW_CFG_PORT, RTC_PORT, SYSTEM_CONTROL_PORT};
use crate::plan::VmPlan;
use crate::vmm::component::Component;
use crate::vmm::vcpu_barrier::VcpuBarrier;
use std::sync::Arc;

/// The devices of a PC that firmware and boot loaders need.
pub struct Pc {
    fw_cfg: Arc<FwCfg>,
    rtc: Arc<Rtc>,
}

impl Pc {
    /// Give them to the machine of `plan`.
    ///
    /// # Errors
    /// The plan's identity is none.
    pub fn create(
        plan: &VmPlan,
        ram: &GuestRam,
        ports: &mut Bus,
        barrier: &Arc<VcpuBarrier>,
    ) -> Result<Self> {
        let items = fw_cfg::items(plan)?;
        let fw_cfg = Arc::new(FwCfg::new(items, ram.clone()));
        let rtc = Arc::new(Rtc::new(plan.config.cpus));
        ports.insert(FW_CFG_PORT.into(), FW_CFG_LEN.into(), fw_cfg.clone())?;
        ports.insert(RTC_PORT.into(), 2, rtc.clone())?;
        ports.insert(SYSTEM_CONTROL_PORT.into(), 1, Arc::new(SystemControl(barrier.clone())))?;
        Ok(Self { fw_cfg, rtc })
    }

    /// Those that have a state.
    pub fn into_parts(self) -> [Arc<dyn Component>; 2] {
        [self.fw_cfg, self.rtc]
    }
}
