//! Boot menus in all their languages, whatever their bytes.

use sporevm::pvgrub::menu::{Menu, Place};
use sporevm::ext4::Kind;
use sporevm::pvgrub::{bls, extlinux, grubcfg, legacy, systemd_boot};
use std::collections::BTreeMap;

/// Every second file exists, and is the script itself.
struct EvenlyNamed<'a>(&'a str);

impl grubcfg::Files for EvenlyNamed<'_> {
    fn is_there(&self, device: &str) -> bool {
        device.len() < 6
    }
    fn stat(&self, _device: &str, path: &str) -> Option<(Kind, u64)> {
        path.len().is_multiple_of(2).then_some((Kind::File, 1))
    }
    fn read(&self, device: &str, path: &str) -> Option<String> {
        self.stat(device, path).map(|_| self.0.to_owned())
    }
    fn names(&self, _device: &str, path: &str) -> Vec<String> {
        vec![format!("{}.conf", path.len())]
    }
    fn search(&self, _by: grubcfg::By, text: &str, _hints: &[&str]) -> Option<String> {
        text.len().is_multiple_of(2).then(|| "hd0".to_owned())
    }
    fn probe(&self, device: &str, _what: grubcfg::Probe) -> Option<String> {
        Some(device.to_owned())
    }
}

/// What is tried is in the menu, and an entry is found by its own index.
fn check(menu: &Menu) {
    for wanted in [None, Some("0"), Some("a>b")] {
        for at in menu.candidates(wanted).unwrap_or_default() {
            let entry = &menu.entries[at];
            assert!(menu.find(&entry.index).is_some(), "{entry:?}");
        }
    }
}

/// Read `data` as a menu in each language.
pub fn drive(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let environment = BTreeMap::from([("saved_entry".to_owned(), "1>0".to_owned())]);
    let start = legacy::Start { device: "hd0,1", saved: None, default_file: Some(&text) };
    check(&legacy::parse(&text, &start, &EvenlyNamed(&text)));
    let files: Vec<(String, String)> = text
        .split("\n---\n")
        .enumerate()
        .map(|(n, text)| (format!("a-{n}+{n}.conf"), text.to_owned()))
        .collect();
    check(&bls::parse(&files, &Place::Menu, &environment, &text));
    let entry = |(name, text): &(String, String)| systemd_boot::configured(name, text, &Place::Menu);
    let image = |(name, text): &(String, String)| {
        systemd_boot::unified((name, "/a".into()), (1, text), text, &Place::Menu)
    };
    let items = files.iter().filter_map(entry).chain(files.iter().filter_map(image));
    check(&systemd_boot::menu(items.collect(), &text));
    let start =
        grubcfg::Start { device: "hd0", directory: "/boot/grub", environment: &environment };
    check(&grubcfg::parse(&text, &start, &EvenlyNamed(&text)).menu);
    let start = extlinux::Start { device: "hd0", directory: "/boot" };
    check(&extlinux::parse(&text, &start, &EvenlyNamed(&text)));
}

/// Those of its corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    Vec::new()
}
