//! Namespaces of a process's own: users, processes, network. (namespaces(7))

use crate::error::{Error, OrFail, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags, move_into_link_name_space,
    set_capabilities, unshare_unsafe,
};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// TUNGETDEVNETNS: the network namespace that a tap's descriptor is in. (linux/if_tun.h)
const TUN_GET_NETNS: u64 = 0x54e3;
/// NS_GET_USERNS: the user namespace that owns a namespace. (linux/nsfs.h)
const NS_GET_USERNS: u64 = 0xb701;

/// Puts this process, which has one thread, into a user namespace of its own. There it is root, and
/// has all capabilities; for all outside it is who it was.
///
/// # Errors
/// The host does not let this user have one.
pub fn new_users() -> io::Result<()> {
    let maps = maps();
    new(UnshareFlags::NEWUSER)?;
    maps.iter().try_for_each(|(path, text)| std::fs::write(path.to_string_lossy().as_ref(), text))
}

/// What makes whoever this process is root of its own, new user namespace: files, and what is
/// written to them. A group's map is written by whoever can't set groups only.
/// (user_namespaces(7))
fn maps() -> [(&'static CStr, String); 3] {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    [
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("0 {uid} 1")),
        (c"/proc/self/gid_map", format!("0 {gid} 1")),
    ]
}

/// The children of this process, which has one thread, are in a process namespace of their own from
/// now on: with the first of them all end.
///
/// # Errors
/// It may have none.
pub fn new_processes() -> io::Result<()> {
    new(UnshareFlags::NEWPID)
}

/// Puts this process, which has one thread, into a network namespace of its own.
///
/// # Errors
/// It may have none.
pub fn new_network() -> io::Result<()> {
    new(UnshareFlags::NEWNET)
}

fn new(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: no descriptor table is unshared, so none is closed that something owns.
    unsafe { unshare_unsafe(flags) }.map_err(Into::into)
}

/// Sees whether this user may have namespaces of users and of networks: a child makes them, and
/// becomes root there. Where AppArmor restricts them they are made, and are good for nothing.
///
/// # Errors
/// It may not; no more processes.
pub fn probe() -> io::Result<()> {
    let maps = maps();
    // SAFETY: the child makes system calls only, and no lock is wanted for that.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let tried = try_namespaces(&maps);
        let errno = tried.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EPERM));
        // SAFETY: what ends the child runs nothing of ours.
        unsafe { libc::_exit(errno) };
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: the status is ours to write; the child is ours to wait for.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok(()),
        // A filter of system calls has ended it.
        _ if !libc::WIFEXITED(status) => Err(io::Error::from_raw_os_error(libc::EPERM)),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Makes namespaces of users and networks for this process, by system calls alone: it is the child
/// of one with threads.
fn try_namespaces(maps: &[(&CStr, String)]) -> io::Result<()> {
    new(UnshareFlags::NEWUSER)?;
    for (path, text) in maps {
        // SAFETY: the path ends with a null; the text is as long as is said.
        let written = unsafe {
            match libc::open(path.as_ptr(), libc::O_WRONLY) {
                file @ 0.. => libc::write(file, text.as_ptr().cast(), text.len()),
                _ => -1,
            }
        };
        if written < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    new(UnshareFlags::NEWNET)
}

/// Why there is no namespace, in words that mean one.
pub fn why(cause: &io::Error) -> String {
    match cause.raw_os_error() {
        // user_namespaces(7), ERRORS.
        Some(libc::ENOSPC | libc::EUSERS) => "there are as many as there may be".into(),
        _ => cause.to_string(),
    }
}

/// Which program's leave, or which of the host's settings, is lacking where there is no namespace
/// of this kind: `user`, `pid` or `net`. As what to do about it.
pub fn remedy(kind: &str, cause: &io::Error) -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).ok();
    let program = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/spore".into());
    remedy_by(kind, cause.raw_os_error(), &program, &read)
}

