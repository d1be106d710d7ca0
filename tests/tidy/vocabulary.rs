//! Private words that have given way to the field's: they don't come back.

use super::Source;

/// What is no name in src/ any more, and what is said for it.
const GONE: &[(&str, &str)] = &[
    ("Gate", "VcpuBarrier"),
    ("Seat", "VcpuThread"),
    ("Board", "MachineCore or KvmVm"),
    ("PciLine", "PciInterrupt"),
    ("Chain", "DescriptorChain or LayerChain"),
    ("CoreState", "VirtioState"),
    ("Wiring", "MsiRouter"),
    ("PciHost", "MsiRouting"),
    ("Wire", "MsixVector"),
    ("wiring", "router"),
    ("wires", "irqs or vectors"),
    ("gate", "barrier"),
    ("seat", "vcpu_thread"),
    ("Begin", "ThreadInit"),
    ("Serving", "QueueThread"),
    ("Chosen", "Selection"),
    ("Depot", "bundle::storage::Storage"),
    ("Incoming", "PendingImage"),
    ("told", "reported, described or announced"),
    ("boots", "boot_records or uses"),
    ("Boots", "BootRecords"),
    ("essence", "journal_view"),
    ("note_of", "append_event_of"),
    ("own_ramdisk", "copy_ramdisk_to_caller"),
    ("sweep_void", "remove_empty_dir"),
];

/// Files whose names were such words.
const GONE_FILES: &[(&str, &str)] = &[
    ("src/virtio/transport/pci/line.rs", "interrupt.rs"),
    ("src/instance/supply.rs", "resources.rs"),
    ("src/instance/pv.rs", "boot_menu.rs"),
    ("src/instance/imaging.rs", "create_image.rs"),
    ("src/instance/space.rs", "disk_usage.rs"),
    ("src/service/boots.rs", "kernels.rs"),
    ("src/transfer/bundle/depot.rs", "storage.rs"),
    ("src/transfer/incoming.rs", "pending.rs"),
    ("src/transfer/place.rs", "endpoint.rs"),
];

/// The names in a source that are such words.
pub fn vocabulary(source: &Source) -> Vec<String> {
    if source.module().is_none() {
        return vec![];
    }
    let file = GONE_FILES.iter().find(|(path, _)| source.path.to_str() == Some(path));
    let mut found: Vec<String> =
        file.map(|(_, say)| source.complaint(1, &format!("is called {say}"))).into_iter().collect();
    let name = |c: char| c.is_alphanumeric() || c == '_';
    for (number, line) in source.code() {
        // What stands between quotes is a sentence for a reader and no name.
        let names: String = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let words: Vec<&str> = names.split(|c| !name(c)).collect();
        let bad = GONE.iter().filter(|(gone, _)| words.contains(gone));
        found.extend(
            bad.map(|(gone, say)| source.complaint(number, &format!("{gone} is called {say}"))),
        );
    }
    found
}

#[test]
fn words_that_are_gone_are_found() {
    let found = |path: &str, text: &str| vocabulary(&Source::new(path, text)).len();
    assert_eq!(found("src/vmm/a.rs", "struct Gate;\nfn f(_: &Depot) {}\n// Gate\n\"Gate\""), 2);
    assert_eq!(found("src/transfer/place.rs", "struct Gateway;"), 1);
}
