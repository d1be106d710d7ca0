//! What a file is by its first and last bytes, and how a stream is packed.

use sporevm::import::format;

/// Detect: the input's last 512 bytes are the tail.
pub fn drive(data: &[u8]) {
    let head = &data[..data.len().min(format::HEAD)];
    let tail = data.last_chunk::<512>();
    let _ = format::compression(head);
    let _ = format::what(head, tail);
    let _ = format::detect(head, tail);
    let _ = format::detect(head, None);
}

/// The magic numbers of what is known.
pub fn seeds() -> Vec<Vec<u8>> {
    let heads: [&[u8]; 12] = [
        b"QFI\xfb\0\0\0\x03",
        b"KDMV\x01\0\0\0",
        b"COWD\x01\0\0\0",
        b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\n",
        b"vhdxfile",
        b"conectix\0\0\0\x02\0\x01\0\0",
        b"\x1f\x8b\x08\0",
        b"\xfd7zXZ\0",
        b"\x28\xb5\x2f\xfd",
        b"PK\x03\x04",
        b"<!DOCTYPE html><html>",
        b"<<< Oracle VM VirtualBox Disk Image >>>\n",
    ];
    let whole = |head: &[u8]| {
        let mut bytes = head.to_vec();
        bytes.resize(2048, 0);
        bytes
    };
    let mut seeds: Vec<Vec<u8>> = heads.iter().map(|head| whole(head)).collect();
    let mut fixed = vec![0; 2048];
    fixed[1536..1544].copy_from_slice(b"conectix");
    seeds.push(fixed);
    seeds
}
