//! A process that reads what a guest wrote: what it had before is taken away.

use super::seccomp::{Allow, Allow::Call, Allow::Without};
use crate::error::{Error, OrFail, Result};
use rustix::process::{Resource, Rlimit, setrlimit};

/// What an allocator and the end of a process take.
pub const MEMORY_AND_END: &[Allow] = &[
    Without { call: libc::SYS_mmap, argument: 2, bits: libc::PROT_EXEC as u32 }, // allocator
    Call(libc::SYS_munmap),                                                      // allocator
    Call(libc::SYS_mremap),                                                      // allocator
    Call(libc::SYS_madvise),                                                     // allocator
    Call(libc::SYS_brk),                                                         // allocator
    Call(libc::SYS_futex),                                                       // locks
    Call(libc::SYS_getrandom),                                                   // std's hash maps
    Call(libc::SYS_sigaltstack),                                                 // the end
    Call(libc::SYS_rt_sigprocmask),                                              // the end
    Call(libc::SYS_exit_group),                                                  // the end
];

/// Limit this process to so many bytes of address space and, if given, seconds of processor time.
/// No core is dumped.
///
/// # Errors
/// The kernel refuses, which it does not.
pub fn limit(memory: u64, seconds: Option<u64>) -> Result<()> {
    let limits =
        [(Resource::As, Some(memory)), (Resource::Cpu, seconds), (Resource::Core, Some(0))];
    for (resource, value) in limits {
        if value.is_some() {
            setrlimit(resource, Rlimit { current: value, maximum: value })
                .or_fail(|| "limit a process")?;
        }
    }
    Ok(())
}

/// No file can be opened and no network reached any more.
///
/// # Errors
/// The kernel refuses. One without Landlock still has the filter that the caller applies.
pub fn close_files() -> Result<()> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    };
    let abi = ABI::V5;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self())
        .or_fail(|| "confine a process")?;
    Ok(())
}

/// This process ends when the thread that started it does, however that ends. `parent` is that
/// thread's process.
///
/// # Errors
/// The parent is gone already.
pub fn die_with(parent: u32) -> Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let doing = || "end with the parent";
    set_parent_process_death_signal(Some(Signal::KILL)).or_fail(doing)?;
    let found = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if found == Some(parent) { Ok(()) } else { Err(Error::failure("the parent is gone")) }
}
