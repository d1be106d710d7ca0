//! Spore launches N identical KVM instances from one image.
//!
//! `docs/ARCHITECTURE.md` walks through one launch. Two halves share only the vocabulary ([`plan`],
//! [`control`], [`id`], [`error`]) and [`sys`]: the control plane ([`cli`], [`instance`], [`transfer`],
//! [`image`], [`kernel`], [`snapshot`], [`volume`], [`store`], [`record`]) decides, the data plane ([`vmm`], [`virtio`], [`boot`], [`chipset`],
//! [`block`], [`mem`]) runs one virtual machine in one process.

pub mod action;
pub mod control;
pub mod demo;
pub mod error;
pub mod id;
pub mod plan;
pub mod service;

pub mod sys;

pub mod block;
pub mod boot;
pub mod chipset;
pub mod ext4;
pub mod mem;
pub mod pvgrub;
pub mod virtio;
pub mod vmm;

pub mod account;
pub mod child;
pub mod cli;
pub mod image;
pub mod import;
pub mod inspect;
pub mod instance;
pub mod kernel;
pub mod record;
pub mod snapshot;
pub mod store;
pub mod transfer;
pub mod volume;

pub use error::{Error, Result};

use std::process::ExitCode;

/// What the program does: the parts of it that it starts itself, or the command line.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    // Before anything else looks at the arguments: how soon an instance runs depends on it.
    if arguments.next_if(|first| first == plan::SUBCOMMAND).is_some() {
        return vmm::main();
    }
    if arguments.next_if(|first| first == import::external::SUBCOMMAND).is_some() {
        return import::external::main(arguments);
    }
    if let Some(code) = child::main(&mut arguments) {
        return code;
    }
    if arguments.next_if(|first| first == pvgrub::SUBCOMMAND).is_some() {
        return pvgrub::main();
    }
    cli::main()
}
