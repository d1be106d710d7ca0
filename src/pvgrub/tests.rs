//! Whole disks, made by mke2fs from trees, down to what boots from them.

use super::load::{Loaded, list, load};
use super::volume::{Bytes, Volume};
use crate::boot::tests::small_elf;
use crate::plan::{PvBoot, PvGrub};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

const MIB: usize = 1 << 20;

/// The UUIDs of [`ext4`]'s file systems begin so.
const UUID: &str = "00000000-0000-4000-8000-00000000000";

/// An ext4 file system of 8 MiB with what `fill` puts into a directory; `number` is its UUID's last
/// digit.
fn ext4(number: u8, fill: impl Fn(&Path)) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (tree, image) = (dir.path().join("tree"), dir.path().join("image"));
    std::fs::create_dir(&tree).unwrap();
    fill(&tree);
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "1024", "-L", "root", "-U"])
        .arg(format!("{UUID}{number}"))
        .arg("-d")
        .args([&tree, &image])
        .arg("8M")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(&image).unwrap()
}

/// [`ext4`] with these files.
fn with(number: u8, files: &[(&str, &[u8])]) -> Vec<u8> {
    ext4(number, |tree| {
        for (path, content) in files {
            put(tree, path, content);
        }
    })
}

fn put(tree: &Path, path: &str, content: &[u8]) {
    let path = tree.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// A disk with these partitions, from 1 MiB on, by a master boot record.
fn mbr(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut disk = vec![0; MIB];
    for (n, part) in parts.iter().enumerate() {
        let (first, sectors) = ((disk.len() / 512) as u32, (part.len() / 512) as u32);
        let entry = &mut disk[446 + n * 16..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        disk.extend(part);
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// The same by a GUID partition table, with `skip` numbers left out first.
fn gpt(parts: &[Vec<u8>], skip: usize) -> Vec<u8> {
    let mut disk = vec![0; MIB];
    disk[446 + 4] = 0xee;
    disk[446 + 8] = 1;
    disk[446 + 12] = 0xff;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[512 + 72] = 2;
    disk[512 + 80] = 128;
    disk[512 + 84] = 128;
    for (n, part) in parts.iter().enumerate() {
        let (first, sectors) = ((disk.len() / 512) as u64, (part.len() / 512) as u64);
        let entry = &mut disk[1024 + (n + skip) * 128..][..128];
        entry[..32].fill(n as u8 + 1);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&(first + sectors - 1).to_le_bytes());
        disk.extend(part);
    }
    disk
}

fn boot(from: PvGrub) -> PvBoot {
    PvBoot {
        from,
        entry: None,
        append: "extra".into(),
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        launch_index: 0,
        saved: None,
    }
}

fn of(disk: &[u8], boot: &PvBoot) -> Result<Loaded, String> {
    let disk: Rc<dyn Bytes> = Rc::new(disk.to_vec());
    load(&Volume::open(disk), boot)
}

/// What is always behind a menu's own arguments.
const TAIL: &str = "panic=-1 spore.instance=i-0123456789abcdef0 spore.index=0 extra";

const MENU: &[u8] = b"default 0\ntitle Linux\nroot (hd0,0)\n\
    kernel /boot/vmlinuz root=/dev/xvda1 ro console=hvc0\ninitrd /boot/initrd\n";

fn plain() -> Vec<u8> {
    let files: [(&str, &[u8]); 3] = [
        ("/boot/grub/menu.lst", MENU),
        ("/boot/vmlinuz", &small_elf()),
        ("/boot/initrd", b"ramdisk"),
    ];
    with(1, &files)
}

#[test]
fn a_menu_on_an_undivided_disk_boots() {
    let loaded = of(&plain(), &boot(PvGrub::Hd0)).unwrap();
    assert!(loaded.kernel == small_elf());
    assert_eq!(loaded.ramdisk.as_deref(), Some(&b"ramdisk"[..]));
    assert_eq!(loaded.command_line, format!("root=UUID={UUID}1 ro console=ttyS0 {TAIL}"));
    assert_eq!(loaded.entry, ("0".into(), "Linux".into()));
    assert_eq!(loaded.menu, "/boot/grub/menu.lst on the disk");
}

#[test]
fn the_same_boots_from_the_first_partition_of_either_table() {
    for disk in [mbr(&[plain()]), gpt(&[plain()], 0)] {
        let loaded = of(&disk, &boot(PvGrub::Hd00)).unwrap();
        assert_eq!(loaded.command_line, format!("root=UUID={UUID}1 ro console=ttyS0 {TAIL}"));
        assert_eq!(loaded.menu, "/boot/grub/menu.lst on partition 1");
    }
}

#[test]
fn the_wrong_one_of_the_two_kernels_is_named_with_the_right_one() {
    let why = of(&plain(), &boot(PvGrub::Hd00)).err().unwrap();
    assert!(why.contains("no partitions") && why.contains("aki-pv-grub-hd0 "), "{why}");
    let why = of(&mbr(&[plain()]), &boot(PvGrub::Hd0)).err().unwrap();
    assert!(why.contains("has partitions; aki-pv-grub-hd00"), "{why}");
    for disk in [plain(), mbr(&[plain()])] {
        assert!(of(&disk, &boot(PvGrub::Any)).is_ok());
    }
}

#[test]
fn a_boot_partition_of_its_own_is_not_the_root() {
    let menu = b"title Linux\nroot (hd0,0)\nkernel /vmlinuz root=/dev/sda2 ro\ninitrd /initrd\n";
    let own = with(
        1,
        &[("/grub/menu.lst", &menu[..]), ("/vmlinuz", &small_elf()), ("/initrd", b"ramdisk")],
    );
    let root = with(2, &[("/etc/fstab", b"")]);
    let loaded = of(&mbr(&[own, root]), &boot(PvGrub::Hd00)).unwrap();
    assert_eq!(loaded.command_line, format!("root=UUID={UUID}2 ro console=ttyS0 {TAIL}"));
}

#[test]
fn without_a_ramdisk_the_root_is_a_device() {
    let menu = b"title Linux\nkernel /boot/vmlinuz root=LABEL=root\n\
        title by UUID\nkernel /boot/vmlinuz root=UUID=00000000-0000-4000-8000-000000000001 console=ttyS0,115200\n\
        title none\nkernel /boot/vmlinuz quiet -- single\n";
    let system = with(1, &[("/boot/grub/menu.lst", &menu[..]), ("/boot/vmlinuz", &small_elf())]);
    let line = |entry: &str| {
        let boot = PvBoot { entry: Some(entry.into()), ..boot(PvGrub::Hd00) };
        of(&mbr(&[with(2, &[]), system.clone()]), &boot).unwrap().command_line
    };
    assert!(line("0").starts_with("root=LABEL=root console=ttyS0 rw"), "{}", line("0"));
    assert!(line("by UUID").starts_with("root=/dev/vda2 console=ttyS0,115200 rw"), "{}", line("1"));
    assert!(line("2").starts_with("quiet root=/dev/vda2 console=ttyS0 rw"), "{}", line("2"));
    assert!(line("2").ends_with("extra -- single"), "{}", line("2"));
}

#[test]
fn grub_cfg_is_read_where_there_is_no_menu_lst() {
    let script = format!(
        "set default=1\nmenuentry a {{\nlinux /vmlinuz\n}}\nmenuentry b {{\nset root=hd0,gpt9\n\
         search --no-floppy --fs-uuid --set=root {UUID}2\nlinux /boot/vmlinuz root=UUID={UUID}2 ro\n\
         initrd /boot/a /boot/b\n}}\n"
    );
    let other = with(1, &[("/grub/x", b"")]);
    let root = with(
        2,
        &[
            ("/boot/grub/grub.cfg", script.as_bytes()),
            ("/boot/vmlinuz", &small_elf()),
            ("/boot/a", b"12345"),
            ("/boot/b", b"6"),
        ],
    );
    let loaded = of(&gpt(&[other, root], 13), &boot(PvGrub::Hd00)).unwrap();
    assert_eq!(loaded.menu, "/boot/grub/grub.cfg on partition 15");
    assert_eq!(loaded.ramdisk.as_deref(), Some(&b"12345\0\0\x006"[..]));
    assert!(loaded.command_line.starts_with(&format!("root=UUID={UUID}2 ro console=ttyS0")));
}

const OLDER: &[u8] =
    b"title Fedora\nversion 6.8\nlinux /boot/vmlinuz-6.8\noptions root=/dev/vda ro\n";
const NEWER: &[u8] =
    b"title Fedora\nversion 6.9\nlinux /boot/vmlinuz-6.9\noptions root=/dev/vda ro $kernelopts\n";

#[test]
fn grub_cfg_is_executed_where_entries_are_beside_it() {
    let script = b"load_env\nset default=${saved_entry}\nset kernelopts=quiet\n\
        menuentry own {\nlinux /boot/gone\n}\ninsmod blscfg\nblscfg\n";
    let saved = |id: &str| format!("# GRUB Environment Block\nsaved_entry={id}\n####");
    let disk = |id: &str| {
        with(
            1,
            &[
                ("/boot/loader/entries/x-6.9.conf", NEWER),
                ("/boot/loader/entries/x-6.10.conf", OLDER),
                ("/boot/grub2/grub.cfg", script),
                ("/boot/grub2/grubenv", saved(id).as_bytes()),
                ("/boot/vmlinuz-6.8", &small_elf()),
                ("/boot/vmlinuz-6.9", &small_elf()),
            ],
        )
    };
    let loaded = of(&disk("x-6.9"), &boot(PvGrub::Hd0)).unwrap();
    assert_eq!(loaded.menu, "/boot/grub2/grub.cfg on the disk");
    assert_eq!(loaded.entry, ("2".into(), "Fedora".into()));
    assert!(loaded.command_line.starts_with("root=/dev/vda ro quiet "), "{}", loaded.command_line);
    let entries = list(&Volume::open(Rc::new(disk("x-6.10"))), &boot(PvGrub::Hd0)).unwrap().1;
    assert_eq!(entries[0].problem.as_deref(), Some("/boot/gone is not there"));
    assert!(entries[1].default && !entries[2].default);
    assert_eq!(entries[1].id.as_deref(), Some("x-6.10"));
}

#[test]
fn entries_alone_are_a_menu() {
    let disk = with(
        1,
        &[
            ("/boot/loader/entries/x-6.9.conf", NEWER),
            ("/boot/loader/entries/x-6.8.conf", OLDER),
            ("/boot/grub2/grubenv", b"# GRUB Environment Block\nsaved_entry=x-6.8\n####"),
            ("/boot/vmlinuz-6.8", &small_elf()),
        ],
    );
    let loaded = of(&disk, &boot(PvGrub::Hd0)).unwrap();
    assert_eq!(loaded.entry, ("1".into(), "Fedora (6.8)".into()));
    let entries = list(&Volume::open(Rc::new(disk)), &boot(PvGrub::Hd0)).unwrap().1;
    assert_eq!(entries[0].problem.as_deref(), Some("/boot/vmlinuz-6.9 is not there"));
    assert!(entries[1].default && !entries[0].default);
}

/// What a distribution's upgrade left behind, a directory, and a link to itself are no menus.
#[test]
fn a_menu_of_which_nothing_can_be_loaded_hides_no_other() {
    let script =
        b"menuentry 'GRUB 2' {\nlinux /boot/vmlinuz root=/dev/nvme0n1p1\ninitrd /boot/initrd\n}\n";
    let whole = b"default 0\ntitle old\nroot (hd0)\nkernel /boot/vmlinuz\ntitle older\nroot (hd0)\nkernel /boot/vmlinuz\n";
    let gone = b"title old\nroot (hd0,0)\nkernel /boot/vmlinuz-2.6.18\n";
    let unready = b"title old\nkernel /boot/vmlinuz\ninitrd /boot/initrd-2.6.18\n";
    let good: [(&str, &[u8]); 3] = [
        ("/boot/grub/grub.cfg", script),
        ("/boot/vmlinuz", &small_elf()),
        ("/boot/initrd", b"ramdisk"),
    ];
    type Left<'a> = &'a dyn Fn(&Path);
    let menu = |text: &'static [u8]| move |tree: &Path| put(tree, "/boot/grub/menu.lst", text);
    let (whole, gone, unready) = (menu(whole), menu(gone), menu(unready));
    let directory = |tree: &Path| put(tree, "/boot/grub/menu.lst/x", b"");
    let circle = |tree: &Path| {
        std::os::unix::fs::symlink("grub.conf", tree.join("boot/grub/menu.lst")).unwrap();
        std::os::unix::fs::symlink("menu.lst", tree.join("boot/grub/grub.conf")).unwrap();
    };
    let left: [Left<'_>; 5] = [&whole, &gone, &unready, &directory, &circle];
    for (n, left) in left.into_iter().enumerate() {
        let disk = mbr(&[ext4(1, |tree| {
            good.iter().for_each(|(path, content)| put(tree, path, content));
            left(tree);
        })]);
        let loaded = of(&disk, &boot(PvGrub::Hd00)).unwrap();
        assert_eq!(loaded.entry.1, "GRUB 2", "{n}");
        assert!(loaded.command_line.starts_with(&format!("root=UUID={UUID}1 ")), "{n}");
        let disk: Rc<dyn Bytes> = Rc::new(disk);
        let found = super::detect::detect(&disk);
        assert_eq!((found.default_entry.as_deref(), found.no_menu), (Some("GRUB 2"), None), "{n}");
    }
}

/// Where the default can't be loaded and a fallback can, that is what is proposed.
#[test]
fn the_first_entry_that_can_be_loaded_is_proposed() {
    let menu =
        b"default 0\nfallback 1\ntitle gone\nkernel /boot/gone\ntitle good\nkernel /boot/vmlinuz\n";
    let disk = with(1, &[("/boot/grub/menu.lst", menu), ("/boot/vmlinuz", &small_elf())]);
    let disk: Rc<dyn Bytes> = Rc::new(disk);
    assert_eq!(super::detect::detect(&disk).default_entry.as_deref(), Some("good"));
    let disk: Rc<dyn Bytes> = Rc::new(with(1, &[("/boot/grub/menu.lst", menu)]));
    let found = super::detect::detect(&disk);
    assert_eq!(found.default_entry, None);
    assert_eq!(
        found.no_menu.as_deref(),
        Some("/boot/gone is not there; /boot/vmlinuz is not there")
    );
}

#[test]
fn a_fallback_boots_when_the_default_can_not_and_all_reasons_are_told() {
    let mut arm = vec![0; 4096];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let menu = b"default 0\nfallback 1 2 3\n\
        title gone\nkernel /boot/gone\ntitle arm\nkernel /boot/arm\n\
        title elsewhere\nroot (hd1,0)\nkernel /boot/vmlinuz\n\
        title good\nkernel /boot/vmlinuz\n";
    let files: [(&str, &[u8]); 3] =
        [("/boot/grub/menu.lst", menu), ("/boot/arm", &arm), ("/boot/vmlinuz", &small_elf())];
    let disk = with(1, &files);
    let loaded = of(&disk, &boot(PvGrub::Hd0)).unwrap();
    assert_eq!(loaded.entry.1, "good");
    let skipped = loaded.skipped.join("\n");
    for why in ["no such file", "aarch64", "not the root volume"] {
        assert!(skipped.contains(why), "{skipped}");
    }
    let one = PvBoot { entry: Some("arm".into()), ..boot(PvGrub::Hd0) };
    assert!(of(&disk, &one).err().unwrap().contains("aarch64"));
    let none = PvBoot { entry: Some("x".into()), ..boot(PvGrub::Hd0) };
    assert!(of(&disk, &none).err().unwrap().contains("no entry 'x'; it has 0 'gone'"));
}

#[test]
fn what_was_looked_for_is_listed() {
    let why = of(&with(1, &[]), &boot(PvGrub::Hd0)).err().unwrap();
    for name in ["menu.lst", "loader/entries".trim_end_matches("/entries"), "grub.cfg", "the disk"]
    {
        assert!(why.contains(name), "{why}");
    }
    let why = of(&vec![0; MIB], &boot(PvGrub::Hd0)).err().unwrap();
    assert!(why.contains("no ext2, ext3, ext4 or FAT file system"), "{why}");
}

/// What a disk has instead is named, and so are the features that keep a file system from being
/// read.
#[test]
fn what_cant_be_read_is_named_with_what_would_boot_it() {
    let mut xfs = vec![0; MIB];
    xfs[..4].copy_from_slice(b"XFSB");
    let mut luks = vec![0; MIB];
    luks[..6].copy_from_slice(b"LUKS\xba\xbe");
    let mut compressed = plain();
    compressed[1024 + 0x60] |= 1;
    let mut unknown = plain();
    unknown[1024 + 0x63] |= 0x80;
    for (part, what) in [
        (xfs, "xfs"),
        (luks, "LUKS"),
        (vec![0; MIB], "blank"),
        (compressed, "features that are not read: compression"),
        (unknown, "unknown ones (0x80000000)"),
    ] {
        for disk in [part.clone(), mbr(&[part])] {
            let why = of(&disk, &boot(PvGrub::Any)).err().unwrap();
            assert!(why.contains(what) && why.contains("--kernel FILE"), "{what}: {why}");
            let disk: Rc<dyn Bytes> = Rc::new(disk);
            let reported = super::detect::detect(&disk).file_systems.join("\n");
            assert!(reported.contains(what), "{reported}");
        }
    }
}

/// A disk that was one file system keeps its superblock when it is divided; a file system's boot
/// sector may look divided.
#[test]
fn a_table_counts_for_more_than_what_is_left_of_an_older_use() {
    let mut divided = mbr(&[plain()]);
    let old = with(7, &[("/boot/grub/menu.lst", b"title old\nkernel /old\n")]);
    divided[1024..MIB].copy_from_slice(&old[1024..MIB]);
    let loaded = of(&divided, &boot(PvGrub::Any)).unwrap();
    assert_eq!(loaded.menu, "/boot/grub/menu.lst on partition 1");
    let mut booted = plain();
    booted[..512].copy_from_slice(&mbr(&[vec![0; MIB]])[..512]);
    assert_eq!(of(&booted, &boot(PvGrub::Any)).unwrap().menu, "/boot/grub/menu.lst on the disk");
}

#[test]
fn what_is_too_large_is_not_read() {
    let disk = ext4(1, |tree| {
        put(tree, "/boot/grub/menu.lst", b"title huge\nkernel /boot/huge\n");
        std::fs::File::create(tree.join("boot/huge")).unwrap().set_len(1 << 40).unwrap();
    });
    let why = of(&disk, &boot(PvGrub::Hd0)).err().unwrap();
    assert!(why.contains("it has 1099511627776 bytes"), "{why}");
    let disk = ext4(1, |tree| {
        put(tree, "/boot/grub/menu.lst", b"");
        let menu = std::fs::File::create(tree.join("boot/grub/menu.lst")).unwrap();
        menu.set_len(100 << 20).unwrap();
    });
    let why = of(&disk, &boot(PvGrub::Hd0)).err().unwrap();
    assert!(why.contains("/boot/grub/menu.lst") && why.contains("104857600 bytes"), "{why}");
}

#[test]
fn links_that_lead_in_a_circle_end() {
    let disk = ext4(1, |tree| {
        std::fs::create_dir_all(tree.join("boot/grub")).unwrap();
        std::os::unix::fs::symlink("menu.lst", tree.join("boot/grub/menu.lst")).unwrap();
    });
    let why = of(&disk, &boot(PvGrub::Hd0)).err().unwrap();
    assert!(why.contains("/boot/grub/menu.lst on the disk can't be read"), "{why}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Superblock, group descriptors, inodes, directories, the journal: whatever is wrong with
    /// them.
    #[test]
    fn a_broken_file_system_boots_or_says_why(
        flips in proptest::collection::vec((0usize..1 << 20, proptest::prelude::any::<u8>()), 1..40)
    ) {
        static DISK: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(plain);
        let mut disk = DISK.clone();
        for (at, byte) in flips {
            // Mostly where the metadata is.
            disk[at >> (byte % 8)] = byte;
        }
        if let Err(why) = of(&disk, &boot(PvGrub::Hd0)) {
            proptest::prop_assert!(!why.is_empty());
        }
    }
}
