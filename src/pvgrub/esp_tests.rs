//! Disks with an EFI system partition, down to what boots from them.

use super::load::{Loaded, list, load};
use super::menu::Place;
use super::systemd_boot::{compare, configured, menu, unified};
use super::volume::{Bytes, Volume};
use crate::boot::tests::small_elf;
use crate::plan::{PvBoot, PvGrub};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use std::cmp::Ordering;
use std::io::{Cursor, Write};
use std::rc::Rc;

const MIB: usize = 1 << 20;
/// Types of partitions, as on a disk: EFI system, extended boot loader, root.
const ESP: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
const XBOOTLDR: [u8; 16] = *b"\xff\xc2\x13\xbc\xe6\x59\x62\x42\xa3\x52\xb2\x75\xfd\x6f\x71\x72";
const ROOT: [u8; 16] = *b"\xe3\xbc\x68\x4f\xcd\xe8\xb1\x4d\x96\xe7\xfb\xca\xf9\x84\xb7\x09";

/// A FAT file system with these files.
fn fat(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![0; 2 * MIB]);
    fatfs::format_volume(&mut bytes, FormatVolumeOptions::new().volume_id(0xabcd_1234)).unwrap();
    let system = FileSystem::new(&mut bytes, FsOptions::new()).unwrap();
    for (path, content) in files {
        let mut directory = system.root_dir();
        let mut names: Vec<&str> = path.split('/').collect();
        let name = names.pop().unwrap();
        for name in names {
            directory = directory.create_dir(name).unwrap();
        }
        directory.create_file(name).unwrap().write_all(content).unwrap();
    }
    system.unmount().unwrap();
    bytes.into_inner()
}

/// A GUID partition table with partitions of these types, from 1 MiB on.
fn gpt(parts: &[([u8; 16], Vec<u8>)]) -> Vec<u8> {
    let mut disk = vec![0; MIB];
    (disk[450], disk[454], disk[458]) = (0xee, 1, 0xff);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[512..520].copy_from_slice(b"EFI PART");
    (disk[584], disk[592], disk[596]) = (2, 128, 128);
    for (n, (kind, part)) in parts.iter().enumerate() {
        let (first, sectors) = ((disk.len() / 512) as u64, (part.len() / 512) as u64);
        let entry = &mut disk[1024 + n * 128..][..128];
        entry[..16].copy_from_slice(kind);
        entry[16..32].fill(n as u8 + 1);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&(first + sectors - 1).to_le_bytes());
        disk.extend(part);
    }
    disk
}

/// An EFI program with these sections. (PE Format)
fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; 0x40 + 24 + sections.len() * 40];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x44..0x46].copy_from_slice(&0x8664u16.to_le_bytes());
    file[0x46] = sections.len() as u8;
    for (n, (name, content)) in sections.iter().enumerate() {
        // Padded, as linkers do.
        file.resize(file.len().next_multiple_of(512), 0);
        let (at, len) = (file.len() as u32, content.len() as u32);
        let header = &mut file[0x40 + 24 + n * 40..][..40];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[8..12].copy_from_slice(&len.to_le_bytes());
        header[16..20].copy_from_slice(&len.next_multiple_of(512).to_le_bytes());
        header[20..24].copy_from_slice(&at.to_le_bytes());
        file.extend(*content);
    }
    file.resize(file.len().next_multiple_of(512), 0);
    file
}

fn image(release: &str, arguments: &str) -> Vec<u8> {
    program(&[
        (".osrel", release.as_bytes()),
        (".cmdline", arguments.as_bytes()),
        (".ucode", b"micro"),
        (".initrd", b"ramdisk"),
        (".linux", &small_elf()),
    ])
}

fn boot(entry: Option<&str>) -> PvBoot {
    PvBoot {
        from: PvGrub::Any,
        entry: entry.map(str::to_owned),
        append: String::new(),
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        launch_index: 0,
        saved: None,
    }
}

