//! virtio over memory-mapped registers, version 2. (VIRTIO 1.2, 4.2)

use super::Transport;
use super::state::{MmioState, TransportState};
use super::virtio_core::{Interrupt, NeedsReset, Registers, VirtioCore, set_high, set_low};
use crate::chipset::bus::BusDevice;
use crate::error::Result;
use crate::mem::GuestRam;
use crate::virtio::Notices;
use crate::virtio::command::Ending;
use crate::virtio::device::{Device, Services, Signal, ThreadStart};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio_bindings::virtio_mmio::*;
use vmm_sys_util::eventfd::EventFd;

/// "virt". (4.2.2)
const MAGIC: u32 = 0x7472_6976;
/// Not the legacy interface.
const VERSION: u32 = 2;
/// Our mark in VendorID: "SPOR".
const VENDOR: u32 = u32::from_le_bytes(*b"SPOR");

/// A write of `datamatch` (32 bits) to `address` is a notification: KVM_IOEVENTFD.
pub struct IoEvent {
    /// Guest physical address of QueueNotify.
    pub address: u64,
    /// The queue's number.
    pub datamatch: u32,
    /// What KVM signals instead of an exit.
    pub fd: EventFd,
}

/// The interrupt with the register that says what for. An edge: an eventfd in KVM_IRQFD.
struct MmioInterrupt {
    interrupt_status: AtomicU32,
    needs_reset: NeedsReset,
    irq: EventFd,
}

impl MmioInterrupt {
    fn raise(&self, cause: u32) {
        self.interrupt_status.fetch_or(cause, Ordering::SeqCst);
        // It fails only when the counter is full: the interrupt is pending already.
        let _ = self.irq.write(1);
    }
}

impl Signal for MmioInterrupt {
    fn used(&self, _queue: u16) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    fn config_changed(&self) {
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn stop(&self, reason: &str) {
        if self.needs_reset.stop(reason) {
            self.config_changed();
        }
    }

    fn stopped(&self) -> bool {
        self.needs_reset.is_set()
    }
}

impl Interrupt for MmioInterrupt {
    fn clear(&self) {
        self.interrupt_status.store(0, Ordering::SeqCst);
        self.needs_reset.set(false);
    }

    fn set_stopped(&self) {
        self.needs_reset.set(true);
    }
}

/// A device behind a window of registers.
pub struct MmioTransport {
    interrupt: Arc<MmioInterrupt>,
    registers: Mutex<Registers>,
    endings: Vec<Ending>,
}

impl MmioTransport {
    /// Put `device` with its services behind registers. `irq` is its interrupt's irqfd; `on_start`
    /// is called first in each worker thread.
    ///
    /// # Errors
    /// No file descriptors are left.
    pub fn new(
        device: Arc<dyn Device>,
        services: Services,
        ram: GuestRam,
        irq: EventFd,
        notices: Notices,
        on_start: &ThreadStart,
    ) -> io::Result<Arc<Self>> {
        let interrupt = Arc::new(MmioInterrupt {
            interrupt_status: AtomicU32::new(0),
            needs_reset: NeedsReset::new(device.name(), notices),
            irq,
        });
        let core = VirtioCore::new(device, services, ram, interrupt.clone(), on_start)?;
        let endings = core.endings();
        Ok(Arc::new(Self { interrupt, registers: Mutex::new(Registers::new(core)), endings }))
    }

    /// The registers are valid between any two statements, so a poisoned lock is as good as
    /// another.
    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The notifications that KVM can deliver without an exit, for a window at `base`.
    ///
    /// # Errors
    /// No file descriptors are left.
    pub fn ioeventfds(&self, base: u64) -> io::Result<Vec<IoEvent>> {
        let address = base + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY);
        let registers = self.registers();
        (0..)
            .map_while(|datamatch| Some((datamatch, registers.core.notify_fd(datamatch)?)))
            .map(|(datamatch, fd)| Ok(IoEvent { address, datamatch, fd: fd.try_clone()? }))
            .collect()
    }

