//! What a VMM gives up before its guest runs: new privileges, the file system, the network, and
//! every system call that the thread at hand has no use for.

use crate::block;
use crate::error::{OrFail, Result};
use crate::plan::TransportKind;
use crate::sys::seccomp::Allow::{self, Absent, Call, Ioctl, Is, Without};
use crate::sys::seccomp::{self, Filter};
use crate::sys::trim_memory;
use crate::virtio::device::DeviceType;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};
use std::os::fd::RawFd;

/// KVM's ioctl numbers, KVMIO being 0xae. (linux/kvm.h)
mod kvm {
    const fn none(nr: u32) -> u32 {
        0xae << 8 | nr
    }
    const fn write(nr: u32, size: u32) -> u32 {
        1 << 30 | size << 16 | 0xae << 8 | nr
    }
    const fn read(nr: u32, size: u32) -> u32 {
        2 << 30 | size << 16 | 0xae << 8 | nr
    }
    pub const RUN: u32 = none(0x80);
    pub const GET_REGS: u32 = read(0x81, 0x90);
    pub const SET_REGS: u32 = write(0x82, 0x90);
    pub const SET_SREGS: u32 = write(0x84, 0x138);
    pub const SET_MSRS: u32 = write(0x89, 8);
    pub const SET_FPU: u32 = write(0x8d, 0x1a0);
    pub const SET_LAPIC: u32 = write(0x8f, 0x400);
    pub const GET_MP_STATE: u32 = read(0x98, 4);
    pub const SET_MP_STATE: u32 = write(0x99, 4);
    pub const SET_VCPU_EVENTS: u32 = write(0xa0, 0x40);
    pub const SET_XCRS: u32 = write(0xa7, 0x188);
    pub const SET_PIT2: u32 = write(0xa0, 0x70);
    /// KVM_SET_IRQCHIP is _IOR in the header.
    pub const CHECK_EXTENSION: u32 = none(0x03);
    /// What is read of a machine that is hibernated; KVM_GET_MSRS, _MSR_INDEX_LIST and _IRQCHIP are
    /// _IOWR.
    pub const GET_MSR_INDEX_LIST: u32 = 3 << 30 | 4 << 16 | 0xae << 8 | 0x02;
    pub const GET_IRQCHIP: u32 = 3 << 30 | 0x208 << 16 | 0xae << 8 | 0x62;
    pub const GET_CLOCK: u32 = read(0x7c, 0x30);
    pub const GET_PIT2: u32 = read(0x9f, 0x70);
    pub const GET_SREGS: u32 = read(0x83, 0x138);
    pub const GET_MSRS: u32 = 3 << 30 | 8 << 16 | 0xae << 8 | 0x88;
    pub const GET_LAPIC: u32 = read(0x8e, 0x400);
    pub const GET_VCPU_EVENTS: u32 = read(0x9f, 0x40);
    pub const GET_DEBUGREGS: u32 = read(0xa1, 0x80);
    pub const GET_TSC_KHZ: u32 = none(0xa3);
    pub const GET_XSAVE: u32 = read(0xa4, 0x1000);
    pub const GET_XCRS: u32 = read(0xa6, 0x188);
    pub const KVMCLOCK_CTRL: u32 = none(0xad);
    pub const GET_SREGS2: u32 = read(0xcc, 0x140);
    pub const GET_XSAVE2: u32 = read(0xcf, 0x1000);
    pub const SET_IRQCHIP: u32 = read(0x63, 0x208);
    pub const SET_GSI_ROUTING: u32 = write(0x6a, 8);
    pub const IOEVENTFD: u32 = write(0x79, 0x40);
    pub const IRQFD: u32 = write(0x76, 0x20);
}

/// No thread makes memory executable.
const fn not_executable(call: i64) -> Allow {
    Without { call, argument: 2, bits: libc::PROT_EXEC as u32 }
}

const fn advice(advice: i32) -> Allow {
    Is { call: libc::SYS_madvise, argument: 2, value: advice as u32 }
}

