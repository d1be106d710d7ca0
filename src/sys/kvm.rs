//! KVM through kvm-ioctls, plus what that crate leaves to `unsafe`: memory slots, exits with the
//! size of each access, and the race-free kick of a vCPU that runs in another thread.

use crate::error::{Error, OrFail, Result};
use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO,
    KVM_EXIT_IO_IN, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT, KVM_MAX_CPUID_ENTRIES,
    KVM_MEM_READONLY, kvm_run, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::cell::Cell;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU8, Ordering, fence};

/// The device.
const DEVICE: &str = "/dev/kvm";

/// The signal that makes KVM_RUN return.
fn kick_signal() -> i32 {
    libc::SIGRTMIN()
}

/// Open /dev/kvm.
///
/// # Errors
/// It is missing or not permitted; the message says which, and what helps.
pub fn open() -> Result<Kvm> {
    Kvm::new().map_err(|e| match e.errno() {
        libc::EACCES | libc::EPERM => denied(),
        libc::ENOENT | libc::ENODEV | libc::ENXIO => missing(),
        _ => Error::io(format!("open {DEVICE}"), e),
    })
}

/// What KVM supports of CPUID, each entry as function, index, flags, eax, ebx, ecx, edx (struct
/// kvm_cpuid_entry2). Where the host is a virtual machine itself, each CPUID instruction that KVM
/// executes for the answer is an exit, and all of them take as long as making a VM.
///
/// # Errors
/// KVM does not say.
pub fn supported_cpuid(kvm: &Kvm) -> Result<Vec<[u32; 7]>> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .or_fail(|| "ask KVM for the CPUID that it supports")?;
    let entries = supported.as_slice().iter();
    Ok(entries.map(|e| [e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx]).collect())
}

/// See that /dev/kvm is there and permitted, without opening it.
///
/// # Errors
/// As [`open`]'s.
pub fn check() -> Result<()> {
    match access(DEVICE, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => Err(missing()),
        Err(Errno::ACCESS | Errno::PERM) => Err(denied()),
        Err(e) => Err(Error::io(format!("look at {DEVICE}"), e)),
    }
}

fn missing() -> Error {
    Error::failure(format!(
        "there is no {DEVICE}: load kvm_intel or kvm_amd, and switch virtualization on in the firmware \
         (in a VM: nested virtualization), or give the container --device {DEVICE}"
    ))
}

fn denied() -> Error {
    let advice = match std::fs::metadata(DEVICE) {
        Ok(device) => advice(device.mode(), group_name(device.gid()).as_deref()),
        Err(e) => e.to_string(),
    };
    Error::failure(format!("no access to {DEVICE}: {advice}"))
}

/// What gives a user a device with these permission bits. `group` is its own, if it is one that
/// users may join.
fn advice(mode: u32, group: Option<&str>) -> String {
    let join = |group| format!("'usermod --append --groups {group} USER', then log in again");
    match group {
        Some(group) if mode & 0o060 == 0o060 => format!("as root, run {}", join(group)),
        _ => format!(
            "as root, run 'chgrp kvm {DEVICE}', 'chmod 660 {DEVICE}' (a udev rule keeps that) and {}",
            join("kvm")
        ),
    }
}

/// The name of a group, from /etc/group. That of root is not for users to join.
fn group_name(gid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    let gid = gid.to_string();
    let is = |line: &&str| gid != "0" && line.split(':').nth(2) == Some(gid.as_str());
    Some(text.lines().find(is)?.split(':').next()?.to_owned())
}

/// A piece of guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Guest-physical address.
    pub gpa: u64,
    /// Where this process has it mapped.
    pub host: u64,
    /// Bytes.
    pub len: u64,
    /// What the guest writes there is an exit, and lost.
    pub read_only: bool,
}

/// Make these pieces the guest's memory, slots numbered from 0.
///
/// # Errors
/// KVM refuses a slot.
pub fn set_memory(vm: &VmFd, pieces: impl Iterator<Item = Memory>) -> Result<()> {
    for (slot, Memory { gpa, host, len, read_only }) in pieces.enumerate() {
        let slot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: if read_only { KVM_MEM_READONLY } else { 0 },
            guest_phys_addr: gpa,
            memory_size: len,
            userspace_addr: host,
        };
        // SAFETY: guest RAM and firmware stay mapped for the life of the process
        // (crate::sys::mmap::anonymous), and nothing in it is ever the target of a Rust reference.
        unsafe { vm.set_user_memory_region(slot) }
            .or_fail(|| format!("give the guest its RAM at {:#x}", gpa))?;
    }
    Ok(())
}

