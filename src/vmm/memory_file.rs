//! The file that a hibernated machine is in: a header of one page, RAM with its zero pages left
//! out, and the state of every part.
//!
//! RAM lies in it as it lies in the guest, so that it can be mapped in place: nothing is read
//! before the guest touches it. The header comes last, once all else is on the medium; without it
//! the file is none. RAM itself has no digest, since to check that would be to read it.

use crate::error::{Code, Error, OrFail, Result};
use crate::mem::layout::PAGE;
use crate::mem::{GuestRam, ram};
use crate::plan::{DeviceKind, DiskBus, TransportKind, VmConfig};
use crate::sys::{fault, fds};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::fs::File;
use std::iter;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

const MAGIC: &[u8; 8] = b"SPOREMEM";
const VERSION: u64 = 1;
/// RAM begins here in the file, after the header's page.
const RAM: u64 = PAGE;
/// Bytes of RAM that are mapped from the file, or not, together.
const CHUNK: u64 = 2 << 20;
/// Runs of chunks without content that stay anonymous memory, with huge pages if the guest has
/// them. Each costs a mapping: there are most where a guest writes a little everywhere.
const MOST_GAPS: usize = 64;
/// RAM is read, looked at and written so much at a time: it stays in the CPU's cache.
const PIECE: u64 = 256 << 10;
/// A page of zeros: to compare with it is the quickest look.
const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
/// Most bytes of state that are believed: 64 vCPUs with the largest registers take 2 MiB.
const MAX_STATE: u64 = 16 << 20;
/// Bytes of a SHA-256.
const DIGEST: usize = 32;
/// Numbers in the header, after the magic: version, bytes of RAM, place and length of the state.
const NUMBERS: usize = 4;
/// Bytes of the header: magic, numbers, the state's digest, and that of all this.
const HEADER: usize = 8 + NUMBERS * 8 + 2 * DIGEST;

/// What must be as it was for the guest not to notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Virtual CPUs.
    pub cpus: u8,
    /// Bytes of RAM.
    pub memory: u64,
    /// What its devices hang on.
    pub transport: TransportKind,
    /// Name, slot and what it is.
    pub devices: Vec<(String, u8, String)>,
}

impl Shape {
    /// That of a configuration.
    pub fn of(config: &VmConfig) -> Self {
        let devices = config.devices.iter().map(|device| {
            let what = match &device.kind {
                DeviceKind::Disk(disk) => match config.chipset.disk_bus {
                    DiskBus::Virtio => disk.volume_id.to_string(),
                    DiskBus::Nvme => format!("NVMe {}", disk.volume_id),
                },
                DeviceKind::Entropy => "entropy".to_owned(),
                DeviceKind::Net(net) => format!("interface {}", net.mac),
                DeviceKind::Vsock(_) => "sockets".to_owned(),
                DeviceKind::Share(share) => share.tag.clone(),
                DeviceKind::Cdrom(_) => "CD-ROM drive".to_owned(),
            };
            (device.id.to_string(), device.slot, what)
        });
        // Disks that came while it ran are not where a start has them.
        let mut devices: Vec<_> = devices.collect();
        devices.sort_by_key(|(_, slot, _)| *slot);
        Self {
            cpus: config.cpus,
            memory: config.memory,
            transport: config.chipset.transport,
            devices,
        }
    }

    /// Whether there is a device of this name.
    pub fn has(&self, id: &str) -> bool {
        self.devices.iter().any(|(name, ..)| name == id)
    }

    /// What of this machine is another in `now`, in words; `None` if nothing is.
    pub fn unlike(&self, now: &Self) -> Option<String> {
        let differs = |what: &str, then: String, now: String| {
            Some(format!("it was hibernated with {then}{what}, and has {now} now"))
        };
        if self.cpus != now.cpus {
            return differs(" CPUs", self.cpus.to_string(), now.cpus.to_string());
        }
        if self.memory != now.memory {
            let mib = |bytes: u64| (bytes >> 20).to_string();
            return differs(" MiB of memory", mib(self.memory), mib(now.memory));
        }
        if self.transport != now.transport {
            let name = |transport: TransportKind| match transport {
                TransportKind::Mmio => "virtio-mmio".to_owned(),
                TransportKind::Pci => "virtio-pci".to_owned(),
            };
            return differs("", name(self.transport), name(now.transport));
        }
        let missing = |of: &Self, there: &Self| {
            of.devices.iter().find(|device| !there.devices.contains(device)).cloned()
        };
        if let Some((name, slot, what)) = missing(self, now) {
            return Some(format!(
                "it was hibernated with device {name} ({what}) in slot {slot}, and has none there now"
            ));
        }
        let (name, slot, what) = missing(now, self)?;
        Some(format!(
            "it was hibernated without device {name} ({what}) in slot {slot}, which it has now"
        ))
    }
}

