//! Networks of the store: made, listed, given to instances, gone.

#[path = "../common/mod.rs"]
mod common;

mod floods;
mod guest;
mod killed;
mod many;
mod sandbox;
mod six;
mod way_out;

use common::networks::has_networks;
use common::{Store, has_kvm};
use serde_json::Value;
use std::process::Output;

/// Refused in one line that has this, with this exit code.
fn refused(output: &Output, code: i32, why: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(why) && err.trim_end().lines().count() == 1, "{err}");
}

fn network(store: &Store, name: &str) -> Value {
    let all: Value =
        serde_json::from_str(&store.ok(&["network", "show", name, "-o", "json"])).unwrap();
    all["Vpcs"][0].clone()
}

/// The processes that have the network's id among their arguments.
fn processes(id: &str) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let number: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let words = std::fs::read(format!("/proc/{number}/cmdline")).ok()?;
        words.split(|byte| *byte == 0).any(|word| word == id.as_bytes()).then_some(number)
    });
    numbers.collect()
}

/// Ports that are taken are told of before anything starts; what comes to others is heard.
#[test]
fn ports_of_the_host_are_taken_before_anything_starts() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    let others = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = others.local_addr().unwrap();
    let run = ["run", "demo", "-q", "-m", "128M", "--network", "default", "-p"];
    let port = format!("{}:22", taken.port());
    let why = format!("port {taken}/tcp is in use");
    let before = store.ok(&["ls", "-a", "-q"]);
    refused(&store.spore(&[&run[..], &[&port]].concat()), 1, &why);
    assert_eq!(store.ok(&["ls", "-a", "-q"]), before);
    refused(&store.spore(&[&run[..], &["8080:80", "-n", "2"]].concat()), 1, "is one instance's");
    let more = ["--network", "default", "-p", "0:22", "-p", "0:53/udp"];
    let id = store.launch(&[&more[..], &["--append", "demo.mode=echo"]].concat()).remove(0);
    let told = store.ok(&["port", &id]);
    assert!(told.contains("22/tcp") && told.contains("53/udp"), "{told}");
    let host = store.ok(&["port", &id, "-q"]);
    let host: Vec<&str> = host.lines().collect();
    drop(std::net::TcpStream::connect(host[0]).unwrap());
    // Its own, which it has again after a stop.
    store.ok(&["stop", "--force", &id]);
    store.ok(&["start", &id]);
    assert_eq!(store.ok(&["port", &id, "-q"]).lines().collect::<Vec<_>>(), host);
}

/// Fifty clones: each has the address that its record says, by DHCP, and its own metadata, by a
/// token; and each is told by all others who they are, whom it finds by name.
#[test]
fn fifty_clones_know_who_they_are_and_reach_each_other() {
    const CLONES: usize = 50;
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    let id = store.ok(&["network", "create", "lab", "--cidr", "10.9.0.0/24"]);
    let count = CLONES.to_string();
    let mode = format!("demo.mode=net demo.peers=web:{CLONES}");
    let run = ["run", "demo", "-q", "-m", "64M", "--name", "web", "--network", "lab"];
    let ids = store.ok(&[&run[..], &["-n", &count, "--append", &mode]].concat());
    let ids: Vec<&str> = ids.lines().collect();
    let mut addresses = std::collections::BTreeSet::new();
    for (own, id) in ids.iter().enumerate() {
        store.wait_for_text(id, "peers: all 49 have answered");
        let said = store.logs(id);
        let interface = store.describe(id)["NetworkInterfaces"][0].clone();
        let address = interface["PrivateIpAddress"].as_str().unwrap();
        let name = format!("ip-{}", address.replace('.', "-"));
        let network = format!("{address}/24 by DHCP, MTU 9001, name {name}");
        assert_eq!(common::field(&said, "network: "), network);
        let metadata = format!("instance-id {id}, local-ipv4 {address}");
        assert_eq!(common::field(&said, "metadata: "), metadata);
        assert!(addresses.insert(address.to_owned()), "{address} is another's");
        for (n, peer) in ids.iter().enumerate().filter(|(n, _)| *n != own) {
            let told = common::field(&said, &format!("peer: web-{n}.internal is "));
            assert_eq!(told, *peer);
        }
    }
    assert_eq!(addresses.len(), CLONES);
    store.ok(&["terminate", "web"]);
    gone(id.trim());
}

