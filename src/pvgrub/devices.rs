//! What grub.cfg's commands ask of the disk.

use crate::ext4::Kind;

/// How a file system is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By its UUID.
    Uuid,
    /// By its label.
    Label,
    /// By a file that is on it.
    File,
}

/// What is asked of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Its file system's UUID.
    Uuid,
    /// Its file system's label.
    Label,
    /// The kind of its file system.
    FileSystem,
    /// The kind of its disk's partition table.
    Table,
    /// The UUID of its partition.
    PartUuid,
}

/// What a script asks of the disk. A device is named as GRUB does: `hd0`, `hd0,msdos1`.
pub trait Files {
    /// There is such a device, whatever is on it.
    fn is_there(&self, device: &str) -> bool;
    /// What a path is, and its bytes; `None` if it is nothing.
    fn stat(&self, device: &str, path: &str) -> Option<(Kind, u64)>;
    /// The text of a file, if it is one.
    fn read(&self, device: &str, path: &str) -> Option<String>;
    /// The names in a directory.
    fn names(&self, device: &str, path: &str) -> Vec<String>;
    /// The first device that has it, one of `hints` before all others.
    fn search(&self, by: By, text: &str, hints: &[&str]) -> Option<String>;
    /// What a device has of it.
    fn probe(&self, device: &str, what: Probe) -> Option<String>;
}
