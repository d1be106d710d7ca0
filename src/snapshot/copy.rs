//! Sparse copying: chunks go in, what isn't zeros is written, and the digest falls out.

use crate::block::{self, Content};
use crate::context::Progress;
use crate::error::{Error, OrFail, Result};
use crate::snapshot::digest::{self, CHUNK, ChunkDigest};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Zeros are skipped in units of a file system block.
const BLOCK: usize = 4096;

#[derive(Default)]
struct Results {
    chunks: BTreeMap<u64, ChunkDigest>,
    failed: Option<Error>,
}

/// Worker threads that digest and write chunks of a disk in any order.
pub struct Copy {
    out: Arc<File>,
    resumed: bool,
    send: Option<SyncSender<(u64, Vec<u8>)>>,
    workers: Vec<JoinHandle<()>>,
    results: Arc<Mutex<Results>>,
}

fn lock(results: &Mutex<Results>) -> MutexGuard<'_, Results> {
    results.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copy {
    /// Copy into `out`, an empty file.
    pub fn new(out: File) -> Self {
        Self::start(out, false)
    }

    /// Copy into `out`, which may have some of it: that is left.
    pub fn resume(out: File) -> Self {
        Self::start(out, true)
    }

    fn start(out: File, resumed: bool) -> Self {
        let count = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let (send, receive) = sync_channel(2 * count);
        let (out, receive) = (Arc::new(out), Arc::new(Mutex::new(receive)));
        let results = Arc::new(Mutex::new(Results::default()));
        let workers = (0..count)
            .map_while(|_| {
                let (out, receive, results) = (out.clone(), receive.clone(), results.clone());
                let work = move || work((&out, resumed), &receive, &results);
                // Where the user may have no more threads, there are fewer, or none.
                Builder::new().spawn(work).ok()
            })
            .collect();
        Self { out, resumed, send: Some(send), workers, results }
    }

    /// Take in a chunk: [`CHUNK`] bytes at a multiple of it, or fewer at the very end.
    ///
    /// # Errors
    /// An earlier chunk could not be written.
    pub fn chunk(&self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        if let Some(failed) = lock(&self.results).failed.take() {
            return Err(failed);
        }
        if self.workers.is_empty() {
            take((&self.out, self.resumed), (offset / CHUNK as u64, bytes), &self.results);
            return Ok(());
        }
        let send = self.send.as_ref().ok_or_else(|| Error::failure("the copy is finished"))?;
        send.send((offset / CHUNK as u64, bytes)).or_fail(|| "hand a chunk to a copying thread")
    }

    /// Wait for everything to be written and durable, with the file `size` bytes long. The digest.
    ///
    /// # Errors
    /// A chunk could not be written.
    pub fn finish(mut self, size: u64) -> Result<String> {
        self.join();
        let results = std::mem::take(&mut *lock(&self.results));
        if let Some(failed) = results.failed {
            return Err(failed);
        }
        self.out.set_len(size).or_fail(|| "set the size of the imported disk")?;
        self.out.sync_all().or_fail(|| "sync the imported disk")?;
        Ok(digest::combine(size, &results.chunks))
    }

    fn join(&mut self) {
        self.send = None;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                lock(&self.results).failed = Some(Error::failure("a copying thread panicked"));
            }
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.join();
    }
}

type Chunks = Mutex<Receiver<(u64, Vec<u8>)>>;

fn work(out: (&File, bool), receive: &Chunks, results: &Mutex<Results>) {
    loop {
        let next = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(chunk) = next else { return };
        take(out, chunk, results);
    }
}

fn take((out, resumed): (&File, bool), (index, bytes): (u64, Vec<u8>), results: &Mutex<Results>) {
    if is_zero(&bytes) || lock(results).failed.is_some() {
        return;
    }
    let digest = digest::chunk(&bytes);
    let at = index * CHUNK as u64;
    let written =
        if resumed && has(out, at, &bytes) { Ok(()) } else { write_sparse(out, at, &bytes) };
    let mut results = lock(results);
    match written {
        Ok(()) => drop(results.chunks.insert(index, digest)),
        Err(cause) => {
            results.failed = Some(Error::io("write the imported disk into the store", cause));
        }
    }
}

/// Whether the file has these bytes there.
fn has(out: &File, at: u64, bytes: &[u8]) -> bool {
    let mut there = vec![0; bytes.len()];
    out.read_exact_at(&mut there, at).is_ok() && there == bytes
}

fn is_zero(bytes: &[u8]) -> bool {
    // Folding whole groups lets the compiler use vector instructions.
    bytes.chunks(64).all(|group| group.iter().fold(0, |any, byte| any | byte) == 0)
}

/// Write the runs of blocks that are not all zeros.
fn write_sparse(out: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    let mut run = 0..0;
    for at in (0..bytes.len()).step_by(BLOCK) {
        let end = bytes.len().min(at + BLOCK);
        if is_zero(&bytes[at..end]) {
            out.write_all_at(&bytes[run.clone()], offset + run.start as u64)?;
            run = end..end;
        } else {
            run.end = end;
        }
    }
    out.write_all_at(&bytes[run.clone()], offset + run.start as u64)
}

/// Copy the data extents of a disk into an empty file, which is durable then. Gives the digest.
pub(crate) fn copy_extents(
    disk: &dyn block::ImportSource,
    out: File,
    progress: &Progress,
) -> Result<String> {
    copy_extents_with(disk, Copy::new(out), progress)
}

/// As [`copy_extents`], by a [`Copy`] of the caller's.
pub(crate) fn copy_extents_with(
    disk: &dyn block::ImportSource,
    copy: Copy,
    progress: &Progress,
) -> Result<String> {
    let (size, mut at) = (disk.size(), 0);
    while let Some(extent) = disk.extent_at(at).or_fail(|| "read its metadata")? {
        progress.check()?;
        progress.at(at);
        if extent.content == Content::Zero {
            at += extent.len;
            continue;
        }
        let start = at / CHUNK as u64 * CHUNK as u64;
        let mut bytes = vec![0; (size - start).min(CHUNK as u64) as usize];
        disk.read_exact_at(&mut bytes, start).or_fail(|| format!("read it at byte {start}"))?;
        at = start + bytes.len() as u64;
        copy.chunk(start, bytes)?;
    }
    copy.finish(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_take_no_space_and_everything_else_arrives() {
        let out = tempfile::tempfile().unwrap();
        let copy = Copy::new(out.try_clone().unwrap());
        let mut first = vec![0; CHUNK];
        first[BLOCK * 3 + 7] = 1;
        copy.chunk(0, first.clone()).unwrap();
        copy.chunk(CHUNK as u64, vec![0; CHUNK]).unwrap();
        copy.chunk(2 * CHUNK as u64, vec![9; 512]).unwrap();
        let size = 2 * CHUNK as u64 + 512;
        let digest = copy.finish(size).unwrap();
        let mut back = vec![0; size as usize];
        out.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(back[..CHUNK], first);
        assert!(back[CHUNK..2 * CHUNK].iter().all(|b| *b == 0));
        assert!(back[2 * CHUNK..].iter().all(|b| *b == 9));
        assert!(out.metadata().unwrap().blocks() * 512 <= 4 * BLOCK as u64);
        assert_eq!(digest, digest::file(&out, crate::block::DiskFormat::Raw).unwrap());
    }

    #[test]
    fn a_write_error_comes_back() {
        let read_only = File::open("/dev/null").unwrap();
        let copy = Copy::new(read_only);
        let _ = copy.chunk(0, vec![1; 512]);
        assert!(copy.finish(512).is_err());
    }
}
