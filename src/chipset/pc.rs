//! The chipset that OVMF calls i440FX, as far as it looks at it: a host bridge by whose id it knows
//! the machine, an ISA bridge without which it has no serial console, and the power management of a
//! PIIX4, by whose timer it waits. (OvmfPkg/Library/PlatformInitLib and OvmfPkg/SioBusDxe in EDK2;
//! Intel 82441FX and 82371AB datasheets)

use crate::chipset::bus::BusDevice;
use crate::chipset::pci::config::{ConfigSpace, Identity};
use crate::chipset::pci::{Own, PciRoot};
use crate::chipset::power::{PowerRequest, PowerSink};
use crate::mem::layout::{PIIX4_PM_PORT, PciMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const INTEL: u16 = 0x8086;
/// What QEMU's functions of this chipset have.
const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);
/// The command register, and its bit for I/O, which PciBusDxe switches on and looks for.
const COMMAND: usize = 0x04;
const IO_SPACE: u16 = 1;
/// PIRQ routes of the ISA bridge, which nothing here follows. (82371AB, 4.1.10)
const PIRQ: usize = 0x60;
/// Base of the power management's ports, bit 0 saying that it is ports. (82371AB, 7.1.18)
const PMBA: usize = 0x40;
/// Bit 0: the ports are decoded. OVMF sets nothing up where they are. (82371AB, 7.1.24)
const PMREGMISC: usize = 0x80;

fn function(device: u16, class: u32) -> ConfigSpace {
    ConfigSpace::new(&Identity { vendor: INTEL, device, subsystem: SUBSYSTEM, class, revision: 0 })
}

/// The bus of a machine with `memory` bytes of RAM: device 0 is the host bridge, device 1 has the
/// ISA bridge (function 0) and power management (function 3).
pub fn bus(memory: u64) -> Arc<PciRoot> {
    let host = function(0x1237, 0x06_0000).read_only();
    let isa = function(0x7000, 0x06_0100).read_only().multi_function();
    let isa = isa.with(COMMAND, [0; 2], IO_SPACE.to_le_bytes()).with(PIRQ, [0x80; 4], [0xff; 4]);
    let base = u32::from(PIIX4_PM_PORT) | 1;
    let power = function(0x7113, 0x06_8000).read_only();
    let power = power.with(PMBA, base.to_le_bytes(), [0; 4]).with(PMREGMISC, [1], [0]);
    let own = [(0, host), (1 << 3, isa), (1 << 3 | 3, power)];
    let own = own.map(|(devfn, space)| Own::new(devfn, space));
    PciRoot::with(PciMap::i440fx(memory), own.into())
}

/// Ticks of the power management timer a second. (ACPI 6.5, 4.8.3.3)
const TIMER_HZ: u128 = 3_579_545;
/// Its bits.
const TIMER_MASK: u32 = 0xff_ffff;
/// Registers, from [`PIIX4_PM_PORT`] on. (82371AB, 7.2)
const CONTROL: u64 = 4;
const TIMER: u64 = 8;
/// Bits of the control register: SCI_EN, SLP_TYP and SLP_EN. (ACPI 6.5, 4.8.3.2.1)
const SCI_EN: u16 = 1;
const SLP_TYP: u16 = 7 << 10;
const SLP_EN: u16 = 1 << 13;

/// The ports of the power management: the timer, and soft-off.
pub struct Piix4Pm {
    sink: Arc<dyn PowerSink>,
    start: Instant,
    /// What the timer showed at `start`.
    offset: AtomicU32,
    control: AtomicU16,
}

impl Piix4Pm {
    /// As it is after reset; the timer runs.
    pub fn new(sink: Arc<dyn PowerSink>) -> Self {
        let (offset, control) = (AtomicU32::new(0), AtomicU16::new(SCI_EN));
        Self { sink, start: Instant::now(), offset, control }
    }

    /// What the timer shows so long after `start`.
    fn timer(&self, elapsed: Duration) -> u32 {
        self.offset.load(Ordering::SeqCst).wrapping_add(ticks(elapsed)) & TIMER_MASK
    }

    fn restore_after(&self, elapsed: Duration, (timer, control): (u32, u16)) {
        self.offset.store(timer.wrapping_sub(ticks(elapsed)), Ordering::SeqCst);
        self.control.store(control & (SCI_EN | SLP_TYP), Ordering::SeqCst);
    }

    /// The machine's reset.
    pub fn reset(&self) {
        self.control.store(SCI_EN, Ordering::SeqCst);
    }

    /// The state that a hibernated machine keeps: the timer, which goes on from there, and the
    /// control register.
    pub fn save(&self) -> (u32, u16) {
        (self.timer(self.start.elapsed()), self.control.load(Ordering::SeqCst))
    }

    /// Takes over a saved state.
    pub fn restore(&self, state: (u32, u16)) {
        self.restore_after(self.start.elapsed(), state);
    }
}

fn ticks(elapsed: Duration) -> u32 {
    (elapsed.as_nanos() * TIMER_HZ / 1_000_000_000) as u32
}

