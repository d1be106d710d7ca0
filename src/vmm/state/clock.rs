//! KVM's clock, which a guest with kvmclock tells the time by.

use super::processors::now;
use crate::error::{OrFail, Result};
use crate::vmm::component::{Component, decode, encode};
use kvm_bindings::{KVM_CLOCK_REALTIME, kvm_clock_data};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const NAME: &str = "clock";
const VERSION: u16 = 1;

#[derive(Serialize, Deserialize)]
struct State {
    /// Nanoseconds of the guest's clock.
    clock: u64,
    /// Nanoseconds since the epoch at the same moment.
    realtime: u64,
    /// KVM itself said both at one moment.
    exact: bool,
}

/// The clock of a VM. It goes on while the machine is hibernated, so that the guest's wall clock is
/// right.
pub struct Clock(pub Arc<VmFd>);

impl Component for Clock {
    fn name(&self) -> &str {
        NAME
    }

    /// Linux's clock needs it to run on.
    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>> {
        let data = self.0.get_clock().or_fail(|| "read KVM's clock")?;
        let exact = data.flags & KVM_CLOCK_REALTIME != 0;
        let realtime = if exact { data.realtime } else { now() };
        encode(VERSION, &State { clock: data.clock, realtime, exact })
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        let State { clock, realtime, exact } = decode(NAME, VERSION, state)?;
        let set = |clock, flags| {
            let data = kvm_clock_data { clock, flags, realtime, ..Default::default() };
            self.0.set_clock(&data)
        };
        if exact && set(clock, KVM_CLOCK_REALTIME).is_ok() {
            // KVM has added what has passed.
            return Ok(());
        }
        let elapsed = now().saturating_sub(realtime);
        set(clock.saturating_add(elapsed), 0).or_fail(|| "set KVM's clock")
    }
}
