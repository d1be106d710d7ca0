//! What addresses an object.

use super::common::{Store, has_kvm};
use super::{lines, refused};

/// Three instances called web and one called db.
fn launched(store: &Store) -> Vec<String> {
    let run = ["run", "demo", "-q", "--append", "demo.mode=hang", "--name"];
    let mut ids = lines(store, &[&run[..], &["web", "-n", "3"]].concat());
    ids.extend(lines(store, &[&run[..], &["db"]].concat()));
    ids
}

#[test]
fn a_name_stands_for_all_that_have_it_and_an_index_for_one() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let ids = launched(&store);
    for (target, found) in [
        ("web", &ids[..3]),
        ("web-0", &ids[..1]),
        ("web.2", &ids[2..3]),
        ("w*", &ids[..3]),
        ("?b", &ids[3..]),
    ] {
        assert_eq!(lines(&store, &["ls", "-q", target]), found, "{target}");
    }
    refused(&store, &["show", "web-3"], 1, "InvalidInstanceID.NotFound");
    refused(&store, &["show", "x*"], 1, "InvalidInstanceID.NotFound");
    // What takes one instance says how to have one.
    refused(&store, &["console", "web"], 1, "addresses 3 instances");
    refused(&store, &["console", "web"], 1, "its index as in web-");
    let both = store.ok(&["logs", "web-0", "db"]);
    assert_eq!(both.lines().filter(|line| line.starts_with("-- i-")).count(), 2, "{both}");
    store.ok(&["terminate", "web-1"]);
    assert_eq!(lines(&store, &["ls", "-q", "web"]).len(), 2);
    let ec2s = ["terminate", "-q", "--filters", "Name=tag:Name,Values=web,x"];
    assert_eq!(lines(&store, &ec2s), [&*ids[0], &*ids[2]]);
    assert_eq!(lines(&store, &["terminate", "--all", "-q"]), [&*ids[3]]);
}

#[test]
fn whoever_asks_for_all_of_nothing_has_been_served() {
    let store = Store::new();
    for verb in ["stop", "start", "reboot", "terminate", "wait", "logs"] {
        assert_eq!(store.ok(&[verb, "--all"]), "", "{verb}");
        assert_eq!(store.ok(&[verb, "--filter", "tag:Name=nobody"]), "", "{verb}");
        refused(&store, &[verb], 2, "<INSTANCE>");
        refused(&store, &[verb, "--filter", "colour=red"], 1, "InvalidParameterValue");
    }
    let json = store.ok(&["terminate", "--all", "-o", "json"]);
    assert_eq!(json.replace(char::is_whitespace, ""), r#"{"TerminatingInstances":[]}"#);
    refused(&store, &["stop", "--all", "web"], 2, "cannot be used with");
}

#[test]
fn every_list_takes_names_patterns_and_filters() {
    let store = Store::new();
    let volume = |name: &str| {
        store.ok(&["volume", "create", "--size", "1", "--tag", &format!("Name={name}")])
    };
    let ids: Vec<String> = ["a1", "a2", "b"].map(|name| volume(name).trim().to_owned()).into();
    let mut some = lines(&store, &["volume", "ls", "-q", "a*"]);
    some.sort();
    let mut expected = ids[..2].to_vec();
    expected.sort();
    assert_eq!(some, expected);
    assert_eq!(
        lines(&store, &["volume", "ls", "-q", "b", "--filter", "status=available"]).len(),
        1
    );
    assert_eq!(store.ok(&["volume", "ls", "-q", "b", "--filter", "status=in-use"]), "");
    assert_eq!(
        lines(&store, &["image", "ls", "-q", "dem*"]),
        lines(&store, &["image", "ls", "-q"])
    );
    assert_eq!(lines(&store, &["kernel", "ls", "-q", "pv-grub-hd0"]), ["aki-pv-grub-hd0"]);
    refused(&store, &["snapshot", "ls", "nothing"], 1, "InvalidSnapshot.NotFound");
    refused(&store, &["ramdisk", "ls", "nothing"], 1, "InvalidARIID.NotFound");
}

#[test]
fn objects_of_every_kind_are_tagged_by_name() {
    let store = Store::new();
    let volume = store.ok(&["volume", "create", "--size", "1", "--tag", "Name=data"]);
    let volume = volume.trim();
    store.ok(&["tag", "data", "Env=test"]);
    let tagged = ["volume", "ls", "-q", "--filter", "tag:Env=test"];
    assert_eq!(lines(&store, &tagged), [volume]);
    store.ok(&["untag", "data", "Env=other"]);
    assert_eq!(lines(&store, &tagged), [volume]);
    store.ok(&["untag", "data", "Env"]);
    assert_eq!(store.ok(&tagged), "");
    let snapshot = store.ok(&["snapshot", "create", "data", "--tag", "Name=data"]);
    refused(&store, &["tag", "data", "Env=test"], 1, "objects of several kinds");
    store.ok(&["tag", snapshot.trim(), "Env=test"]);
    refused(&store, &["tag", "nothing", "Env=test"], 1, "nothing has the id or the name");
    assert_eq!(store.ok(&["tag", "--all", "Env=test"]), "");
    // What happened to an object is found by its name, by a part of its id, and after its end.
    let count = |object: &str| lines(&store, &["events", "-q", object]).len();
    assert!(count(volume) >= 3, "{}", store.ok(&["events"]));
    assert_eq!(count(&volume[..12]), count(volume));
    store.ok(&["tag", snapshot.trim(), "Name=backup"]);
    assert_eq!(count("data"), count(volume));
    let before = count(volume);
    store.ok(&["volume", "delete", "data"]);
    assert_eq!(count(volume), before + 1);
    refused(&store, &["events", "nonsense"], 1, "nothing has the id or the name");
}
