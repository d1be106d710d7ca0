//! The serial line, the clock and the power registers under a guest that does what the bytes say.

use sporevm::chipset::bus::BusDevice;
use sporevm::chipset::power::{
    AcpiPower, I8042, PowerRequest, PowerSink, PvPanic, ResetControl, SystemControl,
};
use sporevm::chipset::rtc::Rtc;
use sporevm::chipset::serial::{Serial, SerialHost};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes of an access: device and direction, offset, size, value.
const ACCESS: usize = 4;

#[derive(Default)]
struct Host {
    sent: AtomicUsize,
}

impl SerialHost for Host {
    fn output(&self, _byte: u8) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
    fn input_wanted(&self) {}
}

impl PowerSink for Host {
    fn request(&self, _request: PowerRequest) {}
}

/// Do the accesses. Whatever a guest does to the serial line, input is taken again after a reset.
pub fn drive(data: &[u8]) {
    let irq = || EventFd::new(EFD_NONBLOCK).unwrap();
    let host = Arc::new(Host::default());
    let serial = Serial::new(irq(), host.clone());
    let (rtc, acpi) = (Rtc::new(2), AcpiPower::new(host.clone(), irq()));
    let (reset, i8042) = (ResetControl(host.clone()), I8042::absent(host.clone()));
    let (system, panic) = (SystemControl(host.clone()), PvPanic(host.clone()));
    let devices: [(&dyn BusDevice, u64); 7] =
        [(&serial, 8), (&rtc, 2), (&acpi, 5), (&reset, 1), (&i8042, 1), (&system, 1), (&panic, 1)];
    for access in data.chunks_exact(ACCESS) {
        if access[0] & 0x7f == 7 {
            let taken = serial.input(&vec![access[3]; access[1].into()]);
            assert!(taken <= usize::from(access[1]));
            continue;
        }
        let (device, len) = devices[usize::from(access[0] & 0x7f) % devices.len()];
        let mut value = [access[3]; 4];
        let value = &mut value[..1 << (access[2] % 3)];
        match access[0] & 0x80 != 0 {
            true => device.write(u64::from(access[1]) % len, value),
            false => device.read(u64::from(access[1]) % len, value),
        }
    }
    acpi.press_button();
    rtc.reset();
    acpi.reset();
    serial.reset();
    assert!(host.sent.load(Ordering::Relaxed) <= data.len());
    assert_eq!(serial.input(b"a"), 1);
}

/// A driver's beginning on the serial line, input, and reads of the clock.
pub fn seeds() -> Vec<Vec<u8>> {
    let serial = [[0x80, 1, 0, 0], [0x80, 3, 0, 0x80], [0x80, 0, 0, 1], [0x80, 3, 0, 3], [0x80, 2, 0, 7], [0x80, 1, 0, 5]];
    let talk = [[7, 40, 0, b'x'], [0, 5, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0], [0x80, 0, 0, b'y'], [0x80, 4, 0, 0x10]];
    let clock = [[0x81, 0, 0, 0x0a], [1, 1, 0, 0], [0x81, 0, 0, 0x32], [1, 1, 0, 0]];
    let power = [[0x82, 0, 0, 0x34], [2, 4, 0, 0], [0x83, 0, 0, 6], [0x84, 0, 0, 0xfe], [0x86, 0, 0, 1]];
    vec![[serial, talk].concat().concat(), clock.concat(), power.concat()]
}
