//! virtio over PCI: a function with one BAR of memory and MSI-X. Only the modern interface. (VIRTIO
//! 1.2, 4.1)
//!
//! The BAR has a page for each structure. Configuration space and BAR accesses come from vCPU
//! threads. Locks are taken in this order: configuration, registers, vectors.

mod common;
mod interrupt;
mod msix;

pub use interrupt::{MsiRouting, MsixVector, PciInterrupt};
pub use msix::{Message, NO_VECTOR, Vectors};

use super::Transport;
use super::state::{PciState, TransportState};
use super::virtio_core::{NeedsReset, Registers, VirtioCore};
use crate::chipset::pci::config::{ConfigSpace, Identity};
use crate::chipset::pci::{Function, Window};
use crate::error::{Error, Result};
use crate::mem::GuestRam;
use crate::sys::process::not_started;
use crate::virtio::Notices;
use crate::virtio::command::Ending;
use crate::virtio::device::{Device, DeviceType, Services, ThreadStart};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The structures' places in the BAR.
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_PENDING: u64 = 0x5000;
/// Bytes of each.
const PAGE: u64 = 0x1000;
/// Bytes of the BAR.
pub const BAR_LEN: u32 = 0x8000;
/// notify_off_multiplier: each queue has an address of its own, so that a notification needs no
/// look at what is written. KVM is quickest with those.
const NOTIFY_STRIDE: u32 = 4;
/// Most vectors: those that the table's page holds.
const MAX_VECTORS: usize = (PAGE / msix::ENTRY_LEN) as usize;

/// Capability ids. (PCI Local Bus 3.0, appendix H)
const CAP_VENDOR: u8 = 0x09;
const CAP_MSIX: u8 = 0x11;
/// cfg_type of the virtio capabilities. (VIRTIO 1.2, 4.1.4)
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Configuration space, and what is where in it.
struct Config {
    space: ConfigSpace,
    /// As it is after reset.
    fresh: ConfigSpace,
    /// The capability that gives access to the BAR. (4.1.4.9)
    access: usize,
    /// The MSI-X capability.
    msix: usize,
}

impl Config {
    fn new(kind: &DeviceType, base: u32, vectors: u16) -> Self {
        let mut space = ConfigSpace::new(&identity(kind));
        space.set_bar0(base, BAR_LEN);
        for (kind, at) in [(COMMON_CFG, COMMON), (ISR_CFG, ISR), (DEVICE_CFG, DEVICE)] {
            space.add_capability(CAP_VENDOR, &virtio_cap(kind, at, PAGE, &[]), &[]);
        }
        let notify = virtio_cap(NOTIFY_CFG, NOTIFY, PAGE, &NOTIFY_STRIDE.to_le_bytes());
        space.add_capability(CAP_VENDOR, &notify, &[]);
        // The driver writes bar, offset and length; pci_cfg_data is served apart.
        let mut writable = [0; 14];
        writable[2] = 0xff;
        writable[6..].fill(0xff);
        let access =
            space.add_capability(CAP_VENDOR, &virtio_cap(PCI_CFG, 0, 0, &[0; 4]), &writable);
        // Message Control: the table's size less one, and the two bits that the driver writes. (PCI
        // 3.0, 6.8.2.3)
        let mut body = (vectors - 1).to_le_bytes().to_vec();
        body.extend((MSIX_TABLE as u32).to_le_bytes());
        body.extend((MSIX_PENDING as u32).to_le_bytes());
        let msix = space.add_capability(CAP_MSIX, &body, &[0, 0xc0]);
        Self { fresh: space.clone(), space, access: access.into(), msix: msix.into() }
    }

    /// Where in the BAR an access to pci_cfg_data, at byte `at` of it, goes: the first `length`
    /// bytes, if bar, offset and length say something that is there.
    fn bar_access(&self, at: usize, size: usize) -> Option<u64> {
        let bar = self.space.u32_at(self.access + 4) & 0xff;
        let (offset, length) =
            (self.space.u32_at(self.access + 8), self.space.u32_at(self.access + 12));
        let inside = offset.checked_add(length)? <= BAR_LEN && matches!(length, 1 | 2 | 4);
        (bar == 0 && inside && offset.is_multiple_of(length) && at == 0 && size == length as usize)
            .then_some(offset.into())
    }

    /// The byte of pci_cfg_data that `offset` is.
    fn data(&self, offset: usize) -> Option<usize> {
        offset.checked_sub(self.access + 16).filter(|at| *at < 4)
    }
}

