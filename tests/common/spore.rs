//! The `spore` command on a store, and what it says of instances.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The command, and the store that it works on.
pub struct Spore {
    program: PathBuf,
    home: PathBuf,
}

impl Spore {
    /// The command that was built with the tests, or that SPORE_BIN names, on the store there.
    pub fn new(home: PathBuf) -> Self {
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_spore"));
        let program = std::env::var_os("SPORE_BIN").map_or_else(built, PathBuf::from);
        Self { program, home }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The store's directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// `spore ARGS`, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("SPORE_HOME", &self.home);
        command
    }

    /// Run `spore ARGS` to its end.
    pub fn spore(&self, args: &[&str]) -> Output {
        eprintln!("spore {}", args.join(" ")); // shown if the test fails
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Its standard output; the command must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        succeeded(args, &self.spore(args))
    }

    /// What the guest printed.
    pub fn logs(&self, id: &str) -> String {
        String::from_utf8_lossy(&self.spore(&["logs", id]).stdout).replace('\r', "")
    }

    /// What its VMM had to tell.
    pub fn vmm_logs(&self, id: &str) -> String {
        String::from_utf8_lossy(&self.spore(&["logs", "--vmm", id]).stdout).into_owned()
    }

    /// EC2's description of an instance.
    pub fn describe(&self, id: &str) -> Value {
        let all: Value = serde_json::from_str(&self.ok(&["show", id, "-o", "json"])).unwrap();
        all["Reservations"][0]["Instances"][0].clone()
    }

    /// Its state, and why.
    pub fn state(&self, id: &str) -> (String, String) {
        let instance = self.describe(id);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&instance["State"]["Name"]), text(&instance["StateReason"]["Message"]))
    }

    /// The process id of its VMM.
    pub fn pid(&self, id: &str) -> Option<u64> {
        self.describe(id)["Spore"]["Pid"].as_u64()
    }

    /// Terminate whatever there is.
    pub fn terminate_all(&self) {
        let ids = self.spore(&["ls", "-q"]);
        let ids = String::from_utf8_lossy(&ids.stdout).into_owned();
        let args: Vec<&str> = ["terminate"].into_iter().chain(ids.lines()).collect();
        if args.len() > 1 {
            self.spore(&args);
        }
    }
}

/// The standard output of a command that has to have succeeded.
pub fn succeeded(args: &[&str], output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "spore {args:?}: {}: {err}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}
