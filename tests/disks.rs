//! `spore image import` of what people have: archives, every compression, disks of other programs,
//! and what is no disk.

mod common;
mod disk_files {
    mod archives;
}

use common::Store;
use common::images::{data, error_of, noise, objects, refusal, refused};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const MIB: usize = 1 << 20;

/// 4 MiB that begin as a disk with boot code does, with data in three places.
fn sample() -> Vec<u8> {
    let mut disk = vec![0; 4 * MIB];
    disk[..2].copy_from_slice(&[0xeb, 0x63]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    noise(&mut disk[MIB - 100_000..][..200_000], 5);
    disk[4 * MIB - 512..].fill(9);
    disk
}

fn sh(dir: &Path, script: &str) {
    let mut bash = Command::new("bash");
    let output = bash.args(["-euo", "pipefail", "-c", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", error_of(&output));
}

/// A directory with the sample in disk.raw, in which `script` is run.
fn made(script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("disk.raw"), sample()).unwrap();
    sh(dir.path(), script);
    dir
}

fn import(store: &Store, path: &Path, name: &str) -> Output {
    store.spore(&["image", "import", path.to_str().unwrap(), "--name", name])
}

/// The same through a pipe.
fn pipe(store: &Store, path: &Path, name: &str) -> Output {
    let mut command = store.command(&["image", "import", "-", "--name", name]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (bytes, mut stdin) = (fs::read(path).unwrap(), child.stdin.take().unwrap());
    // It may end before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

#[track_caller]
fn arrives(output: &Output, store: &Store, name: &str, disk: &[u8]) {
    assert!(output.status.success(), "{name}: {}", error_of(output));
    assert!(fs::read(data(store, name)).unwrap() == disk, "{name}");
}

/// Both ways, byte for byte.
#[track_caller]
fn arrives_both_ways(dir: &Path, file: &str, disk: &[u8]) {
    let store = Store::new();
    let path = dir.join(file);
    arrives(&import(&store, &path, "by-file"), &store, "by-file", disk);
    arrives(&pipe(&store, &path, "by-pipe"), &store, "by-pipe", disk);
    let left = fs::read_dir(store.home().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "{file}: something is left in tmp/");
}

/// Refused both ways, in one line with all of `says`, and nothing is left.
#[track_caller]
fn refused_both_ways(path: &Path, says: &[&str]) {
    let store = Store::new();
    for output in [import(&store, path, "by-file"), pipe(&store, path, "by-pipe")] {
        let line = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{}: {line}", path.display());
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(says.iter().all(|word| line.contains(word)), "{says:?}: {line}");
        assert!(line.contains("; "), "no remedy: {line}");
        assert_eq!(objects(&store), Vec::<PathBuf>::new());
    }
}

#[test]
fn every_compression_is_undone_also_twice() {
    let dir = made(
        "gzip -k disk.raw; xz -k disk.raw; zstd -q disk.raw; lz4 -q disk.raw disk.raw.lz4; bzip2 -k disk.raw
         xz -k --format=lzma disk.raw; zstd -q disk.raw.gz
         head -c 3000000 disk.raw | gzip > parts.gz; tail -c +3000001 disk.raw | gzip >> parts.gz
         head -c 3000000 disk.raw | xz > parts.xz; tail -c +3000001 disk.raw | xz >> parts.xz",
    );
    let disk = sample();
    for file in ["gz", "xz", "zst", "lz4", "bz2", "lzma", "gz.zst"] {
        arrives_both_ways(dir.path(), &format!("disk.raw.{file}"), &disk);
    }
    arrives_both_ways(dir.path(), "parts.gz", &disk);
    arrives_both_ways(dir.path(), "parts.xz", &disk);
    for file in ["gz", "xz", "zst", "lz4", "bz2"] {
        let path = dir.path().join(format!("disk.raw.{file}"));
        let len = path.metadata().unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(len - 20).unwrap();
        refused_both_ways(&path, &["cut short"]);
    }
}

/// The beginning of a next member is no garbage.
#[test]
fn a_file_that_ends_within_the_head_of_a_member_is_cut_short() {
    let dir = made(
        "for tool in gzip bzip2 lz4; do $tool -c disk.raw > whole.$tool; cat whole.$tool whole.$tool > two.$tool; done
         xz -c --format=lzma disk.raw > one.lzma; cat one.lzma one.lzma > two.lzma",
    );
    // It has no members, and xz takes none for one.
    refused_both_ways(&dir.path().join("two.lzma"), &["cannot decompress it"]);
    for (tool, takes) in [("gzip", [1, 9]), ("bzip2", [1, 3]), ("lz4", [3, 5])] {
        let one = dir.path().join(format!("whole.{tool}")).metadata().unwrap().len();
        let two = fs::read(dir.path().join(format!("two.{tool}"))).unwrap();
        for more in takes {
            let path = dir.path().join("cut");
            fs::write(&path, &two[..one as usize + more]).unwrap();
            refused_both_ways(&path, &["cut short"]);
        }
    }
}

#[test]
fn what_follows_a_stream_is_as_for_its_program() {
    let dir = made(
        "gzip -k disk.raw; cp disk.raw.gz garbage.gz; echo sysupgrade metadata >> garbage.gz
         cp disk.raw.gz zeros.gz; head -c 100000 /dev/zero >> zeros.gz
         printf 'P*M\\x18\\x04\\0\\0\\0abcd' > skippable.zst; zstd -q -c disk.raw >> skippable.zst
         bzip2 -k disk.raw; mv disk.raw.bz2 garbage.bz2; echo signature >> garbage.bz2
         head -c 1048576 disk.raw > a; tail -c +1048577 disk.raw > b; lz4 -q a a.lz4; lz4 -q b b.lz4
         printf 'P*M\\x18\\x04\\0\\0\\0abcd' > skipped; cat skipped a.lz4 skipped b.lz4 > skippable.lz4
         (cat a.lz4; head -c 1024 /dev/zero; cat b.lz4) > apart.lz4; lz4 -t apart.lz4 && exit 1; :",
    );
    refused_both_ways(&dir.path().join("apart.lz4"), &["something else follows its lz4 data"]);
    for (file, warns) in [
        ("garbage.gz", "as gzip does"),
        ("zeros.gz", ""),
        ("skippable.zst", ""),
        ("garbage.bz2", "as bzip2 does"),
        ("skippable.lz4", ""),
    ] {
        arrives_both_ways(dir.path(), file, &sample());
        let error = error_of(&import(&Store::new(), &dir.path().join(file), "again"));
        assert_eq!(error.contains("are ignored"), !warns.is_empty(), "{file}: {error}");
        assert!(error.contains(warns), "{file}: {error}");
    }
}

/// Each block of LZ4's stands alone, and only a mark says that there are no more.
#[test]
fn an_lz4_file_that_ends_between_two_blocks_is_cut_short() {
    let dir = made("lz4 -q -B4 --no-frame-crc disk.raw whole.lz4");
    let whole = fs::read(dir.path().join("whole.lz4")).unwrap();
    // Magic, flags and a checksum of them; then a block's length.
    let first = u32::from_le_bytes(whole[7..11].try_into().unwrap()) & 0x7fff_ffff;
    for end in [11 + first as usize, whole.len() - 4] {
        let path = dir.path().join("cut.lz4");
        fs::write(&path, &whole[..end]).unwrap();
        refused_both_ways(&path, &["cut short"]);
    }
}

#[test]
fn what_is_no_disk_is_named() {
    let dir = made(
        "printf '<!DOCTYPE html>\\n<html><title>404</title>' > page; printf 'just words\\n' > text
         qemu-img convert -O vdi disk.raw disk.vdi; qemu-img convert -O parallels disk.raw disk.hdd
         printf '7z\\xbc\\xaf\\x27\\x1c' > disk.7z; gzip -k page; cp /bin/true program
         truncate -s 1M 4kn; printf 'EFI PART' | dd of=4kn bs=4096 seek=1 conv=notrunc status=none
         qemu-img convert -c -O qcow2 4kn 4kn.qcow2; qemu-img convert -O vhdx 4kn 4kn.vhdx",
    );
    for (file, says) in [
        ("page", "HTML"),
        ("page.gz", "HTML"),
        ("text", "text file"),
        ("disk.vdi", "vdi"),
        ("disk.hdd", "Parallels"),
        ("disk.7z", "7z"),
        ("program", "--kernel"),
        ("4kn", "4096"),
        ("4kn.qcow2", "4096"),
        ("4kn.vhdx", "4096"),
    ] {
        refused_both_ways(&dir.path().join(file), &[says]);
    }
    let store = Store::new();
    for address in ["https://example.org/disk.img", "HTTPS://example.org/d", "ftp://example.org/d"]
    {
        let words = ["image", "import", address, "--name", "web"];
        let line = refused(&store, &words, "InvalidParameterValue");
        assert!(line.contains("'spore image pull' takes"), "{line}");
    }
    // Whoever says that it is one has it.
    let page = dir.path().join("page");
    store.ok(&["image", "import", page.to_str().unwrap(), "--format", "raw", "--name", "page"]);
}

#[test]
fn a_disk_from_which_nothing_boots_is_taken_with_a_warning() {
    let store = Store::new();
    let path = store.home().join("zeros");
    fs::write(&path, vec![0; MIB]).unwrap();
    let output = import(&store, &path, "zeros");
    assert!(output.status.success());
    let error = error_of(&output);
    assert!(error.contains("warning: nothing was found") && error.contains("--kernel"), "{error}");
}

/// As ../fixed-vhd.py makes them: current size exact, geometry smaller.
fn fixed_vhd(disk: &[u8], creator: &[u8; 4], kind: u32) -> Vec<u8> {
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[16..24].fill(0xff);
    footer[28..32].copy_from_slice(creator);
    let size = (disk.len() as u64).to_be_bytes();
    footer[40..48].copy_from_slice(&size);
    footer[48..56].copy_from_slice(&size);
    let cylinders = (disk.len() / 512 / 17 / 4) as u16;
    footer[56..58].copy_from_slice(&cylinders.to_be_bytes());
    (footer[58], footer[59]) = (4, 17);
    footer[60..64].copy_from_slice(&kind.to_be_bytes());
    let sum = !footer.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    footer[64..68].copy_from_slice(&sum.to_be_bytes());
    [disk, &footer].concat()
}

#[test]
fn a_fixed_vhd_loses_nothing_whoever_made_it() {
    let dir = made("true");
    for creator in [b"vbox", b"wa\0\0", b"win ", b"abcd"] {
        fs::write(dir.path().join("disk.vhd"), fixed_vhd(&sample(), creator, 2)).unwrap();
        sh(dir.path(), "gzip -kf disk.vhd; xz -kf disk.vhd; zstd -qf disk.vhd");
        for file in ["disk.vhd", "disk.vhd.gz", "disk.vhd.xz", "disk.vhd.zst"] {
            arrives_both_ways(dir.path(), file, &sample());
        }
    }
    let path = dir.path().join("disk.vhd");
    let whole = fixed_vhd(&sample(), b"vbox", 2);
    // Of before 2004: a footer of 511 bytes.
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    sh(dir.path(), "gzip -kf disk.vhd");
    for file in ["disk.vhd", "disk.vhd.gz"] {
        arrives_both_ways(dir.path(), file, &sample());
    }
    fs::write(&path, &whole[MIB..]).unwrap();
    refused_both_ways(&path, &["cut short"]);
    fs::write(&path, fixed_vhd(&sample(), b"win ", 4)).unwrap();
    let line = refusal(&import(&Store::new(), &path, "child"), "InvalidParameterValue");
    assert!(line.contains("parent"), "{line}");
}

#[test]
fn disks_of_other_programs_need_no_qemu_img() {
    let dir = made(
        "qemu-img convert -O vmdk disk.raw a.vmdk; qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw b.vmdk
         qemu-img convert -O vpc -o force_size=on disk.raw c.vhd; qemu-img convert -O vhdx disk.raw d.vhdx
         qemu-img convert -O vhdx -o subformat=fixed disk.raw e.vhdx; qemu-img convert -O qcow2 disk.raw f.qcow2
         qemu-img convert -c -O qcow2 disk.raw g.qcow2",
    );
    for file in ["a.vmdk", "b.vmdk", "c.vhd", "d.vhdx", "e.vhdx", "f.qcow2", "g.qcow2"] {
        let store = Store::new();
        let path = dir.path().join(file);
        let mut command =
            store.command(&["image", "import", path.to_str().unwrap(), "--name", "disk"]);
        let output = command.env("PATH", "/nonexistent").output().unwrap();
        arrives(&output, &store, "disk", &sample());
        // Whatever is missing, the rest is not taken for zeros.
        let len = path.metadata().unwrap().len();
        for cut in [len / 2, len - 70_000] {
            let short = dir.path().join("short");
            fs::write(&short, &fs::read(&path).unwrap()[..cut as usize]).unwrap();
            let store = Store::new();
            let output = import(&store, &short, "short");
            assert!(
                output.status.code() == Some(1) || cut > len / 2,
                "{file}: {}",
                error_of(&output)
            );
            if output.status.success() {
                // What was cut off was no part of the disk.
                assert!(fs::read(data(&store, "short")).unwrap() == sample(), "{file} {cut}");
            }
        }
    }
}

#[test]
fn a_sparse_vmdk_of_two_tebibytes_is_no_work() {
    let dir = made("qemu-img create -q -f vmdk huge.vmdk 2T");
    let store = Store::new();
    let begun = std::time::Instant::now();
    let output = import(&store, &dir.path().join("huge.vmdk"), "huge");
    let took = begun.elapsed();
    assert!(output.status.success(), "{}", error_of(&output));
    assert_eq!(data(&store, "huge").metadata().unwrap().len(), 2 << 40);
    // qemu-img takes a minute. This is a debug build on a busy host.
    assert!(took.as_secs() < 20, "{took:?}");
}

#[test]
fn one_reason_and_one_remedy() {
    let dir = made(
        "qemu-img convert -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw split.vmdk
         qemu-img create -q -f qcow2 -o data_file=ext.raw data.qcow2 4M
         qemu-img create -q -f vmdk -b split.vmdk -F vmdk child.vmdk
         qemu-img convert -O vhdx disk.raw log.vhdx; qemu-img convert -O vhdx disk.raw parent.vhdx
         qemu-img convert -O vhdx disk.raw 4k.vhdx",
    );
    vhdx_items(&dir.path().join("parent.vhdx"), 0, |item| item[4] |= 2);
    vhdx_items(&dir.path().join("4k.vhdx"), 2, |item| {
        item[..4].copy_from_slice(&4096u32.to_le_bytes())
    });
    vhdx_log(&dir.path().join("log.vhdx"));
    for (file, says) in [
        ("split.vmdk", "only names other files"),
        ("split-s001.vmdk", "one extent of a split vmdk"),
        ("child.vmdk", "backing file"),
        ("data.qcow2", "external data file"),
        ("parent.vhdx", "parent"),
        ("4k.vhdx", "4096"),
        ("log.vhdx", "qemu-img check -r all"),
    ] {
        let line =
            refusal(&import(&Store::new(), &dir.path().join(file), "odd"), "InvalidParameterValue");
        assert!(line.contains(says), "{line}");
        assert_eq!(line.matches("; ").count(), 1, "one remedy: {line}");
    }
    // A name that is no text.
    let store = Store::new();
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"disk\xff.vmdk");
    sh(dir.path(), "qemu-img convert -O vmdk disk.raw plain.vmdk");
    fs::rename(dir.path().join("plain.vmdk"), dir.path().join(name)).unwrap();
    let mut command = store.command(&["image", "import", "--name", "odd"]);
    let output = command.arg(dir.path().join(name)).output().unwrap();
    arrives(&output, &store, "odd", &sample());
}

/// Changes the n-th item of the metadata of a VHDX ([MS-VHDX] 2.6; its table has no checksum).
fn vhdx_items(path: &Path, n: usize, change: impl FnOnce(&mut [u8])) {
    const IDS: [[u8; 4]; 3] =
        [[0x37, 0x67, 0xa1, 0xca], [0x24, 0x42, 0xa5, 0x2f], [0x1d, 0xbf, 0x41, 0x81]];
    let mut bytes = fs::read(path).unwrap();
    let table = bytes.windows(8).position(|window| window == b"metadata").unwrap();
    let entry =
        (0..16).map(|n| table + 32 + n * 32).find(|at| bytes[*at..at + 4] == IDS[n]).unwrap();
    let offset = u32::from_le_bytes(bytes[entry + 16..entry + 20].try_into().unwrap()) as usize;
    change(&mut bytes[table + offset..][..8]);
    fs::write(path, bytes).unwrap();
}

/// Gives a VHDX a log with an entry in it.
fn vhdx_log(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    for at in [64 << 10, 128 << 10] {
        bytes[at + 48..at + 64].fill(7);
        bytes[at + 4..at + 8].fill(0);
        let crc = bytes[at..at + 4096].iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
            })
        });
        bytes[at + 4..at + 8].copy_from_slice(&(!crc).to_le_bytes());
        let log = u64::from_le_bytes(bytes[at + 72..at + 80].try_into().unwrap()) as usize;
        bytes[log..log + 4].copy_from_slice(b"loge");
        bytes[log + 32..log + 48].fill(7);
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn holes_stay_holes_whatever_the_size() {
    let store = Store::new();
    for (name, size) in [("whole", 20u64 << 30), ("odd", (20 << 30) + 100)] {
        let path = store.home().join("sparse");
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(b"spore", 12 << 30).unwrap();
        file.write_all_at(b"end", size - 3).unwrap();
        let begun = std::time::Instant::now();
        store.ok(&["image", "import", path.to_str().unwrap(), "--name", name]);
        // Read through, it takes a minute.
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
        let imported = File::open(data(&store, name)).unwrap();
        let metadata = imported.metadata().unwrap();
        assert_eq!(metadata.len(), size.next_multiple_of(512));
        assert!(metadata.blocks() * 512 <= 64 << 10, "{} blocks", metadata.blocks());
        let mut end = [0; 3];
        imported.read_exact_at(&mut end, size - 3).unwrap();
        assert_eq!(&end, b"end");
    }
}

#[test]
fn half_a_sector_is_made_whole_and_nothing_is_no_disk() {
    let dir = made("printf '\\xeb\\x63\\x00' > half; true > nothing; gzip -k nothing");
    let mut sector = b"\xeb\x63\0".to_vec();
    sector.resize(512, 0);
    arrives_both_ways(dir.path(), "half", &sector);
    let store = Store::new();
    for file in ["nothing", "nothing.gz"] {
        let line =
            refusal(&import(&store, &dir.path().join(file), "none"), "InvalidParameterValue");
        assert!(line.contains("empty"), "{line}");
    }
}

#[test]
fn a_disk_that_somebody_writes_is_not_taken() {
    let dir = made("cp disk.raw locked");
    // QEMU's lock of who may write (block/file-posix.c).
    let script = "import fcntl,sys,time; f=open('locked','r+b'); fcntl.lockf(f, fcntl.LOCK_SH, 1, 101); print('held', flush=True); time.sleep(600)";
    let mut holder = Command::new("python3")
        .args(["-c", script])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = [0; 4];
    // It stays open: who can't print ends, and with it the lock.
    let mut said = holder.stdout.take().unwrap();
    std::io::Read::read_exact(&mut said, &mut held).unwrap();
    let store = Store::new();
    let output = import(&store, &dir.path().join("locked"), "running");
    holder.kill().unwrap();
    holder.wait().unwrap();
    drop(said);
    let line = refusal(&output, "IncorrectState");
    assert!(line.contains("shut"), "{line}");
    arrives(&import(&store, &dir.path().join("locked"), "later"), &store, "later", &sample());
}

#[test]
fn a_file_that_changes_under_the_import_is_not_taken() {
    use std::sync::atomic::{AtomicBool, Ordering};
    for shrinks in [true, false] {
        let store = Store::new();
        let path = store.home().join("changing");
        let mut bytes = vec![0; 64 * MIB];
        noise(&mut bytes, 3);
        fs::write(&path, &bytes).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let done = AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut size = 64 << 20;
                while !done.load(Ordering::Relaxed) && size > 512 {
                    size = if shrinks { size - 512 } else { size + 512 };
                    file.set_len(size).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
            let output = import(&store, &path, "changing");
            done.store(true, Ordering::Relaxed);
            output
        });
        let line = refusal(&output, "IncorrectState");
        assert!(line.contains("changed while it was read"), "{line}");
        assert_eq!(objects(&store), Vec::<PathBuf>::new());
    }
}

