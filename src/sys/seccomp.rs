//! seccomp(2) filters, and a last word from a thread that one of them stops.

use crate::error::{Error, OrFail, Result};
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

/// A system call that a program of somebody else's may not make.
#[derive(Clone, Copy, Debug)]
pub enum Deny {
    /// It fails with EPERM.
    Call(i64),
    /// It fails with ENOSYS, as on a kernel that lacks it: whoever asks has another way.
    Absent(i64),
    /// It fails with EPERM unless its argument of this number (from 0), of which `mask` counts, is `value`.
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
/// The first number of the x32 ABI, which is the same calls once more. (__X32_SYSCALL_BIT in asm/unistd.h)
const X32: u32 = 0x4000_0000;
/// Offsets in struct seccomp_data: number, architecture, the arguments of 64 bits each. (linux/seccomp.h)
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What is to be done at a call, by its number.
type Verdicts = std::collections::BTreeMap<u32, Vec<libc::sock_filter>>;

/// A list of system calls as a BPF program.
///
/// The program is a binary search. The kernel runs a new filter once for each system call there is, to remember
/// those that it always allows (linux/seccomp.c, seccomp_cache_prepare), and a guest's start waits for that.
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Compile `list`; a call that is not on it is trapped (see [`report_traps`]).
    ///
    /// # Errors
    /// The list is too long for BPF's jumps or names an impossible number, which no list of ours does.
    pub fn compile(list: &[Allow]) -> Result<Self> {
        let mut verdicts = Verdicts::new();
        let mut requests = Vec::new();
        for allow in list {
            match *allow {
                Allow::Call(call) => {
                    verdicts.insert(number(call)?, vec![give(libc::SECCOMP_RET_ALLOW)]);
                }
                Allow::Ioctl(request) => requests.push(request),
            }
        }
        if !requests.is_empty() {
            verdicts.insert(number(libc::SYS_ioctl)?, ioctl(&requests)?);
        }
        let trap = give(libc::SECCOMP_RET_TRAP);
        Self::program(verdicts, trap, trap)
    }

    /// Compile a list of what is denied; a call that is not on it is allowed. It is for a program whose libraries' calls
    /// nobody can list.
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

    /// `otherwise` holds for each number that `verdicts` does not have, `x32` for those of that ABI.
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
        // Neighbours that are treated alike are one step: the shorter the program, the sooner it is compiled.
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
        // SAFETY: prctl(2) takes no memory here; seccomp(2) reads the program, which outlives the call.
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

/// Allow these requests. The kernel looks at the low half only (fs/ioctl.c takes an unsigned int).
fn ioctl(requests: &[u64]) -> Result<Vec<libc::sock_filter>> {
    let mut code = vec![load(argument(1))];
    for &request in requests {
        let request = u32::try_from(request).or_fail(|| "compile a seccomp filter")?;
        code.extend([jump(libc::BPF_JEQ, request, 0, 1), give(libc::SECCOMP_RET_ALLOW)]);
    }
    code.push(give(libc::SECCOMP_RET_TRAP));
    Ok(code)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers to a system call.
    fn ask(filter: &Filter, number: u32, arch: u32, argument: u64) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = filter.0[at];
            let code = u32::from(step.code);
            let holds = match code {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = match step.k {
                        NUMBER => number,
                        ARCH => arch,
                        // All arguments are the same.
                        k if k % 8 == 0 => argument as u32,
                        _ => (argument >> 32) as u32,
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
                _ => accumulator >= step.k,
            };
            at += 1 + usize::from(if holds { step.jt } else { step.jf });
        }
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_else() {
        let listed = [0, 1, 3, 16, 231, 232];
        let mut list: Vec<_> =
            listed.iter().filter(|&&n| n != 16).map(|&n| Allow::Call(n)).collect();
        list.extend([Allow::Ioctl(0xae80), Allow::Ioctl(0x8208_ae63)]);
        let filter = Filter::compile(&list).unwrap();
        for number in 0..600 {
            let listed = listed.contains(&i64::from(number));
            let verdict = ask(&filter, number, ARCH_X86_64, 0xae80);
            assert_eq!(verdict == libc::SECCOMP_RET_ALLOW, listed, "{number}");
            // The x32 ABI's numbers.
            let verdict = ask(&filter, number | X32, ARCH_X86_64, 0xae80);
            assert_eq!(verdict, libc::SECCOMP_RET_TRAP);
        }
        assert_eq!(ask(&filter, 16, ARCH_X86_64, 0x8208_ae63), libc::SECCOMP_RET_ALLOW);
        assert_eq!(ask(&filter, 16, ARCH_X86_64, 0x5401), libc::SECCOMP_RET_TRAP);
        // AUDIT_ARCH_I386: its call 3 is another.
        assert_eq!(ask(&filter, 3, 0x4000_0003, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        let filter = Filter::compile(&[]).unwrap();
        assert_eq!(ask(&filter, 0, ARCH_X86_64, 0), libc::SECCOMP_RET_TRAP);
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
            assert_eq!(ask(&filter, number, ARCH_X86_64, 0), expected, "{number}");
            let verdict = ask(&filter, number | X32, ARCH_X86_64, 0);
            assert_eq!(verdict, libc::SECCOMP_RET_KILL_PROCESS);
        }
        for (argument, allowed) in [
            (value, true),
            (value | 0xff00_ffff_ff00, true),
            (value | 1, false),
            (value & 0xffff_ffff, false),
            (0, false),
        ] {
            let verdict = ask(&filter, 56, ARCH_X86_64, argument);
            assert_eq!(verdict == libc::SECCOMP_RET_ALLOW, allowed, "{argument:#x}");
        }
        assert_eq!(ask(&filter, 3, 0x4000_0003, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
