use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

/// A directory with everything in it that is no plain file, and what each is said to be.
fn salted() -> (tempfile::TempDir, Owned, Vec<(&'static str, &'static str)>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("object");
    let owned = Owned::make(&path).unwrap();
    std::fs::write(dir.path().join("outside"), "outside").unwrap();
    symlink("../outside", path.join("link")).unwrap();
    symlink("/dev/zero", path.join("zero")).unwrap();
    symlink("nowhere", path.join("dangling")).unwrap();
    rustix::fs::mknodat(CWD, path.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    drop(UnixListener::bind(path.join("socket")).unwrap());
    std::fs::create_dir(path.join("directory")).unwrap();
    let salt = vec![
        ("link", "a symbolic link"),
        ("zero", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("directory", "a directory"),
    ];
    (dir, owned, salt)
}

#[test]
fn only_plain_files_are_opened_and_nothing_is_waited_for() {
    let (_dir, owned, salt) = salted();
    for (name, what) in salt {
        let results = [
            owned.file(name),
            owned.link_target(name),
            owned.read(name, 10).map(|_| unreachable!()),
            owned.writable(name),
            owned.open_or_create(name),
            owned.append(name),
        ];
        for (n, result) in results.into_iter().enumerate() {
            let error = result.unwrap_err().to_string();
            assert!(
                error.contains(what) || error.contains("a socket or a FIFO"),
                "{name} {n}: {error}"
            );
        }
        assert_eq!(
            owned.create(name, 0o600).unwrap_err().kind(),
            ErrorKind::AlreadyExists,
            "{name}"
        );
    }
    assert!(!owned.path().join("nowhere").exists());
}

#[test]
fn no_name_leads_out() {
    let (dir, owned, _) = salted();
    for name in ["..", ".", "", "../outside", "directory/..", "/etc/passwd", "a\0b"] {
        assert!(owned.file(name).is_err(), "{name:?}");
        assert!(owned.create_anew(name, 0o600).is_err(), "{name:?}");
        assert!(owned.remove(name).is_err(), "{name:?}");
        assert!(owned.rename("link", name).is_err(), "{name:?}");
    }
    assert_eq!(std::fs::read(dir.path().join("outside")).unwrap(), b"outside");
}

#[test]
fn a_replacement_follows_no_link_and_keeps_the_readers() {
    let (dir, owned, _) = salted();
    symlink("../outside", owned.path().join("record.json.new")).unwrap();
    std::fs::write(owned.path().join("record.json"), "old").unwrap();
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(owned.path().join("record.json"), mode).unwrap();
    owned.replace("record.json", b"new", true).unwrap();
    assert_eq!(owned.read("record.json", 3).unwrap(), b"new");
    assert_eq!(owned.stat("record.json").unwrap().st_mode & 0o777, 0o644);
    assert_eq!(std::fs::read(dir.path().join("outside")).unwrap(), b"outside");
    assert_eq!(owned.read("record.json", 2).unwrap_err().kind(), ErrorKind::FileTooLarge);
}

#[test]
fn what_others_may_write_is_nobodys() {
    let (dir, owned, _) = salted();
    for mode in [0o720, 0o702, 0o777] {
        std::fs::set_permissions(owned.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let error = Owned::open(owned.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("chmod go-w"), "{error}");
    }
    symlink("object", dir.path().join("alias")).unwrap();
    std::fs::set_permissions(owned.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(Owned::open(owned.path()).is_ok());
    assert!(Owned::open(&dir.path().join("alias")).is_err());
}

#[test]
fn a_second_name_is_not_locked_or_written() {
    let (dir, owned, _) = salted();
    std::fs::hard_link(dir.path().join("outside"), owned.path().join("lock")).unwrap();
    for result in [owned.open_or_create("lock"), owned.append("lock")] {
        assert!(result.unwrap_err().to_string().contains("hard link"));
    }
}

#[test]
fn a_tree_goes_with_all_that_is_in_it_and_nothing_else() {
    let (dir, owned, _) = salted();
    std::fs::write(owned.path().join("directory/file"), "x").unwrap();
    let mut deep = owned.path().join("directory");
    for _ in 0..place::MAX_DEPTH - 2 {
        deep.push("d");
        std::fs::create_dir(&deep).unwrap();
    }
    remove_tree(owned.path());
    assert!(!owned.path().exists());
    assert_eq!(std::fs::read(dir.path().join("outside")).unwrap(), b"outside");
}
