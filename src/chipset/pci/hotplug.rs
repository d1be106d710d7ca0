//! Hot-plug of functions as ACPI has it: one register says which devices have come, one which are
//! asked to go, and by a third the guest lets go of them. The methods in `boot/acpi/pci.rs` read
//! and write them; a kernel's driver for that, as Linux's acpiphp, does the rest. (ACPI 6.5, 5.6.6:
//! Device Check and Eject Request; 6.3.3: _EJ0)

use super::PciRoot;
use crate::chipset::bus::BusDevice;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// Registers of four bytes, by offset. Reading one of the first two clears it.
pub const CAME: u64 = 0;
/// See [`CAME`].
pub const ASKED: u64 = 4;
/// Writing lets go of devices.
pub const EJECT: u64 = 8;

/// Slots by bits: bit n is slot n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotPlugState {
    /// Slots that the guest knows to take devices while it runs.
    pub hot: u32,
    /// What it has yet to read of those that have come.
    pub came: u32,
    /// What it has yet to read of those that are asked to go.
    pub asked: u32,
    /// Asked to go, and still held by it.
    pub leaving: u32,
    /// Let go of, and not yet taken off the bus.
    pub released: u32,
}

/// The registers.
pub struct HotPlug {
    root: Arc<PciRoot>,
    /// As the guest's tables say after a reset.
    hot_at_reset: u32,
    hot: AtomicU32,
    came: AtomicU32,
    asked: AtomicU32,
    leaving: AtomicU32,
    released: AtomicU32,
    /// Signalled when a slot is released.
    wake: EventFd,
}

impl HotPlug {
    /// The registers of a bus that takes devices in the slots of `hot`; `wake` is signalled when
    /// the guest has let go of one.
    pub fn new(root: Arc<PciRoot>, hot: u32, wake: EventFd) -> Self {
        let zero = || AtomicU32::new(0);
        Self {
            root,
            hot_at_reset: hot,
            hot: AtomicU32::new(hot),
            came: zero(),
            asked: zero(),
            leaving: zero(),
            released: zero(),
            wake,
        }
    }

    /// Signalled when a slot is released.
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Slots that take devices.
    pub fn hot(&self) -> u32 {
        self.hot.load(Ordering::SeqCst)
    }

    /// A device has come into this slot.
    pub fn plugged(&self, slot: u8) {
        self.came.fetch_or(bit(slot), Ordering::SeqCst);
    }

    /// The device in this slot is asked to go.
    pub fn ask(&self, slot: u8) {
        self.leaving.fetch_or(bit(slot), Ordering::SeqCst);
        self.asked.fetch_or(bit(slot), Ordering::SeqCst);
    }

    /// The device in this slot has gone, whatever the guest holds; it is told by an eject request.
    pub fn unplugged(&self, slot: u8) {
        for register in [&self.leaving, &self.released, &self.came] {
            register.fetch_and(!bit(slot), Ordering::SeqCst);
        }
    }

    /// Tell the guest of a device that was taken away.
    pub fn tell_gone(&self, slot: u8) {
        self.asked.fetch_or(bit(slot), Ordering::SeqCst);
    }

    /// The device in this slot is asked to go. If so, whether the guest has read that.
    pub fn leaving(&self, slot: u8) -> Option<bool> {
        let is = |register: &AtomicU32| register.load(Ordering::SeqCst) & bit(slot) != 0;
        (is(&self.leaving) || is(&self.released)).then(|| !is(&self.asked))
    }

    /// Slots that the guest has let go of.
    pub fn released(&self) -> u32 {
        self.released.load(Ordering::SeqCst)
    }

    /// Slots whose devices are asked to go.
    pub fn all_leaving(&self) -> u32 {
        self.leaving.load(Ordering::SeqCst) | self.released()
    }

    /// The machine's reset: the guest looks for itself what is there.
    pub fn reset(&self) {
        self.restore(HotPlugState { hot: self.hot_at_reset, ..Default::default() });
    }

    /// The state that a hibernated machine keeps.
    pub fn save(&self) -> HotPlugState {
        let value = |register: &AtomicU32| register.load(Ordering::SeqCst);
        HotPlugState {
            hot: value(&self.hot),
            came: value(&self.came),
            asked: value(&self.asked),
            leaving: value(&self.leaving),
            released: value(&self.released),
        }
    }

    /// Takes over a saved state.
    pub fn restore(&self, state: HotPlugState) {
        let HotPlugState { hot, came, asked, leaving, released } = state;
        for (register, value) in [
            (&self.hot, hot),
            (&self.came, came),
            (&self.asked, asked),
            (&self.leaving, leaving),
            (&self.released, released),
        ] {
            register.store(value, Ordering::SeqCst);
        }
        self.root.hide(released);
        if released != 0 {
            // It fails only when the counter is full, and then the event is pending already.
            let _ = self.wake.write(1);
        }
    }

    /// The guest lets go of these devices. Of others than those that are asked to go it can't: they
    /// are nobody's to take.
    fn eject(&self, devices: u32) {
        let slots = self.leaving.load(Ordering::SeqCst) & (devices >> self.root.map().first);
        if slots == 0 {
            return;
        }
        // It finds nothing there from here on; the threads and files behind it end on another's
        // time.
        self.root.hide(slots);
        self.released.fetch_or(slots, Ordering::SeqCst);
        self.leaving.fetch_and(!slots, Ordering::SeqCst);
        // It fails only when the counter is full, and then the event is pending already.
        let _ = self.wake.write(1);
    }
}

fn bit(slot: u8) -> u32 {
    1u32.checked_shl(slot.into()).unwrap_or(0)
}

/// The guest's registers have bit n for device n of the bus.
impl BusDevice for HotPlug {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let ([_, _, _, _], CAME | ASKED) = (&*data, offset) {
            let register = if offset == CAME { &self.came } else { &self.asked };
            let slots = register.swap(0, Ordering::SeqCst);
            data.copy_from_slice(&(slots << self.root.map().first).to_le_bytes());
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (&[a, b, c, d], EJECT) = (data, offset) {
            self.eject(u32::from_le_bytes([a, b, c, d]));
        }
    }
}