/// What every thread needs.
const COMMON: &[Allow] = &[
    Call(libc::SYS_write),              // eventfds, report, console log, sockets
    Call(libc::SYS_futex),              // locks, condition variables, waits with a deadline
    Call(libc::SYS_rt_sigreturn),       // from the handler of the kick, and of what a filter traps
    Call(libc::SYS_restart_syscall),    // a wait with a deadline, after the process was stopped
    not_executable(libc::SYS_mmap),     // allocator
    not_executable(libc::SYS_mprotect), // allocator: a thread's arena grows
    Call(libc::SYS_munmap),             // allocator
    Call(libc::SYS_mremap),             // allocator
    Call(libc::SYS_brk),                // allocator
    Call(libc::SYS_clock_gettime),      // where the vDSO cannot
    Call(libc::SYS_exit_group),         // the end
];

/// Where overflows are checked, so is by std that what it closes is open.
const CLOSING: &[Allow] = if cfg!(debug_assertions) {
    &[Is { call: libc::SYS_fcntl, argument: 1, value: libc::F_GETFD as u32 }]
} else {
    &[]
};

const VCPU: &[Allow] = &[
    Call(libc::SYS_getpid),    // the address of a kick
    Call(libc::SYS_gettid),    // the same
    Call(libc::SYS_pwrite64),  // RAM, at the barrier, when the machine is hibernated
    Call(libc::SYS_fdatasync), // the same
    Call(libc::SYS_fallocate), // the console log, when it is full
    Call(libc::SYS_ftruncate), // the same, where files have no beginning to cut off
    Call(libc::SYS_lseek),     // the same
];

/// On the vCPU's own descriptor.
const VCPU_IOCTLS: &[u32] = &[
    kvm::RUN,      // the guest
    kvm::GET_REGS, // where it was when KVM gave up
];

/// On the VM's descriptor, by a vCPU where devices are on a PCI bus: their driver chooses the
/// messages and addresses.
const VCPU_PCI_IOCTLS: &[u32] = &[
    kvm::SET_GSI_ROUTING, // MSI-X table
    kvm::IOEVENTFD,       // doorbells of a driver that is ready, and those of a BAR that moves
];

/// What every thread of a device needs.
const WORKER: &[Allow] = &[
    Call(libc::SYS_read),           // eventfds
    Call(libc::SYS_close),          // eventfds and the ring, at the end
    Call(libc::SYS_rt_sigprocmask), // the end of a thread
    Call(libc::SYS_sigaltstack),    // std's stack guard, at the end of a thread
    advice(libc::MADV_DONTNEED),    // the stack of a thread that ends
    Call(libc::SYS_exit),           // the end of a thread
];

/// The thread that writes a disk's metadata out.
const COMMIT: &[Allow] = &[
    Call(libc::SYS_fstat), // the length of an overlay, before its end is cut off
    Call(libc::SYS_lseek), // the length of a block device
    Call(libc::SYS_getrandom), // std's hash maps
];

const EVENT: &[Allow] = &[
    Call(libc::SYS_read),          // eventfds, signalfd, the reader of a boot menu
    Call(libc::SYS_close),         // connections, files of a disk or a kernel that is replaced
    Call(libc::SYS_ppoll),         // waits for all of them
    Call(libc::SYS_getpid),        // status
    advice(libc::MADV_DONTNEED),   // code that ran once
    advice(libc::MADV_HUGEPAGE),   // RAM, at a reset
    advice(libc::MADV_NOHUGEPAGE), // the same
    advice(libc::MADV_DONTDUMP),   // the same
    Call(libc::SYS_fstat),         // the length of a kernel, and of a disk's file
    Call(libc::SYS_lseek),         // the console log, when it is full; the length of a block device
    Call(libc::SYS_memfd_create),  // a kernel that a boot menu names
    Call(libc::SYS_getrandom),     // std's hash maps
    Call(libc::SYS_accept4),       // control socket
    Call(libc::SYS_recvmsg),       // control clients, which may pass descriptors
    Call(libc::SYS_sendmsg),       // a tap, passed to who asks for it
    Call(libc::SYS_sendto),        // control clients and that reader, without SIGPIPE
];