/// Two users without privileges have networks of the same addresses, and know nothing of each
/// other.
#[test]
fn users_without_privileges_have_networks() {
    if !has_kvm() || !common::skip::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    common::guard::store(dir.path());
    let mode = |path: &std::path::Path, mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    };
    let path = |name: &str| dir.path().join(name);
    std::fs::copy(env!("CARGO_BIN_EXE_spore"), path("spore")).unwrap();
    [dir.path(), &path("spore")].iter().for_each(|path| mode(path, 0o755));
    for (name, minor) in [("kvm", "232"), ("tun", "200")] {
        let mut mknod = std::process::Command::new("mknod");
        mknod.args(["-m", "666"]).arg(path(name)).args(["c", "10", minor]);
        assert!(mknod.status().unwrap().success());
    }
    // The devices may be the superuser's alone: where these run, they are everybody's.
    let script = "mount --bind \"$0/kvm\" /dev/kvm && mount --bind \"$0/tun\" /dev/net/tun && exec setpriv \"$@\"";
    let users = [64_511u32, 64_512];
    let spore = |uid: u32, args: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(dir.path());
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
        command.args(["--clear-groups", "--"]).arg(path("spore")).args(args);
        command.env("SPORE_HOME", path(&uid.to_string())).env("HOME", "/").current_dir("/");
        command.output().unwrap()
    };
    let mut networks = Vec::new();
    for uid in users {
        let home = path(&uid.to_string());
        std::fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(uid), Some(uid)).unwrap();
        let run = ["run", "demo", "-q", "-m", "128M", "--append", "demo.mode=echo"];
        let output = spore(uid, &[&run[..], &["--network", "default", "-n", "2"]].concat());
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        if err.contains("namespace") {
            return common::skip::skip_anywhere(err.trim());
        }
        assert!(output.status.success(), "{err}");
        let shown = spore(uid, &["network", "show", "default", "-o", "json"]).stdout;
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        assert_eq!(shown["Vpcs"][0]["CidrBlock"], "172.31.0.0/16");
        networks.push(shown["Vpcs"][0]["VpcId"].as_str().unwrap().to_owned());
    }
    for (uid, id) in users.into_iter().zip(&networks) {
        use std::os::unix::fs::MetadataExt;
        let owner = |pid: &u32| std::fs::metadata(format!("/proc/{pid}/cmdline")).unwrap().uid();
        let owners: Vec<u32> = processes(id).iter().map(owner).collect();
        // The confined one can't be looked at, which gives it to root.
        assert!(owners.contains(&uid) && owners.iter().all(|o| [uid, 0].contains(o)), "{owners:?}");
        let ids = String::from_utf8(spore(uid, &["ls", "-q"]).stdout).unwrap();
        let ids: Vec<&str> = ids.lines().collect();
        assert_eq!(ids.len(), 2);
        assert!(spore(uid, &[&["terminate"], &ids[..]].concat()).status.success());
        gone(id);
    }
}

