//! The block engine with qemu-img as the referee.

mod qcow2_support;

use qcow2_support::*;
use sporevm::block::{Content, DiskFormat, Engine, Op, Reader, import_source};
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

fn engines() -> [Engine; 2] {
    [Engine::Sync, Engine::Auto]
}

/// Random requests on an overlay over every kind of base do what they do to a plain array, across
/// reopening, and qemu-img agrees.
#[test]
fn overlays_behave_over_every_kind_of_base() {
    if !have_qemu_img() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let bytes = source(dir, 6 << 20);
    for (n, Kind { name, format, options }) in base_kinds().into_iter().enumerate() {
        let base = format!("base-{name}");
        let (src, path) = (dir.join("source.raw"), dir.join(&base));
        let mut args = vec!["convert", "-O", format];
        args.extend(options.iter().copied());
        args.extend([src.to_str().unwrap(), path.to_str().unwrap()]);
        qemu_img(&args);
        let before = std::fs::read(&path).unwrap();
        let format = if format == "raw" { DiskFormat::Raw } else { DiskFormat::Qcow2 };
        for engine in engines() {
            // Larger than the base, and not a whole number of clusters.
            let mut model = bytes.clone();
            model.resize((7 << 20) + 3 * 512, 0);
            let top = format!("top-{name}-{engine:?}");
            new_overlay(dir, &top, model.len() as u64, &base, format);
            let mut rng = Rng(0x1234 + n as u64);
            for _ in 0..3 {
                let disk = open_overlay(dir, &top, &base, format);
                let mut driver = Driver::new(&*disk, engine);
                for _ in 0..60 {
                    driver.step(&mut rng, &mut model);
                }
                drop(driver);
                disk.close().unwrap();
                judge(dir, &top, &model);
            }
        }
        assert!(std::fs::read(&path).unwrap() == before, "{name}: the base changed");
    }
}

/// Queues of several threads write pieces of the same clusters at once; no write is lost.
#[test]
fn queues_share_new_clusters_without_losing_writes() {
    if !have_qemu_img() {
        return;
    }
    const THREADS: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut model = source(dir, 8 << 20);
    for engine in engines() {
        let top = format!("top-{engine:?}");
        new_overlay(dir, &top, model.len() as u64, "source.raw", DiskFormat::Raw);
        let disk = open_overlay(dir, &top, "source.raw", DiskFormat::Raw);
        let half = model.len() as u64 / 2;
        std::thread::scope(|scope| {
            for t in 0..THREADS {
                let disk = &disk;
                scope.spawn(move || {
                    let mut driver = Driver::new(&**disk, engine);
                    let mut rng = Rng(99 + t);
                    for n in 0..half / 4096 / THREADS {
                        let offset = (n * THREADS + t) * 4096;
                        driver.write(offset, &vec![t as u8 + 1; 4096]);
                        if rng.below(40) == 0 {
                            driver.run(Op::Flush).unwrap();
                        }
                        // Meanwhile clusters of the other half come and go.
                        let offset =
                            half + (rng.below(half / THREADS / 65536) * THREADS + t) * 65536;
                        match rng.below(3) {
                            0 => driver.run(Op::Discard { offset, len: 65536 }).unwrap(),
                            _ => driver.write(offset, &vec![0x77; 65536]),
                        }
                    }
                    for n in 0..half / 65536 / THREADS {
                        let offset = half + (n * THREADS + t) * 65536;
                        driver.write(offset, &vec![t as u8 + 9; 65536]);
                    }
                });
            }
        });
        for (n, piece) in model[..half as usize].chunks_mut(4096).enumerate() {
            piece.fill((n as u64 % THREADS) as u8 + 1);
        }
        for (n, piece) in model[half as usize..].chunks_mut(65536).enumerate() {
            piece.fill((n as u64 % THREADS) as u8 + 9);
        }
        disk.close().unwrap();
        judge(dir, &top, &model);
    }
}
