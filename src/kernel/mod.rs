//! Kernels and initial ramdisks for direct boot.
//!
//! Their ids come from their content: registering the same file twice gives the same object,
//! whoever of two concurrent commands is first.

use crate::boot;
use crate::error::{Code, Error, OrFail, OrRefuse, Result};
use crate::id::{KernelId, RamdiskId};
use crate::image::references::refuse_in_use;
use crate::inspect::modules;
use crate::plan::Drivers;
use crate::record::image::{Architecture, Image};
use crate::record::instance::{Instance, InstanceRecord, State};
use crate::record::kernel::{Kernel, Ramdisk};
use crate::record::name;
use crate::snapshot::digest;
use crate::store::beneath::{Owned, foreign_file};
use crate::store::check_owner;
use crate::store::shared::open_file;
use crate::store::{Collection, Durability, Record, Staging, Store, StoreLock, now};
use crate::volume::users;
use claim::Claim;
pub use claim::is_claimed;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use unpack::unpack;

mod claim;
pub mod find;
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

/// A kind of file that a guest is booted by: what the rules for kernels and for initial ramdisks
/// differ in.
pub trait BootFile: Record {
    /// Its file's name in the object's directory.
    const FILE: &'static str;
    /// What it is called in messages.
    const WHAT: &'static str;
    /// The error's code for one that is needed.
    const IN_USE: Code;
    /// The one that an image boots.
    fn of_image(image: &Image) -> Option<&Self::Id>;
    /// The one that an instance boots.
    fn of_instance(instance: &Instance) -> Option<&Self::Id>;
    /// SHA-256 of the file as it was registered, hexadecimal.
    fn digest(&self) -> &str;
    /// Bytes of [`BootFile::FILE`].
    fn size_bytes(&self) -> u64;
    /// The id: of the content, or where that could be guessed and taken (`guessed`) a random one.
    ///
    /// # Errors
    /// The digest is none; there are no random bytes.
    fn new_id(digest: &str, guessed: bool) -> Result<Self::Id>;
    /// Writes [`BootFile::FILE`] of what is registered, durable, into the directory. Gives what
    /// makes the record.
    ///
    /// # Errors
    /// It is none of the kind, has changed meanwhile, or can't be kept.
    fn keep(examined: Examined<'_>, dir: &Owned) -> Result<impl FnOnce(Common<Self::Id>) -> Self>;
}

/// A file that is to be registered.
pub struct Examined<'a> {
    file: File,
    path: &'a Path,
    digest: String,
    size_bytes: u64,
}

/// What the records of both kinds have.
pub struct Common<I> {
    id: I,
    name: String,
    owner_id: String,
    creation_date: String,
    digest: String,
}

impl BootFile for Kernel {
    const FILE: &'static str = KERNEL;
    const WHAT: &'static str = "kernel";
    const IN_USE: Code = Code::InvalidAKIIDInUse;

    fn of_image(image: &Image) -> Option<&KernelId> {
        image.kernel_id.as_ref()
    }

    fn of_instance(instance: &Instance) -> Option<&KernelId> {
        instance.kernel_id.as_ref()
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn new_id(digest: &str, guessed: bool) -> Result<KernelId> {
        if guessed { KernelId::generate() } else { KernelId::from_digest(digest) }
    }

    fn keep(examined: Examined<'_>, dir: &Owned) -> Result<impl FnOnce(Common<KernelId>) -> Self> {
        let unpacked = unpack(&examined.file).map_err(|e| e.context(examined.path.display()))?;
        write(dir, KERNEL, &mut &unpacked.elf[..])?;
        let built_in = modules::built_in(&unpacked.elf);
        Ok(move |common: Common<KernelId>| Self {
            kernel_id: common.id,
            name: common.name,
            owner_id: common.owner_id,
            creation_date: common.creation_date,
            architecture: match unpacked.mode {
                boot::Mode::Long => Architecture::X86_64,
                boot::Mode::Protected => Architecture::I386,
            },
            version: unpacked.version,
            digest: common.digest,
            size_bytes: unpacked.elf.len() as u64,
            transports: built_in.transports,
            disk_buses: built_in.disk_buses,
            tags: Vec::new(),
        })
    }
}

impl BootFile for Ramdisk {
    const FILE: &'static str = RAMDISK;
    const WHAT: &'static str = "initial ramdisk";
    const IN_USE: Code = Code::InvalidARIIDInUse;

