//! UEFI firmware of this host, found as QEMU's users find it, and an instance's variables.
//!
//! Distributions describe what they have in /usr/share/qemu/firmware. (QEMU's
//! docs/interop/firmware.json) What is wanted is OVMF in flash memory, for the i440FX, in two raw
//! files: its code, which clones share, and the template of its variables.

use super::dir::InstanceDir;
use crate::error::{Code, Error, OrFail, OrRefuse, Result};
use crate::mem::layout::flash_fits;
use crate::record::uefi::UefiVariables;
use crate::store::beneath::foreign_file;
use crate::store::config_home;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The instance's variables, as its firmware keeps them in flash memory.
pub const VARIABLES: &str = "uefi-vars";

/// Directories of descriptors below which a file hides those of the same name in later ones.
const DESCRIPTORS: [&str; 3] =
    ["/etc/qemu/firmware", "/usr/local/share/qemu/firmware", "/usr/share/qemu/firmware"];
/// Most bytes of a descriptor, and most descriptors.
const MAX_DESCRIPTOR: u64 = 64 << 10;
const MAX_DESCRIPTORS: usize = 256;
/// Where distributions have it, if nothing describes it: code and variables.
const PLACES: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];
/// Features that need of the machine what it has not.
const NEEDS: [&str; 2] = ["requires-smm", "host-uefi-vars"];
/// Both files end at 4 GiB, and firmware is built for the place of its variables: together they
/// have one of these sizes.
const SIZES: [u64; 3] = [2 << 20, 4 << 20, 8 << 20];

/// Firmware: its code, and what its variables begin as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uefi {
    /// Its code.
    pub code: PathBuf,
    /// What its variables begin as.
    pub template: PathBuf,
}

/// What is read of a descriptor.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    /// `split` if absent.
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    executable: Option<Flash>,
    #[serde(default)]
    nvram_template: Option<Flash>,
}

#[derive(Deserialize)]
struct Flash {
    filename: PathBuf,
    format: String,
}

#[derive(Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

impl Descriptor {
    /// The firmware that it describes, if that is for such a machine.
    fn firmware(self) -> Option<Uefi> {
        let is_ours = |target: &Target| {
            target.architecture == "x86_64"
                && target.machines.iter().any(|machine| machine.starts_with("pc-i440fx"))
        };
        let fits = self.interface_types.iter().any(|kind| kind == "uefi")
            && self.mapping.device == "flash"
            && self.mapping.mode.as_deref().is_none_or(|mode| mode == "split")
            && self.targets.iter().any(is_ours)
            && !self.features.iter().any(|feature| NEEDS.contains(&feature.as_str()));
        let (code, template) = (self.mapping.executable?, self.mapping.nvram_template?);
        let raw = code.format == "raw" && template.format == "raw";
        (fits && raw).then_some(Uefi { code: code.filename, template: template.filename })
    }
}

/// Where to look, the user's own directory first.
fn directories() -> Vec<PathBuf> {
    let own = config_home().map(|dir| dir.join("qemu/firmware"));
    own.into_iter().chain(DESCRIPTORS.map(PathBuf::from)).collect()
}

/// What the descriptors in `directories` describe, in the order of their file names. One that is
/// none is passed over: it is not for this program.
fn described(directories: &[PathBuf]) -> Vec<Uefi> {
    let mut files = BTreeMap::new();
    for directory in directories {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for path in entries.take(MAX_DESCRIPTORS).map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_owned();
            if Path::new(&name).extension().is_some_and(|extension| extension == "json") {
                files.entry(name).or_insert(path);
            }
        }
    }
    let read = |path: PathBuf| {
        let mut bytes = Vec::new();
        foreign_file(&path).ok()?.take(MAX_DESCRIPTOR).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice::<Descriptor>(&bytes).ok()?.firmware()
    };
    files.into_values().filter_map(read).collect()
}

