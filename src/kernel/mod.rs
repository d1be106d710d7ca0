//! Kernels and initial ramdisks for direct boot.
//!
//! Their ids come from their content: registering the same file twice gives the same object, whoever of two
//! concurrent commands is first.

use crate::boot;
use crate::error::{Code, Error, OrFail, OrRefuse, Result};
use crate::id::{KernelId, RamdiskId};
use crate::image::references::refuse_in_use;
use crate::inspect::modules;
use crate::plan::{PvGrub, TransportKind};
use crate::record::image::{Architecture, Image};
use crate::record::kernel::{Kernel, Ramdisk};
use crate::record::name;
use crate::snapshot::digest;
use crate::store::beneath::Owned;
use crate::store::check_owner;
use crate::store::shared::open_file;
use crate::store::{Collection, Durability, Record, Staging, Store, StoreLock, now};
use crate::volume::users;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use unpack::unpack;

mod unpack;

pub(crate) use unpack::HELPER;

impl Store {
    /// Registered kernels.
    pub fn kernels(&self) -> Collection<Kernel> {
        self.collection()
    }

    /// Registered initial ramdisks.
    pub fn ramdisks(&self) -> Collection<Ramdisk> {
        self.collection()
    }
}

/// The unpacked ELF in a kernel's directory.
pub const KERNEL: &str = "kernel";
/// The file in a ramdisk's directory.
pub const RAMDISK: &str = "ramdisk";
/// Largest kernel or ramdisk file: the guest must hold it below 4 GiB.
const MAX_FILE: u64 = 2 << 30;

/// An object that a registration gave.
#[derive(Clone, Debug)]
pub struct Registered<R> {
    /// The object.
    pub record: R,
    /// It was not there before: undoing the registration removes it.
    pub new: bool,
}

/// Register the kernel at `path`, a bzImage or an ELF vmlinux, under `name` (or one made of the file's).
/// A bzImage is unpacked here, once.
///
/// # Errors
/// It is no kernel, the name is malformed or taken, or it can't be read or kept.
pub fn register(store: &Store, path: &Path, name: Option<&str>) -> Result<Registered<Kernel>> {
    register_file(store, open(path, "kernel")?, path, name)
}

/// As [`register`], of an open file that `path` tells of.
fn register_file(
    store: &Store,
    file: File,
    path: &Path,
    name: Option<&str>,
) -> Result<Registered<Kernel>> {
    let (mut file, digest, _) = examine(file, path, "kernel")?;
    if let Some(record) = registered(store, |kernel: &Kernel| kernel.digest == digest)? {
        return Ok(Registered { record, new: false });
    }
    file.rewind().or_fail(|| format!("read {}", path.display()))?;
    let unpacked = unpack(&file).map_err(|e| e.context(path.display()))?;
    let staging = Staging::new(store)?;
    write(staging.dir()?, KERNEL, &mut &unpacked.elf[..])?;
    let lock = store.lock()?;
    let kernel = Kernel {
        kernel_id: match store.administrator() {
            None => KernelId::from_digest(&digest)?,
            Some(_) => KernelId::generate()?,
        },
        name: choose_name::<Kernel>(store, &lock, path, &digest, name)?,
        owner_id: store.owner_id(),
        creation_date: now(),
        architecture: match unpacked.mode {
            boot::Mode::Long => Architecture::X86_64,
            boot::Mode::Protected => Architecture::I386,
        },
        version: unpacked.version,
        digest,
        size_bytes: unpacked.elf.len() as u64,
        transports: modules::built_in(&unpacked.elf),
        tags: Vec::new(),
    };
    publish(store, &lock, staging, kernel)
}

/// Register the initial ramdisk at `path` as it is.
///
/// # Errors
/// It is empty or too large, the name is malformed or taken, or it can't be read or kept.
pub fn register_ramdisk(
    store: &Store,
    path: &Path,
    name: Option<&str>,
) -> Result<Registered<Ramdisk>> {
    register_ramdisk_file(store, open(path, "initial ramdisk")?, path, name)
}

