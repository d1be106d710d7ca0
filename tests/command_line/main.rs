//! The command line as those use it who have many instances, a terminal of 80 columns, a script, or
//! a disk that fills up.

#[path = "../common/mod.rs"]
mod common;

mod machines;
mod output;
mod places;
mod prune;
mod targets;

use common::Store;
use std::process::{Command, Output};

/// The command on a terminal of so many columns (script(1)): what the terminal is sent.
fn on_terminal(store: &Store, columns: u32, line: &str) -> String {
    let spore = env!("CARGO_BIN_EXE_spore");
    let shell = format!("stty cols {columns} rows 24 -echo -onlcr; exec {spore} {line}");
    let mut command = Command::new("script");
    command.args(["-qec", &shell, "/dev/null"]).env("SPORE_HOME", store.home());
    let output = command.env("TERM", "xterm").stdin(std::process::Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Exit code and the one line on stderr of a command that is refused.
fn refused(store: &Store, args: &[&str], code: i32, says: &str) {
    let output = store.spore(args);
    let line = err(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {line}");
    assert!(line.contains(says) && line.trim_end().lines().count() == 1, "{args:?}: {line}");
}

/// The lines of a successful command's output.
fn lines(store: &Store, args: &[&str]) -> Vec<String> {
    store.ok(args).lines().map(str::to_owned).collect()
}
