//! What a terminal, a script and a program are shown.

use super::common::{Store, has_kvm};
use super::{err, lines, on_terminal};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

#[test]
fn a_table_fits_the_terminal_and_a_pipe_has_all_of_it() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let long = "a-name-that-somebody-has-made-as-long-as-names-may-be-and-then-some";
    store.launch(&["--name", long, "--append", "demo.mode=hang"]);
    for columns in [40, 60, 80] {
        let shown = on_terminal(&store, columns, "ls");
        let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns as usize, "{columns}: {shown}");
        assert!(shown.starts_with("INSTANCE") && shown.contains("i-"), "{shown}");
    }
    let shown = on_terminal(&store, 80, "ls");
    assert!(shown.contains("demo") && shown.contains("running"), "{shown}");
    let wide = on_terminal(&store, 300, "ls");
    assert!(wide.contains(long) && wide.contains(" s ago"), "{wide}");
    let piped = store.ok(&["ls"]);
    assert!(piped.contains(long) && piped.contains("MEMORY") && piped.contains("T"), "{piped}");
    let chosen = store.ok(&["ls", "--columns", "state,InstanceId"]);
    assert_eq!(chosen.split_whitespace().take(3).collect::<Vec<_>>()[..2], ["STATE", "INSTANCE"]);
    let output = store.spore(&["ls", "--columns", "colour"]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("InstanceId"), "{}", err(&output));
}

#[test]
fn csv_is_for_programs() {
    let store = Store::new();
    store.ok(&["volume", "create", "--size", "1"]);
    let csv = lines(&store, &["volume", "ls", "-o", "csv"]);
    assert_eq!(csv[0], "VolumeId,Name,State,SizeBytes,UsedBytes,InstanceId,CreateTime,SnapshotId");
    let fields: Vec<&str> = csv[1].split(',').collect();
    assert_eq!((fields[1], fields[2], fields[3], fields[5]), ("", "available", "1073741824", ""));
    assert!(fields[4].parse::<u64>().is_ok() && fields[6].ends_with('Z'), "{csv:?}");
}

#[test]
fn terminated_instances_are_seen_by_those_who_ask() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.ok(&["run", "demo", "-q", "--wait"]);
    let id = id.trim();
    assert_eq!(store.ok(&["ls", "-q"]), "");
    for args in [&["-a"][..], &[id], &["--filter", "instance-state-name=terminated"]] {
        assert_eq!(lines(&store, &[&["ls", "-q"], args].concat()), [id], "{args:?}");
    }
}

#[test]
fn a_guest_does_not_steer_the_terminal() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.ok(&["run", "demo", "-q", "--wait"]);
    let id = id.trim();
    let log = store.home().join("instances").join(id).join("console.log");
    let said = b"\x1bc\x1b[2J\x1b]0;title\x07one\r\n\x1b[31mtwo\x1b[0m\r\nthree\r\n";
    fs::write(&log, said).unwrap();
    let shown = on_terminal(&store, 80, &format!("logs {id}"));
    assert_eq!(shown.replace("\x1b[0m", ""), "one\n\x1b[31mtwo\nthree\n");
    let raw = on_terminal(&store, 80, &format!("logs --raw {id}"));
    assert_eq!(raw.as_bytes(), said);
    assert_eq!(store.spore(&["logs", id]).stdout, said, "a pipe gets every byte");
    assert_eq!(store.ok(&["logs", "-n", "1", id]), "three\r\n");
    assert_eq!(store.ok(&["logs", "--tail", "0", id]), "");
}

