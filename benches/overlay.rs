//! What one more volume costs: the time to make its overlay and the bytes that it takes on disk, as one JSON line.

use sporevm::block::DiskFormat;
use sporevm::block::overlay::{Backing, create};
use std::fs::File;
use std::io::Result;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

const RUNS: usize = 500;
const SIZE: u64 = 8 << 30;

fn main() -> Result<()> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut took = Vec::with_capacity(RUNS);
    for run in 0..RUNS {
        let start = Instant::now();
        let file = File::create_new(dir.path().join(format!("{run}.qcow2")))?;
        create(&file, SIZE, Some(Backing { name: "base.raw", format: DiskFormat::Raw }))?;
        took.push(start.elapsed().as_nanos() / 1000);
    }
    took.sort_unstable();
    let last = File::open(dir.path().join("0.qcow2"))?;
    last.sync_all()?;
    let bytes = last.metadata()?.blocks() * 512;
    println!(
        "{{\"p50_us\":{},\"p99_us\":{},\"bytes\":{bytes}}}",
        took[RUNS / 2],
        took[RUNS * 99 / 100]
    );
    Ok(())
}
