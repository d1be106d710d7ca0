//! Spore launches N identical KVM instances from one image.
//!
//! `docs/ARCHITECTURE.md` walks through one launch. Two halves share only the vocabulary ([`plan`],
//! [`control`], [`id`], [`error`]) and [`sys`]: the control plane ([`cli`], [`instance`], [`image`],
//! [`volume`], [`store`]) decides, the data plane ([`vmm`], [`virtio`], [`boot`], [`chipset`],
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

pub mod cli;
pub mod image;
pub mod instance;
pub mod store;
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
    if arguments.next_if(|first| first == image::import::external::SUBCOMMAND).is_some() {
        return image::import::external::main(arguments);
    }
    if let Some(code) = image::child::main(&mut arguments) {
        return code;
    }
    if arguments.next_if(|first| first == pvgrub::SUBCOMMAND).is_some() {
        return pvgrub::main();
    }
    cli::main()
}
