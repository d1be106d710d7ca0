//! Layers that are exchanged while queues are at work.

use super::overlay::{self, Backing};
use super::{Disk, DiskFormat, Engine, FileDisk, Op, Queue, Reader, open, swap_all};
use crate::sys::iobuf::IoBuf;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SIZE: u64 = 8 << 20;
const SECTOR: usize = 512;

fn rw(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// A new overlay over the file called `below`.
fn layer(dir: &Path, name: &str, below: &str, format: DiskFormat) -> (PathBuf, File) {
    let file = rw(&dir.join(name));
    overlay::create(&file, SIZE, Some(Backing { name: below, format })).unwrap();
    (dir.join(name), file)
}

/// A disk over a base of fives.
fn disk(dir: &Path) -> Arc<FileDisk> {
    std::fs::write(dir.join("base"), vec![5; SIZE as usize]).unwrap();
    let (_, top) = layer(dir, "0", "base", DiskFormat::Raw);
    let base = File::open(dir.join("base")).unwrap();
    open(vec![(top, DiskFormat::Qcow2), (base, DiskFormat::Raw)], false).unwrap()
}

fn done(queue: &mut dyn Queue, op: Op) -> io::Result<()> {
    queue.submit(0, op);
    queue.submit_batch().unwrap();
    let mut result = None;
    while result.is_none() {
        queue.completions(&mut |_, done| result = Some(done));
        std::thread::yield_now();
    }
    result.unwrap()
}

fn write(queue: &mut dyn Queue, offset: u64, len: usize, byte: u8) {
    let buf = IoBuf::from_bytes(vec![byte; len].into_boxed_slice());
    done(queue, Op::Write { offset, buf }).unwrap();
}

fn content(dir: &Path, names: &[&str]) -> Vec<u8> {
    let file = |name: &&str| {
        let format = if *name == "base" { DiskFormat::Raw } else { DiskFormat::Qcow2 };
        (File::open(dir.join(name)).unwrap(), format)
    };
    let reader = Reader::open(names.iter().map(file).collect()).unwrap();
    let mut bytes = vec![0; reader.size() as usize];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn await_seal(disk: &FileDisk) {
    while !disk.layers().unwrap().sealed.unwrap() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_was_the_top_keeps_what_it_had_and_the_disk_goes_on() {
    for engine in [Engine::Sync, Engine::Auto] {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path());
        let mut queue = disk.queue(engine).unwrap();
        let mut expected = vec![5; SIZE as usize];
        let mut frozen = Vec::new();
        for n in 1..=5u8 {
            let at = 70_000 * usize::from(n) / SECTOR * SECTOR;
            write(&mut *queue, at as u64, 100 * SECTOR, n);
            expected[at..at + 100 * SECTOR].fill(n);
            let discard =
                Op::WriteZeroes { offset: 1 << 20, len: 65536 * u64::from(n), unmap: true };
            done(&mut *queue, discard).unwrap();
            expected[1 << 20..(1 << 20) + 65536 * usize::from(n)].fill(0);
            let (name, below) = (n.to_string(), (n - 1).to_string());
            let (_, top) = layer(dir.path(), &name, &below, DiskFormat::Qcow2);
            swap_all(vec![disk.prepare_swap(top).unwrap()]).unwrap();
            write(&mut *queue, at as u64 + 512, SECTOR, 0xee);
            frozen.push(expected.clone());
            expected[at + 512..at + 1024].fill(0xee);
            await_seal(&disk);
            assert_eq!(disk.layers().unwrap().layers, usize::from(n) + 2);
        }
        // A flush after the last swap, and a kill.
        done(&mut *queue, Op::Flush).unwrap();
        let all = ["5", "4", "3", "2", "1", "0", "base"];
        assert!(content(dir.path(), &all) == expected);
        for (n, frozen) in frozen.iter().enumerate() {
            assert!(content(dir.path(), &all[5 - n..]) == *frozen, "layer {n}");
            assert!(
                !overlay::is_dirty(&File::open(dir.path().join(n.to_string())).unwrap()).unwrap()
            );
        }
        // All that is below the top in one file.
        std::fs::write(dir.path().join("flat"), &frozen[4]).unwrap();
        disk.rebase(File::open(dir.path().join("flat")).unwrap(), DiskFormat::Raw).unwrap();
        assert_eq!(disk.layers().unwrap().layers, 2);
        write(&mut *queue, 0, SECTOR, 7);
        expected[..SECTOR].fill(7);
        drop(queue);
        disk.close().unwrap();
        assert!(content(dir.path(), &all) == expected);
    }
}

#[test]
fn a_flush_right_after_covers_what_was_written_before() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path());
    let mut queue = disk.queue(Engine::Auto).unwrap();
    write(&mut *queue, 0, 64 * SECTOR, 1);
    let (_, top) = layer(dir.path(), "1", "0", DiskFormat::Qcow2);
    swap_all(vec![disk.prepare_swap(top).unwrap()]).unwrap();
    write(&mut *queue, 1 << 20, SECTOR, 2);
    done(&mut *queue, Op::Flush).unwrap();
    // As after kill -9: what the files have, without a close.
    let bytes = content(dir.path(), &["1", "0", "base"]);
    assert!(bytes[..64 * SECTOR].iter().all(|&byte| byte == 1));
    assert!(bytes[1 << 20..(1 << 20) + SECTOR].iter().all(|&byte| byte == 2));
}

