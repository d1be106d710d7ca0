//! The common configuration structure. (VIRTIO 1.2, 4.1.4.3)

use super::interrupt::PciInterrupt;
use super::msix::NO_VECTOR;
use crate::virtio::transport::virtio_core::{Registers, half, set_high, set_low};

/// Fields, by offset.
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_MSIX_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;

/// The guest reads: each field in its own width, addresses by halves. (4.1.3.1)
pub fn read(registers: &Registers, interrupt: &PciInterrupt, at: u64, data: &mut [u8]) {
    let value = match data.len() {
        1 => read8(registers, at).map(u64::from),
        2 => read16(registers, interrupt, at).map(u64::from),
        4 => read32(registers, at).map(u64::from),
        _ => read64(registers, at),
    };
    if let Some(value) = value {
        data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
    }
}

fn read8(registers: &Registers, at: u64) -> Option<u8> {
    match at {
        DEVICE_STATUS => Some(registers.core.status()),
        CONFIG_GENERATION => Some(registers.core.device().config_generation() as u8),
        _ => None,
    }
}

fn read16(registers: &Registers, interrupt: &PciInterrupt, at: u64) -> Option<u16> {
    let (core, select) = (&registers.core, registers.queue_sel);
    let queue = core.queue(select);
    Some(match at {
        CONFIG_MSIX_VECTOR => interrupt.with(|vectors| vectors.config),
        NUM_QUEUES => core.queues() as u16,
        QUEUE_SELECT => select as u16,
        // The largest size, until the driver wants another; 0: there is no such queue.
        QUEUE_SIZE => {
            queue.map(|q| q.size).filter(|size| *size != 0).unwrap_or(core.max_queue_size(select))
        }
        QUEUE_MSIX_VECTOR => {
            let own = interrupt.with(|vectors| vectors.queues.get(select as usize).copied());
            own.unwrap_or(NO_VECTOR)
        }
        QUEUE_ENABLE => queue.is_some_and(|queue| queue.ready).into(),
        QUEUE_NOTIFY_OFF => select as u16,
        _ => return None,
    })
}

fn read32(registers: &Registers, at: u64) -> Option<u32> {
    match at {
        DEVICE_FEATURE_SELECT => Some(registers.device_features_sel),
        DEVICE_FEATURE => Some(registers.device_features()),
        DRIVER_FEATURE_SELECT => Some(registers.driver_features_sel),
        DRIVER_FEATURE => {
            let select = registers.driver_features_sel;
            Some(half(registers.core.driver_features(), select))
        }
        _ => {
            let address = read64(registers, at & !7)?;
            at.is_multiple_of(4).then_some((address >> (8 * (at & 4))) as u32)
        }
    }
}

fn read64(registers: &Registers, at: u64) -> Option<u64> {
    let queue = registers.core.queue(registers.queue_sel);
    let state = queue.copied().unwrap_or_default();
    match at {
        QUEUE_DESC => Some(state.desc),
        QUEUE_DRIVER => Some(state.avail),
        QUEUE_DEVICE => Some(state.used),
        _ => None,
    }
}

/// The guest writes, as it reads.
pub fn write(registers: &mut Registers, interrupt: &PciInterrupt, at: u64, data: &[u8]) {
    match *data {
        [value] if at == DEVICE_STATUS && value == 0 => {
            registers.reset();
        }
        [value] if at == DEVICE_STATUS => registers.core.set_status(value),
        [a, b] => write16(registers, interrupt, at, u16::from_le_bytes([a, b])),
        [a, b, c, d] => write32(registers, at, u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] if at >= QUEUE_DESC => {
            write32(registers, at, u32::from_le_bytes([a, b, c, d]));
            write32(registers, at + 4, u32::from_le_bytes([e, f, g, h]));
        }
        _ => {}
    }
}

fn write16(registers: &mut Registers, interrupt: &PciInterrupt, at: u64, value: u16) {
    let queue = registers.queue_sel;
    match at {
        CONFIG_MSIX_VECTOR => interrupt.change(|v| v.config = v.checked(value)),
        QUEUE_SELECT => registers.queue_sel = value.into(),
        QUEUE_SIZE => {
            if let Some(state) = registers.core.queue_setup(queue) {
                state.size = value;
            }
        }
        QUEUE_MSIX_VECTOR => interrupt.change(|vectors| {
            let checked = vectors.checked(value);
            if let Some(vector) = vectors.queues.get_mut(queue as usize) {
                *vector = checked;
            }
        }),
        // 4.1.4.3.2: the driver does not write 0.
        QUEUE_ENABLE if value == 1 => {
            let max = registers.core.max_queue_size(queue);
            if let Some(state) = registers.core.queue_setup(queue).filter(|state| state.size == 0) {
                state.size = max;
            }
            registers.core.set_queue_ready(queue, true);
        }
        _ => {}
    }
}

fn write32(registers: &mut Registers, at: u64, value: u32) {
    let queue = registers.queue_sel;
    match at {
        DEVICE_FEATURE_SELECT => registers.device_features_sel = value,
        DRIVER_FEATURE_SELECT => registers.driver_features_sel = value,
        DRIVER_FEATURE => {
            registers.core.set_driver_features(registers.driver_features_sel, value);
        }
        _ => {
            let Some(state) = registers.core.queue_setup(queue) else { return };
            let field = match at & !7 {
                QUEUE_DESC => &mut state.desc,
                QUEUE_DRIVER => &mut state.avail,
                QUEUE_DEVICE => &mut state.used,
                _ => return,
            };
            match at & 7 {
                0 => set_low(field, value),
                4 => set_high(field, value),
                _ => {}
            }
        }
    }
}
