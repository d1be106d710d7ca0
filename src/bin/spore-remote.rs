//! `spore` with what talks to buckets and registries, makes bundles and serves EC2's API: `spore`
//! becomes this program when it needs to.

use std::process::ExitCode;

fn main() -> ExitCode {
    sporevm::main(Some(sporevm::transfer::provide::provided()), Some(sporevm::http::server::serve))
}