/// All that a memory file says beside RAM.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The machine.
    pub shape: Shape,
    /// The parts' states, in the order of the machine's list.
    pub parts: Vec<(String, Vec<u8>)>,
    /// Bit n % 8 of byte n / 8: chunk n of RAM has something in it.
    chunks: Vec<u8>,
}

impl Saved {
    /// The state of the part with this name.
    ///
    /// # Errors
    /// There is none.
    pub fn part(&self, name: &str) -> Result<&[u8]> {
        let found = self.parts.iter().find(|(other, _)| other == name);
        let missing = || refused(format!("its memory file has no state of {name}"));
        found.map(|(_, state)| &**state).ok_or_else(missing)
    }
}

fn header(numbers: [u64; NUMBERS], state: &[u8]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    numbers.iter().for_each(|number| header.extend(number.to_le_bytes()));
    header.extend(Sha256::digest(state));
    header.extend(Sha256::digest(&header));
    header
}

/// A machine that stands still on its way to its memory file, by as many threads as come.
pub struct Writing {
    file: Arc<File>,
    memory: GuestRam,
    shape: Shape,
    parts: Vec<(String, Vec<u8>)>,
    /// The chunk that the next thread takes.
    next: AtomicU64,
    /// Which chunks have something in them.
    filled: Vec<AtomicBool>,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Written when there is an outcome.
    finished: Arc<EventFd>,
}

#[derive(Default)]
struct Progress {
    /// Chunks that are done, or given up.
    done: usize,
    failed: Option<Error>,
    /// A thread does, or has done, what comes after RAM.
    closing: bool,
    outcome: Option<Result<()>>,
}

impl Writing {
    /// Begin to write. `file` is empty and open for reading and writing; `finished` is signalled
    /// when there is an [`Self::outcome`].
    ///
    /// # Errors
    /// The file system has no files of that size.
    pub fn begin(
        file: File,
        shape: Shape,
        parts: Vec<(String, Vec<u8>)>,
        memory: &GuestRam,
        finished: Arc<EventFd>,
    ) -> Result<Arc<Self>> {
        let ram_len = ram::size(memory);
        file.set_len(RAM + ram_len).or_fail(|| "write the memory file")?;
        Ok(Arc::new(Self {
            file: Arc::new(file),
            memory: memory.clone(),
            shape,
            parts,
            next: AtomicU64::new(0),
            filled: (0..ram_len.div_ceil(CHUNK)).map(|_| AtomicBool::new(false)).collect(),
            progress: Mutex::default(),
            changed: Condvar::new(),
            finished,
        }))
    }

