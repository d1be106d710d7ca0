//! The serial line: a 16550A. (National Semiconductor PC16550D data sheet)

use crate::chipset::bus::BusDevice;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// Registers by offset.
const DATA: u64 = 0;
const IER: u64 = 1;
const IIR_FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;
const SCR: u64 = 7;

const IER_RX: u8 = 1;
const IER_THRE: u8 = 2;
const IER_MODEM: u8 = 8;

const IIR_MODEM: u8 = 0;
const IIR_NONE: u8 = 1;
const IIR_THRE: u8 = 2;
const IIR_RX: u8 = 4;
const IIR_RX_TIMEOUT: u8 = 0xc;
const IIR_FIFOS: u8 = 0xc0;

const FCR_ENABLE: u8 = 1;
const FCR_CLEAR_RX: u8 = 2;

const LCR_DLAB: u8 = 0x80;

const MCR_RTS: u8 = 2;
const MCR_LOOP: u8 = 0x10;
const MCR_BITS: u8 = 0x1f;

const LSR_DATA: u8 = 1;
/// The transmitter is always empty: a byte is gone as it is written.
const LSR_IDLE: u8 = 0x60;

/// Carrier, data set ready, clear to send: somebody is always there.
const MSR_PRESENT: u8 = 0xb0;

/// Receive FIFO of the chip.
const FIFO: usize = 16;
/// Bytes that we take ahead of the guest. Few enough that one burst does not overrun the guest's
/// own buffers.
const AHEAD: usize = 512;

/// The other end of the line.
pub trait SerialHost: Send + Sync {
    /// The guest sent a byte. Called by vCPU threads.
    fn output(&self, byte: u8);
    /// [`Serial::input`] would take bytes (again).
    fn input_wanted(&self);
}

/// The registers of the chip, and what waits in its FIFO and on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uart {
    ier: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    /// The low four bits of MSR: what changed since it was read.
    msr_delta: u8,
    divisor: [u8; 2],
    fifos: bool,
    /// Bytes in the receive FIFO at which it reports itself as full enough.
    trigger: usize,
    /// The transmitter's interrupt waits to be seen.
    thre: bool,
    /// The guest has raised RTS once, so it knows flow control: from then on no RTS means no input.
    rts_seen: bool,
    rx: VecDeque<u8>,
}

impl Default for Uart {
    fn default() -> Self {
        Self {
            ier: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            msr_delta: 0,
            // 9600 baud from a 1.8432 MHz clock.
            divisor: [12, 0],
            fifos: false,
            trigger: 1,
            thre: false,
            rts_seen: false,
            rx: VecDeque::with_capacity(AHEAD),
        }
    }
}

