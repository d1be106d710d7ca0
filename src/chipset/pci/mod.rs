//! PCI: one bus with a host bridge and up to 31 functions, found by configuration mechanism #1
//! (ports 0xcf8 and 0xcfc; PCI Local Bus 3.0, 3.2.2.3.2) and by ECAM (PCI Express 6.0, 7.2.2),
//! whose memory lies where the guest puts it.

pub mod config;
pub mod hotplug;

use crate::chipset::bus::BusDevice;
use crate::chipset::power::ResetControl;
use crate::error::{Error, Result};
use crate::mem::layout::{PCI_CONFIG_PORT, PciMap};
use config::{CONFIG_LEN, ConfigSpace, Identity};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

/// Device numbers on a bus.
const DEVICES: usize = 32;

/// A function on the bus. Accesses come from vCPU threads.
pub trait Function: Send + Sync {
    /// The guest reads 1, 2 or 4 bytes of configuration space, within one aligned double word.
    fn read_config(&self, offset: usize, data: &mut [u8]);
    /// The guest writes them.
    fn write_config(&self, offset: usize, data: &[u8]);
    /// Where its memory is.
    fn window(&self) -> &Window;
    /// The guest reads at an offset into its memory, as [`BusDevice::read`].
    fn read_memory(&self, offset: u64, data: &mut [u8]);
    /// The guest writes there.
    fn write_memory(&self, offset: u64, data: &[u8]);
}

/// Where a function's memory is at the moment, for look-ups without a lock.
pub struct Window {
    len: u64,
    /// [`Self::NOWHERE`] while nothing is decoded.
    base: AtomicU64,
    /// The bus that the function is on.
    map: OnceLock<PciMap>,
}

impl Window {
    const NOWHERE: u64 = u64::MAX;

    /// `len` bytes, nowhere.
    pub fn new(len: u64) -> Self {
        Self { len, base: AtomicU64::new(Self::NOWHERE), map: OnceLock::new() }
    }

    /// Follow the configuration space. A BAR that is set to where no function's memory may lie
    /// decodes nothing, as does a function that is on no bus. True if that changes anything.
    pub fn follow(&self, space: &ConfigSpace) -> bool {
        let inside = |(base, len): &(u64, u64)| {
            self.map.get().is_some_and(|map| {
                let end = base.checked_add(*len);
                *base >= map.window && end.is_some_and(|end| end <= map.window_end)
            })
        };
        let base = space.memory().filter(inside).map_or(Self::NOWHERE, |(base, _)| base);
        self.base.swap(base, Ordering::SeqCst) != base
    }

    /// Its first address, if it is anywhere.
    pub fn base(&self) -> Option<u64> {
        Some(self.base.load(Ordering::SeqCst)).filter(|base| *base != Self::NOWHERE)
    }

    /// The offset of an access of `size` bytes that lies in it.
    fn offset(&self, address: u64, size: usize) -> Option<u64> {
        let offset = address.checked_sub(self.base()?)?;
        (offset.checked_add(size as u64)? <= self.len).then_some(offset)
    }
}

/// A function of the chipset's own, and where it is: device in bits 7:3, function in 2:0.
pub struct Own {
    devfn: u8,
    space: Mutex<ConfigSpace>,
    fresh: ConfigSpace,
}

impl Own {
    /// A function without memory.
    pub fn new(devfn: u8, space: ConfigSpace) -> Self {
        Self { devfn, fresh: space.clone(), space: Mutex::new(space) }
    }

    /// A host bridge that has nothing to set: QEMU's generic one (1b36:0008), which firmware and
    /// drivers know.
    fn generic_bridge() -> Self {
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0008,
            subsystem: (0x1af4, 0x1100),
            class: 0x06_0000,
            revision: 0,
        };
        Self::new(0, ConfigSpace::new(&identity).read_only())
    }

    /// Its registers, valid between any two statements.
    fn space(&self) -> MutexGuard<'_, ConfigSpace> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slot n is the n-th device after the chipset's own.
type Slots = Vec<Option<Arc<dyn Function>>>;

/// Bus 0.
pub struct PciRoot {
    map: PciMap,
    /// The host bridge, and what else is the chipset's.
    own: Vec<Own>,
    /// A vCPU holds the lock for the length of an access, so that no access holds on to a function
    /// that was taken off the bus.
    functions: RwLock<Slots>,
    /// Bit n: what is in slot n is not there for the guest any more.
    hidden: AtomicU32,
}

