//! The `spore` command as a user meets it: help, exit codes, bad input, and the life of the
//! built-in guest.

mod common;

use common::{Store, has_kvm};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// One line on stderr and this exit code.
fn refused(store: &Store, args: &[&str], code: i32, says: &str) {
    let output = store.spore(args);
    let line = err(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {line}");
    assert!(line.contains(says), "{args:?}: {line}");
    assert_eq!(line.trim_end().lines().count(), 1, "{args:?}: {line}");
}

/// Launch from image `demo` with these arguments; the first instance's id.
fn launch(store: &Store, args: &[&str]) -> String {
    let ids = store.ok(&[&["run", "demo", "-q"], args].concat());
    ids.lines().next().unwrap().to_owned()
}

fn volumes(store: &Store) -> usize {
    std::fs::read_dir(store.home().join("volumes")).unwrap().count()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The help of `spore WORDS` on a terminal of 80 columns.
fn help(store: &Store, words: &[String]) -> String {
    let output = store.command(&[]).args(words).arg("--help").env("COLUMNS", "80").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{words:?}: {}", err(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let below = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    below
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn every_command_explains_itself() {
    let store = Store::new();
    let mut commands = vec![Vec::new()];
    let mut leaves = 0;
    while let Some(words) = commands.pop() {
        let help = help(&store, &words);
        if let Some(line) = help.lines().find(|line| line.chars().count() > 80) {
            panic!("{words:?}: wider than 80 columns: {line}");
        }
        let below = listed(&help);
        if below.is_empty() {
            leaves += 1;
            for part in ["Usage: spore", "Examples:", "Exit codes:", "-h, --help"] {
                assert!(help.contains(part), "{words:?} lacks {part}: {help}");
            }
            let examples = help.split("Examples:").nth(1).unwrap_or_default();
            assert!(examples.contains(&format!("spore {}", words.join(" "))), "{words:?}: {help}");
        }
        commands.extend(below.into_iter().map(|name| [words.as_slice(), &[name]].concat()));
    }
    assert!(leaves > 50, "{leaves} commands");
    // More than the line that the list of commands has.
    for command in
        ["run", "show", "logs", "console", "stop", "start", "reboot", "terminate", "wait"]
    {
        let text = help(&store, &[command.to_owned()]);
        let before = text.split("Usage:").next().unwrap_or_default();
        assert!(before.trim().lines().count() >= 3, "{command}: {before}");
    }
    for command in ["stop", "reboot"] {
        let text = help(&store, &[command.to_owned()]);
        assert!(text.contains("ACPI power button") && text.contains("120"), "{text}");
    }
    assert!(store.ok(&["--help"]).contains("Exit codes"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(store.ok(&["completions", shell]).contains("spore"), "{shell}");
    }
}

#[test]
fn a_help_offers_what_does_something_and_is_true() {
    let store = Store::new();
    for (command, quiet) in [("ls", true), ("doctor", true), ("logs", false), ("console", false)] {
        assert_eq!(store.ok(&[command, "--help"]).contains("--quiet"), quiet, "{command}");
    }
    let help = store.ok(&["run", "--help"]);
    for preset in sporevm::instance::types::TYPES {
        let size = match preset.memory_mib {
            mib if mib < 1024 => format!("{mib} MiB"),
            mib => format!("{} GiB", mib / 1024),
        };
        let row = format!("{} ({}, {size})", preset.name, preset.cpus);
        assert!(help.contains(&row), "{row}");
    }
}

/// What people type who know docker.
#[test]
fn other_programs_words_are_understood() {
    let store = Store::new();
    for other in ["ps", "list"] {
        assert_eq!(store.ok(&[other]), store.ok(&["ls"]));
    }
    for verb in ["rm", "inspect"] {
        refused(&store, &[verb, "nosuch"], 1, "InvalidInstanceID.NotFound");
    }
    // The same words do the same everywhere, and are told of.
    for kind in ["image", "volume", "snapshot", "kernel", "ramdisk"] {
        let help = store.ok(&[kind, "--help"]);
        for alias in ["list", "inspect", "rm"] {
            assert!(help.contains(&format!("{alias}]")), "{kind} {alias}: {help}");
        }
    }
    // A word of another program is led to ours, and no guess destroys anything.
    refused(&store, &["create", "demo"], 2, "what does that is 'spore run'");
    refused(&store, &["rmi", "demo"], 2, "what does that is 'spore image deregister'");
    refused(&store, &["version"], 2, "there is no command 'version'; see 'spore --help'");
    refused(&store, &["start", "-x"], 2, "unexpected argument '-x' found; see");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let store = Store::new();
    for (args, says) in [
        (&["frobnicate"][..], "; see 'spore --help'"),
        (&["termnate"], "did you mean 'spore terminate'?"),
        (&["run"], "not provided: <IMAGE>; see 'spore run --help'"),
        (&["run", "demo", "-n", "x"], "1 or more"),
        (&["run", "demo", "-n", "0"], "1 or more"),
        (&["run", "demo", "-n", "-1"], "'-1' for '--count <N|MIN:MAX>': it is N or MIN:MAX, of 1"),
        (&["run", "demo", "-n", "3:2"], "MIN:MAX"),
        (&["run", "demo", "-c", "0"], "1..=64"),
        (&["run", "demo", "-c", "65"], "1..=64"),
        (&["run", "demo", "-m", "lots"], "512M"),
        (&["run", "demo", "--tag", "novalue"], "KEY=VALUE"),
        (&["run", "demo", "--name", ""], "1 to 255 characters"),
        (&["run", "demo", "--name", "a\nb"], "control character"),
        (&["run", "demo", "--wait", "--no-wait"], "cannot be used with"),
        (&["ls", "--filter", "nonsense"], "NAME=VALUE"),
        (&["wait", "--for", "godot", "i-0"], "it is one of running"),
        (&["stop"], "see 'spore stop --help'"),
        (&["logs", "--vmm", "-f", "x"], "cannot be used with"),
        (&["image", "rm"], "see 'spore image deregister --help'"),
        (&["tag", "i-0", "i-1"], "KEY=VALUE; see 'spore tag --help'"),
    ] {
        refused(&store, args, 2, says);
    }
    // What a file is decides whether it needs a name; so it has to be there.
    let disk = store.home().join("disk");
    std::fs::write(&disk, vec![1; 1 << 20]).unwrap();
    refused(&store, &["image", "import", disk.to_str().unwrap()], 2, "--name");
    refused(&store, &["image", "import", "x"], 1, "check the file's name");
    assert_eq!(volumes(&store), 0);
}

#[test]
fn what_cannot_be_is_exit_code_1_with_ec2s_code() {
    let store = Store::new();
    for (args, says) in [
        (&["run", "nosuch"][..], "InvalidAMIID.NotFound"),
        (&["run", "nosuch"], "'spore image ls' lists them"),
        (&["show", "i-0123456789abcdef0"], "InvalidInstanceID.NotFound"),
        (&["show", "nosuch"], "'spore ls' lists them"),
        (&["kernel", "deregister", "aki-pv-grub-hd0"], "OperationNotPermitted"),
        (&["terminate", "nosuch"], "InvalidInstanceID.NotFound"),
        (&["run", "demo", "--tag", "aws:x=y"], "no key may begin with aws:"),
        (&["run", "demo", "--tag", "a=\u{1b}[2J"], "control character"),
        (&["run", "demo", "--tag", "a=1", "--tag", "a=2"], "twice"),
        (&["ls", "--filter", "colour=red"], "InvalidParameterValue"),
    ] {
        refused(&store, args, 1, says);
    }
    // One of them that is not there, and none is shown.
    for shown in
        [&["image", "show", "demo", "nosuch"][..], &["kernel", "show", "aki-pv-grub-hd0", "x"]]
    {
        assert!(store.spore(shown).stdout.is_empty());
        refused(&store, shown, 1, "NotFound");
    }
    if !has_kvm() {
        return;
    }
    for (args, says) in [
        (&["run", "demo", "-n", "100000"][..], "InstanceLimitExceeded"),
        (&["run", "demo", "-m", "100T"], "exceeds this host's memory"),
        (&["run", "demo", "-t", "x9.huge"], "InvalidParameterValue"),
        (&["run", "demo", "--kernel", "nosuch"], "InvalidAKIID.NotFound"),
    ] {
        refused(&store, args, 1, says);
    }
    refused(&store, &["run", "demo", "-m", "1M"], 2, "--memory");
    assert_eq!(volumes(&store), 0, "nothing is left behind");
    assert_eq!(store.ok(&["ls", "-q"]), "");
}

#[test]
fn four_clones_of_the_demo_say_the_same_of_their_root_and_not_of_themselves() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let text = store.ok(&["run", "demo", "-n", "4", "--wait"]);
    let lines = |word: &str| -> Vec<&str> { text.lines().filter(|l| l.contains(word)).collect() };
    let digests: std::collections::BTreeSet<_> = lines("root: sha256").into_iter().collect();
    assert_eq!(digests.len(), 1, "{text}");
    let identities: std::collections::BTreeSet<_> = lines("spore demo: i-").into_iter().collect();
    assert_eq!(identities.len(), 4, "{text}");
    assert_eq!(volumes(&store), 0, "an instance-store root leaves no trace");
    let json: Value = serde_json::from_str(&store.ok(&["ls", "-a", "-o", "json"])).unwrap();
    let instances = json["Reservations"][0]["Instances"].as_array().unwrap();
    assert_eq!(instances.len(), 4);
    for (index, instance) in instances.iter().enumerate() {
        assert_eq!(instance["AmiLaunchIndex"], index);
        assert_eq!(instance["State"]["Name"], "terminated");
        assert_eq!(instance["StateReason"]["Code"], "Client.InstanceInitiatedShutdown");
    }
}

#[test]
fn an_ebs_instance_stops_starts_and_keeps_its_volume() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = launch(
        &store,
        &["--root-device-type", "ebs", "--name", "web", "--append", "demo.mode=poweroff-on-button"],
    );
    let volume = store.describe("web")["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    let pid = store.describe(&id)["Spore"]["Pid"].clone();
    store.ok(&["reboot", "--force", &id]);
    assert_eq!(store.describe(&id)["Spore"]["Pid"], pid, "a reset stays in its process");
    // A guest hears its power button once it has set it up.
    store.ok(&["stop", &id[..10]]);
    assert_eq!(store.state(&id).0, "stopped");
    assert_eq!(store.describe(&id)["StateReason"]["Code"], "Client.UserInitiatedShutdown");
    store.ok(&["stop", &id]);
    store.ok(&["start", &id]);
    assert_eq!(store.state(&id).0, "running");
    assert_eq!(store.describe(&id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"], volume);
    refused(&store, &["wait", "--for", "stopped", "--timeout", "10ms", &id], 124, "it goes on");
    store.ok(&["terminate", &id]);
    assert_eq!(store.state(&id).0, "terminated");
    assert_eq!(volumes(&store), 0);
    store.ok(&["terminate", &id]);
    refused(&store, &["start", &id], 1, "IncorrectInstanceState");
    refused(&store, &["show", "web"], 1, "InvalidInstanceID.NotFound");
}

#[test]
fn a_killed_vmm_is_noticed_and_its_instance_starts_again() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = launch(&store, &["--root-device-type", "ebs", "--append", "demo.mode=hang"]);
    let pid = store.describe(&id)["Spore"]["Pid"].to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    store.ok(&["wait", "--for", "stopped", &id]);
    assert_eq!(store.describe(&id)["StateReason"]["Code"], "Server.InternalError");
    store.ok(&["start", &id]);
    refused(&store, &["stop", "--timeout", "abc", &id], 2, "");
    store.ok(&["stop", "--force", &id]);
    assert_eq!(store.state(&id).0, "stopped");
}

#[test]
fn an_instance_store_root_cannot_be_stopped() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = launch(&store, &["--append", "demo.mode=hang"]);
    assert_eq!(volumes(&store), 0, "the overlay lives in its descriptor only");
    refused(&store, &["stop", &id], 1, "UnsupportedOperation");
    refused(&store, &["stop", "--force", &id], 1, "UnsupportedOperation");
    assert_eq!(store.state(&id).0, "running");
}

#[test]
fn a_guest_that_panics_fails_the_wait() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    refused(&store, &["run", "demo", "--wait", "--append", "demo.mode=panic"], 1, "panic");
}

#[test]
fn standard_input_reaches_the_guest() {
    use std::io::Write;
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = launch(&store, &["--append", "demo.mode=echo"]);
    // A driver that starts clears the chip's FIFO.
    while !store.ok(&["logs", &id]).contains("echo: ready") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut child = store
        .command(&["console", &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A pasted 64 KiB, then end of transmission, on which the guest powers off.
    let mut paste = vec![b'x'; 64 << 10];
    paste.push(4);
    child.stdin.take().unwrap().write_all(&paste).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    store.ok(&["wait", "--for", "exit", &id]);
    let said = store.ok(&["logs", &id]);
    assert!(said.contains("echo: 65536 bytes"), "{}", &said[said.len().saturating_sub(200)..]);
}

#[test]
fn a_hundred_commands_at_once_do_no_harm() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = launch(&store, &["--root-device-type", "ebs", "--append", "demo.mode=hang"]);
    let commands: Vec<Vec<&str>> = (0..100)
        .map(|n| match n % 5 {
            0 => vec!["ls", "-o", "json"],
            1 => vec!["run", "demo", "--wait", "-q"],
            2 => vec!["stop", "--force", &id],
            3 => vec!["start", &id],
            _ => vec!["show", &id],
        })
        .collect();
    let children: Vec<_> = commands
        .iter()
        .map(|args| {
            let mut command = store.command(args);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for (child, args) in children.into_iter().zip(&commands) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", err(&output));
    }
    assert!(["running", "stopped"].contains(&store.state(&id).0.as_str()));
    assert_eq!(volumes(&store), 1, "every clone's volume is gone, the first instance's is not");
    store.ok(&["terminate", &id]);
    assert_eq!(volumes(&store), 0);
}

#[test]
fn a_doctor_leaves_nothing() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    assert!(store.ok(&["doctor"]).contains("ran to its end"));
    assert_eq!(store.ok(&["ls", "-q"]), "");
    assert_eq!(volumes(&store), 0);
}
