//! Many instances on a network whose processes are killed again and again: in the end nothing is
//! left of it.

use super::common::Store;
use super::killed::{Network, kill};
use super::way_out::pasta;
use super::{gone, has_networks, until};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many instances; SPORE_TEST_INSTANCES has another number, as 100.
fn instances() -> usize {
    let given = std::env::var("SPORE_TEST_INSTANCES").ok();
    given.map_or(12, |number| number.parse().unwrap())
}

/// The network namespace that a process is in.
fn namespace(pid: &u32) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    Some(link.display().to_string())
}

/// Those that processes are in.
fn namespaces() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| namespace(&pid)).collect()
}

/// Sockets below a directory.
fn sockets(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => sockets(&entry.path()),
        Ok(kind) if kind.is_socket() => vec![entry.path()],
        _ => Vec::new(),
    });
    below.collect()
}

/// Kills at moments that have nothing to do with what goes on, until told.
fn killer(lab: &Network, over: &AtomicBool) -> usize {
    let (mut random, mut kills) = (0x2545_f491_u32, 0);
    while !over.load(Ordering::Relaxed) {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        std::thread::sleep(Duration::from_millis(u64::from(random >> 22)));
        let all = lab.processes();
        let victims = match random >> 20 & 3 {
            0 => pasta(lab).into_iter().collect(),
            // One of the two, or both.
            1 => all.into_iter().take(1).collect(),
            2 => all.into_iter().rev().take(1).collect(),
            _ => all,
        };
        kills += victims.len();
        kill(&victims);
    }
    kills
}

#[test]
fn nothing_is_left_of_a_network_that_is_killed_again_and_again() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    store.ok(&["network", "create", "lab"]);
    let lab = Network::new(&store, "lab");
    let over = AtomicBool::new(false);
    let run = ["run", "demo", "-q", "-m", "32M", "--network", "lab", "-p", "0:22"];
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| killer(&lab, &over));
        let (mut up, mut tries) = (0, 0);
        while up < instances() {
            // A launch that meets a kill may fail; what it says is one line.
            let n = format!("1:{}", (instances() - up).min(10));
            let output =
                store.spore(&[&run[..], &["-n", &n, "--append", "demo.mode=echo"]].concat());
            up = store.ok(&["ls", "-q"]).lines().count();
            tries += 1;
            assert!(tries < 50 + instances(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        for _ in 0..10 {
            store.spore(&["ls"]);
        }
        over.store(true, Ordering::Relaxed);
        assert!(killer.join().unwrap() > 0);
    });
    // Nobody kills any more: the next look has it whole.
    until(|| {
        store.ok(&["ls"]);
        lab.interfaces().len() >= instances()
    });
    // Others' tests beside may have some, too.
    let host = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let own: BTreeSet<String> = lab.processes().iter().filter_map(namespace).collect();
    assert!(own.iter().any(|namespace| *namespace != host), "{own:?}");
    let ids = store.ok(&["ls", "-q"]);
    let pids: Vec<u64> = ids.lines().filter_map(|id| store.pid(id)).collect();
    assert_eq!(pids.len(), ids.lines().count());
    store.ok(&[&["terminate"][..], &ids.lines().collect::<Vec<_>>()].concat());
    store.ok(&["ls"]);
    gone(lab.id());
    store.ok(&["ls"]);
    assert!(pids.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()));
    assert_eq!(pasta(&lab), None);
    let left = namespaces();
    assert!(own.iter().all(|of| *of == host || !left.contains(of)), "{own:?} {left:?}");
    // A killed process keeps its lock for a moment after it can be seen no more; whoever looks
    // then takes its socket away.
    until(|| {
        store.ok(&["ls"]);
        sockets(store.home()).is_empty()
    });
    store.ok(&["network", "delete", "lab"]);
    assert!(!store.home().join("networks").join(lab.id()).exists());
}
