//! Directories. Their hash trees are not needed: to whom does not know them, their blocks are
//! directory blocks. (Documentation/filesystems/ext4/directory.rst)

use super::bytes::{le16, le32};
use super::error::{Error, Result};
use super::file_system::Ext4;
use super::inode::Inode;
use std::ops::ControlFlow;

/// Most blocks of a directory that are looked at: some millions of names.
const MAX_BLOCKS: u64 = 1 << 17;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a pipe or a socket.
    Other,
}

impl Kind {
    /// By stat(2)'s st_mode.
    pub(super) fn of(mode: u16) -> Self {
        match mode >> 12 {
            8 => Self::File,
            4 => Self::Directory,
            10 => Self::Link,
            _ => Self::Other,
        }
    }
}

/// Hears of a name, and the number of the inode.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], u32) -> ControlFlow<()>;

impl Ext4 {
    /// Name what is in a directory, until `visit` has enough of it.
    pub(super) fn entries(&self, directory: &Inode, visit: Visit<'_>) -> Result<()> {
        if Kind::of(directory.mode()) != Kind::Directory {
            return Err(Error::Absent);
        }
        if directory.is_encrypted() {
            return Err(Error::new("its directory is encrypted"));
        }
        let changed = self.fast.names(directory.number);
        let mut unchanged = |name: &[u8], inode: u32| {
            if changed.contains_key(name) { ControlFlow::Continue(()) } else { visit(name, inode) }
        };
        if self.blocks_of(directory, &mut unchanged)?.is_break() {
            return Ok(());
        }
        for (name, inode) in changed {
            if let Some(inode) = inode
                && visit(name, *inode).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn blocks_of(&self, directory: &Inode, visit: Visit<'_>) -> Result<ControlFlow<()>> {
        if directory.is_inline() {
            // The parent's number, then entries; the rest is an area of its own.
            let content = directory.inline();
            let (first, rest) = content.split_at(content.len().min(60));
            let mut ended = self.block_of(first.get(4..).unwrap_or_default(), visit)?;
            if ended.is_continue() {
                ended = self.block_of(rest, visit)?;
            }
            return Ok(ended);
        }
        let blocks = directory.size().div_ceil(self.block_size());
        let mut left = MAX_BLOCKS;
        for run in self.runs(directory, blocks)? {
            for n in 0..run.len.min(blocks.saturating_sub(run.logical)) {
                left =
                    left.checked_sub(1).ok_or_else(|| Error::new("its directory is too large"))?;
                let block = self.block(run.physical.saturating_add(n))?;
                if self.block_of(&block, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn block_of(&self, block: &[u8], visit: Visit<'_>) -> Result<ControlFlow<()>> {
        let mut rest = block;
        while rest.len() >= 8 {
            let len = match usize::from(le16(rest, 4)) {
                // A whole block of 64 KiB does not fit into the field.
                0 | 0xffff if block.len() == 1 << 16 => rest.len(),
                len if len < 8 => {
                    return Err(Error::new("a directory entry's record length is too small"));
                }
                len => len,
            };
            let entry = rest.get(..len).ok_or_else(|| Error::new("its directory is damaged"))?;
            let (inode, name_len) = (le32(entry, 0), usize::from(entry[6]));
            if inode != 0 && name_len > 0 {
                let name = entry.get(8..8 + name_len);
                let name = name.ok_or_else(|| Error::new("its directory is damaged"))?;
                if visit(name, inode).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            rest = &rest[len..];
        }
        Ok(ControlFlow::Continue(()))
    }
}
