//! `spore` with what talks to buckets and registries and makes bundles: `spore` becomes this
//! program when it needs to.

use std::process::ExitCode;

fn main() -> ExitCode {
    sporevm::main(Some(sporevm::transfer::provide::provided()))
}
