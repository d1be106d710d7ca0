//! Bad input: one line that names the thing, the cause and the remedy, the right exit code, and
//! nothing left behind.

mod common;

use common::{Store, has_kvm};
use rustix::process::{Pid, Signal};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// One line on stderr and this exit code. Gives the line.
fn refused(store: &Store, args: &[&str], code: i32) -> String {
    let output = store.spore(args);
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {line}");
    assert_eq!(line.trim_end().lines().count(), 1, "{args:?}: {line}");
    line
}

#[test]
fn a_file_that_cannot_be_read_is_the_users_to_mend() {
    let store = Store::new();
    let (nosuch, home) = (store.home().join("nosuch"), store.home().display().to_string());
    let (nosuch, of_file) = (nosuch.to_str().unwrap(), format!("@{}", nosuch.display()));
    let mut cases = vec![
        vec!["kernel", "register", nosuch],
        vec!["ramdisk", "register", nosuch],
        vec!["image", "register", "--manifest", nosuch],
        vec!["image", "register", "--manifest", &home],
        vec!["image", "import", nosuch, "--name", "web"],
        vec!["run", "demo", "--user-data", &of_file],
        vec!["run", "demo", "--block-device-mappings", &of_file],
    ];
    if has_kvm() {
        cases.push(vec!["run", "demo", "--firmware", nosuch]);
        cases.push(vec!["run", "demo", "--firmware", "/bin/sh"]);
    }
    for args in cases {
        let line = refused(&store, &args, 1);
        assert!(line.starts_with("spore: InvalidParameterValue: "), "{line}");
        assert!(line.contains("; ") || line.contains("an image has a multiple"), "{line}");
    }
}

#[test]
fn a_damaged_archive_is_to_be_fetched_again() {
    let store = Store::new();
    let disk: Vec<u8> =
        (0..1u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&disk).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&disk).unwrap();
    let zst = zstd::encode_all(&disk[..], 1).unwrap();
    for (kind, whole) in [("gz", gz.finish().unwrap()), ("xz", xz.finish().unwrap()), ("zst", zst)]
    {
        let path = store.home().join(format!("disk.{kind}"));
        let mut damaged = whole.clone();
        damaged[whole.len() / 2..][..64].fill(0);
        for content in [&whole[..whole.len() / 2], &damaged] {
            std::fs::write(&path, content).unwrap();
            let import = ["image", "import", path.to_str().unwrap(), "--name", "web"];
            let line = refused(&store, &import, 1);
            assert!(line.contains("InvalidParameterValue: "), "{line}");
            assert!(line.contains("fetch it again"), "{line}");
        }
    }
    assert_eq!(store.ok(&["snapshot", "ls", "-q"]), "");
}

#[test]
fn a_launch_that_fails_leaves_no_kernel_and_no_ramdisk() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (kernel, large) = (store.home().join("kernel"), store.home().join("large"));
    // Not the built-in one: it is registered as soon as the image is.
    std::fs::write(&kernel, [sporevm::demo::KERNEL, b"!"].concat()).unwrap();
    std::fs::write(&large, vec![7; 40 << 20]).unwrap();
    let (kernel, large) = (kernel.to_str().unwrap(), large.to_str().unwrap());
    let run = ["run", "demo", "-q", "-m", "32M", "--kernel", kernel, "--initrd", large];
    let count = |kind: &str| std::fs::read_dir(store.home().join(kind)).unwrap().count();
    store.ok(&["run", "demo", "-q", "--wait"]);
    let before = (count("kernels"), count("ramdisks"));
    assert!(!store.spore(&run).status.success());
    assert_eq!((count("kernels"), count("ramdisks")), before);
    // What was registered before stays.
    store.ok(&["ramdisk", "register", large]);
    assert!(!store.spore(&run).status.success());
    assert_eq!((count("kernels"), count("ramdisks")), (before.0, before.1 + 1));
}

#[test]
fn what_the_machine_finds_wrong_is_no_failure_of_the_host() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let large = store.home().join("large");
    std::fs::write(&large, vec![7; 40 << 20]).unwrap();
    for n in ["1", "3"] {
        let run = ["run", "demo", "-m", "32M", "-n", n, "--initrd", large.to_str().unwrap()];
        let line = refused(&store, &run, 1);
        assert!(line.starts_with("spore: InvalidParameterValue: "), "{line}");
        assert!(line.contains("--memory"), "{line}");
    }
    let count = |kind: &str| std::fs::read_dir(store.home().join(kind)).unwrap().count();
    assert_eq!((count("instances"), count("volumes")), (0, 0));
}

#[test]
fn an_interrupted_wait_says_what_goes_on() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let run = ["run", "demo", "-q", "-n", "3", "--wait", "--append", "demo.mode=hang"];
    let mut command = store.command(&run);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let running = ["ls", "-q", "--filter", "instance-state-name=running"];
    while store.ok(&running).lines().count() < 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let (told, said) = (String::from_utf8(output.stdout).unwrap(), output.stderr);
    let ids: BTreeSet<&str> = told.lines().collect();
    let left = store.ok(&running);
    assert_eq!(ids, left.lines().collect());
    assert!(ids.len() == 3, "{told}");
    let said = String::from_utf8(said).unwrap();
    let terminate = said.split('\'').nth(1).unwrap().strip_prefix("spore terminate ").unwrap();
    assert_eq!(terminate.split(' ').collect::<BTreeSet<_>>(), ids, "{said}");
}

