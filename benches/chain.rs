//! Reading through a chain of ten layers beside a flat one of the same content: MB/s of random 4 KiB and of sequential
//! 128 KiB reads from the page cache, where the way to the data costs most, as one JSON line.

use sporevm::block::overlay::{Backing, create};
use sporevm::block::{Disk, DiskFormat, Engine, Op, open};
use sporevm::sys::iobuf::IoBuf;
use std::fs::File;
use std::io::Result;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

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
    fill(&*disk(vec![(base.try_clone()?, DiskFormat::Raw)]), 0)?;
    let mut layers = vec![(base, DiskFormat::Raw)];
    for n in 1..LAYERS {
        layers.insert(0, (overlay(dir, n)?, DiskFormat::Qcow2));
        fill(&*disk(copies(&layers)?), n)?;
    }
    Ok(layers)
}

fn copies(layers: &Layers) -> Result<Layers> {
    layers.iter().map(|(file, format)| Ok((file.try_clone()?, *format))).collect()
}

fn disk(layers: Layers) -> Arc<dyn Disk> {
    open(layers, false).unwrap_or_else(|error| panic!("{error}"))
}

/// Write the clusters of layer `n`: all of them in the base.
fn fill(disk: &dyn Disk, n: u64) -> Result<()> {
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
    let mut bytes = vec![0; 1 << 20];
    for at in (0..SIZE).step_by(bytes.len()) {
        reader.read_exact_at(&mut bytes, at)?;
        std::os::unix::fs::FileExt::write_all_at(&out, &bytes, at)?;
    }
    Ok(vec![(overlay(dir, 100)?, DiskFormat::Qcow2), (out, DiskFormat::Raw)])
}

/// MB/s of `count` reads of `len` bytes.
fn read(disk: &dyn Disk, len: u64, count: u64, random: bool) -> Result<f64> {
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
            of_deep.push(read(&*deep, len, count, random)?);
            of_flat.push(read(&*flat, len, count, random)?);
        }
        let (deep, flat) = (median(of_deep), median(of_flat));
        line.push(format!(
            "\"{name}\":{{\"layers\":{},\"deep_mb_s\":{deep:.1},\"flat_mb_s\":{flat:.1},\"share\":{:.3}}}",
            LAYERS + 1,
            deep / flat
        ));
    }
    println!("{{{}}}", line.join(","));
    Ok(())
}
