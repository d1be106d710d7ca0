//! seccomp(2) filters, and a last word from a thread that one of them stops.

use crate::error::{Error, OrFail, Result};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// A system call that a thread may make, with the reason beside it in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// With any arguments.
    Call(i64),
    /// If this argument (from 0) has this value in its low half; several entries of one call are
    /// alternatives. It is for arguments that the kernel takes as 32 bits.
    Is {
        /// The call's number.
        call: i64,
        /// Which argument.
        argument: u32,
        /// What it has to be.
        value: u32,
    },
    /// It fails with ENOSYS, as on a kernel that lacks it: the C library has another way.
    Absent(i64),
    /// If this argument (from 0) has none of these bits.
    Without {
        /// The call's number.
        call: i64,
        /// Which argument.
        argument: u32,
        /// Bits of its low half.
        bits: u32,
    },
    /// ioctl(2) with this request, on a descriptor from `first` to `last`.
    Ioctl {
        /// The request, of which the kernel looks at no more. (fs/ioctl.c, sys_ioctl)
        request: u32,
        /// The lowest descriptor.
        first: RawFd,
        /// The highest descriptor.
        last: RawFd,
    },
}

impl Allow {
    /// The call's number.
    pub fn call(&self) -> i64 {
        match *self {
            Self::Call(call)
            | Self::Absent(call)
            | Self::Is { call, .. }
            | Self::Without { call, .. } => call,
            Self::Ioctl { .. } => libc::SYS_ioctl,
        }
    }
}

/// A system call that a program of somebody else's may not make.
#[derive(Clone, Copy, Debug)]
pub enum Deny {
    /// It fails with EPERM.
    Call(i64),
    /// It fails with ENOSYS, as on a kernel that lacks it: whoever asks has another way.
    Absent(i64),
    /// It fails with EPERM unless its argument of this number (from 0), of which `mask` counts, is
    /// `value`.
    Unless {
        /// The call's number.
        call: i64,
        /// Which argument.
        argument: u32,
        /// Its bits that count.
        mask: u64,
        /// What they have to be.
        value: u64,
    },
}

/// AUDIT_ARCH_X86_64. (linux/audit.h)
const ARCH_X86_64: u32 = 0xc000_003e;
/// The first number of the x32 ABI, which is the same calls once more. (__X32_SYSCALL_BIT in
/// asm/unistd.h)
const X32: u32 = 0x4000_0000;
/// Offsets in struct seccomp_data: number, architecture, the arguments of 64 bits each.
/// (linux/seccomp.h)
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What is to be done at a call, by its number.
type Verdicts = std::collections::BTreeMap<u32, Vec<libc::sock_filter>>;

