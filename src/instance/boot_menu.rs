//! Booting as PV-GRUB: the menu on the instance's own root volume says what.
//!
//! The files that it names are kept in the store's cache under the digest of their content, the
//! kernel unpacked: clones share their pages, and the next boot of the same kernel unpacks nothing.
//! What is kept under a digest was digested here and unpacked by a process that had read nothing
//! else, so that no image decides what another's digest stands for.

use crate::context::Context;
use crate::disk::Disk;
use crate::error::{Error, OrFail, Result};
use crate::instance::fds::Fds;
use crate::plan::{BootPlan, DiskFormat, MenuPlan, PvBoot, PvGrub};
use crate::pvgrub::{Bytes, Child, Wanted};
use crate::record::instance::Instance;
use crate::snapshot::digest;
use crate::store::Store;
use crate::store::beneath::Owned;
use crate::volume::Opened;
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Files that are kept: some kernels and their ramdisks.
const KEPT: usize = 24;

/// A volume's files, top first.
pub type Layers = Vec<(File, DiskFormat)>;

/// An opened volume's files once more.
///
/// # Errors
/// Too many open files.
pub fn layers(opened: &Opened) -> Result<Layers> {
    let copy = |(file, format): &(File, DiskFormat)| {
        Ok((file.try_clone().or_fail(|| "read a root volume")?, *format))
    };
    opened.layers.iter().map(copy).collect()
}

/// What boots an instance, and the process that will read the menu again at its resets.
///
/// # Errors
/// Nothing on the root volume boots: what was looked for, or why not.
pub fn boot(
    store: &Store,
    fds: &mut Fds,
    instance: &mut Instance,
    from: PvGrub,
    root: Option<Layers>,
    entry: Option<&str>,
) -> Result<BootPlan> {
    let id = instance.instance_id.clone();
    let layers = root.ok_or_else(|| Error::failure(format!("{id} has no root volume")))?;
    let disk = Disk::open(layers).or_fail(|| format!("read the root volume of {id}"))?;
    let mut boot = PvBoot {
        from,
        entry: entry.map(str::to_owned),
        append: instance.spore.append.clone(),
        instance_id: id.clone(),
        launch_index: instance.ami_launch_index,
        saved: instance.spore.boot_environment.take(),
    };
    let cache = Cache::new(store);
    let child = Child::start()?;
    let (mut kernel, mut ramdisk) = (None, None);
    let (found, files) = child
        .boot(&disk, &boot, &mut |found| {
            kernel = cache.open(&found.kernel_digest, KERNEL);
            ramdisk = found.ramdisk_digest.as_ref().and_then(|d| cache.open(d, RAMDISK));
            Wanted {
                kernel: kernel.is_none(),
                unpacked: false,
                ramdisk: ramdisk.is_none() && found.ramdisk_digest.is_some(),
            }
        })
        .map_err(|error| error.context(format!("{id} can't boot from its root volume")))?;
    if let Some(file) = files.kernel {
        kernel = Some(cache.add_kernel(&found.kernel_digest, file)?);
    }
    if let (Some(file), Some(digest)) = (files.ramdisk, &found.ramdisk_digest) {
        ramdisk = Some(cache.add(digest, RAMDISK, file)?);
    }
    let kernel = kernel.ok_or_else(|| Error::failure("a kernel was found and not read"))?;
    // Whoever asks for an entry does so for this boot, as before GRUB's menu.
    boot.entry = None;
    boot.saved.clone_from(&found.saved);
    instance.spore.boot_environment = found.saved;
    instance.spore.command_line.clone_from(&found.command_line);
    instance.spore.boot_entry = Some(found.title);
    Ok(BootPlan::Direct {
        kernel: Some(fds.add(kernel)),
        initrd: ramdisk.map(|file| fds.add(file)),
        cmdline: found.command_line,
        menu: Some(Box::new(MenuPlan {
            disk: instance.root_device_name.parse()?,
            reader: fds.add(child.into_socket()),
            boot,
            kernel_digest: Some(found.kernel_digest),
            ramdisk_digest: found.ramdisk_digest,
        })),
    })
}

/// What boots an instance that goes on from its memory at its next reset: whatever the menu says
/// then. It is not read now, since the kernel that runs needs nothing of it, and may have left it
/// half written.
///
/// # Errors
/// The process that will read it can't be started.
pub fn at_reset(fds: &mut Fds, instance: &Instance, from: PvGrub) -> Result<BootPlan> {
    let boot = PvBoot {
        from,
        entry: None,
        append: instance.spore.append.clone(),
        instance_id: instance.instance_id.clone(),
        launch_index: instance.ami_launch_index,
        saved: instance.spore.boot_environment.clone(),
    };
    let menu = MenuPlan {
        disk: instance.root_device_name.parse()?,
        reader: fds.add(Child::start()?.into_socket()),
        boot,
        kernel_digest: None,
        ramdisk_digest: None,
    };
    let cmdline = instance.spore.command_line.clone();
    Ok(BootPlan::Direct { kernel: None, initrd: None, cmdline, menu: Some(Box::new(menu)) })
}

