//! `spore stats` and `spore top`: what running instances use.

mod common;

use common::{Store, has_kvm};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// An instance whose guest does this.
fn running(store: &Store, name: &str, mode: &str) -> String {
    let mode = format!("--append=demo.mode={mode}");
    let run = ["run", "demo", "-q", "-m", "64M", "--root-device-type=ebs", "--name", name, &mode];
    store.ok(&run).trim().to_owned()
}

#[test]
fn a_busy_guest_uses_more_than_one_that_waits() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (busy, idle) =
        (running(&store, "busy", "hang"), running(&store, "idle", "poweroff-on-button"));
    let stopped = running(&store, "stopped", "poweroff-on-button");
    store.ok(&["stop", "--force", &stopped]);
    let told: Value = serde_json::from_str(&store.ok(&["stats", "-o", "json"])).unwrap();
    let of = |id: &str| -> Value {
        let all = told["InstanceStatistics"].as_array().unwrap();
        all.iter().find(|one| one["InstanceId"] == id).unwrap().clone()
    };
    let percent = |id: &str| of(id)["CPUUtilization"].as_f64().unwrap();
    assert!(percent(&busy) > 5.0 && percent(&idle) < percent(&busy), "{told}");
    for id in [&busy, &idle] {
        let memory = of(id)["MemoryBytes"].as_u64().unwrap();
        assert!((100 << 10..64 << 20).contains(&memory), "{told}");
        assert_eq!(of(id)["GuestMemoryBytes"], 64 << 20);
    }
    assert!(of(&idle)["DiskReadBytes"].as_u64().is_some() && of(&idle)["NetworkIn"] == 0);
    // Those that run, and of those the named.
    assert_eq!(store.ok(&["stats", "-q"]).lines().count(), 2);
    assert_eq!(store.ok(&["stats", "-q", "idle", "stopped"]).trim(), idle);
    store.ok(&["terminate", &busy, &idle, &stopped]);
}

#[test]
fn top_has_the_busiest_first_until_it_is_interrupted() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let idle = running(&store, "idle", "poweroff-on-button");
    let busy = running(&store, "busy", "hang");
    let mut command = Command::new(env!("CARGO_BIN_EXE_spore"));
    command.args(["top", "-q", "--interval", "300ms"]).env("SPORE_HOME", store.home());
    let mut top = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines().map(Result::unwrap);
    for _ in 0..2 {
        let told = [lines.next().unwrap(), lines.next().unwrap()];
        assert_eq!(told, [busy.clone(), idle.clone()]);
    }
    let interrupt = ["-INT".to_owned(), top.id().to_string()];
    assert!(Command::new("kill").args(interrupt).status().unwrap().success());
    assert_eq!(top.wait().unwrap().code(), Some(0));
    store.ok(&["terminate", &busy, &idle]);
}
