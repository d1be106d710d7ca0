//! Python with clients of AWS's, in a virtual environment under target/.

use super::skip::skip;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment's Python with botocore, boto3 and AWS's command line (`aws` beside it). `None`,
/// and a word why, where they can't be had.
pub fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("aws-venv");
    let python = venv.join("bin/python3");
    let works = || Command::new(&python).args(["-c", "import boto3, awscli"]).output();
    let lock = std::fs::File::create(venv.with_extension("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if !works().is_ok_and(|output| output.status.success()) {
        let _ = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).output();
        let install = ["-m", "pip", "install", "-q", "botocore", "boto3", "awscli"];
        let installed = Command::new(&python).args(install).output();
        if !installed.is_ok_and(|output| output.status.success()) {
            skip("boto3 and awscli are missing: python3 -m venv and pip have to work");
            return None;
        }
    }
    Some(python)
}
