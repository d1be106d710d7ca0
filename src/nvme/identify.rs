//! What a controller and its namespace say of themselves. (NVM Express 1.4, 5.15.2)
//!
//! As EC2's of an EBS volume: amazon-ec2-utils and its udev rules know a volume by the vendor, the
//! model, its id as the serial number, and the device name in the vendor's own part.

use super::prp::{MAX_DATA, PAGE};
use super::shared::Shared;
use crate::virtio::blk::shared::{MAX_RANGE_SECTORS, MAX_RANGES, SECTOR};
use sha2::{Digest, Sha256};

/// Amazon's: of PCI, and of the IEEE.
pub const VENDOR: u16 = 0x1d0f;
const OUI: [u8; 3] = [0xdc, 0x02, 0xa0];
const MODEL: &[u8] = b"Amazon Elastic Block Store";
const FIRMWARE: &[u8] = b"1.0";
/// VS: 1.4.0.
pub const VERSION: u32 = 1 << 16 | 4 << 8;
/// Commands of Asynchronous Event Request that wait at a time. (AERL + 1)
pub const MAX_EVENTS: usize = 4;
/// OAES: changes of namespaces.
const NAMESPACE_EVENTS: u32 = 1 << 8;
/// Bytes of a structure.
const LEN: usize = PAGE as usize;
/// Where the vendor's part begins.
const VENDOR_SPECIFIC: usize = 3072;
/// Bytes of the device name there.
const DEVICE_NAME: usize = 32;
/// Blocks in a host page, less one, in which unaligned I/O is slower.
const PAGE_BLOCKS: u16 = (PAGE / SECTOR) as u16 - 1;

struct Page([u8; LEN]);

impl Page {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// ASCII text, padded with blanks. (1.5)
    fn text(&mut self, at: usize, len: usize, text: &[u8]) {
        self.0[at..at + len].fill(b' ');
        self.put(at, &text[..text.len().min(len)]);
    }
}

/// The serial number, without what it is padded with.
fn serial(shared: &Shared) -> &[u8] {
    let serial = &shared.disk.serial;
    let len = serial.iter().position(|byte| *byte == 0).unwrap_or(serial.len());
    &serial[..len]
}

/// CNS 1: the controller. `device` is what the user calls the disk.
pub fn controller(shared: &Shared, device: &str) -> [u8; LEN] {
    let mut page = Page([0; LEN]);
    page.put(0, &VENDOR.to_le_bytes()); // VID
    page.put(2, &VENDOR.to_le_bytes()); // SSVID
    page.text(4, 20, serial(shared));
    page.text(24, 40, MODEL);
    page.text(64, 8, FIRMWARE);
    page.put(73, &OUI);
    page.put(77, &[(u64::from(MAX_DATA) / PAGE).trailing_zeros() as u8]); // MDTS
    page.put(80, &VERSION.to_le_bytes());
    page.put(92, &NAMESPACE_EVENTS.to_le_bytes()); // OAES
    page.put(111, &[1]); // CNTRLTYPE: I/O
    page.put(258, &[3, MAX_EVENTS as u8 - 1]); // ACL, AERL
    page.put(260, &[1 << 1 | 1]); // FRMW: one slot, read-only
    page.put(266, &343u16.to_le_bytes()); // WCTEMP, in K
    page.put(268, &373u16.to_le_bytes()); // CCTEMP
    page.put(512, &[0x66, 0x44]); // SQES, CQES: 64 and 16 bytes
    page.put(516, &1u32.to_le_bytes()); // NN
    page.put(520, &(1u16 << 2 | 1 << 3).to_le_bytes()); // ONCS: Dataset Management, Write Zeroes
    page.put(525, &[1 | 3 << 1]); // VWC: there is one; a flush may mean all namespaces
    let name = [b"nqn.2014.08.org.nvmexpress:1d0f1d0f", serial(shared), MODEL].concat();
    page.put(768, &name); // SUBNQN: an older controller's. (7.9)
    page.put(2048, &2500u16.to_le_bytes()); // PSD0: MP, in centiwatts
    page.text(VENDOR_SPECIFIC, DEVICE_NAME, device.as_bytes());
    page.0
}

