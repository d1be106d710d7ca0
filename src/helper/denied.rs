//! The system calls that an image converter or a verifier of signatures has no use for. It is a
//! list of what is denied, not of what is allowed, because what these programs' libraries call
//! differs from distribution to distribution.

use crate::sys::seccomp::Deny::{self, Absent, Call, Unless};
use libc::*;

/// Bits of clone(2) that make a namespace. (linux/sched.h)
const NAMESPACES: i32 = CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET;

/// Calls that fail, whatever their arguments.
const DENIED: &[i64] = &[
    // Other machines and other processes' services.
    SYS_socket,
    SYS_socketpair,
    // Other processes: their memory, their descriptors, signals to them.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_kcmp,
    SYS_pidfd_open,
    SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    SYS_kill,
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_move_pages,
    SYS_migrate_pages,
    // New processes.
    SYS_fork,
    SYS_vfork,
    // Memory and queues that others share by name.
    SYS_shmget,
    SYS_semget,
    SYS_msgget,
    SYS_mq_open,
    // What files of the user are, which Landlock does not look after.
    SYS_chmod,
    SYS_fchmodat,
    SYS_fchmodat2,
    SYS_chown,
    SYS_lchown,
    SYS_fchownat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_utime,
    SYS_utimes,
    SYS_futimesat,
    SYS_utimensat,
    SYS_name_to_handle_at,
    SYS_open_by_handle_at,
    SYS_fanotify_init,
    // The file system's tree, and views of it.
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_swapon,
    SYS_swapoff,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_acct,
    SYS_unshare,
    SYS_setns,
    // Who it is.
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setgroups,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_capset,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    // The kernel, and parts of it that have been ways into it.
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_modify_ldt,
    SYS_personality,
    SYS_vmsplice,
    SYS_syslog,
    SYS_iopl,
    SYS_ioperm,
    // The machine.
    SYS_reboot,
    SYS_vhangup,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
];

/// What this process is denied once it has become a converter.
pub fn calls() -> Vec<Deny> {
    let bits = |bits: i32| u64::from(bits.unsigned_abs());
    let (thread, own) = (bits(CLONE_THREAD), u64::from(std::process::id()));
    let mut calls: Vec<Deny> = DENIED.iter().map(|&call| Call(call)).collect();
    calls.extend([
        // A ring makes calls that no filter sees.
        Absent(SYS_io_uring_setup),
        // Its flags are in memory, where no filter looks. The C library takes clone(2) instead.
        Absent(SYS_clone3),
        // Threads, in the namespaces as they are.
        Unless { call: SYS_clone, argument: 0, mask: thread | bits(NAMESPACES), value: thread },
        // abort(3)'s.
        Unless { call: SYS_tgkill, argument: 0, mask: u64::from(u32::MAX), value: own },
    ]);
    calls
}
