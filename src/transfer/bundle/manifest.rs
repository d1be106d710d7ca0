//! A bundle's manifest: XML of version 2007-10-10, as ec2-ami-tools write it.

use super::kernels::{Kernel, is_short};
use super::keys::{self, Reader, Writer, unhex};
use super::refusal::invalid;
use super::request::MAX_PART;
use super::xml::{self, Element, element};
use crate::error::Result;
use crate::id::{FileName, RamdiskId, hex};
use crate::record::image::Architecture;
use crate::record::limits::MAX_SIZE;

/// The one algorithm of the cipher.
const CIPHER: &str = "AES-128-CBC";
/// Most parts: 2 TiB of them.
const MAX_PARTS: usize = 200_000;

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub architecture: Architecture,
    pub kernel: Option<Kernel>,
    pub ramdisk_id: Option<RamdiskId>,
    /// A ramdisk of EC2's.
    pub ramdisk_of_ec2: Option<String>,
    /// Virtual name and device: `ami` is the root.
    pub mappings: Vec<(String, String)>,
    pub product_codes: Vec<String>,
    /// The disk's file name in the archive.
    pub name: String,
    /// The bundler's account.
    pub user: String,
    /// SHA-1 of the archive.
    pub digest: [u8; 20],
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of all parts.
    pub bundled_size: u64,
    /// The cipher's key and initialization vector; none for parts that are not encrypted.
    pub cipher: Option<([u8; 16], [u8; 16])>,
    pub parts: Vec<Part>,
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Beside the manifest.
    pub filename: FileName,
    /// SHA-1.
    pub digest: [u8; 20],
}

impl Manifest {
    /// As XML, with keys encrypted and signed.
    ///
    /// # Errors
    /// A key is too short.
    pub(super) fn write(&self, keys: &Writer) -> Result<String> {
        let machine = self.machine();
        let image = self.image(keys)?;
        let signature = keys::sign(&keys.user, format!("{machine}{image}").as_bytes())?;
        let version = env!("CARGO_PKG_VERSION");
        Ok(format!(
            "<?xml version=\"1.0\"?>\n<manifest><version>2007-10-10</version><bundler><name>spore</name>\
             <version>{version}</version><release>0</release></bundler>{machine}{image}{}</manifest>\n",
            element("signature", &hex(&signature))
        ))
    }

    fn machine(&self) -> String {
        let architecture = match self.architecture {
            Architecture::I386 => "i386",
            Architecture::X86_64 => "x86_64",
            Architecture::Arm64 => "arm64",
        };
        let mut text = element("architecture", architecture);
        if let Some(Kernel::Ours(id)) = &self.kernel {
            text += &element("kernel_id", id.as_str());
        }
        if let Some(id) = &self.ramdisk_id {
            text += &element("ramdisk_id", id.as_str());
        }
        text += "<block_device_mapping>";
        for (virtual_name, device) in &self.mappings {
            let pair = element("virtual", virtual_name) + &element("device", device);
            text += &format!("<mapping>{pair}</mapping>");
        }
        text += "</block_device_mapping>";
        if !self.product_codes.is_empty() {
            let codes: String =
                self.product_codes.iter().map(|code| element("product_code", code)).collect();
            text += &format!("<product_codes>{codes}</product_codes>");
        }
        format!("<machine_configuration>{text}</machine_configuration>")
    }

    fn image(&self, keys: &Writer) -> Result<String> {
        let sha1 = |digest: &[u8]| format!("<digest algorithm=\"SHA1\">{}</digest>", hex(digest));
        let mut text = element("name", &self.name) + &element("user", &self.user);
        text += &element("type", "machine");
        text += &sha1(&self.digest);
        text += &element("size", &self.size.to_string());
        text += &element("bundled_size", &self.bundled_size.to_string());
        if let Some((key, iv)) = &self.cipher {
            for (who, cert) in [("ec2", &keys.ec2_cert), ("user", &keys.user_cert)] {
                let key = hex(&keys::encrypt(cert, &hex(key))?);
                text += &format!(
                    "<{who}_encrypted_key algorithm=\"{CIPHER}\">{key}</{who}_encrypted_key>"
                );
                text +=
                    &element(&format!("{who}_encrypted_iv"), &hex(&keys::encrypt(cert, &hex(iv))?));
            }
        }
        text += &format!("<parts count=\"{}\">", self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let name = element("filename", &part.filename);
            text += &format!("<part index=\"{index}\">{name}{}</part>", sha1(&part.digest));
        }
        Ok(format!("<image>{text}</parts></image>"))
    }

    /// Read one, and check all of it.
    ///
    /// # Errors
    /// `InvalidManifest`: it is malformed, signed by somebody else, or encrypted for others.
    pub(super) fn read(text: &str, keys: &Reader) -> Result<Self> {
        let root = xml::parse(text)?;
        if root.name != "manifest" {
            return Err(invalid("its manifest is not one"));
        }
        check_signature(text, &root, keys)?;
        Self::of(&root, |image| cipher(image, keys))
    }

