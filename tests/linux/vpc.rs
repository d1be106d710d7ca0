//! Linux guests on a network of the store.

use super::linux::{Lab, Shell, patience};
use super::network::ECHO;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// What has a guest's systemd-networkd ask for an address. (systemd.network(5))
const DHCP: &str = "mkdir -p /run/systemd/network && printf '[Match]\\nName=en*\\n[Network]\\nDHCP=ipv4\\n\
    [DHCPv4]\\nUseMTU=yes\\n' > /run/systemd/network/80-lab.network && systemctl restart systemd-networkd";

/// Two clones get addresses by DHCP and reach each other by name; the host reaches a published
/// port; all of it goes on after the network's process was killed; a rule that is revoked closes a
/// port; in the end nothing is left.
pub fn clones_talk_on_a_network(lab: &Lab) {
    let id = lab.ok(&["network", "create", "lab"]).trim().to_owned();
    let run = ["run", "debian", "-q", "-n", "2", "-m", "512M", "--name", "web"];
    let more = ["--network", "lab", "-p", "0:7", "--user-data", "a b"];
    let ids: Vec<String> = lab.ok(&[&run[..], &more].concat()).lines().map(str::to_owned).collect();
    lab.wait(&ids, "login");
    let mut shells: Vec<Shell> = ids.iter().map(|id| lab.shell(id)).collect();
    for (id, shell) in ids.iter().zip(&mut shells) {
        let interface = lab.describe(id)["NetworkInterfaces"][0].clone();
        let address = interface["PrivateIpAddress"].as_str().unwrap();
        shell.sh(DHCP);
        shell.sh(&format!(
            "while ! ip -4 address | grep -q 'inet {address}/16'; do sleep 0.1; done"
        ));
        let nic = shell.sh("ls /sys/class/net | grep -v '^lo$\\|^sit'");
        assert_eq!(shell.sh(&format!("cat /sys/class/net/{nic}/mtu")), "9001");
        shell.sh("echo nameserver $(ip route | sed -n 's/^default via \\([0-9.]*\\)\\.1 .*/\\1.2/p') > /etc/resolv.conf");
        assert_eq!(metadata(shell, "meta-data/instance-id"), *id);
        assert_eq!(metadata(shell, "meta-data/local-ipv4"), address);
        assert_eq!(metadata(shell, "user-data"), "a b");
        shell.sh(ECHO);
        shell.sh("while ! ss -ltn | grep -q ':7 '; do sleep 0.1; done");
    }
    let [one, two] = &mut shells[..] else { panic!("two") };
    let port = lab.ok(&["port", &ids[1], "-q"]).trim().to_owned();
    for killed in [false, true] {
        if killed {
            kill(&id);
            // Its lock is let go of a moment after it can be seen no more.
            until(|| {
                assert!(lab.ok(&["ls", "-q"]).contains(&ids[0]));
                !processes(&id).is_empty()
            });
        }
        // A network that was revived may have its rules a moment later.
        until(|| reaches(one, "web-1") && reaches(two, "web-0.internal"));
        until(|| reaches(one, &ids[1]) && reaches(one, "web-1.internal"));
        assert_eq!(metadata(one, "meta-data/instance-id"), ids[0]);
        let mut guest = TcpStream::connect(&port).unwrap();
        guest.set_read_timeout(Some(patience())).unwrap();
        guest.write_all(b"from the host\n").unwrap();
        let mut answer = [0; 14];
        guest.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"from the host\n");
    }
    // Another's address, and one of nobody's.
    let two_has = lab.describe(&ids[1])["NetworkInterfaces"][0]["PrivateIpAddress"].clone();
    let two_has = two_has.as_str().unwrap();
    for spoofed in [two_has, "10.250.0.9"] {
        let nic = one.sh("ls /sys/class/net | grep -v '^lo$\\|^sit'");
        one.sh(&format!("ip address add {spoofed}/32 dev {nic}"));
        let gateway = two_has.rsplit_once('.').unwrap().0;
        assert!(!connects(
            one,
            &format!("PeerAddr => '{gateway}.2', PeerPort => 53, LocalAddr => '{spoofed}'")
        ));
        one.sh(&format!("ip address del {spoofed}/32 dev {nic}"));
    }
    lab.ok(&["network", "group", "revoke", "lab", "default", "--from", "default"]);
    until(|| !reaches(one, "web-1"));
    let port_7 = ["--protocol", "tcp", "--port", "7", "--from", "default"];
    lab.ok(&[&["network", "group", "allow", "lab", "default"][..], &port_7].concat());
    until(|| reaches(one, "web-1"));
    drop(shells);
    lab.ok(&["terminate", &ids[0], &ids[1]]);
    until(|| processes(&id).is_empty());
    lab.ok(&["network", "delete", "lab"]);
}

/// What the instance metadata service answers, by a guest's own means. One that has not asked for a
/// second after it has connected, as it may happen on a host with much to do, is let go.
fn metadata(shell: &mut Shell, path: &str) -> String {
    let get = format!("GET /latest/{path} HTTP/1.0\\r\\nHost: 169.254.169.254\\r\\n\\r\\n");
    let ask = format!(
        "bash -c 'exec 3<>/dev/tcp/169.254.169.254/80; printf \"{get}\" >&3; tail -n 1 <&3' || :"
    );
    let mut answer = String::new();
    until(|| {
        answer = shell.sh(&ask);
        !answer.is_empty()
    });
    answer
}

/// Whether a guest gets an answer from port 7 of another.
fn reaches(shell: &mut Shell, name: &str) -> bool {
    connects(shell, &format!("PeerAddr => '{name}', PeerPort => 7"))
}

fn connects(shell: &mut Shell, to: &str) -> bool {
    let script = format!("print IO::Socket::INET->new({to}, Timeout => 2) ? 1 : 0");
    shell.sh(&format!("perl -MIO::Socket::INET -e \"{script}\"")) == "1"
}

fn until(mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !is() {
        assert!(Instant::now() < deadline, "it does not come to be");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The processes that have the network's id as an argument.
fn processes(id: &str) -> Vec<String> {
    let numbers = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let number = entry.ok()?.file_name().into_string().ok()?;
        let words = std::fs::read(format!("/proc/{number}/cmdline")).ok()?;
        words.split(|byte| *byte == 0).any(|word| word == id.as_bytes()).then_some(number)
    });
    numbers.collect()
}

/// kill -9 the network's process: all in its namespace end with it.
fn kill(id: &str) {
    let all = processes(id);
    assert!(!all.is_empty());
    let _ = Command::new("kill").arg("-9").args(&all).status();
    until(|| processes(id).is_empty());
}
