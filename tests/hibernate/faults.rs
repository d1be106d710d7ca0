//! Commands and VMMs that are killed at each of their steps, as an instance is hibernated and as it
//! goes on.

use crate::common::{Store, has_kvm};
use crate::{MOST_POINTS, begun, counts_on, counts_on_or_anew, endure, find};
use std::fs;

/// Processes that are a VMM of this instance.
fn vmms(id: &str) -> usize {
    let is_one = |process: &fs::DirEntry| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut words = line.split('\0').skip(1);
        (words.next(), words.next()) == (Some("__vmm"), Some(id))
    };
    fs::read_dir("/proc").unwrap().flatten().filter(is_one).count()
}

/// The memory file is there if, and only if, the record knows of it; and no second VMM ever is.
fn is_sound(store: &Store, id: &str, what: &str) -> (String, bool) {
    let (state, reason) = store.state(id);
    let kept = !find(store, |name| name == "memory").is_empty();
    let known = store.describe(id)["Spore"]["Hibernated"].is_object();
    assert_eq!(known, kept, "{what}: {state}: {reason}");
    assert_eq!(vmms(id), usize::from(state == "running"), "{what}: {state}: {reason}");
    (state, kept)
}

#[test]
fn a_command_killed_anywhere_leaves_it_running_hibernated_or_cold() {
    if !has_kvm() || !cfg!(debug_assertions) {
        return;
    }
    let store = Store::new();
    let id = endure(&store);
    let mut count = counts_on(&store, &id, 0);
    for words in [&["stop", "--hibernate"][..], &["start"]] {
        for point in 1..MOST_POINTS {
            let args = [words, &[&*id]].concat();
            let output =
                store.command(&args).env("SPORE_FAULT", point.to_string()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // What it has begun comes to its end without it.
            store.spore(&["wait", "--for", "running", "--timeout", "1", &id]);
            let (state, reason) = store.state(&id);
            assert!(["running", "stopped"].contains(&&*state), "{state}: {reason} after {said}");
            assert!(vmms(&id) <= 1, "two of it after {said}");
            if output.status.success() {
                break;
            }
            assert!(point + 1 < MOST_POINTS, "there is no end of points");
            // Back to where the next attempt begins.
            let hibernated = reason.contains("UserInitiatedHibernate");
            if state == "stopped" {
                store.ok(&["start", &id]);
            }
            count = counts_on(&store, &id, if hibernated { count } else { 0 });
            if words[0] == "start" {
                store.ok(&["stop", "--hibernate", &id]);
            }
        }
    }
    assert_eq!(store.state(&id).0, "running");
    let log = store.logs(&id);
    assert_eq!(log.matches("endure: begins").count(), 1, "no memory was lost: {log}");
}

/// What became of an instance whose VMM was ended at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is as before: the memory is kept.
    Kept,
    /// It had gone on, or was not written yet.
    Cold,
}

/// Up to the line of its report that says so a VMM has not gone on, and its memory is kept; from
/// then on it is of the past, until all of the next is written.
#[test]
fn a_vmm_killed_at_any_step_leaves_it_hibernated_or_cold() {
    if !has_kvm() || !cfg!(debug_assertions) {
        return;
    }
    let store = Store::new();
    let id = endure(&store);
    let mut count = counts_on(&store, &id, 0);
    store.ok(&["stop", "--hibernate", &id]);
    let mut fates = Vec::new();
    for point in 1..MOST_POINTS {
        let before = begun(&store.logs(&id));
        let mut start = store.command(&["start", &id]);
        let started = start.env("SPORE_VMM_FAULT", point.to_string()).output().unwrap();
        let ended = match started.status.success() {
            false => started,
            // It may come a moment later that its VMM ends.
            true => store.spore(&["stop", "--hibernate", &id]),
        };
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.lines().count() <= 1, "{said}");
        let (state, kept) = is_sound(&store, &id, &format!("step {point}: {said}"));
        assert_eq!(state, "stopped", "step {point}: {said}");
        let was_last = ended.status.success();
        fates.push(if kept { Fate::Kept } else { Fate::Cold });
        store.ok(&["start", &id]);
        count = counts_on_or_anew(&store, &id, count, before, kept);
        store.ok(&["stop", "--hibernate", &id]);
        if was_last {
            break;
        }
        assert!(point + 1 < MOST_POINTS, "there is no end of steps");
    }
    // Kept, cold, kept: each of them at several steps, and nothing between.
    fates.dedup_by(|a, b| a == b);
    assert_eq!(fates, [Fate::Kept, Fate::Cold, Fate::Kept]);
}
