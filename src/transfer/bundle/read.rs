//! Registering a bundle: all of it is verified, and its disk becomes the snapshot that instances
//! begin as.

use super::kernels::Kernel;
use super::manifest::{Manifest, Part};
use super::refusal::invalid;
use super::request::{MAX_MANIFEST, MAX_PART, RegisterBundle};
use super::storage::Storage;
use super::{intact, keys, unpack};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{KernelId, RamdiskId, SnapshotId};
use crate::image::catalog;
use crate::image::manifest::Manifest as Registration;
use crate::import::{SourceFormat, arrival, room};
use crate::inspect::boot_method;
use crate::plan::{DiskFormat, PvGrub};
use crate::record::image::{BlockDeviceMapping, Image, ProductCode, RootDeviceType};
use crate::record::name;
use crate::record::snapshot::{DATA, Snapshot};
use crate::store::{Staging, Store, now};
use aes::Aes128;
use aes::cipher::{BlockDecryptMut, KeyIvInit, generic_array::GenericArray};
use sha1::{Digest, Sha1};
use std::io::{self, Read};
use std::path::Path;

/// Bytes of a cipher's block.
const BLOCK: usize = 16;

/// [`super::register`], in the program that can.
pub(crate) fn register(store: &Store, request: &RegisterBundle) -> Result<Image> {
    let (storage, file) = Storage::of_manifest(&request.location, store.context())?;
    let keys = keys::reader(store, &request.keys)?;
    let text = storage.read(&file, MAX_MANIFEST)?;
    let manifest =
        String::from_utf8(text.clone()).map_err(|_| invalid("its manifest is no text"))?;
    let manifest = Manifest::read(&manifest, &keys)?;
    let name = match &request.name {
        Some(name) => name.clone(),
        None => name::from_file(manifest.name.trim_end_matches(".img")),
    };
    catalog::check_name(store, &name)?;
    refuse_missing(&manifest, request)?;
    // Zeros are packed to nothing, and what is not takes at least as much as it is packed to, but
    // for deflate's own marks.
    room::check(store.home(), manifest.bundled_size / 100 * 99)?;
    let made = unbundle(store, &storage, &manifest, &name)?;
    let id = made.1.snapshot_id.clone();
    let boot = boot_of(&manifest, request, &made.0.path().join(DATA))?;
    let registration = registration(&manifest, request, (name, id), boot, storage.location(&file));
    let seal = intact::Seal::new(&storage, &file, &text, &manifest.parts)?;
    arrival::publish(store, made, registration, |image, dir| {
        image.product_codes = codes(&manifest);
        seal.write(dir)
    })
}

fn codes(manifest: &Manifest) -> Vec<ProductCode> {
    let code = |id: &String| ProductCode {
        product_code_id: id.clone(),
        product_code_type: "marketplace".to_owned(),
    };
    manifest.product_codes.iter().map(code).collect()
}

fn registration(
    manifest: &Manifest,
    request: &RegisterBundle,
    (name, root): (String, SnapshotId),
    (kernel, ramdisk): Boot,
    location: String,
) -> Registration {
    let device = |text: &str| {
        if text.starts_with("/dev/") { text.to_owned() } else { format!("/dev/{text}") }
    };
    let mut registration = Registration::with_root(&name, root);
    let ami = manifest.mappings.iter().find(|(name, _)| name == "ami");
    if let (Some((_, root)), Some(mapping)) = (ami, registration.block_device_mappings.first_mut())
    {
        mapping.device_name = device(root);
        registration.root_device_name = Some(device(root));
    }
    let ephemeral = manifest.mappings.iter().filter(|(name, _)| name.starts_with("ephemeral"));
    registration.block_device_mappings.extend(ephemeral.map(|(name, to)| BlockDeviceMapping {
        device_name: device(to),
        ebs: None,
        virtual_name: Some(name.clone()),
        no_device: None,
    }));
    registration.architecture = Some(manifest.architecture);
    registration.kernel_id = kernel;
    registration.ramdisk_id = ramdisk;
    registration.command_line = request.command_line.clone();
    registration.root_device_type = Some(RootDeviceType::InstanceStore);
    registration.description = request.description.clone();
    registration.image_location = Some(location);
    registration.tags = request.tags.clone();
    registration
}

/// What an image boots.
type Boot = (Option<KernelId>, Option<RamdiskId>);

/// # Errors
/// Its kernel or ramdisk is EC2's, and none was given in its place.
fn refuse_missing(manifest: &Manifest, request: &RegisterBundle) -> Result<()> {
    let kernel = match &manifest.kernel {
        Some(Kernel::Ec2s(id)) => Some(id),
        _ => None,
    };
    let pv_grub = matches!(manifest.kernel, Some(Kernel::PvGrub(_)));
    let ramdisk = manifest.ramdisk_of_ec2.as_ref().filter(|_| !pv_grub);
    let Some(missing) = kernel.or(ramdisk).filter(|_| request.kernel.is_none()) else {
        return Ok(());
    };
    Err(Error::refused(
        Code::InvalidAKIIDNotFound,
        format!(
            "it boots {missing}, which only EC2 had; give `KernelId`, and `RamdiskId` if that needs one"
        ),
    ))
}

