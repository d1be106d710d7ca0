use super::super::fuse::ROOT;
use super::super::{open_directory, wire::Request};
use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use tempfile::TempDir;

/// A guest's requests of a directory.
struct Guest {
    dir: TempDir,
    server: Server,
}

fn guest(read_only: bool) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("shared")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    let root = open_directory(&dir.path().join("shared")).unwrap();
    Guest { dir, server: Server::new(root, read_only) }
}

fn words(fields: &[u32]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Guest {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("shared").join(name)
    }

    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let request = Request { number: 7, node, opcode, room: 4096, body };
        let answer = self.server.serve(&request).unwrap();
        assert_eq!(answer.number, 7);
        match answer.errno {
            0 => Ok(answer.payload),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }

    /// What there is no answer to.
    fn tell(&mut self, opcode: u32, node: u64, body: &[u8]) {
        let request = Request { number: 0, node, opcode, room: 0, body };
        assert_eq!(self.server.serve(&request), None);
    }

    fn named(&mut self, opcode: u32, node: u64, head: &[u8], name: &str) -> Result<Vec<u8>, Errno> {
        self.ask(opcode, node, &[head, name.as_bytes(), b"\0"].concat())
    }

    fn lookup(&mut self, node: u64, name: &str) -> Result<u64, Errno> {
        self.named(op::LOOKUP, node, b"", name).map(|entry| number(&entry, 0))
    }

    fn open(&mut self, node: u64, flags: i32) -> Result<u64, Errno> {
        let opened = self.ask(op::OPEN, node, &words(&[flags.cast_unsigned(), 0]))?;
        Ok(number(&opened, 0))
    }

    fn create(&mut self, node: u64, name: &str, mode: u32) -> Result<(u64, u64), Errno> {
        let flags = (libc::O_RDWR | libc::O_EXCL).cast_unsigned();
        let made = self.named(op::CREATE, node, &words(&[flags, mode, 0, 0]), name)?;
        Ok((number(&made, 0), number(&made, 128)))
    }

    /// Mode, user and group.
    fn attr(&mut self, node: u64) -> Result<[u32; 3], Errno> {
        let attr = self.ask(op::GETATTR, node, &[0; 16])?;
        let word = |at: usize| u32::from_le_bytes(attr[16 + at..20 + at].try_into().unwrap());
        Ok([word(60), word(68), word(72)])
    }

    fn setattr(&mut self, node: u64, valid: u32, change: impl Fn(&mut [u8])) -> Result<(), Errno> {
        let mut body = words(&[valid]);
        body.resize(88, 0);
        change(&mut body);
        self.ask(op::SETATTR, node, &body).map(drop)
    }

    fn rename(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Result<(), Errno> {
        let mut body = to.0.to_le_bytes().to_vec();
        body.extend(words(&[flags, 0]));
        body.extend([from.1, "\0", to.1, "\0"].concat().bytes());
        self.ask(op::RENAME2, from.0, &body).map(drop)
    }
}

#[test]
fn no_name_leads_out_of_the_directory() {
    let mut guest = guest(false);
    fs::create_dir(guest.path("dir")).unwrap();
    fs::write(guest.path("dir/file"), "mine").unwrap();
    symlink("..", guest.path("up")).unwrap();
    symlink(guest.dir.path().join("secret"), guest.path("secret")).unwrap();
    for name in ["..", ".", "", "dir/file", "/etc/passwd", "../secret"] {
        assert_eq!(guest.lookup(ROOT, name), Err(Errno::INVAL), "{name}");
        assert_eq!(guest.create(ROOT, name, 0o644), Err(Errno::INVAL), "{name}");
    }
    // A link is a link: the guest follows it in its own files.
    let (up, secret) = (guest.lookup(ROOT, "up").unwrap(), guest.lookup(ROOT, "secret").unwrap());
    assert_eq!(guest.ask(op::READLINK, up, b"").unwrap(), b"..");
    assert_eq!(guest.lookup(up, "secret"), Err(Errno::NOTDIR));
    assert_eq!(guest.open(secret, libc::O_RDONLY), Err(Errno::NXIO));
    assert_eq!(guest.ask(op::OPENDIR, up, &[0; 8]), Err(Errno::NXIO));
    assert!(guest.named(op::CREATE, ROOT, &words(&[1, 0o644, 0, 0]), "secret").is_err());
    let size = |body: &mut [u8]| body[16] = 0;
    assert_eq!(guest.setattr(secret, set::SIZE, size), Err(Errno::NXIO));
    assert_eq!(guest.setattr(secret, set::MODE, size), Err(Errno::NXIO));
    // A directory that the host puts a link in the place of.
    let dir = guest.lookup(ROOT, "dir").unwrap();
    let file = guest.lookup(dir, "file").unwrap();
    fs::rename(guest.path("dir"), guest.path("moved")).unwrap();
    symlink(guest.dir.path(), guest.path("dir")).unwrap();
    assert!(guest.lookup(dir, "secret").is_err());
    assert!(guest.create(dir, "new", 0o644).is_err());
    assert!(guest.rename((ROOT, "moved"), (dir, "moved"), 0).is_err());
    assert!(guest.open(file, libc::O_RDONLY).is_err());
    assert!(!guest.dir.path().join("new").exists());
    assert_eq!(fs::read_to_string(guest.dir.path().join("secret")).unwrap(), "secret");
    // Found again where it is now.
    assert_eq!(guest.lookup(ROOT, "moved"), Ok(dir));
    assert!(guest.open(file, libc::O_RDONLY).is_ok());
}

#[test]
fn only_files_and_directories_are_opened_and_made() {
    let mut guest = guest(false);
    let fifo = std::ffi::CString::new(guest.path("fifo").to_str().unwrap()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &*fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let node = guest.lookup(ROOT, "fifo").unwrap();
    assert_eq!(guest.open(node, libc::O_RDONLY), Err(Errno::NXIO));
    // It would wait for a writer.
    assert_eq!(guest.named(op::CREATE, ROOT, &words(&[0, 0o644, 0, 0]), "fifo"), Err(Errno::PERM));
    for kind in [libc::S_IFCHR, libc::S_IFBLK, libc::S_IFIFO, libc::S_IFSOCK, 0, libc::S_IFDIR] {
        let head = words(&[kind | 0o644, 0x0103, 0, 0]);
        assert_eq!(guest.named(op::MKNOD, ROOT, &head, "node"), Err(Errno::PERM), "{kind:o}");
    }
    guest.named(op::MKNOD, ROOT, &words(&[libc::S_IFREG | 0o644, 0, 0, 0]), "node").unwrap();
    assert!(guest.path("node").is_file());
}

#[test]
fn what_a_guest_makes_is_nobodys_program_to_become_its_user_by() {
    let mut guest = guest(false);
    let (node, _) = guest.create(ROOT, "program", 0o6755).unwrap();
    let mode = |guest: &Guest, name| guest.path(name).metadata().unwrap().permissions().mode();
    assert_eq!(mode(&guest, "program") & 0o7777, 0o755);
    guest.setattr(node, set::MODE, |body| body[68..72].copy_from_slice(&words(&[0o6711]))).unwrap();
    assert_eq!(mode(&guest, "program") & 0o7777, 0o711);
    guest.named(op::MKDIR, ROOT, &words(&[0o3777, 0]), "dir").unwrap();
    assert_eq!(mode(&guest, "dir") & 0o7000, 0o1000);
    // Nor is the host's in the guest.
    fs::set_permissions(guest.path("program"), fs::Permissions::from_mode(0o6755)).unwrap();
    assert_eq!(guest.attr(node).unwrap(), [libc::S_IFREG | 0o755, 0, 0]);
    // Files stay whose they are.
    let owner = |body: &mut [u8]| body[76..80].copy_from_slice(&words(&[1000]));
    assert_eq!(guest.setattr(node, set::UID, owner), Err(Errno::PERM));
    guest.setattr(node, set::UID | set::GID, |_| ()).unwrap();
}

#[test]
fn files_are_made_moved_linked_and_removed() {
    let mut guest = guest(false);
    let (node, handle) = guest.create(ROOT, "a", 0o600).unwrap();
    assert_eq!(guest.create(ROOT, "a", 0o600), Err(Errno::EXIST));
    guest.named(op::MKDIR, ROOT, &words(&[0o755, 0]), "dir").unwrap();
    let dir = guest.lookup(ROOT, "dir").unwrap();
    guest.rename((ROOT, "a"), (dir, "b"), 0).unwrap();
    assert_eq!(guest.lookup(dir, "b"), Ok(node), "it stays what it was");
    let size = |body: &mut [u8]| body[16..24].copy_from_slice(&10u64.to_le_bytes());
    guest.setattr(node, set::SIZE, size).unwrap();
    assert_eq!(guest.path("dir/b").metadata().unwrap().len(), 10);
    let times = |body: &mut [u8]| body[40..48].copy_from_slice(&1000u64.to_le_bytes());
    guest.setattr(node, set::MTIME, times).unwrap();
    let modified = guest.path("dir/b").metadata().unwrap().modified().unwrap();
    assert_eq!(modified, std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000));
    guest.named(op::LINK, ROOT, &node.to_le_bytes(), "c").unwrap();
    assert_eq!(guest.lookup(ROOT, "c"), Ok(node));
    guest.named(op::UNLINK, dir, b"", "b").unwrap();
    assert!(guest.attr(node).is_ok(), "by its other name");
    guest.named(op::UNLINK, ROOT, b"", "c").unwrap();
    assert!(guest.attr(node).is_ok(), "it is open");
    guest.tell(op::RELEASE, node, &handle.to_le_bytes());
    assert!(guest.attr(node).is_err());
    assert_eq!(guest.named(op::RMDIR, ROOT, b"", "c"), Err(Errno::NOENT));
    guest.named(op::SYMLINK, dir, b"", "link\0target").unwrap();
    assert_eq!(fs::read_link(guest.path("dir/link")).unwrap().to_str(), Some("target"));
    assert_eq!(guest.named(op::RMDIR, ROOT, b"", "dir"), Err(Errno::NOTEMPTY));
    guest.create(ROOT, "x", 0o600).unwrap();
    assert_eq!(guest.rename((ROOT, "x"), (dir, "link"), 1), Err(Errno::EXIST), "NOREPLACE");
    guest.rename((ROOT, "x"), (dir, "link"), 2).unwrap();
    assert!(guest.path("x").is_symlink() && guest.path("dir/link").is_file(), "EXCHANGE");
    assert_eq!(guest.rename((ROOT, "x"), (dir, "y"), 4), Err(Errno::INVAL), "WHITEOUT");
}

#[test]
fn a_file_that_the_host_puts_in_anothers_place_is_another() {
    let mut guest = guest(false);
    fs::write(guest.path("a"), "first").unwrap();
    let node = guest.lookup(ROOT, "a").unwrap();
    fs::write(guest.path("b"), "second").unwrap();
    fs::rename(guest.path("b"), guest.path("a")).unwrap();
    assert_eq!(guest.open(node, libc::O_RDONLY), Err(Errno::STALE));
    let next = guest.lookup(ROOT, "a").unwrap();
    assert_ne!(next, node);
    assert!(guest.open(next, libc::O_RDONLY).is_ok());
    fs::remove_dir_all(guest.dir.path().join("shared")).unwrap();
    assert_eq!(guest.lookup(ROOT, "a"), Err(Errno::NOENT));
    assert!(guest.create(ROOT, "a", 0o600).is_err());
    assert!(guest.attr(ROOT).is_ok(), "a directory that is gone is empty");
}

#[test]
fn a_directory_is_read_in_parts() {
    let mut guest = guest(false);
    let mut expected: Vec<String> = (0..300).map(|n| format!("file-{n}")).collect();
    expected.iter().for_each(|name| fs::write(guest.path(name), "").unwrap());
    expected.extend([".".into(), "..".into()]);
    expected.sort();
    for (opcode, head) in [(op::READDIR, 0), (op::READDIRPLUS, 128)] {
        let handle = number(&guest.ask(op::OPENDIR, ROOT, &[0; 8]).unwrap(), 0);
        let (mut names, mut offset) = (Vec::new(), 0u64);
        loop {
            let mut body = handle.to_le_bytes().to_vec();
            body.extend(offset.to_le_bytes());
            body.extend(words(&[u32::MAX, 0]));
            let part = guest.ask(opcode, ROOT, &body).unwrap();
            assert!(part.len() <= 4096);
            let mut rest = &part[..];
            if rest.is_empty() {
                break;
            }
            while !rest.is_empty() {
                let dirent = &rest[head..];
                offset = number(dirent, 8);
                let len = u32::from_le_bytes(dirent[16..20].try_into().unwrap()) as usize;
                let name = String::from_utf8(dirent[24..24 + len].to_vec()).unwrap();
                if head != 0 && name.starts_with("file") {
                    assert_eq!(guest.lookup(ROOT, &name), Ok(number(rest, 0)));
                }
                names.push(name);
                rest = &rest[head + (24 + len).next_multiple_of(8)..];
            }
        }
        names.sort();
        assert_eq!(names, expected);
        guest.tell(op::RELEASEDIR, ROOT, &handle.to_le_bytes());
    }
}

#[test]
fn what_is_read_only_is_not_changed() {
    let mut guest = guest(true);
    fs::write(guest.path("file"), "content").unwrap();
    let node = guest.lookup(ROOT, "file").unwrap();
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_eq!(guest.open(node, flags), Err(Errno::ROFS));
    }
    let head = words(&[0o755, 0, 0, 0]);
    for opcode in [op::MKDIR, op::MKNOD, op::CREATE, op::UNLINK, op::RMDIR, op::SYMLINK, op::LINK] {
        assert_eq!(guest.named(opcode, ROOT, &head, "new"), Err(Errno::ROFS), "{opcode}");
    }
    assert_eq!(guest.rename((ROOT, "file"), (ROOT, "x"), 0), Err(Errno::ROFS));
    assert_eq!(guest.setattr(node, set::MODE, |_| ()), Err(Errno::ROFS));
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    let fsync = [&handle.to_le_bytes()[..], &[0; 8]].concat();
    guest.ask(op::FSYNC, node, &fsync).unwrap();
    assert_eq!(fs::read_to_string(guest.path("file")).unwrap(), "content");
}

#[test]
fn requests_that_are_cut_short_fail() {
    let mut guest = guest(false);
    for opcode in 0..60 {
        for len in 0..100 {
            let request =
                Request { number: 1, node: ROOT, opcode, room: 4096, body: &vec![0xff; len] };
            guest.server.serve(&request);
        }
    }
    assert_eq!(guest.ask(op::SETATTR, ROOT, &[0; 79]), Err(Errno::INVAL));
    assert_eq!(guest.ask(op::LOOKUP, ROOT, b"no-end"), Err(Errno::INVAL));
    assert_eq!(guest.ask(op::LOOKUP, 12345, b"name\0"), Err(Errno::STALE));
    assert_eq!(guest.ask(22, ROOT, b"name\0"), Err(Errno::NOSYS));
    assert_eq!(fs::read_dir(guest.path("")).unwrap().count(), 0);
}
