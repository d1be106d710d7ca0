//! `run --foreground`: what a supervisor that knows of one process only (systemd, Slurm, a CI
//! agent) relies on.

mod common;

use common::{Store, has_kvm};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes that is not stuck.
const PATIENCE: Duration = Duration::from_secs(120);
const BUTTON: &str = "demo.mode=poweroff-on-button";

/// A `run --foreground` at work.
struct Supervisor {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    /// Of its instances, by index.
    ids: Vec<String>,
    /// What was read of its standard output.
    said: String,
}

impl Supervisor {
    fn start(mut command: Command, instances: usize) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut ids = Vec::new();
        while ids.len() < instances {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended: {ids:?}");
            if let Some(id) = line.strip_prefix("spore: ").and_then(|line| line.split_once(" runs"))
            {
                ids.push(id.0.to_owned());
            }
        }
        Self { child, stdout, stderr, ids, said: String::new() }
    }

    /// Of one instance of `store`.
    fn of(store: &Store, append: &str, more: &[&str]) -> Self {
        let run =
            [&["run", "demo", "--foreground", "-m", "64M", "--append", append], more].concat();
        Self::start(store.command(&run), 1)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Until it has printed `text` on a line.
    fn await_text(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "no {text:?}: {}", self.said);
            self.said.push_str(&line);
            if line.contains(text) {
                return;
            }
        }
    }

    /// Its end: exit code, standard output from its beginning, and error.
    fn end(mut self) -> (Option<i32>, String, String) {
        let mut told = String::new();
        self.stdout.read_to_string(&mut self.said).unwrap();
        self.stderr.read_to_string(&mut told).unwrap();
        (self.child.wait().unwrap().code(), self.said, told)
    }
}

fn kill(pid: u64, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Until no VMM has that number.
fn await_end(pid: u64) {
    let deadline = Instant::now() + PATIENCE;
    // A zombie that nobody waits for has no command line.
    let lives = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    while lives() {
        assert!(Instant::now() < deadline, "process {pid} goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn spore(store: &Store, args: &[&str]) -> Output {
    store.spore(&[&["run", "demo", "--foreground", "-m", "64M", "--rm"], args].concat())
}

#[test]
fn the_exit_code_is_how_the_guest_ended() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for (mode, code) in [("panic", 1), ("triple-fault", 1)] {
        let append = format!("demo.mode={mode}");
        let output = spore(&store, &["--append", &append]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{mode}: {told}");
    }
    let output = spore(&store, &[]);
    let (said, told) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}");
    // The console is on standard output, and nothing else; progress is on the other.
    let id = told.split_whitespace().nth(1).unwrap();
    assert_eq!(said, String::from_utf8_lossy(&store.spore(&["logs", id]).stdout));
    assert!(said.lines().count() > 1, "{said}");
    assert!(
        told.contains("runs, index 0") && told.contains("Instance initiated shutdown"),
        "{told}"
    );
    assert_eq!(store.ok(&["volume", "ls", "-q"]), "");
}

/// sd_notify(3), as a unit of Type=notify has it.
#[test]
fn a_service_manager_hears_that_it_is_up() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let path = store.home().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let run = ["run", "demo", "--foreground", "-m", "64M", "--append", BUTTON];
    let mut command = store.command(&run);
    command.env("NOTIFY_SOCKET", &path);
    let supervisor = Supervisor::start(command, 1);
    let mut message = [0; 64];
    let count = socket.recv(&mut message).unwrap();
    assert_eq!(String::from_utf8_lossy(&message[..count]).trim_end(), "READY=1");
    supervisor.signal(Signal::TERM);
    assert_eq!(supervisor.end().0, Some(143));
    // One that is to be so far that it never is has not been up when it ends.
    let mut command = store.command(&[&run[..5], &["--wait=ssh"]].concat());
    command.env("NOTIFY_SOCKET", &path);
    assert_eq!(Supervisor::start(command, 1).end().0, Some(0));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut message).is_err());
}

#[test]
fn what_is_typed_reaches_the_guest() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let run = ["run", "demo", "--foreground", "-i", "-m", "64M", "--append", "demo.mode=echo"];
    let mut command = store.command(&run);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (mut said, mut typed) = (String::new(), child.stdin.take());
    while stdout.read_line(&mut said).unwrap() > 0 {
        if said.contains("echo: ready")
            && let Some(mut stdin) = typed.take()
        {
            stdin.write_all(b"hello\x04").unwrap();
        }
    }
    assert!(said.contains("echo: 5 bytes"), "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(store.spore(&["run", "demo", "-i"]).status.code(), Some(2));
    assert_eq!(store.spore(&[&run[..4], &["-n", "2"]].concat()).status.code(), Some(2));
}

#[test]
fn a_killed_vmm_is_spores_failure() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let supervisor = Supervisor::of(&store, BUTTON, &[]);
    kill(store.pid(&supervisor.ids[0]).unwrap(), Signal::KILL);
    let (code, _, told) = supervisor.end();
    assert_eq!(code, Some(125), "{told}");
}