    /// Every field is valid at every moment, whoever panicked.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Write chunk after chunk of RAM; one of the threads that do writes the rest when all are
    /// done, durably.
    pub fn work(&self) {
        let mut buffer = vec![0; PIECE as usize];
        while self.take_chunk(&mut buffer) {}
        let mut progress = self.progress();
        if std::mem::replace(&mut progress.closing, true) {
            return;
        }
        while progress.done < self.filled.len() {
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        let failed = progress.failed.take();
        drop(progress);
        let outcome = failed.map_or_else(|| self.close(), Err);
        self.progress().outcome = Some(outcome);
        // It fails only when the counter is full, and then the thread is woken already.
        let _ = self.finished.write(1);
    }

    /// Write one chunk more, as part of what [`Self::work`] does. False if all are taken.
    pub fn help(&self) -> bool {
        self.take_chunk(&mut vec![0; PIECE as usize])
    }

    fn take_chunk(&self, buffer: &mut [u8]) -> bool {
        let chunk = self.next.fetch_add(1, Ordering::SeqCst);
        let Some(filled) = self.filled.get(chunk as usize) else { return false };
        let given_up = self.progress().failed.is_some();
        let written = if given_up { Ok(false) } else { self.chunk(chunk * CHUNK, buffer) };
        let mut progress = self.progress();
        match written {
            Ok(any) => filled.store(any, Ordering::SeqCst),
            Err(error) => progress.failed = Some(error),
        }
        progress.done += 1;
        self.changed.notify_all();
        true
    }

    /// What became of it, once.
    ///
    /// # Errors
    /// No space, or the host's storage fails.
    pub fn outcome(&self) -> Option<Result<()>> {
        self.progress().outcome.take()
    }

    /// What comes after RAM, and the header when all else is on the medium.
    fn close(&self) -> Result<()> {
        let doing = || "write the memory file";
        let ram_len = ram::size(&self.memory);
        let mut chunks = vec![0u8; self.filled.len().div_ceil(8)];
        for (chunk, filled) in self.filled.iter().enumerate() {
            chunks[chunk / 8] |= u8::from(filled.load(Ordering::SeqCst)) << (chunk % 8);
        }
        let (shape, parts) = (self.shape.clone(), self.parts.clone());
        let state = postcard::to_stdvec(&Saved { shape, parts, chunks }).or_fail(doing)?;
        if state.len() as u64 > MAX_STATE {
            return Err(Error::failure(format!("the machine's state takes {} bytes", state.len())));
        }
        fault::vmm_point();
        self.file.write_all_at(&state, RAM + ram_len).or_fail(doing)?;
        fault::vmm_point();
        self.file.sync_data().or_fail(doing)?;
        fault::vmm_point();
        let numbers = [VERSION, ram_len, RAM + ram_len, state.len() as u64];
        self.file.write_all_at(&header(numbers, &state), 0).or_fail(doing)?;
        fault::vmm_point();
        self.file.sync_data().or_fail(doing)
    }

    /// Write the chunk from `start` on, counted from the beginning of RAM; whether it has anything.
    fn chunk(&self, start: u64, buffer: &mut [u8]) -> Result<bool> {
        let (mut base, mut any) = (0, false);
        for region in ram::regions(&self.memory) {
            let first = start.max(base);
            let end = (start + CHUNK).min(base + region.len);
            for at in (first..end).step_by(PIECE as usize) {
                let piece = &mut buffer[..PIECE.min(end - at) as usize];
                let address = GuestAddress(region.gpa + (at - base));
                self.memory.read_slice(piece, address).or_fail(|| "read guest memory")?;
                for (from, to) in filled(piece) {
                    let written = self.file.write_all_at(&piece[from..to], RAM + at + from as u64);
                    written.or_fail(|| "write the memory file")?;
                    any = true;
                }
            }
            base += region.len;
        }
        Ok(any)
    }
}

/// Runs of pages that are not all zero.
fn filled(piece: &[u8]) -> Vec<(usize, usize)> {
    let page = PAGE as usize;
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (start, bytes) in (0..).step_by(page).zip(piece.chunks(page)) {
        if bytes == &ZEROS[..bytes.len()] {
            continue;
        }
        let end = start + bytes.len();
        match runs.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => runs.push((start, end)),
        }
    }
    runs
}

/// A machine that can't go on from its memory file, for this reason.
pub fn refused(why: impl Into<String>) -> Error {
    Error::refused(Code::IncorrectInstanceState, why)
}

