//! Numbers in untrusted bytes, and the checksum that journals have. What is beyond the end reads as
//! zero.

pub fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u16::from_le_bytes)
}

pub fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u32::from_le_bytes)
}

pub fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u16::from_be_bytes)
}

pub fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u32::from_be_bytes)
}

/// CRC-32C's remainders of a byte, reflected polynomial 0x82f63b78.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC-32C over `bytes`, continued from `crc`; nothing is inverted before or after, as in the
/// kernel's crc32c().
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| crc >> 8 ^ CRC32C[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(!super::crc32c(!0, b"123456789"), 0xe306_9283);
    }
}