fn volume(disk: &[u8]) -> Volume {
    let disk: Rc<dyn Bytes> = Rc::new(disk.to_vec());
    Volume::open(disk)
}

fn of(disk: &[u8], entry: Option<&str>) -> Result<Loaded, String> {
    load(&volume(disk), &boot(entry))
}

const BOOT: &str = "EFI/BOOT/BOOTX64.EFI";
const SYSTEMD_BOOT: (&str, &[u8]) = (".sdmagic", b"#### LoaderInfo: systemd-boot 252 ####");

#[test]
fn a_unified_kernel_image_that_firmware_starts_boots() {
    let release = "NAME=Small\nPRETTY_NAME=\"Small Linux\"\nID=small\n";
    let disk = gpt(&[
        (ESP, fat(&[(BOOT, &image(release, " root=PARTUUID=x quiet\n\0"))])),
        (ROOT, vec![7; MIB]),
    ]);
    let loaded = of(&disk, None).unwrap();
    assert_eq!(loaded.menu, "/EFI/BOOT/BOOTX64.EFI on partition 1");
    assert_eq!(loaded.entry, ("0".into(), "Small Linux".into()));
    assert_eq!(loaded.kernel, small_elf());
    assert_eq!(loaded.ramdisk.as_deref(), Some(&b"micro\0\0\0ramdisk"[..]));
    assert!(loaded.command_line.starts_with("root=PARTUUID=x quiet "), "{}", loaded.command_line);

    // Where it names no root, the partition of that type is it; on a disk that is not divided, too.
    let alone = fat(&[("efi/boot/bootx64.efi", &image(release, "quiet"))]);
    let disk = gpt(&[(ESP, alone.clone()), (ROOT, vec![7; MIB])]);
    let line = of(&disk, None).unwrap().command_line;
    assert!(line.starts_with("quiet root=/dev/vda2 console=ttyS0"), "{line}");
    assert_eq!(of(&alone, None).unwrap().menu, "/EFI/BOOT/BOOTX64.EFI on the disk");
}

#[test]
fn entries_of_both_types_and_partitions_are_one_menu() {
    let entry = "title Plain\nsort-key b\nversion 1\nlinux /vmlinuz\ninitrd \\one\ninitrd /two\n\
                 options root=LABEL=x\noptions ro\n";
    let files: [(&str, &[u8]); 9] = [
        (BOOT, &program(&[SYSTEMD_BOOT])),
        ("loader/entries/plain.conf", entry.as_bytes()),
        ("loader/entries/arm.conf", b"title Arm\nlinux /vmlinuz\narchitecture aa64\n"),
        ("loader/entries/gone.conf", b"title Gone\nlinux /not-there\n"),
        ("loader/entries/shell.conf", b"title Shell\nsort-key a\nefi /EFI/BOOT/BOOTX64.EFI\n"),
        ("loader/entries/image.conf", b"title Own\nuki /EFI/Linux/b.efi\noptions single\n"),
        ("vmlinuz", &small_elf()),
        ("one", b"one"),
        ("two", b"two"),
    ];
    let more: [(&str, &[u8]); 3] = [
        ("EFI/Linux/b.efi", &image("ID=c\nPRETTY_NAME=C\nVERSION_ID=2\n", "of=b")),
        ("EFI/Linux/c+0-3.efi", &image("ID=0\nPRETTY_NAME=Failed\n", "")),
        ("EFI/Linux/nameless.efi", &image("", "")),
    ];
    let with = |configuration: &str| {
        let mut all = files.to_vec();
        all.push(("loader/loader.conf", configuration.as_bytes()));
        all.push(("EFI/Linux/b.efi", more[0].1));
        gpt(&[(ESP, fat(&all)), (XBOOTLDR, fat(&more))])
    };
    let titles = |disk: &[u8]| -> Vec<(String, bool, bool)> {
        let (path, listed) = list(&volume(disk), &boot(None)).unwrap();
        assert_eq!(path, "/loader/entries on partition 1");
        listed.into_iter().map(|e| (e.id.unwrap(), e.default, e.problem.is_some())).collect()
    };
    let wanted = |default: &str| {
        ["shell.conf", "plain.conf", "b.efi", "b.efi", "image.conf", "c+0-3.efi"]
            .map(|id| (id.to_owned(), id == default, id == "shell.conf"))
            .to_vec()
    };
    // The first is not for us: the next is.
    let disk = with("timeout 3\n");
    assert_eq!(titles(&disk), wanted("plain.conf"));
    let loaded = of(&disk, None).unwrap();
    assert_eq!(loaded.ramdisk.as_deref(), Some(&b"one\0two"[..]));
    assert!(loaded.command_line.starts_with("root=LABEL=x ro console"), "{}", loaded.command_line);
    for (configuration, default) in [
        ("default other\ndefault IMAGE*\n", "image.conf"),
        ("default @saved\n", "plain.conf"),
        ("default nothing-*\n", "plain.conf"),
        ("default c+0*.efi\n", "c+0-3.efi"),
    ] {
        assert_eq!(titles(&with(configuration)), wanted(default), "{configuration}");
    }
    let loaded = of(&disk, Some("image.conf")).unwrap();
    assert!(loaded.command_line.starts_with("single "), "{}", loaded.command_line);
    assert!(of(&disk, Some("shell.conf")).err().unwrap().contains("no kernel in it"));
    assert!(of(&disk, Some("c+0-3.efi")).is_ok(), "on the other partition");
}