/// Waits until something is so.
fn until(mut is: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is() {
        assert!(std::time::Instant::now() < deadline, "it does not come to be");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Waits until nothing is left of a network's process.
fn gone(id: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !processes(id).is_empty() {
        assert!(std::time::Instant::now() < deadline, "{:?}", processes(id));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Each port that the security groups open to all has one of the host's.
#[test]
fn what_is_open_to_all_is_published() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    let run = ["run", "demo", "-q", "-m", "64M", "--network", "default", "-P"];
    refused(&store.spore(&run), 1, "the security groups open no port to all");
    let allow = ["network", "group", "allow", "default", "default", "--cidr", "0.0.0.0/0"];
    store.ok(&[&allow[..], &["--protocol", "tcp", "--port", "80-81"]].concat());
    store.ok(&[&allow[..], &["--protocol", "udp", "--port", "53"]].concat());
    let id = store.ok(&[&run[..], &["-p", "0:22", "--append", "demo.mode=echo"]].concat());
    let told = store.ok(&["port", id.trim()]);
    for port in ["80/tcp", "81/tcp", "53/udp", "22/tcp"] {
        assert!(told.contains(port), "{told}");
    }
    store.ok(&[&allow[..], &["--protocol", "tcp", "--port", "1000-2000"]].concat());
    refused(&store.spore(&run), 1, "more than 64 ports");
}

/// An instance on two networks: whichever of them it asks by, it is told of both.
#[test]
fn an_instance_on_two_networks_is_told_of_both() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    for (name, cidr) in [("one", "10.4.0.0/16"), ("two", "10.5.0.0/20")] {
        store.ok(&["network", "create", name, "--cidr", cidr]);
    }
    let Some(guest) = guest::Guest::launch(&store, "one", &["--network", "two"]) else { return };
    let interfaces = store.describe(&guest.id)["NetworkInterfaces"].clone();
    for (n, cidr) in [(0, "10.4.0.0/16"), (1, "10.5.0.0/20")] {
        let mac = interfaces[n]["MacAddress"].as_str().unwrap();
        let of =
            |leaf: &str| guest.metadata(&format!("meta-data/network/interfaces/macs/{mac}/{leaf}"));
        assert_eq!(of("subnet-ipv4-cidr-block"), cidr);
        assert_eq!(of("device-number"), n.to_string());
        assert_eq!(of("ipv6s"), interfaces[n]["Ipv6Addresses"][0]["Ipv6Address"]);
    }
}

#[test]
fn networks_are_made_listed_and_deleted() {
    let store = Store::new();
    let id = store.ok(&["network", "create", "lab", "--cidr", "10.7.0.0/16"]);
    assert!(id.starts_with("vpc-"), "{id}");
    let lab = network(&store, "lab");
    assert_eq!((&lab["CidrBlock"], &lab["IsDefault"]), (&"10.7.0.0/16".into(), &false.into()));
    assert_eq!(lab["Spore"]["SecurityGroups"][0]["GroupName"], "default");
    assert_eq!(network(&store, "default")["CidrBlock"], "172.31.0.0/16");
    let create = |args: &[&str]| store.spore(&[&["network", "create"], args].concat());
    refused(&create(&["lab"]), 1, "the name 'lab' is taken");
    refused(
        &create(&["other", "--cidr", "10.7.128.0/20"]),
        1,
        "overlaps 10.7.0.0/16 of network 'lab'",
    );
    for (args, why) in [
        (&["Lab"][..], "is no network"),
        (&["none"], "is no network"),
        (&["x", "--cidr", "10.7.0.1/16"], "10.7.0.0/16"),
    ] {
        let output = create(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(why), "{err}");
    }
    assert_eq!(store.ok(&["network", "ls"]).lines().count(), 3);
    store.ok(&["network", "delete", "lab"]);
    refused(&store.spore(&["network", "show", "lab"]), 1, "there is no network 'lab'");
    refused(&store.spore(&["run", "demo", "--network", "lab"]), 1, "there is no network 'lab'");
    assert_eq!(store.ok(&["ls", "-q"]), "");
}

#[test]
fn an_instance_keeps_its_address_and_a_network_ends_with_its_last() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    let id = store.ok(&["network", "create", "small", "--cidr", "10.8.0.0/28"]);
    let run = |n: &str| {
        let more = ["--network", "small", "--append", "demo.mode=echo", "-n", n];
        store.launch(&more)
    };
    let up = run("2");
    let interface = |id: &str| store.describe(id)["NetworkInterfaces"][0].clone();
    let first = interface(&up[0]);
    assert_eq!(first["VpcId"], id.trim());
    assert_eq!(first["Groups"][0]["GroupName"], "default");
    assert!(first["PrivateIpAddress"].as_str().unwrap().starts_with("10.8.0."));
    assert_ne!(first["PrivateIpAddress"], interface(&up[1])["PrivateIpAddress"]);
    let shown = store.ok(&["show", &up[0]]);
    assert!(shown.contains("small, link up"), "{shown}");
    assert!(!processes(id.trim()).is_empty());
    refused(&store.spore(&["network", "delete", "small"]), 1, "on it");
    // Eleven addresses there are.
    let many = ["run", "demo", "-q", "-m", "128M", "--network", "small", "-n", "10"];
    refused(&store.spore(&many), 1, "network 'small' (10.8.0.0/28) has fewer than 10");
    let left = store.ok(&["ls", "-q"]);
    let on_it = |id: &&str| store.describe(id)["NetworkInterfaces"][0]["VpcId"] == first["VpcId"];
    assert_eq!(left.lines().filter(on_it).count(), 2);
    store.ok(&["stop", "--force", &up[0]]);
    assert_eq!(interface(&up[0]), first);
    store.ok(&["start", &up[0]]);
    assert_eq!(interface(&up[0]), first);
    store.ok(&["stop", "--hibernate", &up[0]]);
    store.ok(&["start", &up[0]]);
    assert_eq!((interface(&up[0]), store.state(&up[0]).0), (first, "running".to_owned()));
    store.ok(&["terminate", &up[0], &up[1]]);
    gone(id.trim());
    store.ok(&["network", "delete", "small"]);
}
