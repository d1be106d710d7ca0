//! Images that boot by UEFI, without firmware.

use super::linux::{Lab, efi, images};

/// Debian behind an EFI system partition, of which the kernel boots in a unified image and by an
/// entry of systemd-boot's. `kernel` is one that boots here without an initial ramdisk.
pub fn an_image_and_an_entry_boot(lab: &Lab, kernel: &str) {
    let given = std::fs::read(images().join(kernel)).unwrap();
    let image = efi::program(&[
        (".osrel", b"PRETTY_NAME='Debian, unified'\nID=debian\nVERSION_ID=2\n"),
        (".cmdline", b"rw of=image\0"),
        (".linux", &given),
    ]);
    let entry =
        b"title Debian, by its entry\nsort-key x\nlinux /debian/linux\noptions rw of=entry\n";
    let (partition, disk) = (lab.home().join("esp"), lab.home().join("esp-lab.img"));
    let mib = ((2 * given.len() as u64) >> 20) + 36;
    efi::system(
        &partition,
        mib,
        &[
            ("EFI/Linux/debian.efi", &image),
            ("debian/linux", &given),
            ("loader/entries/entry.conf", entry),
        ],
    );
    let root = images().join("debian.img");
    let root_mib = std::fs::metadata(&root).unwrap().len().div_ceil(1 << 20);
    let offsets = efi::divided(&disk, &[(efi::ESP, mib), (efi::ROOT, root_mib)]);
    efi::put(&disk, offsets[0], &partition);
    efi::put(&disk, offsets[1], &root);
    lab.ok(&["image", "import", disk.to_str().unwrap(), "--name", "esp-lab"]);
    [partition, disk].iter().for_each(|path| std::fs::remove_file(path).unwrap());

    let more = ["-c", "1", "-m", "512M", "--kernel", "aki-pv-grub-hd00"];
    let id = lab.launch_of("esp-lab", 1, &more).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    // The root is the partition of that type: the command line names none.
    let line = shell.sh("cat /proc/cmdline");
    assert!(line.contains("of=image") && line.contains("root=/dev/vda2"), "{line}");
    assert_eq!(shell.sh("test -d /sys/firmware/efi || echo none"), "none");
    shell.log_out();
    lab.ok(&["stop", &id]);
    lab.ok(&["start", &id, "--boot-entry", "entry.conf"]);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    assert!(shell.sh("cat /proc/cmdline").contains("of=entry"));
    lab.ok(&["terminate", &id]);
}
