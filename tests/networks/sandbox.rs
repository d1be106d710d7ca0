//! In a sandbox as containers are: what is missing is said in one line, and instances without a
//! network run.

use super::common::{Store, has_kvm, skip};
use std::process::{Command, Output};

/// `spore ARGS` in a sandbox of bwrap(1) with /dev/kvm and the store, and more of its options.
fn boxed(store: &Store, options: &[&str], args: &[&str]) -> Output {
    let home = store.home().to_str().unwrap();
    let mut command = Command::new("bwrap");
    command.args(["--ro-bind", "/", "/", "--dev", "/dev", "--dev-bind", "/dev/kvm", "/dev/kvm"]);
    command.args(["--proc", "/proc", "--bind", home, home, "--unshare-user", "--die-with-parent"]);
    command.args(options).arg(store.program()).args(args);
    command.env("SPORE_HOME", home).output().unwrap()
}

/// What `doctor -o json` says of this.
fn check(doctor: &Output, what: &str) -> serde_json::Value {
    let checks: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let mut checks = checks["Checks"].as_array().unwrap().iter();
    checks.find(|check| check["Check"] == what).unwrap().clone()
}

/// Whether there is bwrap, and it may make what it makes.
fn has_bwrap(store: &Store) -> bool {
    let made =
        Command::new("bwrap").args(["--ro-bind", "/", "/", "--unshare-user", "true"]).output();
    let works = made.is_ok_and(|output| output.status.success())
        && boxed(store, &["--disable-userns"], &["--version"]).status.success();
    if !works {
        skip::skip_anywhere("bwrap can't make a sandbox here (package bubblewrap)");
    }
    works
}

#[test]
fn a_sandbox_is_told_what_it_lacks_and_runs_without_a_network() {
    let store = Store::new();
    if !has_kvm() || !has_bwrap(&store) {
        return;
    }
    let run = ["run", "demo", "-q", "-m", "64M"];
    let network = [&run[..], &["--network", "default"]].concat();
    let told = |options: &[&str]| {
        let output = boxed(&store, options, &network);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && err.trim_end().lines().count() == 1, "{err}");
        err
    };
    let err = told(&["--disable-userns"]);
    assert!(err.contains("user namespace") && err.contains("max_user_namespaces"), "{err}");
    assert!(err.contains("as many as there may be") && !err.contains("No space"), "{err}");
    assert!(err.contains("--network none") && !err.contains("SPORE_HOME"), "{err}");
    // All that it lacks at once.
    assert!(err.contains("--device /dev/net/tun"), "{err}");
    let err = told(&[]);
    assert!(err.contains("/dev/net/tun is missing"), "{err}");
    assert!(err.contains("--device /dev/net/tun") && err.contains("--network none"), "{err}");
    // A user namespace that is made, and of which nobody becomes root, as where AppArmor restricts
    // them: /proc takes no map.
    let unmapped = ["--ro-bind", "/proc", "/proc"];
    let err = told(&unmapped);
    assert!(err.contains("cannot make a user namespace"), "{err}");
    let doctor = boxed(&store, &unmapped, &["doctor", "-o", "json"]);
    let users = check(&doctor, "user namespaces");
    assert_eq!(users["Verdict"], "warn", "{users}");
    let settings =
        ["--dev-bind", "/dev/net/tun", "/dev/net/tun", "--ro-bind", "/proc/sys", "/proc/sys"];
    let err = told(&settings);
    assert!(err.contains("/proc/sys has to be writable") && err.contains("systempaths"), "{err}");
    // What doctor says is what a launch comes to.
    let doctor = boxed(&store, &["--disable-userns"], &["doctor", "-o", "json"]);
    let check = check(&doctor, "networks");
    let detail = check["Detail"].as_str().unwrap();
    assert_eq!(check["Verdict"], "warn", "{detail}");
    assert!(detail.contains("max_user_namespaces"), "{detail}");
    let output = boxed(
        &store,
        &["--disable-userns"],
        &[&run[..], &["--network", "none", "--wait"]].concat(),
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The last one of an option counts.
    let output = boxed(&store, &["--dev", "/dev"], &run);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && err.contains("--device /dev/kvm"), "{err}");
}
