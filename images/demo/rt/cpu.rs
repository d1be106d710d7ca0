//! What the processor and its interrupt controllers do for the guest: ports, registers in memory,
//! interrupts, halting, and the ways to end.

use core::arch::asm;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

#[allow(improper_ctypes)]
unsafe extern "C" {
    static mut idt: [[u64; 2]; 256];
    static irq_counts: [AtomicU64; 24];
    static aps_online: AtomicU64;
    static aps_count: AtomicU64;
    static ap_counts: [AtomicU64; 64];
    static exception_record: [u64; 4];
    static mut pdpt: [u64; 512];
    fn irq_stubs();
    fn exception_stubs();
    fn ap_start();
    fn ap_end();
}

/// Interrupts of GSI n arrive at this vector plus n.
const IRQ_VECTOR: usize = 0x20;
/// The local APIC's registers (Intel SDM vol. 3, table 11-1).
const LAPIC: u64 = 0xfee0_0000;
/// Where application processors start, see `entry.rs`.
const AP_START: u64 = 0x1000;

/// Write a byte, 16 or 32 bits to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: the TSS opens all ports, and ports do not touch this program's memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

/// Write 16 bits to a port.
pub fn out16(port: u16, value: u16) {
    // SAFETY: as in `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) }
}

/// Write 32 bits to a port.
pub fn out32(port: u16, value: u32) {
    // SAFETY: as in `out8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) }
}

/// Read a byte from a port.
pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as in `out8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) }
    value
}

/// Read 16 bits from a port.
pub fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: as in `out8`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack)) }
    value
}

/// Read 32 bits from a port.
pub fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `out8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) }
    value
}

/// Read a 32-bit register in memory.
pub fn mmio_read(address: u64) -> u32 {
    // SAFETY: the first 4 GiB are mapped, and devices are not in this program's memory.
    unsafe { (address as *const u32).read_volatile() }
}

/// Write a 32-bit register in memory.
pub fn mmio_write(address: u64, value: u32) {
    // SAFETY: as in `mmio_read`.
    unsafe { (address as *mut u32).write_volatile(value) }
}

/// Load a `T` from anywhere that is mapped, of a device or of nobody.
pub fn load<T: Copy>(address: u64) -> T {
    // SAFETY: a device's registers are no object of this program's; the caller stays out of RAM.
    unsafe { (address as *const T).read_volatile() }
}

/// Store a `T` anywhere that is mapped, of a device or of nobody.
pub fn store<T>(address: u64, value: T) {
    // SAFETY: as in `load`.
    unsafe { (address as *mut T).write_volatile(value) }
}

/// Read 64 bits of mapped RAM that nothing else uses.
pub fn peek(address: u64) -> u64 {
    // SAFETY: as the caller says.
    unsafe { (address as *const u64).read_volatile() }
}

/// Write 64 bits of mapped RAM that nothing else uses.
pub fn poke(address: u64, value: u64) {
    // SAFETY: as the caller says.
    unsafe { (address as *mut u64).write_volatile(value) }
}

/// Read `len` bytes of physical memory below 4 GiB that firmware tables occupy.
pub fn physical(address: u64, len: usize) -> &'static [u8] {
    assert!(address >= 0x500 && address + len as u64 <= 1 << 32, "a table at {address:#x}");
    // SAFETY: mapped, and nothing of this program's own lies there: tables are in reserved memory.
    unsafe { core::slice::from_raw_parts(address as *const u8, len) }
}

/// Fill the interrupt table and switch the local APIC on. Interrupts are enabled all the time.
pub fn init() {
    let gate = |handler: u64| -> [u64; 2] {
        let low = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32;
        [low | (handler >> 16 & 0xffff) << 48, handler >> 32]
    };
    // SAFETY: one processor runs, no interrupt source is enabled yet, and the table is ours.
    unsafe {
        let table = &raw mut idt;
        for n in 0..32 {
            (*table)[n] = gate(exception_stubs as *const () as u64 + 16 * n as u64);
        }
        for n in 0..24 {
            (*table)[IRQ_VECTOR + n] = gate(irq_stubs as *const () as u64 + 16 * n as u64);
        }
    }
    mmio_write(LAPIC + 0xf0, 0x1ff); // spurious interrupt vector register: enabled
}

