//! Disks in archives: tar, OVA, zip.

use crate::{arrives_both_ways, made, refused_both_ways, sample};
use std::fs;

const OVF: &str = "<?xml version='1.0'?><Envelope xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1'>\
    <References><File ovf:href='vm-disk1.vmdk' ovf:id='file1'/></References><DiskSection>\
    <Disk ovf:capacity='1' ovf:diskId='vmdisk1' ovf:fileRef='file1'/></DiskSection></Envelope>";

#[test]
fn the_one_disk_of_an_archive_is_taken() {
    let dir = made(&format!(
        "echo hello > README; tar cf plain.tar README disk.raw; gzip -k plain.tar; xz -k plain.tar; zstd -q plain.tar
         lz4 -q plain.tar plain.tar.lz4; tar cSf sparse.tar --format=gnu disk.raw
         mkdir d; cp disk.raw d/; tar cf below.tar --format=posix ./d
         qemu-img convert -O qcow2 disk.raw box.img; echo '{{}}' > metadata.json; tar czf vagrant.box metadata.json box.img
         tar cf uncompressed.tar box.img
         qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw vm-disk1.vmdk
         echo \"{OVF}\" > vm.ovf; tar cf vm.ova --format=ustar vm.ovf vm-disk1.vmdk
         zip -q -r deflated.zip README d; zip -q -0 stored.zip disk.raw; zip -q ova.zip vm.ova
         gzip -k disk.raw; tar cf packed.tar disk.raw.gz",
    ));
    let disk = sample();
    for file in [
        "plain.tar",
        "plain.tar.gz",
        "plain.tar.xz",
        "plain.tar.zst",
        "plain.tar.lz4",
        "sparse.tar",
        "below.tar",
        "vagrant.box",
        "uncompressed.tar",
        "vm.ova",
        "deflated.zip",
        "stored.zip",
        "packed.tar",
        "ova.zip",
    ] {
        let archive = dir.path().join(file);
        if ["vm.ova", "ova.zip"].contains(&file) && !archive.exists() {
            panic!("{file} was not made");
        }
        arrives_both_ways(dir.path(), file, &disk);
    }
}

/// The archive's end comes before the checksum of what it is packed in.
#[test]
fn a_packed_archive_with_a_wrong_checksum_is_refused() {
    let dir = made(
        "tar cf disk.tar disk.raw
         gzip -k disk.tar; xz -k disk.tar; zstd -q --check disk.tar; lz4 -q disk.tar disk.tar.lz4; bzip2 -k disk.tar",
    );
    // gzip's length comes last, which alone tells nothing of the bytes.
    for (file, from_end) in [("gz", 6), ("xz", 2), ("zst", 2), ("lz4", 2), ("bz2", 3)] {
        let path = dir.path().join(format!("disk.tar.{file}"));
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - from_end;
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        refused_both_ways(&path, &["cannot decompress it"]);
    }
}

#[test]
fn an_archive_without_one_disk_says_what_it_is() {
    let two = OVF.replace(
        "</DiskSection>",
        "<Disk ovf:capacity='1' ovf:diskId='vmdisk2' ovf:fileRef='file1'/></DiskSection>",
    );
    let dir = made(&format!(
        "cp disk.raw other.img; tar cf two.tar disk.raw other.img
         mkdir -p blobs etc usr var rootfs; echo '{{}}' > manifest.json; echo x > blobs/a; echo x > etc/b; echo x > usr/c
         echo x > var/d; echo x > repositories; echo x > metadata.yaml; echo x > rootfs/e
         tar czf docker.tar.gz manifest.json repositories blobs; tar cJf incus.tar.xz metadata.yaml rootfs
         tar cf root.tar etc usr var; tar cf text.tar etc
         echo \"{two}\" > vm.ovf; tar cf two.ova vm.ovf disk.raw; echo \"{OVF}\" > vm.ovf; tar cf lacks.ova vm.ovf
         zip -q text.zip etc/b; zip -q -P secret locked.zip disk.raw; head -c 100000 two.tar > cut.tar",
    ));
    for (file, says) in [
        ("two.tar", "several disks"),
        ("docker.tar.gz", "container"),
        ("incus.tar.xz", "container"),
        ("root.tar", "root file system"),
        ("text.tar", "without a disk"),
        ("two.ova", "several disks"),
        ("lacks.ova", "'vm-disk1.vmdk'"),
        ("text.zip", "without a disk"),
        ("locked.zip", "unpack it first"),
        ("cut.tar", "cut short"),
    ] {
        refused_both_ways(&dir.path().join(file), &[says]);
    }
}

/// GNU tar's and bsdtar's archives of pax's format have a map of the holes, in one of three ways.
#[test]
fn sparse_files_of_pax_archives_are_filled() {
    let dir = made(
        "cp --sparse=always disk.raw holes.raw; truncate -s 4194404 holes.raw
         for version in 0.0 0.1 1.0; do tar cSf $version.tar --format=posix --sparse-version=$version holes.raw; done
         gzip -k 1.0.tar; qemu-img convert -O qcow2 -o preallocation=metadata disk.raw box.img
         tar cSf box.tar --format=posix box.img; head -c 150000 1.0.tar > cut.tar",
    );
    let mut disk = sample();
    disk.resize(disk.len() + 512, 0);
    for file in ["0.0.tar", "0.1.tar", "1.0.tar", "1.0.tar.gz"] {
        arrives_both_ways(dir.path(), file, &disk);
    }
    arrives_both_ways(dir.path(), "box.tar", &sample());
    refused_both_ways(&dir.path().join("cut.tar"), &["cut short"]);
}

/// An OVF's names are XML's and URIs; tar had no magic before POSIX; a name may begin as that of an
/// initial ramdisk.
#[test]
fn disks_are_found_by_odd_names_and_in_old_archives() {
    let ovf = |href: &str| OVF.replace("vm-disk1.vmdk", href);
    let (entity, escaped) = (ovf("a&amp;b.vmdk"), ovf("my%20vm.vmdk"));
    let dir = made(&format!(
        "tar cf old.tar --format=v7 disk.raw; gzip -k old.tar; qemu-img convert -O qcow2 disk.raw initech.qcow2
         tar cf initech.tar initech.qcow2; qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw 'a&b.vmdk'
         cp 'a&b.vmdk' 'my vm.vmdk'; echo \"{entity}\" > vm.ovf; tar cf entity.ova vm.ovf 'a&b.vmdk'
         echo \"{escaped}\" > vm.ovf; tar cf escaped.ova vm.ovf 'my vm.vmdk'"
    ));
    for file in ["old.tar", "old.tar.gz", "initech.tar", "entity.ova", "escaped.ova"] {
        arrives_both_ways(dir.path(), file, &sample());
    }
}

#[test]
fn a_disk_that_an_ovf_has_elsewhere_or_in_pieces_is_told() {
    let (url, chunked) = (
        OVF.replace("vm-disk1", "https://example.org/vm-disk1"),
        OVF.replace("ovf:id='file1'", "ovf:id='file1' ovf:chunkSize='1000'"),
    );
    let dir = made(&format!(
        "echo \"{url}\" > vm.ovf; tar cf url.ova vm.ovf; echo \"{chunked}\" > vm.ovf
         split -d -b 2M disk.raw vm-disk1.vmdk.; tar cf chunked.ova vm.ovf vm-disk1.vmdk.*"
    ));
    refused_both_ways(&dir.path().join("url.ova"), &["download", "https://example.org/"]);
    refused_both_ways(&dir.path().join("chunked.ova"), &["in pieces", "cat"]);
}
