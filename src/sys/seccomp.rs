//! seccomp(2) filters, and a last word from a thread that one of them stops.

use crate::error::{Error, OrFail, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// A system call that a thread may make, with the reason beside it in the table.
#[derive(Clone, Copy, Debug)]
pub enum Allow {
    /// With any arguments.
    Call(i64),
    /// ioctl(2) with this request.
    Ioctl(u64),
}

/// A compiled allow-list.
pub struct Filter(BpfProgram);

impl Filter {
    /// Compile `list`; a call that is not on it is trapped (see [`report_traps`]).
    ///
    /// # Errors
    /// The list does not compile, which no list of ours does.
    pub fn compile(list: &[Allow]) -> Result<Self> {
        let failed = |e: &dyn std::fmt::Display| Error::io("compile a seccomp filter", e);
        let mut rules = std::collections::BTreeMap::<i64, Vec<SeccompRule>>::new();
        for allow in list {
            match *allow {
                Allow::Call(number) => drop(rules.entry(number).or_default()),
                Allow::Ioctl(request) => {
                    let same = SeccompCondition::new(
                        1,
                        SeccompCmpArgLen::Dword,
                        SeccompCmpOp::Eq,
                        request,
                    );
                    let rule = same.and_then(|same| SeccompRule::new(vec![same]));
                    let rule = rule.map_err(|e| failed(&e))?;
                    rules.entry(libc::SYS_ioctl).or_default().push(rule);
                }
            }
        }
        SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)
            .and_then(BpfProgram::try_from)
            .map(Self)
            .map_err(|e| failed(&e))
    }

    /// Confine the calling thread, and those it starts, for good.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn apply(&self) -> Result<()> {
        seccompiler::apply_filter(&self.0).or_fail(|| "confine a thread with seccomp")
    }
}

/// Where the last word goes.
static REPORT: AtomicI32 = AtomicI32::new(-1);

/// From now on a thread that makes a forbidden call writes `Ended` to `report` and ends the process.
///
/// # Errors
/// sigaction(2) fails, which it does not.
pub fn report_traps(report: RawFd) -> Result<()> {
    REPORT.store(report, Ordering::Release);
    // SAFETY: a zeroed sigaction is a valid one; the handler makes async-signal-safe calls only.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut())
    };
    if done == 0 {
        Ok(())
    } else {
        Err(Error::io("handle SIGSYS", std::io::Error::last_os_error()))
    }
}

extern "C" fn on_trap(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    /// Offset of si_syscall in siginfo_t on x86-64: after si_signo, si_errno, si_code, padding and si_call_addr.
    const SI_SYSCALL: usize = 24;
    // SAFETY: the kernel hands a SIGSYS handler a complete siginfo_t (SA_SIGINFO).
    let number = unsafe { info.cast::<u8>().add(SI_SYSCALL).cast::<i32>().read_unaligned() };
    let mut line = [0u8; 192];
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        line[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    };
    put(br#"{"event":"ended","at":0,"reason":"vmm-error","message":"the sandbox stopped the VMM at system call "#);
    let digits = [1000, 100, 10, 1].map(|unit| b'0' + (number / unit % 10).unsigned_abs() as u8);
    put(&digits[digits.iter().take(3).take_while(|&&digit| digit == b'0').count()..]);
    put(b"; please report this\"}\n");
    let report = REPORT.load(Ordering::Acquire);
    // SAFETY: write(2) and _exit(2) are async-signal-safe; the buffer outlives the call.
    unsafe {
        libc::write(report, line.as_ptr().cast(), len);
        libc::_exit(1);
    }
}

/// Not dumpable: no core file holds guest memory, and no other process of the user may attach. No core
/// dumps.
pub fn harden_process() {
    // SAFETY: these prctl(2) and setrlimit(2) calls take no memory but the struct on this stack. They only
    // ever lower what the process may do; a failure leaves it as it was.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
    }
}
