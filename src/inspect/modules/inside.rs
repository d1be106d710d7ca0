//! The process that looks: confined first, then unpacking what somebody packed.
//!
//! A ramdisk is a row of cpio archives ("newc"), the last of them compressed as a rule.
//! (Documentation/driver-api/early-userspace/buffer-format.rst in Linux)

use crate::error::{OrFail, Result};
use crate::helper::{Ends, Given, Helper, Syscalls, not_ours};
use crate::plan::{DiskBus, Drivers, TransportKind};
use crate::sys::seccomp::{Allow, Allow::Call};
use std::io::{self, BufRead, BufReader, Read, Write};

/// Bytes of address space.
const MEMORY: u64 = 1 << 30;
/// Seconds of processor time.
const TIME: u64 = 60;
/// Most bytes that are unpacked.
const MAX_UNPACKED: u64 = 4 << 30;
/// Longest name (PATH_MAX), and most of a list of built-in modules that is read.
const MAX_NAME: u64 = 4096;
const MAX_LIST: u64 = 1 << 20;
/// Memory for a decoder's dictionary.
const DICTIONARY: u64 = 256 << 20;
/// log2 of zstd's largest window.
const WINDOW_LOG: u32 = 27;

/// What unpacking takes. Anything else ends the process.
const CALLS: &[Allow] = &[
    Call(libc::SYS_read),  // the ramdisk
    Call(libc::SYS_write), // the answer
    Call(libc::SYS_close), // the ramdisk
    Call(libc::SYS_fcntl), // std looks at what it closes
];

/// The look, with the ramdisk's file.
pub(crate) const HELPER: Helper = Helper {
    word: "__modules",
    syscalls: Syscalls::These(CALLS),
    memory: MEMORY,
    seconds: Some(TIME),
    ends: Ends::WithParent,
    environment: &[],
    run,
};

fn run(files: Vec<Given>) -> Result<()> {
    let given = files.into_iter().next().ok_or_else(not_ours)?;
    let found = look(given.file).or_fail(|| "unpack the initial ramdisk")?;
    let drivers = [(found.pci, TransportKind::Pci), (found.mmio, TransportKind::Mmio)];
    let disks = [(found.virtio_blk, DiskBus::Virtio), (found.nvme, DiskBus::Nvme)];
    let answer = Drivers {
        transports: drivers.iter().filter(|(is, _)| *is).map(|(_, it)| *it).collect(),
        disk_buses: disks.iter().filter(|(is, _)| *is).map(|(_, it)| *it).collect(),
    };
    let answer = serde_json::to_vec(&answer).or_fail(|| "write JSON")?;
    std::io::stdout().write_all(&answer).or_fail(|| "answer")
}

/// The drivers found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// virtio_mmio.
    pub mmio: bool,
    /// virtio_pci.
    pub pci: bool,
    /// virtio_blk.
    pub virtio_blk: bool,
    /// nvme.
    pub nvme: bool,
}

impl Found {
    /// The drivers' modules.
    fn drivers(&mut self) -> [(&'static [u8], &mut bool); 4] {
        [
            (b"virtio_mmio.ko", &mut self.mmio),
            (b"virtio_pci.ko", &mut self.pci),
            (b"virtio_blk.ko", &mut self.virtio_blk),
            (b"nvme.ko", &mut self.nvme),
        ]
    }

    /// A file of the archive: a module, or the list of those that the kernel has built in.
    fn file(&mut self, name: &[u8], content: &mut dyn Read) -> io::Result<()> {
        let base = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let mut drivers = self.drivers();
        drivers.iter_mut().for_each(|(name, has)| **has |= base.starts_with(name));
        if base == b"modules.builtin" {
            let mut list = Vec::new();
            content.take(MAX_LIST).read_to_end(&mut list)?;
            for line in list.split(|&byte| byte == b'\n') {
                let base = line.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
                let mut drivers = self.drivers();
                drivers.iter_mut().for_each(|(name, has)| **has |= base == *name);
            }
        }
        Ok(())
    }
}

/// Unpack an initial ramdisk where this is called.
///
/// # Errors
/// It is malformed, or packed in an unknown way.
pub fn look(file: impl Read) -> io::Result<Found> {
    let mut found = Found::default();
    let mut packed = BufReader::new(file);
    archives(&mut packed, &mut found)?;
    if packed.fill_buf()?.is_empty() {
        return Ok(found);
    }
    // A BufReader gives at least its first bytes at once: of a file, all that fit.
    let magic: Vec<u8> = packed.fill_buf()?.iter().take(6).copied().collect();
    let unpacked: Box<dyn Read> = match *magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::GzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(DICTIONARY, 0)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        [0x5d, 0, 0, ..] => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(DICTIONARY)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        _ => return Err(io::Error::other("packed in a way that is not known here")),
    };
    archives(&mut BufReader::new(unpacked.take(MAX_UNPACKED)), &mut found)?;
    Ok(found)
}