/// Read what a memory file says, without its RAM.
///
/// # Errors
/// It is none, of another version, damaged or cut short.
pub fn read(file: &File) -> Result<Saved> {
    let damaged = |why: &str| refused(format!("its memory file is damaged: {why}"));
    let len = fds::len(file).or_fail(|| "look at the memory file")?;
    let mut head = [0; HEADER];
    if len < PAGE || file.read_exact_at(&mut head, 0).is_err() {
        return Err(damaged("it is cut short"));
    }
    if &head[..8] != MAGIC {
        return Err(damaged("it does not begin as one"));
    }
    let (said, digest) = head.split_at(HEADER - DIGEST);
    let word = |n: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[8 + 8 * n + byte]));
    let [version, ram_len, offset, state_len] = std::array::from_fn::<u64, NUMBERS, _>(word);
    if version != VERSION {
        return Err(refused(format!(
            "its memory file has version {version}; this Spore reads version {VERSION}"
        )));
    }
    if Sha256::digest(said)[..] != *digest {
        return Err(damaged("its header has another digest"));
    }
    let end = offset.checked_add(state_len);
    if offset != RAM.saturating_add(ram_len) || state_len > MAX_STATE || end != Some(len) {
        return Err(damaged("it is cut short"));
    }
    let mut state = vec![0; state_len as usize];
    file.read_exact_at(&mut state, offset).or_fail(|| "read the memory file")?;
    if Sha256::digest(&state)[..] != said[HEADER - 2 * DIGEST..] {
        return Err(damaged("its state has another digest"));
    }
    let saved: Saved = postcard::from_bytes(&state).map_err(|_| damaged("its state is none"))?;
    if saved.shape.memory != ram_len
        || saved.chunks.len() as u64 != ram_len.div_ceil(CHUNK).div_ceil(8)
    {
        return Err(damaged("its RAM has another size"));
    }
    Ok(saved)
}

/// Lay the saved RAM over RAM that is fresh and of the saved size, by so few mappings that it takes
/// as long for any size, and never more of them than a process may have.
///
/// # Errors
/// The file can't be mapped.
pub fn map(file: &File, saved: &Saved, memory: &GuestRam) -> Result<()> {
    let ranges = from_file(saved);
    let mut base = 0;
    for region in ram::regions(memory) {
        for range in &ranges {
            let start = range.start.max(base);
            let end = range.end.min(base + region.len);
            if start < end {
                let gpa = region.gpa + (start - base);
                ram::map_file(memory, gpa, file, RAM + start, end - start)?;
            }
        }
        base += region.len;
    }
    Ok(())
}

