//! `spore serve` over a store, and clients of it.

use super::spore::Spore;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// A service that runs.
pub struct Served {
    process: Child,
    /// What it says.
    pub stderr: BufReader<ChildStderr>,
    /// Where it is: a URL.
    pub endpoint: String,
}

impl Served {
    /// Of a store, at an address of its own.
    pub fn new(store: &Spore, args: &[&str]) -> Self {
        Self::at(store, "127.0.0.1:0", args)
    }

    /// At that address.
    pub fn at(store: &Spore, listen: &str, args: &[&str]) -> Self {
        let mut command = store.command(&[&["serve", "--listen", listen][..], args].concat());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let Some((_, endpoint)) = line.trim().rsplit_once(" at ") else {
            panic!("it does not serve: {line}");
        };
        Self { process, stderr, endpoint: endpoint.to_owned() }
    }

    /// Its process.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.process)
    }

    /// Ends it as a service manager does; its exit code, and what it has said.
    pub fn end(mut self) -> (Option<i32>, String) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.process.wait().unwrap().code(), said)
    }

    /// A client of it: the variables that `spore env` prints are set.
    pub fn client(&self, store: &Spore, program: &Path) -> Command {
        let mut client = Command::new(program);
        let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
        client.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home);
        // None that the machine has.
        client.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", "/dev/null");
        for line in store.ok(&["env", "--endpoint", &self.endpoint]).lines() {
            let set = line.strip_prefix("export ").and_then(|set| set.split_once('='));
            let (name, value) = set.unwrap_or_else(|| panic!("no variable: {line}"));
            client.env(name, value.trim_matches('\''));
        }
        client
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