/// The firmware that boots an instance: that which was asked for, else this host's, whose variables
/// have `variables` bytes if the instance has some already.
///
/// # Errors
/// There is none, or it is none; it is for other variables.
pub fn find(given: Option<&Path>, variables: Option<u64>) -> Result<Uefi> {
    match given {
        Some(code) => find_given(code, variables),
        None => find_here(&directories(), variables),
    }
}

fn find_here(directories: &[PathBuf], variables: Option<u64>) -> Result<Uefi> {
    let places =
        PLACES.map(|(code, template)| Uefi { code: code.into(), template: template.into() });
    let all = described(directories).into_iter().chain(places);
    let usable: Vec<Uefi> = all.filter(|uefi| check(uefi).is_ok()).collect();
    let suits = |uefi: &&Uefi| match variables {
        Some(len) => fs::metadata(&uefi.template).is_ok_and(|template| template.len() == len),
        None => true,
    };
    match (usable.iter().find(suits), usable.first(), variables) {
        (Some(uefi), ..) => Ok(uefi.clone()),
        (None, Some(uefi), Some(len)) => Err(of_another_build(uefi, len)),
        _ => Err(Error::failure(
            "there is no UEFI firmware to boot from disk with: install package ovmf (Debian, Ubuntu) or edk2-ovmf \
             (Fedora, Arch), or give its code with `Firmware`; `KernelId` aki-pv-grub-hd00 needs none for a Linux kernel on an \
             EFI system partition or in a boot menu; what a BIOS can boot, too, takes `BootMode` legacy-bios",
        )),
    }
}

fn of_another_build(uefi: &Uefi, len: u64) -> Error {
    Error::refused(
        Code::IncorrectInstanceState,
        format!(
            "its UEFI variables of {} KiB belong to another build of the firmware than {}: give the code that it was \
             booted by with `Firmware`",
            len >> 10,
            uefi.code.display()
        ),
    )
}

/// A file of code, whose variables are described with it or lie beside it.
fn find_given(code: &Path, variables: Option<u64>) -> Result<Uefi> {
    let doing = || format!("use firmware {}", code.display());
    let described = described(&directories()).into_iter().find(|uefi| uefi.code == code);
    let beside = || {
        let name = code.file_name()?.to_str()?;
        let template = code.with_file_name(name.replacen("CODE", "VARS", 1));
        (template != code).then(|| Uefi { code: code.into(), template })
    };
    let uefi = described.or_else(beside).ok_or_else(|| {
        let why = "it is UEFI firmware without its variables beside it; give OVMF's code (OVMF_CODE_4M.fd), \
                   beside which is OVMF_VARS_4M.fd";
        refuse(doing(), why)
    })?;
    check(&uefi)?;
    let len = fs::metadata(&uefi.template).or_refuse(doing)?.len();
    match variables.filter(|variables| *variables != len) {
        Some(variables) => Err(of_another_build(&uefi, variables)),
        None => Ok(uefi),
    }
}

/// Whether a file is UEFI firmware, and not a BIOS: it begins with a firmware volume.
pub fn is_uefi(path: &Path) -> bool {
    let mut head = [0; HEADER];
    let read = foreign_file(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head[SIGNATURE..].starts_with(b"_FVH")
}

/// Bytes of a firmware volume's header that are looked at, and where its fields are: the GUID of
/// its format, its length, its signature. (UEFI PI 1.8, volume 3, 3.2.1)
const HEADER: usize = 44;
const FORMAT: usize = 16;
const LENGTH: usize = 32;
const SIGNATURE: usize = 40;
/// EFI_SYSTEM_NV_DATA_FV_GUID: a volume of variables.
const VARIABLES_FORMAT: [u8; 16] = [
    0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
];

/// # Errors
/// They are no variables.
fn check_variables(bytes: &[u8]) -> Result<(), &'static str> {
    let field = |at: usize, len: usize| bytes.get(at..at + len).unwrap_or_default();
    let length = field(LENGTH, 8).try_into().map_or(0, u64::from_le_bytes);
    let is = field(FORMAT, 16) == VARIABLES_FORMAT && field(SIGNATURE, 4) == b"_FVH";
    if !is || length == 0 || length > bytes.len() as u64 || !flash_fits(bytes.len() as u64) {
        return Err("it has no UEFI variables");
    }
    Ok(())
}