/// Bytes of RAM that are mapped from the file, lowest first: all but the longest runs of chunks
/// that have nothing in them. The holes of the file that lie between read as zeros too.
fn from_file(saved: &Saved) -> Vec<Range<u64>> {
    let has = |chunk: u64| saved.chunks[(chunk / 8) as usize] & 1 << (chunk % 8) != 0;
    let count = saved.shape.memory.div_ceil(CHUNK);
    let mut gaps: Vec<Range<u64>> = Vec::new();
    for chunk in (0..count).filter(|&chunk| !has(chunk)) {
        match gaps.last_mut() {
            Some(gap) if gap.end == chunk => gap.end += 1,
            _ => gaps.push(chunk..chunk + 1),
        }
    }
    gaps.sort_by_key(|gap| Reverse(gap.end - gap.start));
    gaps.truncate(MOST_GAPS);
    gaps.sort_by_key(|gap| gap.start);
    let starts = iter::once(0).chain(gaps.iter().map(|gap| gap.end));
    let ends = gaps.iter().map(|gap| gap.start).chain([count]);
    let bytes = |(start, end): (u64, u64)| start * CHUNK..(end * CHUNK).min(saved.shape.memory);
    starts.zip(ends).map(bytes).filter(|range| !range.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::layout::MIN_MEMORY;
    use std::os::unix::fs::MetadataExt;

    fn shape(memory: u64) -> Shape {
        Shape { cpus: 1, memory, transport: TransportKind::Mmio, devices: Vec::new() }
    }

    fn parts() -> Vec<(String, Vec<u8>)> {
        vec![("a".to_owned(), vec![1, 2, 3]), ("b".to_owned(), Vec::new())]
    }

    /// A memory file of a little more than the smallest RAM, with something in some places.
    fn written() -> (File, u64, Vec<u64>) {
        let size = MIN_MEMORY + PAGE;
        let memory = ram::create(size).unwrap();
        let places = vec![0, PAGE, CHUNK - 8, 5 * CHUNK + 24, MIN_MEMORY + PAGE - 8];
        for &at in &places {
            memory.write_obj(at ^ 0x5a5a, GuestAddress(at)).unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        let finished = Arc::new(fds::eventfd().unwrap());
        let (ours, reported) = (file.try_clone().unwrap(), finished.clone());
        let writing = Writing::begin(ours, shape(size), parts(), &memory, reported).unwrap();
        assert!(writing.help(), "who has other things to do writes a chunk now and then");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| writing.work());
            }
        });
        assert_eq!(finished.read().unwrap(), 1, "one thread has done the rest");
        writing.outcome().unwrap().unwrap();
        assert!(writing.outcome().is_none() && !writing.help());
        (file, size, places)
    }

    #[test]
    fn what_is_read_and_mapped_is_what_was_written_and_zeros_take_no_room() {
        let (file, size, places) = written();
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "zero pages are holes");
        let saved = read(&file).unwrap();
        assert_eq!((saved.shape.clone(), saved.parts.clone()), (shape(size), parts()));
        assert_eq!(saved.part("a").unwrap(), [1, 2, 3]);
        assert!(saved.part("c").is_err());
        let memory = ram::create(size).unwrap();
        map(&file, &saved, &memory).unwrap();
        for at in (0..size).step_by(8) {
            let expected = if places.contains(&at) { at ^ 0x5a5a } else { 0 };
            assert_eq!(memory.read_obj::<u64>(GuestAddress(at)).unwrap(), expected, "{at:#x}");
        }
        // What the guest writes from now on is its own.
        memory.write_obj(1u64, GuestAddress(0)).unwrap();
        let again = ram::create(size).unwrap();
        map(&file, &saved, &again).unwrap();
        assert_eq!(again.read_obj::<u64>(GuestAddress(0)).unwrap(), 0x5a5a);
    }

    #[test]
    fn a_file_that_is_cut_short_or_has_a_bit_flipped_is_refused_in_one_line() {
        let (file, size, _) = written();
        let len = file.metadata().unwrap().len();
        let refused = |file: &File| {
            let error = read(file).unwrap_err().to_string();
            assert!(error.contains("its memory file") && !error.contains('\n'), "{error}");
        };
        let places = (0..HEADER as u64).chain(RAM + size..len);
        for at in places {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
            refused(&file);
            file.write_all_at(&byte, at).unwrap();
        }
        read(&file).unwrap();
        for len in [len - 1, RAM + size, RAM, 100, 0] {
            file.set_len(len).unwrap();
            refused(&file);
        }
    }

    /// A machine of `memory` bytes that has something in these chunks.
    fn saved(memory: u64, filled: impl Fn(u64) -> bool) -> Saved {
        let count = memory.div_ceil(CHUNK);
        let mut chunks = vec![0u8; count.div_ceil(8) as usize];
        for chunk in (0..count).filter(|&chunk| filled(chunk)) {
            chunks[(chunk / 8) as usize] |= 1 << (chunk % 8);
        }
        Saved { shape: shape(memory), parts: Vec::new(), chunks }
    }

    #[test]
    fn ram_with_a_little_everywhere_takes_no_more_mappings_than_ram_that_is_full() {
        const GIB: u64 = 1 << 30;
        let size = 64 * GIB + PAGE;
        let one = |filled: fn(u64) -> bool, range: Range<u64>| {
            assert!(from_file(&saved(size, filled)).into_iter().eq(iter::once(range)));
        };
        one(|_| true, 0..size);
        one(|chunk| chunk > 0, CHUNK..size);
        one(|chunk| chunk == 1, CHUNK..2 * CHUNK);
        assert_eq!(from_file(&saved(size, |_| false)), []);
        // Every other chunk but in two long gaps: these stay anonymous, whatever is before them.
        let gap = |chunk: u64| [1000..2000, 30_000..30_100].iter().any(|gap| gap.contains(&chunk));
        let ranges = from_file(&saved(size, |chunk| chunk % 2 == 1 && !gap(chunk)));
        assert!(ranges.len() <= MOST_GAPS + 1, "{}", ranges.len());
        for range in &ranges {
            assert!((range.start / CHUNK..range.end.div_ceil(CHUNK)).all(|chunk| !gap(chunk)));
        }
        let mapped = |chunk: &u64| ranges.iter().any(|range| range.contains(&(chunk * CHUNK)));
        assert!((0..size / CHUNK).filter(|n| n % 2 == 1 && !gap(*n)).all(|n| mapped(&n)));
    }

    #[test]
    fn without_its_header_it_is_none() {
        let (file, ..) = written();
        file.write_all_at(&[0; HEADER], 0).unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("does not begin as one"), "{error}");
    }
}
