//! Images made to do harm: each is refused in one line or read as something, in bounded memory.

use super::{Disk, DiskFormat, Reader, import_source, open, overlay};
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;

const SIZE: u64 = 4 << 20;
/// Where the overlay's parts are: see [`overlay::create`].
const CLUSTER: u64 = 65536;
const L1: u64 = 3 * CLUSTER;

/// A good image with an L2 table at cluster 4 and a data cluster at 5, then changed.
fn image(patches: &[(u64, &[u8])]) -> File {
    let file = tempfile::tempfile().unwrap();
    overlay::create(&file, SIZE, None).unwrap();
    file.set_len(6 * CLUSTER).unwrap();
    file.write_all_at(&(1u64 << 63 | (4 * CLUSTER)).to_be_bytes(), L1).unwrap();
    file.write_all_at(&(1u64 << 63 | (5 * CLUSTER)).to_be_bytes(), 4 * CLUSTER).unwrap();
    for (offset, bytes) in patches {
        file.write_all_at(bytes, *offset).unwrap();
    }
    file
}

fn refusal(patches: &[(u64, &[u8])]) -> String {
    match import_source(image(patches), DiskFormat::Qcow2) {
        Ok(_) => panic!("the image was accepted"),
        Err(e) => {
            let text = e.to_string();
            assert!(!text.contains('\n'));
            text
        }
    }
}

#[test]
fn the_unchanged_image_is_good() {
    let source = import_source(image(&[]), DiskFormat::Qcow2).unwrap();
    assert_eq!(source.size(), SIZE);
    source.read_exact_at(&mut [0; 4096], SIZE - 4096).unwrap();
    assert!(source.read_exact_at(&mut [0; 4096], SIZE - 512).is_err());
    assert!(source.read_exact_at(&mut [0; 4096], u64::MAX - 5).is_err());
}

/// A page of the header is read at first, and the rest where something is there.
#[test]
fn a_backing_file_is_seen_wherever_in_the_first_cluster_its_name_is() {
    for at in [112u64, 4090, 4096, 9000, CLUSTER - 4] {
        let place = [(8u64, &at.to_be_bytes()[..]), (16, &4u32.to_be_bytes()), (at, b"base")];
        let text = refusal(&place);
        assert!(text.contains("backing file \"base\""), "{at}: {text}");
    }
    // Behind a long extension, of which there is one more.
    let long = [&0x6803_f857_u32.to_be_bytes()[..], &8000u32.to_be_bytes()].concat();
    let place = [
        (112u64, &long[..]),
        (8, &9000u64.to_be_bytes()),
        (16, &4u32.to_be_bytes()),
        (9000, b"base"),
    ];
    assert!(refusal(&place).contains("backing file \"base\""));
}

#[test]
fn each_lie_is_named() {
    let entry = |value: u64| value.to_be_bytes();
    let size = |at: u64| (24, at.to_be_bytes());
    for (what, patch, says) in [
        ("no qcow2", (0, entry(0)), "magic"),
        ("a size of 2^63", size(1 << 63), "size"),
        ("a size beyond the L1 table", size(1 << 50), "l1_size"),
        ("an L1 table beyond the end", (40, entry(1 << 40)), "L1 table"),
        ("an L1 table that is misaligned", (40, entry(L1 + 8)), "L1 table"),
        ("an L1 table at the end of the address space", (40, entry(!0xffff)), "L1 table"),
        ("a refcount table at 0", (48, entry(0)), "refcount table"),
        ("unknown features", (72, entry(1 << 40)), "features"),
        ("an external data file", (72, entry(4)), "data file"),
        ("the corrupt bit", (72, entry(2)), "corrupt"),
        ("an L1 entry that leads to the L1 table", (L1, entry(L1)), "referenced twice"),
        ("an L1 entry beyond the end", (L1, entry(1 << 50)), "beyond the end"),
        ("an L2 entry that leads to its table", (4 * CLUSTER, entry(4 * CLUSTER)), "twice"),
        ("an L2 entry that leads to the header's table", (4 * CLUSTER, entry(CLUSTER)), "twice"),
        ("an L2 entry beyond the end", (4 * CLUSTER + 8, entry(1 << 55)), "beyond the end"),
        ("an L2 entry that is misaligned", (4 * CLUSTER + 8, entry(CLUSTER + 512)), "misaligned"),
        ("two entries for one cluster", (4 * CLUSTER + 8, entry(5 * CLUSTER)), "twice"),
        ("compressed data beyond the end", (4 * CLUSTER + 8, entry(1 << 62 | 1 << 40)), "beyond"),
    ] {
        let text = refusal(&[(patch.0, &patch.1)]);
        assert!(text.contains(says), "{what}: {text}");
    }
    let text = refusal(&[(20, &40u32.to_be_bytes())]);
    assert!(text.contains("cluster_bits"), "{text}");
    let text =
        refusal(&[(8, &200u64.to_be_bytes()), (16, &11u32.to_be_bytes()), (200, b"/etc/shadow")]);
    assert!(text.contains("/etc/shadow") && text.contains("qemu-img convert"), "{text}");
    let text = refusal(&[(8, &(1u64 << 40).to_be_bytes()), (16, &11u32.to_be_bytes())]);
    assert!(text.contains("backing file name"), "{text}");
}

