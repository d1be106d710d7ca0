//! Runs of a file's blocks.

/// Blocks of a file that lie side by side. What is in none is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first, in the file.
    pub logical: u64,
    /// In the file system.
    pub physical: u64,
    /// How many.
    pub len: u64,
}
