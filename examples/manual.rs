//! Writes the manual pages, spore(1) and one of each command, into the directory that is named.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let dir =
        std::env::args_os().nth(1).map(PathBuf::from).ok_or(std::io::ErrorKind::InvalidInput)?;
    clap_mangen::generate_to(sporevm::cli::command(), dir)
}
