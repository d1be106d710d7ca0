//! Being in a guest: what a guest without a driver for the socket device, or without ssh, comes to.
//! Guests that have both are in tests/linux/reach.rs.

mod common;

use common::{Store, has_kvm};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Output;

/// A guest that runs until it is ended.
const STAYS: [&str; 7] =
    ["run", "demo", "-q", "-m", "64M", "--append", "demo.mode=poweroff-on-button"];

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_guest_that_does_not_answer_is_given_up_and_told() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.ok(&STAYS).trim().to_owned();
    let output = store.spore(&["exec", "--timeout", "1", &id, "--", "true"]);
    assert_eq!(output.status.code(), Some(124), "{}", told(&output));
    assert!(told(&output).contains("does not answer"), "{}", told(&output));
    let output = store.spore(&["ssh", "--timeout", "1", &id]);
    assert_ne!(output.status.code(), Some(0));
    for stage in ["boot", "ssh", "systemd", "cloud-init", "port:80"] {
        let output = store.spore(&["wait", "--for", stage, "--timeout", "1", &id]);
        assert_eq!(output.status.code(), Some(124), "{stage}: {}", told(&output));
        assert!(told(&output).contains("nothing has been heard of its guest"), "{}", told(&output));
    }
    // More than wait to be let in at once are turned away, and nothing is worse for it.
    let dir = std::fs::File::open(store.home().join("instances").join(&id)).unwrap();
    let path = format!("/proc/self/fd/{}/vsock.sock", dir.as_raw_fd());
    let mut waiting: Vec<UnixStream> =
        (0..32).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for stream in &mut waiting {
        stream.write_all(b"CONNECT 22\n").unwrap();
    }
    let output = store.spore(&["exec", "--timeout", "1", &id, "--", "true"]);
    assert_eq!(output.status.code(), Some(124), "{}", told(&output));
    store.ok(&["terminate", &id]);
    // All of them see the end of their guest.
    for stream in &mut waiting {
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
}

#[test]
fn what_does_not_run_is_not_reached() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.ok(&[&STAYS[..], &["--root-device-type", "ebs"]].concat()).trim().to_owned();
    store.ok(&["stop", "--force", &id]);
    for args in [
        &["ssh", &id][..],
        &["exec", &id, "--", "true"],
        &["cp", "/dev/null", &format!("{id}:/tmp")],
        &["ssh-config", &id],
        &["__dial", &id, "22"],
    ] {
        let output = store.spore(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", told(&output));
        assert!(told(&output).contains("'spore start"), "{args:?}: {}", told(&output));
    }
    for (args, why) in [
        (&["cp", "/a", "/b"][..], "none of these paths"),
        (&["cp", "a:/x", "b:/y"], "one instance"),
        (&["exec", "-i", &id, &id, "--", "true"], "for one instance"),
        (&["exec", "-t", &id, "--", "true"], "no terminal"),
        (&["run", "--rm", "demo", "-n", "2", "--", "true"], "leave -n out"),
        (&["run", "demo", "--", "true"], "--rm"),
    ] {
        let output = store.spore(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", told(&output));
        assert!(told(&output).contains(why), "{args:?}: {}", told(&output));
    }
}

/// An instance for a command goes with it, also where nobody could get in.
#[test]
fn an_instance_for_a_command_that_can_not_run_goes() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let job = ["run", "--rm", "demo", "-m", "64M"];
    let stays = ["--append", "demo.mode=poweroff-on-button"];
    for (more, code) in [
        (&[&stays[..], &["--timeout", "1", "--kill-after", "1"]].concat()[..], 124),
        // The guest powers off by itself; it panics.
        (&[], 125),
        (&["--append", "demo.mode=panic"], 1),
    ] {
        let output = store.spore(&[&job[..], more, &["--", "true"]].concat());
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", told(&output));
        assert_eq!(store.ok(&["volume", "ls", "-q"]), "");
        let alive = "instance-state-name=pending,running,stopping,stopped,shutting-down";
        assert_eq!(store.ok(&["ls", "-q", "--filter", alive]), "");
    }
}