/// Route `gsi` of the I/O APIC at `ioapic` to this processor, edge-triggered, active high
/// (82093AA data sheet, 3.2.4).
pub fn enable_irq(ioapic: u64, gsi: u32) {
    assert!(gsi < 24, "GSI {gsi} is beyond the I/O APIC");
    let lapic_id = mmio_read(LAPIC + 0x20) >> 24;
    mmio_write(ioapic, 0x11 + 2 * gsi);
    mmio_write(ioapic + 0x10, lapic_id << 24);
    mmio_write(ioapic, 0x10 + 2 * gsi);
    mmio_write(ioapic + 0x10, IRQ_VECTOR as u32 + gsi);
}

/// The data of a message that interrupts as if by `gsi`: its vector. (Intel SDM vol. 3, 11.11.2)
pub fn msi_data(gsi: u32) -> u32 {
    IRQ_VECTOR as u32 + gsi
}

/// Have the local APIC interrupt so many times a second, as if by `gsi` (Intel SDM vol. 3, 11.5.4;
/// KVM's timer counts nanoseconds).
pub fn periodic_timer(gsi: u32, hertz: u32) {
    mmio_write(LAPIC + 0x3e0, 0xb); // divide by 1
    mmio_write(LAPIC + 0x320, 1 << 17 | (IRQ_VECTOR as u32 + gsi)); // periodic
    mmio_write(LAPIC + 0x380, 1_000_000_000 / hertz);
}

/// The number of interrupts of `gsi` so far.
pub fn irq_count(gsi: u32) -> u64 {
    // SAFETY: an array of atomics that lives as long as the program.
    unsafe { (*(&raw const irq_counts))[gsi as usize].load(Ordering::SeqCst) }
}

/// Halt until the number of interrupts of `gsi` is no longer `seen`.
pub fn wait_irq(gsi: u32, seen: u64) {
    while irq_count(gsi) == seen {
        halt(gsi, seen);
    }
}

/// Halt until any interrupt, but not if the number of those of `gsi` is no longer `seen`.
pub fn halt(gsi: u32, seen: u64) {
    // SAFETY: the stub reads the counter at rdi and changes nothing.
    unsafe {
        let counter = (&raw const irq_counts).cast::<AtomicU64>().add(gsi as usize);
        asm!("hlt", in("eax") 0, in("rdi") counter, in("rsi") seen);
    }
}

/// The time stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Stop this processor for good.
pub fn stop() -> ! {
    // SAFETY: the stub never returns.
    unsafe { asm!("hlt", in("eax") 2, options(noreturn)) }
}

/// Make a triple fault, which resets the machine.
pub fn triple_fault() -> ! {
    // SAFETY: the stub never returns.
    unsafe { asm!("hlt", in("eax") 1, options(noreturn)) }
}

/// Send INIT and two SIPIs to the processor with this local APIC id (Intel SDM vol. 3, 10.4.4.1)
/// and wait until it runs our code.
pub fn start_ap(lapic_id: u32) {
    // SAFETY: the page at AP_START is conventional memory that nothing else of ours uses, and
    // `aps_online` is an atomic.
    let online = unsafe {
        let len = ap_end as *const () as usize - ap_start as *const () as usize;
        let code = core::slice::from_raw_parts(ap_start as *const u8, len);
        core::slice::from_raw_parts_mut(AP_START as *mut u8, len).copy_from_slice(code);
        &*(&raw const aps_online)
    };
    let before = online.load(Ordering::SeqCst);
    for command in [0x4500, 0x4600 | AP_START as u32 >> 12, 0x4600 | AP_START as u32 >> 12] {
        if online.load(Ordering::SeqCst) == before {
            mmio_write(LAPIC + 0x310, lapic_id << 24);
            mmio_write(LAPIC + 0x300, command);
        }
    }
    while online.load(Ordering::SeqCst) == before {
        core::hint::spin_loop();
    }
}

