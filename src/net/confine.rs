//! What the worker, which reads what guests send, gives up.

use super::begin::WITHOUT;
use crate::error::{OrFail, Result};
use crate::sys::confine::MEMORY_AND_END;
use crate::sys::namespace::keep_capabilities;
use crate::sys::seccomp::{Allow, Allow::Call, Filter, harden_process};
use crate::sys::tap::{self, Refusal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;
use std::os::fd::RawFd;

/// Bytes of address space at most.
const MEMORY: u64 = 1 << 30;

/// All descriptors.
const ANY: (RawFd, RawFd) = (0, RawFd::MAX - 1);

const fn ioctl(request: u32) -> Allow {
    Allow::Ioctl { request, first: ANY.0, last: ANY.1 }
}

/// What the worker may ask of the kernel.
const CALLS: &[Allow] = &[
    Call(libc::SYS_socket),        // the services of a new interface
    Call(libc::SYS_bind),          // likewise
    Call(libc::SYS_listen),        // likewise
    Call(libc::SYS_setsockopt),    // likewise
    Call(libc::SYS_getsockopt),    // whether a connection came about
    Call(libc::SYS_connect),       // to instances
    Call(libc::SYS_accept4),       // control, metadata, published ports
    Call(libc::SYS_getsockname),   // tokio's sockets
    Call(libc::SYS_getpeername),   // likewise
    Call(libc::SYS_shutdown),      // the end of a connection
    Call(libc::SYS_recvmsg),       // control
    Call(libc::SYS_sendmsg),       // control
    Call(libc::SYS_recvfrom),      // all services
    Call(libc::SYS_sendto),        // all services
    Call(libc::SYS_read),          // connections
    Call(libc::SYS_write),         // connections, the log
    Call(libc::SYS_readv),         // connections
    Call(libc::SYS_writev),        // connections
    Call(libc::SYS_close),         // all of them
    Call(libc::SYS_fcntl),         // passed descriptors
    Call(libc::SYS_epoll_create1), // tokio
    Call(libc::SYS_epoll_ctl),     // tokio
    Call(libc::SYS_epoll_wait),    // tokio
    Call(libc::SYS_epoll_pwait),   // tokio
    Call(libc::SYS_eventfd2),      // tokio
    Call(libc::SYS_clock_gettime), // timeouts, where the vDSO has no clock
    Call(libc::SYS_openat),        // the device of taps, which is the one file there is
    ioctl(tap::SET_INTERFACE),     // a new tap
    ioctl(tap::GET_INTERFACE),     // likewise
    ioctl(tap::SET_HEADER),        // likewise
    ioctl(FIONBIO),                // tokio's and socket2's sockets
];

/// FIONBIO. (asm-generic/ioctls.h)
const FIONBIO: u32 = 0x5421;

/// Leaves this process the means of its work: sockets in its network namespace, and its interfaces.
/// It opens taps and no other file.
///
/// # Errors
/// The kernel refuses.
pub fn confine() -> Result<()> {
    if let Err(Refusal::NoDevice(errno)) = tap::check() {
        return Err(tap::no_device(errno).remedy(WITHOUT));
    }
    let files = getrlimit(Resource::Nofile);
    let doing = || "confine a network's process";
    let all = Rlimit { current: files.maximum, maximum: files.maximum };
    setrlimit(Resource::Nofile, all).or_fail(doing)?;
    let memory = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    setrlimit(Resource::As, memory).or_fail(doing)?;
    harden_process();
    close_files()?;
    // The last for what routers say to hosts. All three are good in its own namespace only.
    let needed =
        CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_RAW;
    keep_capabilities(needed)?;
    Filter::compile(&[CALLS, MEMORY_AND_END].concat())?.apply()
}

/// No file is opened any more but the device of taps. (Landlock)
fn close_files() -> Result<()> {
    use landlock::{
        ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
        RulesetCreatedAttr,
    };
    let doing = || "confine a network's process";
    let abi = ABI::V5;
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.create())
        .or_fail(doing)?;
    let access = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let device = PathFd::new(tap::DEVICE).or_fail(|| format!("open {}", tap::DEVICE))?;
    rules
        .add_rule(PathBeneath::new(device, access))
        .and_then(|rules| rules.restrict_self())
        .or_fail(doing)?;
    Ok(())
}
