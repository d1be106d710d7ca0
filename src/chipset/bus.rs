//! Address decoding: which device answers a port or memory-mapped access.

use crate::error::{Error, Result};
use std::sync::Arc;

/// A device with registers. Accesses come from vCPU threads, `data` has 1, 2, 4 or 8 bytes (as many
/// as the guest's access), `offset` is relative to the device's base. What a device does not
/// implement reads as all ones and ignores writes.
pub trait BusDevice: Send + Sync {
    /// The guest reads 1, 2, 4 or 8 bytes (ports: 1, 2 or 4), all inside the device's window; fill
    /// `data`, which is all ones before. `offset` need not be a multiple of the width.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// The guest writes `data`, of the same widths.
    fn write(&self, offset: u64, data: &[u8]);
}

/// One address space: port I/O or memory-mapped I/O. Built before the vCPUs run and immutable
/// afterwards, so that a look-up takes no lock and allocates nothing.
#[derive(Default)]
pub struct Bus {
    /// Sorted by base, not overlapping.
    windows: Vec<Window>,
}

struct Window {
    base: u64,
    len: u64,
    device: Arc<dyn BusDevice>,
}

impl Bus {
    /// Put `device` at `base`, `len` bytes long.
    ///
    /// # Errors
    /// The window is empty, wraps around, or overlaps another.
    pub fn insert(&mut self, base: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<()> {
        let end = base.checked_add(len).filter(|&end| end > base);
        let at = self.windows.partition_point(|w| w.base < base);
        let free = end.is_some_and(|end| {
            self.windows.get(at).is_none_or(|next| end <= next.base)
                && (at == 0 || self.windows[at - 1].base + self.windows[at - 1].len <= base)
        });
        if !free {
            return Err(Error::failure(format!(
                "bus window {base:#x}+{len:#x} is empty or overlaps another device"
            )));
        }
        self.windows.insert(at, Window { base, len, device });
        Ok(())
    }

    /// The guest reads `data.len()` bytes at `address`; where nothing answers, all ones, as on a
    /// PC's bus.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, offset)) = self.find(address, data.len()) {
            device.read(offset, data);
        }
    }

    /// The guest writes `data` at `address`; where nothing answers, it is lost.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address, data.len()) {
            device.write(offset, data);
        }
    }

    /// The device whose window holds the whole access. KVM hands over odd sizes where an access
    /// straddles a page or comes from SSE; no register of ours has such a size.
    fn find(&self, address: u64, size: usize) -> Option<(&dyn BusDevice, u64)> {
        if !matches!(size, 1 | 2 | 4 | 8) {
            return None;
        }
        let at = self.windows.partition_point(|w| w.base <= address).checked_sub(1)?;
        let window = &self.windows[at];
        let offset = address - window.base;
        let end = offset.checked_add(size as u64)?;
        (end <= window.len).then_some((&*window.device, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Probe(Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Probe {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    fn bus() -> (Bus, Arc<Probe>) {
        let (mut bus, probe) = (Bus::default(), Arc::new(Probe::default()));
        bus.insert(0x3f8, 8, probe.clone()).unwrap();
        bus.insert(0x100, 4, probe.clone()).unwrap();
        (bus, probe)
    }

    #[test]
    fn an_access_reaches_its_device_with_the_offset() {
        let (bus, probe) = bus();
        let mut data = [0u8; 1];
        bus.read(0x3fb, &mut data);
        assert_eq!(data, [3]);
        bus.write(0x100, &[1, 2]);
        assert_eq!(*probe.0.lock().unwrap(), [(0, vec![1, 2])]);
    }

    #[test]
    fn what_no_device_answers_reads_all_ones_whatever_its_size() {
        let (bus, probe) = bus();
        for (address, size) in [
            (0u64, 1usize),
            (0x104, 4),
            (0x3ff, 2),
            (0xff, 2),
            (0x3f8, 3),
            (u64::MAX, 8),
            (0x3f8, 0),
        ] {
            let mut data = vec![0; size];
            bus.read(address, &mut data);
            assert!(data.iter().all(|&b| b == 0xff), "{address:#x} {size}");
            bus.write(address, &data);
        }
        assert!(probe.0.lock().unwrap().is_empty());
    }

    #[test]
    fn overlapping_windows_are_refused() {
        let (mut bus, probe) = bus();
        for (base, len) in
            [(0x3f8, 1), (0x3f0, 9), (0x3ff, 1), (0x50, 0), (u64::MAX, 2), (0x103, 4)]
        {
            assert!(bus.insert(base, len, probe.clone()).is_err(), "{base:#x}+{len}");
        }
        bus.insert(0x104, 4, probe).unwrap();
    }
}
