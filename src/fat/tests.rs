//! File systems made by mkfs.vfat and filled by mtools, and what damage does to them.

use super::Fat;
use crate::ext4::{Error, Kind};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

fn run(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    command.args(args).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").env("MTOOLS_SKIP_CHECK", "1");
    // The names that it is given are UTF-8.
    let done = command.env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {done:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| (n / 7) as u8 ^ seed ^ (n >> 12) as u8).collect()
}

/// A file system of so many KiB, by mkfs.vfat with these options, and what was put into it: files
/// of each length that matters, names of each kind, and files in pieces.
fn made(kib: u64, options: &[&str]) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let (image, tree) = (dir.path().join("image"), dir.path().join("tree"));
    std::fs::File::create(&image).unwrap().set_len(kib << 10).unwrap();
    run("mkfs.vfat", &[&["-i", "abcd1234", "-n", "BOOT"], options, &[text(&image)]].concat());
    std::fs::create_dir_all(tree.join("EFI/Linux")).unwrap();
    std::fs::create_dir_all(tree.join("many")).unwrap();
    std::fs::create_dir_all(tree.join("names")).unwrap();
    let mut files = BTreeMap::new();
    let mut add = |path: &str, content: Vec<u8>| {
        std::fs::write(tree.join(path), &content).unwrap();
        files.insert(format!("/{path}"), content);
    };
    for len in [0, 1, 511, 512, 513, 2048, 70_000] {
        add(&format!("EFI/Linux/of-{len}.efi"), pattern(len, len as u8));
    }
    for name in
        ["SHORT.TXT", "lower.txt", "Mixed.Txt", "no-extension", "a.b.c.d", "Ærøskøbing 東京"]
    {
        add(&format!("names/{name}"), name.as_bytes().to_vec());
    }
    add(&format!("names/{}", "n".repeat(200)), b"long".to_vec());
    for n in 0..150 {
        add(&format!("many/entry number {n}.conf"), vec![n; 20]);
    }
    let copy = |from: &Path, to: &str| run("mcopy", &["-s", "-i", text(&image), text(from), to]);
    for name in std::fs::read_dir(&tree).unwrap() {
        copy(&name.unwrap().path(), "::");
    }
    // What is deleted leaves holes that the next file fills.
    let gone = (0..150).step_by(2).map(|n| format!("/many/entry number {n}.conf"));
    let gone: Vec<String> = gone.filter(|path| files.remove(path).is_some()).collect();
    let gone: Vec<String> = gone.iter().map(|path| format!("::{path}")).collect();
    let gone = gone.iter().map(String::as_str);
    run("mdel", &["-i", text(&image)].into_iter().chain(gone).collect::<Vec<_>>());
    let scattered = pattern(90_000, 9);
    std::fs::write(dir.path().join("scattered"), &scattered).unwrap();
    copy(&dir.path().join("scattered"), "::EFI/scattered");
    files.insert("/EFI/scattered".into(), scattered);
    (std::fs::read(&image).unwrap(), files)
}

fn open(image: &[u8]) -> Result<Fat, String> {
    let image: Rc<[u8]> = image.into();
    Fat::open(Box::new(move |bytes, at| {
        let found = image.get(at as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }))
}

/// All that a file system has: paths with their content.
fn all(fat: &Fat) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut pending) = (BTreeMap::new(), vec![String::new()]);
    while let Some(parent) = pending.pop() {
        let mut names = Vec::new();
        fat.list(&parent, &mut |name| {
            names.push(format!("{parent}/{name}"));
            ControlFlow::Continue(())
        })
        .unwrap();
        for path in names {
            match fat.stat(&path).unwrap() {
                (Kind::Directory, _) => pending.push(path),
                _ => drop(found.insert(path.clone(), fat.read(&path, 1 << 20).unwrap())),
            }
        }
    }
    found
}

