//! What boots by a menu, judged by GRUB itself: the same disks, with stand-in kernels, under QEMU
//! and by `pvgrub`.

mod common;
mod grub_judge {
    pub mod bls_menus;
    pub mod extlinux;
    pub mod legacy;
    pub mod legacy_menus;
    pub mod menus;
    pub mod qemu;
}
use grub_judge::menus::{CASES, Case, Table};
use grub_judge::qemu::{self, Booted, Judge};
use grub_judge::{bls_menus, extlinux, legacy, legacy_menus};
use sporevm::plan::{PvBoot, PvGrub};
use sporevm::pvgrub::{load, volume::Volume};
use std::path::Path;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROOT: &str = "11111111-1111-4111-8111-111111111111";
const DATA: &str = "22222222-2222-4222-8222-222222222222";

/// Who judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loader {
    /// Debian's GRUB 2.
    Grub,
    Legacy,
    /// A GRUB 2.14, which has `blscfg`.
    Newer,
    Syslinux,
}

impl Loader {
    /// Where it looks for its menu, and what that begins with.
    fn menu(self) -> (&'static str, &'static str) {
        match self {
            Self::Grub | Self::Newer => ("/boot/grub/grub.cfg", qemu::BEFORE),
            Self::Legacy => ("/boot/grub/menu.lst", legacy::BEFORE),
            Self::Syslinux => (extlinux::PATH, extlinux::BEFORE),
        }
    }
}

/// What is on the first file system of a case.
fn files(judge: &Judge, loader: Loader, case: &Case) -> Vec<(&'static str, Vec<u8>)> {
    let (path, before) = loader.menu();
    let menu = format!("{before}{}", case.menu);
    let mut files = vec![(path, menu.into_bytes())];
    for (path, name) in [("/boot/k1", "k1"), ("/boot/k2", "k2"), ("/boot/k3", "k3")] {
        files.push((path, judge.kernel(name)));
    }
    files.extend([("/boot/i1", b"<i1>".to_vec()), ("/boot/i2", b"<i2>".to_vec())]);
    if loader == Loader::Syslinux {
        files.push(("/boot/linux.bin", judge.kernel("k2")));
    }
    for (path, content) in case.files {
        // Environment blocks have 1024 bytes. (GRUB 2 manual, "Environment block")
        let block =
            ["/grubenv", "photon.cfg", "systemd.cfg", "/env"].iter().any(|end| path.ends_with(end));
        let content = match block {
            true => {
                let text = format!("# GRUB Environment Block\n{content}");
                format!("{text}{}", "#".repeat(1024 - text.len())).into_bytes()
            }
            false => content.as_bytes().to_vec(),
        };
        files.push((path, content));
    }
    files
}

/// The disk of a case, and where GRUB's configuration is.
fn disk(judge: &Judge, loader: Loader, case: &Case) -> (Vec<u8>, &'static str) {
    let files = files(judge, loader, case);
    let system = |name: &str, uuid: &str, files: &[(&str, Vec<u8>)]| {
        let image = format!("{loader:?}-{}-{name}", case.name);
        match loader {
            Loader::Legacy => judge.ext2(&image, uuid, name, files),
            Loader::Grub | Loader::Newer | Loader::Syslinux => {
                judge.ext4(&image, uuid, name, files)
            }
        }
    };
    let root = system("root", ROOT, &files);
    let data =
        [("/k5", judge.kernel("k5")), ("/boot/i4", b"<i4>".to_vec()), ("/marker", b"x".to_vec())];
    let data = system("data", DATA, &data);
    match case.table {
        Table::Mbr => (qemu::mbr(&[root, data]), "(hd0,msdos1)/boot/grub"),
        Table::Gpt => (qemu::gpt(&[root, data]), "(hd0,gpt1)/boot/grub"),
        Table::None => (root, "(hd0)/boot/grub"),
    }
}

/// What Spore boots, short of what it does to every command line on purpose: it adds no
/// BOOT_IMAGE=, but a root and a console where there is none, and what follows `panic=-1`.
fn spores(disk: Vec<u8>) -> Result<Booted, String> {
    let boot = PvBoot {
        from: PvGrub::Any,
        entry: None,
        append: String::new(),
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        launch_index: 0,
        saved: None,
    };
    let loaded = load::load(&Volume::open(Rc::new(disk)), &boot)?;
    let line = &loaded.command_line;
    let added = line.find(" root=").or_else(|| line.starts_with("root=").then_some(0)).unwrap();
    let name = &loaded.kernel[1024 + 0x7800..];
    let name = name.split(|byte| *byte == 0).next().unwrap();
    let ramdisk: Vec<u8> = loaded.ramdisk.unwrap_or_default();
    let ramdisk = ramdisk.into_iter().filter(|byte| *byte != 0).collect();
    Ok(Booted {
        kernel: String::from_utf8(name.to_vec()).unwrap(),
        line: line[..added].to_owned(),
        ramdisk: String::from_utf8(ramdisk).unwrap(),
    })
}

