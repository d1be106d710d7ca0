//! One virtual machine, and nothing else of `spore`: it begins sooner than all of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    sporevm::vmm::alone()
}