#[test]
fn what_mtools_wrote_is_read_on_each_kind() {
    for (kib, options) in [
        (1440, &["-F", "12"][..]),
        (1440, &["-F", "12", "-s", "4", "-f", "1"]),
        (20 << 10, &["-F", "16"]),
        (20 << 10, &["-F", "16", "-S", "4096", "-s", "1"]),
        (36 << 10, &["-F", "32", "-s", "1"]),
    ] {
        let (image, files) = made(kib, options);
        let fat = open(&image).unwrap();
        assert_eq!((fat.serial().as_str(), fat.label()), ("ABCD-1234", "BOOT"), "{options:?}");
        let found = all(&fat);
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&files), "{options:?}");
        assert!(found == files, "{options:?}");
        for (at, len) in [(0, 0), (0, 1), (511, 2), (4096, 70_000), (89_999, 1), (90_000, 0)] {
            let range = fat.read_range("/efi/SCATTERED", at, len).unwrap();
            assert_eq!(range, files["/EFI/scattered"][at as usize..(at + len) as usize]);
        }
        assert!(fat.read_range("/EFI/scattered", 89_999, 2).is_err());
        assert_eq!(fat.read("/EFI/gone", 1), Err(Error::Absent));
        assert_eq!(fat.read("/names/SHORT.TXT/x", 1), Err(Error::Absent));
        assert!(fat.read("/EFI", 1).is_err() && fat.read("/EFI/scattered", 100).is_err());
        assert!(fat.stat("/many/../EFI/./Linux").is_ok(), "{options:?}");
    }
}

/// A chain that leads back, ends early or leads out; a directory in itself; measures that can't be.
#[test]
fn damage_ends_in_a_reason() {
    let (image, _) = made(1440, &["-F", "12"]);
    let entry = |path: &str| {
        let short = path.as_bytes();
        (0..image.len() - 32).step_by(32).find(|at| image[*at..].starts_with(short)).unwrap()
    };
    let first = |at: usize| u16::from_le_bytes([image[at + 26], image[at + 27]]);
    let table = usize::from(u16::from_le_bytes([image[14], image[15]])) * 512;
    let linked = |cluster: u16, next: u16| {
        let mut image = image.clone();
        let at = table + usize::from(cluster) * 3 / 2;
        let old = u16::from_le_bytes([image[at], image[at + 1]]);
        let new = match cluster % 2 {
            0 => old & 0xf000 | next,
            _ => old & 0xf | next << 4,
        };
        image[at..at + 2].copy_from_slice(&new.to_le_bytes());
        open(&image).unwrap()
    };
    let why = |read: Result<Vec<u8>, Error>| read.unwrap_err().to_string();
    let file = first(entry("SCATTE"));
    for (next, reason) in [(0xfff, "ends before"), (0, "not there"), (0xf00, "not there")] {
        let said = why(linked(file, next).read("/EFI/scattered", 1 << 20));
        assert!(said.contains(reason), "{said}");
    }
    // What leads back is read for as long as the file is: its content is wrong, and it ends.
    assert_eq!(linked(file, file).read("/EFI/scattered", 1 << 20).unwrap().len(), 90_000);
    let many = first(entry("MANY  "));
    let said = why(linked(many, many).read("/many/nothing", 1));
    assert!(said.contains("larger than one can be"), "{said}");

    let changed = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        open(&image)
    };
    let long = changed(entry("SCATTE") + 28, &[0xff; 4]).unwrap();
    assert!(why(long.read("/EFI/scattered", u64::MAX)).contains("longer than its file system"));
    let within = changed(entry("MANY  ") + 26, &[0, 0]).unwrap();
    assert!(within.stat("/many/many/many/EFI/scattered").is_ok(), "the root, once more");
    assert!(why(within.read(&"/many".repeat(70), 1)).contains("too deep"));
    for (at, bytes) in [
        (11, &[0, 0][..]),   // bytes of a sector
        (11, &[0, 0x40]),    //
        (13, &[0]),          // sectors of a cluster
        (13, &[3]),          //
        (14, &[0, 0]),       // reserved sectors
        (16, &[0]),          // tables
        (21, &[1]),          // media
        (22, &[0xff, 0xff]), // sectors of a table
        (19, &[1, 0]),       // all sectors
        (510, &[0]),         // the signature
    ] {
        assert!(changed(at, bytes).err().unwrap().contains("no FAT"), "{at}");
    }
    assert!(open(&[]).is_err() && open(&[0; 512]).is_err());
}
