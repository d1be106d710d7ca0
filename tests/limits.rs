//! What the limits of a user, and the end of a terminal's session, do to a launch.

mod common;

use common::installed::Installed;
use common::skip::{is_root, skip, skip_anywhere};
use common::{Store, has_kvm};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const WAITS: [&str; 7] = [
    "run",
    "demo",
    "-q",
    "-m",
    "64M",
    "--root-device-type=ebs",
    "--append=demo.mode=poweroff-on-button",
];

/// `spore ARGS` under `limits`, options of the shell's ulimit.
fn limited(store: &Store, limits: &str, args: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limits} && exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_spore")).args(args);
    command.env("SPORE_HOME", store.home()).stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn few_descriptors_are_enough() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    for limit in ["511", "64"] {
        let run = ["run", "demo", "-q", "-n", "4", "-m", "64M", "--rm", "--wait"];
        let done = limited(&store, &format!("-n {limit}"), &run);
        assert!(done.status.success(), "with {limit} descriptors: {}", stderr(&done));
    }
    // Too few are a line that says so.
    let refused = limited(&store, "-n 8", &["run", "demo", "-q"]);
    let said = stderr(&refused);
    assert_eq!((refused.status.code(), said.lines().count()), (Some(125), 1), "{said}");
    assert!(said.contains("Too many open files") && said.contains("ulimit -n"), "{said}");
}

/// The stack grows up to the limit of the moment, which is raised; or nothing is begun.
#[test]
fn a_small_stack_is_raised_or_told() {
    let store = Store::new();
    for (soft, command) in [("64", "ls"), ("200", "doctor --help"), ("600", "image ls")] {
        let words: Vec<&str> = command.split(' ').collect();
        let done = limited(&store, &format!("-S -s {soft}"), &words);
        assert!(done.status.success(), "{soft} KiB: {}", stderr(&done));
    }
    let refused = limited(&store, "-s 200", &["ls"]);
    let said = stderr(&refused);
    assert_eq!((refused.status.code(), said.lines().count()), (Some(125), 1), "{said}");
    assert!(said.contains("200 KiB") && said.contains("ulimit -s"), "{said}");
}

/// RLIMIT_FSIZE sends SIGXFSZ, which ends who has not said otherwise.
#[test]
fn a_limit_of_file_sizes_ends_no_machine_and_no_command() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let refused = limited(&store, "-f 0", &["run", "demo", "-q"]);
    let said = stderr(&refused);
    assert_eq!((refused.status.code(), said.lines().count()), (Some(125), 1), "{said}");
    assert!(said.contains("File too large") && said.contains("ulimit -f"), "{said}");
    // The guest writes all of its disk. The shell counts blocks of 512 bytes: its overlay can have
    // 4 MiB.
    let run = "run demo -q -m 128M --root-device-type ebs --append demo.mode=fill";
    let run = limited(&store, "-f 8192", &run.split(' ').collect::<Vec<_>>());
    assert!(run.status.success(), "{}", stderr(&run));
    let id = String::from_utf8(run.stdout).unwrap().trim().to_owned();
    while !store.logs(&id).contains("fill: no room for block") {
        assert_eq!(store.state(&id).0, "running");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(store.state(&id).0, "running");
    store.ok(&["terminate", &id]);
}

#[test]
fn a_foreign_reader_needs_few_descriptors() {
    let store = Store::new();
    let disk = store.home().join("disk.vmdk");
    let mut create = Command::new("qemu-img");
    let Ok(made) = create.args(["create", "-q", "-f", "vmdk"]).arg(&disk).arg("8M").status() else {
        skip("there is no qemu-img");
        return;
    };
    assert!(made.success());
    let import = ["image", "import", disk.to_str().unwrap(), "--name", "foreign"];
    let done = limited(&store, "-n 128", &import);
    assert!(done.status.success(), "{}", stderr(&done));
}

/// Another user's place: programs and a /dev/kvm that they may use.
struct Other(Installed);

/// No real user has this number, so nobody else's processes count.
const USER: u32 = 61_717;