/// Why a vCPU came back from the guest.
#[derive(Debug)]
pub enum Exit<'a> {
    /// `in`: fill `data`, `size` bytes at a time (a string instruction has several).
    PortIn {
        /// The port.
        port: u16,
        /// Bytes an access: 1, 2 or 4.
        size: usize,
        /// A multiple of `size` bytes.
        data: &'a mut [u8],
    },
    /// `out`: take `data`, `size` bytes at a time.
    PortOut {
        /// The port.
        port: u16,
        /// Bytes an access: 1, 2 or 4.
        size: usize,
        /// A multiple of `size` bytes.
        data: &'a [u8],
    },
    /// A load from where there is no RAM: fill it.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// A store to where there is no RAM.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'a [u8],
    },
    /// Kicked, or nothing to do: look around and run again.
    Interrupted,
    /// A triple fault.
    Shutdown,
    /// KVM_EXIT_SYSTEM_EVENT with its type (KVM_SYSTEM_EVENT_SHUTDOWN 1, _RESET 2, _CRASH 3).
    SystemEvent(u32),
    /// KVM_EXIT_INTERNAL_ERROR with its suberror and the data that came with it.
    InternalError {
        /// KVM_INTERNAL_ERROR_*; 1 is an instruction that KVM could not emulate.
        suberror: u32,
        /// The instruction's bytes, where KVM tells.
        instruction: Vec<u8>,
    },
    /// KVM_EXIT_FAIL_ENTRY with the hardware's reason.
    FailEntry(u64),
    /// Any other exit reason.
    Other(u32),
}

/// Run `vcpu` until it exits. Only the thread that called [`Kickable::new`] for it may do this.
///
/// # Errors
/// KVM_RUN fails; EINTR and EAGAIN are [`Exit::Interrupted`].
pub fn run(vcpu: &mut VcpuFd) -> io::Result<Exit<'_>> {
    match vcpu.run() {
        Ok(_) => {}
        Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {
            vcpu.set_kvm_immediate_exit(0);
            return Ok(Exit::Interrupted);
        }
        Err(e) => return Err(io::Error::from_raw_os_error(e.errno())),
    }
    // The crate's VcpuExit says neither the size of a port access nor what an internal error is
    // about, so the shared page is read once more.
    let run = vcpu.get_kvm_run();
    let base: *mut u8 = std::ptr::from_mut::<kvm_run>(run).cast();
    let what = &mut run.__bindgen_anon_1;
    Ok(match run.exit_reason {
        KVM_EXIT_IO => {
            // SAFETY: exit_reason says that `io` is the union's live member; all its bit patterns
            // are valid.
            let io = unsafe { what.io };
            let (size, len) = (usize::from(io.size), usize::from(io.size) * io.count as usize);
            // SAFETY: KVM keeps the data of a port access in the vCPU's mapping, at data_offset,
            // and `vcpu` is borrowed as long as the slice lives (Documentation/virt/kvm/api.rst,
            // kvm_run).
            let data =
                unsafe { std::slice::from_raw_parts_mut(base.add(io.data_offset as usize), len) };
            if u32::from(io.direction) == KVM_EXIT_IO_IN {
                Exit::PortIn { port: io.port, size, data }
            } else {
                Exit::PortOut { port: io.port, size, data }
            }
        }
        KVM_EXIT_MMIO => {
            // SAFETY: as above, for `mmio`.
            let mmio = unsafe { &mut what.mmio };
            let len = (mmio.len as usize).min(mmio.data.len());
            let data = &mut mmio.data[..len];
            if mmio.is_write == 0 {
                Exit::MmioRead { address: mmio.phys_addr, data }
            } else {
                Exit::MmioWrite { address: mmio.phys_addr, data }
            }
        }
        // A halt comes to us only without an in-kernel local APIC.
        KVM_EXIT_INTR | KVM_EXIT_HLT => Exit::Interrupted,
        KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        KVM_EXIT_SYSTEM_EVENT => {
            // SAFETY: as above, for `system_event`.
            Exit::SystemEvent(unsafe { what.system_event.type_ })
        }
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: as above, for `fail_entry`.
            Exit::FailEntry(unsafe { what.fail_entry.hardware_entry_failure_reason })
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: as above, for `emulation_failure`; `internal` has the same first two fields
            // and all of the union is initialised memory.
            let failure = unsafe { what.emulation_failure };
            // SAFETY: plain bytes, valid whatever they are.
            let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
            // KVM_INTERNAL_ERROR_EMULATION with
            // KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES.
            let reported = failure.suberror == 1 && failure.ndata >= 3 && failure.flags & 1 != 0;
            let len =
                if reported { usize::from(bytes.insn_size).min(bytes.insn_bytes.len()) } else { 0 };
            let instruction = bytes.insn_bytes[..len].to_vec();
            Exit::InternalError { suberror: failure.suberror, instruction }
        }
        other => Exit::Other(other),
    })
}

