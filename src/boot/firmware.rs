//! Firmware: the image of a PC's BIOS, or of UEFI, where the CPU starts.

use crate::error::{Error, OrFail, Result};
use crate::mem::layout::{FIRMWARE_END, FIRMWARE_SHADOW, HIGH_RAM, firmware_fits, flash_fits};
use crate::mem::ram::RamRegion;
use crate::mem::{GuestRam, ram};
use crate::plan::FirmwareKind;
use crate::sys::mmap::{self, HugePages};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A firmware image, mapped: clones share the host's page cache.
pub struct Firmware {
    kind: FirmwareKind,
    image: File,
    len: u64,
    /// Where it is mapped.
    host: u64,
}

impl Firmware {
    /// Map a firmware image.
    ///
    /// # Errors
    /// Its size is not possible, or the host refuses the mapping.
    pub fn map(kind: FirmwareKind, image: File) -> Result<Self> {
        let len = image.metadata().or_fail(|| "read the firmware's size")?.len();
        let fits = match kind {
            FirmwareKind::Bios => firmware_fits(len),
            FirmwareKind::Uefi => flash_fits(len),
        };
        if !fits {
            return Err(Error::failure(format!("firmware of {len} bytes is not possible")));
        }
        let doing = || "map the firmware";
        let mut mapped =
            mmap::anonymous(&[len as usize], HugePages::Refused).or_fail(doing)?.into_iter();
        let mapped = mapped.next().ok_or("it has no pages").or_fail(doing)?;
        mmap::map_file(&mapped, 0, &image, 0, len as usize).or_fail(doing)?;
        Ok(Self { kind, image, len, host: mapped.as_ptr() as u64 })
    }

    /// SHA-256 of the image.
    ///
    /// # Errors
    /// It can't be read.
    pub fn digest(&self) -> Result<[u8; 32]> {
        let mut bytes = vec![0; self.len as usize];
        self.image.read_exact_at(&mut bytes, 0).or_fail(|| "read the firmware")?;
        Ok(Sha256::digest(bytes).into())
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is none: no image has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the machine has it: up to 4 GiB. Read-only, so it is what it was at every reset.
    pub fn region(&self) -> RamRegion {
        RamRegion { gpa: FIRMWARE_END - self.len, host: self.host, len: self.len }
    }

    /// Lay a BIOS's last 128 KiB over the RAM below 1 MiB, which is all zero (fresh, or
    /// [`ram::clear`]ed). A PC's chipset shows its ROM there and SeaBIOS would copy it; this
    /// machine's chipset has nothing to switch. UEFI has no code there.
    ///
    /// # Errors
    /// The host refuses the mapping.
    pub fn shadow(&self, ram: &GuestRam) -> Result<()> {
        if self.kind == FirmwareKind::Uefi {
            return Ok(());
        }
        let len = self.len.min(HIGH_RAM - FIRMWARE_SHADOW);
        ram::lay_file(ram, HIGH_RAM - len, &self.image, self.len - len, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::layout::MIN_MEMORY;
    use std::io::Write;
    use vm_memory::{Bytes, GuestAddress};

    const BIOS: FirmwareKind = FirmwareKind::Bios;

    fn image(len: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..len).map(|n| (n / 4096) as u8).collect();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn the_image_ends_at_4_gib_and_its_last_128_kib_also_at_1_mib() {
        let ram = ram::create(MIN_MEMORY).unwrap();
        for kib in [64u64, 128, 256] {
            let firmware = Firmware::map(BIOS, image((kib as usize) << 10)).unwrap();
            let region = firmware.region();
            assert_eq!((region.gpa + region.len, region.len), (1 << 32, kib << 10));
            ram::clear(&ram).unwrap();
            firmware.shadow(&ram).unwrap();
            let page = |address| ram.read_obj::<u8>(GuestAddress(address)).unwrap();
            assert_eq!(u64::from(page(0xf_ffff)), kib / 4 - 1);
            assert_eq!(u64::from(page(0xf_0000)), kib / 4 - 16);
            assert_eq!(u64::from(page(0xe_0000)), (kib / 4).saturating_sub(32));
            assert_eq!(page(0xd_ffff), 0);
        }
    }

    #[test]
    fn after_a_reset_the_copy_is_pristine() {
        let ram = ram::create(MIN_MEMORY).unwrap();
        let firmware = Firmware::map(BIOS, image(128 << 10)).unwrap();
        firmware.shadow(&ram).unwrap();
        ram.write_obj(0xaau8, GuestAddress(0xf_fff0)).unwrap();
        ram::clear(&ram).unwrap();
        firmware.shadow(&ram).unwrap();
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0xf_fff0)).unwrap(), 31);
    }

    #[test]
    fn what_cannot_be_an_image_is_refused() {
        for len in [0, 1, 4095, (256 << 10) + 4096] {
            assert!(Firmware::map(BIOS, image(len)).is_err(), "{len}");
        }
        for len in [0, 4095, (8 << 20) + 4096] {
            assert!(Firmware::map(FirmwareKind::Uefi, image(len)).is_err(), "{len}");
        }
    }

    #[test]
    fn uefi_leaves_the_low_memory_as_it_is() {
        let ram = ram::create(MIN_MEMORY).unwrap();
        let firmware = Firmware::map(FirmwareKind::Uefi, image(2 << 20)).unwrap();
        firmware.shadow(&ram).unwrap();
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0xf_ffff)).unwrap(), 0);
        let region = firmware.region();
        assert_eq!((region.gpa, region.len), ((1 << 32) - (2 << 20), 2 << 20));
    }
}