/// 4.1.2.1 and 5.1 of PCI: transitional ids are not ours. Revision 1 at least.
fn identity(kind: &DeviceType) -> Identity {
    const VENDOR: u16 = 0x1af4;
    Identity {
        vendor: VENDOR,
        device: 0x1040 + kind.id,
        subsystem: (VENDOR, 0x1040 + kind.id),
        class: kind.pci_class,
        revision: 1,
    }
}

/// struct virtio_pci_cap, from cap_len on: bar 0, id 0. (4.1.4)
fn virtio_cap(kind: u8, offset: u64, length: u64, more: &[u8]) -> Vec<u8> {
    let mut cap = vec![16 + more.len() as u8, kind, 0, 0, 0, 0];
    cap.extend((offset as u32).to_le_bytes());
    cap.extend((length as u32).to_le_bytes());
    cap.extend(more);
    cap
}

/// A device that is a function on a PCI bus.
pub struct PciTransport {
    interrupt: Arc<PciInterrupt>,
    registers: Mutex<Registers>,
    config: Mutex<Config>,
    window: Window,
    routing: Arc<dyn MsiRouting>,
    /// Where the queues' doorbells are, if they are. Under the registers' lock but for reading.
    doorbells: Mutex<Option<u64>>,
    endings: Vec<Ending>,
}

/// A lock whose content is valid between any two statements, so that a poisoned one is as good as
/// another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Vectors of a device: one for changes of the device, and one a queue.
pub fn vectors(device: &dyn Device) -> usize {
    device.queue_sizes().len() + 1
}

impl PciTransport {
    /// Make `device` with its services a function whose memory is at `base` when the guest finds
    /// it. There is one of `irqs` for each of its [`vectors`]; `on_start` is called first in each
    /// worker thread.
    ///
    /// # Errors
    /// It has too many queues, or no file descriptors are left.
    pub fn new(
        device: Arc<dyn Device>,
        services: Services,
        ram: GuestRam,
        base: u32,
        (irqs, routing): (Vec<MsixVector>, Arc<dyn MsiRouting>),
        notices: Notices,
        on_start: &ThreadStart,
    ) -> Result<Arc<Self>> {
        let (name, queues, count) = (device.name(), device.queue_sizes().len(), irqs.len());
        if count > MAX_VECTORS || count != vectors(&*device) {
            return Err(Error::failure(format!(
                "{name} has {count} interrupts; a PCI device has one more than queues, at most {MAX_VECTORS}"
            )));
        }
        let config = Config::new(device.kind(), base, count as u16);
        let needs_reset = NeedsReset::new(device.name(), notices);
        let interrupt = Arc::new(PciInterrupt::new(needs_reset, queues, irqs, routing.clone()));
        let core = VirtioCore::new(device, services, ram, interrupt.clone(), on_start);
        let core = core.map_err(|cause| not_started("create the queues of a PCI device", cause))?;
        let endings = core.endings();
        Ok(Arc::new(Self {
            interrupt,
            registers: Mutex::new(Registers::new(core)),
            endings,
            config: Mutex::new(config),
            window: Window::new(BAR_LEN.into()),
            routing,
            doorbells: Mutex::new(None),
        }))
    }

    /// Have the doorbells where the BAR is, once the driver is ready: no sooner, since firmware and
    /// kernels move BARs about before. A BAR that is nowhere leaves them where they are; they are
    /// in nobody's way and it may come back.
    fn hang_doorbells(&self, registers: &mut Registers) {
        let Some(base) = self.window.base() else { return };
        let at = base + NOTIFY;
        let mut doorbells = lock(&self.doorbells);
        if *doorbells != Some(at) {
            self.take_doorbells_down(registers, &mut doorbells);
            self.each_doorbell(registers, at, true);
            *doorbells = Some(at);
        }
    }

    fn take_doorbells_down(&self, registers: &mut Registers, doorbells: &mut Option<u64>) {
        if let Some(at) = doorbells.take() {
            self.each_doorbell(registers, at, false);
        }
    }

    fn each_doorbell(&self, registers: &mut Registers, at: u64, on: bool) {
        for (queue, address) in (0..).zip((at..).step_by(NOTIFY_STRIDE as usize)) {
            let Some(event) = registers.core.notify_fd(queue) else { break };
            // Without it, a notification is an exit and comes to `write_memory`.
            let _ = self.routing.doorbell(address, event, on);
        }
    }

    /// The guest has changed configuration space.
    fn configured(&self, config: &Config) {
        let control = config.space.u16_at(config.msix + 2);
        self.interrupt.change(|vectors| vectors.msix.set_control(control));
        if self.window.follow(&config.space) && lock(&self.doorbells).is_some() {
            self.hang_doorbells(&mut lock(&self.registers));
        }
    }
}

