//! What tests of the whole program need: a store of their own and the `spore` command.
#![allow(dead_code, unused_imports)] // each test binary that shares this uses its part

pub mod guard;
pub mod hostile;
pub mod images;
pub mod namespace;
pub mod programs;
pub mod skip;
pub mod small;
pub mod volumes;

pub use skip::has_kvm;

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Seconds that anything may take before it counts as stuck.
const PATIENCE: &str = "300";

/// An empty store; its instances are terminated when it is dropped.
pub struct Store {
    home: TempDir,
}

impl Store {
    /// A new one.
    pub fn new() -> Self {
        let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        guard::store(home.path());
        Self { home }
    }

    /// Its directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What this user's account has to itself in it.
    pub fn account_dir(&self) -> std::path::PathBuf {
        let uid = rustix::process::geteuid().as_raw();
        self.home().join("accounts").join(uid.to_string())
    }

    /// `spore ARGS`, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spore"));
        command.args(args).env("SPORE_HOME", self.home());
        command
    }

    /// Run `spore ARGS` to its end.
    pub fn spore(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Its standard output; the command must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.spore(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "spore {args:?}: {}: {err}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Launch from image `demo` with these arguments and return the instances' ids.
    pub fn launch(&self, args: &[&str]) -> Vec<String> {
        let run =
            [&["run", "demo", "-q", "-m", "128M", "--root-device-type", "ebs"], args].concat();
        self.ok(&run).lines().map(str::to_owned).collect()
    }

    /// Launch one with this mode of the guest.
    pub fn launch_mode(&self, mode: &str) -> String {
        self.launch(&["--append", &format!("demo.mode={mode}")]).remove(0)
    }

    /// Wait until `id` is `what`: running, stopped, terminated or exit.
    pub fn wait(&self, id: &str, what: &str) {
        let output = self.spore(&["wait", "--for", what, "--timeout", PATIENCE, id]);
        let err = String::from_utf8_lossy(&output.stderr);
        let (logs, notices) = (self.logs(id), self.vmm_logs(id));
        assert!(output.status.success(), "waiting for {what}: {err}\n{logs}\n{notices}");
    }

    /// Wait until the console of `id` shows `text`.
    pub fn wait_for_text(&self, id: &str, text: &str) {
        let mut follow = self.command(&["logs", "-f", id]);
        let mut child = follow.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let found = std::io::BufRead::lines(out).any(|line| line.unwrap().contains(text));
        let _ = child.kill();
        child.wait().unwrap();
        assert!(found, "no {text:?} in {}", self.logs(id));
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
}

impl Drop for Store {
    fn drop(&mut self) {
        let ids = self.spore(&["ls", "-q"]);
        let ids = String::from_utf8_lossy(&ids.stdout).into_owned();
        let args: Vec<&str> = ["terminate"].into_iter().chain(ids.lines()).collect();
        if args.len() > 1 {
            self.spore(&args);
        }
    }
}

/// The rest of the line of `text` that begins with `key`.
pub fn field<'a>(text: &'a str, key: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(key));
    found.unwrap_or_else(|| panic!("no line {key:?} in {text:?}")).trim()
}
