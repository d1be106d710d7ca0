//! The console, by the requests that a browser makes.

use super::common::has_kvm;
use super::common::networks::has_networks;
use super::common::skip::skip;
use super::{Served, Store, demo_in_mode, script};
use std::io::BufRead;
use std::path::Path;
use std::process::Command;

/// An image that has a key in it; nothing where that can't be made.
fn with_a_secret(store: &Store) -> String {
    let (root, disk) = (store.home().join("root"), store.home().join("telling.img"));
    std::fs::create_dir_all(root.join("etc/ssh")).unwrap();
    std::fs::write(root.join("etc/ssh/ssh_host_rsa_key"), "k").unwrap();
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-d"]).args([&root, &disk]).arg("16M");
    if !make.status().is_ok_and(|status| status.success()) {
        return String::new();
    }
    let disk = disk.to_string_lossy();
    let import = ["image", "import", &disk, "--name", "telling", "--format", "raw", "-q"];
    store.ok(&import).trim().to_owned()
}

/// Login, wizard, images, permissions, copies, the end; what another place's page could do, and
/// names that are pages themselves.
#[test]
fn what_a_browser_does_is_done() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let image = demo_in_mode(&store, "steady", "poweroff-on-button");
    let mut served = Served::new(&store, &["--network", "none", "--open"]);
    let mut line = String::new();
    served.stderr.read_line(&mut line).unwrap();
    let link = line.trim().strip_prefix("spore: console: ").unwrap_or_else(|| panic!("{line}"));
    let telling = with_a_secret(&store);
    script(&served, &store, "console.py", &[link, &image, &telling]);
    let (code, said) = served.end();
    assert!(code == Some(0) && !said.contains("panicked"), "{said}");
}

/// The forms of security groups, ports and Auto Scaling groups.
#[test]
fn the_consoles_forms_of_networks_and_groups_do_their_actions() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    if !has_networks(&store) {
        return;
    }
    let image = demo_in_mode(&store, "steady", "poweroff-on-button");
    let served = Served::new(&store, &[]);
    let region = tempfile::tempdir().unwrap();
    let region = region.path().join("region");
    script(&served, &store, "groups.py", &[&image, &region.to_string_lossy()]);
    let (code, said) = served.end();
    assert!(code == Some(0) && !said.contains("panicked"), "{said}");
}

/// What a browser makes of the pages: keyboard, terminal, sizes, colours, policy.
#[test]
fn a_real_browser_does_it_by_the_keyboard_and_in_a_terminal() {
    if !has_kvm() {
        return;
    }
    if !["chromium", "chromedriver"].iter().all(|name| Path::new("/usr/bin").join(name).exists()) {
        return skip("chromium and chromedriver are missing (chromium, chromium-driver)");
    }
    let store = Store::new();
    let image = demo_in_mode(&store, "echo", "echo");
    let served = Served::new(&store, &["--network", "none"]);
    let scratch = tempfile::tempdir().unwrap();
    let scratch = scratch.path().to_string_lossy();
    // Where to keep pictures of the pages, for the documentation.
    let shots = std::env::var("SCREENSHOTS").ok();
    let args: Vec<&str> = [&*image, &*scratch].into_iter().chain(shots.as_deref()).collect();
    script(&served, &store, "browser.py", &args);
    let (code, said) = served.end();
    assert!(code == Some(0) && !said.contains("panicked"), "{said}");
}
