//! One virtual machine in one process.
