//! The block engine with qemu-img as the referee.

mod qcow2_support;

use qcow2_support::{Kind, base_kinds, have_qemu_img, qemu_img, source};
use sporevm::block::{Content, DiskFormat, Reader, import_source};
use std::fs::File;

/// A base of every kind that qemu-img makes reads as what went in, and its zeros are known.
#[test]
fn every_kind_of_base_reads_as_its_source() {
    if !have_qemu_img() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bytes = source(dir.path(), 6 << 20);
    for Kind { name, format, options } in base_kinds() {
        let path = dir.path().join(format!("base-{name}"));
        let mut args = vec!["convert", "-O", format];
        args.extend(options.iter().copied());
        let src = dir.path().join("source.raw");
        args.extend([src.to_str().unwrap(), path.to_str().unwrap()]);
        qemu_img(&args);
        let declared = if format == "raw" { DiskFormat::Raw } else { DiskFormat::Qcow2 };
        let reader = import_source(File::open(&path).unwrap(), declared).unwrap();
        assert_eq!(reader.size(), bytes.len() as u64, "{name}");
        let (mut at, mut data) = (0, 0);
        while let Some(extent) = reader.extent_at(at).unwrap() {
            assert_eq!(extent.offset, at);
            let mut piece = vec![0xee; extent.len as usize];
            reader.read_exact_at(&mut piece, at).unwrap();
            let expected = &bytes[at as usize..][..piece.len()];
            assert!(piece == expected, "{name}: bytes from {at} differ");
            if extent.content == Content::Zero {
                assert!(expected.iter().all(|b| *b == 0), "{name}: {extent:?} has data");
            } else {
                data += extent.len;
            }
            at += extent.len;
        }
        assert_eq!(at, reader.size(), "{name}: extents cover the disk");
        // A cluster of 2 MiB holds data and holes together.
        let known = data < bytes.len() as u64 * 3 / 4 || name.ends_with("2m");
        assert!(known, "{name}: the source's holes are known as zeros");
    }
}

/// A reader of a chain given as files needs no backing file name, and ignores the one that is there.
#[test]
fn layers_are_the_ones_given() {
    if !have_qemu_img() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bytes = source(dir.path(), 4 << 20);
    let top = dir.path().join("top.qcow2");
    let base = dir.path().join("source.raw");
    qemu_img(&["create", "-f", "qcow2", "-F", "raw", "-b", "source.raw", top.to_str().unwrap()]);
    let open = |path| File::open(path).unwrap();
    let layers = vec![(open(&top), DiskFormat::Qcow2), (open(&base), DiskFormat::Raw)];
    let reader = Reader::open(layers).unwrap();
    let mut all = vec![0; bytes.len()];
    reader.read_exact_at(&mut all, 0).unwrap();
    assert!(all == bytes);
    let alone = Reader::open(vec![(open(&top), DiskFormat::Qcow2)]).unwrap();
    alone.read_exact_at(&mut all, 0).unwrap();
    assert!(all.iter().all(|b| *b == 0));
    let refused = import_source(open(&top), DiskFormat::Qcow2).err().unwrap();
    assert!(refused.to_string().contains("source.raw"), "{refused}");
}
