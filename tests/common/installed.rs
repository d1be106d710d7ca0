//! The programs where every user can run them, and commands as one of several users. Needs root.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A directory with copies of the programs, and with a /dev/kvm that is everybody's.
pub struct Installed(TempDir);

impl Installed {
    /// In memory where the host has room for that: nothing of it is to survive a power failure.
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let programs = [
            env!("CARGO_BIN_EXE_spore"),
            env!("CARGO_BIN_EXE_spore-vmm"),
            env!("CARGO_BIN_EXE_spore-remote"),
        ];
        // By a process of its own: what another thread starts meanwhile would hold them open for
        // writing (ETXTBSY).
        let install =
            Command::new("install").args(["-m", "755"]).args(programs).arg(dir.path()).status();
        assert!(install.unwrap().success());
        let kvm = dir.path().join("kvm");
        let made =
            Command::new("mknod").args(["-m", "666"]).arg(&kvm).args(["c", "10", "232"]).status();
        assert!(made.unwrap().success());
        Self(dir)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// What is called so in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `PROGRAM ARGS` as a user in no other groups, on that store.
    pub fn command(&self, user: (u32, u32), home: &Path, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        as_user(&mut command, user, program);
        settle(&mut command, home);
        command
    }

    /// The same, for what may start a guest: /dev/kvm may be the superuser's alone, and where this
    /// runs it is everybody's. `before` is a command that `setpriv` runs by, e.g. prlimit.
    pub fn command_with_kvm(
        &self,
        user: (u32, u32),
        home: &Path,
        before: &[&str],
        program: &Path,
    ) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /dev/kvm && exec \"$@\""]);
        command.arg(self.path("kvm")).args(before).arg("setpriv");
        as_user(&mut command, user, program);
        settle(&mut command, home);
        command
    }
}

fn as_user(setpriv: &mut Command, (uid, gid): (u32, u32), program: &Path) {
    setpriv.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
    setpriv.args(["--clear-groups", "--"]).arg(program);
}

fn settle(command: &mut Command, home: &Path) {
    command.env("SPORE_HOME", home).env("HOME", "/").current_dir("/").stdin(Stdio::null());
}
