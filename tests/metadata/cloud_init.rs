//! cloud-init's own code, of Debian's package, which is unpacked and not installed: it would run at
//! the next boot of this machine.

use super::common::skip::skip_anywhere;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What its modules import.
const NEEDS: [&str; 8] = [
    "configobj",
    "jinja2",
    "jsonpatch",
    "jsonschema",
    "netifaces",
    "oauthlib",
    "pyyaml",
    "requests",
];

/// The unpacked package, and a Python that has what its modules import.
pub struct CloudInit {
    root: PathBuf,
    python: PathBuf,
}

impl CloudInit {
    /// Debian's cloud-init, if it can be had here; says so if not.
    pub fn get() -> Option<Self> {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (root, venv) = (tmp.join("cloud-init"), tmp.join("cloud-init-venv"));
        let lock = std::fs::File::create(root.with_extension("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let found = Self { root, python: venv.join("bin/python3") };
        if !found.works() {
            let _ = std::fs::remove_dir_all(&found.root);
            std::fs::create_dir_all(&found.root).unwrap();
            let unpack = "apt-get -q download cloud-init && dpkg -x cloud-init_*.deb .";
            let done = |command: &mut Command| {
                command.output().is_ok_and(|output| output.status.success())
            };
            let got = done(Command::new("sh").args(["-c", unpack]).current_dir(&found.root))
                && done(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
                && done(
                    Command::new(&found.python).args(["-m", "pip", "install", "-q"]).args(NEEDS),
                );
            if !got || !found.works() {
                skip_anywhere(
                    "no cloud-init: apt-get download, python3 -m venv and pip have to work",
                );
                return None;
            }
        }
        Some(found)
    }

    /// The directory of its modules.
    pub fn modules(&self) -> PathBuf {
        self.root.join("usr/lib/python3/dist-packages")
    }

    /// The program that finds the data source at the beginning of a boot.
    pub fn ds_identify(&self) -> PathBuf {
        self.root.join("usr/lib/cloud-init/ds-identify")
    }

    /// Runs a script of Python's, whose first argument is [`CloudInit::modules`]; what it prints.
    #[track_caller]
    pub fn python(&self, script: &str, argument: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metadata").join(script);
        let mut command = Command::new(&self.python);
        let command = command.arg(script).arg(self.modules()).arg(argument);
        let output = command.env("no_proxy", "*").output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{err}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn works(&self) -> bool {
        let import =
            "import sys; sys.path.insert(0, sys.argv[1]); import cloudinit.sources.DataSourceEc2";
        let mut command = Command::new(&self.python);
        let output = command.args(["-c", import]).arg(self.modules()).output();
        self.ds_identify().exists() && output.is_ok_and(|output| output.status.success())
    }
}
