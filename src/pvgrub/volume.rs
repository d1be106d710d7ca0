//! The file systems of a disk, for reading only.

use super::menu::Place;
pub use crate::block::Bytes;
use crate::block::partitions::{self, Partition, Scheme};
use crate::block::signature::{self, Signature};
use crate::ext4::{Error, Ext4, Kind};
use crate::plan::ROOT_DEVICE;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;

/// Bytes that are read from the disk at once; files lie in long runs.
const CHUNK: u64 = 64 << 10;
/// Chunks that are kept.
const KEPT: usize = 64;
/// Most file systems that are opened.
const MAX_FILE_SYSTEMS: usize = 32;
/// Directory entries that are looked at.
const MAX_LISTED: usize = 4096;

/// A disk of which what was read last is kept.
struct Cached {
    disk: Rc<dyn Bytes>,
    /// Chunks by their number, the most recently used first.
    chunks: RefCell<VecDeque<(u64, Vec<u8>)>>,
}

impl Cached {
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let count = self.read_some(rest, at)?;
            rest = &mut rest[count..];
            at = at.checked_add(count as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        Ok(())
    }

    /// What one chunk has of it.
    fn read_some(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let number = offset / CHUNK;
        let mut chunks = self.chunks.borrow_mut();
        let at = chunks.iter().position(|(n, _)| *n == number);
        let chunk = match at.and_then(|at| chunks.remove(at)) {
            Some(chunk) => chunk,
            None => {
                // The memory of what goes is there already: new memory is paid for page by page.
                let oldest = if chunks.len() < KEPT { None } else { chunks.pop_back() };
                let memory = oldest.map(|(_, memory)| memory).unwrap_or_default();
                (number, self.load(number * CHUNK, memory)?)
            }
        };
        chunks.push_front(chunk);
        let found = chunks.front().and_then(|(_, chunk)| chunk.get((offset % CHUNK) as usize..));
        let found = found.filter(|found| !found.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let count = found.len().min(bytes.len());
        bytes[..count].copy_from_slice(&found[..count]);
        Ok(count)
    }

    fn load(&self, start: u64, mut chunk: Vec<u8>) -> io::Result<Vec<u8>> {
        chunk.resize(CHUNK.min(self.disk.size().saturating_sub(start)) as usize, 0);
        self.disk.read_exact_at(&mut chunk, start)?;
        Ok(chunk)
    }
}

/// A file system, or what may be one.
pub struct FileSystem {
    /// The partition's number; `None` for the whole disk.
    pub partition: Option<u32>,
    /// What Linux takes as PARTUUID=.
    pub partuuid: Option<String>,
    /// Its UUID, if it is one that can be read.
    pub uuid: Option<String>,
    /// Its label, if it is one that can be read.
    pub label: Option<String>,
    /// What it is, if that is known.
    signature: Option<Signature>,
    ext4: Result<Ext4, String>,
}

pub use crate::ext4::Error as Missing;

impl FileSystem {
    fn open(disk: &Rc<Cached>, at: (u64, u64), partition: Option<(u32, String)>) -> Self {
        let ((start, len), part) = (at, Rc::clone(disk));
        let read = move |bytes: &mut [u8], at: u64| {
            let within = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= len);
            let at = start.checked_add(at).filter(|_| within);
            part.read(bytes, at.ok_or(io::ErrorKind::UnexpectedEof)?)
        };
        let signature = signature::of(len, &read);
        let ext4 = match signature {
            // What a member of a mirror has in front is not to be trusted, nor mounted alone.
            Some(Signature::Container(name)) => Err(name.to_owned()),
            _ => Ext4::open(Box::new(read)),
        };
        let (number, partuuid) = partition.unzip();
        let loaded = ext4.as_ref().ok();
        Self {
            partition: number,
            partuuid,
            uuid: loaded.map(Ext4::uuid),
            label: loaded.map(|ext4| ext4.label().to_owned()).filter(|label| !label.is_empty()),
            signature,
            ext4,
        }
    }

    /// What it is, for messages.
    pub fn described(&self) -> String {
        match (&self.ext4, self.signature) {
            (Ok(ext4), _) => {
                let warning = match ext4.unreplayed() {
                    Some(why) => format!(", not unmounted, and read as it is because {why}"),
                    None => String::new(),
                };
                format!("ext2, ext3 or ext4, UUID {}{warning}", ext4.uuid())
            }
            (Err(why), Some(Signature::Ext)) => why.clone(),
            (Err(_), Some(other)) => other.to_string(),
            (Err(_), None) => "of a kind that is not known".into(),
        }
    }

    /// It has, or may have, files in it.
    fn may_hold_files(&self) -> bool {
        self.signature.is_some_and(Signature::may_hold_files)
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        match self.partition {
            Some(number) => format!("partition {number}"),
            None => "the disk".into(),
        }
    }

    /// What Linux's device of it is, if the disk is the first.
    pub fn device(&self) -> String {
        let number = self.partition.map(|number| number.to_string());
        format!("{ROOT_DEVICE}{}", number.unwrap_or_default())
    }