fn check(uefi: &Uefi) -> Result<()> {
    let doing = || format!("read {}", uefi.code.display());
    let code = fs::metadata(&uefi.code).or_refuse(doing)?.len();
    let variables = read_template(&uefi.template)?.len() as u64;
    if !is_uefi(&uefi.code) || !SIZES.contains(&code.saturating_add(variables)) {
        return Err(refuse(doing(), "it is no UEFI firmware that fits its variables"));
    }
    Ok(())
}

fn refuse(doing: String, why: impl std::fmt::Display) -> Error {
    Error::refused(Code::InvalidParameterValue, format!("cannot {doing}: {why}"))
}

fn read_template(path: &Path) -> Result<Vec<u8>> {
    let doing = || format!("read the UEFI variables {}", path.display());
    let file = foreign_file(path).or_refuse(doing)?;
    let len = file.metadata().or_refuse(doing)?.len();
    if !flash_fits(len) {
        return Err(refuse(doing(), format!("they have {len} bytes")));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.take(len).read_to_end(&mut bytes).or_refuse(doing)?;
    check_variables(&bytes).map_err(|why| refuse(doing(), why))?;
    Ok(bytes)
}

/// What boots an instance: the firmware's code, and the instance's variables, which are made of its
/// image's, or the firmware's template, at its first boot.
///
/// # Errors
/// There is no firmware, or none for these variables; they can't be read or made.
pub fn open(
    dir: &InstanceDir,
    given: Option<&Path>,
    image: Option<&UefiVariables>,
) -> Result<(File, File)> {
    let doing = || format!("open {}", dir.file(VARIABLES).display());
    let owned = dir.owned()?;
    let uefi = match owned.writable(VARIABLES) {
        Ok(file) => find(given, Some(file.metadata().or_fail(doing)?.len()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bytes = image.map(UefiVariables::bytes).transpose()?;
            let uefi = find(given, bytes.as_ref().map(|bytes| bytes.len() as u64))?;
            let bytes = bytes.map_or_else(|| read_template(&uefi.template), Ok)?;
            check_variables(&bytes)
                .map_err(|why| refuse("take the image's UEFI variables".into(), why))?;
            owned.replace(VARIABLES, &bytes, true).or_fail(doing)?;
            uefi
        }
        Err(error) => return Err(error).or_fail(doing),
    };
    let code = File::open(&uefi.code).or_refuse(|| format!("open {}", uefi.code.display()))?;
    Ok((code, owned.writable(VARIABLES).or_fail(doing)?))
}

/// The variables of an instance, for an image of it; `None` if it has none.
///
/// # Errors
/// They can't be read.
pub fn keep(dir: &InstanceDir) -> Result<Option<UefiVariables>> {
    let Some(file) = dir.open_file(VARIABLES)? else { return Ok(None) };
    let doing = || format!("read {}", dir.file(VARIABLES).display());
    let len = file.metadata().or_fail(doing)?.len();
    if !flash_fits(len) {
        let wrong = format!("{}: it has {len} bytes; remove it", doing());
        return Err(Error::failure(wrong));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.take(len).read_to_end(&mut bytes).or_fail(doing)?;
    UefiVariables::of(&bytes).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(len: usize, format: [u8; 16]) -> Vec<u8> {
        let mut bytes = vec![0xff; len];
        bytes[..FORMAT].fill(0);
        bytes[FORMAT..LENGTH].copy_from_slice(&format);
        bytes[LENGTH..SIGNATURE].copy_from_slice(&(len as u64).to_le_bytes());
        bytes[SIGNATURE..HEADER].copy_from_slice(b"_FVH");
        bytes
    }

    /// A directory with firmware of 2 MiB, and a descriptor of it that `change` changes.
    fn host(change: impl Fn(&mut serde_json::Value)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("MY_CODE.fd"), volume((2 << 20) - (128 << 10), [7; 16])).unwrap();
        fs::write(path("MY_VARS.fd"), volume(128 << 10, VARIABLES_FORMAT)).unwrap();
        let file = |name| serde_json::json!({ "filename": path(name), "format": "raw" });
        let mut descriptor = serde_json::json!({
            "description": "UEFI", "interface-types": ["uefi"], "features": ["acpi-s3"], "tags": [],
            "mapping": { "device": "flash", "executable": file("MY_CODE.fd"), "nvram-template": file("MY_VARS.fd") },
            "targets": [{ "architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"] }],
        });
        change(&mut descriptor);
        fs::write(path("50-mine.json"), descriptor.to_string()).unwrap();
        dir
    }

    fn found(dir: &tempfile::TempDir) -> Vec<Uefi> {
        described(&[dir.path().to_owned()])
    }

    #[test]
    fn firmware_is_found_by_its_descriptor() {
        let dir = host(|_| {});
        let wanted =
            Uefi { code: dir.path().join("MY_CODE.fd"), template: dir.path().join("MY_VARS.fd") };
        assert_eq!(found(&dir), std::slice::from_ref(&wanted));
        assert_eq!(find_here(&[dir.path().to_owned()], None).unwrap(), wanted);
        assert_eq!(find_here(&[dir.path().to_owned()], Some(128 << 10)).unwrap(), wanted);
        assert_eq!(find(Some(&wanted.code), None).unwrap(), wanted, "by its name");
        let other = find(Some(&wanted.code), Some(4096)).unwrap_err().to_string();
        assert!(other.contains("another build") && other.contains("MY_CODE.fd"), "{other}");
        // One of the same name in a directory before it hides it.
        let before = tempfile::tempdir().unwrap();
        fs::write(before.path().join("50-mine.json"), "{}").unwrap();
        assert!(described(&[before.path().to_owned(), dir.path().to_owned()]).is_empty());
    }

    #[test]
    fn what_is_for_another_machine_is_passed_over() {
        let changes: [fn(&mut serde_json::Value); 7] = [
            |it| it["interface-types"] = serde_json::json!(["bios"]),
            |it| it["mapping"]["device"] = "memory".into(),
            |it| it["mapping"]["mode"] = "combined".into(),
            |it| it["mapping"]["executable"]["format"] = "qcow2".into(),
            |it| it["features"] = serde_json::json!(["requires-smm"]),
            |it| it["targets"][0]["machines"] = serde_json::json!(["pc-q35-*"]),
            |it| it["targets"][0]["architecture"] = "aarch64".into(),
        ];
        for change in changes {
            assert!(found(&host(change)).is_empty());
        }
    }

    #[test]
    fn what_is_no_firmware_is_named() {
        let dir = host(|_| {});
        let code = dir.path().join("MY_CODE.fd");
        for (name, bytes, why) in [
            ("MY_VARS.fd", volume(128 << 10, [7; 16]), "no UEFI variables"),
            ("MY_VARS.fd", vec![0; 100], "100 bytes"),
            ("MY_CODE.fd", vec![0; 64 << 10], "no UEFI firmware that fits"),
            ("MY_CODE.fd", volume(1 << 20, [7; 16]), "no UEFI firmware that fits"),
        ] {
            let path = dir.path().join(name);
            let before = fs::read(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            let error = find(Some(&code), None).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            fs::write(&path, before).unwrap();
        }
        let alone = dir.path().join("OVMF.fd");
        fs::copy(&code, &alone).unwrap();
        let error = find(Some(&alone), None).unwrap_err().to_string();
        assert!(error.contains("without its variables"), "{error}");
    }
}
