//! A guest without a guest: this host's network stack in a namespace, at the other end of an
//! instance's tap. The instance is the demonstration, which leaves its interface alone.

use super::common::Store;
use super::common::namespace::Namespace;
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sporevm::control::Request;
use sporevm::instance::client::ask_with;
use sporevm::instance::dir::InstanceDir;
use sporevm::sys::passing::receive;
use sporevm::sys::tap::{HEADER, Tap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The longest frame, with its header.
const FRAME: usize = 65_550 + HEADER;

/// The instance, and the namespace that is its guest.
pub struct Guest {
    pub id: String,
    pub address: Ipv4Addr,
    pub address6: Ipv6Addr,
    pub host: Namespace,
    tap: Arc<OwnedFd>,
    over: Arc<AtomicBool>,
    relays: Vec<JoinHandle<()>>,
}

impl Guest {
    /// Launches one on a network, with more arguments, whose addresses it has and whose routes it
    /// takes. `None`, said by name, where there can be none.
    pub fn launch(store: &Store, network: &str, more: &[&str]) -> Option<Self> {
        let host = Namespace::with_taps(&["eth0"])?;
        let run = ["--network", network, "--append", "demo.mode=echo"];
        let id = store.launch(&[&run[..], more].concat()).remove(0);
        let interface = store.describe(&id)["NetworkInterfaces"][0].clone();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let address: Ipv4Addr = text(&interface["PrivateIpAddress"]).parse().unwrap();
        let address6 = text(&interface["Ipv6Addresses"][0]["Ipv6Address"]).parse().unwrap();
        let tap = Arc::new(tap_of(store, &id, &text(&interface["NetworkInterfaceId"])));
        let inside = host.beside(|| OwnedFd::from(Tap::create("eth0", false).unwrap()));
        let inside = Arc::new(inside.join().unwrap());
        let over = Arc::new(AtomicBool::new(false));
        let relays = [(&tap, &inside), (&inside, &tap)].map(|(from, to)| {
            let (from, to, over) = (from.clone(), to.clone(), over.clone());
            std::thread::spawn(move || relay(&from, &to, &over))
        });
        let guest = Self { id, address, address6, host, tap, over, relays: relays.into() };
        let cidr = super::network(store, network)["CidrBlock"].as_str().unwrap().to_owned();
        let (first, bits) = cidr.split_once('/').unwrap();
        let router = Ipv4Addr::from_bits(first.parse::<Ipv4Addr>().unwrap().to_bits() + 1);
        let mac = text(&interface["MacAddress"]);
        guest.sh(&format!(
            "ip link set lo up; ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up; \
             ip addr add {address}/{bits} dev eth0; ip route add default via {router}; \
             ip -6 addr add {address6}/128 dev eth0 nodad"
        ));
        Some(guest)
    }

    /// Does in the guest what a shell is told; it must succeed.
    pub fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {}: {err}", output.status);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The same, of what may fail.
    pub fn try_sh(&self, script: &str) -> Output {
        self.host.run("sh", &["-c", script])
    }

    /// What a page of the instance metadata service has; nothing if it does not answer.
    pub fn metadata(&self, path: &str) -> String {
        let url = format!("http://169.254.169.254/latest/{path}");
        self.curl(&url)
    }

    /// What is at an URL.
    pub fn curl(&self, url: &str) -> String {
        let get = format!("curl -gsf --max-time 20 '{url}' || :");
        self.sh(&get)
    }

    /// Sends a frame as it is. What does not fit is lost.
    pub fn send(&self, frame: &[u8]) {
        let packet = [&[0; HEADER], frame].concat();
        while rustix::io::write(&*self.tap, &packet) == Err(rustix::io::Errno::AGAIN) {
            std::thread::yield_now();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.relays.drain(..).for_each(|relay| relay.join().unwrap());
    }
}

/// A descriptor of an instance's tap, which its VMM has as well.
fn tap_of(store: &Store, id: &str, interface: &str) -> OwnedFd {
    let opened = sporevm::store::Store::open_at(store.home()).unwrap();
    let dir = InstanceDir::new(&opened, &id.parse().unwrap());
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let request = Request::Tap { interface: interface.parse().unwrap() };
    ask_with(&dir, &request, &[theirs.as_fd()]).unwrap();
    receive(&ours, 65_536).unwrap().1.remove(0)
}

/// Carries frames, which wait for nobody.
fn relay(from: &OwnedFd, to: &OwnedFd, over: &AtomicBool) {
    let mut frame = vec![0; FRAME];
    while !over.load(Ordering::Relaxed) {
        match rustix::io::read(from, &mut frame) {
            Ok(length) => drop(rustix::io::write(to, &frame[..length])),
            Err(rustix::io::Errno::AGAIN) => {
                let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                let mut ready = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
                let _ = rustix::event::poll(&mut ready, Some(&tick));
            }
            // The tap is gone.
            Err(_) => return,
        }
    }
}