/// As [`register_ramdisk`], of an open file that `path` tells of.
fn register_ramdisk_file(
    store: &Store,
    file: File,
    path: &Path,
    name: Option<&str>,
) -> Result<Registered<Ramdisk>> {
    let (mut file, digest, size_bytes) = examine(file, path, "initial ramdisk")?;
    if let Some(record) = registered(store, |ramdisk: &Ramdisk| ramdisk.digest == digest)? {
        return Ok(Registered { record, new: false });
    }
    let ramdisk_id = match store.administrator() {
        None => RamdiskId::from_digest(&digest)?,
        Some(_) => RamdiskId::generate()?,
    };
    file.rewind().or_fail(|| format!("read {}", path.display()))?;
    let staging = Staging::new(store)?;
    let written = write(staging.dir()?, RAMDISK, &mut file)?;
    if written != digest {
        return Err(Error::failure(format!(
            "{} changed while it was being read; try again",
            path.display()
        )));
    }
    file.rewind().or_fail(|| format!("read {}", path.display()))?;
    let transports = modules::transports(&file);
    let lock = store.lock()?;
    let ramdisk = Ramdisk {
        ramdisk_id,
        name: choose_name::<Ramdisk>(store, &lock, path, &digest, name)?,
        owner_id: store.owner_id(),
        creation_date: now(),
        digest,
        size_bytes,
        transports,
        tags: Vec::new(),
    };
    publish(store, &lock, staging, ramdisk)
}

/// The user's own object that is the `same`. Another's is not taken for it, and in a shared store the id does not
/// follow from the content: it could be guessed and taken.
fn registered<R: Record>(store: &Store, same: impl Fn(&R) -> bool) -> Result<Option<R>> {
    let listing = store.collection::<R>().list()?;
    Ok(listing
        .records
        .into_iter()
        .find(|record| record.owner() == store.owner_id() && same(record)))
}

/// Let the object appear, unless somebody else was faster.
fn publish<R: Record>(
    store: &Store,
    lock: &StoreLock,
    staging: Staging,
    record: R,
) -> Result<Registered<R>> {
    let _ = lock;
    if let Ok(record) = store.collection::<R>().get(record.id()) {
        return Ok(Registered { record, new: false });
    }
    staging.publish(store, &record, Durability::Durable)?;
    Ok(Registered { record, new: true })
}

/// The name asked for, if it is free; else one made of the file's name, and of the content's digest if that is taken.
fn choose_name<R: Record>(
    store: &Store,
    lock: &StoreLock,
    path: &Path,
    digest: &str,
    name: Option<&str>,
) -> Result<String> {
    if let Some(name) = name {
        name::check(name)?;
        store.collection::<R>().check_free(lock, name)?;
        return Ok(name.to_owned());
    }
    let name = name::from_file(&path.file_name().unwrap_or_default().to_string_lossy());
    if store.collection::<R>().check_free(lock, &name).is_ok() {
        return Ok(name);
    }
    Ok(format!("{name}-{}", &digest[..8]))
}

fn open(path: &Path, what: &str) -> Result<File> {
    File::open(path).or_refuse(|| format!("open the {what} {}", path.display()))
}

/// Look at a file that is to be registered. Gives its SHA-256 in hexadecimal and its size too.
fn examine(mut file: File, path: &Path, what: &str) -> Result<(File, String, u64)> {
    let refuse = |why: String| {
        Error::refused(
            Code::InvalidParameterValue,
            format!("{} is no {what}: {why}", path.display()),
        )
    };
    let metadata = file.metadata().or_fail(|| format!("read {}", path.display()))?;
    if !metadata.is_file() {
        return Err(refuse("it is not a regular file".into()));
    }
    if metadata.len() == 0 || metadata.len() > MAX_FILE {
        return Err(refuse(format!("it has {} bytes", metadata.len())));
    }
    let (digest, size) = digest::copy(&mut file, &mut std::io::sink())
        .or_fail(|| format!("read {}", path.display()))?;
    Ok((file, digest, size))
}

/// Write a new file, durable and read-only. Gives its SHA-256 in hexadecimal.
pub(crate) fn write(dir: &Owned, name: &str, from: &mut dyn Read) -> Result<String> {
    let mut write = || -> std::io::Result<String> {
        let mut file = dir.create(name, 0o400)?;
        let (digest, _) = digest::copy(from, &mut file)?;
        file.sync_all()?;
        Ok(digest)
    };
    write().or_fail(|| format!("write {}", dir.path().join(name).display()))
}

/// Open what was registered, to read all of it: it has the size that its record says, whoever registered it.
///
/// # Errors
/// It is anything else.
pub(crate) fn open_content(dir: &Path, name: &str, size: u64) -> Result<File> {
    let file = open_file(dir, name)?;
    let found = file.metadata().or_fail(|| format!("read {}", dir.display()))?.len();
    if found == size && size <= MAX_FILE {
        return Ok(file);
    }
    Err(Error::failure(format!(
        "{} has {found} bytes and not the {size} that its record says; deregister it",
        dir.join(name).display()
    )))
}

