//! FAT12, FAT16 and FAT32 with long names, for reading only and from untrusted bytes.
//!
//! What EFI system partitions are. Whatever is impossible is an error, and every chain, directory
//! and allocation is bounded: a chain that leads back is followed no further than the file is long,
//! or a directory may be. (Microsoft, "FAT: General Overview of On-Disk Format", 1.03; UEFI 2.10,
//! 13.3)

mod boot_sector;
mod chain;
mod directory;
mod path;
#[cfg(test)]
mod tests;

pub use chain::{Fat, ReadAt};
