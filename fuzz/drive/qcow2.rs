//! A qcow2 image: header, tables, reading; repair and writing where it may be an overlay of ours.

use sporevm::block::{Disk, DiskFormat, Engine, Op, Reader, open, overlay};
use sporevm::sys::iobuf::IoBuf;

/// Most extents that are asked for: a small file may name many.
const EXTENTS: usize = 64;
/// Longest piece that is read.
const PIECE: u64 = 64 << 10;

/// Read it all, as an import does; then open it as a volume's top, repair it, read, write and close
/// it. The input says what is changed in an image that is right: runs of a 3-byte offset, a length
/// and as many bytes.
pub fn drive(data: &[u8]) {
    let (which, data) = super::number(data);
    let images = images();
    let mut bytes = images[usize::from(which) % images.len()].clone();
    let mut rest = data;
    while let Some((head, tail)) = rest.split_at_checked(4) {
        let at = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let at = at % bytes.len();
        let len = usize::from(head[3]).min(tail.len()).min(bytes.len() - at);
        bytes[at..at + len].copy_from_slice(&tail[..len]);
        rest = &tail[usize::from(head[3]).min(tail.len())..];
    }
    read(&bytes);
    write(&bytes);
}

fn read(bytes: &[u8]) {
    let Ok(reader) = Reader::open(vec![(super::file(bytes), DiskFormat::Qcow2)]) else { return };
    for extent in reader.extents().take(EXTENTS) {
        let Ok(extent) = extent else { break };
        assert!(extent.len > 0 && extent.offset + extent.len <= reader.size());
        let mut piece = vec![0; extent.len.min(PIECE) as usize];
        let _ = reader.read_exact_at(&mut piece, extent.offset);
    }
    let mut last = [0; 512];
    let _ = reader.read_exact_at(&mut last, reader.size().saturating_sub(512));
}

fn write(bytes: &[u8]) {
    let file = super::file(bytes);
    let repaired = overlay::repair(&file);
    if repaired.is_ok() {
        let again = overlay::repair(&file);
        assert!(again.is_err() || again.is_ok_and(|done| done.clusters == 0), "repaired twice");
    }
    let Ok(disk) = open(vec![(file, DiskFormat::Qcow2)], false) else { return };
    let Ok(mut queue) = disk.queue(Engine::Sync) else { return };
    let last = disk.size() - 4096.min(disk.size());
    let buf = || IoBuf::from_bytes(vec![7; 4096].into());
    let ops = [
        Op::Read { offset: 0, buf: buf() },
        Op::Write { offset: 8192, buf: buf() },
        Op::Write { offset: last, buf: buf() },
        Op::Discard { offset: 0, len: 65536 },
        Op::WriteZeroes { offset: 65536, len: 4096, unmap: true },
        Op::Flush,
    ];
    for (token, op) in ops.into_iter().enumerate() {
        queue.submit(token as u64, op);
    }
    while queue.in_flight() > 0 {
        let _ = queue.submit_batch();
        queue.completions(&mut |_, _| {});
    }
    let _ = disk.close();
}

/// Images of ours: an empty one, one that was written and closed, one that was not closed. Later
/// ones are qemu-img's.
fn images() -> &'static [Vec<u8>] {
    use std::os::unix::fs::FileExt;
    static IMAGES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    IMAGES.get_or_init(|| {
        let content = |file: &std::fs::File| {
            let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let file = super::file(&[]);
        overlay::create(&file, 1 << 20, None).unwrap();
        let empty = content(&file);
        let disk = open(vec![(file.try_clone().unwrap(), DiskFormat::Qcow2)], false).unwrap();
        let mut queue = disk.queue(Engine::Sync).unwrap();
        for offset in [0, 8192, 512 << 10] {
            queue.submit(offset, Op::Write { offset, buf: IoBuf::from_bytes(vec![5; 4096].into()) });
        }
        queue.submit(1, Op::Flush);
        while queue.in_flight() > 0 {
            queue.submit_batch().unwrap();
            queue.completions(&mut |_, done| done.unwrap());
        }
        let dirty = content(&file);
        disk.close().unwrap();
        vec![empty, dirty, content(&file)]
    })
}

/// Each image as it is, and with changes in its header, tables and refcounts.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for which in 0..3u8 {
        seeds.push(vec![which]);
        // size, l1_size, l1 offset, refcount table offset, snapshots, incompatible features:
        // "Header" in qcow2.txt.
        for (at, len) in [(24u8, 8u8), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4), (72, 8), (20, 4), (96, 4)] {
            let mut seed = vec![which, 0, 0, at, len];
            seed.extend(vec![0; len.into()]);
            seeds.push(seed);
        }
        for cluster in 1..7u8 {
            seeds.push([&[which, cluster, 0, 0, 8][..], &[0x80, 0, 0, 0, 0, cluster, 0, 0]].concat());
        }
    }
    seeds
}
