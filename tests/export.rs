//! Exported images: as one file, through a pipe, and in the hands of somebody who means harm.

mod common;

use common::Store;
use common::images::{data, objects, refusal, show};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const MIB: usize = 1 << 20;

/// An image of 11 MiB with data in its second and tenth.
fn import(store: &Store) -> String {
    let mut bytes = vec![0; 11 * MIB];
    bytes[MIB + 5..][..4000].fill(3);
    bytes[9 * MIB + 1..][..70_000].fill(4);
    let path = store.home().join("disk.raw");
    fs::write(&path, bytes).unwrap();
    let args = ["image", "import", path.to_str().unwrap(), "--name", "debian", "--tag", "Env=prod"];
    store.ok(&args).trim().to_owned()
}

fn export(store: &Store, image: &str) -> PathBuf {
    let path = store.home().join("image.spore");
    store.ok(&["image", "export", image, "-o", path.to_str().unwrap()]);
    path
}

#[test]
fn an_exported_image_is_the_same_elsewhere() {
    let (here, there) = (Store::new(), Store::new());
    let id = import(&here);
    let path = export(&here, "debian");
    assert!(path.metadata().unwrap().len() < MIB as u64);
    let new = there.ok(&["image", "import", path.to_str().unwrap()]).trim().to_owned();
    assert!(fs::read(data(&there, &new)).unwrap() == fs::read(data(&here, &id)).unwrap());
    let image = show(&there, "debian");
    assert_eq!(image["SourceImageId"], *id);
    assert_eq!(image["Tags"][0]["Value"], "prod");
    assert_eq!(image["State"], "available");
    let again = there.spore(&["image", "import", path.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(error.starts_with("spore: InvalidAMIName.Duplicate: "), "{error}");
    there.ok(&["image", "import", path.to_str().unwrap(), "--name", "second"]);
}

#[test]
fn a_pipe_carries_an_image_with_its_kernel() {
    let (here, there) = (Store::new(), Store::new());
    let mut from = here.command(&["image", "export", "demo", "-o", "-"]);
    let mut from = from.stdout(Stdio::piped()).spawn().unwrap();
    let mut to = there.command(&["image", "import", "-", "--name", "carried"]);
    let to = to.stdin(from.stdout.take().unwrap()).output().unwrap();
    assert!(from.wait().unwrap().success());
    assert!(to.status.success(), "{}", String::from_utf8_lossy(&to.stderr));
    assert!(show(&there, "carried")["KernelId"].is_string());
    if common::has_kvm() {
        let ran = there.ok(&["run", "carried", "-m", "128M", "--wait"]);
        assert!(ran.contains("i-"), "{ran}");
    }
    // And a disk comes through a pipe as before.
    let disk = File::open(here.home().join("disk.raw"));
    assert!(disk.is_err());
    fs::write(here.home().join("disk.raw"), vec![1; MIB]).unwrap();
    let mut raw = there.command(&["image", "import", "-", "--name", "raw"]);
    let raw = raw.stdin(File::open(here.home().join("disk.raw")).unwrap()).output().unwrap();
    assert!(raw.status.success(), "{}", String::from_utf8_lossy(&raw.stderr));
    assert!(fs::read(data(&there, "raw")).unwrap() == vec![1; MIB]);
}

/// Import what should not be, and find it refused in one line and nothing left.
#[track_caller]
fn refused(store: &Store, path: &Path, code: &str) {
    let before = objects(store);
    let output = store.spore(&["image", "import", path.to_str().unwrap()]);
    let error = refusal(&output, code);
    assert_eq!(objects(store), before, "{error}");
}

/// The members of an archive: names and contents.
fn members(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let read = |entry: std::io::Result<tar::Entry<'_, File>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn write(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut file = File::create(path).unwrap();
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(bytes).unwrap();
        file.write_all(&vec![0; bytes.len().next_multiple_of(512) - bytes.len()]).unwrap();
    }
    file.write_all(&[0; 1024]).unwrap();
}

/// A change of what the package says.
fn edit(change: impl Fn(&mut Value)) -> impl Fn(&mut Vec<(String, Vec<u8>)>) {
    move |members| {
        let mut package: Value = serde_json::from_slice(&members[0].1).unwrap();
        change(&mut package);
        members[0].1 = serde_json::to_vec(&package).unwrap();
    }
}

type Change<'a> = &'a dyn Fn(&mut Vec<(String, Vec<u8>)>);

#[test]
fn what_is_damaged_or_contrived_is_refused_and_leaves_nothing() {
    let (here, there) = (Store::new(), Store::new());
    import(&here);
    let path = export(&here, "debian");
    there.ok(&["image", "ls"]);
    let good = members(&path);
    let bytes = fs::read(&path).unwrap();
    let bad = here.home().join("bad.spore");
    for len in [513, 2000, bytes.len() / 2, bytes.len() - 1600] {
        fs::write(&bad, &bytes[..len]).unwrap();
        refused(&there, &bad, "InvalidManifest");
    }
    let changes: &[Change<'_>] = &[
        &|m| m[1].0 = "../../../../etc/passwd".into(),
        &|m| m[1].0 = "/etc/passwd".into(),
        &|m| m.swap(1, 2),
        &|m| drop(m.remove(1)),
        &|m| m.insert(2, m[1].clone()),
        &|m| m[1].1[40] ^= 1,
        &|m| m[1].1 = vec![0; 20 * MIB],
        &|m| m[1].1 = zstd::bulk::compress(&vec![1; 40 * MIB], 3).unwrap(),
        &|m| m[1].1 = zstd::bulk::compress(&[1; 100], 3).unwrap(),
        &|m| m[0].1 = vec![b' '; 17 * MIB],
        &|m| m[0].1 = vec![b'['; MIB],
        &edit(|p| p["Disks"][0]["SizeBytes"] = Value::from(u64::MAX)),
        &edit(|p| p["Disks"][0]["SizeBytes"] = Value::from(0)),
        &edit(|p| p["Disks"][0]["Digest"] = "0".repeat(64).into()),
        &edit(|p| p["Disks"][0]["Digest"] = "../x".into()),
        &edit(|p| p["Disks"] = Value::from(Vec::<Value>::new())),
        &edit(|p| p["Disks"] = vec![p["Disks"][0].clone(), p["Disks"][0].clone()].into()),
        &edit(|p| p["Format"] = "spore-image-99".into()),
        &edit(|p| p["Unknown"] = 1.into()),
        &edit(|p| {
            p["Image"]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] =
                "snap-0123456789abcdef0".into()
        }),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut members = good.clone();
        change(&mut members);
        write(&bad, &members);
        eprintln!("change {n}");
        refused(&there, &bad, "InvalidManifest");
    }
    for (field, value, code) in [
        ("Name", "x", "InvalidAMIName.Malformed"),
        ("Description", &*"d".repeat(300), "InvalidParameterValue"),
        ("CommandLine", "a\nb", "InvalidParameterValue"),
        ("RootDeviceName", "../vda", "InvalidParameterValue"),
    ] {
        let mut members = good.clone();
        edit(|p| p["Image"][field] = value.into())(&mut members);
        write(&bad, &members);
        refused(&there, &bad, code);
    }
    write(&bad, &good);
    there.ok(&["image", "import", bad.to_str().unwrap()]);
}

#[test]
fn an_interrupted_export_leaves_no_file() {
    let here = Store::new();
    import(&here);
    let path = here.home().join("dir");
    fs::create_dir(&path).unwrap();
    let file = path.join("image.spore");
    let mut command = std::process::Command::new("dash");
    command.args([
        "-c",
        "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_spore"),
    ]);
    command.args(["image", "export", "debian", "-o", file.to_str().unwrap()]);
    let output = command.env("SPORE_HOME", here.home()).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}