/// clone(2)'s flags for a thread, by musl and by glibc: CLONE_VM, CLONE_FS, CLONE_FILES,
/// CLONE_SIGHAND, CLONE_THREAD, CLONE_SYSVSEM, CLONE_SETTLS, CLONE_PARENT_SETTID,
/// CLONE_CHILD_CLEARTID, and musl's CLONE_DETACHED, which means nothing.
const THREAD_FLAGS: [u32; 2] = [0x7d_0f00, 0x3d_0f00];

/// Where disks may come while the guest runs: what makes one, and what its threads do first. They
/// inherit this filter and add their own, so that they may do what both allow.
const EVENT_HOT_PLUG: &[Allow] = &[
    Is { call: libc::SYS_clone, argument: 0, value: THREAD_FLAGS[0] },
    Is { call: libc::SYS_clone, argument: 0, value: THREAD_FLAGS[1] },
    Absent(libc::SYS_clone3), // its flags are in memory, where a filter doesn't look
    Call(libc::SYS_eventfd2), // interrupts and doorbells
    Call(libc::SYS_preadv2),  // what the page cache has
    Call(libc::SYS_gettid),   // the beginning of a thread
    Call(libc::SYS_set_robust_list), // the same
    Call(libc::SYS_rseq),     // the same
    Call(libc::SYS_sched_getaffinity), // the same: where its stack is
    Call(libc::SYS_rt_sigprocmask), // the same, and its end
    Call(libc::SYS_sigaltstack), // the same, and its end
    Call(libc::SYS_exit),     // its end
    Is { call: libc::SYS_prctl, argument: 0, value: libc::PR_SET_NAME as u32 },
    Is { call: libc::SYS_prctl, argument: 0, value: libc::PR_SET_NO_NEW_PRIVS as u32 },
    Is { call: libc::SYS_seccomp, argument: 0, value: libc::SECCOMP_SET_MODE_FILTER },
];

/// On the VM's descriptor, for the same.
const EVENT_HOT_PLUG_IOCTLS: &[u32] = &[
    kvm::IRQFD,           // its interrupts
    kvm::SET_GSI_ROUTING, // those of one that goes
];

/// On the VM's descriptor, at a reset.
const EVENT_VM_IOCTLS: &[u32] = &[
    kvm::SET_IRQCHIP, // the interrupt controllers
    kvm::SET_PIT2,    // a PC's timer
    kvm::GET_IRQCHIP, // hibernation
    kvm::GET_PIT2,    // the same
    kvm::GET_CLOCK,   // the same
    kvm::IOEVENTFD,   // doorbells of a PCI function
];

/// On that of /dev/kvm, when the machine is hibernated.
const EVENT_SYSTEM_IOCTLS: &[u32] = &[
    kvm::CHECK_EXTENSION,    // how large registers are
    kvm::GET_MSR_INDEX_LIST, // which MSRs there are
];

/// On any vCPU's descriptor.
const EVENT_VCPU_IOCTLS: &[u32] = &[
    kvm::RUN,             // completes an access before a reset
    kvm::GET_MP_STATE,    // status: CPUs online
    kvm::SET_REGS,        // reset
    kvm::SET_SREGS,       // reset
    kvm::SET_MSRS,        // reset
    kvm::SET_FPU,         // reset
    kvm::SET_LAPIC,       // reset
    kvm::SET_MP_STATE,    // reset
    kvm::SET_VCPU_EVENTS, // reset
    kvm::SET_XCRS,        // reset
    kvm::GET_REGS,        // hibernation, and all below
    kvm::GET_SREGS,
    kvm::GET_SREGS2,
    kvm::GET_XSAVE,
    kvm::GET_XSAVE2,
    kvm::GET_XCRS,
    kvm::GET_DEBUGREGS,
    kvm::GET_LAPIC,
    kvm::GET_MSRS,
    kvm::GET_VCPU_EVENTS,
    kvm::GET_TSC_KHZ,
    kvm::KVMCLOCK_CTRL, // a machine that could not be hibernated goes on
];

