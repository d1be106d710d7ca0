//! The header before each packet (VIRTIO 1.2, 5.1.6: struct virtio_net_hdr), as a driver may write
//! it.

use super::shared::bit;
use crate::sys::tap::HEADER;
use virtio_bindings::virtio_net::*;

/// Bytes of an Ethernet header: no frame is shorter.
pub(super) const ETHERNET: usize = 14;
/// Where `num_buffers` is.
pub(super) const NUM_BUFFERS: usize = 10;

/// The header that the host gets for the one that the driver wrote before a frame of `len` bytes.
/// `None`: it breaks 5.1.6.2, and the packet is dropped. What the driver may write as it likes is
/// as if it had not.
pub(super) fn checked(header: [u8; HEADER], len: usize, features: u64) -> Option<[u8; HEADER]> {
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let has = |feature: u32| features & bit(feature) != 0;
    let (flags, kind) = (u32::from(header[0]), u32::from(header[1]));
    let (hdr_len, gso_size, csum_start, csum_offset) = (word(2), word(4), word(6), word(8));
    let mut out = [0; HEADER];
    // 5.1.6.2: no other flag is the driver's.
    let sums = flags & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
    if sums {
        let field = usize::from(csum_start) + usize::from(csum_offset);
        if !has(VIRTIO_NET_F_CSUM) || usize::from(csum_start) < ETHERNET || field + 2 > len {
            return None;
        }
        out[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
        out[6..10].copy_from_slice(&header[6..10]);
    }
    if kind == VIRTIO_NET_HDR_GSO_NONE {
        return Some(out);
    }
    let agreed = match kind {
        VIRTIO_NET_HDR_GSO_TCPV4 => has(VIRTIO_NET_F_HOST_TSO4),
        VIRTIO_NET_HDR_GSO_TCPV6 => has(VIRTIO_NET_F_HOST_TSO6),
        VIRTIO_NET_HDR_GSO_UDP_L4 => has(VIRTIO_NET_F_HOST_USO),
        _ => false,
    };
    // Each segment has a checksum of its own, and there are bytes to be cut.
    let cut = gso_size != 0 && usize::from(hdr_len) <= len && usize::from(csum_start) < len;
    if !agreed || !sums || !cut {
        return None;
    }
    out[1] = header[1];
    out[2..6].copy_from_slice(&header[2..6]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;

    fn header(flags: u8, kind: u8, words: [u16; 4]) -> [u8; HEADER] {
        let mut header = [0xee; HEADER];
        (header[0], header[1]) = (flags, kind);
        for (at, word) in (2..10).step_by(2).zip(words) {
            header[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        header
    }

    #[test]
    fn what_a_driver_may_ask_for_passes_and_nothing_else_of_it() {
        let plain = header(0, 0, [9, 9, 9, 9]);
        assert_eq!(checked(plain, 60, ALL), Some([0; HEADER]));
        // VALID and RSC_INFO are the device's.
        assert_eq!(checked(header(6, 0, [0; 4]), 60, ALL), Some([0; HEADER]));
        let sums = checked(header(1, 0, [0, 0, 34, 16]), 60, ALL).unwrap();
        assert_eq!(sums, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        for (kind, len) in [(1, 4000), (4, 4000), (5, 4000)] {
            let large = checked(header(1, kind, [54, 1448, 34, 16]), len, ALL).unwrap();
            assert_eq!(large, [1, kind, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
        }
    }

    #[test]
    fn what_breaks_the_rules_is_dropped() {
        for (why, header, len) in [
            ("the checksum ends beyond the frame", header(1, 0, [0, 0, 50, 9]), 60),
            ("the checksum is in the Ethernet header", header(1, 0, [0, 0, 13, 0]), 60),
            ("sums that wrap", header(1, 0, [0, 0, u16::MAX, u16::MAX]), 65_000),
            ("segments without checksums", header(0, 1, [54, 1448, 34, 16]), 4000),
            ("segments of no bytes", header(1, 1, [54, 0, 34, 16]), 4000),
            ("headers longer than the frame", header(1, 1, [61, 1448, 34, 16]), 60),
            ("fragments, which are not offered", header(1, 3, [54, 1448, 34, 16]), 4000),
            ("congestion, which is not offered", header(1, 0x81, [54, 1448, 34, 16]), 4000),
            ("an unknown kind", header(1, 2, [54, 1448, 34, 16]), 4000),
        ] {
            assert_eq!(checked(header, len, ALL), None, "{why}");
        }
    }

    #[test]
    fn what_was_not_agreed_upon_is_dropped() {
        let large = |kind| header(1, kind, [54, 1448, 34, 16]);
        for (feature, kind) in [
            (VIRTIO_NET_F_HOST_TSO4, 1),
            (VIRTIO_NET_F_HOST_TSO6, 4),
            (VIRTIO_NET_F_HOST_USO, 5),
            (VIRTIO_NET_F_CSUM, 1),
        ] {
            assert!(checked(large(kind), 4000, ALL).is_some());
            assert_eq!(checked(large(kind), 4000, ALL & !bit(feature)), None);
        }
        assert_eq!(checked(header(1, 0, [0, 0, 34, 16]), 60, 0), None);
    }
}