/// GRUB's menu counts where GRUB, or nothing that is known, is what firmware starts.
#[test]
fn what_firmware_starts_says_whose_menu_it_is() {
    let cfg = b"menuentry 'By GRUB' { linux /vmlinuz root=/dev/vda1 }\n";
    let entry = b"title By systemd-boot\nlinux /vmlinuz\n";
    for (started, title) in [
        (Some(program(&[SYSTEMD_BOOT])), "By systemd-boot"),
        (Some(program(&[("mods", b"GRUB")])), "By GRUB"),
        (None, "By GRUB"),
        (Some(b"no program".to_vec()), "By GRUB"),
    ] {
        let kernel = small_elf();
        let mut files: Vec<(&str, &[u8])> =
            vec![("vmlinuz", &kernel), ("grub/grub.cfg", cfg), ("loader/entries/a.conf", entry)];
        files.extend(started.as_ref().map(|program| (BOOT, &program[..])));
        assert_eq!(of(&gpt(&[(ESP, fat(&files))]), None).unwrap().entry.1, title);
        // Beside a vendor's loader, which leads elsewhere or is all there is.
        files[1].0 = "EFI/vendor/grub.cfg";
        assert_eq!(of(&gpt(&[(ESP, fat(&files))]), None).unwrap().entry.1, title);
    }
    let kernel = gpt(&[(ESP, fat(&[(BOOT, &program(&[]))]))]);
    let why = of(&kernel, None).err().unwrap();
    assert!(why.contains("no boot menu") && why.contains("BOOTX64.EFI"), "{why}");
}