#[test]
fn overlays_that_are_not_empty_or_of_another_size_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let one = disk(dir.path());
    let (_, used) = layer(dir.path(), "used", "0", DiskFormat::Qcow2);
    let other = open(vec![(used.try_clone().unwrap(), DiskFormat::Qcow2)], false).unwrap();
    write(&mut *other.queue(Engine::Sync).unwrap(), 0, SECTOR, 1);
    other.close().unwrap();
    assert!(one.prepare_swap(used).err().unwrap().to_string().contains("not empty"));
    let small = rw(&dir.path().join("small"));
    overlay::create(&small, SIZE / 2, None).unwrap();
    assert!(one.prepare_swap(small).err().unwrap().to_string().contains("as large"));
    assert!(one.prepare_swap(File::open(dir.path().join("base")).unwrap()).is_err());
    let base = File::open(dir.path().join("base")).unwrap();
    let read_only = open(vec![(base, DiskFormat::Raw)], true).unwrap();
    let (_, top) = layer(dir.path(), "top", "base", DiskFormat::Raw);
    assert!(read_only.prepare_swap(top).is_err());
}

/// What was the disk keeps its bytes, what is new reads as zeros and can be written.
#[test]
fn a_larger_overlay_makes_the_disk_larger_under_its_queues() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path());
    let mut queue = disk.queue(Engine::Auto).unwrap();
    let buf = || IoBuf::from_bytes(vec![3; SECTOR].into_boxed_slice());
    assert!(done(&mut *queue, Op::Write { offset: SIZE, buf: buf() }).is_err(), "beyond its end");
    let large = rw(&dir.path().join("1"));
    overlay::create(&large, 2 * SIZE, Some(Backing { name: "0", format: DiskFormat::Qcow2 }))
        .unwrap();
    swap_all(vec![disk.prepare_swap(large).unwrap()]).unwrap();
    assert_eq!(disk.size(), 2 * SIZE);
    write(&mut *queue, 2 * SIZE - SECTOR as u64, SECTOR, 3);
    done(&mut *queue, Op::Flush).unwrap();
    drop(queue);
    disk.close().unwrap();
    let mut expected = vec![5; SIZE as usize];
    expected.resize(2 * SIZE as usize, 0);
    expected[2 * SIZE as usize - SECTOR..].fill(3);
    assert!(content(dir.path(), &["1", "0", "base"]) == expected);
}

/// Writes `n` to the first disk, then to the second: at each instant the first is at most one
/// ahead.
#[test]
fn disks_are_frozen_at_one_instant() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let disks: Vec<_> = dirs.iter().map(|dir| disk(dir.path())).collect();
    let over = AtomicBool::new(false);
    const SWAPS: usize = 20;
    std::thread::scope(|scope| {
        for lane in 0..3u64 {
            let (disks, over) = (&disks, &over);
            scope.spawn(move || {
                let mut queues: Vec<_> =
                    disks.iter().map(|disk| disk.queue(Engine::Sync).unwrap()).collect();
                for n in 1u64.. {
                    for queue in &mut queues {
                        let bytes = n.to_le_bytes().repeat(SECTOR / 8).into_boxed_slice();
                        let buf = IoBuf::from_bytes(bytes);
                        let at = lane * 65536 + (n % 100) * SECTOR as u64;
                        done(&mut **queue, Op::Write { offset: at, buf }).unwrap();
                    }
                    if n % 64 == 0 {
                        done(&mut *queues[0], Op::Flush).unwrap();
                    }
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        for n in 1..=SWAPS {
            std::thread::sleep(Duration::from_millis(3));
            let swap = |(disk, dir): (&Arc<FileDisk>, &tempfile::TempDir)| {
                await_seal(disk);
                let (_, top) =
                    layer(dir.path(), &n.to_string(), &(n - 1).to_string(), DiskFormat::Qcow2);
                (disk.clone(), top)
            };
            let ready: Vec<_> = disks.iter().zip(&dirs).map(swap).collect();
            let swaps = ready
                .iter()
                .map(|(disk, top)| disk.prepare_swap(top.try_clone().unwrap()).unwrap());
            swap_all(swaps.collect()).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    disks.iter().for_each(|disk| disk.close().unwrap());
    for top in 0..SWAPS {
        let names: Vec<String> = (0..=top).rev().map(|n| n.to_string()).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.push("base");
        let read = |dir: &tempfile::TempDir| content(dir.path(), &names);
        let (first, second) = (read(&dirs[0]), read(&dirs[1]));
        for lane in 0..3 {
            let last = |bytes: &[u8]| {
                let sectors = bytes[lane * 65536..lane * 65536 + 100 * SECTOR].chunks(SECTOR);
                let number = |sector: &[u8]| u64::from_le_bytes(sector[..8].try_into().unwrap());
                let numbers = sectors.map(|sector| {
                    assert!(sector.chunks(8).all(|word| word == &sector[..8]), "half a write");
                    number(sector)
                });
                numbers.filter(|n| *n < 1 << 40).max().unwrap_or(0)
            };
            let (a, b) = (last(&first), last(&second));
            assert!(a == b || a == b + 1, "layer {top}, lane {lane}: {a} and {b}");
        }
    }
}