impl Uart {
    /// The most urgent reason for an interrupt. (data sheet, table V)
    fn iir(&self) -> u8 {
        if self.ier & IER_RX != 0 && !self.rx.is_empty() {
            if self.rx.len() >= self.trigger { IIR_RX } else { IIR_RX_TIMEOUT }
        } else if self.ier & IER_THRE != 0 && self.thre {
            IIR_THRE
        } else if self.ier & IER_MODEM != 0 && self.msr_delta != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    fn msr(&self) -> u8 {
        if self.mcr & MCR_LOOP == 0 {
            return MSR_PRESENT;
        }
        // In loop mode DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD.
        let bit = |from: u8, to: u8| (self.mcr >> from & 1) << to;
        bit(0, 5) | bit(1, 4) | bit(2, 6) | bit(3, 7)
    }

    fn set_mcr(&mut self, value: u8) {
        let before = self.msr();
        self.mcr = value & MCR_BITS;
        let (after, changed) = (self.msr(), before ^ self.msr());
        // RI (bit 6) reports only its trailing edge.
        let changed = if after & 0x40 != 0 { changed & !0x40 } else { changed };
        self.msr_delta |= changed >> 4;
        self.rts_seen |= self.mcr & MCR_RTS != 0;
    }

    fn room(&self) -> usize {
        let held = self.rts_seen && self.mcr & (MCR_RTS | MCR_LOOP) == 0;
        if held || self.mcr & MCR_LOOP != 0 { 0 } else { AHEAD - self.rx.len().min(AHEAD) }
    }

    /// Returns true if `host` is to be asked for more input.
    fn write(&mut self, offset: u64, value: u8, host: &dyn SerialHost) -> bool {
        let room = self.room();
        match offset {
            DATA if self.lcr & LCR_DLAB != 0 => self.divisor[0] = value,
            IER if self.lcr & LCR_DLAB != 0 => self.divisor[1] = value,
            DATA => {
                if self.mcr & MCR_LOOP == 0 {
                    host.output(value);
                } else if self.rx.len() < FIFO {
                    self.rx.push_back(value);
                }
                self.thre = true;
            }
            IER => {
                // Enabling the transmitter's interrupt while it is empty raises it.
                self.thre |= value & !self.ier & IER_THRE != 0;
                self.ier = value & 0xf;
            }
            IIR_FCR => {
                self.fifos = value & FCR_ENABLE != 0;
                self.trigger = if self.fifos { [1, 4, 8, 14][usize::from(value >> 6)] } else { 1 };
                if value & FCR_CLEAR_RX != 0 {
                    // What we hold beyond the chip's own FIFO is still on the wire.
                    self.rx.drain(..self.rx.len().min(FIFO));
                }
            }
            LCR => self.lcr = value,
            MCR => self.set_mcr(value),
            SCR => self.scr = value,
            _ => {}
        }
        room == 0 && self.room() > 0
    }

    /// The register's value, and true if the host is to be asked for more input.
    fn read(&mut self, offset: u64) -> (u8, bool) {
        let value = match offset {
            DATA if self.lcr & LCR_DLAB != 0 => self.divisor[0],
            IER if self.lcr & LCR_DLAB != 0 => self.divisor[1],
            DATA => {
                let byte = self.rx.pop_front();
                return (byte.unwrap_or(0), byte.is_some() && self.rx.is_empty());
            }
            IER => self.ier,
            IIR_FCR => {
                let iir = self.iir();
                if iir == IIR_THRE {
                    self.thre = false;
                }
                if self.fifos { iir | IIR_FIFOS } else { iir }
            }
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => LSR_IDLE | if self.rx.is_empty() { 0 } else { LSR_DATA },
            MSR => self.msr() | std::mem::take(&mut self.msr_delta),
            SCR => self.scr,
            _ => 0xff,
        };
        (value, false)
    }
}

/// A 16550A whose interrupt is an edge on an irqfd.
pub struct Serial {
    uart: Mutex<Uart>,
    irq: EventFd,
    host: Arc<dyn SerialHost>,
}

impl Serial {
    /// `irq` is the irqfd of its interrupt.
    pub fn new(irq: EventFd, host: Arc<dyn SerialHost>) -> Self {
        Self { uart: Mutex::default(), irq, host }
    }

    fn uart(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An edge for each new reason; a reason that still waits to be seen needs no second one.
    fn raise(&self, before: u8, uart: &Uart) {
        let after = uart.iir();
        if after != IIR_NONE && after != before {
            // It fails only when the counter is full: the interrupt is pending already.
            let _ = self.irq.write(1);
        }
    }

    /// Bytes for the guest; returns how many were taken. The rest is to be offered again after
    /// [`SerialHost::input_wanted`]: nothing is dropped.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut uart = self.uart();
        let before = uart.iir();
        let taken = bytes.len().min(uart.room());
        uart.rx.extend(&bytes[..taken]);
        self.raise(before, &uart);
        taken
    }

    /// The state that a hibernated machine keeps.
    pub fn save(&self) -> Uart {
        self.uart().clone()
    }

    /// Takes over a saved state.
    pub fn restore(&self, state: Uart) {
        *self.uart() = state;
    }

    /// Interrupts again for what waits to be seen, and asks for input again: both may be lost with
    /// the old machine.
    pub fn repeat_interrupt(&self) {
        self.raise(IIR_NONE, &self.uart());
        self.host.input_wanted();
    }

