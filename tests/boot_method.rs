//! `spore image register --dry-run`: what is proposed for disks as people have them.

mod common;

use common::Store;
use common::programs::administrators;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A raw disk with an ext4 at `start`, in which are `files`.
fn disk(dir: &Path, start: u64, files: &[(&str, &str)]) -> PathBuf {
    let tree = dir.join("tree");
    for (path, text) in files {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::create_dir_all(&tree).unwrap();
    let image = dir.join("disk.img");
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let made = administrators("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-E", &format!("offset={start}"), "-d"])
        .args([&tree, &image])
        .arg(format!("{}k", (16 << 10) - start / 1024))
        .status()
        .unwrap();
    assert!(made.success());
    image
}

/// A master boot record with one partition, from 1 MiB on, and with this code.
fn partition(image: &Path, code: &[u8]) {
    use std::os::unix::fs::FileExt;
    let mut sector = [0; 512];
    sector[..code.len()].copy_from_slice(code);
    (sector[446], sector[450]) = (0x80, 0x83);
    sector[454..458].copy_from_slice(&2048u32.to_le_bytes());
    sector[458..462].copy_from_slice(&(30u32 << 10).to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    std::fs::File::options().write(true).open(image).unwrap().write_all_at(&sector, 0).unwrap();
}

const MENU: &str = "default 0\ntitle Debian\nroot (hd0)\nkernel /boot/vmlinuz root=/dev/xvda1 ro\n";

fn proposed(store: &Store, image: &Path) -> Value {
    let disk = image.to_str().unwrap();
    serde_json::from_str(&store.ok(&[
        "image",
        "register",
        "new",
        "--disk",
        disk,
        "--dry-run",
        "-o",
        "json",
    ]))
    .unwrap()
}

#[test]
fn a_disk_says_how_it_boots_and_why() {
    let store = Store::new();
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), 0, &[("boot/grub/menu.lst", MENU), ("boot/vmlinuz", "")]);
    let proposal = proposed(&store, &image);
    assert_eq!(proposal["VirtualizationType"], "paravirtual", "{proposal}");
    assert_eq!(proposal["KernelId"], "aki-pv-grub-hd0");
    let reasons = proposal["Reasons"].to_string();
    assert!(reasons.contains("/boot/grub/menu.lst") && reasons.contains("Debian"), "{reasons}");

    let dir = tempfile::tempdir().unwrap();
    // Where a disk has partitions, its own beginning is no file system: such a menu's root is one
    // of them.
    let menu = MENU.replace("(hd0)", "(hd0,0)");
    let image = disk(dir.path(), 1 << 20, &[("boot/grub/menu.lst", &menu), ("boot/vmlinuz", "")]);
    partition(&image, b"");
    assert_eq!(proposed(&store, &image)["KernelId"], "aki-pv-grub-hd00");
    partition(&image, b"\xeb\x63GRUB");
    let proposal = proposed(&store, &image);
    assert_eq!(proposal["VirtualizationType"], "hvm", "{proposal}");
    assert!(proposal["Reasons"].to_string().contains("master boot record"), "{proposal}");
    assert_eq!(proposal["Alternatives"][0], "--kernel aki-pv-grub-hd00");
    let images: Value = serde_json::from_str(&store.ok(&["image", "ls", "-o", "json"])).unwrap();
    assert!(!images.to_string().contains("\"new\""), "nothing was registered");
}

#[test]
fn what_firmware_will_not_boot_is_registered_with_a_warning() {
    let store = Store::new();
    let dir = tempfile::tempdir().unwrap();
    let image = disk(dir.path(), 0, &[("boot/grub/menu.lst", MENU), ("boot/vmlinuz", "")]);
    let output = store.spore(&["image", "register", "new", "--disk", image.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    assert!(error.contains("warning") && error.contains("aki-pv-grub-hd0"), "{error}");
}