/// Read archives until something else comes.
fn archives(from: &mut impl BufRead, found: &mut Found) -> io::Result<()> {
    loop {
        match from.fill_buf()? {
            // Between archives there may be zeros.
            [0, ..] => from.consume(1),
            [b'0', ..] => archive(from, found)?,
            _ => return Ok(()),
        }
    }
}

/// One archive, to its trailer.
fn archive(from: &mut impl BufRead, found: &mut Found) -> io::Result<()> {
    const HEADER: u64 = 110;
    loop {
        let mut header = [0; HEADER as usize];
        from.read_exact(&mut header)?;
        if !matches!(&header[..6], b"070701" | b"070702") {
            return Err(io::Error::other("an archive is malformed"));
        }
        let (size, name_size) = (field(&header, 54)?, field(&header, 94)?);
        if name_size == 0 || name_size > MAX_NAME {
            return Err(io::Error::other("a name is too long"));
        }
        // The name is padded to four bytes with the header before it, the content by itself.
        let mut name = vec![0; ((HEADER + name_size).next_multiple_of(4) - HEADER) as usize];
        from.read_exact(&mut name)?;
        name.truncate(name_size as usize - 1);
        if name == b"TRAILER!!!" {
            return Ok(());
        }
        let mut content = from.take(size.next_multiple_of(4));
        found.file(&name, &mut (&mut content).take(size))?;
        io::copy(&mut content, &mut io::sink())?;
    }
}

/// Eight hexadecimal digits.
fn field(header: &[u8], at: usize) -> io::Result<u64> {
    let digits = header.get(at..at + 8).and_then(|digits| std::str::from_utf8(digits).ok());
    let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    number.map(u64::from).ok_or_else(|| io::Error::other("a number is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, content) in files.iter().chain(&[("TRAILER!!!", &b""[..])]) {
            let (size, len) = (content.len(), name.len() + 1);
            let zero = "00000000";
            archive.extend(
                format!("070701{}{size:08x}{}{len:08x}{zero}", zero.repeat(6), zero.repeat(4))
                    .bytes(),
            );
            archive.extend(name.bytes().chain([0]));
            archive.resize(archive.len().next_multiple_of(4), 0);
            archive.extend(*content);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
        archive
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    }

    const MODULE: &str = "usr/lib/modules/6.1.0/kernel/drivers/virtio/virtio_";

    #[test]
    fn modules_are_found_behind_an_early_archive_and_in_any_packing() {
        let main = cpio(&[
            ("init", b"#!/bin/sh"),
            (&format!("{MODULE}pci.ko"), b"\x7fELF"),
            ("usr/lib/modules/6.1.0/kernel/drivers/nvme/host/nvme.ko.zst", b"."),
            ("usr/lib/modules/6.1.0/kernel/drivers/nvme/host/nvme-core.ko.zst", b"."),
            (&format!("{MODULE}pci_modern_dev.ko.xz"), b"."),
        ]);
        let mut early = cpio(&[("kernel/x86/microcode/GenuineIntel.bin", &[7; 1000])]);
        early.resize(early.len().next_multiple_of(512), 0);
        for packed in [main.clone(), gzip(&main), zstd::bulk::compress(&main, 3).unwrap()] {
            let found = look(&*[early.clone(), packed].concat()).unwrap();
            assert_eq!(found, Found { pci: true, nvme: true, ..Found::default() });
        }
    }

    #[test]
    fn built_in_modules_count() {
        let list = b"kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio_mmio.ko\n\
            kernel/drivers/block/virtio_blk.ko\n";
        let ramdisk = gzip(&cpio(&[("lib/modules/6.1.0/modules.builtin", list)]));
        let found = Found { mmio: true, virtio_blk: true, ..Found::default() };
        assert_eq!(look(&*ramdisk).unwrap(), found);
    }

    #[test]
    fn what_is_malformed_ends() {
        let good = cpio(&[("a", b"b")]);
        assert_eq!(look(&*good).unwrap(), Found::default());
        let mut long = good.clone();
        long[94..102].copy_from_slice(b"ffffffff");
        let mut huge = good.clone();
        huge[54..62].copy_from_slice(b"fffffffe");
        let mut word = good.clone();
        word[54..62].copy_from_slice(b"+1234567");
        for bad in
            [&long, &huge, &gzip(&good)[..20].to_vec(), &b"BZh9".to_vec(), &good[..60].to_vec()]
        {
            assert!(look(&**bad).is_err());
        }
        let _ = look(&*word);
    }
}
