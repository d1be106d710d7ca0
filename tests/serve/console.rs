//! The console, by the requests that a browser makes.

use super::common::has_kvm;
use super::{Served, Store, demo_in_mode, script};
use std::io::BufRead;

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
    script(&served, &store, "console.py", &[link, &image]);
    let (code, said) = served.end();
    assert!(code == Some(0) && !said.contains("panicked"), "{said}");
}