impl Transport for PciTransport {
    fn pause(&self) -> Result<()> {
        lock(&self.registers).core.pause()
    }

    fn resume(&self) {
        let mut registers = lock(&self.registers);
        registers.core.resume();
        if registers.core.live() {
            self.hang_doorbells(&mut registers);
        }
        self.interrupt.repeat();
    }

    fn save(&self) -> Result<TransportState> {
        let config = lock(&self.config);
        let mut registers = lock(&self.registers);
        // First: the last completions still raise interrupts.
        let core = registers.core.save()?;
        let (isr, vectors) = self.interrupt.save();
        Ok(TransportState::Pci(PciState {
            core,
            device_feature_select: registers.device_features_sel,
            driver_feature_select: registers.driver_features_sel,
            queue_select: registers.queue_sel,
            isr,
            vectors,
            config: config.space.save(),
        }))
    }

    fn restore(&self, state: &TransportState) -> Result<()> {
        let mut config = lock(&self.config);
        let mut registers = lock(&self.registers);
        let TransportState::Pci(state) = state else {
            return Err(registers.core.other_transport());
        };
        let count = |vectors: &Vectors| (vectors.msix.vectors(), vectors.queues.len());
        if self.interrupt.with(count) != count(&state.vectors) {
            return Err(Error::failure("the saved interrupts are another device's"));
        }
        config.space.restore(&state.config)?;
        self.window.follow(&config.space);
        registers.core.restore(&state.core)?;
        registers.device_features_sel = state.device_feature_select;
        registers.driver_features_sel = state.driver_feature_select;
        registers.queue_sel = state.queue_select;
        self.interrupt.restore(state.isr, &state.vectors);
        Ok(())
    }

    fn reset(&self) -> bool {
        let mut config = lock(&self.config);
        config.space = config.fresh.clone();
        self.window.follow(&config.space);
        let mut registers = lock(&self.registers);
        let rests = registers.reset();
        self.interrupt.power_on();
        self.take_doorbells_down(&mut registers, &mut lock(&self.doorbells));
        rests
    }

    fn endings(&self) -> &[Ending] {
        &self.endings
    }

    fn is_live(&self) -> bool {
        // Whoever holds the lock may wait for the host's storage.
        self.registers.try_lock().is_ok_and(|registers| registers.core.live())
    }

    fn leave(&self) {
        let mut registers = lock(&self.registers);
        self.take_doorbells_down(&mut registers, &mut lock(&self.doorbells));
        self.interrupt.leave();
    }
}

impl Function for PciTransport {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = lock(&self.config);
        let Some(at) = config.data(offset) else { return config.space.read(offset, data) };
        let target = config.bar_access(at, data.len());
        drop(config);
        data.fill(0xff);
        if let Some(target) = target {
            self.read_memory(target, data);
        }
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        let mut config = lock(&self.config);
        let Some(at) = config.data(offset) else {
            config.space.write(offset, data);
            return self.configured(&config);
        };
        let target = config.bar_access(at, data.len());
        drop(config);
        if let Some(target) = target {
            self.write_memory(target, data);
        }
    }

    fn window(&self) -> &Window {
        &self.window
    }

    fn read_memory(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let at = offset % PAGE;
        match offset - at {
            COMMON => common::read(&lock(&self.registers), &self.interrupt, at, data),
            // The guest's interrupt handler does not wait for a reset on another CPU.
            ISR => {
                if let (0, [isr]) = (at, data) {
                    *isr = self.interrupt.take_isr();
                }
            }
            DEVICE => lock(&self.registers).core.device().read_config(at, data),
            MSIX_TABLE => self.interrupt.with(|vectors| vectors.msix.read_table(at, data)),
            MSIX_PENDING => self.interrupt.with(|vectors| vectors.msix.read_pending(at, data)),
            // Notifications are write-only.
            _ => {}
        }
    }

    fn write_memory(&self, offset: u64, data: &[u8]) {
        let at = offset % PAGE;
        match offset - at {
            COMMON => {
                let mut registers = lock(&self.registers);
                common::write(&mut registers, &self.interrupt, at, data);
                if registers.core.live() {
                    self.hang_doorbells(&mut registers);
                }
            }
            NOTIFY => {
                let queue = (at / u64::from(NOTIFY_STRIDE)) as u32;
                if at.is_multiple_of(NOTIFY_STRIDE.into()) {
                    lock(&self.registers).core.notify(queue);
                }
            }
            DEVICE => lock(&self.registers).core.device().write_config(at, data),
            MSIX_TABLE => self.interrupt.write_table(at, data),
            // The rest is read-only.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
