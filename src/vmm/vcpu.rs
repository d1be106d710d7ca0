//! A thread for each vCPU: run the guest, answer its exits.

use crate::chipset::bus::Bus;
use crate::error::Result;
use crate::plan::{EndReason, ResetBy};
use crate::sys::fds;
use crate::sys::kvm::{self, Exit, Kickable};
use crate::sys::process::not_started;
use crate::vmm::run_state::Stop;
use crate::vmm::sandbox::{Filters, Role};
use crate::vmm::vcpu_barrier::VcpuBarrier;
use kvm_ioctls::VcpuFd;
use rustix::time::ClockId;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Address space for a thread's stack; only what it touches costs memory.
const STACK: usize = 256 << 10;

/// KVM_SYSTEM_EVENT_SHUTDOWN, _RESET and _CRASH. (linux/kvm.h)
const SYSTEM_EVENT_SHUTDOWN: u32 = 1;
const SYSTEM_EVENT_RESET: u32 = 2;
const SYSTEM_EVENT_CRASH: u32 = 3;

/// What all vCPUs of a machine share.
pub struct Shared {
    /// Where they stop.
    pub barrier: Arc<VcpuBarrier>,
    /// Set when all devices are there; the guest may run before.
    buses: OnceLock<Buses>,
    /// Benchmark: told when the guest's first access was (CLOCK_MONOTONIC in ns, 8 bytes), which is
    /// also the end.
    first_io: Option<File>,
}

struct Buses {
    /// Port I/O.
    pio: Bus,
    /// Memory-mapped I/O.
    mmio: Bus,
}

impl Shared {
    /// What the vCPUs of a machine without devices share.
    pub fn new(barrier: Arc<VcpuBarrier>, first_io: Option<File>) -> Self {
        Self { barrier, buses: OnceLock::new(), first_io }
    }

    /// Let the guest reach its devices, once.
    pub fn set_buses(&self, pio: Bus, mmio: Bus) {
        let _ = self.buses.set(Buses { pio, mmio });
    }

    /// The guest makes an access.
    fn buses(&self) -> &Buses {
        self.buses.wait()
    }
}

/// A vCPU. Its thread holds the lock while it runs; whoever has closed the barrier may take it.
pub struct Vcpu(Mutex<VcpuFd>);

impl Vcpu {
    /// A vCPU that is set up.
    pub fn new(fd: VcpuFd) -> Self {
        Self(Mutex::new(fd))
    }

    /// Its descriptor, once its thread waits at the barrier.
    pub fn lock(&self) -> MutexGuard<'_, VcpuFd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vCPU and all that its thread needs.
pub struct VcpuThread {
    /// The vCPU.
    pub vcpu: Arc<Vcpu>,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// What its thread is confined by, at the latest from its first exit on.
    pub filters: Option<Filters>,
}

impl VcpuThread {
    /// Begin a thread for it, that of vCPU number `index`, which waits for INIT and SIPI. It is
    /// confined from its start.
    ///
    /// # Errors
    /// The host has no thread for us.
    pub fn spawn(mut self, index: usize) -> Result<()> {
        let thread = std::thread::Builder::new().name(format!("vcpu{index}")).stack_size(STACK);
        let thread = thread.spawn(move || {
            let confined = confine(self.filters.take(), self.vcpu.lock().as_raw_fd());
            if let Some(stop) = confined {
                self.shared.barrier.stop(stop);
            }
            self.run()
        });
        let doing = || format!("start the thread of vCPU {index}");
        thread.map(drop).map_err(|cause| not_started(doing(), cause))
    }

