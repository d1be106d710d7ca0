//! The superblock, and where group descriptors are. (Documentation/filesystems/ext4/super.rst,
//! group_descr.rst)

use super::bytes::{le16, le32};

/// Its offset in the file system, and its bytes.
pub const AT: u64 = 1024;
pub const LEN: usize = 1024;
const MAGIC: u16 = 0xef53;

const HAS_JOURNAL: u32 = 0x4;
const SPARSE_SUPER2: u32 = 0x200;
const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const IS_64BIT: u32 = 0x80;
const SPARSE_SUPER: u32 = 0x1;

/// Incompatible features by bit, and whether a file system with it can be read.
const FEATURES: [(u32, &str, bool); 16] = [
    (0x1, "compression", false),
    (0x2, "filetype", true),
    (RECOVER, "needs_recovery", true),
    (0x8, "journal_dev", false),
    (META_BG, "meta_bg", true),
    (0x40, "extents", true),
    (IS_64BIT, "64bit", true),
    (0x100, "mmp", true),
    (0x200, "flex_bg", true),
    (0x400, "ea_inode", true),
    (0x1000, "dirdata", true),
    (0x2000, "metadata_csum_seed", true),
    (0x4000, "large_dir", true),
    (0x8000, "inline_data", true),
    (0x1_0000, "encrypt", true),
    (0x2_0000, "casefold", true),
];

/// What of a superblock is needed.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// Bytes of a block, 1024 to 65536.
    pub block_size: u64,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Bytes of an inode, at most a block's.
    pub inode_size: u64,
    /// Inodes of a group, at least 1.
    pub inodes_per_group: u32,
    /// All inodes.
    pub inodes: u32,
    /// The inode of the journal; 0 if it has none, or one on another device.
    pub journal: u32,
    /// Its label.
    pub label: String,
    uuid: [u8; 16],
    compatible: u32,
    incompatible: u32,
    read_only: u32,
    first_block: u64,
    blocks_per_group: u64,
    descriptor_size: u64,
    first_meta_group: u64,
    backups: [u64; 2],
}

impl Superblock {
    /// Read one.
    ///
    /// # Errors
    /// It is none, is impossible, or has features that can't be read, by name.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if le16(bytes, 0x38) != MAGIC {
            return Err("no ext2, ext3 or ext4".into());
        }
        let incompatible = le32(bytes, 0x60);
        check_features(incompatible)?;
        let shift = le32(bytes, 0x18);
        let impossible = |what: &str| format!("an ext file system with an impossible {what}");
        if shift > 6 {
            return Err(impossible("block size"));
        }
        let block_size = 1024 << shift;
        let wide = incompatible & IS_64BIT != 0;
        let high = if wide { u64::from(le32(bytes, 0x150)) } else { 0 };
        let revised = le32(bytes, 0x4c) > 0;
        let inode_size = if revised { u64::from(le16(bytes, 0x58)) } else { 128 };
        if !inode_size.is_power_of_two() || !(128..=block_size).contains(&inode_size) {
            return Err(impossible("inode size"));
        }
        let descriptor_size = if wide { u64::from(le16(bytes, 0xfe)) } else { 32 };
        if !descriptor_size.is_power_of_two() || !(32..=1024).contains(&descriptor_size) {
            return Err(impossible("descriptor size"));
        }
        let (inodes_per_group, blocks_per_group) = (le32(bytes, 0x28), le32(bytes, 0x20));
        if inodes_per_group == 0 || blocks_per_group == 0 {
            return Err(impossible("group size"));
        }
        let label = &bytes[0x78..0x88];
        let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[0x68..0x78]);
        let compatible = le32(bytes, 0x5c);
        Ok(Self {
            block_size,
            blocks: high << 32 | u64::from(le32(bytes, 0x4)),
            inode_size,
            inodes_per_group,
            inodes: le32(bytes, 0),
            journal: if compatible & HAS_JOURNAL != 0 { le32(bytes, 0xe0) } else { 0 },
            label: String::from_utf8_lossy(label).into_owned(),
            uuid,
            compatible,
            incompatible,
            read_only: le32(bytes, 0x64),
            first_block: u64::from(le32(bytes, 0x14)),
            blocks_per_group: u64::from(blocks_per_group),
            descriptor_size,
            first_meta_group: u64::from(le32(bytes, 0x104)),
            backups: [0x24c, 0x250].map(|at| u64::from(le32(bytes, at))),
        })
    }

    /// It was not unmounted, and its journal has something.
    pub fn needs_recovery(&self) -> bool {
        self.incompatible & RECOVER != 0 && self.compatible & HAS_JOURNAL != 0
    }

    /// Group descriptors are as long as 64-bit ones.
    pub fn wide_descriptors(&self) -> bool {
        self.descriptor_size >= 64
    }

    /// The UUID's text.
    pub fn uuid(&self) -> String {
        let mut text = String::new();
        for (n, byte) in self.uuid.iter().enumerate() {
            if matches!(n, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// The block of a group's descriptor, and the offset in it.
    pub fn descriptor(&self, group: u64) -> Option<(u64, usize)> {
        let in_block = self.block_size / self.descriptor_size;
        let (table, within) = (group / in_block, (group % in_block) * self.descriptor_size);
        let block = if self.incompatible & META_BG == 0 || table < self.first_meta_group {
            // Behind the superblock, which is in block 1 of a file system with blocks of 1 KiB.
            table.checked_add(if self.block_size == AT { 2 } else { 1 })?
        } else {
            // At the beginning of the groups that it describes, behind the superblock's copy if
            // there is one.
            let first = table.checked_mul(in_block)?;
            let start = first.checked_mul(self.blocks_per_group)?.checked_add(self.first_block)?;
            let behind = u64::from(self.has_superblock(first));
            let shifted = self.block_size == AT && self.first_block == 0 && first == 0;
            start.checked_add(behind)?.checked_add(u64::from(shifted))?
        };
        Some((block, within as usize))
    }

    /// A group begins with a copy of the superblock.
    fn has_superblock(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compatible & SPARSE_SUPER2 != 0 {
            return self.backups.contains(&group);
        }
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        self.read_only & SPARSE_SUPER == 0 || group == 1 || [3, 5, 7].into_iter().any(power_of)
    }
}

fn check_features(incompatible: u32) -> Result<(), String> {
    let (mut unread, mut rest) = (Vec::new(), incompatible);
    for (bit, name, readable) in FEATURES {
        if incompatible & bit != 0 && !readable {
            unread.push(name.to_owned());
        }
        rest &= !bit;
    }
    if rest != 0 {
        unread.push(format!("unknown ones ({rest:#x})"));
    }
    if unread.is_empty() {
        return Ok(());
    }
    Err(format!("an ext file system with features that are not read: {}", unread.join(", ")))
}
