//! What the loader hands over: Linux's boot_params and command line
//! (Documentation/arch/x86/zero-page.rst), and the SMBIOS tables.

use super::cpu::physical;
use alloc::string::String;
use alloc::vec::Vec;

/// E820 type of usable RAM.
const E820_RAM: u32 = 1;

/// What the loader said.
pub struct Boot {
    /// The kernel command line.
    pub cmdline: String,
    /// Usable RAM as (address, bytes).
    pub ram: Vec<(u64, u64)>,
    /// The RSDP, if the loader named it (acpi_rsdp_addr).
    pub rsdp: Option<u64>,
}

/// A little-endian number of `N` bytes at `at`.
pub fn le<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(value)
}

impl Boot {
    /// Read the zero page at `boot_params`.
    pub fn read(boot_params: u64) -> Self {
        let zero_page = physical(boot_params, 4096);
        let cmdline = le::<4>(zero_page, 0x228) | le::<4>(zero_page, 0x0c8) << 32;
        let text = if cmdline == 0 { &[] } else { physical(cmdline, 4096) };
        let text = text.split(|&b| b == 0).next().unwrap_or(&[]);
        let ram = (0..zero_page[0x1e8] as usize)
            .map(|n| &zero_page[0x2d0 + 20 * n..][..20])
            .filter(|entry| le::<4>(entry, 16) == u64::from(E820_RAM))
            .map(|entry| (le::<8>(entry, 0), le::<8>(entry, 8)))
            .collect();
        let rsdp = Some(le::<8>(zero_page, 0x70)).filter(|&address| address != 0);
        Self { cmdline: String::from_utf8_lossy(text).into_owned(), ram, rsdp }
    }

    /// The value of `key=value` on the command line; the last one counts, as in Linux.
    pub fn option(&self, key: &str) -> Option<&str> {
        let mut words = self.cmdline.split_ascii_whitespace().rev();
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Bytes of RAM.
    pub fn memory(&self) -> u64 {
        self.ram.iter().map(|(_, len)| len).sum()
    }
}

/// SMBIOS system information (type 1) and OEM strings (type 11).
#[derive(Default)]
pub struct Smbios {
    /// The serial number.
    pub serial: String,
    /// The UUID's text.
    pub uuid: String,
    /// The OEM strings.
    pub oem: Vec<String>,
}

impl Smbios {
    /// Find the SMBIOS 3 entry point where a kernel does (SMBIOS 3.6, 5.2.2) and read its
    /// structures.
    pub fn read() -> Option<Self> {
        let area = physical(0xf_0000, 0x1_0000);
        let anchor = area.chunks_exact(16).position(|line| line.starts_with(b"_SM3_"))?;
        let entry = &area[16 * anchor..][..24];
        assert_eq!(entry.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0, "SMBIOS checksum");
        let mut rest = physical(le::<8>(entry, 16), le::<4>(entry, 12) as usize);
        let mut found = Self::default();
        while rest.len() >= 4 && rest[0] != 127 {
            let (formatted, after) = rest.split_at_checked(rest[1].into())?;
            let end = after.windows(2).position(|pair| pair == [0, 0])?;
            let mut strings = after[..end]
                .split(|&b| b == 0)
                .map(|text| String::from_utf8_lossy(text).into_owned());
            match formatted[0] {
                1 => {
                    found.serial = strings.nth(usize::from(formatted[7]).checked_sub(1)?)?;
                    found.uuid = uuid_text(formatted[8..24].try_into().ok()?);
                }
                11 => found.oem = strings.collect(),
                _ => {}
            }
            rest = &after[end + 2..];
        }
        Some(found)
    }

    /// The value of the OEM string `key=value`.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.oem.iter().find_map(|text| text.strip_prefix(key)?.strip_prefix('='))
    }
}

/// The first three fields are little-endian (SMBIOS 3.6, 7.2.1).
fn uuid_text(raw: &[u8; 16]) -> String {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (n, at) in order.into_iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &alloc::format!("{:02x}", raw[at]);
    }
    text
}
