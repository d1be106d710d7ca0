//! What instances are launched with, and how it is read back and changed.

use super::common::{Store, has_kvm};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

fn refused(store: &Store, arguments: &[&str], code: i32) -> String {
    let output = store.spore(arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    told
}

#[test]
fn user_data_is_read_back_byte_for_byte() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let bytes: Vec<u8> = (0..16 << 10).map(|n| (n % 251) as u8).collect();
    let file = store.home().join("data");
    std::fs::write(&file, &bytes).unwrap();
    let of_file = format!("@{}", file.display());
    let id = store.launch(&["--user-data", &of_file, "--append", "demo.mode=hang"]).remove(0);
    assert_eq!(store.spore(&["show", &id, "--user-data"]).stdout, bytes);
    let shown = store.ok(&["show", &id, "--user-data", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let value = json!({ "Value": STANDARD.encode(&bytes) });
    assert_eq!(shown, json!({ "InstanceId": id, "UserData": value }));
    store.ok(&["stop", "--force", &id]);
    store.ok(&["modify", &id, "--user-data", ""]);
    assert_eq!(store.ok(&["show", &id, "--user-data"]), "");
    let shown = store.ok(&["show", &id, "--user-data", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["UserData"], json!({}));
    std::fs::write(&file, vec![0; (16 << 10) + 1]).unwrap();
    assert!(refused(&store, &["modify", &id, "--user-data", &of_file], 1).contains("16384"));
}

#[test]
fn how_a_guest_gets_at_its_metadata_is_what_was_asked_for() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let options = "http-tokens=required,hop-limit=2";
    let run = ["--metadata", "nocloud", "--metadata-options", options];
    let id = store.launch(&[&run[..], &["--append", "demo.mode=hang"]].concat()).remove(0);
    // A volume more is nothing that keeps it from running.
    assert_eq!(store.state(&id).0, "running");
    let described = store.describe(&id);
    let found = &described["MetadataOptions"];
    assert_eq!(found["HttpTokens"], "required");
    assert_eq!(found["HttpPutResponseHopLimit"], 2);
    assert_eq!(found["HttpEndpoint"], "disabled");
    assert_eq!(described["Spore"]["NoCloud"], true);
    let told = refused(&store, &["modify", &id, "--metadata", "none"], 1);
    assert!(told.contains("stopped"), "{told}");
    store.ok(&["stop", "--force", &id]);
    store.ok(&["modify", &id, "--metadata", "ec2"]);
    let described = store.describe(&id);
    assert_eq!(described["MetadataOptions"]["HttpEndpoint"], "enabled");
    assert_eq!(described["MetadataOptions"]["HttpTokens"], "required");
    assert_eq!(described["Spore"]["NoCloud"], Value::Null);
    store.ok(&["start", &id]);
    assert_eq!(store.state(&id).0, "running");
}

#[test]
fn tags_that_guests_may_read_are_names_in_paths() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let options = ["--metadata-options", "instance-metadata-tags=enabled"];
    let bad = ["run", "demo", "--tag", "a/b=c"];
    let told = refused(&store, &[&bad[..], &options].concat(), 1);
    assert!(told.contains("'a/b'"), "{told}");
    let id = store.launch(&options).remove(0);
    refused(&store, &["tag", &id, "a/b=c"], 1);
    store.ok(&["tag", &id, "a-b=c/d"]);
    assert_eq!(store.describe(&id)["Tags"], json!([{ "Key": "a-b", "Value": "c/d" }]));
}
