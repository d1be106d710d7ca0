//! The block engine with qemu-img as the referee.

mod qcow2_support;
#[path = "common/skip.rs"]
mod skip;

use qcow2_support::*;
use sporevm::block::overlay::repair;
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

/// A reader of a chain given as files needs no backing file name, and ignores the one that is
/// there.
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

/// One of the operations that a victim of kill -9 does, each decided by its number alone.
fn victims_op(n: u64, sectors: u64) -> (u64, usize, Option<u8>) {
    let mut rng = Rng(n.wrapping_mul(0x9e37_79b9) + 1);
    rng.below(2);
    let offset = rng.below(sectors) * 512;
    let most = [8, 64, 400][rng.below(3) as usize];
    let len = ((1 + rng.below(most)) * 512).min(sectors * 512 - offset);
    let fill = (rng.below(5) != 0).then(|| rng.below(255) as u8 + 1);
    (offset, len as usize, fill)
}

const VICTIM_DIR: &str = "SPORE_TEST_VICTIM_DIR";
const VICTIM_SIZE: u64 = 8 << 20;

/// Not a test by itself: the child process of the next one. It writes until it is killed, and says
/// on standard error which operation was the last before each acknowledged flush.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM_DIR) else { return };
    let dir = std::path::Path::new(&dir);
    let start: u64 = std::fs::read_to_string(dir.join("start")).unwrap().parse().unwrap();
    let disk = open_overlay(dir, "top", "source.raw", DiskFormat::Raw);
    let engine = if start.is_multiple_of(2) { Engine::Auto } else { Engine::Sync };
    let mut driver = Driver::new(&*disk, engine);
    for n in start.. {
        let (offset, len, fill) = victims_op(n, VICTIM_SIZE / 512);
        match fill {
            Some(fill) => driver.write(offset, &vec![fill; len]),
            None => {
                let len = len as u64;
                driver.run(Op::WriteZeroes { offset, len, unmap: true }).unwrap();
            }
        }
        if n % 8 == 7 {
            driver.run(Op::Flush).unwrap();
            eprintln!("flushed {n}");
        }
    }
}

/// Killed with -9 again and again: what a flush acknowledged is there, and nothing is corrupt.
#[test]
fn kill_9_loses_nothing_that_was_flushed() {
    use std::io::BufRead;
    if !have_qemu_img() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut model = source(dir.path(), VICTIM_SIZE as usize);
    new_overlay(dir.path(), "top", VICTIM_SIZE, "source.raw", DiskFormat::Raw);
    let mut start = 0;
    for round in 0..12 {
        std::fs::write(dir.path().join("start"), start.to_string()).unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM_DIR, dir.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let mut flushed = start;
        let mut follow = |line: String| {
            let n = line.strip_prefix("flushed ").and_then(|n| n.parse::<u64>().ok());
            flushed = n.unwrap_or_else(|| panic!("the victim says {line}")) + 1;
        };
        lines.by_ref().take(1 + round * 3).for_each(|line| follow(line.unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it managed to say before it died counts as well.
        lines.for_each(|line| follow(line.unwrap()));

        let path = dir.path().join("top");
        let check = std::process::Command::new("qemu-img").arg("check").arg(&path).output();
        let check = check.unwrap();
        let report = String::from_utf8_lossy(&check.stdout);
        assert!(matches!(check.status.code(), Some(0 | 3)), "more than leaks: {report}");
        let leaks: u64 = report
            .lines()
            .find_map(|line| line.split_once(" leaked clusters were found")?.0.parse().ok())
            .unwrap_or(0);
        let overlay = File::options().read(true).write(true).open(&path).unwrap();
        assert_eq!(repair(&overlay).unwrap().clusters, leaks, "{report}");
        qemu_img(&["check", "-f", "qcow2", path.to_str().unwrap()]);
        let open = |name| File::open(dir.path().join(name)).unwrap();
        let layers = vec![(open("top"), DiskFormat::Qcow2), (open("source.raw"), DiskFormat::Raw)];
        let mut bytes = vec![0; model.len()];
        Reader::open(layers).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        let apply = |model: &mut [u8], n| {
            let (offset, len, fill) = victims_op(n, VICTIM_SIZE / 512);
            model[offset as usize..][..len].fill(fill.unwrap_or(0));
        };
        (start..flushed).for_each(|n| apply(&mut model, n));
        // After the last flush up to eight operations more may have been done, each sector of them
        // or not.
        let mut allowed = vec![model.clone()];
        for n in flushed..flushed + 8 {
            let mut next = allowed.last().unwrap().clone();
            apply(&mut next, n);
            allowed.push(next);
        }
        for (n, sector) in bytes.chunks(512).enumerate() {
            let range = n * 512..(n + 1) * 512;
            assert!(
                allowed.iter().any(|state| &state[range.clone()] == sector),
                "round {round}: sector {n} is neither as flushed nor as written since"
            );
        }
        (model, start) = (bytes, flushed + 8);
    }
}
