//! Inodes: what a file is, and how long. (Documentation/filesystems/ext4/inodes.rst)

use super::bytes::{le16, le32};
use super::error::{Error, Result};
use super::file_system::Ext4;

/// What a node of an extent tree begins with.
pub const EXTENT_MAGIC: u16 = 0xf30a;
const EXTENTS: u32 = 0x8_0000;
const ENCRYPTED: u32 = 0x800;
const INLINE: u32 = 0x1000_0000;
/// Bytes of an inode's block map, and where it is.
pub const MAP: std::ops::Range<usize> = 40..100;
/// An extended attribute's index of names that begin with `system.`, and what the names in an inode
/// begin with.
const SYSTEM: u8 = 7;
const ATTRIBUTES: u32 = 0xea02_0000;

/// An inode's bytes.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number.
    pub number: u32,
    bytes: Vec<u8>,
}

impl Inode {
    /// Type and permissions, as stat(2) has them.
    pub fn mode(&self) -> u16 {
        le16(&self.bytes, 0)
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        u64::from(le32(&self.bytes, 108)) << 32 | u64::from(le32(&self.bytes, 4))
    }

    fn flags(&self) -> u32 {
        le32(&self.bytes, 32)
    }

    /// Its map is a tree of extents.
    pub fn has_extents(&self) -> bool {
        self.flags() & EXTENTS != 0
    }

    /// Its content can't be read without a key.
    pub fn is_encrypted(&self) -> bool {
        self.flags() & ENCRYPTED != 0
    }

    /// Its content is in it.
    pub fn is_inline(&self) -> bool {
        self.flags() & INLINE != 0
    }

    /// The 60 bytes of its block map.
    pub fn map(&self) -> &[u8] {
        self.bytes.get(MAP).unwrap_or_default()
    }

    /// Content that is in it: in place of the map, and the rest as the extended attribute
    /// `system.data`.
    pub fn inline(&self) -> Vec<u8> {
        let mut content = self.map().to_vec();
        content.extend_from_slice(self.inline_rest().unwrap_or_default());
        content
    }

    fn inline_rest(&self) -> Option<&[u8]> {
        let extra = self.bytes.get(128..)?;
        let attributes = extra.get(usize::from(le16(extra, 0))..)?;
        let entries = attributes.get(4..).filter(|_| le32(attributes, 0) == ATTRIBUTES)?;
        let mut rest = entries;
        // An entry has 16 bytes and its name; four zeros end them.
        while le32(rest, 0) != 0 {
            let (len, index) = (usize::from(*rest.first()?), *rest.get(1)?);
            if index == SYSTEM && rest.get(16..16 + len)? == b"data" {
                let (at, size) = (usize::from(le16(rest, 2)), le32(rest, 8) as usize);
                return entries.get(at..)?.get(..size);
            }
            rest = rest.get((16 + len).next_multiple_of(4)..)?;
        }
        None
    }

    /// What a fast commit says of it instead: all but the block map, unless there was none yet.
    pub fn replaced(&mut self, new: &[u8]) {
        let kept = self.map().to_vec();
        let len = new.len().min(self.bytes.len());
        self.bytes[..len].copy_from_slice(&new[..len]);
        let inline = self.is_inline();
        let has_tree = le16(&kept, 0) == EXTENT_MAGIC;
        if let (false, Some(map)) = (inline, self.bytes.get_mut(MAP)) {
            map.copy_from_slice(&kept);
            if le32(new, 32) & EXTENTS != 0 && !has_tree {
                // An empty tree: four entries of room, none used.
                map.fill(0);
                map[..2].copy_from_slice(&EXTENT_MAGIC.to_le_bytes());
                map[4] = 4;
            }
        }
    }
}

impl Ext4 {
    /// An inode by its number, from 1.
    pub(super) fn inode(&self, number: u32) -> Result<Inode> {
        let sb = &self.superblock;
        let impossible = || Error::new(format!("there is no inode {number}"));
        let index = number.checked_sub(1).filter(|_| number <= sb.inodes).ok_or_else(impossible)?;
        let group = u64::from(index / sb.inodes_per_group);
        let (block, at) = sb.descriptor(group).ok_or_else(impossible)?;
        let block = self.block(block)?;
        let high = if sb.wide_descriptors() { le32(&block, at + 0x28) } else { 0 };
        let table = u64::from(high) << 32 | u64::from(le32(&block, at + 8));
        let offset = u64::from(index % sb.inodes_per_group) * sb.inode_size;
        let block = table.checked_add(offset / sb.block_size).ok_or_else(impossible)?;
        let (block, at) = (self.block(block)?, (offset % sb.block_size) as usize);
        let bytes = block.get(at..at + sb.inode_size as usize).ok_or_else(impossible)?;
        let mut inode = Inode { number, bytes: bytes.to_vec() };
        if let Some(new) = self.fast.inode(number) {
            inode.replaced(new);
        }
        Ok(inode)
    }
}
