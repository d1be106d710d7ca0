//! `spore image import`: disks of every kind that qemu-img makes arrive byte for byte, bad ones
//! leave nothing.

mod common;

use common::Store;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A disk with data, zeros and holes, of a size that every format can hold exactly.
fn sample(dir: &Path) -> PathBuf {
    let path = dir.join("sample.raw");
    let mut bytes = vec![0u8; 12 << 20];
    let mut state = 1u64;
    for range in [0..70_000, (5 << 20)..(5 << 20) + 4096, (12 << 20) - 512..12 << 20] {
        for byte in &mut bytes[range] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
    }
    fs::write(&path, bytes).unwrap();
    path
}

fn import(store: &Store, path: &Path, name: &str) -> Output {
    store.spore(&["image", "import", path.to_str().unwrap(), "--name", name])
}

/// The data files of all snapshots.
fn disks(store: &Store) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(store.home().join("snapshots")) else { return Vec::new() };
    list.map(|entry| entry.unwrap().path().join("data")).collect()
}

/// Nothing of an import is there.
fn assert_empty(store: &Store) {
    for part in ["snapshots", "images", "tmp"] {
        let list = fs::read_dir(store.home().join(part));
        let names: Vec<_> = list.into_iter().flatten().map(|e| e.unwrap().path()).collect();
        assert!(names.is_empty(), "{names:?}");
    }
}

fn qemu_img(args: &[&str]) {
    let output = Command::new("qemu-img").args(args).output().expect("qemu-utils is installed");
    assert!(output.status.success(), "{output:?}");
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_format_arrives_byte_for_byte() {
    let source = tempfile::tempdir().unwrap();
    let raw = sample(source.path());
    let expected = fs::read(&raw).unwrap();
    for (format, options) in [
        ("raw", ""),
        ("qcow2", "compat=1.1"),
        ("qcow2", "compat=0.10,cluster_size=512"),
        ("qcow2", "extended_l2=on,cluster_size=2M"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vhdx", "subformat=dynamic"),
        ("vhdx", "subformat=fixed"),
    ] {
        let store = Store::new();
        let disk = source.path().join("disk");
        let (from, to) = (raw.to_str().unwrap(), disk.to_str().unwrap());
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        args.extend([from, to]);
        qemu_img(&args);
        let output = import(&store, &disk, "any-name");
        assert!(output.status.success(), "{format} {options}: {}", stderr(&output));
        let disks = disks(&store);
        assert_eq!(disks.len(), 1, "{format} {options}");
        assert!(fs::read(&disks[0]).unwrap() == expected, "{format} {options}");
    }
}

/// A shell in the place of qemu-img that does what the source tells it, as if qemu-img had been
/// taken over by it.
#[test]
fn a_converter_that_was_taken_over_gets_nowhere() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::os::unix::fs::symlink("/bin/bash", dir.path().join("qemu-img")).unwrap();
    let (disk, other) = (dir.path().join("disk"), dir.path().join("other"));
    fs::write(&other, "private").unwrap();
    // A shell takes its first argument for a script, which it looks for in PATH.
    std::os::unix::fs::symlink(&disk, dir.path().join("info")).unwrap();
    let store = Store::new();
    let says = |script: &str| {
        fs::write(&disk, script.replace("$OTHER", other.to_str().unwrap())).unwrap();
        let disk = disk.to_str().unwrap();
        let import = ["image", "import", disk, "--format", "vmdk", "--name", "taken"];
        let mut command = store.command(&import);
        command.env("PATH", dir.path());
        stderr(&command.output().unwrap())
    };
    let said = says(
        "can=
        { :; } 3<>/dev/udp/127.0.0.1/9 && can=\"$can socket\"
        kill -0 $PPID && can=\"$can kill\"
        { :; } < $OTHER && can=\"$can read\"
        { :; } >> $OTHER && can=\"$can write\"
        ulimit -n 1024 && can=\"$can limit\"
        ulimit -n >&2 && can=\"$can ask\"
        shopt -s execfail; exec /bin/echo exec >&2
        echo \"can:$can\" >&2
        exit 1",
    );
    // To ask for one's own limits is no harm.
    assert!(said.trim_end().ends_with("can: ask"), "{said}");
    let said = says("(echo forked >&2; exit 1)");
    assert!(said.trim_end().ends_with("fork: Operation not permitted"), "{said}");
    assert!(disks(&store).is_empty());
}

/// A qemu-img that is installed elsewhere than in /usr converts as one there does; and if the
/// store's disk is full, that is the reason, and not the image.
#[test]
fn a_converter_elsewhere_converts_and_a_full_disk_is_not_the_images_fault() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (disk, bin) = (dir.path().join("disk"), dir.path().join("bin"));
    fs::create_dir(&bin).unwrap();
    fs::copy("/usr/bin/qemu-img", bin.join("qemu-img")).unwrap();
    let store = Store::new();
    let import = |name: &str| {
        let disk = disk.to_str().unwrap();
        let mut command =
            store.command(&["image", "import", disk, "--format", "vmdk", "--name", name]);
        command.env("PATH", &bin).output().unwrap()
    };
    // What its vmdk driver says of what is none shows that it ran.
    fs::write(&disk, "no vmdk").unwrap();
    let said = stderr(&import("none"));
    assert!(said.contains("the disk can't be read as vmdk: "), "{said}");
    assert!(!said.contains("cannot start") && !said.contains("error while loading"), "{said}");
    // A shell in its place says what it would.
    fs::remove_file(bin.join("qemu-img")).unwrap();
    fs::copy("/bin/bash", bin.join("qemu-img")).unwrap();
    std::os::unix::fs::symlink(&disk, bin.join("info")).unwrap();
    let full = "qemu-img: error while writing at byte 65536: No space left on device";
    fs::write(&disk, format!("echo '{full}' >&2; exit 1")).unwrap();
    let output = import("full");
    let said = stderr(&output);
    assert!(said.contains("InsufficientVolumeCapacity") && said.contains("SPORE_HOME"), "{said}");
    assert!(disks(&store).is_empty());
}