impl PciRoot {
    /// The generic bus with these functions, each in its slot: slot n is device n + 1.
    ///
    /// # Errors
    /// There is no such slot, or two functions have the same.
    pub fn new(functions: impl IntoIterator<Item = (u8, Arc<dyn Function>)>) -> Result<Arc<Self>> {
        let root = Self::with(PciMap::GENERIC, vec![Own::generic_bridge()]);
        functions.into_iter().try_for_each(|(slot, function)| root.plug(slot, function))?;
        Ok(root)
    }

    /// A bus with nothing but these functions of the chipset's own.
    pub fn with(map: PciMap, own: Vec<Own>) -> Arc<Self> {
        let (functions, hidden) = (RwLock::default(), AtomicU32::new(0));
        Arc::new(Self { map, own, functions, hidden })
    }

    /// Where things are on it.
    pub fn map(&self) -> PciMap {
        self.map
    }

    /// Put a function into a slot.
    ///
    /// # Errors
    /// There is no such slot, or it is not empty.
    pub fn plug(&self, slot: u8, function: Arc<dyn Function>) -> Result<()> {
        let (at, mut slots) = (usize::from(slot), self.change());
        let most = DEVICES - usize::from(self.map.first);
        if at >= most || slots.get(at).is_some_and(Option::is_some) {
            return Err(Error::failure(format!(
                "slot {slot} of the PCI bus is taken or beyond the last of {most}"
            )));
        }
        let _ = function.window().map.set(self.map);
        let len = slots.len().max(at + 1);
        slots.resize(len, None);
        slots[at] = Some(function);
        self.hidden.fetch_and(!(1 << slot), Ordering::SeqCst);
        Ok(())
    }

    /// Take a function out of its slot. No access to it is under way any more.
    pub fn unplug(&self, slot: u8) -> Option<Arc<dyn Function>> {
        self.change().get_mut(usize::from(slot))?.take()
    }

    /// Let the guest find nothing in these slots any more: bit n is slot n.
    pub fn hide(&self, slots: u32) {
        self.hidden.fetch_or(slots, Ordering::SeqCst);
    }

    /// Every slot is right between any two statements, whoever panicked.
    fn slots(&self) -> RwLockReadGuard<'_, Slots> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Slots> {
        self.functions.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The function of a device that is not the chipset's.
    fn function<'a>(&self, slots: &'a Slots, device: usize) -> Option<&'a dyn Function> {
        let slot = device.checked_sub(self.map.first.into())?;
        if self.hidden.load(Ordering::SeqCst) >> slot & 1 != 0 {
            return None;
        }
        slots.get(slot)?.as_deref()
    }

    fn own(&self, devfn: u8) -> Option<&Own> {
        self.own.iter().find(|own| own.devfn == devfn)
    }

    /// The machine's reset, for the chipset's own functions.
    pub fn reset(&self) {
        self.own.iter().for_each(|own| *own.space() = own.fresh.clone());
    }

    /// What a hibernated machine keeps of the chipset's own functions.
    pub fn save(&self) -> Vec<Vec<u8>> {
        self.own.iter().map(|own| own.space().save()).collect()
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// It is another chipset's.
    pub fn restore(&self, saved: &[Vec<u8>]) -> Result<()> {
        if saved.len() != self.own.len() {
            return Err(Error::failure("the saved PCI functions are another chipset's"));
        }
        self.own.iter().zip(saved).try_for_each(|(own, saved)| own.space().restore(saved))
    }

    /// An access to configuration space that is none: it crosses a double word, or nothing is
    /// there.
    fn valid(offset: usize, size: usize) -> bool {
        matches!(size, 1 | 2 | 4) && offset % 4 + size <= 4
    }

    /// Read function `devfn` (device in bits 7:3, function in 2:0). Where nothing is, all ones.
    fn read_config(&self, devfn: u8, offset: usize, data: &mut [u8]) {
        data.fill(0xff);
        if !Self::valid(offset, data.len()) {
            return;
        }
        let own = self.own(devfn);
        let slots = self.slots();
        let function = self.function(&slots, usize::from(devfn >> 3)).filter(|_| devfn & 7 == 0);
        if (own.is_some() || function.is_some()) && offset >= CONFIG_LEN {
            // No extended capabilities.
            return data.fill(0);
        }
        match (own, function) {
            (Some(own), _) => own.space().read(offset, data),
            (None, Some(function)) => function.read_config(offset, data),
            (None, None) => {}
        }
    }

    /// Write function `devfn`.
    fn write_config(&self, devfn: u8, offset: usize, data: &[u8]) {
        if offset >= CONFIG_LEN || !Self::valid(offset, data.len()) {
            return;
        }
        if let Some(own) = self.own(devfn) {
            return own.space().write(offset, data);
        }
        if devfn & 7 != 0 {
            return;
        }
        if let Some(function) = self.function(&self.slots(), usize::from(devfn >> 3)) {
            function.write_config(offset, data);
        }
    }

    /// The function whose memory holds the access. At most 31 of them, and a look at each is cheap
    /// beside an exit.
    fn find<'a>(
        &self,
        slots: &'a Slots,
        address: u64,
        size: usize,
    ) -> Option<(&'a dyn Function, u64)> {
        (0..slots.len()).find_map(|slot| {
            let function = self.function(slots, slot + usize::from(self.map.first))?;
            Some((function, function.window().offset(address, size)?))
        })
    }
}

