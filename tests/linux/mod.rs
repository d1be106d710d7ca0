//! What a test of a real Linux guest needs: a store of its own, the `spore` command, a shell on the
//! serial line.
#![allow(dead_code, unused_imports)] // each of the two binaries that share this uses its part

#[path = "../common/mod.rs"]
mod common;

pub use common::served::Served;
pub use common::shares::servers;
pub use common::{Spore, efi, namespace, programs, skip};

use common::{guard, spore};
use namespace::Namespace;
use std::io::{Read, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long anything may take before it counts as stuck: a guest that hangs costs its test as long,
/// and all tests together no more than their stage has. The box runs some 20 times slower than
/// hardware.
pub fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os("SPORE_TEST_STORE").is_some() { 900 } else { 240 })
}

/// A store with a Debian image in it; its instances are terminated on drop.
pub struct Lab {
    spore: Spore,
    /// Arguments that every `run` gets (the kernel's quirks).
    run_args: Vec<String>,
}

impl Deref for Lab {
    type Target = Spore;

    fn deref(&self) -> &Spore {
        &self.spore
    }
}

/// The directory that `scripts/test` prepared: debian.img, vmlinuz, initrd.img and more.
pub fn images() -> PathBuf {
    let dir = std::env::var_os("SPORE_TEST_IMAGES")
        .expect("SPORE_TEST_IMAGES names the directory of test images; scripts/test sets it");
    PathBuf::from(dir)
}

fn import_debian(kernel: &str, initrd: Option<&str>) -> PathBuf {
    // Of this process alone: the guard of the last one may be removing its own still.
    let name = format!("store-{kernel}-{}", std::process::id());
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    guard::store(&home);
    let path = |name: &str| images().join(name).to_str().unwrap().to_owned();
    let (kernel, disk, initrd) = (path(kernel), path("debian.img"), initrd.map(path));
    let mut import = vec!["image", "import", "--name", "debian", "--kernel", &kernel];
    import.extend(initrd.iter().flat_map(|initrd| ["--initrd", initrd]));
    import.push(&disk);
    Spore::new(home.clone()).ok(&import);
    home
}

impl Lab {
    /// The store that `scripts/kvm-box` put into the box (SPORE_TEST_STORE), which has image
    /// `debian` with its stock kernel; elsewhere one made on first use, with `kernel` (and
    /// `initrd`) to boot it. Tests of one process share it, one after the other.
    pub fn new(kernel: &str, initrd: Option<&str>, run_args: &[&str]) -> Self {
        static HOME: OnceLock<PathBuf> = OnceLock::new();
        let run_args = run_args.iter().map(ToString::to_string).collect();
        let home = HOME.get_or_init(|| match std::env::var_os("SPORE_TEST_STORE") {
            Some(ready) => ready.into(),
            None => import_debian(kernel, initrd),
        });
        Self { spore: Spore::new(home.clone()), run_args }
    }

    /// Whether its instances' devices are PCI functions, as they are unless something else is asked
    /// for.
    pub fn over_pci(&self) -> bool {
        !self.run_args.iter().any(|word| word == "mmio")
    }

    /// As [`Spore::ok`], in a network namespace.
    pub fn ok_inside(&self, host: &Namespace, args: &[&str]) -> String {
        let mut command = host.command(self.program().to_str().unwrap(), args);
        let output = command.env("SPORE_HOME", self.home()).output().unwrap();
        spore::succeeded(args, &output).trim().to_owned()
    }

    /// Launch `n` instances of `debian` and return their ids at once.
    pub fn launch(&self, n: usize, more: &[&str]) -> Vec<String> {
        self.launch_of("debian", n, more)
    }

    /// Have `image` in the store: its disk is IMAGE.img of the test images, and `boot` says how it
    /// boots.
    pub fn have(&self, image: &str, boot: &[&str]) {
        if !self.spore(&["image", "show", image]).status.success() {
            let disk = images().join(format!("{image}.img"));
            self.ok(&[&["image", "import", disk.to_str().unwrap(), "--name", image], boot].concat());
        }
    }