    fn of_image(image: &Image) -> Option<&RamdiskId> {
        image.ramdisk_id.as_ref()
    }

    fn of_instance(instance: &Instance) -> Option<&RamdiskId> {
        instance.ramdisk_id.as_ref()
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn new_id(digest: &str, guessed: bool) -> Result<RamdiskId> {
        if guessed { RamdiskId::generate() } else { RamdiskId::from_digest(digest) }
    }

    fn keep(examined: Examined<'_>, dir: &Owned) -> Result<impl FnOnce(Common<RamdiskId>) -> Self> {
        let Examined { mut file, path, digest, size_bytes } = examined;
        let reading = || format!("read {}", path.display());
        if write(dir, RAMDISK, &mut file)? != digest {
            return Err(Error::failure(format!(
                "{} changed while it was being read; try again",
                path.display()
            )));
        }
        file.rewind().or_fail(reading)?;
        let Drivers { transports, disk_buses } = modules::drivers(&file);
        Ok(move |common: Common<RamdiskId>| Self {
            ramdisk_id: common.id,
            name: common.name,
            owner_id: common.owner_id,
            creation_date: common.creation_date,
            digest: common.digest,
            size_bytes,
            transports,
            disk_buses,
            tags: Vec::new(),
        })
    }
}

/// An object for something else, that was there or has been registered for it. What has been is
/// taken back when this is dropped, or the command killed, unless an image or an instance has come
/// to refer to it.
#[derive(Debug)]
pub struct Registered<R> {
    /// The object.
    pub record: R,
    held: Option<Held>,
}

impl<R> Registered<R> {
    fn known(record: R) -> Self {
        Self { record, held: None }
    }

    /// It stays, whatever becomes of the rest.
    pub fn keep(mut self) -> R {
        if let Some(claim) = self.held.as_mut().and_then(|held| held.claim.take()) {
            claim.end();
        }
        self.record
    }
}

/// What is registered and may have to be taken back.
#[derive(Debug)]
struct Held {
    store: Store,
    claim: Option<Claim>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            settle(&self.store, claim);
        }
    }
}

/// Take back what is claimed, unless something refers to it. If that can't be told, the next
/// command does it.
fn settle(store: &Store, claim: Claim) {
    if !claim.stands() {
        return;
    }
    let taken_back = match (claim.id().parse(), claim.id().parse()) {
        (Ok(kernel), _) => deregister::<Kernel>(store, &kernel, false),
        (_, Ok(ramdisk)) => deregister::<Ramdisk>(store, &ramdisk, false),
        _ => Ok(()),
    };
    let settled = [Kernel::IN_USE, Kernel::NOT_FOUND, Ramdisk::IN_USE, Ramdisk::NOT_FOUND];
    match taken_back {
        Err(e) if !e.code().is_some_and(|code| settled.contains(&code)) => {}
        _ => claim.end(),
    }
}

/// Bring to an end what killed commands had registered for what never came.
pub fn sweep(store: &Store) {
    for claim in claim::left(store) {
        settle(store, claim);
    }
}

/// What an image or an instance is to boot, as far as a command has found or registered it: held
/// until that is there.
#[derive(Debug, Default)]
pub struct BootFiles {
    /// The kernel.
    pub kernel: Option<Registered<Kernel>>,
    /// The initial ramdisk.
    pub ramdisk: Option<Registered<Ramdisk>>,
}

impl BootFiles {
    /// The kernel's id.
    pub fn kernel_id(&self) -> Option<KernelId> {
        self.kernel.as_ref().map(|kernel| kernel.record.kernel_id.clone())
    }

    /// The initial ramdisk's id.
    pub fn ramdisk_id(&self) -> Option<RamdiskId> {
        self.ramdisk.as_ref().map(|ramdisk| ramdisk.record.ramdisk_id.clone())
    }

    /// [`Registered::keep`] of both.
    pub fn keep(self) {
        self.kernel.map(Registered::keep);
        self.ramdisk.map(Registered::keep);
    }
}

