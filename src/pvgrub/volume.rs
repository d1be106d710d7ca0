//! The file systems of a disk, for reading only.

use super::menu::Place;
pub use crate::block::Bytes;
use crate::block::partitions::{
    self, EFI_SYSTEM, EXTENDED_BOOT_LOADER, Partition, ROOT_X86_64, Scheme,
};
use crate::block::signature::{self, Signature};
use crate::ext4::{Error, Ext4, Kind};
use crate::fat::Fat;
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
    /// What its partition is for.
    purpose: Option<partitions::Kind>,
    /// What it is, if that is known.
    signature: Option<Signature>,
    /// What reads it, or why nothing does.
    reader: Result<Reader, String>,
}

/// What reads a file system.
enum Reader {
    Ext4(Box<Ext4>),
    Fat(Box<Fat>),
}

pub use crate::ext4::Error as Missing;

impl Reader {
    /// What reads it says no more than the first of them if none does: what else it is, the
    /// signature says.
    fn open(
        read: impl Fn(&mut [u8], u64) -> io::Result<()> + Clone + 'static,
    ) -> Result<Self, String> {
        let ext4 = Ext4::open(Box::new(read.clone())).map(|ext4| Self::Ext4(Box::new(ext4)));
        let fat = || Fat::open(Box::new(read)).ok().map(|fat| Self::Fat(Box::new(fat)));
        ext4.or_else(|why| fat().ok_or(why))
    }
}

impl FileSystem {
    fn open(disk: &Rc<Cached>, at: (u64, u64), partition: Option<&Partition>) -> Self {
        let ((start, len), part) = (at, Rc::clone(disk));
        let read = move |bytes: &mut [u8], at: u64| {
            let within = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= len);
            let at = start.checked_add(at).filter(|_| within);
            part.read(bytes, at.ok_or(io::ErrorKind::UnexpectedEof)?)
        };
        let signature = signature::of(len, &read);
        let reader = match signature {
            // What a member of a mirror has in front is not to be trusted, nor mounted alone.
            Some(Signature::Container(name)) => Err(name.to_owned()),
            _ => Reader::open(read),
        };
        let (uuid, label) = match &reader {
            Ok(Reader::Ext4(ext4)) => (Some(ext4.uuid()), ext4.label().to_owned()),
            Ok(Reader::Fat(fat)) => (Some(fat.serial()), fat.label().to_owned()),
            Err(_) => (None, String::new()),
        };
        Self {
            partition: partition.map(|partition| partition.number),
            partuuid: partition.map(|partition| partition.uuid.clone()),
            purpose: partition.map(|partition| partition.kind),
            uuid,
            label: Some(label).filter(|label| !label.is_empty()),
            signature,
            reader,
        }
    }

    /// What firmware looks for boot loaders in: FAT on an EFI system partition, or on a disk that
    /// is not divided. (UEFI 2.10, 13.3.1)
    pub fn is_efi_system(&self) -> bool {
        let is = |kind| EFI_SYSTEM.contains(&kind);
        matches!(self.reader, Ok(Reader::Fat(_))) && self.purpose.is_none_or(is)
    }

    /// It has further boot entries of the EFI system partition's loader.
    pub fn is_extended_boot_loader(&self) -> bool {
        self.purpose.is_some_and(|kind| EXTENDED_BOOT_LOADER.contains(&kind))
    }

    /// Its partition's type says that it is the root.
    pub fn is_root(&self) -> bool {
        self.purpose == Some(ROOT_X86_64)
    }

    /// GRUB's name of its kind, if it can be read.
    pub fn kind(&self) -> Option<&'static str> {
        match &self.reader {
            Ok(Reader::Ext4(_)) => Some("ext2"),
            Ok(Reader::Fat(_)) => Some("fat"),
            Err(_) => None,
        }
    }

    /// What it is, for messages.
    pub fn described(&self) -> String {
        match (&self.reader, self.signature) {
            (Ok(Reader::Fat(fat)), _) => format!("FAT, UUID {}", fat.serial()),
            (Ok(Reader::Ext4(ext4)), _) => {
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
    pub fn may_hold_files(&self) -> bool {
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
        self.reader.is_ok()
    }

    fn reader(&self) -> Result<&Reader, Missing> {
        self.reader.as_ref().map_err(|_| Error::Unreadable(self.described()))
    }

    /// The content of a file of at most `limit` bytes. Links are followed.
    ///
    /// # Errors
    /// There is no such file, or it can't be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, Missing> {
        match self.reader()? {
            Reader::Ext4(ext4) => ext4.read(path, limit),
            Reader::Fat(fat) => fat.read(path, limit),
        }
    }

    /// `len` bytes of a file from offset `at` on. Links are followed.
    ///
    /// # Errors
    /// As [`FileSystem::read`]; the file does not have so many.
    pub fn read_range(&self, path: &str, at: u64, len: u64) -> Result<Vec<u8>, Missing> {
        match self.reader()? {
            Reader::Ext4(ext4) => ext4.read_range(path, at, len),
            Reader::Fat(fat) => fat.read_range(path, at, len),
        }
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
        match self.reader().ok()? {
            Reader::Ext4(ext4) => ext4.stat(path).ok().map(|found| (found.kind, found.len)),
            Reader::Fat(fat) => fat.stat(path).ok(),
        }
    }

    /// The names in a directory, the first few thousand; none if it can't be read.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut more = |name: Option<&str>| {
            names.extend(name.map(str::to_owned));
            if names.len() < MAX_LISTED {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        // What came before something damaged is there.
        match &self.reader {
            Ok(Reader::Ext4(ext4)) => {
                if let Ok(directory) = ext4.stat(directory) {
                    let _ = ext4.list(directory, &mut |name, _| more(str::from_utf8(name).ok()));
                }
            }
            Ok(Reader::Fat(fat)) => {
                let _ = fat.list(directory, &mut |name| more(Some(name)));
            }
            Err(_) => {}
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
            FileSystem::open(&cached, (partition.start, partition.len), Some(partition))
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
