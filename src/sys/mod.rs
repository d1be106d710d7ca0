//! What only the operating system can do, wrapped so that the rest of the crate needs no `unsafe`.

pub mod confine;
pub mod eventfd;
pub mod fault;
pub mod fds;
pub mod file_io;
pub mod final_program;
pub mod iobuf;
pub mod kvm;
pub mod kvm_state;
pub mod mmap;
pub mod namespace;
pub mod packet_io;
pub mod passing;
pub mod process;
pub mod seccomp;
pub mod tap;
pub mod threads;
pub mod trim_memory;
pub mod uring;
pub mod usage;