/// Register the file at `path` under `name` (or one made of the file's), for what will refer to it:
/// a kernel, that is a bzImage, which is unpacked here, once, or an ELF vmlinux; or an initial
/// ramdisk as it is.
///
/// # Errors
/// It is none, or an empty or too large one, the name is malformed or taken, or it can't be read or
/// kept.
pub fn register<R: BootFile>(
    store: &Store,
    path: &Path,
    name: Option<&str>,
) -> Result<Registered<R>> {
    register_file(store, open::<R>(path)?, path, name)
}

/// [`register`] for its own sake: it stays.
///
/// # Errors
/// As [`register`]'s.
pub fn register_itself<R: BootFile>(store: &Store, path: &Path, name: Option<&str>) -> Result<R> {
    let record = register::<R>(store, path, name)?.keep();
    // Another command may have registered it for something else.
    claim::waive(store, record.id().as_ref());
    Ok(record)
}

/// Open the file at `path`, which is to be registered. A FIFO is not waited for.
fn open<R: BootFile>(path: &Path) -> Result<File> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("{} is no {}: it is not a regular file", path.display(), R::WHAT),
        ));
    }
    foreign_file(path).or_refuse(|| format!("open the {} {}", R::WHAT, path.display()))
}

/// As [`register`], of an open file that `path` tells of.
fn register_file<R: BootFile>(
    store: &Store,
    file: File,
    path: &Path,
    name: Option<&str>,
) -> Result<Registered<R>> {
    let mut examined = examine(file, path, R::WHAT)?;
    let digest = examined.digest.clone();
    if let Some(record) = registered::<R>(store, &digest)? {
        return Ok(Registered::known(record));
    }
    examined.file.rewind().or_fail(|| format!("read {}", path.display()))?;
    let staging = Staging::new(store)?;
    let record = R::keep(examined, staging.dir()?)?;
    let lock = store.lock()?;
    let record = record(Common {
        id: R::new_id(&digest, store.administrator().is_some())?,
        name: choose_name::<R>(store, &lock, path, &digest, name)?,
        owner_id: store.owner_id(),
        creation_date: now(),
        digest,
    });
    publish(store, &lock, staging, record)
}

/// The user's own object of that content. Another's is not taken for it, and in a shared store the
/// id does not follow from the content: it could be guessed and taken.
fn registered<R: BootFile>(store: &Store, digest: &str) -> Result<Option<R>> {
    let mut records = store.collection::<R>().list()?.records.into_iter();
    Ok(records.find(|record| record.owner() == store.owner_id() && record.digest() == digest))
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
        return Ok(Registered::known(record));
    }
    let claim = Claim::make(store, record.id().as_ref())?;
    match staging.publish(store, &record, Durability::Durable) {
        Ok(_) => Ok(Registered { record, held: Some(Held { store: store.clone(), claim }) }),
        Err(error) => {
            // Nothing is there to be taken back, and the store's lock is held.
            if let Some(claim) = claim {
                claim.end();
            }
            Err(error)
        }
    }
}

/// The name asked for, if it is free; else one made of the file's name, and of the content's digest
/// if that is taken.
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

/// Look at a file that is to be registered.
fn examine<'a>(mut file: File, path: &'a Path, what: &str) -> Result<Examined<'a>> {
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
    let (digest, size_bytes) = digest::copy(&mut file, &mut std::io::sink())
        .or_fail(|| format!("read {}", path.display()))?;
    Ok(Examined { file, path, digest, size_bytes })
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

/// Open what was registered, to read all of it: it has the size that its record says, whoever
/// registered it.
///
/// # Errors
/// It is anything else, or not registered any more.
pub(crate) fn open_content<R: BootFile>(store: &Store, id: &R::Id) -> Result<File> {
    let objects = store.collection::<R>();
    let (size, dir) = (objects.get(id)?.size_bytes(), objects.dir(id));
    let file = open_file(&dir, R::FILE)?;
    let found = file.metadata().or_fail(|| format!("read {}", dir.display()))?.len();
    if found == size && size <= MAX_FILE {
        return Ok(file);
    }
    Err(Error::failure(format!(
        "{} has {found} bytes and not the {size} that its record says; deregister it",
        dir.join(R::FILE).display()
    )))
}