impl Other {
    fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let installed = Installed::new();
        let home = installed.path("home");
        std::fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(USER), Some(USER)).unwrap();
        Some(Self(installed))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// `spore ARGS` as that user, who may have so many processes and threads.
    fn spore(&self, processes: &str, args: &[&str]) -> Output {
        let (home, program) = (self.path("home/store"), self.path("spore"));
        let before = ["prlimit", &format!("--nproc={processes}")];
        let mut command = self.0.command_with_kvm((USER, USER), &home, &before, &program);
        command.args(args).output().unwrap()
    }
}

#[test]
fn a_user_who_may_have_no_more_processes_is_told_so() {
    if !has_kvm() {
        return;
    }
    let Some(other) = Other::new() else { return };
    let disk = other.path("disk");
    std::fs::write(&disk, vec![7; 4 << 20]).unwrap();
    let import = ["image", "import", disk.to_str().unwrap(), "--name", "alone"];
    // What somebody else made is read by a process of its own: two with one thread each do it all.
    let alone = other.spore("1", &import);
    let said = stderr(&alone);
    assert_eq!((alone.status.code(), said.lines().count()), (Some(125), 1), "{said}");
    assert!(said.contains("ulimit -u"), "{said}");
    let done = other.spore("2", &import);
    assert!(done.status.success(), "{}", stderr(&done));
    for processes in ["1", "2", "3", "4", "5", "8"] {
        let run = other.spore(processes, &["run", "demo", "-q", "-n", "4", "-m", "64M", "--rm"]);
        let said = stderr(&run);
        assert!(!said.contains("panicked"), "with {processes} processes: {said}");
        let errors = said.lines().filter(|line| !line.contains("warning: ")).count();
        let explained = errors == 1 && said.contains("ulimit -u");
        assert!(run.status.success() || explained, "with {processes} processes: {said}");
        let code = run.status.code();
        assert!(matches!(code, Some(0 | 125)), "with {processes} processes: {code:?} {said}");
        let live = other.spore("100", &["ls", "-q", "--filter", "instance-state-name=running"]);
        assert!(run.status.success() || live.stdout.is_empty(), "nothing is left: {live:?}");
        let ids = String::from_utf8_lossy(&live.stdout).into_owned();
        if !ids.is_empty() {
            let ids: Vec<&str> = ids.lines().collect();
            other.spore("100", &[&["terminate"], &ids[..]].concat());
        }
    }
}

#[test]
fn a_limit_holds_or_is_refused_by_name() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let run = [&WAITS[..], &["--cpu-quota", "50%", "--memory-max", "128M"]].concat();
    let done = store.spore(&run);
    if !done.status.success() {
        // No user may make such a group everywhere; nothing is left of the attempt.
        let said = stderr(&done);
        assert_eq!((done.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("UnsupportedOperation") && said.contains("control group"), "{said}");
        assert_eq!(store.ok(&["ls", "-q"]), "");
        return skip_anywhere("no control group can be made here");
    }
    let id = String::from_utf8(done.stdout).unwrap().trim().to_owned();
    let described = store.describe(&id);
    assert_eq!(described["Spore"]["Limits"]["CpuQuota"], 50);
    let group = PathBuf::from(described["Spore"]["ControlGroup"].as_str().unwrap());
    let read = |name: &str| std::fs::read_to_string(group.join(name)).unwrap();
    assert_eq!(read("cpu.max").trim(), "50000 100000");
    assert_eq!(read("memory.max").trim(), (128 << 20).to_string());
    assert!(read("cgroup.procs").lines().any(|pid| pid == store.pid(&id).unwrap().to_string()));
    store.ok(&["terminate", &id]);
    assert!(!group.exists(), "the group goes with the instance");
}

