//! Two accounts, which are two Unix users, and a store that they share.

use super::world::Bytes;
use crate::common::installed::Installed;
use sporevm::block::{self, Disk, Engine, Op};
use sporevm::store::Store;
use sporevm::sys::iobuf::IoBuf;
use sporevm::volume;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

/// No real user has these numbers; the kernel asks for no more than a number.
pub const USERS: [u32; 2] = [61_701, 61_702];

/// What a command came to.
#[derive(Debug)]
pub enum Outcome {
    /// What it printed.
    Done(String),
    /// EC2's error code, and all that it said.
    Refused(String, String),
    /// It was killed where it was told to.
    Killed(String),
}

/// The store, and a copy of the program where everybody can run it.
pub struct Region {
    installed: Installed,
    pub store: Store,
    /// What every import begins as.
    pub root: Bytes,
}

impl Region {
    pub fn new() -> Self {
        let installed = Installed::new();
        crate::common::guard::store(installed.dir());
        let root = sporevm::demo::root();
        std::fs::write(installed.path("kernel"), sporevm::demo::KERNEL).unwrap();
        std::fs::write(installed.path("root"), &root).unwrap();
        let (home, program) = (installed.path("region"), installed.path("spore"));
        let shared = installed.command((0, 0), &home, &program).args(["store", "share"]).status();
        assert!(shared.unwrap().success());
        let store = Store::open_at(&home).unwrap();
        Self { installed, store, root: Bytes::new(root) }
    }

    /// A file beside the store.
    pub fn file(&self, name: &str) -> String {
        self.installed.path(name).to_str().unwrap().to_owned()
    }

    pub fn program(&self) -> PathBuf {
        self.installed.path("spore")
    }

    fn command(&self, user: u32, args: &[String]) -> Command {
        let starts = matches!(args[0].as_str(), "run" | "start")
            || args[0] == "image" && args[1] == "create";
        let (who, home, program) = ((user, user), self.store.home(), self.program());
        let mut command = match starts {
            true => self.installed.command_with_kvm(who, home, &[], &program),
            false => self.installed.command(who, home, &program),
        };
        command.args(args);
        command
    }

    /// `spore ARGS` as a user; with `fault`, killed when it comes to that many points.
    pub fn spore(&self, user: u32, args: &[String], fault: Option<u64>) -> Outcome {
        let mut command = self.command(user, args);
        if let Some(n) = fault {
            command.env("SPORE_FAULT", n.to_string());
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.signal() == Some(9) {
            return Outcome::Killed(said);
        }
        if output.status.success() {
            return Outcome::Done(String::from_utf8(output.stdout).unwrap().trim().to_owned());
        }
        let told = |line: &&str| !line.starts_with("note: ") && !line.starts_with("warning: ");
        let lines = said.lines().filter_map(|line| line.strip_prefix("spore: "));
        let code = lines.filter(told).find_map(|line| Some(line.split_once(": ")?.0.to_owned()));
        Outcome::Refused(code.unwrap_or_default(), said)
    }

    /// Write to a volume that nobody uses, as a VMM of its owner's does.
    pub fn write(&self, id: &str, offset: u64, bytes: &[u8]) {
        let record = self.store.volumes().resolve(id).unwrap();
        let owner = record.owner_id.parse().unwrap();
        let open = || as_user(owner, || volume::open_layers(&self.store, &record, false));
        // The kernel lets go of a volume some time after its VMM is gone.
        let in_time = std::iter::repeat_with(|| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            open().ok()
        });
        let opened = open().ok().or_else(|| in_time.take(10_000).flatten().next());
        let opened = opened.expect("a volume that nobody uses");
        let disk = block::open(opened.layers, false).unwrap();
        let mut queue = disk.queue(Engine::Sync).unwrap();
        let buf = IoBuf::from_bytes(bytes.to_vec().into_boxed_slice());
        queue.submit(1, Op::Write { offset, buf });
        queue.submit_batch().unwrap();
        queue.completions(&mut |_, done| done.unwrap());
        drop(queue);
        disk.close().unwrap();
    }

    /// What is being made or removed.
    pub fn debris(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.store.home().join("tmp")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// Do `work` as a user, in this thread alone: not even root believes what is in another's
/// directory.
pub fn as_user<T>(uid: u32, work: impl FnOnce() -> T) -> T {
    let me = rustix::process::geteuid().as_raw();
    let become_user = |uid: u32| {
        if uid == me && rustix::process::geteuid().as_raw() == me {
            return;
        }
        // SAFETY: setresuid(2) takes no memory. The system call itself changes this thread only.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
        assert_eq!(done, 0, "root is needed");
    };
    become_user(uid);
    let result = work();
    become_user(me);
    result
}

impl Drop for Region {
    fn drop(&mut self) {
        for user in USERS {
            let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
            let Outcome::Done(ids) = self.spore(user, &words(&["ls", "-q"]), None) else {
                continue;
            };
            let args: Vec<&str> = ["terminate"].into_iter().chain(ids.lines()).collect();
            if args.len() > 1 {
                self.spore(user, &words(&args), None);
            }
        }
    }
}
