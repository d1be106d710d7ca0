//! What tests of the whole program need: a store of their own and the `spore` command.
#![allow(dead_code, unused_imports)] // each test binary that shares this uses its part

pub mod efi;
pub mod guard;
pub mod hostile;
pub mod images;
pub mod installed;
pub mod namespace;
pub mod networks;
pub mod programs;
pub mod served;
pub mod shares;
pub mod skip;
pub mod small;
pub mod spore;
pub mod venv;
pub mod volumes;

pub use skip::has_kvm;
pub use spore::Spore;

use std::ops::Deref;
use std::process::Stdio;
use tempfile::TempDir;

/// Seconds that anything may take before it counts as stuck.
const PATIENCE: &str = "300";

/// An empty store; its instances are terminated when it is dropped.
pub struct Store {
    spore: Spore,
    _home: TempDir,
}

impl Deref for Store {
    type Target = Spore;

    fn deref(&self) -> &Spore {
        &self.spore
    }
}

impl Store {
    /// A new one.
    pub fn new() -> Self {
        let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        guard::store(home.path());
        Self { spore: Spore::new(home.path().to_owned()), _home: home }
    }

    /// What this user's account has to itself in it.
    pub fn account_dir(&self) -> std::path::PathBuf {
        let uid = rustix::process::geteuid().as_raw();
        self.home().join("accounts").join(uid.to_string())
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
}

impl Drop for Store {
    fn drop(&mut self) {
        self.terminate_all();
    }
}

/// The rest of the line of `text` that begins with `key`.
pub fn field<'a>(text: &'a str, key: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(key));
    found.unwrap_or_else(|| panic!("no line {key:?} in {text:?}")).trim()
}
