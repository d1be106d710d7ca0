//! Starting a process with exactly the descriptors that it is meant to have.

use crate::error::{Error, OrFail, Result};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getrlimit, kill_process, setrlimit, waitpid,
};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The first descriptor after the standard streams.
const FIRST: RawFd = 3;

/// Start `program`, an absolute path, in a session of its own and in `/`, with default signal
/// handling and an empty environment. See [`spawn_with`].
///
/// # Errors
/// As [`spawn_with`].
pub fn spawn(program: &str, argv: &[&str], fds: &[(BorrowedFd<'_>, RawFd)]) -> Result<u32> {
    spawn_with(program.as_ref(), argv, &[] as &[&str], fds)
}

/// Start `program`, an absolute path, in a session of its own and in `/`, with default signal
/// handling and the variables `environment` (`NAME=VALUE`).
///
/// `fds` lists (source, number in the child); everything else is closed. posix_spawn(3) uses vfork
/// semantics: the cost does not grow with our own memory.
///
/// Returns the process id.
///
/// # Errors
/// Too many open files or processes, or `program` can't be executed.
pub fn spawn_with(
    program: &Path,
    argv: &[impl AsRef<OsStr>],
    environment: &[impl AsRef<OsStr>],
    fds: &[(BorrowedFd<'_>, RawFd)],
) -> Result<u32> {
    let program = c_string(program.as_os_str())?;
    let arguments: Vec<CString> = argv.iter().map(c_string).collect::<Result<_>>()?;
    let environment: Vec<CString> = environment.iter().map(c_string).collect::<Result<_>>()?;
    let (argv, envp) = (pointers(&arguments), pointers(&environment));

    let mut actions = Actions::new()?;
    actions.leave_directory()?;
    // Above all numbers that are placed, so that placing one never overwrites another's source.
    let above = fds.iter().map(|&(_, number)| number + 1).fold(FIRST, RawFd::max);
    let mut staged: Vec<OwnedFd> = Vec::with_capacity(fds.len());
    for &(source, number) in fds {
        let copy = rustix::io::fcntl_dupfd_cloexec(source, above)
            .or_fail(|| "duplicate a descriptor for a new process")?;
        actions.dup2(&copy, number)?;
        staged.push(copy);
    }
    actions.close_others(fds)?;
    let attributes = Attributes::new_session()?;
    let mut pid = 0;
    // SAFETY: every pointer leads to a live, initialised object: the strings and both
    // null-terminated arrays outlive the call, which only reads them, and the two libc objects are
    // initialised by their constructors.
    let status = unsafe {
        libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            &actions.0,
            &attributes.0,
            argv.as_ptr(),
            envp.as_ptr(),
        )
    };
    if status != 0 {
        return Err(not_started("start a process", io::Error::from_raw_os_error(status)));
    }
    u32::try_from(pid).map_err(|_| Error::failure("the system gave a negative process id"))
}

/// How many descriptors this process may open, raised to the hard limit: each VM takes some while
/// it starts.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it can't be raised, opening fails later with its own message.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Bytes of stack without which nothing is begun: in a debug build the parser of arguments alone
/// takes most of them.
const LEAST_STACK: u64 = 1 << 20;
/// Bytes that it may take usually.
const STACK: u64 = 8 << 20;

/// Raises what the stack may take to what is usual, as far as the hard limit is: it grows up to the
/// limit of the moment. (setrlimit(2))
///
/// # Errors
/// The hard limit is so low that the process would be ended somewhere on its way.
pub fn raise_stack() -> Result<()> {
    let limit = getrlimit(Resource::Stack);
    let most = limit.maximum.unwrap_or(STACK).min(STACK);
    if most < LEAST_STACK {
        return Err(Error::failure(format!(
            "the stack is limited to {} KiB, and {} are needed; raise the limit: ulimit -s",
            most >> 10,
            LEAST_STACK >> 10
        )));
    }
    if limit.current.is_some_and(|current| current < most) {
        // Where it can't be raised, it is what the user wanted.
        let _ = setrlimit(Resource::Stack, Rlimit { current: Some(most), ..limit });
    }
    Ok(())
}

/// Has a write beyond this process's limit of file sizes (RLIMIT_FSIZE) fail with EFBIG, and not
/// end it by SIGXFSZ: a machine goes on where its overlay can't grow. (setrlimit(2))
pub fn survive_file_size_limit() {
    // SAFETY: no handler is installed that could run at a bad moment.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
}

/// Do `work` in a fork of this process, which has one thread, and wait for its end. What it gives
/// is the exit code.
///
/// # Errors
/// No more processes.
pub fn in_fork(work: impl FnOnce() -> i32) -> Result<Ended> {
    let doing = || "start a process";
    // SAFETY: this process has one thread, so the child's memory is whole: no lock is held by a
    // thread that it lacks.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(not_started(doing(), io::Error::last_os_error()));
    }
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101);
        // SAFETY: no pointers. Nothing of the parent's is run at the end: no exit handler, no
        // flush.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the status outlives the call.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error).or_fail(doing);
        }
    }
    Ok(if libc::WIFEXITED(status) {
        Ended::Exit(libc::WEXITSTATUS(status))
    } else {
        Ended::Signal(libc::WTERMSIG(status))
    })
}