#[test]
fn a_signal_presses_the_power_button_whatever_the_root_is_and_once_is_enough() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for (root, state) in [("instance-store", "terminated"), ("ebs", "stopped")] {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
            let mut supervisor = Supervisor::of(&store, BUTTON, &["--root-device-type", root]);
            supervisor.await_text("button: waiting");
            // It follows its supervisor, and nobody else's signals.
            kill(store.pid(&supervisor.ids[0]).unwrap(), Signal::TERM);
            supervisor.signal(signal);
            supervisor.signal(signal);
            let id = supervisor.ids[0].clone();
            let (ended, said, told) = supervisor.end();
            assert_eq!(ended, Some(code), "{root}: {told}");
            assert!(said.contains("button: pressed"), "{said}");
            assert_eq!(store.state(&id).0, state);
        }
    }
}

#[test]
fn a_guest_that_does_not_power_off_is_cut_off() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for root in ["instance-store", "ebs"] {
        let more = ["--stop-timeout", "100ms", "--root-device-type", root, "--rm"];
        let supervisor = Supervisor::of(&store, "demo.mode=hang", &more);
        let pid = store.pid(&supervisor.ids[0]).unwrap();
        supervisor.signal(Signal::TERM);
        let (code, _, told) = supervisor.end();
        assert_eq!(code, Some(143), "{told}");
        assert!(told.contains("plugs pulled"), "{told}");
        await_end(pid);
    }
    let more = ["--timeout", "300ms", "--rm"];
    let (code, said, told) = Supervisor::of(&store, BUTTON, &more).end();
    assert_eq!(code, Some(124), "{told}");
    assert!(said.contains("button: pressed"), "{said}");
    assert_eq!(store.ok(&["volume", "ls", "-q"]), "");
}

#[test]
fn timeout_and_nohup_work_with_it() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let run = ["run", "demo", "--foreground", "-m", "64M", "--append", BUTTON];
    // Sends SIGTERM twice: to it, and to its process group.
    let mut command = Command::new("timeout");
    command.args(["--preserve-status", "3", env!("CARGO_BIN_EXE_spore")]).args(run);
    command.env("SPORE_HOME", store.home());
    let (code, said, told) = Supervisor::start(command, 1).end();
    assert_eq!(code, Some(143), "{told}");
    assert!(said.contains("button: pressed"), "{said}");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_spore")]).args(run);
    command.env("SPORE_HOME", store.home());
    let mut supervisor = Supervisor::start(command, 1);
    supervisor.await_text("button: waiting");
    supervisor.signal(Signal::HUP);
    supervisor.signal(Signal::TERM);
    let (code, _, told) = supervisor.end();
    assert_eq!(code, Some(143), "{told}");
    assert!(told.contains("SIGTERM: ") && !told.contains("SIGHUP"), "{told}");
}

/// However often: SPORE_TEST_KILLS in place of ten times.
#[test]
fn no_vmm_outlives_its_supervisor() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let times = std::env::var("SPORE_TEST_KILLS").map_or(10, |times| times.parse().unwrap());
    for time in 0..times {
        let mut supervisor = Supervisor::of(&store, BUTTON, &["--rm"]);
        let pid = store.pid(&supervisor.ids[0]).unwrap();
        supervisor.signal(Signal::KILL);
        supervisor.child.wait().unwrap();
        await_end(pid);
        let (state, why) = store.state(&supervisor.ids[0]);
        assert_eq!(state, "terminated", "{time}");
        assert!(why.contains("--foreground"), "{why}");
    }
}

#[test]
fn of_several_the_lines_are_labelled_and_the_worst_decides() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let run = "run demo --foreground -m 64M -n 3 --root-device-type ebs --append";
    let run = [&run.split(' ').collect::<Vec<_>>()[..], &[BUTTON]].concat();
    let mut supervisor = Supervisor::start(store.command(&run), 3);
    let ids = supervisor.ids.clone();
    kill(store.pid(&ids[1]).unwrap(), Signal::KILL);
    store.ok(&["stop", &ids[0], &ids[2]]);
    supervisor.await_text("0: ");
    let (code, said, told) = supervisor.end();
    assert_eq!(code, Some(125), "{told}");
    for index in 0..3 {
        let label = format!("{index}: ");
        assert!(said.lines().any(|line| line.starts_with(&label)), "{said}");
    }
    assert!(said.lines().all(|line| line.chars().nth(1) == Some(':')), "{said}");
    store.ok(&["wait", &ids[0], &ids[2]]);
    let output = store.spore(&["wait", &ids[0], &ids[1], &ids[2]]);
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn wait_tells_how_an_instance_ended() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for (mode, code) in [("panic", 1), ("triple-fault", 1)] {
        let id = store.launch_mode(mode);
        let output = store.spore(&["wait", &id, "--timeout", "120"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(&id) && told.contains("is stopped"), "{told}");
        store.ok(&["wait", "--for", "stopped", &id]);
    }
}
