//! Boot menus in all three languages, whatever their bytes.

use sporevm::pvgrub::menu::{Menu, Place};
use sporevm::pvgrub::{bls, grubcfg, legacy};
use std::collections::BTreeMap;

/// Every second file exists.
struct EvenlyNamed;

impl grubcfg::Files for EvenlyNamed {
    fn exists(&self, _place: &Place, path: &str, _nonempty: bool) -> bool {
        path.len().is_multiple_of(2)
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
    check(&legacy::parse(&text, Some("1")));
    let files: Vec<(String, String)> = text
        .split("\n---\n")
        .enumerate()
        .map(|(n, text)| (format!("a-{n}+{n}.conf"), text.to_owned()))
        .collect();
    check(&bls::parse(&files, &Place::Menu, &environment, &text));
    if let Ok(menu) = grubcfg::parse(&text, "/boot/grub", &environment, &EvenlyNamed) {
        check(&menu);
    }
}

/// Those of its corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    Vec::new()
}