    /// It can be read.
    pub fn is_readable(&self) -> bool {
        self.ext4.is_ok()
    }

    fn ext4(&self) -> Result<&Ext4, Missing> {
        self.ext4.as_ref().map_err(|_| Error::Unreadable(self.described()))
    }

    /// The content of a file of at most `limit` bytes. Links are followed.
    ///
    /// # Errors
    /// There is no such file, or it can't be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, Missing> {
        self.ext4()?.read(path, limit)
    }

    /// As [`FileSystem::read`], as text; what is not UTF-8 is replaced.
    ///
    /// # Errors
    /// As [`FileSystem::read`].
    pub fn read_text(&self, path: &str, limit: u64) -> Result<String, Missing> {
        self.read(path, limit).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What is at `path`, and its bytes; `None` if there is nothing.
    pub fn stat(&self, path: &str) -> Option<(Kind, u64)> {
        let found = self.ext4().ok()?.stat(path).ok()?;
        Some((found.kind, found.len))
    }

    /// The names in a directory, the first few thousand; none if it can't be read.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut more = |name: &[u8]| {
            names.extend(std::str::from_utf8(name).ok().map(str::to_owned));
            if names.len() < MAX_LISTED {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        if let Ok(ext4) = &self.ext4
            && let Ok(directory) = ext4.stat(directory)
        {
            // What came before something damaged is there.
            let _ = ext4.list(directory, &mut |name, _| more(name));
        }
        names.sort_unstable();
        names
    }
}

/// A disk and its file systems.
pub struct Volume {
    /// How it is divided.
    pub scheme: Scheme,
    /// Of the whole disk, or of its partitions.
    pub systems: Vec<FileSystem>,
}

impl Volume {
    /// Look for file systems on a disk.
    pub fn open(disk: Rc<dyn Bytes>) -> Self {
        let size = disk.size();
        let cached = Rc::new(Cached { disk, chunks: RefCell::default() });
        let whole = FileSystem::open(&cached, (0, size), None);
        let read = |bytes: &mut [u8], at: u64| cached.read(bytes, at);
        let table = partitions::partitions(size, &read);
        let alone = |whole| Self { scheme: Scheme::None, systems: vec![whole] };
        if table.partitions.is_empty() {
            return alone(whole);
        }
        let open = |partition: &Partition| {
            let name = Some((partition.number, partition.uuid.clone()));
            FileSystem::open(&cached, (partition.start, partition.len), name)
        };
        let systems: Vec<FileSystem> =
            table.partitions.iter().take(MAX_FILE_SYSTEMS).map(open).collect();
        // A disk that was one file system keeps its superblock when it is divided. But the boot
        // sector of one that still is may have a boot loader's code where a table would be: of that
        // no partition has anything in it.
        if whole.is_readable() && !systems.iter().any(FileSystem::may_hold_files) {
            return alone(whole);
        }
        Self { scheme: table.scheme, systems }
    }

    /// What GRUB 2 calls the device of the file system at `at`.
    pub fn device(&self, at: usize) -> String {
        let number = self.systems.get(at).and_then(|system| system.partition);
        match (number, self.scheme) {
            (Some(number), Scheme::Gpt) => format!("hd0,gpt{number}"),
            (Some(number), _) => format!("hd0,msdos{number}"),
            (None, _) => "hd0".into(),
        }
    }

    /// The file system that `place` means, in a menu that is on `menu`.
    ///
    /// # Errors
    /// There is none; what there is instead.
    pub fn find(&self, place: &Place, menu: usize) -> Result<usize, String> {
        let with = |test: &dyn Fn(&FileSystem) -> bool| self.systems.iter().position(test);
        let undivided = self.scheme == Scheme::None;
        let (found, wanted) = match place {
            Place::Menu => (Some(menu), String::new()),
            // Menus of unpartitioned roots say (hd0,0) as often as (hd0): EC2 called such a volume
            // sda1.
            Place::Disk | Place::Partition(1) if undivided => (Some(0), String::new()),
            Place::Disk => (None, "a file system on the whole disk, which has partitions".into()),
            Place::Partition(n) => (with(&|s| s.partition == Some(*n)), format!("partition {n}")),
            Place::Uuid(uuid) => (
                with(&|s| s.uuid.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(uuid))),
                format!("a file system with UUID {uuid}"),
            ),
            Place::Label(label) => (
                with(&|s| s.label.as_ref() == Some(label)),
                format!("a file system labelled {label}"),
            ),
            Place::Elsewhere(name) => (None, format!("{name}, which is not the root volume")),
        };
        found.ok_or_else(|| format!("it wants {wanted}; there is {}", self.described()))
    }

    /// What there is, for messages.
    pub fn described(&self) -> String {
        const TOLD: usize = 6;
        let described = self.systems.iter().take(TOLD);
        let described =
            described.map(|system| format!("{} ({})", system.name(), system.described()));
        described.collect::<Vec<_>>().join(", ")
    }
}
