//! A kernel file that is registered: bzImage or ELF, packed in any of Linux' ways.

use sporevm::boot::{bzimage, unpack};

/// Unpack it. Its header may ask for a gigabyte, which is bounded in the process that does this;
/// here such are left out.
pub fn drive(data: &[u8]) {
    let _ = bzimage::is_one(data);
    let Ok(image) = bzimage::parse(data) else {
        let _ = unpack::check(data);
        return;
    };
    drop(image);
    let _ = unpack::unpack_bytes(data);
}

/// bzImages around a small ELF: gzip, zstd, xz and LZ4.
pub fn seeds() -> Vec<Vec<u8>> {
    use std::io::Write;
    let elf = super::elf::small();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&elf).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(&elf).unwrap();
    let sized = |mut packed: Vec<u8>| {
        packed.extend((elf.len() as u32).to_le_bytes());
        packed
    };
    // The legacy frame of lz4 -l: a magic number, then blocks behind their sizes.
    let block = lz4_flex::block::compress(&elf);
    let lz4 = [&0x184c_2102_u32.to_le_bytes()[..], &(block.len() as u32).to_le_bytes(), &block].concat();
    let packed =
        [gzip.finish().unwrap(), sized(zstd::encode_all(&elf[..], 3).unwrap()), sized(xz.finish().unwrap()), sized(lz4)];
    let mut seeds: Vec<Vec<u8>> = packed.iter().map(|payload| bzimage_of(payload)).collect();
    seeds.push(elf);
    seeds
}

/// A bzImage with one setup sector more than the first. (Documentation/arch/x86/boot.rst)
fn bzimage_of(payload: &[u8]) -> Vec<u8> {
    let kernel = 3 * 512;
    let mut image = vec![0; kernel + 64];
    image.extend(payload);
    image.resize(image.len().next_multiple_of(16), 0);
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[2]);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x20e, &0x100u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x236, &[1, 0]);
    put(0x248, &64u32.to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    put(0x260, &(1u32 << 20).to_le_bytes());
    put(0x300, b"6.1.0-56-cloud-amd64 (debian) #1 SMP\0");
    let paragraphs = ((image.len() - kernel) / 16) as u32;
    image[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    image
}
