//! The first sector: where the table, the root directory and the clusters are.

/// Bytes of it that are read.
pub const LEN: usize = 512;
/// Bytes of a directory entry.
const ENTRY: u64 = 32;
/// What clusters' numbers begin with.
pub const FIRST_CLUSTER: u32 = 2;
/// Numbers from here on are no clusters of FAT32.
const RESERVED: u64 = 0x0fff_fff0;
/// Most clusters of FAT12, as Linux and this format's document count them.
const MAX_FAT12: u64 = 4084;

/// Where the root directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// At an offset, in so many bytes.
    Area(u64, u64),
    /// In a chain of clusters.
    Clusters(u32),
}

/// A file system's measures. Offsets and lengths in bytes.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Bits of an entry of the table: 12, 16 or 32.
    pub bits: u32,
    /// Bytes of a cluster.
    pub cluster: u64,
    /// Where the first table is.
    pub table: u64,
    /// Where the first cluster is.
    pub data: u64,
    /// The number behind the last cluster's.
    pub end: u32,
    /// Where the root directory is.
    pub root: Root,
    /// The volume's serial number.
    pub serial: u32,
    /// Its label here; the root directory may have another.
    pub label: String,
}

impl Geometry {
    /// Take what a first sector says.
    ///
    /// # Errors
    /// It is none of FAT's: the first thing that is impossible.
    pub fn parse(sector: &[u8; LEN]) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("no FAT: {what}"));
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
        let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
        let either = |short: u64, long: u64| if short == 0 { long } else { short };
        let (bytes, per_cluster) = (u16_at(11), u64::from(sector[13]));
        let (reserved, tables, roots) = (u16_at(14), u64::from(sector[16]), u16_at(17));
        if sector[510..] != [0x55, 0xaa] {
            return wrong("its first sector has no signature");
        }
        if !matches!(bytes, 512 | 1024 | 2048 | 4096) {
            return wrong(&format!("its sectors have {bytes} bytes"));
        }
        if !per_cluster.is_power_of_two() {
            return wrong(&format!("its clusters have {per_cluster} sectors"));
        }
        if reserved == 0 || tables == 0 || !(sector[21] == 0xf0 || sector[21] >= 0xf8) {
            return wrong("its first sector has no BIOS parameter block");
        }
        // As Linux tells them apart: small ones exist that say they are FAT32.
        let wide = u16_at(22) == 0;
        let table_sectors = either(u16_at(22), u32_at(36));
        let total = either(u16_at(19), u32_at(32));
        let root_at = reserved + tables * table_sectors;
        let data = root_at + (roots * ENTRY).div_ceil(bytes);
        if table_sectors == 0 || total <= data {
            return wrong("it has no room for clusters");
        }
        let clusters = (total - data) / per_cluster;
        let bits = match wide {
            true => 32,
            false if clusters > MAX_FAT12 => 16,
            false => 12,
        };
        let listed = (table_sectors * bytes * 8 / u64::from(bits)).saturating_sub(2);
        let end = (clusters.min(listed) + u64::from(FIRST_CLUSTER)).min(RESERVED) as u32;
        let more = if wide { 64 } else { 36 };
        // The extended boot signature says which of what follows is there.
        let has = |signatures: &[u8]| signatures.contains(&sector[more + 2]);
        let label = if has(&[0x29]) { &sector[more + 7..more + 18] } else { &[] };
        Ok(Self {
            bits,
            cluster: bytes * per_cluster,
            table: reserved * bytes,
            data: data * bytes,
            end,
            root: match wide {
                true => Root::Clusters(u32_at(44) as u32),
                false => Root::Area(root_at * bytes, roots * ENTRY),
            },
            serial: if has(&[0x28, 0x29]) { u32_at(more + 3) as u32 } else { 0 },
            label: String::from_utf8_lossy(label).trim_end().to_owned(),
        })
    }
}
