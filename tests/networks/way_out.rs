//! What a guest reaches beyond its network, and what it does not.

use super::common::Store;
use super::common::skip::skip_anywhere;
use super::guest::Guest;
use super::killed::{Network, kill};
use super::{has_networks, until};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// An address of this host's that is not a loopback one.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent.
    socket.connect("192.0.2.99:9").ok()?;
    match socket.local_addr().unwrap() {
        SocketAddr::V4(address) if !address.ip().is_loopback() => Some(*address.ip()),
        _ => None,
    }
}

/// The same of IPv6: one that the host's route to everywhere has.
fn own_address6() -> Option<Ipv6Addr> {
    let socket = UdpSocket::bind("[::]:0").ok()?;
    socket.connect("[2001:db8::99]:9").ok()?;
    match socket.local_addr().unwrap() {
        SocketAddr::V6(address) if !address.ip().is_loopback() => Some(*address.ip()),
        _ => None,
    }
}

fn connects(guest: &Guest, to: &str, port: u16) -> bool {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let connect = move || TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok();
    guest.host.beside(connect).join().unwrap()
}

/// The pasta of a network: the supervisor's child.
pub fn pasta(lab: &Network) -> Option<u32> {
    let parents: Vec<String> = lab.processes().iter().map(ToString::to_string).collect();
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (name, rest) = stat.rsplit_once(')').unwrap_or_default();
        let parent = rest.split_ascii_whitespace().nth(1).unwrap_or_default();
        // passt's program for this processor.
        name.contains("(pas") && parents.iter().any(|p| p == parent)
    })
}

fn has_way_out(lab: &Network) -> bool {
    lab.status().is_some_and(|status| status.way_out)
}

/// A guest gets out, but neither to the host's loopback nor, on an isolated network, anywhere. A
/// pasta that is killed comes back with its interface.
#[test]
fn a_guest_gets_out_and_not_to_the_hosts_loopback() {
    let store = Store::new();
    let Some(address) = own_address() else {
        return skip_anywhere("this host has no address but the loopback one");
    };
    if !has_networks(&store) {
        return;
    }
    store.ok(&["network", "create", "lab"]);
    store.ok(&["network", "create", "alone", "--isolated"]);
    let Some(guest) = Guest::launch(&store, "lab", &[]) else { return };
    let Some(alone) = Guest::launch(&store, "alone", &[]) else { return };
    let lab = Network::new(&store, "lab");
    until(|| has_way_out(&lab));
    let listener = TcpListener::bind((address, 0)).unwrap();
    let (outside, port) = (address.to_string(), listener.local_addr().unwrap().port());
    until(|| connects(&guest, &outside, port));
    assert!(!connects(&alone, &outside, port));
    let inside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let secret = inside.local_addr().unwrap().port();
    let gateway = guest.sh("ip route show default | cut -d' ' -f3");
    for to in [gateway.as_str(), "192.0.0.1", "192.0.0.2", "127.0.0.1", "169.254.169.254"] {
        assert!(!connects(&guest, to, secret), "{to}");
    }
    by_ipv6(&guest, &alone);
    assert!(store.ok(&["network", "ls"]).contains("yes"));
    let first = pasta(&lab).unwrap();
    kill(&[first]);
    until(|| pasta(&lab).is_some_and(|pid| pid != first) && has_way_out(&lab));
    until(|| connects(&guest, &outside, port));
    assert!(std::fs::read_to_string(lab.log()).unwrap().contains("pasta ended"));
    // Only the way out is lost meanwhile.
    assert_eq!(guest.metadata("meta-data/instance-id"), guest.id);
}

/// The same by IPv6, where the host has that.
fn by_ipv6(guest: &Guest, alone: &Guest) {
    let Some(address) = own_address6() else { return };
    let listener = TcpListener::bind((address, 0)).unwrap();
    let (outside, port) = (address.to_string(), listener.local_addr().unwrap().port());
    until(|| connects(guest, &outside, port));
    assert!(!connects(alone, &outside, port));
    let inside = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let secret = inside.local_addr().unwrap().port();
    for to in ["fe80::1", "fd00:ec2:0:1::1", "fd00:ec2:0:1::2", "::1", "fd00:ec2::254"] {
        assert!(!connects(guest, to, secret), "{to}");
    }
}

/// `spore ARGS` where pasta is another program.
fn with_pasta(store: &Store, pasta: &std::path::Path, args: &[&str]) -> std::process::Output {
    let script = "mount --bind \"$0\" \"$(command -v pasta)\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(pasta).arg(store.program()).args(args);
    command.env("SPORE_HOME", store.home()).output().unwrap()
}

/// pasta that can't be had is a warning that names the package; one that makes another address than
/// asked for, as one does on a host without a default route, is tried again.
#[test]
fn a_network_without_pasta_is_a_network() {
    let store = Store::new();
    if !has_networks(&store) || !super::common::skip::is_root() {
        return;
    }
    let run = ["run", "demo", "-q", "-m", "64M", "--append", "demo.mode=echo", "--network"];
    store.ok(&["network", "create", "none-there"]);
    let output = with_pasta(&store, "/dev/null".as_ref(), &[&run[..], &["none-there"]].concat());
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("no way out") && err.contains("package passt"), "{err}");
    assert_eq!(err.trim_end().lines().count(), 1, "{err}");
    let lab = Network::new(&store, "none-there");
    assert_eq!((lab.interfaces().len(), has_way_out(&lab)), (1, false));
    // The first time it takes another address than asked for.
    let real = store.home().join("pasta-real");
    std::fs::copy("/usr/bin/pasta", &real).unwrap();
    let (fake, tried) = (store.home().join("pasta"), store.home().join("tried"));
    let script = format!(
        "#!/bin/sh\nif [ -e {tried} ]; then exec {real} \"$@\"; fi\n: > {tried}\n\
         for word; do shift; [ \"$word\" != 192.0.0.2 ] || word=169.254.2.1; set -- \"$@\" \"$word\"; done\nexec {real} \"$@\"\n",
        tried = tried.display(),
        real = real.display()
    );
    std::fs::write(&fake, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&fake, mode).unwrap();
    store.ok(&["network", "create", "retried"]);
    let output = with_pasta(&store, &fake, &[&run[..], &["retried"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lab = Network::new(&store, "retried");
    until(|| has_way_out(&lab));
    assert!(tried.exists());
    let log = std::fs::read_to_string(lab.log()).unwrap();
    assert!(log.contains("another address than asked for"), "{log}");
}