/// A list of system calls as a BPF program.
///
/// The program is a binary search. The kernel runs a new filter once for each system call there is,
/// to remember those that it always allows (linux/seccomp.c, seccomp_cache_prepare), and a guest's
/// start waits for that.
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Compile `list`; a call that is not on it is trapped (see [`report_traps`]).
    ///
    /// # Errors
    /// The list is too long for BPF's jumps or names an impossible number, which no list of ours
    /// does.
    pub fn compile(list: &[Allow]) -> Result<Self> {
        let mut calls = std::collections::BTreeMap::<u32, Vec<Allow>>::new();
        for allow in list {
            calls.entry(number(allow.call())?).or_default().push(*allow);
        }
        let mut verdicts = Verdicts::new();
        for (call, alternatives) in calls {
            verdicts.insert(call, any(&alternatives)?);
        }
        let trap = give(libc::SECCOMP_RET_TRAP);
        Self::program(verdicts, trap, trap)
    }

    /// Compile a list of what is denied; a call that is not on it is allowed. It is for a program
    /// whose libraries' calls nobody can list.
    ///
    /// # Errors
    /// As [`Filter::compile`].
    pub fn deny(list: &[Deny]) -> Result<Self> {
        let refuse = |errno: i32| give(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs());
        let mut verdicts = Verdicts::new();
        for deny in list {
            let (call, verdict) = match *deny {
                Deny::Call(call) => (call, vec![refuse(libc::EPERM)]),
                Deny::Absent(call) => (call, vec![refuse(libc::ENOSYS)]),
                Deny::Unless { call, argument, mask, value } => {
                    (call, unless(argument, mask, value, refuse(libc::EPERM)))
                }
            };
            verdicts.insert(number(call)?, verdict);
        }
        let (allow, kill) = (give(libc::SECCOMP_RET_ALLOW), give(libc::SECCOMP_RET_KILL_PROCESS));
        Self::program(verdicts, allow, kill)
    }

    /// `otherwise` holds for each number that `verdicts` does not have, `x32` for those of that
    /// ABI.
    fn program(
        verdicts: Verdicts,
        otherwise: libc::sock_filter,
        x32: libc::sock_filter,
    ) -> Result<Self> {
        // From each number on until the next: what to do.
        let mut steps = vec![(0, vec![otherwise])];
        for (from, verdict) in verdicts {
            steps.retain(|&(start, _)| start != from);
            steps.push((from, verdict));
            steps.push((from + 1, vec![otherwise]));
        }
        steps.push((X32, vec![x32]));
        // Neighbours that are treated alike are one step: the shorter the program, the sooner it is
        // compiled.
        steps.dedup_by(|next, step| same(&next.1, &step.1));
        let mut program = vec![
            load(ARCH),
            jump(libc::BPF_JEQ, ARCH_X86_64, 1, 0),
            give(libc::SECCOMP_RET_KILL_PROCESS),
            load(NUMBER),
        ];
        program.extend(search(&steps)?);
        Ok(Self(program))
    }

    /// Confine the calling thread, and those it starts, for good.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn apply(&self) -> Result<()> {
        let doing = || "confine a thread with seccomp";
        let len = u16::try_from(self.0.len()).or_fail(doing)?;
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: prctl(2) takes no memory here; seccomp(2) reads the program, which outlives the
        // call.
        let done = unsafe {
            match libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) {
                0 => libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0,
                    &raw const program,
                ),
                failed => failed.into(),
            }
        };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).or_fail(doing) }
    }
}

fn same(a: &[libc::sock_filter], b: &[libc::sock_filter]) -> bool {
    let fields = |i: &libc::sock_filter| (i.code, i.jt, i.jf, i.k);
    a.iter().map(fields).eq(b.iter().map(fields))
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn give(verdict: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, verdict, 0, 0)
}

/// Compare the accumulator with `k`; skip `jt` instructions if it is so, else `jf`.
fn jump(compare: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    statement(libc::BPF_JMP | compare | libc::BPF_K, k, jt, jf)
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn number(call: i64) -> Result<u32> {
    u32::try_from(call).or_fail(|| "compile a seccomp filter")
}

/// Offset of an argument's low half; the high one follows.
const fn argument(index: u32) -> u32 {
    ARGUMENTS + 8 * index
}

/// Allow what has `value` in the bits of `mask` of an argument, `otherwise` the rest.
fn unless(
    index: u32,
    mask: u64,
    value: u64,
    otherwise: libc::sock_filter,
) -> Vec<libc::sock_filter> {
    let halves = [(0, mask as u32, value as u32), (4, (mask >> 32) as u32, (value >> 32) as u32)];
    let mut code: Vec<_> = halves
        .into_iter()
        .flat_map(|(half, mask, value)| {
            [
                load(argument(index) + half),
                statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0),
                jump(libc::BPF_JEQ, value, 1, 0),
                otherwise,
            ]
        })
        .collect();
    code.push(give(libc::SECCOMP_RET_ALLOW));
    code
}

