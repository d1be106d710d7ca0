//! Directories as the guest reads them: struct fuse_dirent and struct fuse_direntplus.

use super::attributes::{Owner, entry_out};
use super::nodes::Identity;
use super::tree::{self, Tree};
use super::wire::MAX_PAYLOAD;
use rustix::fs::{FileType, RawDir, RawDirEntry, SeekFrom, seek};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes that are read of a directory at once.
const CHUNK: usize = 8 << 10;
/// Bytes of struct fuse_entry_out.
const ENTRY: usize = 128;
/// Bytes of struct fuse_dirent before the name.
const DIRENT: usize = 24;

/// What the guest asks for of an open directory.
pub struct Wish {
    /// The directory's node.
    pub node: u64,
    /// Behind the entry with this cookie; 0 is the beginning.
    pub offset: u64,
    /// Most bytes.
    pub size: u32,
    /// Each entry's node and attributes, too; the guest is told of it.
    pub plus: bool,
}

/// As many entries as fit.
///
/// # Errors
/// Those of getdents64(2).
pub fn read(
    tree: &mut Tree,
    owner: Owner,
    directory: BorrowedFd<'_>,
    wish: &Wish,
) -> Result<Vec<u8>, Errno> {
    let most = MAX_PAYLOAD.min(wish.size as usize);
    let mut out = Vec::new();
    // A cookie may be any number, and seek takes it as it is.
    seek(directory, SeekFrom::Start(wish.offset))?;
    let mut chunk = [MaybeUninit::uninit(); CHUNK];
    let mut entries = RawDir::new(directory, &mut chunk);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let head = if wish.plus { ENTRY } else { 0 };
        let len = head + (DIRENT + entry.file_name().count_bytes()).next_multiple_of(8);
        if out.len() + len > most {
            break;
        }
        if wish.plus {
            out.extend_from_slice(&described(tree, owner, directory, wish.node, &entry));
        }
        push(&mut out, &entry);
    }
    Ok(out)
}

/// What the guest is told of an entry beside its name: nothing (node 0) of the directory itself,
/// that above it, and what is gone meanwhile.
fn described(
    tree: &mut Tree,
    owner: Owner,
    directory: BorrowedFd<'_>,
    node: u64,
    entry: &RawDirEntry<'_>,
) -> Vec<u8> {
    let name = entry.file_name();
    let mut described = || {
        let real = !matches!(name.to_bytes(), b"." | b"..");
        let found = tree::entry(real.then_some(directory.as_fd())?, name).ok()?;
        let number = tree.nodes.found(node, name.to_bytes(), Identity::of(&found)).ok()?;
        Some(entry_out(number, &found, owner))
    };
    described().unwrap_or_else(|| vec![0; ENTRY])
}

fn push(out: &mut Vec<u8>, entry: &RawDirEntry<'_>) {
    let name = entry.file_name().to_bytes();
    // DT_* of dirent.h, which is the type of a mode.
    let kind = match entry.file_type() {
        FileType::Unknown => 0,
        kind => kind.as_raw_mode() >> 12,
    };
    out.extend_from_slice(&entry.ino().to_le_bytes());
    out.extend_from_slice(&entry.next_entry_cookie().to_le_bytes());
    out.extend_from_slice(&(name.len() as u32).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(name);
    out.resize(out.len().next_multiple_of(8), 0);
}