#[test]
fn compressed_qcow2_comes_in_by_standard_input() {
    let source = tempfile::tempdir().unwrap();
    let raw = sample(source.path());
    let disk = source.path().join("disk.qcow2");
    qemu_img(&["convert", "-c", "-O", "qcow2", raw.to_str().unwrap(), disk.to_str().unwrap()]);
    let packed = zstd::encode_all(&fs::read(&disk).unwrap()[..], 3).unwrap();
    let store = Store::new();
    let mut command = store.command(&["image", "import", "-", "--name", "from-stdin"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&packed).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("ami-"));
    assert!(fs::read(&disks(&store)[0]).unwrap() == fs::read(&raw).unwrap());
}

/// QEMU reads zeros where the file has ended, and its check finds nothing.
#[test]
fn a_qcow2_that_ends_within_its_last_cluster_is_told() {
    let store = Store::new();
    let (raw, whole) = (sample(store.home()), store.home().join("whole.qcow2"));
    qemu_img(&["convert", "-O", "qcow2", raw.to_str().unwrap(), whole.to_str().unwrap()]);
    let said = stderr(&import(&store, &whole, "whole"));
    assert!(!said.contains("cut short"), "{said}");
    let (bytes, cut) = (fs::read(&whole).unwrap(), store.home().join("cut.qcow2"));
    for lacks in [1, 4096] {
        fs::write(&cut, &bytes[..bytes.len() - lacks]).unwrap();
        qemu_img(&["check", "-q", cut.to_str().unwrap()]);
        let output = import(&store, &cut, &format!("cut-{lacks}"));
        let told =
            format!("warning: the last {lacks} bytes of its last cluster are beyond its end");
        assert!(output.status.success() && stderr(&output).contains(&told), "{}", stderr(&output));
    }
}

/// QEMU reads the entries that lack as zeros: clusters that were never written.
#[test]
fn a_qcow2_that_ends_within_a_table_is_cut_short() {
    let store = Store::new();
    let (raw, whole) = (sample(store.home()), store.home().join("whole.qcow2"));
    let options = ["convert", "-O", "qcow2", "-c", "-o", "cluster_size=4k"];
    let files = [raw.to_str().unwrap(), whole.to_str().unwrap()];
    qemu_img(&[&options[..], &files].concat());
    let mut bytes = fs::read(&whole).unwrap();
    let word = |bytes: &[u8], at: u64| {
        u64::from_be_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap())
    };
    // The first L2 table, moved behind all else, as it lies in an image that was written otherwise.
    let l1 = word(&bytes, 40);
    let table = word(&bytes, l1) & 0x00ff_ffff_ffff_fe00;
    let end = bytes.len().next_multiple_of(4096);
    bytes.resize(end, 0);
    bytes.extend_from_within(table as usize..table as usize + 4096);
    bytes[l1 as usize..l1 as usize + 8].copy_from_slice(&(end as u64 | 1 << 63).to_be_bytes());
    fs::write(&whole, &bytes).unwrap();
    let output = import(&store, &whole, "whole");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::read(&disks(&store)[0]).unwrap() == fs::read(&raw).unwrap());
    let cut = store.home().join("cut.qcow2");
    for lacks in [1, 2048, 4088] {
        fs::write(&cut, &bytes[..bytes.len() - lacks]).unwrap();
        let said = stderr(&import(&store, &cut, &format!("cut-{lacks}")));
        assert!(said.contains("an L2 table at") && said.contains("cut short"), "{said}");
    }
}

