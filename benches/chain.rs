//! Reading through a chain of ten layers beside a flat one of the same content: MB/s of random 4
//! KiB and of sequential 128 KiB reads from the page cache, where the way to the data costs most.
//! And for how long the queues stand still when a disk is frozen under two writers at full speed.
//! One JSON line.

use sporevm::block::overlay::{Backing, create};
use sporevm::block::{Disk, DiskFormat, Engine, FileDisk, Op, open, swap_all};
use sporevm::sys::iobuf::IoBuf;
use std::fs::File;
use std::io::Result;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SIZE: u64 = 256 << 20;
const CLUSTER: u64 = 64 << 10;
const LAYERS: u64 = 10;
const RUNS: usize = 9;

type Layers = Vec<(File, DiskFormat)>;

fn overlay(dir: &Path, n: u64) -> Result<File> {
    let path = dir.join(n.to_string());
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    create(&file, SIZE, Some(Backing { name: "below", format: DiskFormat::Qcow2 }))?;
    Ok(file)
}

/// A base, and overlays each of which has its share of the clusters, all over the disk.
fn chain(dir: &Path) -> Result<Layers> {
    let base = File::options().read(true).write(true).create_new(true).open(dir.join("base"))?;
    base.set_len(SIZE)?;
    fill(&disk(vec![(base.try_clone()?, DiskFormat::Raw)]), 0)?;
    let mut layers = vec![(base, DiskFormat::Raw)];
    for n in 1..LAYERS {
        layers.insert(0, (overlay(dir, n)?, DiskFormat::Qcow2));
        fill(&disk(copies(&layers)?), n)?;
    }
    Ok(layers)
}

fn copies(layers: &Layers) -> Result<Layers> {
    layers.iter().map(|(file, format)| Ok((file.try_clone()?, *format))).collect()
}

fn disk(layers: Layers) -> Arc<FileDisk> {
    open(layers, false).unwrap_or_else(|error| panic!("{error}"))
}

/// Write the clusters of layer `n`: all of them in the base.
fn fill(disk: &FileDisk, n: u64) -> Result<()> {
    let mut queue = disk.queue(Engine::Sync)?;
    for cluster in (0..SIZE / CLUSTER).filter(|cluster| n == 0 || cluster * 7 % LAYERS == n) {
        let buf = IoBuf::from_bytes(vec![n as u8 + 1; CLUSTER as usize].into_boxed_slice());
        queue.submit(0, Op::Write { offset: cluster * CLUSTER, buf });
        queue.completions(&mut |_, result| result.unwrap_or_else(|error| panic!("{error}")));
    }
    drop(queue);
    disk.close()
}

/// One file with what the chain reads as, and an empty overlay over it, as a new volume has.
fn flat(dir: &Path, layers: Layers) -> Result<Layers> {
    let path = dir.join("flat");
    let out = File::options().read(true).write(true).create_new(true).open(path)?;
    let reader = sporevm::block::Reader::open(layers)?;
    let mut bytes = vec![0; CLUSTER as usize];
    // Piece by piece, as the layers were written: what the page cache holds in larger units reads
    // faster.
    for at in (0..SIZE / CLUSTER).map(|n| n * 7919 % (SIZE / CLUSTER) * CLUSTER) {
        reader.read_exact_at(&mut bytes, at)?;
        std::os::unix::fs::FileExt::write_all_at(&out, &bytes, at)?;
    }
    Ok(vec![(overlay(dir, 100)?, DiskFormat::Qcow2), (out, DiskFormat::Raw)])
}

/// MB/s of `count` reads of `len` bytes.
fn read(disk: &FileDisk, len: u64, count: u64, random: bool) -> Result<f64> {
    let mut queue = disk.queue(Engine::Sync)?;
    let (begin, mut state) = (Instant::now(), 0x5907e_u64);
    for n in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = if random { state } else { n } % (SIZE / len) * len;
        queue.submit(0, Op::Read { offset: at, buf: IoBuf::host(len as usize) });
        queue.completions(&mut |_, result| result.unwrap_or_else(|error| panic!("{error}")));
    }
    Ok((len * count) as f64 / begin.elapsed().as_secs_f64() / 1e6)
}

/// Freeze a disk again and again while two threads write to it all over.
fn freeze_busy(dir: &Path) -> Result<String> {
    let base = File::options().read(true).write(true).create_new(true).open(dir.join("busy"))?;
    base.set_len(SIZE)?;
    let (top, mut pauses) = (overlay(dir, 1000)?, Vec::new());
    let disk = disk(vec![(top, DiskFormat::Qcow2), (base, DiskFormat::Raw)]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        for lane in 0..2u64 {
            let (disk, over) = (&disk, &over);
            scope.spawn(move || -> Result<()> {
                let mut queue = disk.queue(Engine::Sync)?;
                for n in 0u64.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let at = (n * 2 + lane) * 7919 % (SIZE / 16384) * 16384;
                    queue.submit(0, Op::Write { offset: at, buf: IoBuf::host(16384) });
                    if n % 256 == 0 {
                        queue.submit(0, Op::Flush);
                    }
                    queue.completions(&mut |_, _| {});
                }
                Ok(())
            });
        }
        for n in 0..200 {
            let top = overlay(dir, 1001 + n)?;
            pauses.push(swap_all(vec![disk.prepare_swap(top)?])?.as_micros());
            std::thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    pauses.sort_unstable();
    let (p50, p99, max) = (pauses[100], pauses[198], pauses[199]);
    Ok(format!("{{\"p50_us\":{p50},\"p99_us\":{p99},\"max_us\":{max}}}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut deep = chain(dir.path())?;
    let flat = disk(flat(dir.path(), copies(&deep)?)?);
    // A new volume's own overlay on top, as launching from the chain has it.
    deep.insert(0, (overlay(dir.path(), LAYERS)?, DiskFormat::Qcow2));
    let deep = disk(deep);
    let mut line = Vec::new();
    for (name, len, count, random) in
        [("random_4k", 4 << 10, 200_000, true), ("sequential_128k", 128 << 10, 8192, false)]
    {
        let (mut of_deep, mut of_flat) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            of_deep.push(read(&deep, len, count, random)?);
            of_flat.push(read(&flat, len, count, random)?);
        }
        let (deep, flat) = (median(of_deep), median(of_flat));
        line.push(format!(
            "\"{name}\":{{\"layers\":{},\"deep_mb_s\":{deep:.1},\"flat_mb_s\":{flat:.1},\"share\":{:.3}}}",
            LAYERS + 1,
            deep / flat
        ));
    }
    line.push(format!("\"freeze_busy\":{}", freeze_busy(dir.path())?));
    println!("{{{}}}", line.join(","));
    Ok(())
}