    fn read_register(&self, offset: u32) -> u32 {
        if offset == VIRTIO_MMIO_INTERRUPT_STATUS {
            // The guest's interrupt handler does not wait for a reset on another CPU.
            return self.interrupt.interrupt_status.load(Ordering::SeqCst);
        }
        let registers = self.registers();
        let Registers { core, queue_sel, .. } = &*registers;
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => core.device().kind().id.into(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => registers.device_features(),
            VIRTIO_MMIO_QUEUE_NUM_MAX => core.max_queue_size(*queue_sel).into(),
            VIRTIO_MMIO_QUEUE_READY => {
                core.queue(*queue_sel).is_some_and(|state| state.ready).into()
            }
            VIRTIO_MMIO_STATUS => core.status().into(),
            VIRTIO_MMIO_CONFIG_GENERATION => core.device().config_generation(),
            // Write-only and unknown registers, and the length of shared memory that is not there
            // (4.2.2: all ones).
            _ => u32::MAX,
        }
    }

    fn write_register(&self, offset: u32, value: u32) {
        if offset == VIRTIO_MMIO_INTERRUPT_ACK {
            self.interrupt.interrupt_status.fetch_and(!value, Ordering::SeqCst);
            return;
        }
        let mut registers = self.registers();
        if offset == VIRTIO_MMIO_STATUS && value == 0 {
            registers.reset();
            return;
        }
        let Registers { core, device_features_sel, driver_features_sel, queue_sel } =
            &mut *registers;
        let queue = *queue_sel;
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => *device_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => *driver_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => core.set_driver_features(*driver_features_sel, value),
            VIRTIO_MMIO_QUEUE_SEL => *queue_sel = value,
            VIRTIO_MMIO_QUEUE_READY => core.set_queue_ready(queue, value == 1),
            VIRTIO_MMIO_QUEUE_NOTIFY => core.notify(value),
            VIRTIO_MMIO_STATUS => {
                if let Ok(value) = u8::try_from(value) {
                    core.set_status(value);
                }
            }
            _ => {
                let Some(state) = core.queue_setup(queue) else { return };
                match offset {
                    // What does not fit is no valid size either; QueueReady finds out.
                    VIRTIO_MMIO_QUEUE_NUM => state.size = u16::try_from(value).unwrap_or(0),
                    VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut state.desc, value),
                    VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut state.desc, value),
                    VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut state.avail, value),
                    VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut state.avail, value),
                    VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut state.used, value),
                    VIRTIO_MMIO_QUEUE_USED_HIGH => set_high(&mut state.used, value),
                    _ => {}
                }
            }
        }
    }
}

impl Transport for MmioTransport {
    fn pause(&self) -> Result<()> {
        self.registers().core.pause()
    }

    /// A driver with a pending interrupt gets the edge again.
    fn resume(&self) {
        self.registers().core.resume();
        if self.interrupt.interrupt_status.load(Ordering::SeqCst) != 0 {
            self.interrupt.raise(0);
        }
    }

    fn save(&self) -> Result<TransportState> {
        let mut registers = self.registers();
        Ok(TransportState::Mmio(MmioState {
            // First: the last completions still raise interrupts.
            core: registers.core.save()?,
            device_features_sel: registers.device_features_sel,
            driver_features_sel: registers.driver_features_sel,
            queue_sel: registers.queue_sel,
            interrupt_status: self.interrupt.interrupt_status.load(Ordering::SeqCst),
        }))
    }

    fn restore(&self, state: &TransportState) -> Result<()> {
        let mut registers = self.registers();
        let TransportState::Mmio(state) = state else {
            return Err(registers.core.other_transport());
        };
        registers.core.restore(&state.core)?;
        registers.device_features_sel = state.device_features_sel;
        registers.driver_features_sel = state.driver_features_sel;
        registers.queue_sel = state.queue_sel;
        self.interrupt.interrupt_status.store(state.interrupt_status, Ordering::SeqCst);
        Ok(())
    }

    fn reset(&self) -> bool {
        self.registers().reset()
    }

    fn endings(&self) -> &[Ending] {
        &self.endings
    }
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(at) = offset.checked_sub(VIRTIO_MMIO_CONFIG.into()) {
            // 4.2.2.2: the configuration space is read and written in any width its fields have.
            self.registers().core.device().read_config(at, data);
        } else if data.len() == 4 && offset.is_multiple_of(4) {
            // 4.2.2.2: registers are read and written in aligned 32 bits only.
            data.copy_from_slice(&self.read_register(offset as u32).to_le_bytes());
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(at) = offset.checked_sub(VIRTIO_MMIO_CONFIG.into()) {
            self.registers().core.device().write_config(at, data);
        } else if let (Ok(bytes), true) = (<[u8; 4]>::try_from(data), offset.is_multiple_of(4)) {
            self.write_register(offset as u32, u32::from_le_bytes(bytes));
        }
    }
}

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod tests;
