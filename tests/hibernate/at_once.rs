//! Who asks for something else while an instance is hibernated, or goes on.

use crate::common::{Store, has_kvm};
use crate::{counts_on, endure, endure_with, find};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Output, Stdio};

/// Begin `spore ARGS`.
fn begin(store: &Store, args: &[&str]) -> Child {
    let mut command = store.command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Commands that are run at once; what each said.
fn at_once(store: &Store, commands: &[&[&str]]) -> Vec<Output> {
    let begun: Vec<Child> = commands.iter().map(|args| begin(store, args)).collect();
    let ended: Vec<Output> = begun.into_iter().map(|c| c.wait_with_output().unwrap()).collect();
    for output in &ended {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}: {said}", output.status);
        assert!(said.lines().count() <= 1, "{said}");
    }
    ended
}

/// What the VMM answers, if it does.
fn ask(socket: &std::path::Path, request: &str) -> Option<String> {
    // The path may be too long for an address.
    let dir = File::open(socket.parent()?).ok()?;
    let path = format!("/proc/self/fd/{}/control.sock", dir.as_raw_fd());
    let mut stream = UnixStream::connect(path).ok()?;
    writeln!(stream, "{{\"request\":\"{request}\",\"version\":2}}").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    (!line.is_empty()).then_some(line)
}

#[test]
fn a_vmm_that_is_being_hibernated_says_so() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = endure_with(&store, &["-m", "256M"]);
    let (mut refused, mut told) = (false, false);
    for _ in 0..20 {
        let socket = find(&store, |name| name == "control.sock").remove(0);
        let mut hibernate = begin(&store, &["stop", "--hibernate", &id]);
        while hibernate.try_wait().unwrap().is_none() {
            let answer = ask(&socket, "layers").unwrap_or_default();
            refused |= answer.contains("it is being hibernated");
            let answer = ask(&socket, "status").unwrap_or_default();
            told |= answer.contains("\"hibernating\":true");
        }
        let output = hibernate.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        store.ok(&["start", &id]);
        if refused && told {
            break;
        }
    }
    assert!(refused && told, "nobody was told: {refused}, {told}");
    let log = store.logs(&id);
    assert!(!log.contains("FAILED"), "{log}");
}

#[test]
fn commands_at_once_come_one_after_the_other() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = endure(&store);
    let mut count = counts_on(&store, &id, 0);
    let (hibernate, stop) = (["stop", "--hibernate", &id], ["stop", "--force", &id]);
    for _ in 0..3 {
        let both = at_once(&store, &[&hibernate, &hibernate]);
        assert!(both.iter().any(|output| output.status.success()));
        assert!(store.describe(&id)["Spore"]["Hibernated"].is_object());
        // Whoever comes second finds it running.
        let both = at_once(&store, &[&["start", &id], &["start", &id]]);
        assert!(both.iter().all(|output| output.status.success()));
        count = counts_on(&store, &id, count);
        // One of them hibernates it, and the other lets it go on; or it comes too early.
        at_once(&store, &[&hibernate, &["start", &id]]);
        store.ok(&["start", &id]);
        count = counts_on(&store, &id, count);
    }
    assert_eq!(store.logs(&id).matches("endure: begins").count(), 1, "it booted but once");
    at_once(&store, &[&hibernate, &stop]);
    let (state, reason) = store.state(&id);
    assert_eq!(state, "stopped", "{reason}");
    let kept = !find(&store, |name| name == "memory").is_empty();
    assert_eq!(store.describe(&id)["Spore"]["Hibernated"].is_object(), kept, "{reason}");
    store.ok(&["start", &id]);
    counts_on(&store, &id, 0);
    let both = at_once(&store, &[&hibernate, &["terminate", &id]]);
    assert!(both[1].status.success());
    assert_eq!(store.state(&id).0, "terminated");
    let left = find(&store, |name| name == "memory" || name.starts_with("overlay-"));
    assert!(left.is_empty(), "{left:?}");
}
