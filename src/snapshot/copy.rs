//! Sparse copying: chunks go in, what isn't zeros is written, and the digest falls out.

use crate::block::{self, Content};
use crate::context::Progress;
use crate::error::{Error, OrFail, Result};
use crate::snapshot::digest::{self, CHUNK, ChunkDigest, is_zero};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Zeros are skipped in units of a file system block.
const BLOCK: usize = 4096;

/// A sparse file that content is written into, in any order and by any number of threads.
pub struct Sparse {
    out: File,
    resumed: bool,
    digests: Mutex<BTreeMap<u64, ChunkDigest>>,
}

impl Sparse {
    /// Content for `out`: an empty file, or where `resumed` one that may have some of it, which is
    /// left.
    pub fn new(out: File, resumed: bool) -> Self {
        Self { out, resumed, digests: Mutex::default() }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.out
    }

    /// Take in a chunk: [`CHUNK`] bytes at a multiple of it, or fewer at the very end.
    ///
    /// # Errors
    /// It can't be written.
    pub fn chunk(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if is_zero(bytes) {
            return Ok(());
        }
        let digest = digest::chunk(bytes);
        self.write(offset, bytes)?;
        lock(&self.digests).insert(offset / CHUNK as u64, digest);
        Ok(())
    }

    /// Take in bytes that [`Sparse::finish`] has not to digest.
    ///
    /// # Errors
    /// They can't be written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.resumed && has(&self.out, offset, bytes) {
            return Ok(());
        }
        let written = write_sparse(&self.out, offset, bytes);
        written.or_fail(|| "write the imported disk into the store")
    }

    /// Begin again with an empty file.
    ///
    /// # Errors
    /// I/O errors.
    pub fn empty(&mut self) -> std::io::Result<()> {
        self.resumed = false;
        lock(&self.digests).clear();
        self.out.set_len(0)
    }

    /// Make everything durable, with the file `size` bytes long. The digest of its chunks.
    ///
    /// # Errors
    /// I/O errors.
    pub fn finish(&self, size: u64) -> Result<String> {
        self.out.set_len(size).or_fail(|| "set the size of the imported disk")?;
        self.out.sync_all().or_fail(|| "sync the imported disk")?;
        Ok(digest::combine(size, &lock(&self.digests)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Worker threads that digest and write chunks of a disk in any order, for whoever has one thread
/// to bring them.
pub struct Copy {
    out: Arc<Sparse>,
    send: Option<SyncSender<(u64, Vec<u8>)>>,
    workers: Vec<JoinHandle<()>>,
    failed: Arc<Mutex<Option<Error>>>,
}

impl Copy {
    /// Copy into `out`, an empty file.
    pub fn new(out: File) -> Self {
        let count = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let (send, receive) = sync_channel(2 * count);
        let (out, receive) = (Arc::new(Sparse::new(out, false)), Arc::new(Mutex::new(receive)));
        let failed = Arc::<Mutex<Option<Error>>>::default();
        let workers = (0..count)
            .map_while(|_| {
                let (out, receive, failed) = (out.clone(), receive.clone(), failed.clone());
                // Where the user may have no more threads, there are fewer, or none.
                Builder::new().spawn(move || work(&out, &receive, &failed)).ok()
            })
            .collect();
        Self { out, send: Some(send), workers, failed }
    }

    /// Take in a chunk: [`CHUNK`] bytes at a multiple of it, or fewer at the very end.
    ///
    /// # Errors
    /// An earlier chunk could not be written.
    pub fn chunk(&self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        if let Some(failed) = lock(&self.failed).take() {
            return Err(failed);
        }
        if self.workers.is_empty() {
            return self.out.chunk(offset, &bytes);
        }
        let send = self.send.as_ref().ok_or_else(|| Error::failure("the copy is finished"))?;
        send.send((offset, bytes)).or_fail(|| "hand a chunk to a copying thread")
    }

    /// Wait for everything to be written and durable, with the file `size` bytes long. The digest.
    ///
    /// # Errors
    /// A chunk could not be written.
    pub fn finish(mut self, size: u64) -> Result<String> {
        self.join();
        match lock(&self.failed).take() {
            Some(failed) => Err(failed),
            None => self.out.finish(size),
        }
    }

    fn join(&mut self) {
        self.send = None;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                *lock(&self.failed) = Some(Error::failure("a copying thread panicked"));
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

fn work(out: &Sparse, receive: &Chunks, failed: &Mutex<Option<Error>>) {
    loop {
        let next = lock(receive).recv();
        let Ok((offset, bytes)) = next else { return };
        if lock(failed).is_some() {
            continue;
        }
        if let Err(error) = out.chunk(offset, &bytes) {
            lock(failed).get_or_insert(error);
        }
    }
}

/// Whether the file has these bytes there.
fn has(out: &File, at: u64, bytes: &[u8]) -> bool {
    let mut there = vec![0; bytes.len()];
    out.read_exact_at(&mut there, at).is_ok() && there == bytes
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
    let copy = Copy::new(out);
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
    fn what_is_there_already_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let mut chunk = vec![0; CHUNK];
        chunk[..9000].fill(5);
        std::fs::write(&path, &chunk).unwrap();
        let sparse = Sparse::new(File::open(&path).unwrap(), true);
        sparse.chunk(0, &chunk).unwrap();
        chunk[0] = 6;
        assert!(sparse.chunk(0, &chunk).is_err(), "it can't be written");
    }

    #[test]
    fn a_write_error_comes_back() {
        let read_only = File::open("/dev/null").unwrap();
        let copy = Copy::new(read_only);
        let _ = copy.chunk(0, vec![1; 512]);
        assert!(copy.finish(512).is_err());
    }
}
