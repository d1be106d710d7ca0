//! Networks whose process is killed: instances run on, and the next command gives them back what
//! they had.

use super::common::Store;
use super::{gone, has_networks, processes, until};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use sporevm::control::network::{NetworkStatus, Request, Response};
use sporevm::network::process::ask_running;
use sporevm::record::vpc::Vpc;
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A network of a store, as the control plane has it.
pub struct Network {
    store: sporevm::store::Store,
    vpc: Vpc,
}

impl Network {
    pub fn new(store: &Store, name: &str) -> Self {
        let store = sporevm::store::Store::open_at(store.home()).unwrap();
        let vpc = sporevm::network::find(&store, name).unwrap();
        Self { store, vpc }
    }

    pub fn id(&self) -> &str {
        self.vpc.vpc_id.as_str()
    }

    /// Its processes.
    pub fn processes(&self) -> Vec<u32> {
        processes(self.id())
    }

    /// Where they tell what there is to tell.
    pub fn log(&self) -> std::path::PathBuf {
        self.store.home().join("networks").join(self.id()).join("net.log")
    }

    /// How its process is; nothing if there is none.
    pub fn status(&self) -> Option<NetworkStatus> {
        match ask_running(&self.store, &self.vpc, &Request::Status {}, &[]).unwrap()? {
            (Response::Status(status), _) => Some(status),
            other => panic!("{other:?}"),
        }
    }

    pub fn interfaces(&self) -> BTreeSet<String> {
        let status = self.status().unwrap_or_default();
        status.interfaces.iter().map(ToString::to_string).collect()
    }
}

pub fn kill(pids: &[u32]) {
    for pid in pids {
        let pid = Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn namespaces(of: &[u32]) -> BTreeSet<String> {
    let link = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    of.iter().filter_map(link).map(|link| link.display().to_string()).collect()
}

/// kill -9 again and again: the first command after it has the network back in its namespace, with
/// all interfaces and the host's ports, and has nothing to warn of. What the killed process had is
/// closed a while after its lock is free.
#[test]
fn a_killed_network_comes_back_whole() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    store.ok(&["network", "create", "lab"]);
    let lab = Network::new(&store, "lab");
    let more = ["--network", "lab", "-n", "3", "-p", "0:22", "--append", "demo.mode=echo"];
    let up = store.launch(&more);
    let eni = |id: &String| {
        store.describe(id)["NetworkInterfaces"][0]["NetworkInterfaceId"].as_str().unwrap().into()
    };
    let all: BTreeSet<String> = up.iter().map(eni).collect();
    assert_eq!(lab.interfaces(), all);
    let ports: Vec<String> = up.iter().map(|id| store.ok(&["port", id, "-q"])).collect();
    let in_it = namespaces(&processes(lab.id()));
    for _ in 0..5 {
        let before = processes(lab.id());
        kill(&before);
        gone(lab.id());
        let deadline = Instant::now() + Duration::from_secs(60);
        while processes(lab.id()).is_empty() {
            // Its lock is let go of a moment after it can be seen no more.
            assert!(Instant::now() < deadline);
            let output = store.spore(&["ls"]);
            let err = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && err.is_empty(), "{err}");
        }
        assert_eq!(lab.interfaces(), all);
        let after = processes(lab.id());
        assert!(after.iter().all(|pid| !before.contains(pid)));
        // The host's and the network's own.
        assert_eq!(namespaces(&after), in_it);
        for port in &ports {
            drop(TcpStream::connect(port.trim()).unwrap());
        }
    }
    assert!(up.iter().all(|id| store.state(id).0 == "running"));
    store.ok(&[&["terminate"][..], &up.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    gone(lab.id());
}

/// What can't be started again is told of, and so are the instances that go without.
#[test]
fn a_network_that_stays_away_is_told_of() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    store.ok(&["network", "create", "lab"]);
    let lab = Network::new(&store, "lab");
    store.launch(&["--network", "lab", "--append", "demo.mode=echo"]);
    assert!(!store.ok(&["ls"]).contains("degraded"));
    kill(&lab.processes());
    gone(lab.id());
    // Nothing can listen where there is a directory.
    let socket = lab.log().with_file_name("control");
    let _ = std::fs::remove_file(&socket);
    std::fs::create_dir(&socket).unwrap();
    let output = store.spore(&["ls"]);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("degraded"), "{out}{err}");
    assert!(err.contains("network 'lab'"), "{err}");
    std::fs::remove_dir(&socket).unwrap();
    let output = store.spore(&["ls"]);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!out.contains("degraded") && err.is_empty(), "{out}{err}");
    assert_eq!(lab.interfaces().len(), 1);
}

/// A command that gives a network back what it had may be killed, too, or the network's process
/// once more meanwhile: the next one does the rest.
#[test]
fn what_was_left_out_is_given_back() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    store.ok(&["network", "create", "lab"]);
    let lab = Network::new(&store, "lab");
    let more = ["--network", "lab", "-n", "2", "--append", "demo.mode=echo"];
    store.launch(&more);
    let all = lab.interfaces();
    assert_eq!(all.len(), 2);
    let first = lab.status().unwrap().interfaces.remove(0);
    let remove = Request::Remove { interface: first };
    ask_running(&lab.store, &lab.vpc, &remove, &[]).unwrap().unwrap();
    assert_eq!(lab.interfaces().len(), 1);
    store.ok(&["ls"]);
    assert_eq!(lab.interfaces(), all);
}

/// Whoever looks whether a network's process runs holds its lock for a moment, which does not keep
/// it from being started.
#[test]
fn a_look_keeps_nobody_from_starting_a_network() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    let lab = Network::new(&store, "default");
    gone(lab.id());
    let path = store.home().join("networks").join(lab.id()).join("net.lock");
    let lock = std::fs::File::open(path).unwrap();
    let launched = std::thread::scope(|scope| {
        flock(&lock, FlockOperation::LockShared).unwrap();
        let launched = scope.spawn(|| store.launch(&["--network", "default"]));
        // As long as a look never takes.
        std::thread::sleep(Duration::from_millis(500));
        flock(&lock, FlockOperation::Unlock).unwrap();
        launched.join().unwrap()
    });
    assert_eq!(launched.len(), 1);
}

/// A VMM that is killed takes its tap and its ports with it, and nothing else of the network.
#[test]
fn a_killed_vmm_takes_its_own_interface() {
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    store.ok(&["network", "create", "lab"]);
    let lab = Network::new(&store, "lab");
    let more = ["--network", "lab", "-n", "2", "-p", "0:22", "--append", "demo.mode=echo"];
    let up = store.launch(&more);
    let before = processes(lab.id());
    let ports: Vec<String> = up.iter().map(|id| store.ok(&["port", id, "-q"])).collect();
    kill(&[u32::try_from(store.pid(&up[0]).unwrap()).unwrap()]);
    until(|| lab.interfaces().len() == 1 && TcpStream::connect(ports[0].trim()).is_err());
    drop(TcpStream::connect(ports[1].trim()).unwrap());
    // Besides pasta, which may be being started again.
    let after = processes(lab.id());
    assert!(before.iter().filter(|pid| after.contains(pid)).count() >= 3, "{before:?} {after:?}");
    // And it has all again when it is started.
    store.wait(&up[0], "stopped");
    store.ok(&["start", &up[0]]);
    assert_eq!(lab.interfaces().len(), 2);
    drop(TcpStream::connect(ports[0].trim()).unwrap());
}
