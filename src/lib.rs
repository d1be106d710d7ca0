//! Spore launches N identical KVM instances from one image.
//!
//! `docs/ARCHITECTURE.md` has the map and two walks. Two halves share only the vocabulary
//! ([`plan`], [`control`], [`id`], [`error`]) and [`sys`]: the control plane ([`cli`], [`service`],
//! [`instance`], [`transfer`], [`image`], [`kernel`], [`snapshot`], [`volume`], [`store`],
//! [`record`]) decides, the data plane ([`vmm`], [`virtio`], [`nvme`], [`boot`], [`chipset`],
//! [`block`], [`mem`]) runs one virtual machine in one process.

pub mod context;
pub mod control;
pub mod demo;
pub mod error;
pub mod helper;
pub mod id;
pub mod plan;

pub mod sys;

pub mod block;
pub mod boot;
pub mod chipset;
pub mod ext4;
pub mod fat;
pub mod mem;
pub mod net;
pub mod nvme;
pub mod pvgrub;
pub mod share;
pub mod virtio;
pub mod vmm;

pub mod account;
pub mod cli;
pub mod disk;
pub mod http;
pub mod image;
pub mod import;
pub mod inspect;
pub mod instance;
pub mod kernel;
pub mod key;
pub mod metadata;
pub mod network;
pub mod record;
pub mod service;
pub mod snapshot;
pub mod store;
pub mod transfer;
pub mod volume;

pub use error::{Error, Result};

use std::process::ExitCode;

/// All kinds of confined processes that read what somebody else made.
pub(crate) const HELPERS: &[&helper::Helper] = &[
    &inspect::secrets::HELPER,
    &inspect::modules::HELPER,
    &kernel::HELPER,
    &import::HELPER,
    &import::external::HELPER,
    &transfer::remote::chunks::HELPER,
    &transfer::bundle::unpack::HELPER,
    &transfer::download::signature::HELPER,
    &pvgrub::HELPER,
    &share::HELPER,
    &disk::HELPER,
    &disk::OVERLAY,
];

/// What the program does: the parts of it that it starts itself, or the command line. `extension`
/// and `serve` are what it has beyond `spore`.
pub fn main(extension: Option<context::Extension>, serve: Option<http::Serve>) -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    // Before anything else looks at the arguments: how soon an instance runs depends on it.
    if arguments.next_if(|first| first == plan::SUBCOMMAND).is_some() {
        return vmm::main();
    }
    sys::process::survive_file_size_limit();
    if arguments.next_if(|first| first == plan::network::NetworkPlan::SUBCOMMAND).is_some() {
        return net::main();
    }
    if let Some(code) = helper::main(HELPERS, &mut arguments) {
        return code;
    }
    cli::main(extension, serve)
}

#[cfg(test)]
mod tests {
    use super::HELPERS;
    use super::helper::Syscalls;

    #[test]
    fn no_helper_that_reads_has_a_way_to_files_programs_or_others() {
        let ways = [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_sendmsg,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
        ];
        for helper in HELPERS {
            assert!(helper.word.starts_with("__"), "{}", helper.word);
            assert_eq!(HELPERS.iter().filter(|other| other.word == helper.word).count(), 1);
            let Syscalls::These(calls) = helper.syscalls else {
                let builds_its_own = ["__qemu-img", "__gpgv", "__share"];
                assert!(builds_its_own.contains(&helper.word), "{}", helper.word);
                continue;
            };
            for way in ways {
                assert!(calls.iter().all(|allow| allow.call() != way), "{} {way}", helper.word);
            }
            assert!(helper.environment.is_empty(), "{}", helper.word);
        }
    }
}