    /// Launch `n` instances of `image` and return their ids at once.
    pub fn launch_of(&self, image: &str, n: usize, more: &[&str]) -> Vec<String> {
        let count = n.to_string();
        let mut args = vec!["run", image, "-n", &count, "-q"];
        args.extend(self.run_args.iter().map(String::as_str));
        args.extend(more);
        let ids: Vec<String> = self.ok(&args).lines().map(str::to_owned).collect();
        assert_eq!(ids.len(), n);
        ids
    }

    /// Wait until every one of `ids` is `what` (login, stopped, terminated …).
    pub fn wait(&self, ids: &[String], what: &str) {
        let limit = patience().as_secs().to_string();
        let mut args = vec!["wait", "--for", what, "--timeout", &limit];
        args.extend(ids.iter().map(String::as_str));
        let output = self.spore(&args);
        if !output.status.success() {
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            let logs: Vec<_> = ids.iter().map(|id| self.logs(id)).collect();
            panic!("waiting for {what}: {err}\n{}", logs.join("\n-----\n"));
        }
    }

    /// The instance's state by name.
    pub fn state(&self, id: &str) -> String {
        self.spore.state(id).0
    }

    /// Why it is in that state.
    pub fn reason(&self, id: &str) -> String {
        self.spore.state(id).1
    }

    /// The process id of its VMM.
    pub fn pid(&self, id: &str) -> u32 {
        let found = self.spore.pid(id).expect("show -o json has Pid");
        u32::try_from(found).unwrap()
    }

    /// kill -9 the VMM.
    pub fn kill(&self, id: &str) {
        let pid = self.pid(id).to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    }

    /// A root shell on the serial line of an instance that shows its login prompt.
    pub fn shell(&self, id: &str) -> Shell {
        let mut shell = self.console(id);
        shell.log_in();
        shell
    }

    /// The serial line of an instance, whoever is there.
    pub fn console(&self, id: &str) -> Shell {
        let mut child = self
            .command(&["console", id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let (send, from) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take().unwrap();
        Shell { child, stdin, from, seen: String::new() }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.terminate_all();
    }
}

/// A root shell in a guest, over `spore console`.
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    from: Receiver<Vec<u8>>,
    seen: String,
}

impl Shell {
    /// Type `key` until `text` comes, to somebody who may not listen yet.
    pub fn insist(&mut self, key: &str, text: &str) {
        let deadline = Instant::now() + patience();
        while !self.seen.contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in {:?}", self.seen);
            self.send(key);
            if let Ok(bytes) = self.from.recv_timeout(Duration::from_millis(200)) {
                self.seen.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        self.expect(text);
    }

    fn log_in(&mut self) {
        self.send("\n");
        self.expect("login: ");
        self.send("root\n");
        self.expect("# ");
        // What is typed ahead of a prompt is read by the shell before, which throws it away.
        self.send("exec sh\n");
        self.expect("# ");
        self.send("stty -echo cols 1000; PS1=; dmesg -n 1; echo re''ady\n");
        self.expect("ready");
    }

    /// Type `text`.
    pub fn send(&mut self, text: &str) {
        self.stdin.write_all(text.as_bytes()).unwrap();
        self.stdin.flush().unwrap();
    }

    /// Read until `text` has come; what came before it.
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + patience();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.seen, rest);
                before.truncate(at);
                return before;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.from.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in {:?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("console closed before {text:?}: {:?}", self.seen)
                }
            }
        }
    }

    /// Run a command line in the guest; its output. It must exit with 0.
    pub fn sh(&mut self, line: &str) -> String {
        eprintln!("# {line}");
        self.send(&format!("{line}; echo \"<e\"\"nd $?>\"\n"));
        let output = self.expect("<end ");
        let status = self.expect(">");
        assert_eq!(status, "0", "{line}: {output}");
        output.replace('\r', "").trim().to_owned()
    }

    /// Leave; the line shows its login prompt again.
    pub fn log_out(mut self) {
        self.send("exit\n");
        self.expect("login: ");
    }

    /// Type a line that ends the guest; read until the console closes.
    pub fn last_words(mut self, line: &str) {
        self.send(&format!("{line}\n"));
        let deadline = Instant::now() + patience();
        loop {
            match self.from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("{line}: still there: {:?}", self.seen),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
