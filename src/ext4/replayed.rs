//! What a journal says of a file system.

use std::collections::BTreeMap;
use std::rc::Rc;

/// What each block of the journal's own begins with.
pub const MAGIC: u32 = 0xc03b_3998;

/// Where a block is instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// A block of the file system, in its journal.
    pub block: u64,
    /// Its first four bytes are [`MAGIC`], and were put away.
    pub escaped: bool,
}

/// What a journal says.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Blocks that count instead of those in their places.
    pub blocks: BTreeMap<u64, Place>,
    /// The number of the transaction that was not committed any more.
    pub next: u32,
    /// The blocks of the fast commits' area.
    pub fast: Vec<Rc<[u8]>>,
}