/// Which of the two processes a [`fork`] came back in.
#[derive(Debug)]
pub enum Fork {
    /// The new one.
    Child,
    /// The one that there was, with the new one.
    Parent(Process),
}

/// Make a copy of this process, which has one thread. (fork(2))
///
/// # Errors
/// No more processes.
pub fn fork() -> Result<Fork> {
    // SAFETY: this process has one thread, so the child's memory is whole: no lock is held by a
    // thread that it lacks.
    let pid = unsafe { libc::fork() };
    match u32::try_from(pid) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) => Process::new(pid).map(Fork::Parent),
        Err(_) => Err(not_started("start a process", io::Error::last_os_error())),
    }
}

/// A child that was not waited for yet. It is killed and waited for when this is dropped.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// Once it was waited for its number may be another's.
    ended: Option<Ended>,
}

impl Process {
    /// The child that [`spawn`] gave the id of.
    ///
    /// # Errors
    /// It is no id.
    pub fn new(pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::failure("the system gave a process id that is none"))?;
        Ok(Self { pid, ended: None })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends it, if it has not ended.
    pub fn kill(&self) {
        if self.ended.is_none() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// None that the kernel has.
    pub fn wait(&mut self) -> Result<Ended> {
        match self.ended {
            Some(ended) => Ok(ended),
            None => self.reap(WaitOptions::empty()).map(|ended| ended.unwrap_or(Ended::Exit(0))),
        }
    }

    /// Waits for its end, but not longer than this. `None` if it goes on.
    ///
    /// # Errors
    /// None that the kernel has.
    pub fn wait_for(&mut self, patience: Duration) -> Result<Option<Ended>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(ended) = self.reap(WaitOptions::NOHANG)? {
                return Ok(Some(ended));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// It may go on without us. A child that ends before us stays a zombie until then.
    pub fn let_go(self) {
        std::mem::forget(self);
    }

    fn reap(&mut self, options: WaitOptions) -> Result<Option<Ended>> {
        if self.ended.is_none() {
            let found = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), options));
            let found = found.or_fail(|| "wait for a process")?;
            self.ended = found.map(|(_, status)| match status.terminating_signal() {
                Some(signal) => Ended::Signal(signal),
                None => Ended::Exit(status.exit_status().unwrap_or_default()),
            });
        }
        Ok(self.ended)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}

/// A null-terminated array of pointers to `strings`.
fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    let each = strings.iter().map(|string| string.as_ptr().cast_mut());
    each.chain([std::ptr::null_mut()]).collect()
}

fn c_string(text: impl AsRef<OsStr>) -> Result<CString> {
    CString::new(text.as_ref().as_bytes())
        .map_err(|_| Error::failure("an argument of a process contains a NUL byte"))
}

/// The effective user of this process, whom the kernel takes it for.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The error of a process or thread that was not started, with what helps where the user may have
/// no more (EAGAIN).
pub fn not_started(doing: impl fmt::Display, cause: io::Error) -> Error {
    let kind = cause.kind();
    let error = Error::io(doing, cause);
    match kind {
        io::ErrorKind::WouldBlock => {
            error.remedy("end some of this user's processes, or raise their limit (ulimit -u)")
        }
        _ => error,
    }
}

