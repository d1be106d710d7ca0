//! A network namespace with taps, for tests of instances that have a network.
#![allow(dead_code)] // each test binary that shares this uses its part

use super::skip::{is_root, skip};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

/// A network namespace of a test's own, which goes with it and with what still uses it.
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// A new one with these taps, up; `None`, said by name, where there can be none.
    pub fn with_taps(taps: &[&str]) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo ready; exec sleep 1000000"]);
        let mut holder = command.stdout(Stdio::piped()).spawn().ok().or_else(|| {
            skip("there is no unshare (package util-linux)");
            None
        })?;
        let mut ready = [0; 6];
        let out = holder.stdout.as_mut().unwrap();
        let came = std::io::Read::read_exact(out, &mut ready);
        let namespace = Self { holder };
        if came.is_err() {
            skip("no network namespaces here");
            return None;
        }
        for tap in taps {
            let script =
                format!("ip tuntap add dev {tap} mode tap && ip link set {tap} mtu 9001 up");
            let made = namespace.run("sh", &["-c", &script]);
            if !made.status.success() {
                skip(format!("no taps here: {}", String::from_utf8_lossy(&made.stderr)));
                return None;
            }
        }
        Some(namespace)
    }

    /// A program in it, not yet started.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string(), program]);
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Does `work` in a thread that is in it, beside the caller.
    pub fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        let namespace = File::open(path).unwrap();
        std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            work()
        })
    }

    /// Runs a program in it to its end.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
