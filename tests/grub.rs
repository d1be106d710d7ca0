//! What boots by grub.cfg, judged by GRUB itself: the same disks, with stand-in kernels, under QEMU and by `pvgrub`.

mod common;
mod grub_judge {
    pub mod menus;
    pub mod qemu;
}
use grub_judge::menus::{CASES, Case, Table};
use grub_judge::qemu::{self, Booted, Judge};
use sporevm::plan::{PvBoot, PvGrub};
use sporevm::pvgrub::{load, volume::Volume};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROOT: &str = "11111111-1111-4111-8111-111111111111";
const DATA: &str = "22222222-2222-4222-8222-222222222222";

/// The disk of a case, and where GRUB's configuration is.
fn disk(judge: &Judge, case: &Case) -> (Vec<u8>, &'static str) {
    // GRUB shows a menu for ever that says nothing of time.
    let menu = format!("set timeout=0\n{}", case.menu);
    let mut files = vec![("/boot/grub/grub.cfg", menu.into_bytes())];
    for (path, name) in [("/boot/k1", "k1"), ("/boot/k2", "k2"), ("/boot/k3", "k3")] {
        files.push((path, judge.kernel(name)));
    }
    files.extend([("/boot/i1", b"<i1>".to_vec()), ("/boot/i2", b"<i2>".to_vec())]);
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
    let root = judge.ext4(&format!("{}-root", case.name), ROOT, "root", &files);
    let data =
        [("/k5", judge.kernel("k5")), ("/boot/i4", b"<i4>".to_vec()), ("/marker", b"x".to_vec())];
    let data = judge.ext4(&format!("{}-data", case.name), DATA, "data", &data);
    match case.table {
        Table::Mbr => (qemu::mbr(&[root, data]), "(hd0,msdos1)/boot/grub"),
        Table::Gpt => (qemu::gpt(&[root, data]), "(hd0,gpt1)/boot/grub"),
        Table::None => (root, "(hd0)/boot/grub"),
    }
}

/// What Spore boots, short of what it does to every command line on purpose: it adds no BOOT_IMAGE=, but a root and a
/// console where there is none, and what follows `panic=-1`.
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

/// What GRUB boots, without the BOOT_IMAGE= that it puts in front. Words are one space apart, as Spore writes them.
fn grubs(booted: Booted) -> Booted {
    let line = match booted.line.split_once(' ') {
        Some((image, rest)) if image.starts_with("BOOT_IMAGE=") => rest.to_owned(),
        _ if booted.line.starts_with("BOOT_IMAGE=") => String::new(),
        _ => booted.line,
    };
    Booted { line: words(&line), ..booted }
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
fn judged(judge: &Judge, case: &Case) -> Result<(), String> {
    let (disk, prefix) = disk(judge, case);
    let ours = spores(disk.clone());
    let theirs = judge.boot(case.name, &disk, prefix).map(grubs);
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

#[test]
fn menus_boot_what_grub_boots() {
    if let Some(what) = qemu::missing() {
        return common::skip::skip(format!("{what} is missing"));
    }
    assert!(CASES.len() >= 40);
    let judge = Judge::new();
    let only = std::env::var("SPORE_MENU").ok();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if only.as_ref().is_none_or(|only| case.name.contains(&**only)) {
                        wrong.lock().unwrap().extend(judged(&judge, case).err());
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}