/// Allow a call for which one of these holds.
fn any(alternatives: &[Allow]) -> Result<Vec<libc::sock_filter>> {
    let allow = give(libc::SECCOMP_RET_ALLOW);
    let (mut code, mut requests) = (Vec::new(), std::collections::BTreeMap::new());
    for alternative in alternatives {
        match *alternative {
            Allow::Call(_) => return Ok(vec![allow]),
            Allow::Absent(_) => {
                let errno = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
                return Ok(vec![give(errno)]);
            }
            Allow::Is { argument: index, value, .. } => {
                code.extend([load(argument(index)), jump(libc::BPF_JEQ, value, 0, 1), allow]);
            }
            Allow::Without { argument: index, bits, .. } => {
                code.extend([load(argument(index)), jump(libc::BPF_JSET, bits, 1, 0), allow]);
            }
            Allow::Ioctl { request, first, last } => {
                let fds = (number(first.into())?, number(i64::from(last) + 1)?);
                requests.entry(fds).or_insert_with(Vec::new).push(request);
            }
        }
    }
    for ((first, beyond), requests) in requests {
        let requests = ioctl(&requests);
        let skip = u8::try_from(requests.len()).or_fail(|| "compile a seccomp filter")?;
        code.push(load(argument(0)));
        code.push(jump(libc::BPF_JGE, first, 0, skip + 1));
        code.push(jump(libc::BPF_JGE, beyond, skip, 0));
        code.extend(requests);
    }
    code.push(give(libc::SECCOMP_RET_TRAP));
    Ok(code)
}

/// Allow these requests.
fn ioctl(requests: &[u32]) -> Vec<libc::sock_filter> {
    let mut code = vec![load(argument(1))];
    for &request in requests {
        code.extend([jump(libc::BPF_JEQ, request, 0, 1), give(libc::SECCOMP_RET_ALLOW)]);
    }
    code
}

/// Find the last step whose number is not above the accumulator.
fn search(steps: &[(u32, Vec<libc::sock_filter>)]) -> Result<Vec<libc::sock_filter>> {
    let (low, high) = steps.split_at(steps.len() / 2);
    match (low, high) {
        ([], [(_, verdict)]) => Ok(verdict.clone()),
        (_, [(from, _), ..]) => {
            let low = search(low)?;
            let skip = u8::try_from(low.len()).or_fail(|| "compile a seccomp filter")?;
            let mut code = vec![jump(libc::BPF_JGE, *from, skip, 0)];
            code.extend(low);
            code.extend(search(high)?);
            Ok(code)
        }
        (_, []) => Ok(vec![give(libc::SECCOMP_RET_TRAP)]),
    }
}

/// Where the last word goes.
static REPORT: AtomicI32 = AtomicI32::new(-1);

/// From now on a thread that makes a forbidden call writes `Ended` to `report` and ends the
/// process.
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
    /// Offset of si_syscall in siginfo_t on x86-64: after si_signo, si_errno, si_code, padding and
    /// si_call_addr.
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

