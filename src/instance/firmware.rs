//! The firmware that boots an instance from disk: SeaBIOS, as the distribution has it, or UEFI.

use super::uefi;
use crate::error::{Code, Error, OrRefuse, Result};
use crate::mem::layout::firmware_fits;
use crate::plan::TransportKind;
use crate::record::image::{BootMode, Image};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where distributions have SeaBIOS for a machine without PCI. QEMU's own directory comes last: in
/// some it has another firmware under this name.
const PLACES: [&str; 4] = [
    "/usr/share/seabios/bios-microvm.bin",
    "/usr/local/share/seabios/bios-microvm.bin",
    "/usr/share/qemu/bios-microvm.bin",
    "/usr/local/share/qemu/bios-microvm.bin",
];
/// What is in every SeaBIOS.
const NAME: &[u8] = b"SeaBIOS";
/// What comes before its version, which ends with a NUL.
const VERSION: &[u8] = b"SeaBIOS (version %s)\n\0";

/// What boots by a file of firmware.
pub fn mode_of(path: &Path) -> BootMode {
    match uefi::is_uefi(path) {
        true => BootMode::Uefi,
        false => BootMode::LegacyBios,
    }
}

/// How an instance boots from disk: as its launch or else its image says. With a file of firmware
/// it boots as that does; what prefers UEFI does where the host has it.
///
/// # Errors
/// The launch asks for what the file is not.
pub fn boot_mode(
    asked: Option<BootMode>,
    image: Option<BootMode>,
    given: Option<&Path>,
) -> Result<Option<BootMode>> {
    let preferred = || match uefi::find(None, None) {
        Ok(_) => BootMode::Uefi,
        Err(_) => BootMode::LegacyBios,
    };
    let Some(path) = given else {
        let mode = asked.or(image);
        return Ok(
            mode.map(|mode| if mode == BootMode::UefiPreferred { preferred() } else { mode })
        );
    };
    let is = mode_of(path);
    if asked.is_some_and(|asked| asked != is && asked != BootMode::UefiPreferred) {
        let (is, other) = match is {
            BootMode::Uefi => ("UEFI firmware", "uefi"),
            _ => ("a BIOS", "legacy-bios"),
        };
        return Err(Error::refused(
            Code::InvalidParameterCombination,
            format!("`Firmware` {} is {is}: leave `BootMode` out, or say {other}", path.display()),
        ));
    }
    Ok(Some(is))
}

/// The boot mode of an instance: what was asked for, else its image's. It means nothing while a
/// `kernel` is entered.
///
/// # Errors
/// UEFI firmware has no drivers for virtio-mmio.
pub fn mode(
    asked: Option<BootMode>,
    image: &Image,
    transport: TransportKind,
    kernel: bool,
) -> Result<Option<BootMode>> {
    let mode = asked.or(image.boot_mode);
    if mode == Some(BootMode::Uefi) && transport == TransportKind::Mmio && !kernel {
        let why = "UEFI firmware finds disks on PCI alone: leave out --transport mmio, or give a kernel with `KernelId`";
        return Err(Error::refused(Code::InvalidParameterCombination, why));
    }
    Ok(mode)
}

/// See that there is the firmware that an instance boots by.
///
/// # Errors
/// As [`find`]'s and [`uefi::find`]'s.
pub fn check(mode: Option<BootMode>, given: Option<&Path>) -> Result<()> {
    match mode {
        Some(BootMode::Uefi) => uefi::find(given, None).map(drop),
        _ => find(given).map(drop),
    }
}

/// The BIOS that an instance boots: the one that was asked for, else the distribution's.
///
/// # Errors
/// There is none, or it is none.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        let doing = || format!("use firmware {}", path.display());
        let len = fs::metadata(path).or_refuse(doing)?.len();
        if !firmware_fits(len) {
            return Err(Error::refused(
                Code::InvalidParameterValue,
                format!(
                    "cannot {}: it has {len} bytes, and an image has a multiple of 4 KiB up to 256 KiB, as SeaBIOS's \
                     bios-microvm.bin; or it is UEFI firmware, as OVMF's OVMF_CODE_4M.fd",
                    doing()
                ),
            ));
        }
        return Ok(path.to_owned());
    }
    let found = PLACES.iter().map(Path::new).find(|path| is_seabios(path));
    found.map(Path::to_owned).ok_or_else(|| {
        Error::failure(
            "there is no firmware to boot from disk with: install package seabios \
             (it brings /usr/share/seabios/bios-microvm.bin), or give one with --firmware FILE",
        )
    })
}

/// Open the BIOS of an instance.
///
/// # Errors
/// As [`find`]'s, or it can't be read.
pub fn open(given: Option<&Path>) -> Result<File> {
    let path = find(given)?;
    File::open(&path).or_refuse(|| format!("open firmware {}", path.display()))
}

fn is_seabios(path: &Path) -> bool {
    read(path).is_some_and(|bytes| memchr::memmem::find(&bytes, NAME).is_some())
}

/// An image that is small enough to be one.
fn read(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    if !firmware_fits(len) {
        return None;
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.take(len).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The version that a SeaBIOS says of itself, e.g. `1.16.2-debian-1.16.2-1`.
pub fn version(path: &Path) -> Option<String> {
    version_in(&read(path)?)
}

/// The version is a string of its own that looks like one: `1.16.2-…` or `rel-1.16.2-…`.
fn version_in(image: &[u8]) -> Option<String> {
    memchr::memmem::find(image, VERSION)?;
    let strings = image.split(|&byte| byte == 0).filter(|s| (5..64).contains(&s.len()));
    let mut texts = strings.filter_map(|string| std::str::from_utf8(string).ok());
    let is_version = |text: &&str| {
        let number = text.strip_prefix("rel-").unwrap_or(text);
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        printable
            && number.starts_with(|c: char| c.is_ascii_digit())
            && number.matches('.').count() >= 2
    };
    texts.find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_and_a_wrong_one_are_named() {
        let missing = find(Some(Path::new("/nowhere/bios.bin"))).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/bios.bin"), "{missing}");
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1000).unwrap();
        let wrong = find(Some(file.path())).unwrap_err().to_string();
        assert!(wrong.contains("1000 bytes") && wrong.contains("4 KiB"), "{wrong}");
    }

    #[test]
    fn a_launch_boots_as_it_says_or_its_image_and_by_a_file_as_that_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(128 << 10).unwrap();
        let (uefi, bios) = (Some(BootMode::Uefi), Some(BootMode::LegacyBios));
        assert_eq!(boot_mode(None, None, None).unwrap(), None);
        assert_eq!(boot_mode(None, uefi, None).unwrap(), uefi);
        assert_eq!(boot_mode(bios, uefi, None).unwrap(), bios);
        assert_eq!(boot_mode(None, uefi, Some(file.path())).unwrap(), bios);
        let error = boot_mode(uefi, None, Some(file.path())).unwrap_err().to_string();
        assert!(error.contains("is a BIOS"), "{error}");
        let preferred = boot_mode(None, Some(BootMode::UefiPreferred), None).unwrap();
        assert!(preferred == uefi || preferred == bios);
    }

    #[test]
    fn the_version_is_read_from_the_image() {
        let mut image = vec![0xf4; 100];
        image.extend(b"\0SeaBIOS (version %s)\n\0noise\0\x001.16.2-debian-1.16.2-1\0gcc: 12.2.0\0");
        assert_eq!(version_in(&image).as_deref(), Some("1.16.2-debian-1.16.2-1"));
        assert_eq!(version_in(b"qboot\x001.2.3\0"), None);
    }
}
