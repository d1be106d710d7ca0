//! An initial ramdisk that is looked through for drivers.

use sporevm::inspect::modules;

/// Look.
pub fn drive(data: &[u8]) {
    let _ = modules::look(data);
}

/// A cpio archive ("newc") with these files.
pub fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files.iter().copied().chain([("TRAILER!!!", &b""[..])]) {
        archive.extend(b"070701");
        let fields = [1, 0o100_644, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        for bytes in [&[name.as_bytes(), b"\0"].concat(), content] {
            archive.extend(bytes);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    }
    archive
}

/// Plain, and behind a plain one packed ones.
pub fn seeds() -> Vec<Vec<u8>> {
    use std::io::Write;
    let list = b"kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/virtio/virtio_mmio.ko\n";
    let plain = cpio(&[("kernel/x86/microcode/a.bin", b"code")]);
    let main = cpio(&[("lib/modules/6.1/virtio_mmio.ko.xz", b"x"), ("lib/modules/6.1/modules.builtin", list)]);
    let mut gzip = flate2::write::GzEncoder::new(plain.clone(), flate2::Compression::default());
    gzip.write_all(&main).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(plain.clone(), 1);
    xz.write_all(&main).unwrap();
    let zstd = zstd::encode_all(&main[..], 1).unwrap();
    assert_eq!(modules::look(&[plain.clone(), zstd.clone()].concat()[..]).unwrap(), modules::look(&main[..]).unwrap());
    vec![main, gzip.finish().unwrap(), xz.finish().unwrap(), [plain, zstd].concat()]
}