#[test]
fn an_empty_file_is_no_qcow2_and_no_layers_are_no_disk() {
    let empty = || tempfile::tempfile().unwrap();
    assert!(import_source(empty(), DiskFormat::Qcow2).is_err());
    assert!(open(vec![(empty(), DiskFormat::Qcow2)], false).is_err());
    assert!(open(Vec::new(), true).is_err());
}

#[test]
fn a_broken_compressed_cluster_is_an_error_when_read() {
    let entry = (1u64 << 62 | (5 * CLUSTER)).to_be_bytes();
    let file = image(&[(4 * CLUSTER, &entry), (5 * CLUSTER, &[0xff; 4096])]);
    let reader = Reader::open(vec![(file, DiskFormat::Qcow2)]).unwrap();
    let error = reader.read_exact_at(&mut [0; 512], 0).unwrap_err();
    assert!(error.to_string().contains("unpack"), "{error}");
}

/// Everything that can be done to an image, none of which may panic.
fn exercise(file: File) {
    let copy = || file.try_clone().unwrap();
    if let Ok(source) = import_source(copy(), DiskFormat::Qcow2) {
        read_some(source.size(), |bytes, at| source.read_exact_at(bytes, at).is_ok());
    }
    if let Ok(reader) = Reader::open(vec![(copy(), DiskFormat::Qcow2)]) {
        read_some(reader.size(), |bytes, at| reader.read_exact_at(bytes, at).is_ok());
        let _ = reader.extents().take(100).count();
    }
    let Ok(disk) = open(vec![(copy(), DiskFormat::Qcow2)], false) else { return };
    let Ok(mut queue) = disk.queue(super::Engine::Sync) else { return };
    for offset in [0, 65536 - 512, 1 << 20, disk.size().saturating_sub(512)] {
        let buf = || crate::sys::iobuf::IoBuf::host(1024);
        queue.submit(1, super::Op::Write { offset, buf: buf() });
        queue.submit(2, super::Op::Read { offset, buf: buf() });
        queue.submit(3, super::Op::WriteZeroes { offset, len: 1 << 18, unmap: true });
        queue.submit(4, super::Op::Flush);
    }
    queue.completions(&mut |_, _| {});
    let _ = disk.close();
}

fn read_some(size: u64, read: impl Fn(&mut [u8], u64) -> bool) {
    let mut bytes = [0; 4096];
    for n in 0..8 {
        read(&mut bytes, (size / 8 * n) & !511);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Bytes of the header, of the tables and of an L2 table changed at random.
    #[test]
    fn no_change_of_metadata_panics(
        patches in prop::collection::vec(
            (prop_oneof![0u64..112, L1..L1 + 16, 4 * CLUSTER..4 * CLUSTER + 512, CLUSTER..CLUSTER + 16,
                2 * CLUSTER..2 * CLUSTER + 32], any::<u8>()),
            1..6,
        ),
    ) {
        let file = image(&[]);
        for (offset, byte) in patches {
            file.write_all_at(&[byte], offset).unwrap();
        }
        exercise(file);
    }

    /// Fields of the header changed to plausible and implausible numbers.
    #[test]
    fn no_header_panics(
        bits in prop_oneof![8u32..24, any::<u32>()],
        size in prop_oneof![0u64..1 << 30, any::<u64>()],
        l1 in prop_oneof![0u32..100, any::<u32>()],
        features in 0u64..32,
        order in 0u32..8,
    ) {
        let patches: [(u64, &[u8]); 5] = [
            (20, &bits.to_be_bytes()),
            (24, &size.to_be_bytes()),
            (36, &l1.to_be_bytes()),
            (72, &features.to_be_bytes()),
            (96, &order.to_be_bytes()),
        ];
        exercise(image(&patches));
    }
}