#[test]
fn signals_end_an_import_with_their_code_and_its_children() {
    for (signal, code) in
        [("INT", Some(130)), ("TERM", Some(143)), ("HUP", Some(129)), ("KILL", None)]
    {
        let store = Store::new();
        let mut command = store.command(&["image", "import", "-", "--name", "half"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&vec![1; 4 * MIB]).unwrap();
        let pid = child.id();
        let children = children(pid);
        assert!(!children.is_empty(), "a process of its own reads it");
        assert!(
            Command::new("kill")
                .args([&format!("-{signal}"), &pid.to_string()])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
        // The pipe is still open: they don't end because their input does.
        for _ in 0..100 {
            if !children.iter().any(|pid| is_running(*pid)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert!(!children.iter().any(|pid| is_running(*pid)), "{signal}: {children:?} go on");
        drop(stdin);
    }
}

/// The processes that process `pid` started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

#[test]
fn an_exported_image_comes_back_from_any_packing() {
    let (here, there) = (Store::new(), Store::new());
    let path = here.home().join("disk");
    fs::write(&path, sample()).unwrap();
    here.ok(&["image", "import", path.to_str().unwrap(), "--name", "web"]);
    let exported = here.home().join("web.spore");
    here.ok(&["image", "export", "web", "-o", exported.to_str().unwrap()]);
    sh(here.home(), "gzip -k web.spore; xz -k web.spore; gzip -k web.spore.xz");
    for (n, file) in
        ["web.spore", "web.spore.gz", "web.spore.xz", "web.spore.xz.gz"].iter().enumerate()
    {
        let (a, b) = (format!("file-{n}"), format!("pipe-{n}"));
        arrives(&import(&there, &here.home().join(file), &a), &there, &a, &sample());
        arrives(&pipe(&there, &here.home().join(file), &b), &there, &b, &sample());
    }
}