/// What GRUB boots, without the BOOT_IMAGE= that it puts in front. Words are one space apart, as
/// Spore writes them.
fn grubs(booted: Booted) -> Booted {
    let line = match booted.line.split_once(' ') {
        Some((image, rest)) if image.starts_with("BOOT_IMAGE=") => rest.to_owned(),
        _ if booted.line.starts_with("BOOT_IMAGE=") => String::new(),
        _ => booted.line,
    };
    Booted { line: words(&line), ..booted }
}

/// What SYSLINUX boots, without the names of its ramdisk, and like Spore's up to the root.
fn syslinuxes(booted: Booted) -> Booted {
    let words = booted.line.split(' ').take_while(|word| !word.starts_with("root="));
    let kept: Vec<&str> = words.filter(|word| !word.starts_with("initrd=")).collect();
    Booted { line: kept.join(" "), ..booted }
}

/// A command line with one space between its words; what is quoted stays as it is.
fn words(line: &str) -> String {
    let mut quoted = false;
    let apart = |c: char| {
        quoted ^= c == '"';
        !quoted && c == ' '
    };
    line.split(apart).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Compare one; what differs.
fn judged(judge: &Judge, loader: Loader, case: &Case) -> Result<(), String> {
    let (disk, prefix) = disk(judge, loader, case);
    let ours = spores(disk.clone());
    let name = format!("{loader:?}-{}", case.name);
    let theirs = match loader {
        Loader::Grub => judge.boot(Path::new(qemu::SYSTEMS), &name, &disk, prefix).map(grubs),
        Loader::Newer => judge.boot(&legacy::fetched("2.14"), &name, &disk, prefix).map(grubs),
        Loader::Legacy => legacy::boot(judge, &name, &disk).map(grubs),
        Loader::Syslinux => {
            extlinux::boot(judge, &name, &files(judge, loader, case)).map(grubs).map(syslinuxes)
        }
    };
    let same = match (&ours, &theirs, case.differs) {
        (Ok(ours), _, Some((kernel, ramdisk, _))) => {
            ours.kernel == kernel && ours.ramdisk == ramdisk && theirs.as_ref() != Some(ours)
        }
        (Ok(ours), Some(theirs), None) => ours == theirs,
        (Err(_), None, None) => true,
        _ => false,
    };
    if same { Ok(()) } else { Err(format!("{}: GRUB {theirs:?}\n    Spore {ours:?}", case.name)) }
}

/// Compare all of them, two at a time.
fn all_boot_the_same(loader: Loader, cases: &[Case]) {
    let judge = Judge::new();
    let only = std::env::var("SPORE_MENU").ok();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if only.as_ref().is_none_or(|only| case.name.contains(&**only)) {
                        wrong.lock().unwrap().extend(judged(&judge, loader, case).err());
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn menus_boot_what_grub_boots() {
    if let Some(what) = qemu::missing() {
        return common::skip::skip(format!("{what} is missing"));
    }
    assert!(CASES.len() >= 40);
    all_boot_the_same(Loader::Grub, CASES);
}

#[test]
fn legacy_menus_boot_what_grub_legacy_boots() {
    if let Some(what) = qemu::missing() {
        return common::skip::skip(format!("{what} is missing"));
    }
    if let Some(why) = legacy::missing() {
        return common::skip::skip_anywhere(why);
    }
    assert!(legacy_menus::CASES.len() >= 60);
    all_boot_the_same(Loader::Legacy, legacy_menus::CASES);
}

#[test]
fn configurations_of_syslinux_boot_what_it_boots() {
    if let Some(what) = qemu::missing().or_else(extlinux::missing) {
        return common::skip::skip(format!("{what} is missing"));
    }
    all_boot_the_same(Loader::Syslinux, extlinux::CASES);
}

#[test]
fn entries_of_blscfg_boot_what_grub_boots() {
    if let Some(what) = qemu::missing() {
        return common::skip::skip(format!("{what} is missing"));
    }
    if !legacy::fetched("2.14/blsuki.mod").exists() {
        return common::skip::skip_anywhere("GRUB 2.14 is missing: scripts/grub-judges fetches it");
    }
    assert!(bls_menus::CASES.len() >= 30);
    all_boot_the_same(Loader::Newer, bls_menus::CASES);
}
