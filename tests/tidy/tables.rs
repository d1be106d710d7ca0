//! What leads through a disk that a guest or somebody else made (tables of its format, partitions,
//! file systems) is read by helpers and confined threads only: a command asks `src/disk`.

use super::Source;
use std::path::Path;

/// How such a thing is opened.
const OPENERS: &[&str] = &[
    "Reader::open(",
    "Qcow2File::open(",
    "LayerChain::open(",
    "import_source(",
    "overlay::repair(",
    "overlay::is_empty(",
    "overlay::name_base(",
    "Ext4::open(",
    "partitions::partitions(",
    "Vhd::open(",
    "Vmdk::open(",
    "Vhdx::open(",
];

/// Where that is, and what runs it.
const KNOWN: &[(&str, &str)] = &[
    ("src/disk/mod.rs", "raw files, which have no tables"),
    ("src/disk/inside.rs", "__disk"),
    ("src/disk/overlay.rs", "__overlay"),
    ("src/inspect/secrets/inside.rs", "__secrets"),
    ("src/import/inside/mod.rs", "__import"),
    ("src/pvgrub/volume.rs", "__pvgrub"),
    ("src/pvgrub/detect.rs", "__pvgrub"),
    ("src/block/reader.rs", "a helper's, or a VMM's confined threads"),
    ("src/block/import.rs", "a helper's"),
    ("src/block/layer.rs", "a helper's, or a VMM's confined threads"),
    ("src/block/state.rs", "a VMM's confined threads"),
    ("src/block/overlay.rs", "__overlay"),
];

/// Where the functions of `src/disk` that ask a helper for the same are called.
const ASKED: &str = "crate::disk::";

/// The lines that open elsewhere.
pub fn tables(source: &Source) -> Vec<String> {
    let tests = source.lines.iter().position(|line| line.trim() == "#[cfg(test)]");
    let path = source.path.to_string_lossy();
    let known = KNOWN.iter().any(|(place, _)| source.path == Path::new(place));
    if known || source.module().is_none() || path.ends_with("tests.rs") {
        return vec![];
    }
    let imports = |(_, line): &(usize, &str)| line.contains(ASKED) && line.contains("overlay");
    let asked = source.code().any(|line| imports(&line));
    let code = source.code().take_while(|(number, _)| tests.is_none_or(|tests| *number <= tests));
    let opens = |line: &str| {
        OPENERS.iter().any(|call| {
            let ours = asked && call.starts_with("overlay::");
            !ours && line.match_indices(call).any(|(at, _)| !within_a_name(line, at))
        })
    };
    let bad = code.filter(|(_, line)| opens(line));
    let what = "follows what is written on a disk; use src/disk, or do it in a helper and name it in tests/tidy/tables.rs";
    bad.map(|(number, _)| source.complaint(number, what)).collect()
}

/// Whether the call is the end of a longer name, as `DiskReader::open`.
fn within_a_name(line: &str, at: usize) -> bool {
    line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

#[test]
fn tables_are_read_by_helpers() {
    let found =
        |path: &str, text: &str| tables(&Source::new(path, &format!("//! A.\n{text}"))).len();
    let body = |call: &str| format!("fn f() {{ {call}a); }}");
    for call in OPENERS {
        assert_eq!(found("src/inspect/boot_method.rs", &body(call)), 1, "{call}");
        assert_eq!(found("src/disk/inside.rs", &body(call)), 0, "{call}");
        assert_eq!(found("tests/a.rs", &body(call)), 0, "{call}");
    }
    let asked = "use crate::disk::overlay;\n";
    let place = "src/volume/chain.rs";
    assert_eq!(found(place, &format!("{asked}{}", body("overlay::repair("))), 0);
    assert_eq!(found(place, &format!("{asked}{}", body("Reader::open("))), 1);
    assert_eq!(found(place, &body("WindowReader::open(")), 0);
}