/// What a thread is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To run the vCPU of this descriptor.
    Vcpu(RawFd),
    /// To serve queues of this kind of device.
    Worker(&'static DeviceType),
    /// To write a disk's metadata out.
    Commit,
    /// To serve control socket and console, and to reset and end the machine.
    Event,
}

/// The filters of a VMM's threads, one a role. To compile one goes deep into the stack, whose pages
/// are each clone's own from then on: the event thread does it for the threads of devices, and only
/// its stack and the vCPUs' grow by it.
#[derive(Clone, Copy, Debug)]
pub struct Filters {
    transport: TransportKind,
    /// /dev/kvm.
    system: RawFd,
    vm: RawFd,
    /// The lowest and the highest of the vCPUs' descriptors, which are made one after the other.
    vcpus: (RawFd, RawFd),
}

impl Filters {
    /// The filters of a machine whose devices have this transport, by the descriptors of /dev/kvm,
    /// of its VM and of its vCPUs.
    pub fn new(
        transport: TransportKind,
        (system, vm): (RawFd, RawFd),
        vcpus: impl Iterator<Item = RawFd> + Clone,
    ) -> Self {
        let vcpus = (vcpus.clone().min().unwrap_or(-1), vcpus.max().unwrap_or(-1));
        Self { transport, system, vm, vcpus }
    }

    /// What a thread with this role may call.
    fn list(&self, role: Role) -> Vec<Allow> {
        let on = |requests: &'static [u32], (first, last): (RawFd, RawFd)| {
            requests.iter().map(move |&request| Ioctl { request, first, last })
        };
        let vm = (self.vm, self.vm);
        let mut list = COMMON.to_vec();
        if !matches!(role, Role::Vcpu(_)) {
            list.extend_from_slice(CLOSING);
        }
        match role {
            Role::Vcpu(fd) => {
                list.extend_from_slice(VCPU);
                list.extend(on(VCPU_IOCTLS, (fd, fd)));
                if self.transport == TransportKind::Pci {
                    list.extend(on(VCPU_PCI_IOCTLS, vm));
                }
            }
            Role::Worker(kind) => {
                list.extend_from_slice(WORKER);
                // Waits for the guest and for completions.
                list.push(Call(libc::SYS_ppoll));
                kind.calls.iter().for_each(|calls| list.extend_from_slice(calls));
            }
            Role::Commit => list.extend([WORKER, block::CALLS, COMMIT].concat()),
            Role::Event => {
                list.extend([block::CALLS, EVENT].concat());
                // Kicks vCPUs.
                let process = std::process::id();
                list.push(Is { call: libc::SYS_tgkill, argument: 0, value: process });
                list.extend(on(EVENT_SYSTEM_IOCTLS, (self.system, self.system)));
                list.extend(on(EVENT_VM_IOCTLS, vm));
                if self.transport == TransportKind::Pci {
                    list.extend_from_slice(EVENT_HOT_PLUG);
                    list.extend(on(EVENT_HOT_PLUG_IOCTLS, vm));
                }
                list.extend(on(EVENT_VCPU_IOCTLS, self.vcpus));
            }
        }
        list
    }

    /// What a thread with this role is confined by.
    ///
    /// # Errors
    /// None that a list of ours could have.
    pub fn compile(&self, role: Role) -> Result<Filter> {
        Filter::compile(&self.list(role))
    }

    /// Confine the calling thread to what its role needs.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn confine(&self, role: Role) -> Result<()> {
        let filter = self.compile(role)?;
        // Nothing that the thread does from now on goes as deep.
        trim_memory::forget_stack();
        filter.apply()
    }
}

