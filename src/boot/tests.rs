use super::*;
use crate::mem::layout::{CMDLINE, HIGH_RAM};
use crate::plan::{BootPlan, Chipset, DeviceConfig, DeviceKind, PlanFd, TransportKind, VmConfig};
use proptest::prelude::*;
use source::{u32_at, u64_at};
use std::io::{Read, Write};

/// A machine with so many devices, in slots from 0 on.
pub fn machine(cpus: u8, transport: TransportKind, devices: usize) -> VmConfig {
    let device = |slot: usize| DeviceConfig {
        id: format!("rng{slot}").parse().unwrap(),
        slot: slot as u8,
        kind: DeviceKind::Entropy,
    };
    VmConfig {
        processor: Default::default(),
        cpus,
        memory: 64 << 20,
        boot: BootPlan::Direct {
            kernel: Some(PlanFd(4)),
            initrd: None,
            cmdline: String::new(),
            menu: None,
        },
        chipset: Chipset { transport, ..Default::default() },
        devices: (0..devices).map(device).collect(),
    }
}

/// A plan with this much memory.
pub fn plan(memory: u64) -> VmPlan {
    VmPlan {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        launch_index: 2,
        config: VmConfig { memory, ..machine(2, TransportKind::default(), 1) },
        cpuid: Vec::new(),
        uuid: "ec2d1e7a-0000-4000-8000-0123456789ab".into(),
        oem_strings: Vec::new(),
        console: PlanFd(5),
        times: None,
        control: None,
        report: PlanFd(6),
        ready: None,
        lock: None,
        lifeline: None,
        first_io: None,
        resume: None,
        sandbox: false,
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// (p_offset, p_paddr, p_filesz, p_memsz)
type Load = (u64, u64, u64, u64);

/// An ELF with these segments; byte n of the file is n modulo 251.
fn elf(entry: u64, loads: &[Load], len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    header.extend(entry.to_le_bytes());
    header.extend(64u64.to_le_bytes());
    header.extend([0; 12]);
    header.extend([64, 0, 56, 0, loads.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
    for (offset, paddr, filesz, memsz) in loads {
        header.extend([1, 0, 0, 0, 7, 0, 0, 0]);
        for word in [*offset, paddr | 0xffff_ffff_8000_0000, *paddr, *filesz, *memsz, 4096] {
            header.extend(word.to_le_bytes());
        }
    }
    bytes[..header.len()].copy_from_slice(&header);
    bytes
}

/// Two segments: one that begins and ends within a page and spans whole ones, one that is not
/// congruent.
const LOADS: [Load; 2] = [(0x1234, 0x10_0234, 0x3000, 0x3100), (0x5001, 0x10_4000, 0x1800, 0x4000)];

pub fn small_elf() -> Vec<u8> {
    elf(0x10_0300, &LOADS, 0x7000)
}

/// A bzImage around `payload`.
fn bzimage(payload: &[u8], init_size: u32) -> Vec<u8> {
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
    put(0x260, &init_size.to_le_bytes());
    put(0x300, b"6.1.0-56-cloud-amd64 (debian) #1 SMP\0");
    let paragraphs = ((image.len() - kernel) / 16) as u32;
    image[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    image
}

fn small_bzimage() -> Vec<u8> {
    bzimage(&pack("gzip", &small_elf()), 1 << 20)
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().message().to_owned()
}

/// Pack as the kernel's build does.
pub fn pack(name: &str, kernel: &[u8]) -> Vec<u8> {
    let lzma = || liblzma::stream::LzmaOptions::new_preset(1).unwrap();
    let mut payload = match name {
        "gzip" => {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            gz.write_all(kernel).unwrap();
            gz.finish().unwrap()
        }
        "xz" => {
            let mut filters = liblzma::stream::Filters::new();
            filters.x86().lzma2(&lzma());
            let check = liblzma::stream::Check::Crc32;
            let stream = liblzma::stream::Stream::new_stream_encoder(&filters, check).unwrap();
            let mut out = Vec::new();
            liblzma::bufread::XzEncoder::new_stream(kernel, stream).read_to_end(&mut out).unwrap();
            out
        }
        "lzma" => {
            let stream = liblzma::stream::Stream::new_lzma_encoder(&lzma()).unwrap();
            let mut out = Vec::new();
            liblzma::bufread::XzEncoder::new_stream(kernel, stream).read_to_end(&mut out).unwrap();
            out
        }
        "zstd" => zstd::bulk::compress(kernel, 3).unwrap(),
        "lz4" => {
            let mut out = b"\x02\x21\x4c\x18".to_vec();
            for block in kernel.chunks(decompress::LZ4_BLOCK) {
                let block = lz4_flex::block::compress(block);
                out.extend((block.len() as u32).to_le_bytes());
                out.extend(block);
            }
            out
        }
        other => other.as_bytes().to_vec(),
    };
    if name != "gzip" {
        payload.extend((kernel.len() as u32).to_le_bytes()); // gzip ends with it already
    }
    payload
}

/// What must be in RAM for [`small_elf`].
fn check_loaded(ram: &GuestRam) {
    let bytes = small_elf();
    for (offset, paddr, filesz, memsz) in LOADS {
        let mut got = vec![0; memsz as usize];
        ram.read_slice(&mut got, GuestAddress(paddr)).unwrap();
        let (data, bss) = got.split_at(filesz as usize);
        assert!(data == &bytes[offset as usize..][..data.len()]);
        assert!(bss.iter().all(|byte| *byte == 0), "zeroed data is zero");
    }
    let before: u8 = ram.read_obj(GuestAddress(LOADS[0].1 - 1)).unwrap();
    let between: u8 = ram.read_obj(GuestAddress(LOADS[0].1 + LOADS[0].3)).unwrap();
    assert_eq!((before, between), (0, 0), "nothing is written around a segment");
}

#[test]
fn an_elf_its_unpacked_form_and_a_bzimage_of_it_load_alike() {
    let unpacked = unpack(&file(&small_bzimage())).unwrap();
    for kernel in [small_elf(), unpacked.elf, small_bzimage()] {
        let ram = ram::create(16 << 20).unwrap();
        let entry = load(&file(&kernel), None, "console=ttyS0", &plan(16 << 20), &ram).unwrap();
        assert_eq!((entry.rip, entry.rsi, entry.rsp), (0x10_0300, ZERO_PAGE, BOOT_STACK));
        check_loaded(&ram);
        let mut cmdline = [0xff; 14];
        ram.read_slice(&mut cmdline, GuestAddress(CMDLINE)).unwrap();
        assert_eq!(&cmdline, b"console=ttyS0\0");
        let magic: [u8; 8] = ram.read_obj(GuestAddress(ACPI)).unwrap();
        assert_eq!(&magic, b"RSD PTR ");
        let magic: [u8; 4] = ram.read_obj(GuestAddress(SMBIOS)).unwrap();
        assert_eq!(&magic, b"_SM3");
    }
}

#[test]
fn an_unpacked_kernel_can_be_mapped_and_tells_what_it_was() {
    let unpacked = unpack(&file(&small_bzimage())).unwrap();
    assert_eq!(unpacked.format, "bzImage (gzip)");
    assert_eq!(unpacked.version.as_deref(), Some("6.1.0-56-cloud-amd64"));
    let parsed = Elf::parse(Source::Bytes(&unpacked.elf)).unwrap();
    assert!(parsed.loads().all(|s| s.offset % PAGE == s.paddr % PAGE));
    let again = unpack(&file(&unpacked.elf)).unwrap();
    assert!(again.elf == unpacked.elf, "unpacking is idempotent");
    assert_eq!(again.format, "ELF");
}

/// [`small_elf`], compiled for i386.
fn small_elf32() -> Vec<u8> {
    let mut bytes = small_elf();
    let mut header = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0".to_vec();
    header.extend(0x10_0300u32.to_le_bytes());
    header.extend(52u32.to_le_bytes());
    header.extend([0; 8]);
    header.extend([52, 0, 32, 0, LOADS.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
    for (offset, paddr, filesz, memsz) in LOADS {
        for word in [1, offset, paddr + 0xc000_0000, paddr, filesz, memsz, 7, 4096] {
            header.extend((word as u32).to_le_bytes());
        }
    }
    bytes[..header.len()].copy_from_slice(&header);
    bytes
}

#[test]
fn a_kernel_for_i386_is_entered_in_its_own_mode() {
    let packed = bzimage(&pack("xz", &small_elf32()), 1 << 20);
    let unpacked = unpack(&file(&packed)).unwrap();
    assert_eq!(unpacked.mode, Mode::Protected);
    let parsed = Elf::parse(Source::Bytes(&unpacked.elf)).unwrap();
    assert!(parsed.loads().all(|s| s.offset % PAGE == s.paddr % PAGE));
    assert!(unpack(&file(&unpacked.elf)).unwrap().elf == unpacked.elf, "unpacking is idempotent");
    for kernel in [small_elf32(), unpacked.elf, packed] {
        unpack::check(&kernel).unwrap();
        let ram = ram::create(16 << 20).unwrap();
        let entry = load(&file(&kernel), None, "", &plan(16 << 20), &ram).unwrap();
        assert_eq!((entry.mode, entry.rip), (Mode::Protected, 0x10_0300));
        let mut got = vec![0; 0x3000];
        ram.read_slice(&mut got, GuestAddress(LOADS[0].1)).unwrap();
        assert!(got == small_elf32()[0x1234..0x4234]);
    }
}

#[test]
fn the_version_of_an_elf_is_its_banner() {
    let mut bytes = small_elf();
    let banner = b"Linux version %s\0Linux version 6.12.9-lab (me@here)";
    bytes[0x6000..0x6000 + banner.len()].copy_from_slice(banner);
    assert_eq!(unpack(&file(&bytes)).unwrap().version.as_deref(), Some("6.12.9-lab"));
}

#[test]
fn the_ramdisk_lies_at_the_top_of_memory_and_the_zero_page_says_where() {
    let ram = ram::create(16 << 20).unwrap();
    let initrd: Vec<u8> = (0..5000).map(|n| n as u8).collect();
    let (kernel, initrd_file) = (file(&small_elf()), file(&initrd));
    load(&kernel, Some(&initrd_file), "", &plan(16 << 20), &ram).unwrap();
    let mut page = [0; 4096];
    ram.read_slice(&mut page, GuestAddress(ZERO_PAGE)).unwrap();
    let (image, size) = (u32_at(&page, 0x218).unwrap(), u32_at(&page, 0x21c).unwrap());
    assert_eq!((image, size), ((16 << 20) - 0x2000, 5000));
    let mut got = vec![0; 5000];
    ram.read_slice(&mut got, GuestAddress(image.into())).unwrap();
    assert!(got == initrd);
}

#[test]
fn a_ramdisk_that_does_not_fit_is_refused() {
    let ram = ram::create(16 << 20).unwrap();
    let kernel = file(&small_elf());
    for len in [15 << 20, 17 << 20, 1 << 40] {
        let initrd = file(b"");
        initrd.set_len(len).unwrap();
        let said = message(load(&kernel, Some(&initrd), "", &plan(16 << 20), &ram));
        assert!(said.contains("initial ramdisk") && said.contains("`Memory`"), "{said}");
    }
    let empty = file(b"");
    assert!(load(&kernel, Some(&empty), "", &plan(16 << 20), &ram).is_ok());
}

#[test]
fn a_kernel_larger_than_memory_is_refused() {
    let ram = ram::create(16 << 20).unwrap();
    let kernel = elf(0x10_0000, &[(0x1000, 0x10_0000, 0x1000, 64 << 20)], 0x2000);
    let said = message(load(&file(&kernel), None, "", &plan(16 << 20), &ram));
    assert!(said.contains("65 MiB") && said.contains("`Memory`"), "{said}");
}

#[test]
fn impossible_segments_are_refused() {
    for (load, why) in [
        ((0x1000, HIGH_RAM - 1, 0x1000, 0x1000), "below 1 MiB"),
        ((0x1000, 0xffff_f000, 0x1000, 0x1001), "4 GiB"),
        ((0x1000, u64::MAX - 10, 0x1000, 0x1000), "last address"),
        ((u64::MAX - 10, 0x10_0000, 0x1000, 0x1000), "truncated"),
        ((0x1000, 0x10_0000, 0x1001, 0x1001), "truncated"),
        ((0x1000, 0x10_0000, 0x1000, 0xfff), "larger in the file"),
        ((0x1000, 0x20_0000, 0x1000, 0x1000), "entry point"),
        ((0x1000, 0x10_0000, 0, 0x1000), "entry point"),
    ] {
        let said = message(unpack(&file(&elf(0x10_0000, &[load], 0x2000))));
        assert!(said.contains(why), "{load:x?}: {said}");
    }
    let overlapping = [(0x1000, 0x10_0000, 0x1000, 0x3000), (0x1000, 0x10_2fff, 0x1000, 0x1000)];
    let said = message(unpack(&file(&elf(0x10_0000, &overlapping, 0x2000))));
    assert!(said.contains("overlap"), "{said}");
}

#[test]
fn segments_that_share_the_files_bytes_do_not_multiply_it() {
    let len = 24 << 20;
    let loads: Vec<Load> =
        (0..64).map(|n| (0x1000, 0x10_0000 + n * (32 << 20), len - 0x1000, len - 0x1000)).collect();
    let said = message(unpack(&file(&elf(0x10_0000, &loads, len as usize))));
    assert!(said.contains("too large"), "{said}");
}

#[test]
fn what_is_no_kernel_is_named() {
    let with = |at: usize, magic: &[u8]| {
        let mut bytes = vec![0; 4096];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    };
    let patched = |at: usize, value: u8| {
        let mut bytes = small_elf();
        bytes[at] = value;
        bytes
    };
    for (bytes, what) in [
        (vec![], "empty"),
        (b"#!/bin/sh\n".to_vec(), "10 bytes"),
        (with(0, b"hello"), "neither an ELF vmlinux nor a bzImage"),
        (with(0x38, b"ARM\x64"), "aarch64 kernel Image"),
        (with(0, b"070701"), "initial ramdisk"),
        (with(0, b"QFI\xfb"), "qcow2"),
        (with(0x1fe, b"\x55\xaa"), "boot sector"),
        (patched(0x12, 183), "aarch64 ELF"),
        (patched(4, 1), "class 1"),
        (patched(0x10, 1), "not an executable"),
        (patched(0x38, 65), "65 program headers"),
        (patched(0x40, 3), "ordinary program"),
        (patched(0x36, 32), "program headers of 32 bytes"),
    ] {
        let said = message(unpack(&file(&bytes)));
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn an_old_or_low_bzimage_is_refused() {
    for (at, value, why) in [
        (0x206, 5, "2.05"),
        (0x211, 0, "zImage"),
        (0x1fe, 0, "boot sector"),
        (0x24b, 0xff, "truncated"),
        (0x24f, 0xff, "truncated"),
    ] {
        let mut image = small_bzimage();
        image[at] = value;
        let said = message(unpack(&file(&image)));
        assert!(said.contains(why), "{said}");
    }
    let said = message(unpack(&file(&bzimage(&pack("xz", b"hello"), 1000))));
    assert!(said.contains("not an ELF"), "{said}");
    let packed = pack("xz", &small_elf());
    let said = message(unpack(&file(&bzimage(&packed, 1000))));
    assert!(said.contains("more than the 1000"), "{said}");
}

#[test]
fn a_truncated_bzimage_or_elf_is_refused_wherever_it_ends() {
    let whole = small_bzimage();
    for end in (0..0x400).chain((0x400..whole.len() - 15).step_by(101)) {
        assert!(unpack(&file(&whole[..end])).is_err(), "{end}");
    }
    let whole = small_elf();
    let needed = (LOADS[1].0 + LOADS[1].2) as usize;
    for end in (0..0x400).chain((0x400..needed).step_by(251)) {
        assert!(unpack(&file(&whole[..end])).is_err(), "{end}");
    }
    assert!(unpack(&file(&whole[..needed])).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_mutated_kernel_never_panics(
        which in any::<bool>(),
        edits in proptest::collection::vec((0usize..0x270, any::<u8>()), 1..6),
    ) {
        let mut bytes = if which { small_elf() } else { small_bzimage() };
        for (at, value) in edits {
            bytes[at] = value;
        }
        let kernel = file(&bytes);
        let _ = unpack(&kernel);
        let ram = ram::create(16 << 20).unwrap();
        let _ = load(&kernel, None, "", &plan(16 << 20), &ram);
    }

    #[test]
    fn program_headers_never_overflow(words in proptest::array::uniform6(any::<u64>()), entry: u64) {
        let mut bytes = small_elf();
        for (n, word) in words.iter().enumerate() {
            bytes[72 + n * 8..80 + n * 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes[24..32].copy_from_slice(&entry.to_le_bytes());
        let _ = unpack(&file(&bytes));
    }
}

#[test]
fn a_plan_for_5_gib_tells_the_guest_of_all_of_it() {
    let ram = ram::create(5 << 30).unwrap();
    load(&file(&small_elf()), None, "", &plan(5 << 30), &ram).unwrap();
    let mut page = [0; 4096];
    ram.read_slice(&mut page, GuestAddress(ZERO_PAGE)).unwrap();
    let last = 0x2d0 + (usize::from(page[0x1e8]) - 1) * 20;
    assert_eq!((u64_at(&page, last), u64_at(&page, last + 8)), (Some(1 << 32), Some(2 << 30)));
}