#[test]
fn each_profile_of_an_image_is_an_entry() {
    let image = program(&[
        (".osrel", b"PRETTY_NAME=\"One\"\nIMAGE_ID=one\nIMAGE_VERSION=7\n"),
        (".cmdline", b"of=all"),
        (".linux", &small_elf()),
        (".profile", b"ID=main\nTITLE=Main\n"),
        (".profile", b"ID=rescue\nTITLE='Try to rescue'\n"),
        (".cmdline", b"of=rescue"),
        (".profile", b""),
        (".cmdline", b"of=none"),
    ]);
    let disk = gpt(&[(ESP, fat(&[("EFI/Linux/one.efi", &image)]))]);
    let (path, listed) = list(&volume(&disk), &boot(None)).unwrap();
    assert_eq!(path, "/EFI/Linux on partition 1");
    let seen: Vec<_> = listed.iter().map(|e| (e.id.as_deref().unwrap(), &e.title[..])).collect();
    let wanted = [
        ("one.efi", "One (Main)"),
        ("one.efi@rescue", "One (Try to rescue)"),
        ("one.efi@2", "One (Profile #3)"),
    ];
    assert_eq!(seen, wanted);
    for (entry, line) in [(None, "of=all "), (Some("1"), "of=rescue "), (Some("2"), "of=none ")] {
        let loaded = of(&disk, entry).unwrap();
        assert!(loaded.command_line.starts_with(line), "{}", loaded.command_line);
        assert_eq!(loaded.ramdisk, None);
    }
}

#[test]
fn a_kernel_that_is_started_as_a_program_has_its_ramdisk() {
    // Its header's magic is at 0x202, where the first section is.
    let kernel = program(&[(".text", b"\0\0HdrS")]);
    let entry = b"efi /vmlinuz\noptions initrd=\\initramfs.img root=LABEL=a\n";
    let files: [(&str, &[u8]); 2] = [("vmlinuz", &kernel), ("loader/entries/a.conf", entry)];
    let said = of(&gpt(&[(ESP, fat(&files))]), None).err().unwrap();
    assert!(said.contains("initial ramdisk /initramfs.img can't be loaded"), "{said}");
}

#[test]
fn entries_have_one_order_however_they_come() {
    // To versions they are the same.
    let names = ["a12.conf", "a1+2.conf", "a+12.conf"];
    let ordered = |order: [usize; 3]| -> Vec<_> {
        let item = |n: usize| configured(names[n], "linux /k\n", &Place::Menu).unwrap();
        let menu = menu(order.map(item).into(), "");
        menu.entries.iter().map(|entry| entry.id.clone()).collect()
    };
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(ordered(order), ordered([0, 1, 2]), "{order:?}");
    }
}

#[test]
fn programs_that_say_the_impossible_are_told() {
    let good = image("NAME=A\n", "quiet");
    let at = |name: &[u8]| good.windows(name.len()).position(|bytes| bytes == name).unwrap();
    for (change, bytes, why) in [
        (0x3c, &[0xff; 4][..], "ends too early"), // the header beyond the end
        (0x40, b"XX", "no EFI program"),
        (0x44, &[0x64, 0xaa], "another architecture"),
        (0x46, &[0xff, 0xff], "too many sections"),
        (0x54, &[0xff, 0xff], "ends too early"), // an optional header beyond the end
        (at(b".linux\0") + 8, &[0; 4], "an empty file"), // nothing in it
        (at(b".linux\0") + 20, &[0xff; 4], "ends too early"), // its bytes beyond the end
        (at(b".initrd\0") + 20, &[0xff; 4], "ends too early"),
        (at(b".linux\0"), b".other\0", "no kernel in it"),
    ] {
        let mut image = good.clone();
        image[change..change + bytes.len()].copy_from_slice(bytes);
        let files: [(&str, &[u8]); 2] =
            [("a.efi", &image), ("loader/entries/a.conf", b"uki /a.efi\n")];
        let said = of(&gpt(&[(ESP, fat(&files))]), None).err().unwrap();
        assert!(said.contains(why), "{why}: {said}");
    }
    let mut large = good.clone();
    let header = at(b".linux\0");
    [8, 16].iter().for_each(|at| large[header + at..header + at + 4].fill(0xff));
    let files: [(&str, &[u8]); 1] = [("EFI/BOOT/BOOTX64.EFI", &large)];
    let said = of(&fat(&files), None).err().unwrap();
    assert!(said.contains("has 4294967295 bytes, more than"), "{said}");
}

