//! Shared directories as the command line has them; tests/linux/shares.rs has guests that use them.

mod common;

use common::Store;
use common::shares::servers;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sporevm::share::wire::{self, Answer, Request};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Refused before anything is made, in one line.
fn refused(store: &Store, more: &[&str], code: i32, why: &str) {
    let output = store.spore(&[&["run", "demo", "-q"], more].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{more:?}: {told}");
    assert!(told.contains(why), "{told}");
    assert_eq!(store.ok(&["ls", "-aq"]), "", "{more:?}");
}

#[test]
fn what_can_not_be_shared_is_told_before_anything_is_made() {
    let store = Store::new();
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    fs::create_dir(path("dir")).unwrap();
    fs::write(path("file"), "").unwrap();
    let (dir, file, none) = (path("dir"), path("file"), path("none"));
    refused(&store, &["-v", &format!("{none}:/src")], 1, "make it, or share another");
    refused(&store, &["-v", &format!("{file}:/src")], 1, "is no directory");
    refused(&store, &["-v", &format!("{dir}:/")], 2, "below its root");
    refused(&store, &["-v", &format!("{dir}:/a/../b")], 2, "without '..'");
    refused(&store, &["-v", &dir], 2, "HOST:GUEST");
    let twice = format!("{dir}:/src");
    refused(&store, &["-v", &twice, "-v", &twice], 1, "two directories are shared at /src");
    let nine: Vec<String> = (0..9).map(|n| format!("{dir}:/src{n}")).collect();
    let nine: Vec<&str> = nine.iter().flat_map(|share| ["-v", share]).collect();
    refused(&store, &nine, 1, "8 shared directories at most");
    // By the store a guest would have other instances' disks.
    let home = store.home().display().to_string();
    refused(&store, &["-v", &format!("{home}:/src")], 1, "could change the store");
    refused(&store, &["-v", "/:/src"], 1, "could change the store");
}

#[test]
fn a_share_is_in_the_record_and_ends_with_its_instance() {
    let store = Store::new();
    if !common::skip::has_kvm() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().display().to_string();
    let ids = store.launch(&["-n", "2", "-v", &format!("{dir}:/src:ro"), "-v", "/:/host:ro"]);
    for id in &ids {
        store.wait(id, "stopped");
        let shares = store.describe(id)["Spore"]["Shares"].clone();
        let fixed = serde_json::json!({"HostPath": dir, "GuestPath": "/src", "ReadOnly": true});
        assert_eq!((&shares[0], &shares[1]["HostPath"]), (&fixed, &"/".into()));
        assert!(store.ok(&["show", id]).contains(&format!("{dir}:/src:ro, share0")));
    }
    until("a server outlives its VMM", || servers(&ids[0]).is_empty());
}

/// The guest lives on, and the user sees what it lacks; a start brings it back, and not where the
/// directory has gone.
#[test]
fn an_instance_whose_share_has_no_server_is_degraded() {
    let store = Store::new();
    if !common::skip::has_kvm() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dirs = ["one", "two"].map(|name| place.path().join(name));
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let one = format!("{}:/src", dirs[0].display());
    let two = format!("{}:/other:ro", dirs[1].display());
    let mode = ["--append", "demo.mode=poweroff-on-button"];
    let id = store.launch(&[&["-v", &one, "-v", &two][..], &mode].concat()).remove(0);
    let ready = || store.ok(&["ls", &id]).contains("degraded");
    assert!(!ready() && !store.ok(&["show", &id]).contains("server is gone"));
    // The second's: they are started in their order.
    let last = servers(&id).into_iter().max().unwrap();
    assert!(Command::new("kill").args(["-9", &last.to_string()]).status().unwrap().success());
    until("it is not seen to be degraded", ready);
    let shown = store.ok(&["show", &id]);
    assert!(
        shown.contains(&format!("{two}, share1; its server is gone (it has ended)")),
        "{shown}"
    );
    assert!(!shown.contains("share0;"), "{shown}");
    assert_eq!(store.state(&id).0, "running");
    store.ok(&["stop", &id]);
    assert!(!ready());
    fs::remove_dir(&dirs[0]).unwrap();
    let refused = store.spore(&["start", &id]);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), why.lines().count()), (Some(1), 1), "{why}");
    assert!(
        why.contains(&format!("there is no directory {} to share", dirs[0].display())),
        "{why}"
    );
    assert_eq!(store.state(&id).0, "stopped");
    fs::create_dir(&dirs[0]).unwrap();
    store.ok(&["start", &id]);
    assert_eq!((ready(), servers(&id).len()), (false, 2));
}

/// Waits until something is so.
fn until(otherwise: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A user without privileges has a namespace in which what is the user's is root's, and the guest
/// sees that.
#[test]
fn what_is_an_unprivileged_users_is_the_guests_roots() {
    const USER: u32 = 65533;
    if !common::skip::is_root() {
        return;
    }
    let (store, place) = (Store::new(), tempfile::tempdir().unwrap());
    for (name, owner) in [("mine", USER), ("theirs", 0)] {
        fs::write(place.path().join(name), "").unwrap();
        chown(place.path().join(name), Some(owner), Some(owner)).unwrap();
    }
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Both go to the server under the numbers that they have.
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None).unwrap();
    rustix::io::fcntl_setfd(&ours, FdFlags::CLOEXEC).unwrap();
    let directory = open(place.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let words = [theirs.as_raw_fd(), directory.as_raw_fd()].map(|fd| format!("{fd}:"));
    let mut server = Command::new(store.program());
    let mut server = server.args(["__share", "1"]).args(words).uid(USER).gid(USER).spawn().unwrap();
    drop(theirs);
    let hello = Answer::parse(wire::receive(&ours, wire::MAX_PAYLOAD).unwrap().0).unwrap();
    assert_eq!(String::from_utf8(hello.payload).unwrap(), "");
    let owner = |name: &[u8]| {
        let request = Request { number: 1, node: 1, opcode: 1, room: 128, body: name };
        request.send(&ours).unwrap();
        let entry = Answer::parse(wire::receive(&ours, wire::MAX_PAYLOAD).unwrap().0).unwrap();
        let word = |at: usize| u32::from_le_bytes(entry.payload[at..at + 4].try_into().unwrap());
        // uid and gid in struct fuse_entry_out.
        (word(108), word(112))
    };
    assert_eq!((owner(b"mine\0"), owner(b"theirs\0")), ((0, 0), (65534, 65534)));
    drop(ours);
    assert!(server.wait().unwrap().success());
}