    /// The machine's reset. Input that the guest has not read is lost, as on a wire.
    pub fn reset(&self) {
        *self.uart() = Uart::default();
        self.host.input_wanted();
    }
}

impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let [byte] = data else { return };
        let wanted;
        (*byte, wanted) = self.uart().read(offset);
        if wanted {
            self.host.input_wanted();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let &[byte] = data else { return };
        let mut uart = self.uart();
        let before = uart.iir();
        let wanted = uart.write(offset, byte, &*self.host);
        self.raise(before, &uart);
        drop(uart);
        if wanted {
            self.host.input_wanted();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Host {
        sent: Mutex<Vec<u8>>,
        wanted: AtomicUsize,
    }

    impl SerialHost for Host {
        fn output(&self, byte: u8) {
            self.sent.lock().unwrap().push(byte);
        }
        fn input_wanted(&self) {
            self.wanted.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn serial() -> (Serial, Arc<Host>, EventFd) {
        let (host, irq) = (Arc::new(Host::default()), crate::sys::fds::eventfd().unwrap());
        (Serial::new(irq.try_clone().unwrap(), host.clone()), host, irq)
    }

    fn read(serial: &Serial, offset: u64) -> u8 {
        let mut data = [0];
        serial.read(offset, &mut data);
        data[0]
    }

    fn interrupted(irq: &EventFd) -> bool {
        irq.read().is_ok()
    }

    #[test]
    fn sixteen_bytes_cost_one_interrupt() {
        let (serial, host, irq) = serial();
        serial.write(IER, &[IER_THRE]);
        assert!(interrupted(&irq));
        assert_eq!(read(&serial, IIR_FCR), IIR_THRE);
        assert_eq!(read(&serial, IIR_FCR), IIR_NONE);
        for byte in b"0123456789abcdef" {
            serial.write(DATA, &[*byte]);
        }
        assert_eq!(irq.read().unwrap(), 1);
        assert_eq!(read(&serial, IIR_FCR), IIR_THRE);
        assert_eq!(*host.sent.lock().unwrap(), b"0123456789abcdef");
    }

    #[test]
    fn a_pasted_64_kib_arrives_whole_and_in_order() {
        let (serial, host, irq) = serial();
        serial.write(MCR, &[0x0b]);
        serial.write(IIR_FCR, &[0x81]);
        serial.write(IER, &[IER_RX]);
        let paste: Vec<u8> = (0..65536u32).map(|n| (n * 7 % 251) as u8).collect();
        let (mut offered, mut got) = (0, Vec::new());
        while got.len() < paste.len() {
            offered += serial.input(&paste[offered..]);
            assert!(interrupted(&irq));
            assert_eq!(read(&serial, IIR_FCR) & 0xf, IIR_RX);
            let before = host.wanted.load(Ordering::SeqCst);
            while read(&serial, LSR) & LSR_DATA != 0 {
                got.push(read(&serial, DATA));
            }
            assert_eq!(host.wanted.load(Ordering::SeqCst), before + 1);
        }
        assert_eq!(got, paste);
    }

    #[test]
    fn no_input_while_the_guest_holds_rts_down() {
        let (serial, host, _irq) = serial();
        serial.write(MCR, &[MCR_RTS]);
        assert_eq!(serial.input(b"a"), 1);
        serial.write(MCR, &[0]);
        assert_eq!(serial.input(b"b"), 0);
        serial.write(MCR, &[MCR_RTS]);
        assert_eq!(host.wanted.load(Ordering::SeqCst), 1);
        assert_eq!(serial.input(b"b"), 1);
    }

    /// What Linux's autoconfig looks at: drivers/tty/serial/8250/8250_port.c.
    #[test]
    fn it_probes_as_a_16550a() {
        let (serial, host, _irq) = serial();
        serial.write(IER, &[0xff]);
        assert_eq!(read(&serial, IER), 0x0f);
        serial.write(IER, &[0]);
        serial.write(MCR, &[MCR_LOOP | 0x0a]);
        assert_eq!(read(&serial, MSR) & 0xf0, 0x90);
        serial.write(DATA, b"x");
        assert_eq!(read(&serial, DATA), b'x');
        serial.write(MCR, &[0]);
        serial.write(IIR_FCR, &[FCR_ENABLE]);
        assert_eq!(read(&serial, IIR_FCR) & IIR_FIFOS, IIR_FIFOS);
        serial.write(SCR, &[0x5a]);
        assert_eq!(read(&serial, SCR), 0x5a);
        serial.write(LCR, &[LCR_DLAB]);
        serial.write(DATA, &[1]);
        assert_eq!((read(&serial, DATA), read(&serial, IER)), (1, 0));
        assert!(host.sent.lock().unwrap().is_empty());
    }

    #[test]
    fn any_access_of_any_size_is_answered() {
        let (serial, host, _irq) = serial();
        for offset in 0..8 {
            for size in [2, 4, 8] {
                let mut data = vec![0; size];
                serial.write(offset, &data);
                serial.read(offset, &mut data);
                assert!(data.iter().all(|&byte| byte == 0xff));
            }
            for value in 0..=255u8 {
                serial.write(offset, &[value]);
                read(&serial, offset);
            }
        }
        assert!(host.sent.lock().unwrap().len() <= 256);
    }
}
