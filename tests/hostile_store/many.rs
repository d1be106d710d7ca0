//! Any number of objects, names and lines of another account's.

use crate::common::skip;
use crate::salt::{self, World};
use crate::{LIMIT, MEMORY, run};
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of a record that is still read.
const LARGE: usize = 250 << 10;

fn attackers(path: &Path) {
    chown(path, Some(salt::ATTACKER), Some(salt::ATTACKER)).unwrap();
}

/// An object of the attacker's.
fn object(path: &Path, record: &str) {
    fs::create_dir(path).unwrap();
    fs::write(path.join("record.json"), record).unwrap();
    attackers(&path.join("record.json"));
    attackers(path);
}

/// Runs a command as whoever is not the attacker. It says so often that not all is listed.
fn bounded(world: &World, args: &[&str], said: &str) {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    for uid in [salt::VICTIM, 0] {
        let mut ran = run(world, uid, &args);
        if ran.took > LIMIT {
            // The host may have been busy: once more.
            ran = run(world, uid, &args);
        }
        let within = ran.code == Some(0) && ran.took < LIMIT && ran.memory < MEMORY;
        assert!(within, "{args:?}: {:?}, {:?}, {} KiB", ran.code, ran.took, ran.memory);
        assert_eq!(ran.err.matches(said).count(), 1, "{args:?}: {}", ran.err);
    }
}

/// The attacker's public image and its record.
fn bait(world: &World) -> (PathBuf, String, String) {
    let disk = world.file("disk");
    let import = ["image", "import", &disk, "--name", "bait", "--description", "short words"];
    world.ok(salt::ATTACKER, &import);
    world.ok(salt::ATTACKER, &["image", "share", "bait", "--add", "all", "--yes"]);
    let images = world.store().join("images");
    let bait = world.ok(salt::ATTACKER, &["image", "ls", "-q", "--owner", "self"]);
    let record = fs::read_to_string(images.join(&bait).join("record.json")).unwrap();
    (images, bait, record)
}

#[test]
fn records_of_any_number_and_shape_fill_nobodys_memory() {
    if !skip::is_root() {
        return;
    }
    let mapping = r#"{"DeviceName":"a"},"#;
    let mappings = format!("\"BlockDeviceMappings\": [{}", mapping.repeat(LARGE / mapping.len()));
    for (from, to) in [
        ("short words", "x".repeat(LARGE)),
        // What takes a few bytes in a file and ten times as many in memory.
        ("\"BlockDeviceMappings\": [", mappings),
    ] {
        let world = World::empty();
        let (images, bait, record) = bait(&world);
        assert!(record.contains(from), "{record}");
        for n in 0..300 {
            let id = format!("ami-f{n:016x}");
            let name = format!("\"bait {n}\"");
            let record = record.replace(&bait, &id).replacen("\"bait\"", &name, 1);
            object(&images.join(&id), &record.replace(from, &to));
        }
        bounded(&world, &["image", "ls"], "not all image records of account 64012 are listed");
    }
}

#[test]
fn instances_of_any_number_fill_nobodys_memory() {
    if !skip::is_root() {
        return;
    }
    let world = World::empty();
    let mut record: serde_json::Value =
        serde_json::from_str(include_str!("instance.json")).unwrap();
    record["OwnerId"] = salt::ATTACKER.to_string().into();
    record["Instance"]["StateReason"] =
        serde_json::json!({ "Code": "x", "Message": "x".repeat(LARGE) });
    for n in 0..300 {
        let id = format!("i-f{n:016x}");
        record["Instance"]["InstanceId"] = id.clone().into();
        object(&world.store().join("instances").join(id), &record.to_string());
    }
    bounded(&world, &["ls"], "not all instance records of account 64012 are listed");
}

/// Each is opened and looked at.
#[test]
fn directories_of_any_number_are_looked_at_up_to_a_bound() {
    if !skip::is_root() {
        return;
    }
    let world = World::empty();
    let mine = world.ok(salt::VICTIM, &["volume", "create", "--size", "1"]);
    for (place, prefix) in [("volumes", "vol-0"), ("tmp", "")] {
        let names = (0..9000).map(|n| format!("{prefix}{n:016x}\n")).collect::<String>();
        fs::write(world.installed.path("names"), names).unwrap();
        let uid = salt::ATTACKER;
        let mut make = Command::new("setpriv");
        make.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]);
        make.args(["--", "xargs", "mkdir"]).current_dir(world.store().join(place));
        make.stdin(fs::File::open(world.installed.path("names")).unwrap());
        assert!(make.status().unwrap().success());
    }
    bounded(&world, &["volume", "ls"], "not all volume records of account 64012 are listed");
    assert!(world.ok(salt::VICTIM, &["volume", "ls", "-q"]).lines().any(|id| id == mine));
}

/// An account has one directory, and may make any number.
#[test]
fn journals_of_any_number_and_shape_fill_nobodys_memory() {
    if !skip::is_root() {
        return;
    }
    let world = World::empty();
    let accounts = world.store().join("accounts");
    let line = format!(
        "{{\"EventTime\":\"2026-11-29T00:00:00Z\",\"BootMs\":1,\"BootId\":\"b\",\"AccountId\":\"{}\",\
         \"Command\":\"run\",\"Event\":\"created\",\"Kind\":\"volume\",\"Id\":\"vol-1\",\"Record\":[{}0]}}\n",
        salt::ATTACKER,
        "0,".repeat(200)
    );
    let first = accounts.join(salt::ATTACKER.to_string());
    for n in 0..50 {
        let path = if n == 0 { first.clone() } else { first.with_extension(n.to_string()) };
        fs::create_dir(&path).unwrap();
        let journal = path.join("journal.jsonl");
        match n {
            0 => fs::write(&journal, line.repeat((8 << 20) / line.len())).unwrap(),
            _ => fs::hard_link(first.join("journal.jsonl"), &journal).unwrap(),
        }
        attackers(&journal);
        attackers(&path);
    }
    bounded(&world, &["events"], "the journal of account 64012 has more than 8 MiB");
}
