//! The helpers that follow a disk's tables: they are confined, they read as the disk reads, and
//! commands use them.

mod common;
mod qcow2_support;

use common::{Store, skip};
use qcow2_support::{have_qemu_img, qemu_img, source};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `spore __disk` over one qcow2 file, with standard input for its questions.
fn helper(disk: &Path) -> Child {
    let start = "exec \"$0\" __disk 1 4 5:qcow2 4<&0 5<\"$1\"";
    Command::new("sh")
        .args(["-c", start, env!("CARGO_BIN_EXE_spore")])
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn ask(child: &mut Child, what: u8, offset: u64, len: u64) {
    let question = [&[what][..], &offset.to_le_bytes(), &len.to_le_bytes()].concat();
    child.stdin.as_mut().unwrap().write_all(&question).unwrap();
}

fn hear(child: &mut Child, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    child.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_reads_tables_is_confined_and_reads_what_the_disk_has() {
    if !have_qemu_img() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bytes = source(dir.path(), 3 << 20);
    let (raw, disk) = (dir.path().join("source.raw"), dir.path().join("disk.qcow2"));
    let (raw, name) = (raw.to_str().unwrap(), disk.to_str().unwrap());
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", raw, name]);
    let mut child = helper(&disk);
    assert_eq!(hear(&mut child, 9), [&b"b"[..], &(3u64 << 20).to_le_bytes()].concat());
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    for wall in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.contains(wall), "{wall}: {status}");
    }
    for (offset, len) in [(0, 1 << 20), (4096, 512), ((2 << 20) - 512, 1 << 20)] {
        ask(&mut child, b'r', offset, len);
        let answer = hear(&mut child, 1 + len as usize);
        assert_eq!(answer[0], b'b');
        assert!(answer[1..] == bytes[offset as usize..][..len as usize], "{offset}");
    }
    let mut at = 0;
    while at < 3 << 20 {
        ask(&mut child, b'e', at, u64::MAX);
        let answer = hear(&mut child, 10);
        let len = u64::from_le_bytes(answer[2..].try_into().unwrap());
        let range = at as usize..(at + len) as usize;
        assert!(answer[0] == b'e' && len > 0 && range.end <= bytes.len(), "{answer:?}");
        assert!(answer[1] == 1 || bytes[range].iter().all(|byte| *byte == 0), "at {at}");
        at += len;
    }
    // More than it has is no question of ours, and it ends with the one who asks.
    ask(&mut child, b'r', 0, u64::MAX);
    assert!(!child.wait().unwrap().success());
    let mut child = helper(&disk);
    hear(&mut child, 9);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_proposal_for_a_qcow2_disk_is_made_by_helpers() {
    if !have_qemu_img() {
        return;
    }
    let store = Store::new();
    let dir = tempfile::tempdir().unwrap();
    source(dir.path(), 3 << 20);
    let (raw, disk) = (dir.path().join("source.raw"), dir.path().join("disk.qcow2"));
    let (raw, name) = (raw.to_str().unwrap(), disk.to_str().unwrap());
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", raw, name]);
    let dry = |disk: &str| store.ok(&["image", "register", "new", "--disk", disk, "--dry-run"]);
    assert_eq!(dry(name), dry(raw));
    // Tables that lead out of the file are a line.
    let file = std::fs::File::options().read(true).write(true).open(&disk).unwrap();
    let mut l1 = [0; 8];
    file.read_exact_at(&mut l1, 40).unwrap();
    file.write_all_at(&[0x7f; 8], u64::from_be_bytes(l1)).unwrap();
    let output = store.spore(&["image", "register", "new", "--disk", name, "--dry-run"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.lines().count() == 1, "{said}");
    assert!(said.contains("L2 table"), "{said}");
}
