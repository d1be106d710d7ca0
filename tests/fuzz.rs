//! What the fuzz targets do (fuzz/drive), with every file of their corpora: what was found once is not lost again.

#[path = "../fuzz/drive/fw_cfg.rs"]
mod fw_cfg;
#[path = "../fuzz/drive/pci.rs"]
mod pci;
#[path = "../fuzz/drive/pv_disk.rs"]
mod pv_disk;
#[path = "../fuzz/drive/pv_menu.rs"]
mod pv_menu;

use std::path::Path;

/// Drive a target with its corpus.
fn replay(target: &str, drive: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for file in files {
        // A panic in what follows is about this one.
        eprintln!("{}", file.display());
        drive(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn fw_cfg_corpus() {
    replay("fw_cfg", fw_cfg::drive);
}

#[test]
fn pv_menu_corpus() {
    replay("pv_menu", pv_menu::drive);
}

#[test]
fn pv_disk_corpus() {
    replay("pv_disk", pv_disk::drive);
}

#[test]
fn pci_corpus() {
    replay("pci", pci::drive);
}
