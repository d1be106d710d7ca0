//! What the server of a shared directory gives up: everything but that directory.

use crate::error::{Error, OrFail, Result};
use crate::sys::confine::MEMORY_AND_END;
use crate::sys::namespace::{self, keep_capabilities};
use crate::sys::seccomp::{Allow, Allow::Call, Filter, harden_process};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus,
};
use rustix::fs::Mode;
use rustix::process::{chroot, fchdir, umask};
use rustix::thread::CapabilitySet;
use std::os::fd::OwnedFd;

/// What a server may ask of the kernel.
const READING: &[Allow] = &[
    Call(libc::SYS_recvmsg),       // requests
    Call(libc::SYS_sendmsg),       // answers
    Call(libc::SYS_openat2),       // files, of which each is compared with what the guest knows
    Call(libc::SYS_statx),         // attributes
    Call(libc::SYS_readlinkat),    // symbolic links
    Call(libc::SYS_getdents64),    // directories
    Call(libc::SYS_lseek),         // directories, and holes in files
    Call(libc::SYS_fstatfs),       // room
    Call(libc::SYS_close),         // files
    Call(libc::SYS_geteuid),       // whose files are the guest's root's
    Call(libc::SYS_getegid),       // likewise
    Call(libc::SYS_rt_sigreturn),  // after a stop of the process
    Call(libc::SYS_clock_gettime), // where the vDSO cannot
    Call(libc::SYS_write),         // the last word of a panic
    #[cfg(debug_assertions)]
    Call(libc::SYS_fcntl), // whether what std closes is open
];

/// What that of a directory which the guest may change may, too.
const WRITING: &[Allow] = &[
    Call(libc::SYS_mkdirat),
    Call(libc::SYS_symlinkat),
    Call(libc::SYS_unlinkat),
    Call(libc::SYS_renameat2),
    Call(libc::SYS_linkat),
    Call(libc::SYS_fchmod),
    Call(libc::SYS_utimensat),
    Call(libc::SYS_ftruncate),
    Call(libc::SYS_fallocate),
    Call(libc::SYS_fsync),
    Call(libc::SYS_fdatasync),
];

/// Leaves this process the shared directory as its whole file system, to be read only if that is
/// all that the guest may.
///
/// A user namespace of its own is what lets an unprivileged process have another root. Where there
/// are none, Landlock keeps it in the directory; one of both there must be.
///
/// # Errors
/// The host has neither; the line says what helps.
pub fn confine(root: &OwnedFd, read_only: bool) -> Result<()> {
    let doing = || "confine the server of a shared directory";
    umask(Mode::empty());
    // Root may have another root without. It comes before what makes the process undumpable, whose
    // /proc/self/uid_map is root's. (proc(5))
    let _ = namespace::new_users();
    harden_process();
    fchdir(root).or_fail(doing)?;
    let rooted = chroot(".");
    let beneath = close_files(root, read_only)?;
    if let (Err(cause), false) = (rooted, beneath) {
        return Err(Error::io("confine the server of a shared directory", cause).remedy(
            "let programs make user namespaces ('spore doctor' says how), or use a kernel with Landlock",
        ));
    }
    keep_capabilities(CapabilitySet::empty())?;
    let calls = if read_only { &[][..] } else { WRITING };
    Filter::compile(&[READING, calls, MEMORY_AND_END].concat())?.apply()
}

/// Landlock: the directory, and no other file and no network. False: the kernel has none.
fn close_files(root: &OwnedFd, read_only: bool) -> Result<bool> {
    let doing = || "confine the server of a shared directory";
    let abi = ABI::V5;
    let all = AccessFs::from_all(abi);
    let devices: BitFlags<AccessFs> =
        AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo | AccessFs::MakeSock;
    let never = devices | AccessFs::Execute | AccessFs::IoctlDev;
    let may = if read_only { AccessFs::from_read(abi) } else { all };
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.add_rule(PathBeneath::new(root, may & !never)))
        .and_then(|rules| rules.restrict_self())
        .or_fail(doing)?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
