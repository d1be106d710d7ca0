//! What is packed is unpacked by helpers only: a decoder of somebody else's bytes is no part of a
//! command.

use super::Source;
use std::path::Path;

/// How something packed is unpacked.
const DECODERS: &[&str] = &[
    "zstd::bulk::decompress",
    "zstd::stream::read",
    "liblzma::",
    "lz4_flex::",
    "bzip2::",
    "flate2::read",
    "flate2::bufread",
    "GzDecoder",
    "XzDecoder",
    "ZlibDecoder",
];

/// Where that is, and what runs it: a helper, or a thread of a VMM that is confined.
const KNOWN: &[(&str, &str)] = &[
    ("src/boot/decompress.rs", "__unpack and __pvgrub"),
    ("src/block/qcow2/compressed.rs", "__import, and a VMM's confined threads"),
    ("src/block/foreign/vmdk.rs", "__import"),
    ("src/import/stream.rs", "__import"),
    ("src/import/members.rs", "__import"),
    ("src/inspect/modules/inside.rs", "__modules"),
    ("src/transfer/bundle/unpack.rs", "__unbundle"),
    ("src/import/inside/exported.rs", "__import"),
    ("src/transfer/remote/chunks.rs", "__chunks"),
];

/// The lines that unpack elsewhere.
pub fn unpacking(source: &Source) -> Vec<String> {
    let tests = source.lines.iter().position(|line| line.trim() == "#[cfg(test)]");
    let path = source.path.to_string_lossy();
    let known = KNOWN.iter().any(|(place, _)| source.path == Path::new(place));
    if known || source.module().is_none() || path.ends_with("tests.rs") {
        return vec![];
    }
    let code = source.code().take_while(|(number, _)| tests.is_none_or(|tests| *number <= tests));
    let bad = code.filter(|(_, line)| DECODERS.iter().any(|call| line.contains(call)));
    let what = "is unpacked here; do it in a helper, and say in tests/tidy/unpacking.rs in which";
    bad.map(|(number, _)| source.complaint(number, what)).collect()
}

#[test]
fn what_is_packed_is_unpacked_by_helpers() {
    let found = |path: &str, call: &str| {
        unpacking(&Source::new(path, &format!("//! A.\nfn f() {{ {call}(a); }}"))).len()
    };
    for call in ["zstd::bulk::decompress", "flate2::read::GzDecoder::new", "XzDecoder::new"] {
        assert_eq!(found("src/transfer/remote/source.rs", call), 1, "{call}");
        assert_eq!(found("src/transfer/remote/chunks.rs", call), 0, "{call}");
        assert_eq!(found("tests/a.rs", call), 0, "{call}");
    }
}
