//! Making a bundle.

use super::kernels::Kernel;
use super::manifest::{Manifest, Part};
use super::request::{Bundle, PART, SUFFIX};
use super::storage::Storage;
use super::{archive, keys};
use crate::context::Context;
use crate::disk::Disk;
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{FileName, random_hex};
use crate::image::catalog;
use crate::plan::ROOT_DEVICE;
use crate::record::image::{Architecture, Image};
use crate::record::name;
use crate::record::snapshot::Snapshot;
use crate::snapshot;
use crate::store::Store;
use crate::transfer::bundle::keys::unhex;
use crate::transfer::stored;
use aes::Aes128;
use aes::cipher::{BlockEncryptMut, KeyIvInit, generic_array::GenericArray};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest, Sha1};
use std::io::{self, Write};

/// Bytes of a cipher's block.
const BLOCK: usize = 16;

/// [`super::make`], in the program that can.
pub(crate) fn write(store: &Store, bundle: &Bundle, to: &str) -> Result<String> {
    let storage = &Storage::open(to, store.context())?;
    let (mut manifest, reader) = describe(store, bundle)?;
    let keys = keys::writer(store, &bundle.keys)?;
    if !bundle.unencrypted {
        manifest.cipher = Some((random()?, random()?));
    }
    let prefix = bundle.prefix.as_deref().unwrap_or(&manifest.name);
    let prefix = name::from_file(prefix).trim_start_matches('.').to_owned();
    let name = format!("{prefix}{SUFFIX}");
    if storage.has(&name)? {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!(
                "there is a bundle at {} already; give another `Prefix`",
                storage.location(&name)
            ),
        ));
    }
    manifest.name = format!("{prefix}.img");
    let mut parts = Parts { storage, prefix, bytes: Vec::new(), parts: Vec::new(), total: 0 };
    let result = fill(&reader, &mut manifest, &mut parts).and_then(|()| {
        manifest.parts.clone_from(&parts.parts);
        manifest.bundled_size = parts.total;
        storage.write(&name, manifest.write(&keys)?.into_bytes())
    });
    if let Err(error) = result {
        for part in &parts.parts {
            storage.delete(&part.filename);
        }
        storage.delete(&parts.name(parts.parts.len()));
        storage.delete(&name);
        return Err(error);
    }
    Ok(storage.location(&name))
}

fn random() -> Result<[u8; 16]> {
    let bytes = unhex(&random_hex(32)?).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Error::failure("cannot make a key"))
}

/// What the manifest says of the image or snapshot, and its content.
fn describe(store: &Store, bundle: &Bundle) -> Result<(Manifest, Disk)> {
    if bundle.what.starts_with("snap-") {
        let snapshot = snapshot::resolve(store, &bundle.what)?;
        let reader = stored::disk(store, &snapshot.snapshot_id)?;
        let root = vec![("ami".to_owned(), ROOT_DEVICE.to_owned())];
        return Ok((manifest(store, &snapshot, root, None), reader));
    }
    let image = catalog::resolve(store, &bundle.what)?;
    crate::transfer::package::Package::of(store, &image)?;
    let mut mappings = Vec::new();
    let mut root = None;
    for mapping in &image.block_device_mappings {
        let device = mapping.device_name.clone();
        match (&mapping.ebs, &mapping.virtual_name) {
            (Some(ebs), _) if device == image.root_device_name => {
                root = ebs.snapshot_id.clone();
                mappings.push(("ami".to_owned(), device));
            }
            (Some(_), _) => {
                return Err(Error::refused(
                    Code::InvalidParameterValue,
                    format!(
                        "{} maps {device} to a volume; a bundle has the root only",
                        image.image_id
                    ),
                ));
            }
            (None, Some(name)) => mappings.push((name.clone(), device)),
            (None, None) => {}
        }
    }
    let root = root.ok_or_else(|| Error::failure(format!("{} has no root", image.image_id)))?;
    let reader = stored::disk(store, &root)?;
    let snapshot = store.snapshots().get(&root)?;
    Ok((manifest(store, &snapshot, mappings, Some(&image)), reader))
}

