//! What switches the machine off or resets it, and how a guest says that it panicked.

use crate::chipset::bus::BusDevice;
use crate::mem::layout::{
    ACPI_RESET, ACPI_RESET_VALUE, ACPI_SLEEP_CONTROL, ACPI_SLEEP_STATUS, GED_EVENTS, S5_SLEEP_TYPE,
};
use crate::plan::ResetBy;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// What a guest asks of the machine by a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// Soft-off (ACPI S5).
    Off,
    /// Reset.
    Reset(ResetBy),
    /// The guest's kernel panicked and says so (pvpanic).
    Panic,
}

/// Where [`PowerRequest`]s go. No vCPU that sees its request accepted runs another guest
/// instruction.
pub trait PowerSink: Send + Sync {
    /// The guest asks.
    fn request(&self, request: PowerRequest);
}

/// First port of [`AcpiPower`]'s window.
pub const ACPI_POWER_BASE: u16 = ACPI_SLEEP_CONTROL;
/// Ports in [`AcpiPower`]'s window.
pub const ACPI_POWER_LEN: u16 = GED_EVENTS + 1 - ACPI_SLEEP_CONTROL;

/// Events bit of the power button.
const POWER_BUTTON: u8 = 1;
/// Events bit of the VM generation ID.
const GENERATION: u8 = 2;
/// Events bit of PCI hot-plug.
const HOT_PLUG: u8 = 4;
/// SLP_EN in the sleep control register. (ACPI 6.5, 4.8.3.7)
const SLP_EN: u8 = 1 << 5;

/// The hardware-reduced ACPI registers: sleep control and status, reset, and the Generic Event
/// Device's pending events. (ACPI 6.5, 4.8.3.7, 4.8.3.6 and 5.6.9)
pub struct AcpiPower {
    sink: Arc<dyn PowerSink>,
    events: AtomicU8,
    irq: EventFd,
}

impl AcpiPower {
    /// `irq` is the irqfd of [`crate::mem::layout::GED_GSI`].
    pub fn new(sink: Arc<dyn PowerSink>, irq: EventFd) -> Self {
        Self { sink, events: AtomicU8::new(0), irq }
    }

    /// Press the power button.
    pub fn press_button(&self) {
        self.tell(POWER_BUTTON);
    }

    /// Tell the guest that the VM generation ID is another.
    pub fn tell_generation(&self) {
        self.tell(GENERATION);
    }

    /// Tell the guest that the registers of PCI hot-plug have something.
    pub fn tell_hot_plug(&self) {
        self.tell(HOT_PLUG);
    }

    fn tell(&self, event: u8) {
        self.events.fetch_or(event, Ordering::SeqCst);
        // It fails only when the counter is full: the interrupt is pending already.
        let _ = self.irq.write(1);
    }

    /// The machine's reset.
    pub fn reset(&self) {
        self.events.store(0, Ordering::SeqCst);
    }

    /// The state that a hibernated machine keeps: the events that wait to be read.
    pub fn save(&self) -> u8 {
        self.events.load(Ordering::SeqCst)
    }

    /// Takes over a saved state.
    pub fn restore(&self, events: u8) {
        self.events.store(events, Ordering::SeqCst);
    }

    /// Interrupts again for events that wait to be read: the interrupt may be lost with the old
    /// machine.
    pub fn repeat_interrupt(&self) {
        if self.save() != 0 {
            // It fails only when the counter is full: the interrupt is pending already.
            let _ = self.irq.write(1);
        }
    }
}

impl BusDevice for AcpiPower {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let [byte] = data else { return };
        match ACPI_POWER_BASE + offset as u16 {
            ACPI_SLEEP_CONTROL | ACPI_SLEEP_STATUS => *byte = 0,
            GED_EVENTS => *byte = self.events.swap(0, Ordering::SeqCst),
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let &[byte] = data else { return };
        match ACPI_POWER_BASE + offset as u16 {
            // Another sleep type is one that no \_Sx package of ours offers.
            ACPI_SLEEP_CONTROL if byte & SLP_EN != 0 && byte >> 2 & 7 == S5_SLEEP_TYPE => {
                self.sink.request(PowerRequest::Off);
            }
            ACPI_RESET if byte == ACPI_RESET_VALUE => {
                self.sink.request(PowerRequest::Reset(ResetBy::Acpi));
            }
            _ => {}
        }
    }
}

/// The reset control register at port 0xcf9 (as in Intel's ICH): RST_CPU, bit 2, resets.
pub struct ResetControl(pub Arc<dyn PowerSink>);

impl ResetControl {
    /// Its port.
    pub const PORT: u16 = 0xcf9;
}

impl BusDevice for ResetControl {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        // SYS_RST (bit 1) alone only chooses the kind of the reset to come.
        if data.first().is_some_and(|byte| byte & 4 != 0) {
            self.0.request(PowerRequest::Reset(ResetBy::Port0xcf9));
        }
    }
}

/// Of the keyboard controller only the command that pulses the CPU's reset line.
pub struct I8042 {
    sink: Arc<dyn PowerSink>,
    status: u8,
}

impl I8042 {
    /// Its command and status port.
    pub const PORT: u16 = 0x64;
    /// "Pulse output port bit 0": the reset line.
    const PULSE_RESET: u8 = 0xfe;

