//! What a volume costs, as one JSON line: the time to make its overlay and the bytes that it takes
//! on disk; and how fast its blocks are, once written, as a share of a plain file's on the same
//! file system.

use sporevm::block::overlay::{Backing, create};
use sporevm::block::{Disk, DiskFormat, Engine, Op, Queue, open};
use sporevm::sys::iobuf::IoBuf;
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const RUNS: usize = 500;
const SIZE: u64 = 8 << 30;

/// The part of the disk that the block figures are about; it fits into the page cache.
const SPAN: u64 = 64 << 20;
/// Turns of disk and file, one after the other; their medians are compared.
const TURNS: usize = 21;
/// Bytes of one turn.
const TURN: u64 = 16 << 20;

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
    let blocks = blocks(dir.path())?;
    println!(
        "{{\"p50_us\":{},\"p99_us\":{},\"bytes\":{bytes},\"blocks\":[{}]}}",
        took[RUNS / 2],
        took[RUNS * 99 / 100],
        blocks.join(",")
    );
    Ok(())
}

/// One kind of access.
struct Pattern {
    name: &'static str,
    write: bool,
    random: bool,
    block: u64,
    /// Requests in a batch.
    depth: u64,
}

const PATTERNS: [Pattern; 6] = [
    Pattern { name: "4 KiB random write", write: true, random: true, block: 4096, depth: 1 },
    Pattern { name: "4 KiB random read", write: false, random: true, block: 4096, depth: 1 },
    Pattern {
        name: "4 KiB random write, 32 deep",
        write: true,
        random: true,
        block: 4096,
        depth: 32,
    },
    Pattern {
        name: "4 KiB random read, 32 deep",
        write: false,
        random: true,
        block: 4096,
        depth: 32,
    },
    Pattern { name: "256 KiB write", write: true, random: false, block: 256 << 10, depth: 4 },
    Pattern { name: "256 KiB read", write: false, random: false, block: 256 << 10, depth: 4 },
];

impl Pattern {
    /// Where request `n` goes: a full-period walk through the span, or one after the other.
    fn offset(&self, n: u64) -> u64 {
        let blocks = SPAN / self.block;
        let turn = if self.random { n.wrapping_mul(0x9e37_79b1).wrapping_add(12345) } else { n };
        turn % blocks * self.block
    }
}

/// Each pattern on an overlay's queue and on a file.
fn blocks(dir: &Path) -> Result<Vec<String>> {
    let file = File::options().read(true).write(true).create_new(true).open(dir.join("file"))?;
    let overlay = File::options().read(true).write(true).create_new(true).open(dir.join("disk"))?;
    create(&overlay, SPAN, None)?;
    let disk = open(vec![(overlay, DiskFormat::Qcow2)], false).map_err(Error::other)?;
    let mut queue = disk.queue(Engine::Auto)?;
    let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]);
    let ram = Arc::new(ram.map_err(Error::other)?);
    let fill = Pattern { name: "", write: true, random: false, block: 64 << 10, depth: 1 };
    (0..SPAN / TURN).try_for_each(|turn| {
        on_file(&file, &fill, turn)?;
        on_queue(&mut *queue, &ram, &fill, turn)
    })?;
    let mut lines = Vec::new();
    for pattern in &PATTERNS {
        let (mut ours, mut host) = (Vec::new(), Vec::new());
        for turn in 0..TURNS as u64 {
            let start = Instant::now();
            on_queue(&mut *queue, &ram, pattern, turn)?;
            ours.push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            on_file(&file, pattern, turn)?;
            host.push(start.elapsed().as_secs_f64());
        }
        let [ours, host] = [ours, host].map(|mut took| {
            took.sort_by(f64::total_cmp);
            TURN as f64 / 1e6 / took[TURNS / 2]
        });
        let name = pattern.name;
        lines.push(format!(
            "{{\"name\":\"{name}\",\"mb_per_s\":{ours:.1},\"file_mb_per_s\":{host:.1}}}"
        ));
    }
    Ok(lines)
}

fn on_file(file: &File, pattern: &Pattern, turn: u64) -> Result<()> {
    let mut bytes = vec![turn as u8; pattern.block as usize];
    let count = TURN / pattern.block;
    for n in 0..count {
        let offset = pattern.offset(turn * count + n);
        match pattern.write {
            true => file.write_all_at(&bytes, offset)?,
            false => file.read_exact_at(&mut bytes, offset)?,
        }
    }
    Ok(())
}

/// As a virtqueue's worker does it: A batch, its submission, its completions.
fn on_queue(
    queue: &mut dyn Queue,
    ram: &Arc<GuestMemoryMmap>,
    pattern: &Pattern,
    turn: u64,
) -> Result<()> {
    let count = TURN / pattern.block;
    for batch in 0..count / pattern.depth {
        for n in batch * pattern.depth..(batch + 1) * pattern.depth {
            let offset = pattern.offset(turn * count + n);
            let buf = IoBuf::guest(ram, &[(GuestAddress(0), pattern.block as u32)]);
            let buf = buf.ok_or("a buffer outside of memory").map_err(Error::other)?;
            let op = match pattern.write {
                true => Op::Write { offset, buf },
                false => Op::Read { offset, buf },
            };
            queue.submit(n, op);
        }
        queue.submit_batch()?;
        let mut failed = Ok(());
        loop {
            queue.completions(&mut |_, result| failed = result);
            match queue.completion_fd() {
                Some(fd) if queue.in_flight() > 0 => wait(fd)?,
                _ => break,
            }
        }
        failed?;
    }
    Ok(())
}

fn wait(fd: BorrowedFd<'_>) -> Result<()> {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None)?;
    Ok(())
}