#[test]
fn a_backing_file_is_never_followed() {
    let source = tempfile::tempdir().unwrap();
    for (format, backing_format) in [("qcow2", "raw"), ("vmdk", "vmdk")] {
        let base = source.path().join("base");
        let disk = source.path().join("disk");
        let (base_text, disk_text) = (base.to_str().unwrap(), disk.to_str().unwrap());
        qemu_img(&["create", "-f", backing_format, base_text, "1M"]);
        qemu_img(&["create", "-f", format, "-b", base_text, "-F", backing_format, disk_text]);
        let store = Store::new();
        let output = import(&store, &disk, "leaky");
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("backing file"), "{}", stderr(&output));
        assert_eq!(stderr(&output).trim().lines().count(), 1);
        assert_empty(&store);
    }
}

/// A qcow2 header whose size, L1 table or backing file is hostile.
#[test]
fn hostile_qcow2_headers_end_in_one_line() {
    let source = tempfile::tempdir().unwrap();
    let good = source.path().join("good");
    qemu_img(&["create", "-f", "qcow2", good.to_str().unwrap(), "1M"]);
    let good = fs::read(&good).unwrap();
    // Offsets in the header: docs/interop/qcow2.txt of QEMU.
    let (size, l1_size, l1_offset, backing) = (24, 36, 40, 8);
    let field = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    let shadow = {
        let mut image = field(backing, &0x200u64.to_be_bytes());
        image[16..20].copy_from_slice(&11u32.to_be_bytes());
        image[0x200..0x20b].copy_from_slice(b"/etc/shadow");
        image
    };
    for (what, image) in [
        ("size", field(size, &(1u64 << 63).to_be_bytes())),
        ("l1 size", field(l1_size, &u32::MAX.to_be_bytes())),
        ("l1 offset", field(l1_offset, &(u64::MAX - 0xffff).to_be_bytes())),
        ("l1 on the header", field(l1_offset, &0u64.to_be_bytes())),
        ("backing", shadow),
        ("truncated", good[..600].to_vec()),
    ] {
        let disk = source.path().join("disk");
        fs::write(&disk, &image).unwrap();
        let store = Store::new();
        let output = import(&store, &disk, "hostile");
        assert_eq!(output.status.code(), Some(1), "{what}: {}", stderr(&output));
        assert_eq!(stderr(&output).trim().lines().count(), 1, "{what}: {}", stderr(&output));
        assert_empty(&store);
    }
}

#[test]
fn an_interrupted_import_leaves_nothing() {
    let store = Store::new();
    let mut command = store.command(&["image", "import", "-", "--name", "half"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: once it is written the import has begun to read.
    stdin.write_all(&vec![1; 4 << 20]).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("cancelled"), "{}", stderr(&output));
    assert_empty(&store);
}

#[test]
fn a_name_is_taken_once() {
    let source = tempfile::tempdir().unwrap();
    let raw = sample(source.path());
    let store = Store::new();
    assert!(import(&store, &raw, "web-1").status.success());
    let output = import(&store, &raw, "web-1");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("InvalidAMIName.Duplicate"), "{}", stderr(&output));
    assert_eq!(disks(&store).len(), 1);
}

#[test]
fn what_is_no_disk_is_refused_with_what_to_do() {
    let store = Store::new();
    let damaged = store.home().join("damaged.qcow2");
    fs::write(&damaged, [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 2000]].concat()).unwrap();
    for (path, says) in [
        (damaged.as_path(), "qemu-img check"),
        (Path::new("/dev/zero"), "a character device"),
        (Path::new("/"), "a directory"),
    ] {
        let output = import(&store, path, "web");
        let line = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(line.contains(says) && !line.contains("layer"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    assert_empty(&store);
}