fn manifest(
    store: &Store,
    snapshot: &Snapshot,
    mappings: Vec<(String, String)>,
    image: Option<&Image>,
) -> Manifest {
    let codes = image.map(|image| &*image.product_codes).unwrap_or_default();
    Manifest {
        architecture: image.map_or(Architecture::X86_64, |image| image.architecture),
        kernel: image.and_then(|image| image.kernel_id.clone()).map(Kernel::Ours),
        ramdisk_of_ec2: None,
        ramdisk_id: image.and_then(|image| image.ramdisk_id.clone()),
        mappings,
        product_codes: codes.iter().map(|code| code.product_code_id.clone()).collect(),
        name: image.map_or(snapshot.snapshot_id.to_string(), |image| image.name.clone()),
        user: store.owner_id(),
        digest: [0; 20],
        size: snapshot.size_bytes,
        bundled_size: 0,
        cipher: None,
        parts: Vec::new(),
    }
}

/// Write the parts, and the archive's digest into the manifest.
fn fill(reader: &Disk, manifest: &mut Manifest, parts: &mut Parts<'_>) -> Result<()> {
    let context = parts.storage.context();
    let doing = || "write the bundle";
    let own = |error: io::Error| archive_error(error);
    match manifest.cipher {
        Some((key, iv)) => {
            let cipher = cbc::Encryptor::new(&key.into(), &iv.into());
            let cipher = Cipher { cipher, pending: Vec::new(), out: &mut *parts };
            let mut gzip = GzEncoder::new(cipher, Compression::default());
            manifest.digest = pack(reader, &manifest.name, &mut gzip, context)?;
            gzip.finish().map_err(own)?.finish().map_err(own)?;
        }
        None => {
            let mut gzip = GzEncoder::new(&mut *parts, Compression::default());
            manifest.digest = pack(reader, &manifest.name, &mut gzip, context)?;
            gzip.finish().map_err(own)?;
        }
    }
    parts.close().map_err(own).or_fail(doing)
}

fn archive_error(error: io::Error) -> Error {
    match error.into_inner().map(|inner| inner.downcast::<Error>()) {
        Some(Ok(error)) => *error,
        Some(Err(other)) => Error::io("write the bundle", other),
        None => Error::failure("cannot write the bundle"),
    }
}

fn pack(reader: &Disk, name: &str, out: &mut dyn Write, context: &Context) -> Result<[u8; 20]> {
    let mut summed = Summed { sum: Sha1::new(), out };
    archive::write(reader, name, &mut summed, context)?;
    Ok(summed.sum.finalize().into())
}

/// Digests what passes.
struct Summed<'a> {
    sum: Sha1,
    out: &'a mut dyn Write,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.sum.update(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Encrypts what passes, in whole blocks; the last one is padded as PKCS #7 has it.
struct Cipher<W> {
    cipher: cbc::Encryptor<Aes128>,
    pending: Vec<u8>,
    out: W,
}

impl<W: Write> Cipher<W> {
    fn encrypt(&mut self, whole: usize) -> io::Result<()> {
        for block in self.pending[..whole].chunks_exact_mut(BLOCK) {
            self.cipher.encrypt_block_mut(GenericArray::from_mut_slice(block));
        }
        self.out.write_all(&self.pending[..whole])?;
        self.pending.drain(..whole);
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let padding = BLOCK - self.pending.len() % BLOCK;
        self.pending.extend(std::iter::repeat_n(padding as u8, padding));
        self.encrypt(self.pending.len())
    }
}

impl<W: Write> Write for Cipher<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        self.encrypt(self.pending.len() / BLOCK * BLOCK)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts what passes into parts.
struct Parts<'a> {
    storage: &'a Storage,
    prefix: String,
    bytes: Vec<u8>,
    parts: Vec<Part>,
    total: u64,
}

impl Parts<'_> {
    fn name(&self, index: usize) -> String {
        format!("{}.part.{index:02}", self.prefix)
    }

    fn close(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        let filename = FileName::try_from(self.name(self.parts.len())).map_err(io::Error::other)?;
        let digest = Sha1::digest(&bytes).into();
        self.total += bytes.len() as u64;
        self.storage.write(&filename, bytes).map_err(io::Error::other)?;
        self.parts.push(Part { filename, digest });
        Ok(())
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PART - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..count]);
        if self.bytes.len() == PART {
            self.close()?;
        }
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
