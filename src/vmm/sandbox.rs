//! What a VMM gives up before its guest runs: new privileges, the file system, the network, and every system
//! call that the thread at hand has no use for.

use crate::error::{OrFail, Result};
use crate::plan::Transport;
use crate::sys::seccomp::{self, Allow, Allow::Call, Allow::Ioctl, Filter};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};
use std::os::fd::RawFd;
use std::sync::OnceLock;

/// KVM's ioctl numbers, KVMIO being 0xae. (linux/kvm.h)
mod kvm {
    const fn none(nr: u64) -> u64 {
        0xae << 8 | nr
    }
    const fn write(nr: u64, size: u64) -> u64 {
        1 << 30 | size << 16 | 0xae << 8 | nr
    }
    const fn read(nr: u64, size: u64) -> u64 {
        2 << 30 | size << 16 | 0xae << 8 | nr
    }
    pub const RUN: u64 = none(0x80);
    pub const GET_REGS: u64 = read(0x81, 0x90);
    pub const SET_REGS: u64 = write(0x82, 0x90);
    pub const SET_SREGS: u64 = write(0x84, 0x138);
    pub const SET_MSRS: u64 = write(0x89, 8);
    pub const SET_FPU: u64 = write(0x8d, 0x1a0);
    pub const SET_LAPIC: u64 = write(0x8f, 0x400);
    pub const GET_MP_STATE: u64 = read(0x98, 4);
    pub const SET_MP_STATE: u64 = write(0x99, 4);
    pub const SET_VCPU_EVENTS: u64 = write(0xa0, 0x40);
    pub const SET_XCRS: u64 = write(0xa7, 0x188);
    pub const SET_PIT2: u64 = write(0xa0, 0x70);
    /// KVM_SET_IRQCHIP is _IOR in the header.
    pub const SET_IRQCHIP: u64 = read(0x63, 0x208);
    pub const SET_GSI_ROUTING: u64 = write(0x6a, 8);
    pub const IOEVENTFD: u64 = write(0x79, 0x40);
}

/// What every thread needs.
const COMMON: &[Allow] = &[
    Call(libc::SYS_read),            // eventfds, signalfd, sockets
    Call(libc::SYS_write),           // eventfds, report, console log, sockets
    Call(libc::SYS_futex),           // locks, condition variables, thread ends
    Call(libc::SYS_rt_sigreturn),    // from the kick's handler
    Call(libc::SYS_rt_sigprocmask),  // the end of a thread
    Call(libc::SYS_sigaltstack),     // std's stack guard, at the end of a thread
    Call(libc::SYS_mmap),            // allocator
    Call(libc::SYS_munmap),          // allocator
    Call(libc::SYS_mremap),          // allocator
    Call(libc::SYS_mprotect),        // allocator: a thread's arena grows
    Call(libc::SYS_madvise),         // allocator; the stack of a thread that ends
    Call(libc::SYS_brk),             // allocator
    Call(libc::SYS_clock_gettime),   // where the vDSO cannot
    Call(libc::SYS_gettid),          // names a panicking thread
    Call(libc::SYS_getpid),          // kick
    Call(libc::SYS_tgkill),          // kick
    Call(libc::SYS_sched_yield),     // a contended lock
    Call(libc::SYS_restart_syscall), // after a stop signal
    Call(libc::SYS_close),           // a descriptor that is done with
    Call(libc::SYS_exit),            // the end of a thread
    Call(libc::SYS_exit_group),      // the end
];

const VCPU: &[Allow] = &[
    Ioctl(kvm::RUN),           // the guest
    Ioctl(kvm::GET_REGS),      // where it was when KVM gave up
    Call(libc::SYS_fallocate), // the console log, when it is full
    Call(libc::SYS_ftruncate), // the same, where files have no beginning to cut off
    Call(libc::SYS_lseek),     // the same
];

/// What a vCPU needs where devices are on a PCI bus: their driver chooses the messages and addresses.
const VCPU_PCI: &[Allow] = &[
    Ioctl(kvm::SET_GSI_ROUTING), // MSI-X table
    Ioctl(kvm::IOEVENTFD), // doorbells of a driver that is ready, and those of a BAR that moves
];