/// The kernel or ramdisk for an image of one's own: another's can go or be closed at any time, so
/// that is copied.
///
/// # Errors
/// It does not exist, or can't be kept.
pub fn copy_to_caller<R: BootFile>(store: &Store, id: &R::Id) -> Result<Registered<R>> {
    let record = store.collection::<R>().get(id)?;
    let built_in = || R::built_in().iter().any(|record| record.id() == id);
    if record.owner() == store.owner_id() || built_in() {
        return Ok(Registered::known(record));
    }
    let file = open_content::<R>(store, id)?;
    let name = record.name().unwrap_or_default();
    register_file(store, file, Path::new(name), None)
}

/// [`copy_to_caller`] of both.
///
/// # Errors
/// As [`copy_to_caller`]'s.
pub fn own(
    store: &Store,
    kernel: Option<&KernelId>,
    ramdisk: Option<&RamdiskId>,
) -> Result<BootFiles> {
    Ok(BootFiles {
        kernel: kernel.map(|id| copy_to_caller(store, id)).transpose()?,
        ramdisk: ramdisk.map(|id| copy_to_caller(store, id)).transpose()?,
    })
}

/// What a kernel and its ramdisk have drivers for; nothing if that is not known.
pub fn drivers(store: &Store, kernel: Option<&KernelId>, ramdisk: Option<&RamdiskId>) -> Drivers {
    let kernel = kernel.and_then(|id| store.kernels().get(id).ok());
    let ramdisk = ramdisk.and_then(|id| store.ramdisks().get(id).ok());
    let mut drivers = Drivers::default();
    if let Some(kernel) = kernel {
        (drivers.transports, drivers.disk_buses) = (kernel.transports, kernel.disk_buses);
    }
    if let Some(ramdisk) = ramdisk {
        drivers.transports.extend(ramdisk.transports);
        drivers.disk_buses.extend(ramdisk.disk_buses);
    }
    drivers
}

/// Deregister a kernel or a ramdisk, with `force` even if instances of other accounts boot it.
///
/// # Errors
/// `InvalidAKIID.InUse` or `InvalidARIID.InUse`: an image refers to it or an instance boots it (the
/// line names it). It is another's, or does not exist.
pub fn deregister<R: BootFile>(store: &Store, id: &R::Id, force: bool) -> Result<()> {
    check_owner(store, &store.collection::<R>().get(id)?)?;
    refuse_booted::<R>(store, id)?;
    let _lock = store.lock()?;
    let uses = |image: &Image| R::of_image(image) == Some(id);
    refuse_in_use(store, R::IN_USE, id.as_ref(), uses)?;
    if !force {
        refuse_needed::<R>(store, id)?;
    }
    store.collection::<R>().remove(id)
}

/// # Errors
/// An instance that has not been terminated boots it: a stopped one needs it to start again.
fn refuse_booted<R: BootFile>(store: &Store, id: &R::Id) -> Result<()> {
    let records = store.collection::<InstanceRecord>().list()?.records;
    let uses = |i: &&Instance| i.state != State::Terminated && R::of_instance(i) == Some(id);
    match records.iter().map(|record| &record.instance).find(uses) {
        None => Ok(()),
        Some(user) => Err(Error::refused(
            R::IN_USE,
            format!("{id} is what {} boots; terminate that first", user.instance_id),
        )),
    }
}

/// # Errors
/// Another account has a volume of an image that boots it: its instance needs it to start again,
/// and can't be seen.
fn refuse_needed<R: BootFile>(store: &Store, id: &R::Id) -> Result<()> {
    let images = store.images().list()?.records;
    let uses =
        |image: &&Image| image.owner_id == store.owner_id() && R::of_image(image) == Some(id);
    let snapshots = images.iter().filter(uses).flat_map(Image::snapshots);
    match snapshots.flat_map(|id| users::accounts(store, id)).next() {
        None => Ok(()),
        Some(uid) => Err(Error::refused(
            R::IN_USE,
            format!("{id} is what an instance of account {uid} boots; `Force` takes it from there"),
        )),
    }
}