/// Finish the access that the last exit was about, without running the guest any further: KVM
/// completes an `in` or a load only on the next KVM_RUN, and state saved or replaced before that
/// would be torn.
pub fn complete_io(vcpu: &mut VcpuFd) {
    vcpu.set_kvm_immediate_exit(1);
    // It returns EINTR by construction.
    let _ = vcpu.run();
    vcpu.set_kvm_immediate_exit(0);
}

thread_local! {
    /// Where this thread's vCPU has its immediate_exit byte; null in threads that run none.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

extern "C" fn on_kick(_signal: i32) {
    let byte = IMMEDIATE_EXIT.get();
    if !byte.is_null() {
        // SAFETY: the byte is inside this thread's vCPU mapping, which `Kickable` keeps registered
        // only as long as the vCPU lives. The kernel reads it when KVM_RUN begins, so a kick
        // between our last look around and KVM_RUN is not lost.
        unsafe { AtomicU8::from_ptr(byte) }.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

/// Install the handler of the kick signal, once in a process.
///
/// # Errors
/// sigaction(2) fails, which it does not.
pub fn install_kick_handler() -> Result<()> {
    // SAFETY: a zeroed sigaction is a valid one; the handler only touches an atomic byte.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_kick as *const () as usize;
        libc::sigaction(kick_signal(), &action, null_mut())
    };
    if done == 0 {
        Ok(())
    } else {
        Err(Error::io("handle the kick signal", io::Error::last_os_error()))
    }
}

/// The calling thread, registered as the one that runs a vCPU. Dropping it unregisters.
pub struct Kickable(());

impl Kickable {
    /// From now on a [`Kick`] of this thread makes `vcpu`'s KVM_RUN return.
    pub fn new(vcpu: &mut VcpuFd) -> Self {
        IMMEDIATE_EXIT.set(&raw mut vcpu.get_kvm_run().immediate_exit);
        Self(())
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(null_mut());
    }
}

/// Kicks a thread out of KVM_RUN.
#[derive(Clone, Copy, Debug)]
pub struct Kick {
    process: i32,
    thread: i32,
}

impl Kick {
    /// For the calling thread.
    pub fn this_thread() -> Self {
        Self {
            process: rustix::process::getpid().as_raw_nonzero().get(),
            thread: rustix::thread::gettid().as_raw_nonzero().get(),
        }
    }

    /// Make it return from KVM_RUN, or not enter it the next time.
    pub fn kick(self) {
        // SAFETY: tgkill(2) takes no pointers; a thread that is gone is ESRCH.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, kick_signal()) };
    }
}

/// Whether the host's CPU has VMX or SVM. A KVM without them is a software KVM, which cannot run
/// every kernel.
// A safe function from Rust 1.90 on, an unsafe one before.
#[allow(unused_unsafe)]
pub fn host_virtualizes() -> bool {
    use std::arch::x86_64::__cpuid;
    // SAFETY: every x86-64 has CPUID; leaf 1 and 0x80000001 exist in all of them.
    let (basic, extended) = unsafe { (__cpuid(1), __cpuid(0x8000_0001)) };
    basic.ecx & 1 << 5 != 0 || extended.ecx & 1 << 2 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_join_a_group_that_does_not_help() {
        assert_eq!(
            advice(0o20660, Some("virt")),
            "as root, run 'usermod --append --groups virt USER', then log in again"
        );
        for (mode, group) in [(0o20600, None), (0o20660, None), (0o20600, Some("virt"))] {
            let advice = advice(mode, group);
            assert!(advice.contains("'chgrp kvm /dev/kvm', 'chmod 660 /dev/kvm'"), "{advice}");
            assert!(advice.contains("--groups kvm USER"), "{advice}");
        }
        assert_eq!(group_name(0), None);
    }
}
