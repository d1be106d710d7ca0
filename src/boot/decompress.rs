//! Unpacking what a bzImage carries, in the formats of Linux's CONFIG_KERNEL_*.

use super::source::{refused, u32_at};
use crate::error::Result;
use std::io::{Read, Take};

/// No kernel unpacks to more.
pub const LARGEST: u64 = 1 << 30;
/// Memory for a decoder's dictionary; `xz -9`, the largest preset, takes 65 MiB.
const DICTIONARY: u64 = 256 << 20;
/// Each block of an LZ4 legacy frame unpacks to at most this. (doc/lz4_Frame_format.md, "Legacy
/// frame")
pub(super) const LZ4_BLOCK: usize = 8 << 20;

/// How a kernel is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Lzma,
    Xz,
    Lz4,
    Zstd,
    None,
}

/// The formats by their first bytes. Those without a [`Packing`] are known by name only.
const FORMATS: [(&[u8], &str, Option<Packing>); 8] = [
    (b"\x1f\x8b", "gzip", Some(Packing::Gzip)),
    (b"\xfd7zXZ\0", "xz", Some(Packing::Xz)),
    (b"\x28\xb5\x2f\xfd", "zstd", Some(Packing::Zstd)),
    (b"\x02\x21\x4c\x18", "lz4", Some(Packing::Lz4)),
    (b"\x5d\0\0", "lzma", Some(Packing::Lzma)),
    (b"BZh", "bzip2", None),
    (b"\x89LZO", "lzo", None),
    (b"\x7fELF", "uncompressed", Some(Packing::None)),
];

/// Unpack `payload`, whose last four bytes say how large the result is
/// (arch/x86/boot/compressed/mkpiggy.c), to at most `limit` bytes. With it comes the format's name.
///
/// # Errors
/// A format that is unknown or not supported, a corrupt payload, or one that unpacks to more than
/// it says or than `limit`.
pub fn expand(payload: &[u8], limit: u64) -> Result<(Vec<u8>, &'static str)> {
    let format = FORMATS.iter().find(|(magic, ..)| payload.starts_with(magic));
    let Some((_, name, packing)) = format else {
        let head = &payload[..payload.len().min(4)];
        return Err(refused(format_args!("its payload is in an unknown format ({head:02x?})")));
    };
    let Some(packing) = *packing else {
        return Err(refused(format_args!(
            "it is packed with {name}, which is not supported; give its vmlinux, or one packed with gzip, xz, lz4 or zstd"
        )));
    };
    if packing == Packing::None {
        return Ok((payload.to_vec(), name));
    }
    let size = payload.len().checked_sub(4).and_then(|at| u32_at(payload, at)).unwrap_or(0);
    let limit = limit.min(LARGEST);
    if u64::from(size) > limit {
        return Err(refused(format_args!(
            "it says that it unpacks to {size} bytes, more than the {limit} that it may"
        )));
    }
    match run(packing, payload, size as usize) {
        Ok(kernel) if kernel.len() == size as usize => Ok((kernel, name)),
        Ok(kernel) => Err(refused(format_args!(
            "its {name} payload unpacks to {}{} bytes where it says {size}; fetch it again",
            if kernel.len() > size as usize { "more than " } else { "" },
            kernel.len().min(size as usize)
        ))),
        Err(cause) => {
            Err(refused(format_args!("its {name} payload is corrupt ({cause}); fetch it again")))
        }
    }
}

fn run(packing: Packing, payload: &[u8], size: usize) -> std::io::Result<Vec<u8>> {
    use liblzma::{bufread::XzDecoder, stream::Stream};
    let one_more = size as u64 + 1;
    match packing {
        Packing::None => Ok(payload.to_vec()),
        Packing::Gzip => read(flate2::bufread::GzDecoder::new(payload).take(one_more), size),
        Packing::Xz => {
            let stream = Stream::new_stream_decoder(DICTIONARY, 0)?;
            read(XzDecoder::new_stream(payload, stream).take(one_more), size)
        }
        Packing::Lzma => {
            let stream = Stream::new_lzma_decoder(DICTIONARY)?;
            read(XzDecoder::new_stream(payload, stream).take(one_more), size)
        }
        Packing::Lz4 => lz4_legacy(payload, size),
        Packing::Zstd => zstd(payload, size),
    }
}

