//! Where a file's blocks are. (Documentation/filesystems/ext4/ifork.rst)

use super::bytes::{le16, le32};
use super::error::{Error, Result};
use super::file_system::Ext4;
use super::inode::{EXTENT_MAGIC, Inode};
use super::run::Run;

/// Bytes of a file that are read at once.
const PIECE: u64 = 64 << 10;
/// Most levels of an extent tree.
const MAX_DEPTH: u16 = 5;
/// Most blocks of a map that are read for one file.
const MAX_NODES: u32 = 32 << 10;
/// Most runs of a file: an image's largest files have some thousands.
const MAX_RUNS: usize = 1 << 18;
/// Longer extents are allocated and not written yet: they read as zeros.
const UNWRITTEN: u16 = 0x8000;

/// What is being collected.
struct Map {
    runs: Vec<Run>,
    nodes: u32,
    /// Blocks of the file that are wanted: from the first to before this one.
    end: u64,
}

impl Map {
    fn push(&mut self, logical: u64, physical: u64, len: u64) -> Result<()> {
        if logical >= self.end || len == 0 {
            return Ok(());
        }
        if let Some(last) = self.runs.last_mut()
            && (last.logical + last.len, last.physical + last.len) == (logical, physical)
        {
            last.len += len;
            return Ok(());
        }
        if self.runs.len() >= MAX_RUNS {
            return Err(Error::new("its blocks are too scattered"));
        }
        self.runs.push(Run { logical, physical, len });
        Ok(())
    }

    fn node(&mut self) -> Result<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES { Err(Error::new("its block map is too large")) } else { Ok(()) }
    }
}

impl Ext4 {
    /// The runs of a file's first `blocks` blocks, in the file's order.
    pub(super) fn runs(&self, inode: &Inode, blocks: u64) -> Result<Vec<Run>> {
        let mut map = Map { runs: Vec::new(), nodes: 0, end: blocks };
        if inode.has_extents() {
            self.extents(inode.map(), None, &mut map)?;
            self.fast.remap(inode.number, &mut map.runs);
        } else {
            self.pointers(inode.map(), &mut map)?;
        }
        Ok(map.runs)
    }

    /// A node of an extent tree. Each level is one lower than the one above it, so a tree that
    /// leads back ends.
    fn extents(&self, node: &[u8], level: Option<u16>, map: &mut Map) -> Result<()> {
        let broken = || Error::new("its extent tree is damaged");
        let (entries, depth) = (usize::from(le16(node, 2)), le16(node, 6));
        if le16(node, 0) != EXTENT_MAGIC
            || level.map_or(depth > MAX_DEPTH, |level| depth != level)
            || entries > node.len() / 12 - 1
        {
            return Err(broken());
        }
        for entry in node[12..].chunks_exact(12).take(entries) {
            let logical = u64::from(le32(entry, 0));
            if depth == 0 {
                let len = le16(entry, 4);
                let physical = u64::from(le16(entry, 6)) << 32 | u64::from(le32(entry, 8));
                if len <= UNWRITTEN {
                    map.push(logical, physical, u64::from(len))?;
                }
            } else if logical < map.end {
                map.node()?;
                let block = u64::from(le16(entry, 8)) << 32 | u64::from(le32(entry, 4));
                self.extents(&self.block(block)?, Some(depth - 1), map)?;
            }
        }
        Ok(())
    }

    /// Twelve pointers, then one each through one, two and three levels of blocks of pointers.
    fn pointers(&self, pointers: &[u8], map: &mut Map) -> Result<()> {
        let mut logical = 0;
        for n in 0..15 {
            let pointer = u64::from(le32(pointers, n * 4));
            self.pointer(pointer, n.saturating_sub(11) as u32, &mut logical, map)?;
        }
        Ok(())
    }

    fn pointer(&self, pointer: u64, level: u32, logical: &mut u64, map: &mut Map) -> Result<()> {
        let covered = (self.block_size() / 4).pow(level);
        if *logical >= map.end {
            return Ok(());
        }
        if pointer == 0 || level == 0 {
            if pointer != 0 {
                map.push(*logical, pointer, 1)?;
            }
            *logical += covered;
            return Ok(());
        }
        map.node()?;
        let block = self.block(pointer)?;
        for pointer in block.chunks_exact(4) {
            self.pointer(u64::from(le32(pointer, 0)), level - 1, logical, map)?;
        }
        Ok(())
    }

    /// The first `len` bytes of a file; what is in no run is zero.
    pub(super) fn content(&self, inode: &Inode, len: u64) -> Result<Vec<u8>> {
        self.content_from(inode, 0, len)
    }

    /// `len` bytes of a file from offset `at` on, both within it; what is in no run is zero.
    pub(super) fn content_from(&self, inode: &Inode, at: u64, len: u64) -> Result<Vec<u8>> {
        if inode.is_encrypted() {
            return Err(Error::new("it is encrypted"));
        }
        if inode.is_inline() {
            let content = inode.inline().into_iter();
            return Ok(content.skip(at as usize).take(len as usize).collect());
        }
        let size = self.block_size();
        // The first block of it is read from its beginning.
        let (first, within) = (at / size, at % size);
        let mut content = vec![0; (within + len) as usize];
        for run in self.runs(inode, (at + len).div_ceil(size))? {
            let before = first.saturating_sub(run.logical);
            let blocks = run.len.saturating_sub(before);
            let from = (run.logical + before).saturating_sub(first).saturating_mul(size);
            let Some(rest) = content.get_mut(from as usize..) else { continue };
            let len = rest.len().min(blocks.saturating_mul(size) as usize);
            let physical = run.physical.saturating_add(before);
            for (n, piece) in (0..).zip(rest[..len].chunks_mut(PIECE as usize)) {
                self.read_blocks(physical.saturating_add(n * (PIECE / size)), piece)?;
            }
        }
        content.drain(..within as usize);
        Ok(content)
    }
}