    /// For kernels, which look for no keyboard where ACPI has none: its status register says
    /// "ready, nothing to read", so that a reset waits for nothing.
    pub fn ready(sink: Arc<dyn PowerSink>) -> Self {
        Self { sink, status: 0 }
    }

    /// For firmware, which would set a keyboard up and wait for its answers: its status register
    /// says that there is no controller.
    pub fn absent(sink: Arc<dyn PowerSink>) -> Self {
        Self { sink, status: 0xff }
    }
}

impl BusDevice for I8042 {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(self.status);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data == [Self::PULSE_RESET] {
            self.sink.request(PowerRequest::Reset(ResetBy::I8042));
        }
    }
}

/// System control port A of the PS/2: bit 1 is the A20 gate, which is always open here, whatever is
/// written; bit 0 resets.
pub struct SystemControl(pub Arc<dyn PowerSink>);

impl SystemControl {
    const A20: u8 = 2;
    const FAST_RESET: u8 = 1;
}

impl BusDevice for SystemControl {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(Self::A20);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if let &[byte] = data
            && byte & Self::FAST_RESET != 0
        {
            self.0.request(PowerRequest::Reset(ResetBy::SystemControl));
        }
    }
}

/// QEMU's pvpanic port. (docs/specs/pvpanic.rst in QEMU)
pub struct PvPanic(pub Arc<dyn PowerSink>);

impl PvPanic {
    /// The guest panicked and nothing in it will handle that.
    const PANICKED: u8 = 1;
}

impl BusDevice for PvPanic {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        data[0] = Self::PANICKED;
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data.first().is_some_and(|byte| byte & Self::PANICKED != 0) {
            self.0.request(PowerRequest::Panic);
        }
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;
    use std::sync::Mutex;

    /// What was asked for.
    #[derive(Default)]
    pub struct Asked(pub Mutex<Vec<PowerRequest>>);

    impl PowerSink for Asked {
        fn request(&self, request: PowerRequest) {
            self.0.lock().unwrap().push(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Asked;
    use super::*;

    fn asked(sink: &Asked) -> Vec<PowerRequest> {
        std::mem::take(&mut sink.0.lock().unwrap())
    }

    fn acpi() -> (AcpiPower, Arc<Asked>, EventFd) {
        let (sink, irq) = (Arc::new(Asked::default()), crate::sys::fds::eventfd().unwrap());
        (AcpiPower::new(sink.clone(), irq.try_clone().unwrap()), sink, irq)
    }

    #[test]
    fn s5_switches_off_and_nothing_else_does() {
        let (acpi, sink, _irq) = acpi();
        for other in [0, SLP_EN, 5 << 2, 4 << 2 | SLP_EN] {
            acpi.write(0, &[other]);
        }
        acpi.write(0, &[5 << 2 | SLP_EN, 0]);
        assert!(asked(&sink).is_empty());
        acpi.write(0, &[5 << 2 | SLP_EN]);
        assert_eq!(asked(&sink), [PowerRequest::Off]);
    }

    #[test]
    fn every_reset_path_names_itself() {
        let (acpi, sink, _irq) = acpi();
        acpi.write(u64::from(ACPI_RESET - ACPI_POWER_BASE), &[ACPI_RESET_VALUE]);
        ResetControl(sink.clone()).write(0, &[2]);
        ResetControl(sink.clone()).write(0, &[6]);
        let i8042 = I8042::ready(sink.clone());
        i8042.write(0, &[0xd1]);
        i8042.write(0, &[0xfe]);
        SystemControl(sink.clone()).write(0, &[2]);
        SystemControl(sink.clone()).write(0, &[3]);
        PvPanic(sink.clone()).write(0, &[2]);
        PvPanic(sink.clone()).write(0, &[1]);
        let by = [ResetBy::Acpi, ResetBy::Port0xcf9, ResetBy::I8042, ResetBy::SystemControl];
        let mut expected: Vec<_> = by.map(PowerRequest::Reset).into();
        expected.push(PowerRequest::Panic);
        assert_eq!(asked(&sink), expected);
    }

    #[test]
    fn the_button_interrupts_and_reads_once() {
        let (acpi, _sink, irq) = acpi();
        acpi.press_button();
        assert_eq!(irq.read().unwrap(), 1);
        let mut events = [0];
        acpi.read(4, &mut events);
        assert_eq!(events, [POWER_BUTTON]);
        acpi.read(4, &mut events);
        assert_eq!(events, [0]);
    }

    #[test]
    fn odd_sizes_are_harmless() {
        let (acpi, sink, _irq) = acpi();
        let devices: [&dyn BusDevice; 5] = [
            &acpi,
            &ResetControl(sink.clone()),
            &I8042::absent(sink.clone()),
            &SystemControl(sink.clone()),
            &PvPanic(sink.clone()),
        ];
        for device in devices {
            for offset in 0..ACPI_POWER_LEN.into() {
                for size in [1, 2, 4, 8] {
                    device.read(offset, &mut vec![0; size]);
                    device.write(offset, &vec![0; size]);
                }
            }
        }
        assert!(asked(&sink).is_empty());
    }
}