/// An empty vector with room for `size` bytes, of which the host gives only what is filled.
fn room(size: usize) -> std::io::Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(size).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    Ok(room)
}

fn read(mut decoder: Take<impl Read>, size: usize) -> std::io::Result<Vec<u8>> {
    let mut kernel = room(size)?;
    decoder.read_to_end(&mut kernel)?;
    Ok(kernel)
}

/// One frame, straight into its place: the window, which `zstd --ultra` makes as large as the
/// kernel, takes no memory.
fn zstd(payload: &[u8], size: usize) -> std::io::Result<Vec<u8>> {
    use zstd::zstd_safe::{find_frame_compressed_size, get_error_name};
    let len = find_frame_compressed_size(payload)
        .map_err(|code| std::io::Error::other(get_error_name(code)))?;
    let frame = payload.get(..len).ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let mut kernel = room(size)?;
    zstd::bulk::Decompressor::new()?.decompress_to_buffer(frame, &mut kernel)?;
    Ok(kernel)
}

/// Magic, then blocks of a 32-bit length and that many bytes.
fn lz4_legacy(payload: &[u8], size: usize) -> std::io::Result<Vec<u8>> {
    let mut kernel = room(size)?;
    let size_at = payload.len().saturating_sub(4);
    let mut rest = payload.get(4..size_at).ok_or(std::io::ErrorKind::UnexpectedEof)?;
    while kernel.len() < size {
        let len = u32_at(rest, 0).ok_or(std::io::ErrorKind::UnexpectedEof)? as usize;
        let block = rest.get(4..).and_then(|rest| rest.get(..len));
        let block = block.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let done = kernel.len();
        kernel.resize(size.min(done + LZ4_BLOCK), 0);
        let got = lz4_flex::block::decompress_into(block, &mut kernel[done..])
            .map_err(std::io::Error::other)?;
        kernel.truncate(done + got);
        if got == 0 {
            break;
        }
        rest = &rest[4 + len..];
    }
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::tests::pack;
    use proptest::prelude::*;

    const PACKINGS: [&str; 5] = ["gzip", "xz", "lzma", "zstd", "lz4"];

    #[test]
    fn every_supported_packing_unpacks() {
        let mut kernel: Vec<u8> = (0..LZ4_BLOCK + 4321).map(|n| ((n * n) >> 7) as u8).collect();
        kernel[100] = 0xe8; // a call for the x86 filter
        for name in PACKINGS {
            let (unpacked, found) = expand(&pack(name, &kernel), LARGEST).unwrap();
            assert_eq!(found, name);
            assert!(unpacked == kernel, "{name}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_size_it_announces() {
        let bomb = vec![0; 4 << 20];
        for name in PACKINGS {
            let mut payload = pack(name, &bomb);
            let end = payload.len() - 4;
            payload[end..].copy_from_slice(&100u32.to_le_bytes());
            assert!(expand(&payload, LARGEST).is_err(), "{name}");
            let error = expand(&pack(name, &bomb), 1 << 20).unwrap_err();
            assert!(error.message().contains("more than the 1048576"), "{name}: {error}");
        }
    }

    #[test]
    fn a_truncated_or_corrupt_payload_is_an_error() {
        let kernel: Vec<u8> =
            (0..100_000u32).map(|n| (n.wrapping_mul(2654435761) >> 13) as u8).collect();
        for name in PACKINGS {
            let payload = pack(name, &kernel);
            for cut in [0, 1, 4, 7, 20, payload.len() / 2, payload.len() - 5] {
                let mut cut = payload[..cut].to_vec();
                cut.extend((kernel.len() as u32).to_le_bytes());
                assert!(expand(&cut, LARGEST).is_err(), "{name}");
            }
        }
    }

    #[test]
    fn unsupported_packings_are_named() {
        assert!(expand(b"BZh91AY", LARGEST).unwrap_err().message().contains("bzip2"));
        assert!(expand(b"\x89LZO\0\r\n", LARGEST).unwrap_err().message().contains("lzo"));
        assert!(expand(b"garbage", LARGEST).unwrap_err().message().contains("unknown format"));
        assert!(expand(b"", LARGEST).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(name in proptest::sample::select(&PACKINGS[..]), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut payload = pack(name, &[7; 3000]);
            for (index, byte) in flips {
                let at = index.index(payload.len());
                payload[at] = byte;
            }
            let _ = expand(&payload, 1 << 20);
        }
    }
}