    /// Run the guest on the calling thread, for the rest of the process's life.
    pub fn run(self) -> ! {
        let Self { vcpu, shared, filters: mut unconfined } = self;
        shared.barrier.join();
        let mut fd = vcpu.lock();
        let _kickable = Kickable::new(&mut fd);
        // A vCPU that has not been in the guest has nothing to complete, and may yet be given
        // another state.
        let mut entered = false;
        loop {
            if shared.barrier.is_closed() {
                if entered {
                    kvm::complete_io(&mut fd);
                }
                drop(fd);
                shared.barrier.wait();
                fd = vcpu.lock();
            }
            entered = true;
            if let Some(stop) = step(&mut fd, &shared, unconfined.take()) {
                shared.barrier.stop(stop);
            }
        }
    }
}

/// Confine the calling thread, if it is not, to this vCPU; why it cannot be.
fn confine(unconfined: Option<Filters>, vcpu: RawFd) -> Option<Stop> {
    let error = unconfined?.confine(Role::Vcpu(vcpu)).err()?;
    Some(Stop::End(EndReason::VmmError, error.to_string()))
}

/// Run the guest until it exits and do what it exits for, confined by `unconfined` from its return
/// on.
///
/// Before its first exit a thread executes nothing but KVM_RUN, and a guest that begins need not
/// wait until a filter is compiled. What the guest wants is looked at by a confined thread only.
fn step(fd: &mut VcpuFd, shared: &Shared, unconfined: Option<Filters>) -> Option<Stop> {
    let descriptor = fd.as_raw_fd();
    let exit = kvm::run(fd);
    if let Some(pipe) = &shared.first_io {
        tell_first_io(&exit, pipe);
    }
    if let Some(stop) = confine(unconfined, descriptor) {
        return Some(stop);
    }
    let fault = match exit {
        Ok(Exit::PortIn { port, size, data }) => {
            let pio = &shared.buses().pio;
            // String instructions repeat at the same port.
            data.chunks_exact_mut(size.max(1)).for_each(|item| pio.read(port.into(), item));
            return None;
        }
        Ok(Exit::PortOut { port, size, data }) => {
            let pio = &shared.buses().pio;
            data.chunks_exact(size.max(1)).for_each(|item| pio.write(port.into(), item));
            return None;
        }
        Ok(Exit::MmioRead { address, data }) => {
            shared.buses().mmio.read(address, data);
            return None;
        }
        Ok(Exit::MmioWrite { address, data }) => {
            shared.buses().mmio.write(address, data);
            return None;
        }
        Ok(Exit::Interrupted) => return None,
        Ok(Exit::SystemEvent(SYSTEM_EVENT_SHUTDOWN)) => {
            let message = "the guest switched itself off".to_owned();
            return Some(Stop::End(EndReason::GuestPoweroff, message));
        }
        Ok(Exit::SystemEvent(SYSTEM_EVENT_RESET)) => return Some(Stop::Reset(ResetBy::Acpi)),
        Ok(Exit::SystemEvent(SYSTEM_EVENT_CRASH)) => {
            let message = "the guest's kernel crashed".to_owned();
            return Some(Stop::End(EndReason::GuestPanic, message));
        }
        Ok(Exit::Shutdown) => {
            let message = "the guest's CPU shut down after a triple fault".to_owned();
            return Some(Stop::End(
                EndReason::TripleFault,
                message + &hint("may be unable to run"),
            ));
        }
        Ok(Exit::InternalError { suberror, instruction }) => internal_error(suberror, &instruction),
        Ok(Exit::FailEntry(reason)) => format!("the CPU refuses to enter the guest ({reason:#x})"),
        Ok(Exit::SystemEvent(kind)) => format!("KVM reports system event {kind}"),
        Ok(Exit::Other(reason)) => format!("KVM exits for a reason not known here ({reason})"),
        Err(error) => format!("KVM_RUN fails: {error}"),
    };
    let rip = fd.get_regs().map_or_else(|_| "?".to_owned(), |regs| format!("{:#x}", regs.rip));
    Some(Stop::End(EndReason::KvmError, format!("{fault} at rip {rip}{}", hint("can't run"))))
}

/// KVM_INTERNAL_ERROR_* in words. (linux/kvm.h)
fn internal_error(suberror: u32, instruction: &[u8]) -> String {
    let what = match suberror {
        1 => "it cannot emulate an instruction",
        2 => "simultaneous exceptions",
        3 => "event delivery failed",
        4 => "unexpected exit of the CPU",
        _ => "unknown",
    };
    let bytes: Vec<_> = instruction.iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = if bytes.is_empty() { String::new() } else { format!(" ({})", bytes.join(" ")) };
    format!("KVM internal error, suberror {suberror}: {what}{bytes}")
}

/// What to do about it where KVM itself is the likely cause.
fn hint(verdict: &str) -> String {
    if kvm::host_virtualizes() {
        return String::new();
    }
    format!(
        "; this host's KVM is a software KVM that {verdict} this kernel; run it in the box: \
         scripts/kvm-box run -- spore run …"
    )
}

/// The end of a benchmark, if this exit is what it waits for.
fn tell_first_io(exit: &io::Result<Exit>, mut pipe: &File) {
    use Exit::{MmioRead, MmioWrite, PortIn, PortOut};
    if let Ok(PortIn { .. } | PortOut { .. } | MmioRead { .. } | MmioWrite { .. }) = exit {
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        let now = now.tv_sec * 1_000_000_000 + now.tv_nsec;
        // Nobody waits any longer if it fails.
        let _ = pipe.write_all(&now.to_le_bytes());
        fds::exit_now(0);
    }
}