fn remedy_by(
    kind: &str,
    errno: Option<i32>,
    program: &Path,
    read: &dyn Fn(&str) -> Option<String>,
) -> String {
    let is = |name: &str, value: &str| read(name).is_some_and(|text| text.trim() == value);
    match errno {
        // user_namespaces(7), ERRORS.
        Some(libc::ENOSPC | libc::EUSERS) => {
            format!("allow more of them: 'sysctl user.max_{kind}_namespaces=10000' (as root)")
        }
        Some(libc::EPERM | libc::EACCES) if is("kernel/unprivileged_userns_clone", "0") => {
            "let users have them: 'sysctl kernel.unprivileged_userns_clone=1' (as root)".into()
        }
        Some(libc::EPERM | libc::EACCES)
            if is("kernel/apparmor_restrict_unprivileged_userns", "1") =>
        {
            // A path is in quotes for its spaces. (apparmor.d(5))
            format!(
                "AppArmor leaves them to programs with a profile: install Spore's package, or write \
                 'abi <abi/4.0>, include <tunables/global> profile spore \"{}\" flags=(unconfined) \
                 {{ userns, }}' to /etc/apparmor.d/spore, and 'apparmor_parser -r \
                 /etc/apparmor.d/spore' (as root)",
                program.display()
            )
        }
        Some(libc::EPERM | libc::EACCES) => {
            "a container forbids them: start it with --security-opt seccomp=unconfined --security-opt \
             apparmor=unconfined"
                .into()
        }
        Some(libc::EROFS) => "/proc has to be writable for that".into(),
        _ => "a kernel without them has no networks".into(),
    }
}

/// The network namespace that this process is in.
///
/// # Errors
/// There is no /proc.
pub fn network() -> io::Result<OwnedFd> {
    File::open("/proc/self/ns/net").map(Into::into)
}

/// The network namespace of a tap, and the user namespace that owns that.
///
/// # Errors
/// It is no tap's descriptor, or its namespace is another user's.
pub fn of_tap(tap: BorrowedFd<'_>) -> io::Result<(OwnedFd, OwnedFd)> {
    let network = ask(tap, TUN_GET_NETNS)?;
    let users = ask(network.as_fd(), NS_GET_USERNS)?;
    Ok((network, users))
}

fn ask(fd: BorrowedFd<'_>, request: u64) -> io::Result<OwnedFd> {
    // SAFETY: both requests take no argument.
    let found = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, 0) };
    if found < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh from the kernel, ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(found) })
}

/// Goes into a user namespace, where this process, which has one thread, has all capabilities.
///
/// # Errors
/// It is another user's.
pub fn enter_users(users: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(users, Some(LinkNameSpaceType::User)).map_err(Into::into)
}

/// Goes into a network namespace, of whose user namespace this process has the capabilities.
///
/// # Errors
/// It has not.
pub fn enter_network(network: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(network, Some(LinkNameSpaceType::Network)).map_err(Into::into)
}

/// Leaves this thread these capabilities, and none to what it executes.
///
/// # Errors
/// It lacks one of them.
pub fn keep_capabilities(keep: CapabilitySet) -> Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: none };
    set_capabilities(None, sets).or_fail(|| "give up capabilities")
}

/// Lets processes of this user look at this one, as those of one program may at each other
/// (PR_SET_DUMPABLE).
pub fn be_seen() {
    // SAFETY: this prctl(2) takes no memory.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
}

/// The number of this process in the namespace that /proc shows.
///
/// # Errors
/// There is no /proc.
pub fn number_in_proc() -> Result<u32> {
    let link = std::fs::read_link("/proc/self").or_fail(|| "read /proc/self")?;
    let number = link.to_str().and_then(|number| number.parse().ok());
    number.ok_or_else(|| Error::failure("/proc/self leads to no process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_for_namespaces_leaves_this_process_in_its_own() {
        let before = std::fs::read_link("/proc/self/ns/user").unwrap();
        // Whether it may is the host's to say.
        let _ = probe();
        assert_eq!(std::fs::read_link("/proc/self/ns/user").unwrap(), before);
    }

    #[test]
    fn the_one_remedy_that_fits_is_told() {
        let clone = ("kernel/unprivileged_userns_clone", "0\n");
        let apparmor = ("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        for (errno, setting, reported) in [
            (libc::ENOSPC, None, "user.max_net_namespaces"),
            (libc::EUSERS, Some(apparmor), "user.max_net_namespaces"),
            (libc::EPERM, Some(clone), "unprivileged_userns_clone=1"),
            (
                libc::EACCES,
                Some(apparmor),
                "profile spore \"/opt/a b/spore\" flags=(unconfined) { userns, }",
            ),
            (libc::EACCES, Some(apparmor), "'apparmor_parser -r /etc/apparmor.d/spore'"),
            (libc::EPERM, None, "seccomp=unconfined"),
            (libc::EINVAL, Some(clone), "a kernel without"),
        ] {
            let read = |name: &str| {
                setting.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
            };
            let remedy = remedy_by("net", Some(errno), Path::new("/opt/a b/spore"), &read);
            assert!(remedy.contains(reported) && !remedy.contains('\n'), "{errno}: {remedy}");
        }
    }
}
