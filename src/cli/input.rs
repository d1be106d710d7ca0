//! What a command is told to read as a whole: a file, or standard input.
//!
//! It is read before anything catches signals, so that ^C ends a command that waits for somebody
//! who says nothing.

use crate::error::{OrFail, OrRefuse, Result};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The content of a file; `-` is standard input. More than `most` bytes are cut to one byte more,
/// so that the caller sees that it is too much.
///
/// # Errors
/// It can't be opened or read.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (mut bytes, most) = (Vec::new(), most.saturating_add(1));
    if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes).or_fail(|| "read standard input")?;
    } else {
        let doing = |what: &str| format!("{what} {}", path.display());
        let file = File::open(path).or_refuse(|| doing("open"))?;
        file.take(most).read_to_end(&mut bytes).or_refuse(|| doing("read"))?;
    }
    Ok(bytes)
}
