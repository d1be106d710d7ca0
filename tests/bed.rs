//! The test bed itself: what is killed in the middle leaves nothing running, and no old lab kernel
//! is kept.

mod common;

use common::{Store, has_kvm};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// The first line that a child prints.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Whether the process is there, and no zombie.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[track_caller]
fn ends(pid: &str) {
    assert!(!pid.is_empty());
    let begin = Instant::now();
    while runs(pid) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{pid} still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// A command under the warden that leaves a process of another session behind, as a launch does,
/// and prints that one's number and its own.
fn warded() -> (Child, String, String) {
    let mut command = Command::new(script("warden"));
    let leaves = "trap '' TERM; (setsid sleep 1000 >&2 & echo $!) | { read -r left; echo $left $$; }; sleep 1000";
    let mut child = command
        .args(["sh", "-c", leaves])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let line = first_line(&mut child);
    let (left, command) = line.split_once(' ').unwrap();
    assert!(runs(left) && runs(command), "{line}");
    (child, left.to_owned(), command.to_owned())
}

#[test]
fn a_killed_warden_leaves_nothing() {
    for signal in ["-TERM", "-KILL", "-INT"] {
        let (mut child, left, command) = warded();
        kill(signal, &child.id().to_string());
        child.wait().unwrap();
        ends(&left);
        ends(&command);
    }
}

#[test]
fn a_killed_command_leaves_nothing_and_its_end_is_told() {
    let (mut child, left, command) = warded();
    kill("-KILL", &command);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    ends(&left);
    let code = |words: &[&str]| Command::new(script("warden")).args(words).status().unwrap().code();
    assert_eq!(code(&["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&["true"]), Some(0));
}

/// Set for the one that is to be killed.
const VICTIM: &str = "SPORE_TEST_VICTIM";

#[test]
fn a_killed_test_leaves_no_vmm() {
    if !has_kvm() {
        return;
    }
    if std::env::var_os(VICTIM).is_some() {
        let store = Store::new();
        let id = store.launch_mode("halt");
        println!("\nvmm {} {}", store.pid(&id).unwrap(), store.home().display());
        loop {
            std::thread::park();
        }
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_killed_test_leaves_no_vmm", "--nocapture"]).env(VICTIM, "1");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told =
        lines.map(Result::unwrap).find_map(|line| line.strip_prefix("vmm ").map(str::to_owned));
    let told = told.expect("an instance");
    let (pid, home) = told.split_once(' ').unwrap();
    assert!(runs(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    ends(pid);
    let begin = Instant::now();
    while Path::new(home).exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{home} is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `scripts/build-image lab-kernel` with a cache of its own.
fn lab_kernel(home: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(script("build-image"));
    let output = command.arg("lab-kernel").args(args).env("SPORE_HOME", home).output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn a_prebuilt_lab_kernel_is_known_by_its_digest_and_replaces_an_old_one() {
    let home = tempfile::tempdir().unwrap();
    let unknown = home.path().join("vmlinux");
    std::fs::write(&unknown, b"\x7fELF of an earlier patch").unwrap();
    let (code, said) = lab_kernel(home.path(), &["--prebuilt", unknown.to_str().unwrap()]);
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("is no build of images/lab-kernel"), "{said}");
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/lab-kernel/vmlinux.zst");
    if !shared.exists() {
        return common::skip::skip_anywhere("no prebuilt lab kernel beside the checkout");
    }
    let old = home.path().join("cache/lab-kernel/0123");
    std::fs::create_dir_all(&old).unwrap();
    std::fs::write(old.join("vmlinux"), b"\x7fELF of an earlier patch").unwrap();
    let (code, said) = lab_kernel(home.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!old.exists(), "{said}");
}

/// A guest that hangs where the lab kernel should boot: doctor says so in time, and nobody is told
/// to use it.
#[test]
fn doctor_finds_out_that_a_lab_kernel_does_not_boot() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let rows = || {
        let begin = Instant::now();
        let output = store.spore(&["doctor"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        (text, begin.elapsed())
    };
    assert!(!rows().0.contains("lab kernel"), "there is none");
    let build = store.home().join("cache/lab-kernel/0123");
    std::fs::create_dir_all(&build).unwrap();
    // An ELF whose one segment, at 1 MiB, jumps to itself.
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    let numbers =
        |elf: &mut Vec<u8>, all: &[u64]| elf.extend(all.iter().flat_map(|n| n.to_le_bytes()));
    numbers(&mut elf, &[0x10_0000, 64, 0]);
    elf.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x07\0\0\0");
    numbers(&mut elf, &[4096, 0x10_0000, 0x10_0000, 2, 2, 4096]);
    elf.resize(4096, 0);
    elf.extend([0xeb, 0xfe]);
    std::fs::write(build.join("vmlinux"), &elf).unwrap();
    let kernels = store.ok(&["kernel", "ls"]);
    let (text, took) = rows();
    let row = text.lines().find(|line| line.starts_with("lab kernel")).expect("a row");
    assert!(row.contains("warn") && row.contains("does not boot on this host's KVM"), "{row}");
    assert!(!text.contains("--kernel lab"), "{text}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(store.ok(&["ls", "-q"]), "");
    assert_eq!(store.ok(&["kernel", "ls"]), kernels, "nothing of it stays");
    assert!(store.ok(&["kernel", "ls"]).lines().count() > 1);
    assert_eq!(std::fs::read_dir(store.home().join("ramdisks")).unwrap().count(), 0);
}
