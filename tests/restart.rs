//! `run --restart` and `autostart`: what is started again, and what is not.

mod common;

use common::images::refused;
use common::{Store, has_kvm};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::time::{Duration, Instant};

/// Longer than anything takes that is not stuck.
const PATIENCE: Duration = Duration::from_secs(120);

fn launch(store: &Store, policy: &str, mode: &str) -> String {
    let append = format!("demo.mode={mode}");
    store.launch(&["--restart", policy, "--append", &append]).remove(0)
}

fn restarts(store: &Store, id: &str) -> u64 {
    store.describe(id)["Spore"]["Restarts"].as_u64().unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Until nobody stays by the instance any more.
fn until_let_alone(store: &Store, id: &str) {
    let lock = store.home().join("instances").join(id).join("restart.lock");
    until("let alone", || {
        let file = File::open(&lock);
        file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
    });
}

fn kill(store: &Store, id: &str) {
    let pid = i32::try_from(store.pid(id).unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_killed_vmm_is_replaced_until_its_user_stops_it() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = launch(&store, "on-failure", "hang");
    let first = store.pid(&id).unwrap();
    kill(&store, &id);
    until("started again", || {
        restarts(&store, &id) == 1 && store.pid(&id).is_some_and(|pid| pid != first)
    });
    assert_eq!(store.state(&id).0, "running");
    store.ok(&["stop", "--force", &id]);
    until_let_alone(&store, &id);
    assert_eq!((store.state(&id).0.as_str(), restarts(&store, &id)), ("stopped", 1));
    // Whoever starts it has it looked after again.
    store.ok(&["start", &id]);
    kill(&store, &id);
    until("started again", || restarts(&store, &id) == 2);
    store.ok(&["terminate", &id]);
    until_let_alone(&store, &id);
}

#[test]
fn a_guest_that_panics_for_ever_is_started_until_the_policy_says_no_more() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = launch(&store, "on-failure", "panic");
    until("started twice", || restarts(&store, &id) >= 2);
    store.ok(&["modify", "--restart", "no", &id]);
    until_let_alone(&store, &id);
    let (state, reason) = store.state(&id);
    assert!(state == "stopped" && reason.contains("panic"), "{state} {reason}");
    // Without a policy there never is anybody.
    let other = launch(&store, "no", "panic");
    store.wait(&other, "stopped");
    assert!(!store.home().join("instances").join(&other).join("restart.lock").exists());
}

#[test]
fn a_guest_that_powers_off_is_started_again_by_always_only() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    // It does its work and powers off.
    let launch = |policy| store.launch(&["--restart", policy]).remove(0);
    let [failure, always] = ["on-failure", "always"].map(launch);
    until("started again", || restarts(&store, &always) >= 1);
    store.ok(&["terminate", &always]);
    until_let_alone(&store, &always);
    until_let_alone(&store, &failure);
    assert_eq!((store.state(&failure).0.as_str(), restarts(&store, &failure)), ("stopped", 0));
}

#[test]
fn what_is_gone_when_it_ends_is_not_started_again() {
    let store = Store::new();
    let run = ["run", "demo", "--restart", "always"];
    let more = [&run[..], &["--root-device-type", "instance-store"]].concat();
    refused(&store, &more, "InvalidParameterCombination");
    for more in [&["--rm"][..], &["--foreground"], &["--restart", "sometimes"]] {
        let output = store.spore(&[&run[..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}");
    }
}

#[test]
fn instances_start_with_the_host_that_are_to() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let config = store.home().join("config");
    let spore = |args: &[&str]| {
        let output = store.command(args).env("XDG_CONFIG_HOME", &config).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let unit = config.join("systemd/user/spore-autostart.service");
    let wanted = config.join("systemd/user/default.target.wants/spore-autostart.service");
    spore(&["autostart", "enable"]);
    spore(&["autostart", "enable"]);
    let text = std::fs::read_to_string(&unit).unwrap();
    assert!(
        text.contains(&format!("Environment=SPORE_HOME={}\n", store.home().display())),
        "{text}"
    );
    // The path means the same to whoever reads the unit.
    let program = env!("CARGO_BIN_EXE_spore");
    assert!(text.contains(&format!("ExecStart={program} autostart start\n")), "{text}");
    assert_eq!(std::fs::read_link(&wanted).unwrap(), unit);
    let [failure, always] = ["on-failure", "always"].map(|policy| launch(&store, policy, "hang"));
    for id in [&failure, &always] {
        store.ok(&["stop", "--force", id]);
        until_let_alone(&store, id);
    }
    assert!(spore(&["autostart", "status"]).contains(&always));
    assert_eq!(spore(&["autostart", "start"]).trim(), always);
    assert_eq!([&failure, &always].map(|id| store.state(id).0), ["stopped", "running"]);
    // It has somebody to stay by it, as after a start by hand.
    kill(&store, &always);
    until("started again", || restarts(&store, &always) == 1);
    spore(&["autostart", "disable"]);
    assert!(!unit.exists() && !wanted.exists());
    assert_eq!(store.state(&always).0, "running", "what runs goes on");
    store.ok(&["terminate", &always, &failure]);
}
