//! Programs that a test needs besides `spore`.

use std::process::Command;

/// A program that may be where only administrators look for it, as mke2fs is.
pub fn administrators(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