/// posix_spawn functions return the error number.
fn check(status: libc::c_int, doing: &str) -> Result<()> {
    match status {
        0 => Ok(()),
        number => Err(Error::io(doing, io::Error::from_raw_os_error(number))),
    }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> Result<Self> {
        // SAFETY: an all-zero object is only a place for the init function to fill.
        let mut actions = Self(unsafe { std::mem::zeroed() });
        // SAFETY: the object is live and not yet initialised.
        check(unsafe { libc::posix_spawn_file_actions_init(&mut actions.0) }, "prepare a process")?;
        Ok(actions)
    }

    fn dup2(&mut self, source: &OwnedFd, number: RawFd) -> Result<()> {
        // SAFETY: initialised in `new`; the numbers are checked by the call.
        let status = unsafe {
            libc::posix_spawn_file_actions_adddup2(&mut self.0, source.as_raw_fd(), number)
        };
        check(status, "prepare a process")
    }

    /// It outlives us, and must not keep our working directory's file system from being unmounted.
    fn leave_directory(&mut self) -> Result<()> {
        // SAFETY: initialised in `new`; the path is a literal, and the call copies it.
        let status =
            unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut self.0, c"/".as_ptr()) };
        check(status, "prepare a process")
    }

    /// Close what we ourselves inherited (a shell's `3<file`, a caller's pipe) and would pass on.
    fn close_others(&mut self, placed: &[(BorrowedFd<'_>, RawFd)]) -> Result<()> {
        for number in (0..FIRST).filter(|n| placed.iter().all(|&(_, placed)| placed != *n)) {
            // SAFETY: initialised in `new`; closing what is not open is no error here
            // (posix_spawn(3)).
            let status = unsafe { libc::posix_spawn_file_actions_addclose(&mut self.0, number) };
            check(status, "prepare a process")?;
        }
        // Not a file action, which not every C library has. What is placed is a copy, made later
        // than this takes effect. SAFETY: close_range(2) with this flag closes nothing and takes no
        // memory.
        let done = unsafe {
            libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
        };
        if done == 0 {
            return Ok(());
        }
        Err(Error::io("prepare a process", io::Error::last_os_error()))
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new_session() -> Result<Self> {
        // SAFETY: as in `Actions::new`.
        let mut attributes = Self(unsafe { std::mem::zeroed() });
        // SAFETY: the object is live and not yet initialised.
        check(unsafe { libc::posix_spawnattr_init(&mut attributes.0) }, "prepare a process")?;
        // SAFETY: both sets are initialised before use; the attribute object is initialised above.
        let status = unsafe {
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            let mut all = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::posix_spawnattr_setsigmask(&mut attributes.0, &none);
            libc::posix_spawnattr_setsigdefault(&mut attributes.0, &all);
            let flags = libc::POSIX_SPAWN_SETSID as libc::c_int
                | libc::POSIX_SPAWN_SETSIGMASK as libc::c_int
                | libc::POSIX_SPAWN_SETSIGDEF as libc::c_int;
            libc::posix_spawnattr_setflags(&mut attributes.0, flags as libc::c_short)
        };
        check(status, "prepare a process")?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new_session`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_arrive_under_their_numbers_and_no_others() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = File::open("/dev/null").unwrap();
        // The source of one is the target of another: a swap must not lose either.
        let fds = [(null.as_fd(), 0), (writer.as_fd(), 1), (null.as_fd(), writer.as_raw_fd())];
        spawn(
            "/bin/sh",
            &["sh", "-c", "ls /proc/self/fd | wc -l; cut -d' ' -f6 /proc/self/stat; echo $$"],
            &fds,
        )
        .unwrap();
        drop(writer);
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(lines[1], lines[2], "it leads its own session: {text}");
        // 0, 1, the one placed, and ls's own directory.
        assert_eq!(lines[0], "4", "{text}");
    }

    #[test]
    fn a_missing_program_is_an_error_of_the_caller() {
        assert!(spawn("/nonexistent", &["x"], &[]).is_err());
    }
}
