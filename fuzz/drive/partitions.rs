//! Partition tables: a master boot record, extended partitions and a GUID partition table.

use sporevm::block::partitions::partitions;

/// Bytes of the disk at least: the input is its beginning.
const SIZE: usize = 64 << 10;

/// Read the tables of a disk that begins with the input.
pub fn drive(data: &[u8]) {
    let mut disk = data.to_vec();
    disk.resize(disk.len().max(SIZE).next_multiple_of(512), 0);
    let size = disk.len() as u64;
    let read = |bytes: &mut [u8], at: u64| {
        let end = at.checked_add(bytes.len() as u64).filter(|end| *end <= size);
        let end = end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(&disk[at as usize..end as usize]);
        Ok(())
    };
    let table = partitions(size, &read);
    assert!(table.partitions.len() <= 1024, "{} partitions", table.partitions.len());
}

/// A master boot record with a chain of extended partitions, and a GUID partition table.
pub fn seeds() -> Vec<Vec<u8>> {
    let record = |entries: &[(u8, u32, u32)]| {
        let mut sector = vec![0; 512];
        for (n, (kind, start, len)) in entries.iter().enumerate() {
            let entry = &mut sector[446 + 16 * n..462 + 16 * n];
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&start.to_le_bytes());
            entry[12..16].copy_from_slice(&len.to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    };
    let mut mbr = record(&[(0x83, 1, 4), (5, 8, 40)]);
    mbr.resize(8 * 512, 0);
    mbr.extend(record(&[(0x83, 1, 4), (5, 8, 16)]));
    mbr.resize(16 * 512, 0);
    mbr.extend(record(&[(0x82, 1, 4)]));
    let mut gpt = record(&[(0xee, 1, 127)]);
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"EFI PART");
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &0x1_0000u32.to_le_bytes());
    put(12, &92u32.to_le_bytes());
    for (at, number) in [(24, 1u64), (32, 127), (40, 34), (48, 94), (72, 2)] {
        put(at, &number.to_le_bytes());
    }
    put(80, &4u32.to_le_bytes());
    put(84, &128u32.to_le_bytes());
    gpt.extend(header);
    let mut entry = vec![0xaf; 128];
    entry[32..40].copy_from_slice(&40u64.to_le_bytes());
    entry[40..48].copy_from_slice(&80u64.to_le_bytes());
    gpt.extend(entry);
    gpt.resize(8192, 0);
    vec![mbr, gpt]
}
