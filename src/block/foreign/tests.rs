use super::vhd::{Vhd, fixed_size};
use super::vhdx::Vhdx;
use super::vmdk::Vmdk;
use super::*;
use proptest::prelude::*;

/// All bytes of a disk; at most 64 MiB, or nothing.
fn read(image: &dyn Image, file: &Vec<u8>) -> io::Result<Vec<u8>> {
    if image.size() > 64 << 20 {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut disk = vec![0; image.size() as usize];
    each_run(image, file.len() as u64, &mut |at, place, len| {
        let bytes = &mut disk[at as usize..][..len as usize];
        match place {
            Place::Zero => unreachable!("zeros are left out"),
            Place::At(from) => file.read_exact_at(bytes, from),
            Place::Packed => image.read_exact_at(bytes, at),
        }
    })?;
    Ok(disk)
}

type Open = fn(Rc<dyn Bytes>) -> io::Result<Box<dyn Image>>;
const OPENERS: [Open; 3] = [
    |file| Ok(Box::new(Vhd::open(file)?)),
    |file| Ok(Box::new(Vmdk::open(file)?)),
    |file| Ok(Box::new(Vhdx::open(file)?)),
];

fn open(n: usize, file: &[u8]) -> io::Result<Vec<u8>> {
    let file = file.to_vec();
    let image = OPENERS[n](Rc::new(file.clone()))?;
    read(&*image, &file)
}

fn put(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.resize(bytes.len().max(at + what.len()), 0);
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn footer(kind: u32, size: u64, creator: &[u8; 4]) -> Vec<u8> {
    let mut footer = vec![0; 512];
    put(&mut footer, 0, b"conectix");
    put(&mut footer, 16, &512u64.to_be_bytes());
    put(&mut footer, 28, creator);
    put(&mut footer, 48, &size.to_be_bytes());
    // A geometry of 17 sectors only.
    put(&mut footer, 56, &[0, 1, 1, 17]);
    put(&mut footer, 60, &kind.to_be_bytes());
    sum(&mut footer, 64);
    footer
}

fn sum(bytes: &mut Vec<u8>, at: usize) {
    put(bytes, at, &[0; 4]);
    let sum = !bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    put(bytes, at, &sum.to_be_bytes());
}

/// Three blocks of 1 MiB, the middle one of sevens.
fn dynamic() -> (Vec<u8>, Vec<u8>) {
    const BLOCK: usize = 1 << 20;
    let mut file = footer(3, 3 * BLOCK as u64, b"vbox");
    let mut header = vec![0; 1024];
    put(&mut header, 0, b"cxsparse");
    put(&mut header, 16, &1536u64.to_be_bytes());
    put(&mut header, 28, &3u32.to_be_bytes());
    put(&mut header, 32, &(BLOCK as u32).to_be_bytes());
    sum(&mut header, 36);
    file.extend(header);
    file.extend([u32::MAX.to_be_bytes(), 4u32.to_be_bytes(), u32::MAX.to_be_bytes()].concat());
    put(&mut file, 2048, &[0xff; 512]);
    file.extend(vec![7; BLOCK]);
    let copy = file[..512].to_vec();
    file.extend(copy);
    (file, [vec![0; BLOCK], vec![7; BLOCK], vec![0; BLOCK]].concat())
}

/// 8 grains of 4 KiB, the third of fives, compressed or not.
fn vmdk(compressed: bool) -> (Vec<u8>, Vec<u8>) {
    let mut file = b"KDMV".to_vec();
    let flags: u32 = if compressed { 0x3_0001 } else { 1 };
    put(&mut file, 4, &[1u32.to_le_bytes(), flags.to_le_bytes()].concat());
    for (at, value) in [(12, 64u64), (20, 8), (28, 1), (36, 1), (56, 2)] {
        put(&mut file, at, &value.to_le_bytes());
    }
    put(&mut file, 44, &512u32.to_le_bytes());
    put(&mut file, 73, b"\n \r\n");
    put(&mut file, 77, &[u8::from(compressed), 0]);
    put(&mut file, 512, b"# Disk DescriptorFile\nparentCID=ffffffff\nRW 64 SPARSE \"d.vmdk\"\n");
    put(&mut file, 1024, &3u32.to_le_bytes());
    put(&mut file, 1536 + 8, &7u32.to_le_bytes());
    if compressed {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
        io::Write::write_all(&mut zlib, &[5; 4096]).unwrap();
        let data = zlib.finish().unwrap();
        put(&mut file, 3584, &16u64.to_le_bytes());
        put(&mut file, 3592, &(data.len() as u32).to_le_bytes());
        put(&mut file, 3596, &data);
    } else {
        put(&mut file, 3584, &[5; 4096]);
    }
    let len = file.len().next_multiple_of(512);
    file.resize(len, 0);
    let mut disk = vec![0; 32 << 10];
    disk[8192..12288].fill(5);
    (file, disk)
}

#[test]
fn a_fixed_vhd_has_its_current_size_whoever_made_it() {
    let disk = vec![3; 65536];
    for creator in [b"vbox", b"wa\0\0", b"win ", b"vpc ", b"\0\0\0\0"] {
        let footer = footer(2, 65536, creator);
        assert!(open(0, &[&disk[..], &footer].concat()).unwrap() == disk);
        let last: [u8; 512] = footer.try_into().unwrap();
        assert_eq!(fixed_size(&last, 65536).unwrap(), Some(65536));
        assert!(fixed_size(&last, 65535).is_err(), "it is cut short");
        let mut damaged = last;
        damaged[50] ^= 1;
        assert!(fixed_size(&damaged, 65536).is_err());
    }
    assert_eq!(fixed_size(&[0; 512], 65536).unwrap(), None);
}

#[test]
fn blocks_and_grains_are_where_the_tables_say() {
    for (n, (file, disk)) in [(0, dynamic()), (1, vmdk(false)), (1, vmdk(true))] {
        assert!(open(n, &file).unwrap() == disk);
        // Whatever is missing at the end, the disk is not taken for whole.
        for cut in (0..file.len() - 512).step_by(file.len() / 40) {
            assert!(open(n, &file[..cut]).is_err(), "{n} {cut}");
        }
    }
}

#[test]
fn what_needs_other_files_is_refused() {
    let kind = |result: io::Result<Vec<u8>>| result.unwrap_err().kind();
    let differencing = [vec![0; 512], footer(4, 512, b"win ")].concat();
    assert_eq!(kind(open(0, &differencing)), io::ErrorKind::PermissionDenied);
    for (from, to) in [
        ("parentCID=ffffffff", "parentCID=12345678"),
        ("RW 64 SPARSE", "RW 64 FLAT  "),
        ("\"d.vmdk\"\n", "\"d\"\nRW 1 "),
    ] {
        let (mut file, _) = vmdk(false);
        let at = file.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        file[at..at + to.len()].copy_from_slice(to.as_bytes());
        assert_eq!(kind(open(1, &file)), io::ErrorKind::PermissionDenied, "{to}");
    }
    let (mut file, _) = vmdk(false);
    file[28..36].fill(0);
    assert_eq!(kind(open(1, &file)), io::ErrorKind::PermissionDenied, "an extent");
}

#[test]
fn a_small_file_does_not_become_a_large_disk() {
    let (mut file, _) = vmdk(false);
    for grain in 0..8 {
        put(&mut file, 1536 + grain * 4, &7u32.to_le_bytes());
    }
    let error = open(1, &file).unwrap_err();
    assert!(error.to_string().contains("more than once"), "{error}");
}

#[test]
fn guids_and_checksums_are_those_of_the_specification() {
    // RFC 3720, B.4: 32 bytes of ones. Here the checksum's own place counts as zeros.
    let mut bytes = [0xff; 32];
    bytes[4..8].fill(0);
    let ours = super::vhdx::checksum(&bytes);
    bytes[4..8].fill(0xab);
    assert_eq!(super::vhdx::checksum(&bytes), ours);
    assert_eq!(super::vhdx::checksum(&[0; 32]), 0x8a91_36aa);
}

proptest! {
    #[test]
    fn nothing_that_is_damaged_panics(
        which in 0usize..3,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        early in any::<bool>(),
    ) {
        let (mut file, _) = [dynamic(), vmdk(false), vmdk(true)][which].clone();
        for (index, byte) in flips {
            let at = index.index(if early { 2048.min(file.len()) } else { file.len() });
            file[at] = byte;
        }
        // A checksum keeps most damage out.
        if which == 0 {
            for (at, len, own) in [(0, 512, 64), (512, 1024, 36)] {
                let mut part = file[at..at + len].to_vec();
                sum(&mut part, own);
                file[at..at + len].copy_from_slice(&part);
            }
            file.truncate(file.len() - 512);
        }
        for n in 0..3 {
            let _ = open(n, &file);
            let _ = open(n, &file[..cut.index(file.len())]);
        }
    }
}
