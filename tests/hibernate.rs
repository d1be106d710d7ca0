//! Instances that are hibernated and go on, by the `spore` command on this machine's /dev/kvm.

mod common;

use common::{Store, has_kvm};
use std::time::Duration;

/// Launch one whose guest never rests, on so many CPUs.
fn endure(store: &Store, cpus: &str) -> String {
    let args = ["--append", "demo.mode=endure", "--cpus", cpus];
    let id = store.launch(&args).remove(0);
    store.wait_for_text(&id, "endure: begins");
    id
}

/// The last count that the guest has printed.
fn rounds(log: &str) -> u64 {
    let lines = log.lines().filter_map(|line| line.strip_prefix("endure: "));
    let counts = lines.filter_map(|line| line.split(" rounds").next()?.parse().ok());
    counts.last().unwrap_or(0)
}

/// Wait until the guest has counted beyond `count`.
fn counts_on(store: &Store, id: &str, count: u64) -> u64 {
    for _ in 0..6000 {
        let log = store.logs(id);
        assert!(!log.contains("FAILED"), "{log}");
        if rounds(&log) > count {
            return rounds(&log);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no more than {count} rounds:\n{}\n{}", store.logs(id), store.vmm_logs(id));
}

#[test]
fn a_hibernated_guest_goes_on_where_it_was() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let cycles: u64 = std::env::var("SPORE_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for cpus in ["1", "3"] {
        let id = endure(&store, cpus);
        let mut count = counts_on(&store, &id, 0);
        for cycle in 0..cycles {
            // At any moment of the guest's.
            std::thread::sleep(Duration::from_millis(cycle * 7919 % 53));
            store.ok(&["stop", "--hibernate", &id]);
            let (state, reason) = store.state(&id);
            assert_eq!(state, "stopped");
            assert!(reason.contains("Client.UserInitiatedHibernate"), "{reason}");
            store.ok(&["start", &id]);
            count = counts_on(&store, &id, count);
        }
        store.ok(&["stop", &id]);
        let log = store.logs(&id);
        assert!(log.contains("endure: whole after"), "{log}\n{}", store.vmm_logs(&id));
        assert_eq!(log.matches("endure: begins").count(), 1, "it booted but once");
    }
}
