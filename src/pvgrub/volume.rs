//! The file systems of a disk, for reading only.

use super::menu::Place;
use crate::block::partitions::{self, Scheme};
use crate::plan::ROOT_DEVICE;
use ext4_view::{Ext4, Ext4Error, Ext4Read};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// Bytes that are read from the disk at once; files lie in long runs.
const CHUNK: u64 = 64 << 10;
/// Chunks that are kept.
const KEPT: usize = 64;
/// Most file systems that are opened.
const MAX_FILE_SYSTEMS: usize = 32;
/// Directory entries that are looked at.
const MAX_LISTED: usize = 4096;

/// The bytes of a disk or of a file.
pub trait Bytes {
    /// How many there are.
    fn size(&self) -> u64;
    /// Fill `bytes` from `offset`.
    ///
    /// # Errors
    /// They are not all there, or can't be read.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Bytes for crate::block::Reader {
    fn size(&self) -> u64 {
        Self::size(self)
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        Self::read_exact_at(self, bytes, offset)
    }
}

impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let found = self.get(from..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

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

/// A file system's part of a disk.
struct Part {
    disk: Rc<Cached>,
    start: u64,
    len: u64,
}

impl Ext4Read for Part {
    fn read(
        &mut self,
        start: u64,
        to: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let end = start.checked_add(to.len() as u64).filter(|end| *end <= self.len);
        end.ok_or("a block lies beyond the end of the file system")?;
        Ok(self.disk.read(to, self.start + start)?)
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
    label: Option<String>,
    ext4: Result<Ext4, String>,
}

/// Why there is no file to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is not there.
    Absent,
    /// It is there, but…
    Unreadable(String),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not there"),
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}

impl FileSystem {
    fn open(disk: &Rc<Cached>, at: (u64, u64), partition: Option<(u32, String)>) -> Self {
        let part = Part { disk: Rc::clone(disk), start: at.0, len: at.1 };
        let ext4 = Ext4::load(Box::new(part)).map_err(|error| error.to_string());
        let (number, partuuid) = partition.unzip();
        let loaded = ext4.as_ref().ok();
        Self {
            partition: number,
            partuuid,
            uuid: loaded.map(|ext4| ext4.uuid().to_string()),
            label: loaded.and_then(|ext4| ext4.label().to_str().ok().map(str::to_owned)),
            ext4,
        }
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

    /// Why it can't be read, if it can't.
    pub fn problem(&self) -> Option<&str> {
        self.ext4.as_ref().err().map(String::as_str)
    }

    /// The content of a file of at most `limit` bytes. Links are followed.
    ///
    /// # Errors
    /// There is no such file, or it can't be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, Missing> {
        let ext4 = self.ext4.as_ref().map_err(|why| Missing::Unreadable(why.clone()))?;
        let absolute = format!("/{}", path.trim_start_matches('/'));
        let mut file = ext4.open(absolute.as_str()).map_err(missing)?;
        let len = file.metadata().len();
        if len > limit {
            let why = format!("it has {len} bytes, more than the {limit} that are read");
            return Err(Missing::Unreadable(why));
        }
        let mut content = Vec::with_capacity(len as usize);
        let mut buffer = vec![0; CHUNK as usize];
        while (content.len() as u64) < len {
            match file.read_bytes(&mut buffer).map_err(missing)? {
                0 => return Err(Missing::Unreadable("it ends too soon".into())),
                count => content.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(content)
    }

    /// As [`FileSystem::read`], as text; what is not UTF-8 is replaced.
    ///
    /// # Errors
    /// As [`FileSystem::read`].
    pub fn read_text(&self, path: &str, limit: u64) -> Result<String, Missing> {
        self.read(path, limit).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Bytes of the file; `None` if there is none. A directory has some.
    pub fn len(&self, path: &str) -> Option<u64> {
        let ext4 = self.ext4.as_ref().ok()?;
        let metadata = ext4.metadata(format!("/{}", path.trim_start_matches('/')).as_str()).ok()?;
        Some(metadata.len())
    }

    /// The names in a directory, the first few thousand; none if it can't be read.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let Ok(ext4) = &self.ext4 else { return Vec::new() };
        let entries = ext4.read_dir(directory).into_iter().flatten().take(MAX_LISTED).flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().as_str().ok().map(str::to_owned))
            .collect();
        names.sort_unstable();
        names
    }
}

fn missing(error: Ext4Error) -> Missing {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory => Missing::Absent,
        error => Missing::Unreadable(error.to_string()),
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
        // First: the boot sector of a disk without partitions may have a boot loader's code in it.
        let whole = FileSystem::open(&cached, (0, size), None);
        let read = |bytes: &mut [u8], at: u64| cached.read(bytes, at);
        let table = partitions::partitions(size, &read);
        if whole.ext4.is_ok() || table.partitions.is_empty() {
            return Self { scheme: Scheme::None, systems: vec![whole] };
        }
        let open = |partition: &partitions::Partition| {
            let name = Some((partition.number, partition.uuid.clone()));
            FileSystem::open(&cached, (partition.start, partition.len), name)
        };
        let systems = table.partitions.iter().take(MAX_FILE_SYSTEMS).map(open).collect();
        Self { scheme: table.scheme, systems }
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
            // Menus of unpartitioned roots say (hd0,0) as often as (hd0): EC2 called such a volume sda1.
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
        let described = self.systems.iter().take(TOLD).map(|system| match &system.uuid {
            Some(uuid) => format!("{} (ext4, UUID {uuid})", system.name()),
            None => format!("{} ({})", system.name(), system.problem().unwrap_or("unknown")),
        });
        described.collect::<Vec<_>>().join(", ")
    }
}
