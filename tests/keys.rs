//! Key pairs, judged by OpenSSH and openssl.

mod common;

use common::Store;
use common::skip::skip;
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

fn keys(store: &Store) -> Vec<Value> {
    let all: Value = serde_json::from_str(&store.ok(&["key", "ls", "-o", "json"])).unwrap();
    all["KeyPairs"].as_array().unwrap().clone()
}

fn key(store: &Store, name: &str) -> Value {
    let found = keys(store).into_iter().find(|key| key["KeyName"] == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

/// The private half's file in the store.
fn private(store: &Store, name: &str) -> PathBuf {
    let id = key(store, name)["KeyPairId"].as_str().unwrap().to_owned();
    store.home().join("key-pairs").join(id).join("private-key")
}

/// What a program says, which is there; `None` where it is not.
fn tool(words: &[&str]) -> Option<String> {
    let Ok(output) = Command::new(words[0]).args(&words[1..]).output() else {
        skip(format!("{} is missing", words[0]));
        return None;
    };
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn refused(store: &Store, arguments: &[&str], code: i32) -> String {
    let output = store.spore(arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    told
}

#[test]
fn openssh_has_the_same_public_half_of_what_is_made() {
    let store = Store::new();
    for name in ["ed25519", "rsa"] {
        let made = store.ok(&["key", "create", name, "--type", name, "-o", "json"]);
        let made: Value = serde_json::from_str(&made).unwrap();
        let (key, file) = (key(&store, name), private(&store, name));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), made["KeyMaterial"].as_str().unwrap());
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(key["KeyFingerprint"], made["KeyFingerprint"]);
        assert_eq!(key["KeyType"], name);
        let file = file.to_str().unwrap();
        let Some(public) = tool(&["ssh-keygen", "-y", "-f", file]) else { return };
        let words: Vec<&str> = public.split_whitespace().take(2).collect();
        assert_eq!(key["PublicKey"], format!("{} {name}", words.join(" ")));
    }
    // EC2's of an RSA pair that it made: SHA-1 of the private key in PKCS#8's DER.
    let file = private(&store, "rsa");
    let command = format!("openssl pkcs8 -in {} -topk8 -nocrypt -outform DER", file.display());
    let Some(digest) = tool(&["sh", "-c", &format!("{command} | openssl sha1 -c")]) else { return };
    let digest = digest.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(key(&store, "rsa")["KeyFingerprint"], digest);
}

#[test]
fn fingerprints_of_what_is_imported_are_ec2s() {
    let (store, dir) = (Store::new(), TempDir::new().unwrap());
    for (kind, bits) in [("ed25519", "256"), ("rsa", "2048"), ("rsa", "3072")] {
        let file = dir.path().join(format!("{kind}-{bits}"));
        let (text, name) = (file.to_str().unwrap(), format!("{kind}-{bits}"));
        let words = ["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-C", "a b", "-f", text];
        if tool(&words).is_none() {
            return;
        }
        store.ok(&["key", "import", &name, &format!("{text}.pub")]);
        let fingerprint = key(&store, &name)["KeyFingerprint"].as_str().unwrap().to_owned();
        assert!(!private(&store, &name).exists());
        let expected = match kind {
            "rsa" => {
                let pem = format!("ssh-keygen -e -m PKCS8 -f {text}.pub");
                let md5 = "openssl pkey -pubin -outform DER | openssl md5 -c";
                let Some(digest) = tool(&["sh", "-c", &format!("{pem} | {md5}")]) else { return };
                digest.trim().rsplit(' ').next().unwrap().to_owned()
            }
            _ => {
                let line = tool(&["ssh-keygen", "-l", "-f", text]).unwrap();
                let digest = line.split_whitespace().nth(1).unwrap();
                format!("{}=", digest.strip_prefix("SHA256:").unwrap())
            }
        };
        assert_eq!(fingerprint, expected, "{name}");
        // The private half in the place of the public one.
        let told = refused(&store, &["key", "import", "other", text], 1);
        assert!(told.contains("InvalidKey.Format") || told.contains("private key"), "{told}");
        assert!(!told.contains("BEGIN"), "{told}");
    }
    assert_eq!(keys(&store).len(), 3);
}

#[test]
fn pairs_have_tags_as_all_else_has() {
    let store = Store::new();
    store.ok(&["key", "create", "ci", "--tag", "Env=test"]);
    store.ok(&["key", "create", "other"]);
    let named = |filter: &str| store.ok(&["key", "ls", "-q", "--filter", filter]);
    let id = key(&store, "ci")["KeyPairId"].as_str().unwrap().to_owned();
    assert_eq!(named("tag:Env=test"), format!("{id}\n"));
    store.ok(&["tag", "ci", "Owner=alice"]);
    store.ok(&["tag", &id, "Env=prod"]);
    assert_eq!(key(&store, "ci")["Tags"].as_array().unwrap().len(), 2);
    assert_eq!(named("tag:Env=test"), "");
    store.ok(&["untag", &id, "Env", "Owner"]);
    assert_eq!(named("tag-key=Owner,Env"), "");
    refused(&store, &["key", "create", "bad", "--tag", "aws:x=1"], 1);
    assert_eq!(keys(&store).len(), 2);
}

#[test]
fn a_name_is_one_pairs_and_free_again_once_it_is_removed() {
    let store = Store::new();
    store.ok(&["key", "create", "ci"]);
    let told = refused(&store, &["key", "create", "ci"], 1);
    assert!(told.contains("'ci' already"), "{told}");
    for bad in ["none", "", " ci", "a\nb", "\u{e9}"] {
        refused(&store, &["key", "create", bad], 1);
    }
    store.ok(&["key", "rm", "ci"]);
    assert!(refused(&store, &["key", "rm", "ci"], 1).contains("no key pair 'ci'"));
    store.ok(&["key", "create", "ci"]);
    assert_eq!(keys(&store).len(), 1);
    let id = key(&store, "ci")["KeyPairId"].as_str().unwrap().to_owned();
    store.ok(&["key", "rm", &id]);
    assert!(keys(&store).is_empty());
}

#[test]
fn a_key_comes_by_standard_input_and_not_for_ever() {
    let store = Store::new();
    let import = |name: &str, text: &[u8]| {
        let mut command = store.command(&["key", "import", name, "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // It may have read enough.
        let _ = child.stdin.take().unwrap().write_all(text);
        child.wait_with_output().unwrap()
    };
    let public =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEjCYNDOWJlPvgUvMfXzSxVFyvKwBbJTdaEsUE3hdmtb x\n";
    assert!(import("good", public.as_bytes()).status.success());
    for bad in [&b"\xff\xfe"[..], &vec![b'x'; 1 << 20], b""] {
        let output = import("bad", bad);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
    }
    assert_eq!(keys(&store).len(), 1);
}

#[test]
fn an_instance_has_the_key_that_is_named_or_the_stores() {
    if !common::has_kvm() {
        return;
    }
    let store = Store::new();
    store.ok(&["key", "create", "ci"]);
    let told = refused(&store, &["run", "demo", "--key", "absent"], 1);
    assert!(told.contains("no key pair 'absent'"), "{told}");
    let of = |arguments: &[&str]| store.describe(&store.launch(arguments)[0]);
    let (named, first, second) = (of(&["--key", "ci"]), of(&[]), of(&[]));
    let none = of(&["--key", "none"]);
    assert_eq!(named["KeyName"], "ci");
    assert_eq!(named["Spore"]["PublicKey"], key(&store, "ci")["PublicKey"]);
    assert_eq!((&first["KeyName"], &second["KeyName"]), (&"default".into(), &"default".into()));
    assert_eq!(first["Spore"]["PublicKey"], second["Spore"]["PublicKey"]);
    assert_eq!(first["Spore"]["PublicKey"], key(&store, "default")["PublicKey"]);
    assert_eq!((&none["KeyName"], &none["Spore"]["PublicKey"]), (&Value::Null, &Value::Null));
    assert!(Path::new(&private(&store, "default")).exists());
    // What it was launched with stays, whatever becomes of the pair.
    store.ok(&["key", "rm", "ci"]);
    let id = named["InstanceId"].as_str().unwrap();
    assert_eq!(store.describe(id)["Spore"]["PublicKey"], named["Spore"]["PublicKey"]);
}

/// A Spore that is older does not have all kinds of objects.
#[test]
fn a_store_of_an_earlier_spore_gets_what_it_lacks() {
    let store = Store::new();
    store.ok(&["key", "create", "first"]);
    store.ok(&["key", "rm", "first"]);
    for place in ["networks", "key-pairs"] {
        std::fs::remove_dir(store.home().join(place)).unwrap();
    }
    assert_eq!(store.ok(&["key", "ls", "-q"]), "");
    store.ok(&["network", "ls"]);
    store.ok(&["key", "create", "mine"]);
    store.ok(&["network", "create", "lab"]);
}