/// What any hierarchy of version 2 shows, whichever controllers it has: a group is made, joined,
/// and goes with its process.
#[test]
fn a_control_group_is_joined_and_goes_with_its_process() {
    use sporevm::instance::cgroup;
    use sporevm::record::limits::CgroupLimits;
    let id = format!("i-{:017x}", std::process::id()).parse().unwrap();
    let none = CgroupLimits { cpu_quota: None, memory_max: None };
    let Ok(group) = cgroup::make(&id, &none) else {
        return skip_anywhere("no control group can be made here");
    };
    let mut sleep = Command::new("sleep").arg("600").spawn().unwrap();
    cgroup::join(&group, sleep.id()).unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", sleep.id())).unwrap();
    let name = group.file_name().unwrap().to_str().unwrap();
    assert!(groups.lines().any(|line| line.starts_with("0::") && line.ends_with(name)), "{groups}");
    cgroup::remove(&group);
    assert!(group.exists(), "a process is in it");
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    wait_until("the group goes", || {
        cgroup::remove(&group);
        !group.exists()
    });
    assert!(cgroup::join(&group, std::process::id()).is_err());
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never: {what}");
}

fn is_there(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[test]
fn an_instance_outlives_the_terminal_that_it_was_launched_from() {
    if !has_kvm() {
        return;
    }
    if Command::new("script").arg("--version").output().is_err() {
        skip("there is no script(1)");
        return;
    }
    let store = Store::new();
    // A shell on a terminal, which launches and stays; then the terminal goes away, as that of a
    // lost ssh session does.
    let words = WAITS.join(" ");
    let shell = format!("'{}' {words}; sleep 600", env!("CARGO_BIN_EXE_spore"));
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--command", &shell, "/dev/null"]).env("SPORE_HOME", store.home());
    terminal.stdin(Stdio::piped()).stdout(Stdio::null()).env("SHELL", "/bin/sh");
    let mut terminal = terminal.spawn().unwrap();
    let mut id = String::new();
    wait_until("an instance runs", || {
        id = store.ok(&["ls", "-q", "--filter", "instance-state-name=running"]).trim().to_owned();
        !id.is_empty()
    });
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    wait_until("the shell is hung up", || {
        !processes().any(|(_, line)| line.contains("sleep 600") && line.contains(&words))
    });
    assert_eq!(store.state(&id).0, "running");
    let pid = u32::try_from(store.pid(&id).unwrap()).unwrap();
    assert!(is_there(pid));
    store.wait_for_text(&id, "button: waiting");
    store.ok(&["stop", &id]);
    assert!(store.logs(&id).contains("button: pressed"), "it was alive and heard that");
}

/// Process ids and command lines.
fn processes() -> impl Iterator<Item = (u32, String)> {
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    })
}

#[test]
fn no_process_that_stays_keeps_the_directory_busy_that_it_was_started_from() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let place = tempfile::tempdir().unwrap();
    let mut run = store.command(&WAITS);
    let output = run.current_dir(place.path()).stdin(Stdio::null()).output().unwrap();
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let pid = store.pid(&id).unwrap();
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(cwd, Path::new("/"));
    let stays = processes().filter(|(pid, _)| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == place.path())
    });
    assert_eq!(stays.collect::<Vec<_>>(), []);
}

/// What is started counts as what is launched.
#[test]
fn a_start_looks_at_the_memory_that_is_left() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let total: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
    let memory = format!("-m{}M", total / 1024 * 6 / 10);
    let mut run = WAITS.to_vec();
    run.splice(3..5, [&*memory]);
    let ids: Vec<String> = (0..2).map(|_| store.ok(&run).trim().to_owned()).collect();
    store.ok(&["stop", "--force", &ids[0], &ids[1]]);
    let refused = store.spore(&["start", "--no-overcommit", &ids[0], &ids[1]]);
    let said = stderr(&refused);
    assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("InsufficientInstanceCapacity"), "{said}");
    let one = store.spore(&["start", "--no-overcommit", &ids[0]]);
    assert!(one.status.success() && one.stderr.is_empty(), "{}", stderr(&one));
    let warned = store.spore(&["start", &ids[1]]);
    assert!(warned.status.success(), "{}", stderr(&warned));
    assert!(stderr(&warned).contains("--no-overcommit refuses"), "{}", stderr(&warned));
    store.ok(&["terminate", &ids[0], &ids[1]]);
}