/// Confine the process as far as that does not depend on the thread. Call it before threads start,
/// since Landlock confines a thread and those that it starts. What is open stays usable.
///
/// # Errors
/// The host refuses. A host without Landlock only lacks that layer.
pub fn confine(report: RawFd) -> Result<()> {
    // rustix asks the kernel for it once, by a call that no thread may make later.
    rustix::param::page_size();
    seccomp::harden_process();
    seccomp::report_traps(report)?;
    let doing = || "confine the VMM with Landlock";
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .or_fail(doing)?
        .handle_access(AccessNet::from_all(ABI::V5))
        .or_fail(doing)?
        .scope(Scope::from_all(ABI::V6))
        .or_fail(doing)?
        .create()
        .or_fail(doing)?
        .restrict_self()
        .or_fail(doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::uring::Ring;
    use crate::virtio::{blk, fs, net, rng, scsi, vsock};
    use std::collections::BTreeSet;
    use std::sync::Arc;

    #[test]
    fn the_ioctl_numbers_are_the_headers() {
        // From linux/kvm.h, as strace prints them.
        assert_eq!(kvm::RUN, 0xae80);
        assert_eq!(kvm::SET_REGS, 0x4090_ae82);
        assert_eq!(kvm::SET_SREGS, 0x4138_ae84);
        assert_eq!(kvm::SET_IRQCHIP, 0x8208_ae63);
        assert_eq!(kvm::SET_LAPIC, 0x4400_ae8f);
        assert_eq!(kvm::SET_PIT2, 0x4070_aea0);
        assert_eq!(kvm::SET_GSI_ROUTING, 0x4008_ae6a);
        assert_eq!(kvm::IOEVENTFD, 0x4040_ae79);
    }

    fn filters() -> Filters {
        Filters::new(TransportKind::Pci, (9, 10), 11..15)
    }

    #[test]
    fn the_filters_are_short() {
        for (role, most) in [
            (Role::Vcpu(11), 20),
            (Role::Worker(&blk::TYPE), 30),
            (Role::Commit, 30),
            (Role::Worker(&rng::TYPE), 30),
            (Role::Worker(&net::TYPE), 30),
            (Role::Worker(&vsock::TYPE), 30),
            (Role::Worker(&fs::TYPE), 30),
            (Role::Worker(&scsi::TYPE), 30),
            (Role::Event, 48),
        ] {
            let list = filters().list(role);
            Filter::compile(&list).unwrap();
            let mut calls: BTreeSet<i64> = list.iter().map(Allow::call).collect();
            assert!(calls.len() <= most, "{role:?} may make {} calls", calls.len());
            if role == Role::Event {
                // Threads, for disks that come: no process, whatever it shares.
                let clones = list.iter().filter(|allow| allow.call() == libc::SYS_clone);
                let threads = clones.map(|allow| match allow {
                    Is { argument: 0, value, .. } => value & libc::CLONE_THREAD as u32 != 0,
                    _ => false,
                });
                assert!(threads.eq([true, true]));
                assert!(list.contains(&Absent(libc::SYS_clone3)));
                calls.retain(|call| ![libc::SYS_clone, libc::SYS_clone3].contains(call));
            }
            // What no thread may, whatever it is there for.
            for call in [
                libc::SYS_open,
                libc::SYS_openat,
                libc::SYS_openat2,
                libc::SYS_socket,
                libc::SYS_connect,
                libc::SYS_execve,
                libc::SYS_clone,
                libc::SYS_clone3,
                libc::SYS_io_uring_setup,
                libc::SYS_io_uring_register,
                libc::SYS_kill,
                libc::SYS_ptrace,
                libc::SYS_process_vm_writev,
            ] {
                assert!(!calls.contains(&call), "{role:?} may make call {call}");
            }
            let enters = calls.contains(&libc::SYS_io_uring_enter);
            let rings = [Role::Worker(&blk::TYPE), Role::Worker(&scsi::TYPE)];
            assert_eq!(enters, rings.contains(&role), "{role:?}");
        }
    }

    /// A filter does not see what a ring is told to do: the ring itself has to refuse it.
    #[test]
    fn a_confined_worker_reaches_nothing_by_its_ring() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let ring = match Ring::new(8, vec![file]) {
            Ok(ring) => ring,
            Err(error) => {
                println!(
                    "skipped: a_confined_worker_reaches_nothing_by_its_ring: no io_uring here: {error}"
                );
                return;
            }
        };
        let confined = std::thread::spawn(move || {
            filters().confine(Role::Worker(&blk::TYPE)).unwrap();
            let mut ring = ring;
            ring.attempts()
        });
        for (what, result) in confined.join().unwrap() {
            assert_eq!(result, -libc::EACCES, "{what}");
        }
    }
}