/// What a terminal is given, line by line as it was drawn.
fn on_a_terminal(store: &Store, args: &str) -> String {
    let spore = format!("{} {args}", env!("CARGO_BIN_EXE_spore"));
    let mut script = Command::new("script");
    let script = script.args(["-qec", &spore, "/dev/null"]).env("SPORE_HOME", store.home());
    let output = script.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    // "Erase in Line", all of it (ECMA-48, 8.3.41): what is drawn there next is a line of its own.
    text.replace("\x1b[2K", "\n").replace('\r', "\n")
}

#[test]
fn progress_has_words_and_is_gone_before_the_result() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("hang");
    let drawn = on_a_terminal(&store, &format!("stop --timeout 1 {id}"));
    assert!(drawn.lines().any(|line| line.contains(" stopping (")), "{drawn:?}");
    let table = drawn.lines().position(|line| line.starts_with("INSTANCE ")).unwrap();
    assert!(drawn.lines().skip(table).all(|line| !line.contains(" stopping (")), "{drawn:?}");
    assert!(!drawn.contains("0/0"), "{drawn:?}");
}

/// What is read as a whole is read up to a limit: an endless file is refused in one line.
#[test]
fn endless_input_is_refused() {
    let store = Store::new();
    for (args, why) in [
        (&["key", "import", "mine", "-"][..], "is no public key"),
        (&["key", "import", "mine", "/dev/zero"], "is no public key"),
        (&["image", "register", "--manifest", "-"], "the manifest - is longer than 1048576 bytes"),
        (&["image", "register", "--manifest", "/dev/zero"], "the manifest /dev/zero is longer"),
        (&["run", "demo", "--user-data", "-"], "user data may have 16384 bytes at most"),
        (&["run", "demo", "--user-data", "@/dev/zero"], "user data may have 16384 bytes at most"),
        (&["run", "demo", "--block-device-mappings", "@/dev/zero"], "is longer than 1048576 bytes"),
    ] {
        let endless = std::fs::File::open("/dev/zero").unwrap();
        let output = store.command(args).stdin(endless).output().unwrap();
        let line = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {line}");
        assert!(line.contains(why) && line.trim_end().lines().count() == 1, "{args:?}: {line}");
    }
    assert_eq!(store.ok(&["ls", "-q"]), "");
}

/// Sends SIGTERM to a command, which ^C's signal is treated like and a shell's background does not
/// ignore, and waits for its end by that.
fn ended_by_a_signal(mut child: std::process::Child, args: &[&str]) {
    use std::os::unix::process::ExitStatusExt;
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    for _ in 0..600 {
        if let Some(status) = child.try_wait().unwrap() {
            let ended = status.code() == Some(143) || status.signal() == Some(15);
            return assert!(ended, "{args:?}: {status}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    panic!("{args:?} goes on after a signal");
}

/// A command that waits for what somebody on its standard input has yet to say.
#[test]
fn a_signal_ends_whoever_waits_for_standard_input() {
    let store = Store::new();
    // The built-in image is there from the first look at images on, and so is its snapshot.
    store.ok(&["image", "ls", "-q"]);
    let built_in = store.ok(&["snapshot", "ls", "-q"]);
    let mut cases = vec![
        &["key", "import", "mine", "-"][..],
        &["image", "import", "-", "--name", "web"],
        &["snapshot", "import", "-"],
        &["image", "register", "--manifest", "-"],
        &["run", "demo", "--user-data", "-"],
        &["run", "demo", "--foreground", "--user-data", "-"],
        &["run", "demo", "--rm", "--user-data", "-", "--", "true"],
    ];
    if !has_kvm() {
        cases.retain(|args| args[0] != "run");
    }
    for args in cases {
        let (input, mut output) = std::io::pipe().unwrap();
        output.write_all(b"x").unwrap();
        let mut command = store.command(args);
        command.stdin(input.try_clone().unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        while rustix::io::ioctl_fionread(&input).unwrap() > 0 {
            assert!(child.try_wait().unwrap().is_none(), "{args:?} has read nothing");
            std::thread::sleep(Duration::from_millis(10));
        }
        ended_by_a_signal(child, args);
    }
    let left = ["ls", "snapshot ls", "image ls", "key ls"].map(|verb| {
        let words: Vec<&str> = verb.split(' ').chain(["-q"]).collect();
        store.ok(&words)
    });
    assert!(left[0].is_empty() && left[1] == built_in, "{left:?}");
}

/// A command that waits for somebody to open the other end of a named pipe.
#[test]
fn a_signal_ends_whoever_waits_for_a_named_pipe() {
    let store = Store::new();
    let pipe = store.home().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let pipe = pipe.to_str().unwrap();
    let catches = |child: &std::process::Child| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() >> 14 & 1 == 1
    };
    for args in [
        &["image", "import", pipe, "--name", "web"][..],
        &["snapshot", "import", pipe],
        &["image", "register", "web", "--disk", pipe],
    ] {
        let mut command = store.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        while !catches(&child) {
            assert!(child.try_wait().unwrap().is_none(), "{args:?} does not wait");
            std::thread::sleep(Duration::from_millis(10));
        }
        ended_by_a_signal(child, args);
    }
    // Whoever writes in the end is heard.
    let import = store.command(&["image", "import", pipe, "--name", "web"]);
    let mut import = { import }.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    std::fs::write(pipe, vec![7; 1 << 20]).unwrap();
    assert!(import.wait().unwrap().success());
    assert!(store.ok(&["image", "ls", "-q"]).contains("ami-"));
}