/// Have processors that are started from now on count instead of stopping.
pub fn let_aps_count() {
    // SAFETY: an atomic that lives as long as the program.
    unsafe { (*(&raw const aps_count)).store(1, Ordering::SeqCst) }
}

/// How far application processor `n`, from 0 in the order of their start, has counted; `None` if it
/// lost count.
pub fn ap_count(n: usize) -> Option<u64> {
    // SAFETY: an array of atomics that lives as long as the program.
    let count = unsafe { (*(&raw const ap_counts))[n].load(Ordering::SeqCst) };
    (count != u64::MAX).then_some(count)
}

/// This processor's local APIC id.
pub fn lapic_id() -> u32 {
    mmio_read(LAPIC + 0x20) >> 24
}

/// Identity-map the GiB that begins at `address` (4 GiB or more) through a page directory of our
/// own.
pub fn map_high_gib(address: u64) {
    let directory = super::memory::pages(1);
    let index = (address >> 30) as usize;
    assert!((4..512).contains(&index));
    for (n, entry) in directory.chunks_exact_mut(8).enumerate() {
        entry.copy_from_slice(&((index as u64) << 30 | (n as u64) << 21 | 0xe7).to_ne_bytes());
    }
    // SAFETY: the entry was not present, so nothing can have been using it.
    unsafe {
        (&raw mut pdpt).cast::<u64>().add(index).write_volatile(directory.as_ptr() as u64 | 0x27)
    }
}

/// Exceptions end here, back at CPL 3.
#[unsafe(no_mangle)]
extern "C" fn guest_exception() -> ! {
    // SAFETY: written by the exception stub of this, the only, processor.
    let [vector, error, rip, cr2] = unsafe { (&raw const exception_record).read_volatile() };
    panic!("exception {vector} (error {error:#x}) at {rip:#x}, cr2 {cr2:#x}");
}

/// COM1 (16550), written without interrupts.
pub struct Serial;

/// COM1's first port.
pub const COM1: u16 = 0x3f8;

impl Serial {
    /// Bytes as they are. The FIFO takes 16 once the line status register says that it is empty, so
    /// ask only that often: each access is an exit.
    pub fn put(bytes: &[u8]) {
        for chunk in bytes.chunks(16) {
            while in8(COM1 + 5) & 0x20 == 0 {} // LSR: transmitter holding register empty
            // SAFETY: reads the chunk and writes a port.
            unsafe {
                asm!("hlt", inout("eax") 3 => _, in("dx") COM1,
                    inout("rsi") chunk.as_ptr() => _, inout("rcx") chunk.len() => _);
            }
        }
    }
}

impl Serial {
    /// What has come in, at most `buffer.len()` bytes (at least 1).
    pub fn get(buffer: &mut [u8]) -> &mut [u8] {
        let (room, left): (_, usize);
        room = buffer.len();
        assert!(room > 0);
        // SAFETY: the stub writes at most `room` bytes to the buffer.
        unsafe {
            asm!("hlt", inout("eax") 4 => _, out("edx") _, inout("rdi") buffer.as_mut_ptr() => _,
                inout("rcx") room => left);
        }
        &mut buffer[..room - left]
    }
}

impl Write for Serial {
    /// Text, with a carriage return before each line feed.
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => [line.as_bytes(), b"\r\n"].map(Self::put),
                None => [line.as_bytes(), b""].map(Self::put),
            };
        }
        Ok(())
    }
}

/// Print a line on the console.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        let line = alloc::format!($($arg)*) + "\n";
        let _ = core::fmt::Write::write_str(&mut $crate::rt::cpu::Serial, &line);
    }};
}

/// QEMU's pvpanic device: bit 0 says that the guest panicked (docs/specs/pvpanic.rst).
const PVPANIC: u16 = 0x505;

/// Tell the VMM that this guest panicked.
pub fn tell_panic() -> ! {
    out8(PVPANIC, 1);
    stop()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "guest FAILED: {info}");
    tell_panic()
}
