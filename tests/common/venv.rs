//! Python with clients of AWS's, in a virtual environment under target/.

use super::skip::skip;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python with botocore, boto3 and AWS's command line (`aws` beside it). `None`, and a word why,
/// where they can't be had.
pub fn python() -> Option<PathBuf> {
    with("aws-venv", &["botocore", "boto3", "awscli"])
}

/// The Python of an environment of that name, with these packages.
pub fn with(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (python, whole) = (venv.join("bin/python3"), venv.join("whole"));
    let lock = std::fs::File::create(venv.with_extension("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let works = || Command::new(&python).args(["-m", "pip", "--version"]).output();
    if !whole.exists() || !works().is_ok_and(|output| output.status.success()) {
        let _ = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).output();
        let mut install = Command::new(&python);
        let installed = install.args(["-m", "pip", "install", "-q"]).args(packages).output();
        if !installed.is_ok_and(|output| output.status.success()) {
            let what = packages.join(" and ");
            skip(format!("{what} are missing: python3 -m venv and pip have to work"));
            return None;
        }
        std::fs::write(&whole, "").unwrap();
    }
    Some(python)
}