/// Ports 0xcf8 to 0xcff: CONFIG_ADDRESS, CONFIG_DATA, and the reset register in their midst.
pub struct ConfigPorts {
    root: Arc<PciRoot>,
    address: AtomicU32,
    reset: ResetControl,
}

impl ConfigPorts {
    /// Bit 31 of CONFIG_ADDRESS: accesses to CONFIG_DATA are to configuration space.
    const ENABLE: u32 = 1 << 31;
    /// The reset register's place in the window.
    const RESET: u64 = (ResetControl::PORT - PCI_CONFIG_PORT) as u64;

    /// The ports of this bus.
    pub fn new(root: Arc<PciRoot>, reset: ResetControl) -> Self {
        Self { root, address: AtomicU32::new(0), reset }
    }

    /// The machine's reset.
    pub fn reset(&self) {
        self.restore(0);
    }

    /// The state that a hibernated machine keeps: CONFIG_ADDRESS. The bus itself has none.
    pub fn save(&self) -> u32 {
        self.address.load(Ordering::SeqCst)
    }

    /// Takes over a saved state.
    pub fn restore(&self, address: u32) {
        self.address.store(address, Ordering::SeqCst);
    }

    /// Which function and register an access to CONFIG_DATA, at `lane`, is to. There is only bus 0.
    fn target(&self, lane: u64) -> Option<(u8, usize)> {
        let address = self.address.load(Ordering::SeqCst);
        let bus = address >> 16 & 0xff;
        (address & Self::ENABLE != 0 && bus == 0)
            .then_some(((address >> 8) as u8, (address & 0xfc) as usize + lane as usize))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        match (offset, data.len()) {
            (0, 4) => data.copy_from_slice(&self.address.load(Ordering::SeqCst).to_le_bytes()),
            (Self::RESET, 1) => self.reset.read(0, data),
            (4.., _) => {
                if let Some((devfn, register)) = self.target(offset - 4) {
                    self.root.read_config(devfn, register, data);
                }
            }
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, &[a, b, c, d]) => {
                self.address.store(u32::from_le_bytes([a, b, c, d]), Ordering::SeqCst);
            }
            (Self::RESET, [_]) => self.reset.write(0, data),
            (4.., _) => {
                if let Some((devfn, register)) = self.target(offset - 4) {
                    self.root.write_config(devfn, register, data);
                }
            }
            _ => {}
        }
    }
}

/// Configuration space in memory, at [`PciMap::ecam`].
pub struct Ecam(pub Arc<PciRoot>);

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.read_config((offset >> 12) as u8, (offset & 0xfff) as usize, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.0.write_config((offset >> 12) as u8, (offset & 0xfff) as usize, data);
    }
}

/// The functions' memory, from [`PciMap::window`] to its end.
pub struct PciMemory(pub Arc<PciRoot>);

impl BusDevice for PciMemory {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let slots = self.0.slots();
        if let Some((function, offset)) =
            self.0.find(&slots, self.0.map.window + offset, data.len())
        {
            function.read_memory(offset, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let slots = self.0.slots();
        if let Some((function, offset)) =
            self.0.find(&slots, self.0.map.window + offset, data.len())
        {
            function.write_memory(offset, data);
        }
    }
}

#[cfg(test)]
mod tests;
