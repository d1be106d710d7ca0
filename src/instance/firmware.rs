//! The firmware that runs a disk's boot record: SeaBIOS, as the distribution has it.

use crate::error::{Code, Error, OrRefuse, Result};
use crate::mem::layout::firmware_fits;
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

/// The firmware that an instance boots: the one that was asked for, else the distribution's.
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
                     bios-microvm.bin",
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

/// Open the firmware of an instance.
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
    fn the_version_is_read_from_the_image() {
        let mut image = vec![0xf4; 100];
        image.extend(b"\0SeaBIOS (version %s)\n\0noise\0\x001.16.2-debian-1.16.2-1\0gcc: 12.2.0\0");
        assert_eq!(version_in(&image).as_deref(), Some("1.16.2-debian-1.16.2-1"));
        assert_eq!(version_in(b"qboot\x001.2.3\0"), None);
    }
}