/// Disk I/O, whichever engine does it. Also the event thread's, which closes disks and reloads kernels.
const FILES: &[Allow] = &[
    Call(libc::SYS_ppoll),          // waits for the guest and for completions
    Call(libc::SYS_poll),           // the same
    Call(libc::SYS_io_uring_enter), // engine uring
    Call(libc::SYS_preadv),         // engine sync
    Call(libc::SYS_pwritev),        // engine sync
    Call(libc::SYS_preadv2),        // what the page cache has
    Call(libc::SYS_pwritev2),       // engine sync
    Call(libc::SYS_pread64),        // metadata
    Call(libc::SYS_pwrite64),       // data in one piece, metadata
    Call(libc::SYS_readv),          // kernel and ramdisk
    Call(libc::SYS_writev),         // std's writers
    Call(libc::SYS_fdatasync),      // flush
    Call(libc::SYS_fsync),          // flush of metadata
    Call(libc::SYS_fallocate),      // discard, write-zeroes
    Call(libc::SYS_ftruncate),      // an overlay grows
    Call(libc::SYS_lseek),          // holes of a raw base
    Call(libc::SYS_fstat),          // file sizes
    Call(libc::SYS_newfstatat),     // file sizes (fstat in glibc)
    Call(libc::SYS_statx),          // file sizes (std)
    Call(libc::SYS_fcntl),          // std's duplicates of descriptors
];

const WORKER: &[Allow] = &[
    Call(libc::SYS_getrandom),       // virtio-rng
    Call(libc::SYS_clock_nanosleep), // a snapshot waits for operations from before it
];

const EVENT: &[Allow] = &[
    Call(libc::SYS_accept4),      // control socket
    Call(libc::SYS_recvfrom),     // control clients
    Call(libc::SYS_recvmsg),      // control clients that pass descriptors
    Call(libc::SYS_sendto),       // control clients, without SIGPIPE
    Call(libc::SYS_shutdown),     // control clients
    Call(libc::SYS_memfd_create), // a kernel that a boot menu names
    Call(libc::SYS_getrandom),    // std's hash maps
    Ioctl(kvm::RUN),              // completes an access before a reset
    Ioctl(kvm::SET_REGS),         // reset
    Ioctl(kvm::SET_SREGS),        // reset
    Ioctl(kvm::SET_MSRS),         // reset
    Ioctl(kvm::SET_FPU),          // reset
    Ioctl(kvm::SET_LAPIC),        // reset
    Ioctl(kvm::SET_MP_STATE),     // reset
    Ioctl(kvm::SET_VCPU_EVENTS),  // reset
    Ioctl(kvm::SET_XCRS),         // reset
    Ioctl(kvm::SET_IRQCHIP),      // reset
    Ioctl(kvm::SET_PIT2),         // reset
    Ioctl(kvm::GET_MP_STATE),     // status: CPUs online
    Ioctl(0x5421),                // FIONBIO: control clients
];

/// The same of the event thread.
const EVENT_PCI: &[Allow] = &[
    Ioctl(kvm::IOEVENTFD), // reset
];

/// The filters of a VMM's threads, one a kind. Each is compiled by the first thread that it is for, so that no
/// thread waits for another's.
#[derive(Default)]
pub struct Filters {
    transport: Transport,
    vcpu: OnceLock<Filter>,
    worker: OnceLock<Filter>,
    event: OnceLock<Filter>,
}

impl Filters {
    /// The filters of a machine whose devices have this transport.
    pub fn new(transport: Transport) -> Self {
        Self { transport, ..Self::default() }
    }

    fn with_pci(&self, list: &'static [Allow]) -> &'static [Allow] {
        if self.transport == Transport::Pci { list } else { &[] }
    }

    /// Confine the calling thread to what a vCPU's needs.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn confine_vcpu(&self) -> Result<()> {
        compiled(&self.vcpu, &[COMMON, VCPU, self.with_pci(VCPU_PCI)])?.apply()
    }

    /// Confine the calling thread to what a virtio worker needs.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn confine_worker(&self) -> Result<()> {
        compiled(&self.worker, &[COMMON, FILES, WORKER])?.apply()
    }

    /// Confine the calling thread to what the event thread needs.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn confine_event(&self) -> Result<()> {
        compiled(&self.event, &[COMMON, FILES, EVENT, self.with_pci(EVENT_PCI)])?.apply()
    }
}

fn compiled<'a>(filter: &'a OnceLock<Filter>, lists: &[&[Allow]]) -> Result<&'a Filter> {
    if let Some(filter) = filter.get() {
        return Ok(filter);
    }
    // Two threads that come here at once both compile, and both get the same.
    let compiled = Filter::compile(&lists.concat())?;
    Ok(filter.get_or_init(|| compiled))
}

/// Confine the process as far as that does not depend on the thread. Call it before threads start, since
/// Landlock confines a thread and those that it starts. What is open stays usable.
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

    #[test]
    fn the_filters_compile() {
        let vcpu = [COMMON, VCPU, VCPU_PCI].concat();
        for lists in [vcpu, [COMMON, FILES, WORKER, EVENT, EVENT_PCI].concat()] {
            Filter::compile(&lists).unwrap();
        }
    }
}
