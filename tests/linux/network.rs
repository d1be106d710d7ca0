//! A Linux guest that talks by a tap.

use super::linux::namespace::Namespace;
use super::linux::{Lab, Shell};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// Bytes that go each way.
const AMOUNT: usize = 32 << 20;
/// What answers each line that comes by a connection to port 7.
pub const ECHO: &str = "(perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 7, Listen => 5, \
    ReuseAddr => 1) or die; while ($c = $s->accept) { while (<$c>) { print $c $_ } close $c }' >/dev/null 2>&1 &)";

/// Packets go both ways, whole, at the tap's MTU, with offloads and without; the link goes down and
/// up with a hibernated guest; an address stays an instance's.
pub fn a_guest_talks_by_a_tap(lab: &Lab) {
    let Some(host) = Namespace::with_taps(&["spore0"]) else { return };
    assert!(host.run("ip", &["address", "add", "10.9.0.1/24", "dev", "spore0"]).status.success());
    // What the guest sends has checksums then, and is no larger than its link takes.
    let plain = "virtio_net.csum=0 virtio_net.gso=0";
    for append in [plain, ""] {
        let transport = if lab.over_pci() { "pci" } else { "mmio" };
        let run = ["run", "debian", "-q", "-c", "2", "-m", "512M", "--network", "tap:spore0"];
        let more = ["--transport", transport, "--append", append];
        let id = lab.ok_inside(&host, &[&run[..], &more].concat());
        lab.wait(std::slice::from_ref(&id), "login");
        let mut shell = lab.shell(&id);
        let nic = appears(lab, &id, &mut shell);
        exchange(&host, &mut shell);
        reaches(&host);
        if append.is_empty() {
            goes_on_elsewhere(lab, &host, &id, &nic, shell);
            lab.ok(&["stop", &id]);
            lab.ok_inside(&host, &["start", &id]);
            lab.wait(std::slice::from_ref(&id), "login");
            let mut shell = lab.shell(&id);
            appears(lab, &id, &mut shell);
            reaches(&host);
        }
        let shown = lab.ok(&["show", &id]);
        assert!(shown.contains("tap:spore0, link up,"), "{shown}");
        lab.ok(&["terminate", &id]);
    }
}

/// A guest with two vCPUs uses both pairs of queues of its interface.
pub fn a_guest_has_several_queues(lab: &Lab) {
    let Some(host) = Namespace::with_taps(&[]) else { return };
    let tap = "ip tuntap add dev spore0 mode tap multi_queue && ip link set spore0 mtu 9001 up";
    let made = host.run("sh", &["-c", &format!("{tap} && ip address add 10.9.0.1/24 dev spore0")]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let run = ["run", "debian", "-q", "-c", "2", "-m", "512M", "--network", "tap:spore0"];
    let id = lab.ok_inside(&host, &[&run[..], &["--queues", "2"]].concat());
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    let nic = appears(lab, &id, &mut shell);
    shell.sh(&format!("test -e /sys/class/net/{nic}/queues/rx-1"));
    for _ in 0..4 {
        exchange(&host, &mut shell);
        reaches(&host);
    }
    lab.ok(&["terminate", &id]);
}

/// The guest's interface by its name there: it has the record's address and the tap's MTU. It is up
/// in the end.
fn appears(lab: &Lab, id: &str, shell: &mut Shell) -> String {
    let nic = shell.sh("ls /sys/class/net | grep -v '^lo$\\|^sit'");
    let get = |shell: &mut Shell, what: &str| shell.sh(&format!("cat /sys/class/net/{nic}/{what}"));
    let interface = lab.describe(id)["NetworkInterfaces"][0].clone();
    assert_eq!(get(shell, "address"), interface["MacAddress"].as_str().unwrap());
    assert_eq!(get(shell, "mtu"), "9001");
    shell.sh(&format!("ip address add 10.9.0.2/24 dev {nic} && ip link set {nic} up"));
    assert_eq!(get(shell, "carrier"), "1");
    shell.sh(ECHO);
    shell.sh("while ! ss -ltn | grep -q ':7 '; do sleep 0.1; done");
    nic
}

/// The largest packets arrive uncut.
fn reaches(host: &Namespace) {
    // 9001 bytes less 28 of headers.
    let ping = ["-c", "3", "-w", "30", "-i", "0.2", "-M", "do", "-s", "8973", "10.9.0.2"];
    let pinged = host.run("ping", &ping);
    assert!(pinged.status.success(), "{}", String::from_utf8_lossy(&pinged.stdout));
    let answer = host.beside(|| {
        let mut guest = TcpStream::connect("10.9.0.2:7").unwrap();
        guest.write_all(b"from the host\n").unwrap();
        let mut answer = [0; 14];
        guest.read_exact(&mut answer).unwrap();
        answer
    });
    assert_eq!(&answer.join().unwrap(), b"from the host\n");
}

/// Many bytes each way, and both kernels find every checksum right.
fn exchange(host: &Namespace, shell: &mut Shell) {
    let listen = || TcpListener::bind("10.9.0.1:0").unwrap();
    let receiver = host.beside(listen).join().unwrap();
    let port = receiver.local_addr().unwrap().port();
    let received = std::thread::spawn(move || {
        let mut digest = Sha256::new();
        let count = std::io::copy(&mut receiver.accept().unwrap().0, &mut digest).unwrap();
        assert_eq!(count, AMOUNT as u64);
        hex(&digest.finalize())
    });
    shell.sh(&format!("head -c {AMOUNT} /dev/urandom > /root/noise"));
    shell.sh(&format!("bash -c 'cat /root/noise > /dev/tcp/10.9.0.1/{port}'"));
    let sum = shell.sh("sha256sum < /root/noise | cut -d ' ' -f 1");
    assert_eq!(received.join().unwrap(), sum);
    let sender = host.beside(listen).join().unwrap();
    let port = sender.local_addr().unwrap().port();
    let noise: Vec<u8> = (0..AMOUNT as u64 / 8).flat_map(|n| (n * n).to_le_bytes()).collect();
    let expected = hex(&Sha256::digest(&noise));
    let sent = std::thread::spawn(move || sender.accept().unwrap().0.write_all(&noise).unwrap());
    let got =
        shell.sh(&format!("bash -c 'sha256sum < /dev/tcp/10.9.0.1/{port}' | cut -d ' ' -f 1"));
    sent.join().unwrap();
    assert_eq!(got, expected);
    // The last of TCP's counters.
    let wrong = "grep ^Tcp: /proc/net/snmp | tail -n 1 | sed 's/.* //'";
    assert_eq!(shell.sh(wrong), "0");
    let host = host.run("sh", &["-c", wrong]);
    assert_eq!(String::from_utf8_lossy(&host.stdout).trim(), "0");
}

/// A hibernated guest sees its link go down and up when it goes on, and is reached as before.
fn goes_on_elsewhere(lab: &Lab, host: &Namespace, id: &str, nic: &str, mut shell: Shell) {
    let changes = format!("$(cat /sys/class/net/{nic}/carrier_changes)");
    let before: u32 = shell.sh(&format!("echo {changes}")).parse().unwrap();
    drop(shell);
    lab.ok(&["stop", "--hibernate", id]);
    lab.ok_inside(host, &["start", id]);
    let mut shell = lab.console(id);
    shell.sh(&format!("while [ {changes} -lt {} ]; do sleep 0.1; done", before + 2));
    assert_eq!(shell.sh(&format!("cat /sys/class/net/{nic}/carrier")), "1");
    reaches(host);
    exchange(host, &mut shell);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