/// Each line has its time, and what is older than asked for is left out.
#[test]
fn a_log_says_when_what_was_said() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.ok(&["run", "demo", "-q", "--wait"]);
    let id = id.trim();
    let whole = store.ok(&["logs", id]);
    let year = |line: &str| line.get(..4).is_some_and(|year| year.parse::<u32>().is_ok());
    let stamped = store.ok(&["logs", "-t", id]);
    let bare = |line: &str| {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(year(time) && time.len() == 24 && time.ends_with('Z'), "{line:?}");
        format!("{rest}\n")
    };
    assert_eq!(
        stamped.split('\n').filter(|line| !line.is_empty()).map(bare).collect::<String>(),
        whole
    );
    assert_eq!(store.ok(&["logs", "--since", "1h", id]), whole);
    assert_eq!(
        store.ok(&["logs", "--since", "2019-01-31", "-n", "1", "-t", id]).lines().count(),
        1
    );
    assert_eq!(store.ok(&["logs", "--since", "2099-01-31T12:00Z", id]), "");
    assert_eq!(store.spore(&["logs", "--since", "soon", id]).status.code(), Some(2));
    // Of what an older program has written no time is known.
    fs::remove_file(store.home().join("instances").join(id).join("console.times")).unwrap();
    assert!(
        store.ok(&["logs", "-t", "--since", "1m", id]).lines().all(|line| line.starts_with("- "))
    );
}

/// Whoever comes late sees where the guest is, and how to leave.
#[test]
fn a_console_shows_the_last_lines_to_who_attaches() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let id = store.launch_mode("poweroff-on-button");
    store.wait_for_text(&id, "button: waiting");
    let shell = format!("exec {} console {id}", env!("CARGO_BIN_EXE_spore"));
    let mut command = Command::new("script");
    command.args(["-qec", &shell, "/dev/null"]).env("SPORE_HOME", store.home());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("attached to") {
        assert_ne!(shown.read_line(&mut said).unwrap(), 0, "it ended: {said}");
    }
    assert!(said.contains("button: waiting") && said.contains("^] detaches"), "{said}");
    store.ok(&["stop", &id]);
    shown.read_to_string(&mut said).unwrap();
    assert!(said.contains("has ended"), "{said}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn errors_are_json_where_results_are() {
    let store = Store::new();
    for (args, code, exit) in [
        (&["show", "nosuch", "-o", "json"][..], "InvalidInstanceID.NotFound", 1),
        (&["-o", "json", "image", "deregister", "nosuch"], "InvalidAMIID.NotFound", 1),
        (&["run", "-o", "json"], "InvalidParameterValue", 2),
        (&["stop", "-o", "yaml", "a", "--timeout", "x"], "InvalidParameterValue", 2),
    ] {
        let output = store.spore(args);
        let error: Value = serde_json::from_str(&err(&output)).unwrap_or_else(|e| {
            panic!("{args:?}: {e}: {}", err(&output));
        });
        assert_eq!(output.status.code(), Some(exit), "{args:?}");
        assert_eq!(error["Error"]["Code"], code, "{args:?}");
        assert_eq!(error["Spore"]["ExitCode"], exit, "{args:?}");
        assert!(error["Error"]["Message"].as_str().is_some_and(|text| !text.is_empty()));
    }
    let output = store.spore(&["show", "nosuch"]);
    assert!(err(&output).starts_with("spore: InvalidInstanceID.NotFound: "), "{}", err(&output));
}

#[test]
fn a_full_file_that_output_goes_to_is_not_the_stores_fault() {
    let store = Store::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = store.command(&["image", "ls"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let told = err(&output);
    assert!(told.contains("standard output") && !told.contains("SPORE_HOME"), "{told}");
}

#[test]
fn who_cuts_a_guest_off_hears_of_it() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let deaf = store.launch(&["-n", "2", "--name", "deaf", "--append", "demo.mode=hang"]);
    let output = store.spore(&["stop", "--timeout", "100ms", "deaf"]);
    assert!(output.status.success());
    let told = err(&output);
    assert!(told.contains("and 1 more did not shut down within 0.1 s and was cut off"), "{told}");
    store.ok(&["start", "deaf"]);
    // That several are late is said once.
    let output = store.spore(&["wait", "--for", "stopped", "--timeout", "50ms", "deaf"]);
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    assert!(deaf.iter().all(|id| err(&output).contains(id.as_str())), "{}", err(&output));
}
