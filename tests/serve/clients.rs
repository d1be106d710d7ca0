//! Clients that are not botocore's, unmodified: each does with the demo image what people do.

use super::common::networks::has_networks;
use super::common::skip::skip;
use super::common::{Store, has_kvm, venv};
use super::{Served, script_by};
use std::path::Path;
use std::process::Command;

fn served(store: &Store) -> Served {
    let network = if has_networks(store) { "default" } else { "none" };
    Served::new(store, &["--network", network])
}

#[test]
fn libcloud_and_boto_2_do_what_they_do_on_ec2() {
    if !has_kvm() {
        return;
    }
    let Some(python) = venv::with("other-clients", &["apache-libcloud", "boto"]) else { return };
    let store = Store::new();
    let served = served(&store);
    for name in ["libcloud_client.py", "boto2_client.py"] {
        script_by(&served, &store, &python, name, &[]);
    }
}

#[test]
fn ansible_makes_and_takes_away_what_its_playbook_says() {
    if !has_kvm() {
        return;
    }
    let Some(python) = venv::with("ansible", &["ansible", "boto3"]) else { return };
    let store = Store::new();
    let served = served(&store);
    let playbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/playbook.yml");
    let mut ansible = served.client(&store, &python.with_file_name("ansible-playbook"));
    ansible.env("ANSIBLE_LOCALHOST_WARNING", "False").env("LC_ALL", "C.UTF-8");
    ansible.args(["-i", "localhost,", "-e"]);
    ansible.arg(format!("ansible_python_interpreter={}", python.display()));
    let output = ansible.arg(playbook).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_sdk_for_javascript_launches_and_waits() {
    if !has_kvm() {
        return;
    }
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("javascript");
    let sdk = packages.join("node_modules/@aws-sdk/client-ec2/package.json");
    if !sdk.exists() {
        std::fs::create_dir_all(&packages).unwrap();
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "@aws-sdk/client-ec2"]);
        let installed = npm.current_dir(&packages).output();
        if !installed.is_ok_and(|output| output.status.success()) {
            return skip("the SDK for JavaScript is missing: npm has to work");
        }
    }
    let store = Store::new();
    let served = served(&store);
    let packages = packages.to_string_lossy();
    script_by(&served, &store, Path::new("/usr/bin/node"), "client.mjs", &[&packages]);
}

#[test]
#[ignore = "builds the SDK for Rust, which takes minutes: scripts/test --clients-all"]
fn the_sdk_for_rust_and_coldsnap_launch_write_and_read() {
    if !has_kvm() {
        return;
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rust-sdk");
    // What it depends on is resolved anew in a directory of its own: nothing of it is checked in.
    let (package, sources) = (target.join("package"), "tests/serve/rust_sdk");
    std::fs::create_dir_all(&package).unwrap();
    for name in ["Cargo.toml", "main.rs"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(sources).join(name);
        std::fs::copy(file, package.join(name)).unwrap();
    }
    // Where Spore's own configuration of cargo does not reach.
    let cargo = |verb: &str| {
        let mut cargo = Command::new("cargo");
        cargo.current_dir("/").args([verb, "-q", "--manifest-path"]);
        cargo.arg(package.join("Cargo.toml")).env("CARGO_TARGET_DIR", &target);
        cargo.status().is_ok_and(|status| status.success())
    };
    if !cargo("fetch") {
        return skip("the SDK for Rust is missing: cargo fetch has to work");
    }
    assert!(cargo("build"));
    let store = Store::new();
    let served = served(&store);
    let mut client = served.client(&store, &target.join("debug/rust-sdk"));
    let scratch = tempfile::tempdir().unwrap();
    let output = client.arg(scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