/// Not dumpable: no core file holds guest memory, and no other process of the user may attach. No
/// core dumps.
pub fn harden_process() {
    // SAFETY: these prctl(2) and setrlimit(2) calls take no memory but the struct on this stack.
    // They only ever lower what the process may do; a failure leaves it as it was.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers to a system call.
    fn ask(filter: &Filter, number: u32, arch: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = filter.0[at];
            let code = u32::from(step.code);
            let holds = match code {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    let argument = |k: u32| arguments[(k - ARGUMENTS) as usize / 8];
                    accumulator = match step.k {
                        NUMBER => number,
                        ARCH => arch,
                        k if k % 8 == 0 => argument(k) as u32,
                        k => (argument(k) >> 32) as u32,
                    };
                    at += 1;
                    continue;
                }
                c if c == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => {
                    accumulator &= step.k;
                    at += 1;
                    continue;
                }
                c if c == libc::BPF_RET | libc::BPF_K => return step.k,
                c if c & 0xf0 == libc::BPF_JEQ => accumulator == step.k,
                c if c & 0xf0 == libc::BPF_JSET => accumulator & step.k != 0,
                c if c & 0xf0 == libc::BPF_JGE => accumulator >= step.k,
                c => panic!("instruction {c:#x}"),
            };
            at += 1 + usize::from(if holds { step.jt } else { step.jf });
        }
    }

    /// Whether a call with these arguments is allowed.
    fn allows(filter: &Filter, call: i64, arguments: [u64; 6]) -> bool {
        let verdict = ask(filter, call as u32, ARCH_X86_64, arguments);
        assert!([libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_TRAP].contains(&verdict));
        verdict == libc::SECCOMP_RET_ALLOW
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_else() {
        let listed = [0, 1, 3, 231, 232];
        let list: Vec<_> = listed.iter().map(|&n| Allow::Call(n)).collect();
        let filter = Filter::compile(&list).unwrap();
        for number in 0..600 {
            let listed = listed.contains(&i64::from(number));
            let verdict = ask(&filter, number, ARCH_X86_64, [0; 6]);
            assert_eq!(verdict == libc::SECCOMP_RET_ALLOW, listed, "{number}");
            // The x32 ABI's numbers.
            let verdict = ask(&filter, number | X32, ARCH_X86_64, [0; 6]);
            assert_eq!(verdict, libc::SECCOMP_RET_TRAP);
        }
        // AUDIT_ARCH_I386: its call 3 is another.
        assert_eq!(ask(&filter, 3, 0x4000_0003, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn arguments_are_looked_at() {
        let filter = Filter::compile(&[
            Allow::Ioctl { request: 0xae80, first: 5, last: 7 },
            Allow::Ioctl { request: 0x8208_ae63, first: 5, last: 7 },
            Allow::Ioctl { request: 0xae01, first: 3, last: 3 },
            Allow::Without { call: 9, argument: 2, bits: 4 },
            Allow::Is { call: 234, argument: 0, value: 1234 },
            Allow::Is { call: 28, argument: 2, value: 4 },
            Allow::Is { call: 28, argument: 2, value: 8 },
            Allow::Call(0),
        ])
        .unwrap();
        for fd in 0..10 {
            let on = |request| allows(&filter, libc::SYS_ioctl, [fd, request, 0, 0, 0, 0]);
            assert_eq!(on(0xae80), (5..=7).contains(&fd), "{fd}");
            assert_eq!(on(0x8208_ae63), (5..=7).contains(&fd), "{fd}");
            assert_eq!(on(0xae01), fd == 3, "{fd}");
            assert!(!on(0x5401));
        }
        for (prot, allowed) in
            [(0, true), (3, true), (4, false), (7, false), (0x1_0000_0004, false)]
        {
            assert_eq!(allows(&filter, libc::SYS_mmap, [0, 0, prot, 0, 0, 0]), allowed, "{prot}");
        }
        assert!(allows(&filter, libc::SYS_tgkill, [1234, 0, 0, 0, 0, 0]));
        assert!(!allows(&filter, libc::SYS_tgkill, [1235, 1234, 1234, 0, 0, 0]));
        for advice in 0..20 {
            let allowed = allows(&filter, libc::SYS_madvise, [0, 0, advice, 0, 0, 0]);
            assert_eq!(allowed, [4, 8].contains(&advice), "{advice}");
        }
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        let filter = Filter::compile(&[]).unwrap();
        assert!(!allows(&filter, 0, [0; 6]));
    }

    #[test]
    fn what_is_denied_fails_and_all_else_goes_on() {
        let (mask, value) = (0xff_0000_00ff, 0x12_0000_0034);
        let filter = Filter::deny(&[
            Deny::Call(41),
            Deny::Absent(435),
            Deny::Unless { call: 56, argument: 3, mask, value },
        ])
        .unwrap();
        let (denied, absent) = (libc::EPERM.unsigned_abs(), libc::ENOSYS.unsigned_abs());
        for number in (0..600).filter(|number| *number != 56) {
            let expected = match number {
                41 => libc::SECCOMP_RET_ERRNO | denied,
                435 => libc::SECCOMP_RET_ERRNO | absent,
                _ => libc::SECCOMP_RET_ALLOW,
            };
            assert_eq!(ask(&filter, number, ARCH_X86_64, [0; 6]), expected, "{number}");
            let verdict = ask(&filter, number | X32, ARCH_X86_64, [0; 6]);
            assert_eq!(verdict, libc::SECCOMP_RET_KILL_PROCESS);
        }
        for (argument, allowed) in [
            (value, true),
            (value | 0xff00_ffff_ff00, true),
            (value | 1, false),
            (value & 0xffff_ffff, false),
            (0, false),
        ] {
            let verdict = ask(&filter, 56, ARCH_X86_64, [argument; 6]);
            assert_eq!(verdict == libc::SECCOMP_RET_ALLOW, allowed, "{argument:#x}");
        }
        assert_eq!(ask(&filter, 3, 0x4000_0003, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