/// CNS 0: the namespace. Discards have a granularity of so many bytes.
pub fn namespace(shared: &Shared, granularity: u32) -> [u8; LEN] {
    let (mut page, disk) = (Page([0; LEN]), shared.disk.geometry());
    let blocks = (disk.size / SECTOR).to_le_bytes();
    [0, 8, 16].into_iter().for_each(|at| page.put(at, &blocks)); // NSZE, NCAP, NUSE
    page.put(24, &[1 << 4]); // NSFEAT: preferred sizes
    page.put(33, &[1 << 3]); // DLFEAT: Write Zeroes may deallocate
    page.put(48, &disk.size.to_le_bytes()); // NVMCAP
    let discards = (granularity / SECTOR as u32).max(1).saturating_sub(1);
    let discards = u16::try_from(discards).unwrap_or(u16::MAX);
    // NPWG, NPWA, NPDG, NPDA, NOWS.
    for (at, blocks) in
        [(64, PAGE_BLOCKS), (66, PAGE_BLOCKS), (68, discards), (70, discards), (72, 0)]
    {
        page.put(at, &blocks.to_le_bytes());
    }
    page.put(99, &[disk.read_only.into()]); // NSATTR: write protected
    page.put(130, &[SECTOR.trailing_zeros() as u8]); // LBAF0: LBADS
    page.0
}

/// CNS 2: active namespaces beyond `from`.
pub fn active(from: u32) -> [u8; LEN] {
    let mut page = Page([0; LEN]);
    if from < super::shared::NAMESPACE {
        page.put(0, &super::shared::NAMESPACE.to_le_bytes());
    }
    page.0
}

/// CNS 3: the namespace's identifiers: a UUID that follows from the serial number. (RFC 9562, 5.8)
pub fn identifiers(shared: &Shared) -> [u8; LEN] {
    let mut page = Page([0; LEN]);
    let digest = Sha256::digest(serial(shared));
    page.put(0, &[3, 16]); // NIDT, NIDL
    page.put(4, &digest[..16]);
    page.0[10] = page.0[10] & 0x0f | 0x80;
    page.0[12] = page.0[12] & 0x3f | 0x80;
    page.0
}

/// CNS 6: the limits of I/O commands that have no other. (NVM Command Set 1.0, 4.1.5.4)
pub fn limits() -> [u8; LEN] {
    let mut page = Page([0; LEN]);
    // WZSL: all that the command can say, 65536 blocks, as a power of two of pages.
    page.put(1, &[((SECTOR << 16) / PAGE).trailing_zeros() as u8]);
    page.put(3, &[MAX_RANGES as u8]); // DMRL
    page.put(4, &MAX_RANGE_SECTORS.to_le_bytes()); // DMRSL
    page.put(8, &(u64::from(MAX_RANGE_SECTORS) * u64::from(MAX_RANGES)).to_le_bytes()); // DMSL
    page.0
}

/// Log page 2: health. (5.14.1.2)
pub fn health(read_bytes: u64, written_bytes: u64) -> [u8; 512] {
    const UNIT: u64 = 1000 * SECTOR;
    let mut log = [0; 512];
    log[1..3].copy_from_slice(&310u16.to_le_bytes()); // Composite Temperature, in K
    (log[3], log[4]) = (100, 10); // Available Spare, and its threshold
    log[32..40].copy_from_slice(&read_bytes.div_ceil(UNIT).to_le_bytes());
    log[48..56].copy_from_slice(&written_bytes.div_ceil(UNIT).to_le_bytes());
    log
}

/// Log page 3: firmware slots. (5.14.1.3)
pub fn firmware() -> [u8; 512] {
    let mut log = [0; 512];
    log[0] = 1; // AFI: slot 1
    log[8..16].fill(b' ');
    log[8..8 + FIRMWARE.len()].copy_from_slice(FIRMWARE);
    log
}