    /// What the elements of a manifest say. `cipher` finds how its parts are encrypted.
    pub(super) fn of(
        root: &Element,
        cipher: impl Fn(&Element) -> Result<Option<([u8; 16], [u8; 16])>>,
    ) -> Result<Self> {
        let (machine, image) = (root.child("machine_configuration")?, root.child("image")?);
        if image.text_of("type").is_some_and(|kind| kind != "machine") {
            return Err(invalid("it is not a machine image"));
        }
        let number = |name: &str| -> Result<u64> {
            image.child(name)?.text.parse().map_err(|_| invalid(format!("its {name} is no number")))
        };
        let (size, bundled_size) = (number("size")?, number("bundled_size")?);
        let parts = parts(image.child("parts")?)?;
        if size == 0 || size > MAX_SIZE || bundled_size > parts.len() as u64 * MAX_PART {
            return Err(invalid("it has an impossible size"));
        }
        let id = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let kernel = id(machine.text_of("kernel_id")).map(|id| Kernel::parse(&id)).transpose()?;
        let ramdisk = id(machine.text_of("ramdisk_id"));
        let (ramdisk_of_ec2, ramdisk) = match ramdisk {
            Some(text) if is_short(&text, RamdiskId::PREFIX) => (Some(text), None),
            other => (None, other),
        };
        Ok(Self {
            architecture: architecture(&machine.child("architecture")?.text)?,
            kernel,
            ramdisk_id: ramdisk.map(|id| id.parse()).transpose()?,
            ramdisk_of_ec2,
            mappings: mappings(machine),
            product_codes: product_codes(machine),
            name: image.child("name")?.text.clone(),
            user: image.child("user")?.text.clone(),
            digest: digest(image)?,
            size,
            bundled_size,
            cipher: cipher(image)?,
            parts,
        })
    }
}

/// ec2-ami-tools sign the two elements as they stand in the file; others sign them without space
/// between elements.
fn check_signature(text: &str, root: &Element, keys: &Reader) -> Result<()> {
    let signature = unhex(&root.child("signature")?.text);
    let signature = signature.ok_or_else(|| invalid("its signature is malformed"))?;
    let raw: String = ["machine_configuration", "image"]
        .iter()
        .filter_map(|name| text.get(root.child(name).ok()?.span.clone()))
        .collect();
    let mut dense = String::with_capacity(raw.len());
    for (n, piece) in raw.split('<').enumerate() {
        dense.push_str(if n == 0 { "" } else { "<" });
        dense.push_str(if piece.trim_end().ends_with('>') { piece.trim_end() } else { piece });
    }
    let signed = |text: &str| keys::is_signed(&keys.signer, text.as_bytes(), &signature);
    if signed(&raw) || signed(&dense) {
        return Ok(());
    }
    Err(invalid(
        "its signature is not by the certificate at hand; give its signer's with `Certificate`",
    ))
}

fn architecture(text: &str) -> Result<Architecture> {
    match text {
        "i386" => Ok(Architecture::I386),
        "x86_64" => Ok(Architecture::X86_64),
        "arm64" => Ok(Architecture::Arm64),
        _ => Err(invalid("its architecture is unknown")),
    }
}

fn mappings(machine: &Element) -> Vec<(String, String)> {
    let all = machine.children.iter().filter(|c| c.name == "block_device_mapping");
    let pair =
        |m: &Element| Some((m.text_of("virtual")?.to_owned(), m.text_of("device")?.to_owned()));
    all.flat_map(|all| &all.children).filter_map(pair).collect()
}

fn product_codes(machine: &Element) -> Vec<String> {
    let all = machine.children.iter().filter(|c| c.name == "product_codes");
    let codes = all.flat_map(|all| &all.children).map(|code| code.text.clone());
    codes.filter(|code| !code.is_empty()).collect()
}

fn digest(element: &Element) -> Result<[u8; 20]> {
    let digest = element.child("digest")?;
    let sha1 = digest.attribute("algorithm") == Some("SHA1");
    let bytes = unhex(&digest.text).and_then(|bytes| bytes.try_into().ok());
    bytes.filter(|_| sha1).ok_or_else(|| invalid("a digest is malformed"))
}

fn cipher(image: &Element, keys: &Reader) -> Result<Option<([u8; 16], [u8; 16])>> {
    let encrypted = |name: &str| image.children.iter().any(|child| child.name.ends_with(name));
    if !encrypted("_encrypted_key") && !encrypted("_encrypted_iv") {
        return Ok(None);
    }
    for (who, key) in [("ec2", &keys.ec2), ("user", &keys.user)] {
        let plain = |what: &str| {
            let text = image.text_of(&format!("{who}_encrypted_{what}"))?;
            keys::decrypt(key, &unhex(text)?)
        };
        if let (Some(key), Some(iv)) = (plain("key"), plain("iv")) {
            return Ok(Some((key, iv)));
        }
    }
    Err(invalid(
        "it is encrypted for other keys than those at hand; give one of its with `PrivateKey`",
    ))
}

fn parts(parts: &Element) -> Result<Vec<Part>> {
    let found: Vec<&Element> = parts.children.iter().filter(|c| c.name == "part").collect();
    let count = parts.attribute("count").and_then(|count| count.parse().ok());
    if found.is_empty() || found.len() > MAX_PARTS || count != Some(found.len()) {
        return Err(invalid("it has no part, too many, or another count of them"));
    }
    let mut all: Vec<Option<Part>> = vec![None; found.len()];
    for part in found {
        let index = part.attribute("index").and_then(|index| index.parse::<usize>().ok());
        let place = index.and_then(|index| all.get_mut(index)).filter(|place| place.is_none());
        let place = place.ok_or_else(|| invalid("its parts are numbered wrongly"))?;
        let filename = part.child("filename")?.text.clone();
        check_name(&filename)?;
        let filename = FileName::try_from(filename)?;
        *place = Some(Part { filename, digest: digest(part)? });
    }
    Ok(all.into_iter().flatten().collect())
}

/// A part lies beside its manifest, and nowhere else.
fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || " ._-()[]@'+".contains(c);
    if (1..=255).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fine) {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(100).collect();
    Err(invalid(format!("'{shown}' can't be a part's name: it is no plain file name")))
}
