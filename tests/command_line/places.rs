//! Where a store is, is not, or can't be written.

use super::common::skip::is_root;
use super::common::{Store, has_kvm};
use super::err;
use std::process::Command;

#[test]
fn who_only_looks_makes_no_store() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let spore = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spore"));
        command.args(args).env_remove("SPORE_HOME").env_remove("XDG_DATA_HOME");
        command.env("HOME", home.path()).output().unwrap()
    };
    for args in [
        &["ls"][..],
        &["ls", "-o", "json"],
        &["volume", "ls"],
        &["snapshot", "ls"],
        &["kernel", "ls"],
        &["events"],
        &["usage"],
        &["df"],
        &["wait", "--all"],
    ] {
        let output = spore(args);
        assert!(output.status.success(), "{args:?}: {}", err(&output));
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "{args:?}");
    }
    let output = spore(&["show", "web"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("InvalidInstanceID.NotFound"), "{}", err(&output));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_store_that_cannot_be_written_is_listed() {
    if !has_kvm() || !is_root() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("hang");
    let home = store.home().display().to_string();
    let spore = env!("CARGO_BIN_EXE_spore");
    let shell = format!(
        "mount --bind {home} {home} && mount -o remount,ro,bind {home} && {spore} ls -q && {spore} show -q {id} && {spore} image ls -q && {spore} volume ls"
    );
    let mut command = Command::new("unshare");
    let output = command.args(["-m", "sh", "-c", &shell]).env("SPORE_HOME", &home).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let listed: Vec<&str> = told.lines().collect();
    assert_eq!(listed[..2], [&id, &id], "{}", err(&output));
    assert!(listed[2..].iter().any(|line| line.starts_with("ami-")), "{told}{}", err(&output));
    assert!(output.status.success() && listed.len() > 4, "{told}{}", err(&output));
}

#[test]
fn another_users_private_store_is_named_as_theirs() {
    if !is_root() {
        return;
    }
    let store = Store::new();
    store.ok(&["volume", "ls"]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "64077", "--regid", "64077", "--clear-groups"]);
    command.arg(env!("CARGO_BIN_EXE_spore")).arg("ls").env("SPORE_HOME", store.home());
    let output = command.output().unwrap();
    let told = err(&output);
    if told.contains("setpriv: failed to execute") {
        return super::common::skip::skip("another user can't reach this program");
    }
    assert!(!output.status.success() && told.lines().count() == 1, "{told}");
    assert!(told.contains("belongs to") && !told.contains("make"), "{told}");
}