const KERNEL: &str = "elf";
const RAMDISK: &str = "ramdisk";

/// The file in the cache whose flock is held while something is added.
const LOCK: &str = "lock";

/// Kernels and initial ramdisks by the digest of their files.
struct Cache {
    path: PathBuf,
    context: Context,
}

impl Cache {
    fn new(store: &Store) -> Self {
        // In a shared store everybody has their own: what others wrote is not executed.
        let base = match store.administrator() {
            None => store.cache(),
            Some(_) => store.account_dir().join("cache"),
        };
        Self { path: base.join("pv-grub"), context: store.context().clone() }
    }

    fn name(digest: &str, kind: &str) -> Option<String> {
        let hex = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| format!("{digest}.{kind}"))
    }

    fn open(&self, digest: &str, kind: &str) -> Option<File> {
        let file = Owned::open(&self.path).ok()?.file(&Self::name(digest, kind)?).ok()?;
        // What is used stays. A cache that can't be marked is none the worse.
        let _ = file.set_modified(std::time::SystemTime::now());
        Some(file)
    }

    /// Unpack the kernel file that has this digest, and keep it.
    fn add_kernel(&self, digest: &str, file: File) -> Result<File> {
        let _one = self.lock();
        if let Some(kernel) = self.open(digest, KERNEL) {
            return Ok(kernel);
        }
        verify(digest, &file)?;
        let size = file.metadata().or_fail(|| "read a kernel")?.len();
        let kernel = Child::start()?.unpack(&Memory { file, size })?;
        self.keep(digest, KERNEL, kernel)
    }

    fn add(&self, digest: &str, kind: &str, file: File) -> Result<File> {
        let _one = self.lock();
        verify(digest, &file)?;
        self.keep(digest, kind, file)
    }

    /// Keep a file. One that can't be kept is used all the same.
    fn keep(&self, digest: &str, kind: &str, file: File) -> Result<File> {
        let Some(name) = Self::name(digest, kind) else { return Ok(file) };
        match self.write(&name, &file) {
            Ok(kept) => {
                self.trim();
                Ok(kept)
            }
            Err(error) => {
                let path = self.path.join(name);
                self.context.warn(format_args!("{} can't be kept: {error}", path.display()));
                Ok(file)
            }
        }
    }

    /// Waits for whoever adds to the cache: one kernel is unpacked once, however many instances
    /// want it. Where nothing can be locked it is unpacked more often.
    fn lock(&self) -> Option<File> {
        let file = self.make().and_then(|cache| cache.open_or_create(LOCK)).ok()?;
        retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).ok()?;
        Some(file)
    }

    fn make(&self) -> io::Result<Owned> {
        let above: Vec<_> = self.path.ancestors().skip(1).take(2).collect();
        above.into_iter().rev().try_for_each(|dir| Owned::make_if_absent(dir).map(drop))?;
        Owned::make_if_absent(&self.path)
    }

    fn write(&self, name: &str, from: &File) -> io::Result<File> {
        let cache = self.make()?;
        let mut new = cache.begin(&format!("{name}.new-{}", std::process::id()))?;
        (&*from).rewind()?;
        io::copy(&mut &*from, &mut new.file)?;
        // After a power failure the name must not stand for less.
        new.file.sync_all()?;
        new.place(name)?;
        cache.file(name)
    }

    /// Let go of what has not been used for longest. Who has it open keeps it.
    fn trim(&self) {
        let Ok(cache) = Owned::open(&self.path) else { return };
        let names = cache.names().unwrap_or_default().into_iter().filter(|name| name != LOCK);
        let mut files: Vec<_> = names
            .filter_map(|name| {
                let stat = cache.stat(&name).ok()?;
                Some(((stat.st_mtime, stat.st_mtime_nsec), name))
            })
            .collect();
        files.sort();
        for (_, name) in files.iter().rev().skip(KEPT) {
            let _ = cache.remove(name);
        }
    }
}

/// # Errors
/// The file has another digest than was said.
fn verify(expected: &str, file: &File) -> Result<()> {
    let doing = || "read a file of a root volume";
    (&*file).rewind().or_fail(doing)?;
    let (found, _) = digest::copy(&mut &*file, &mut io::sink()).or_fail(doing)?;
    if found == expected {
        return Ok(());
    }
    Err(Error::failure("the process that reads a root volume gave a file another digest"))
}

/// A memory file as what is read.
struct Memory {
    file: File,
    size: u64,
}

impl Bytes for Memory {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }
}