/// The kernel for an image of one's own: another's can go or be closed at any time, so that is copied.
///
/// # Errors
/// It does not exist, or can't be kept.
pub fn copy_to_caller(store: &Store, id: &KernelId) -> Result<Registered<Kernel>> {
    let record = store.kernels().get(id)?;
    if record.owner_id == store.owner_id() || PvGrub::of(id).is_some() {
        return Ok(Registered { record, new: false });
    }
    let file = open_content(&store.kernels().dir(id), KERNEL, record.size_bytes)?;
    register_file(store, file, Path::new(&record.name), None)
}

/// The initial ramdisk for an image of one's own, likewise.
///
/// # Errors
/// As [`copy_to_caller`]'s.
pub fn copy_ramdisk_to_caller(store: &Store, id: &RamdiskId) -> Result<Registered<Ramdisk>> {
    let record = store.ramdisks().get(id)?;
    if record.owner_id == store.owner_id() {
        return Ok(Registered { record, new: false });
    }
    let file = open_content(&store.ramdisks().dir(id), RAMDISK, record.size_bytes)?;
    let path = Path::new(&record.name);
    register_ramdisk_file(store, file, path, None)
}

/// The transports of virtio devices that a kernel and its ramdisk have drivers for; none if that is not known.
pub fn drivers(
    store: &Store,
    kernel: Option<&KernelId>,
    ramdisk: Option<&RamdiskId>,
) -> Vec<TransportKind> {
    let kernel = kernel.and_then(|id| store.kernels().get(id).ok());
    let ramdisk = ramdisk.and_then(|id| store.ramdisks().get(id).ok());
    let of_kernel = kernel.into_iter().flat_map(|kernel| kernel.transports);
    of_kernel.chain(ramdisk.into_iter().flat_map(|ramdisk| ramdisk.transports)).collect()
}

/// Deregister a kernel.
///
/// # Errors
/// An image refers to it (the line names it), it is another's, or it does not exist.
pub fn deregister(store: &Store, id: &KernelId) -> Result<()> {
    check_owner(store, &store.kernels().get(id)?)?;
    let _lock = store.lock()?;
    refuse_in_use(store, Code::InvalidAKIIDInUse, id.as_str(), |image| {
        image.kernel_id.as_ref() == Some(id)
    })?;
    refuse_needed(store, Code::InvalidAKIIDInUse, id.as_str(), |image| {
        image.kernel_id.as_ref() == Some(id)
    })?;
    store.kernels().remove(id)
}

/// Deregister an initial ramdisk.
///
/// # Errors
/// As [`deregister`]'s.
pub fn deregister_ramdisk(store: &Store, id: &RamdiskId) -> Result<()> {
    check_owner(store, &store.ramdisks().get(id)?)?;
    let _lock = store.lock()?;
    refuse_in_use(store, Code::InvalidARIIDInUse, id.as_str(), |image| {
        image.ramdisk_id.as_ref() == Some(id)
    })?;
    refuse_needed(store, Code::InvalidARIIDInUse, id.as_str(), |image| {
        image.ramdisk_id.as_ref() == Some(id)
    })?;
    store.ramdisks().remove(id)
}

/// # Errors
/// Another account has a volume of an image that boots it: its instance needs it to start again, and can't be seen.
fn refuse_needed(
    store: &Store,
    code: Code,
    object: &str,
    boots: impl Fn(&Image) -> bool,
) -> Result<()> {
    let images = store.images().list()?.records;
    let ours = images.iter().filter(|image| image.owner_id == store.owner_id() && boots(image));
    let holders = ours.flat_map(Image::snapshots).flat_map(|id| users::accounts(store, id));
    match holders.into_iter().next() {
        None => Ok(()),
        Some(uid) => Err(Error::refused(
            code,
            format!("{object} is what an instance of account {uid} boots; it has to be terminated"),
        )),
    }
}

/// The kernel that `text` means: an id, a file (which is registered), a name or a unique prefix of an id.
///
/// # Errors
/// There is none; the file is no kernel.
pub fn find(store: &Store, text: &str) -> Result<Registered<Kernel>> {
    find_or(store, text, |path| register(store, path, None))
}

/// The initial ramdisk that `text` means: as [`find`].
///
/// # Errors
/// There is none; the file can't be registered.
pub fn find_ramdisk(store: &Store, text: &str) -> Result<Registered<Ramdisk>> {
    find_or(store, text, |path| register_ramdisk(store, path, None))
}

fn find_or<R: Record>(
    store: &Store,
    text: &str,
    register: impl FnOnce(&Path) -> Result<Registered<R>>,
) -> Result<Registered<R>> {
    let path = Path::new(text);
    if text.parse::<R::Id>().is_err() && (path.exists() || text.contains('/')) {
        return register(path);
    }
    let record = store.collection::<R>().resolve(text)?;
    Ok(Registered { record, new: false })
}
