//! Real GRUB legacy under QEMU: its stages are put on the disk of a case, as its `install` puts
//! them.

use super::qemu::{Booted, Judge};
use std::path::{Path, PathBuf};

/// Where scripts/grub-judges puts what it fetches.
pub fn fetched(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/grubs").join(path)
}

/// What the menu begins with: it is shown on the serial line, where errors can be read, and waits
/// for nobody.
pub const BEFORE: &str = "serial --unit=0\nterminal --dumb serial\ntimeout 0\n";

/// What it says when it waits for a person: behind an error, before a menu, at its prompt.
const WAITS: &[&str] =
    &["Press any key to continue", "Highlighted entry is", "grub> ", "Password: ", "PAUSED"];

/// Why there can be no judge here.
pub fn missing() -> Option<String> {
    (!fetched("legacy/stage2").exists())
        .then(|| "GRUB legacy is missing: scripts/grub-judges fetches it".to_owned())
}

/// What it boots from a disk whose first partition has the menu; `None` if nothing.
pub fn boot(judge: &Judge, name: &str, disk: &[u8]) -> Option<Booted> {
    let stage = |name: &str| std::fs::read(fetched("legacy").join(name)).unwrap();
    let (mut first, mut second) = (stage("stage1"), stage("stage2"));
    let sector = (disk.len() / 512) as u32;
    // stage1/stage1.h: STAGE1_STAGE2_SECTOR; stage2/start.S: the first list of blocks;
    // stage2/shared.h: what is behind STAGE2_VER_MAJ_OFFS is the partition that it was installed
    // on.
    first[0x44..0x48].copy_from_slice(&sector.to_le_bytes());
    second[0x1f8..0x1fc].copy_from_slice(&(sector + 1).to_le_bytes());
    second[0x208..0x20c].copy_from_slice(&0x0000_ffff_u32.to_le_bytes());
    second.resize(second.len().next_multiple_of(512) + 512, 0);
    let mut disk = [disk, &second].concat();
    disk[..440].copy_from_slice(&first[..440]);
    judge.run(name, &disk, None, WAITS)
}
