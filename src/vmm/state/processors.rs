//! All vCPUs of a machine.

use super::software::Software;
use super::vcpu::{VcpuState, Ways};
use crate::error::{Error, Result};
use crate::vmm::component::{Component, decode, encode};
use crate::vmm::cpuid::Model;
use crate::vmm::regs;
use crate::vmm::vcpu::Vcpu;
use kvm_bindings::{KVM_MP_STATE_UNINITIALIZED, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the state of all vCPUs is called.
pub const NAME: &str = "vCPUs";
const VERSION: u16 = 1;

#[derive(Serialize, Deserialize)]
struct State {
    /// Nanoseconds since the epoch.
    saved_at: u64,
    vcpus: Vec<VcpuState>,
}

/// The CPUID of each vCPU in a saved state.
///
/// # Errors
/// The state is none.
pub fn saved_cpuid(state: &[u8]) -> Result<Vec<Vec<kvm_cpuid_entry2>>> {
    let state: State = decode(NAME, VERSION, state)?;
    Ok(state.vcpus.into_iter().map(|vcpu| vcpu.cpuid).collect())
}

/// Nanoseconds since the epoch.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The vCPUs, the boot processor first.
pub struct Processors {
    kvm: Kvm,
    model: Model,
    /// Each one.
    pub vcpus: Vec<Arc<Vcpu>>,
    software: Arc<Software>,
}

impl Processors {
    /// Those of a machine whose CPUID is `model` and which `software` tells where to begin after a
    /// reset.
    pub fn new(kvm: Kvm, model: Model, vcpus: Vec<Arc<Vcpu>>, software: Arc<Software>) -> Self {
        Self { kvm, model, vcpus, software }
    }

    /// vCPUs that the guest has brought up.
    pub fn online(&self) -> u32 {
        let up = |vcpu: &&Arc<Vcpu>| {
            vcpu.lock().get_mp_state().is_ok_and(|s| s.mp_state != KVM_MP_STATE_UNINITIALIZED)
        };
        self.vcpus.iter().filter(up).count() as u32
    }

    fn states(&self) -> Result<Vec<VcpuState>> {
        let ways = Ways::ask(&self.kvm)?;
        let save = |(index, vcpu): (u32, &Arc<Vcpu>)| {
            let cpuid = self.model.vcpu(index)?.as_slice().to_vec();
            VcpuState::save(&vcpu.lock(), &ways, cpuid)
        };
        (0..).zip(&self.vcpus).map(save).collect()
    }
}

impl Component for Processors {
    fn name(&self) -> &str {
        NAME
    }

    /// A guest's clock that stood still is no fault of its own: its watchdogs are told.
    fn resume(&self) {
        // It fails for a guest that has no kvmclock, which has no watchdog to tell either.
        for vcpu in &self.vcpus {
            let _ = vcpu.lock().kvmclock_ctrl();
        }
    }

    fn reset(&self) -> Result<()> {
        let entry = self.software.entry();
        for (index, vcpu) in (0..).zip(&self.vcpus) {
            let entry = entry.as_ref().filter(|_| index == 0);
            regs::reset(&vcpu.lock(), index, entry)?;
        }
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>> {
        encode(VERSION, &State { saved_at: now(), vcpus: self.states()? })
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        let State { saved_at, vcpus } = decode(NAME, VERSION, state)?;
        if vcpus.len() != self.vcpus.len() {
            let (saved, here) = (vcpus.len(), self.vcpus.len());
            return Err(Error::failure(format!("{saved} vCPUs are saved; the machine has {here}")));
        }
        let (ways, elapsed) = (Ways::ask(&self.kvm)?, now().saturating_sub(saved_at));
        for (saved, vcpu) in vcpus.iter().zip(&self.vcpus) {
            saved.restore(&vcpu.lock(), &ways, elapsed)?;
        }
        Ok(())
    }
}