/// A kernel that was given comes with the ramdisk that was given, and PV-GRUB with none.
fn boot_of(manifest: &Manifest, request: &RegisterBundle, root: &Path) -> Result<Boot> {
    if let Some(kernel) = &request.kernel {
        return Ok((Some(kernel.clone()), request.ramdisk.clone()));
    }
    let pv_grub = |partitioned: bool| {
        let id = if partitioned { "aki-pv-grub-hd00" } else { "aki-pv-grub-hd0" };
        Ok((Some(id.parse()?), None))
    };
    match &manifest.kernel {
        Some(Kernel::PvGrub(PvGrub::Hd0)) => pv_grub(false),
        Some(Kernel::PvGrub(PvGrub::Hd00)) => pv_grub(true),
        Some(Kernel::PvGrub(PvGrub::Any)) => {
            let disk = boot_method::of_file(root, Some(SourceFormat::Raw))?.disk;
            pv_grub(disk.partition_table != "none")
        }
        Some(Kernel::Ours(id)) => Ok((Some(id.clone()), manifest.ramdisk_id.clone())),
        Some(Kernel::Ec2s(_)) | None => Ok((None, manifest.ramdisk_id.clone())),
    }
}

/// The bundle's disk as a snapshot that is to appear.
fn unbundle(
    store: &Store,
    storage: &Storage,
    manifest: &Manifest,
    name: &str,
) -> Result<(Staging, Snapshot)> {
    let staging = Staging::new(store)?;
    let doing = || "write the disk of a bundle";
    let out = staging.dir()?.create(DATA, 0o600).or_fail(doing)?;
    let size = manifest.size.next_multiple_of(512);
    let parts = Parts::new(storage, manifest);
    let (rest, digest) =
        unpack::disk(store.context(), parts, (manifest.size, manifest.digest), out)?;
    rest.done(manifest)?;
    staging.dir()?.set_mode(DATA, 0o400).or_fail(doing)?;
    store.context().check()?;
    let (id, made) = (SnapshotId::generate()?, (store.owner_id(), now()));
    let mut snapshot = Snapshot::flat(id, made, size, (DiskFormat::Raw, digest));
    snapshot.description = format!("Unbundled for image {name}");
    Ok((staging, snapshot))
}

/// The parts as one stream: verified, and decrypted.
struct Parts<'a> {
    storage: &'a Storage,
    parts: std::slice::Iter<'a, Part>,
    cipher: Option<cbc::Decryptor<Aes128>>,
    /// Ciphertext that is no whole block yet.
    pending: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
    total: u64,
}

impl<'a> Parts<'a> {
    fn new(storage: &'a Storage, manifest: &'a Manifest) -> Self {
        let cipher = manifest.cipher.map(|(key, iv)| cbc::Decryptor::new(&key.into(), &iv.into()));
        let parts = manifest.parts.iter();
        Self { storage, parts, cipher, pending: Vec::new(), plain: Vec::new(), at: 0, total: 0 }
    }

    /// Bring the next part into `plain`. `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        self.storage.context().check()?;
        let Some(part) = self.parts.next() else { return Ok(false) };
        let bytes = self.storage.read(&part.filename, MAX_PART)?;
        if <[u8; 20]>::from(Sha1::digest(&bytes)) != part.digest {
            return Err(invalid(format!("{} is not what its digest says", &*part.filename)));
        }
        self.total += bytes.len() as u64;
        (self.plain, self.at) = (bytes, 0);
        let Some(cipher) = &mut self.cipher else { return Ok(true) };
        self.pending.append(&mut self.plain);
        let whole = self.pending.len() / BLOCK * BLOCK;
        for block in self.pending[..whole].chunks_exact_mut(BLOCK) {
            cipher.decrypt_block_mut(GenericArray::from_mut_slice(block));
        }
        let rest = self.pending.split_off(whole);
        self.plain = std::mem::replace(&mut self.pending, rest);
        if self.parts.len() == 0 {
            // PKCS #7: the last byte says how many to take off.
            let padding = self.plain.last().map_or(0, |last| usize::from(*last));
            if !self.pending.is_empty() || !(1..=BLOCK).contains(&padding) {
                return Err(invalid("it can't be decrypted by its key"));
            }
            self.plain.truncate(self.plain.len() - padding);
        }
        Ok(true)
    }

    /// All parts were needed, and they are as long as the manifest says.
    fn done(mut self, manifest: &Manifest) -> Result<()> {
        while self.advance()? {}
        if self.total == manifest.bundled_size {
            return Ok(());
        }
        Err(invalid("its parts are not as long as its manifest says"))
    }
}

impl Read for Parts<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            if !self.advance().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let count = bytes.len().min(self.plain.len() - self.at);
        bytes[..count].copy_from_slice(&self.plain[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