impl BusDevice for Piix4Pm {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, data) {
            (TIMER, [a, b, c, d]) => {
                [*a, *b, *c, *d] = self.timer(self.start.elapsed()).to_le_bytes();
            }
            (CONTROL, [a, b]) => [*a, *b] = self.control.load(Ordering::SeqCst).to_le_bytes(),
            // Nothing has happened, and nothing is enabled.
            (_, data) => data.fill(0),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (CONTROL, &[a, b]) = (offset, data) {
            let value = u16::from_le_bytes([a, b]);
            self.control.store(value & SLP_TYP | SCI_EN, Ordering::SeqCst);
            // QEMU's numbers of sleep types: 0 is soft-off, and the machine has no other.
            if value & SLP_EN != 0 && value & SLP_TYP == 0 {
                self.sink.request(PowerRequest::Off);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chipset::pci::Ecam;
    use crate::chipset::pci::hotplug::{self, HotPlug};
    use crate::chipset::power::testing::Asked;

    fn config(ecam: &Ecam, devfn: u64, at: u64) -> u32 {
        let mut data = [0; 4];
        ecam.read(devfn << 12 | at, &mut data);
        u32::from_le_bytes(data)
    }

    /// What PlatformInitLib, SioBusDxe and PciBusDxe read.
    #[test]
    fn the_functions_are_those_that_ovmf_knows() {
        let ecam = Ecam(bus(64 << 20));
        assert_eq!(config(&ecam, 0, 0), 0x1237_8086);
        assert_eq!(config(&ecam, 8, 0), 0x7000_8086);
        assert_eq!((config(&ecam, 8, 8) >> 8, config(&ecam, 8, 0xc) >> 16), (0x06_0100, 0x80));
        assert_eq!(config(&ecam, 11, 0), 0x7113_8086);
        assert_eq!((config(&ecam, 11, PMBA as u64), config(&ecam, 11, 0x80) & 1), (0xb001, 1));
        for nothing in [1, 9, 10, 12, 16] {
            assert_eq!(config(&ecam, nothing, 0), u32::MAX, "{nothing}");
        }
        ecam.write(8 << 12 | 4, &[0xff, 0xff]);
        assert_eq!(config(&ecam, 8, 4), 1, "of the command register, only I/O");
        ecam.write(0, &[0; 4]);
        assert_eq!(config(&ecam, 0, 0), 0x1237_8086);
    }

    #[test]
    fn what_the_guest_wrote_is_kept_and_forgotten_at_reset() {
        let (root, other) = (bus(64 << 20), bus(64 << 20));
        let (ecam, wanted) = (Ecam(root.clone()), Ecam(other.clone()));
        ecam.write(8 << 12 | 4, &[1, 0]);
        ecam.write(8 << 12 | 0x61, &[5]);
        other.restore(&root.save()).unwrap();
        assert_eq!(config(&wanted, 8, 4), 1);
        assert_eq!(config(&wanted, 8, 0x60), 0x8080_0580);
        other.reset();
        assert_eq!((config(&wanted, 8, 4), config(&wanted, 8, 0x60)), (0, 0x8080_8080));
        assert!(other.restore(&[]).is_err(), "another chipset's");
        assert!(other.restore(&PciRoot::new([]).unwrap().save()).is_err());
    }

    /// The guest's registers of hot-plug have a bit for each device of the bus.
    #[test]
    fn slots_begin_behind_the_chipsets_own() {
        let root = bus(64 << 20);
        let hot = HotPlug::new(root.clone(), 0b11, crate::sys::fds::eventfd().unwrap());
        hot.plugged(0);
        hot.ask(1);
        let read = |at| {
            let mut data = [0; 4];
            hot.read(at, &mut data);
            u32::from_le_bytes(data)
        };
        assert_eq!([read(hotplug::CAME), read(hotplug::ASKED)], [1 << 2, 1 << 3]);
        hot.write(hotplug::EJECT, &(1u32 << 3).to_le_bytes());
        assert_eq!(hot.released(), 1 << 1);
    }

    #[test]
    fn the_timer_goes_on_where_it_was() {
        let pm = Piix4Pm::new(Arc::new(Asked::default()));
        let (then, ms) = (Duration::from_secs(5000), Duration::from_millis(1));
        pm.restore_after(then, (0xff_fff0, SCI_EN));
        assert_eq!(pm.timer(then), 0xff_fff0);
        assert_eq!(pm.timer(then + ms), 3579 - 16, "and begins anew after 24 bits");
        let mut data = [0xff; 4];
        pm.read(TIMER, &mut data);
        assert_eq!(data[3], 0, "it has 24 bits");
    }

    #[test]
    fn soft_off_is_asked_for_by_its_type_alone() {
        let sink = Arc::new(Asked::default());
        let pm = Piix4Pm::new(sink.clone());
        for other in [0, 1 << 13 | 1 << 10, 5 << 10] {
            pm.write(CONTROL, &u16::to_le_bytes(other));
        }
        assert!(sink.0.lock().unwrap().is_empty());
        let mut control = [0; 2];
        pm.read(CONTROL, &mut control);
        assert_eq!(u16::from_le_bytes(control), 5 << 10 | SCI_EN);
        pm.write(CONTROL, &SLP_EN.to_le_bytes());
        assert_eq!(*sink.0.lock().unwrap(), [PowerRequest::Off]);
        for size in [1, 2, 4] {
            (0..64).for_each(|at| pm.read(at, &mut vec![0; size]));
            (0..64).for_each(|at| pm.write(at, &vec![0; size]));
        }
    }
}
