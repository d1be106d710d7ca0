//! The host file under a layer. All writes of the block engine go through here, so that a test can
//! record them and replay every order that a power loss could leave behind.

use crate::sys::file_io::{self, Part};
use crate::sys::iobuf::IoBuf;
use rustix::fs::{FallocateFlags, FileType};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// An open host file (regular file or block device).
pub(crate) struct HostFile {
    file: Arc<File>,
    #[cfg(test)]
    pub(crate) log: Option<std::sync::Mutex<Vec<Event>>>,
    /// Writes that still succeed before the file system is full.
    #[cfg(test)]
    pub(crate) room: std::sync::atomic::AtomicU64,
}

/// What was done to a file, in order.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write { offset: u64, bytes: Vec<u8> },
    Punch { offset: u64, len: u64 },
    SetLen(u64),
    Sync,
}

impl HostFile {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file: Arc::new(file),
            #[cfg(test)]
            log: None,
            #[cfg(test)]
            room: u64::MAX.into(),
        }
    }

    /// The descriptor for an engine that reads or writes data clusters in place.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Bytes in the file now; works for block devices too.
    pub(crate) fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&*self.file)?;
        if FileType::from_raw_mode(stat.st_mode).is_file() {
            return Ok(u64::try_from(stat.st_size).unwrap_or(0));
        }
        (&*self.file).seek(SeekFrom::End(0))
    }

    /// Fill `bytes` from `offset`; zeros beyond the end.
    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => {
                    bytes[done..].fill(0);
                    break;
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Fill a piece of a buffer from `offset`; zeros beyond the end.
    pub(crate) fn read_part(&self, part: Part<'_>, offset: u64) -> io::Result<()> {
        file_io::read_full(&self.file, part, offset)
    }

    /// Fill as much of a piece of a buffer as the page cache has, from its beginning; the bytes.
    pub(crate) fn read_cached(&self, part: Part<'_>, offset: u64) -> usize {
        file_io::read_cached(&self.file, part, offset)
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        self.take_room()?;
        self.file.write_all_at(bytes, offset)?;
        #[cfg(test)]
        self.record(|| Event::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    pub(crate) fn write_parts(&self, parts: &[Part<'_>], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        self.take_room()?;
        file_io::write_full(&self.file, parts, offset)?;
        #[cfg(test)]
        self.record(|| {
            let mut bytes = Vec::new();
            for part in parts {
                let at = bytes.len();
                bytes.resize(at + part.len, 0);
                part.buf.copy_out(part.start, &mut bytes[at..]);
            }
            Event::Write { offset, bytes }
        });
        Ok(())
    }

    /// Write `len` zeros.
    pub(crate) fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        const CHUNK: u64 = 1 << 20;
        let zeros = IoBuf::host(len.min(CHUNK) as usize);
        let mut at = 0;
        while at < len {
            let part = Part { buf: &zeros, start: 0, len: (len - at).min(CHUNK) as usize };
            self.write_parts(&[part], offset + at)?;
            at += part.len as u64;
        }
        Ok(())
    }

    /// Give the range's space back; it reads as zeros. Err if the file system can't.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&*self.file, flags, offset, len)?;
        #[cfg(test)]
        self.record(|| Event::Punch { offset, len });
        Ok(())
    }

    /// Zero the range without giving its space back, where the file system can.
    pub(crate) fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&*self.file, FallocateFlags::ZERO_RANGE, offset, len) {
            Ok(()) => {
                #[cfg(test)]
                self.record(|| Event::Punch { offset, len });
                Ok(())
            }
            Err(_) => self.write_zeros(offset, len),
        }
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        #[cfg(test)]
        self.record(|| Event::SetLen(len));
        Ok(())
    }

    /// Everything written so far is durable afterwards (fdatasync(2)).
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        #[cfg(test)]
        self.record(|| Event::Sync);
        Ok(())
    }

    #[cfg(test)]
    fn take_room(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        let taken = self.room.fetch_update(SeqCst, SeqCst, |room| room.checked_sub(1));
        taken.map(|_| ()).map_err(|_| rustix::io::Errno::NOSPC.into())
    }

    #[cfg(test)]
    fn record(&self, event: impl FnOnce() -> Event) {
        if let Some(log) = &self.log {
            log.lock().unwrap().push(event());
        }
    }
}