/// The menu that Debian's systemd-boot 252 shows of these files under OVMF, and the one that it has
/// for its default.
#[test]
fn entries_are_in_systemd_boots_order() {
    let item = |name: &str, keys: &str| {
        let text = format!("title {name}\nlinux /k\n{}", keys.replace(',', "\n"));
        configured(&format!("{name}.conf"), &text, &Place::Menu).unwrap()
    };
    let image = |name: &str, release: &str| {
        unified((name, "/u.efi".into()), (0, ""), &release.replace(',', "\n"), &Place::Menu)
            .unwrap()
    };
    let items = vec![
        item("old-1", ""),
        item("old-10", "version 1"),
        item("bad+0", "sort-key a"),
        item("b1+2-1", "sort-key b,version 2"),
        item("b1+3", "sort-key b,version 2"),
        item("b2", "sort-key b,version 10~rc1"),
        item("b3", "sort-key b,version 10,machine-id f"),
        item("a", "sort-key a,version 1"),
        item("b4", "sort-key b,version 10"),
        item("b5", "sort-key b,version 9-a"),
        item("b6", "sort-key b,version 9-a.1"),
        item("b7", "sort-key b,version 9.1"),
        image("u-1.efi", "ID=aa,NAME=U,PRETTY_NAME=\"U one\",VERSION_ID=1"),
        image("u-2.efi", "ID=aa,NAME=U,PRETTY_NAME=\"U one\",VERSION_ID=2"),
        image("x+1.efi", "ID=c,PRETTY_NAME=X,IMAGE_VERSION=1,VERSION_ID=1"),
    ];
    let menu = menu(items, "timeout 100\ndefault b*\n");
    let titles: Vec<_> = menu.entries.iter().map(|entry| entry.title.as_str()).collect();
    let shown = [
        "a",
        "U one (2)",
        "U one (1)",
        "b4",
        "b2",
        "b7",
        "b6",
        "b5",
        "b1+3",
        "b1+2-1",
        "b3",
        "X",
        "old-10",
        "old-1",
        "bad+0",
    ];
    assert_eq!(titles, shown);
    assert_eq!(menu.default.as_deref(), Some("3"));
}

#[test]
fn what_is_no_entry_is_left_out() {
    let none = |text| configured("a.conf", text, &Place::Menu).is_none();
    assert!(none("title A\n") && none("linux /a\nefi /b\n") && none("linux /a\narchitecture ia32"));
    let text = "# linux /no\nlinux a\\b\ninitrd /c\noptions initrd=\\d x initrd=e\n";
    let entry = configured("a.conf", text, &Place::Menu).unwrap().entry;
    assert_eq!((entry.kernel.as_deref(), entry.title.as_str()), (Some("/a/b"), "a.conf"));
    assert_eq!(
        (entry.initrds, entry.arguments.as_str()),
        (vec!["/c".into(), "/d".into(), "/e".into()], "x")
    );
}

/// The examples of the Version Format Specification, and some of its rules.
#[test]
fn versions_compare_as_their_specification_says() {
    let rising = ["", "1~rc1", "1", "1^patched", "1.1", "1.2", "10", "122.1", "123~rc1-1", "123"];
    for pair in rising.windows(2) {
        assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
    }
    for (less, more) in [
        ("123", "123-a"),
        ("123-a", "123-a.1"),
        ("123-a.1", "123-a1"),
        ("123-a1", "123-3"),
        ("123-3", "123-3.1"),
        ("123-3.1", "123^patched"),
        ("123^patched", "123.1"),
        ("123.1", "124-1"),
        ("6.1.0-9", "6.1.0-18"),
        ("a", "1"),
        ("A", "a"),
    ] {
        assert_eq!(compare(less, more), Ordering::Less, "{less} {more}");
    }
    for (one, other) in [("007", "7"), ("1_2", "12"), ("a b", "ab"), ("", "")] {
        assert_eq!(compare(one, other), Ordering::Equal, "{one} {other}");
    }
}
