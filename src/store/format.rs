//! The format of a store: which Spore may work on it.
//!
//! The number is in the file `format` of the store's directory. It counts up when an older Spore
//! would misread a store, not when a record gets a field: a record says itself that a newer Spore
//! wrote it. A store without the file is of format 1, and gets it from the next command of its
//! owner.

use super::beneath::{Dir, Owned};
use crate::error::{Error, OrFail, Result};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// The file that says it.
const FILE: &str = "format";
/// The newest format that this Spore knows, and the one of the stores that it makes.
const FORMAT: u32 = 1;
/// Bytes of the file at most.
const MAX_LEN: u64 = 64;

/// See that the store at `home` is none of a newer Spore's, before anything in it is looked at or
/// changed.
///
/// # Errors
/// It is; its file says nothing of the kind.
pub(super) fn check(home: &Path) -> Result<()> {
    let path = home.join(FILE);
    let text = match Dir::place(home).and_then(|dir| dir.read(FILE, MAX_LEN)) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(());
        }
        text => text.or_fail(|| format!("read {}", path.display()))?,
    };
    let text = String::from_utf8_lossy(&text);
    match text.trim().parse::<u32>() {
        Ok(1..=FORMAT) => Ok(()),
        Ok(format) if format > FORMAT => Err(Error::failure(format!(
            "the store {} has format {format} of a newer Spore, and this one knows {FORMAT}: use that Spore, or set \
             SPORE_HOME to another store",
            home.display()
        ))),
        _ => Err(Error::failure(format!(
            "{} says '{}' and not which format the store has: write {FORMAT} into it if this Spore made the store",
            path.display(),
            text.trim().escape_debug()
        ))),
    }
}

/// Write into the user's own store at `home` which format it has, unless it says so. One that has
/// no room for that, or can't be written, stays without: that means format 1.
///
/// # Errors
/// The store's directory is another's.
pub(super) fn mark(home: &Path) -> Result<()> {
    let dir = Owned::home(home).or_fail(|| format!("use {}", home.display()))?;
    if dir.has(FILE) {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        // Of commands that begin at the same time each writes one of its own.
        let new = format!("{FILE}.{}", std::process::id());
        let mut new = dir.begin(&new)?;
        writeln!(new.file, "{FORMAT}")?;
        // Who shares the store reads it.
        new.set_mode(0o644)?;
        new.place(FILE)
    };
    let _ = write();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::store::Store;
    use std::fs;

    #[test]
    fn a_store_says_its_format_and_a_newer_one_is_left_alone() {
        let (_dir, store) = Store::scratch();
        let file = store.home().join(super::FILE);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1\n");
        let open = || Store::open_at(store.home());
        // An old one gets the file.
        fs::remove_file(&file).unwrap();
        open().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "1\n");
        fs::remove_dir(store.tmp()).unwrap();
        for (text, why) in [
            ("2\n", "has format 2 of a newer Spore"),
            ("4294967295", "use that Spore, or set SPORE_HOME"),
            ("0", "not which format"),
            ("", "not which format"),
            ("one", "says 'one'"),
            (&"1".repeat(100), "longer than"),
        ] {
            fs::write(&file, text).unwrap();
            let error = open().unwrap_err().to_string();
            assert!(error.contains(why) && error.lines().count() == 1, "{error}");
            assert!(!store.tmp().exists(), "nothing is made in it");
        }
    }
}
