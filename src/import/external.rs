//! qemu-img for the formats that Spore does not read itself: confined, optional, and never trusted.
//!
//! The file is untrusted and so, having parsed it, is qemu-img. It runs as the helper `__qemu-img`,
//! which limits itself before it becomes qemu-img ([`foreign`]): it may read the one source file,
//! and write only below the target's directory; it gains no privileges and has bounded memory.
//! Formats whose files name further files are examined first and refused.

use super::format::SourceFormat;
use crate::context::Cancel;
use crate::error::{Code, Error, OrFail, Result};
use crate::helper::{self, Ends, Given, Helper, Syscalls, foreign, not_ours, one_line};
use crate::record::snapshot::DATA;
use crate::store::beneath::Owned;
use crate::sys::fds;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

/// Address space that qemu-img may take, in bytes.
const MEMORY: u64 = 4 << 30;
/// Most bytes of its answer that are read, and of its complaints.
const MAX_ANSWER: u64 = 16 << 20;
const MAX_COMPLAINTS: u64 = 64 << 10;

/// The converter, with the source, noted with its path; the directory that it writes to, noted with
/// its path; and where it complains, noted with what to do: `info/FORMAT` or `convert/FORMAT`.
pub(crate) const HELPER: Helper = Helper {
    word: "__qemu-img",
    syscalls: Syscalls::OfAnotherProgram,
    memory: MEMORY,
    seconds: None,
    ends: Ends::WithParent,
    // Where it is, and a build of one's own may need libraries of one's own. Its words are those of
    // the C locale.
    environment: &["PATH", "LD_LIBRARY_PATH"],
    run,
};

/// Converts `source`, a file and its path, to the raw, sparse [`DATA`] in a directory of its own.
/// Both paths are absolute.
///
/// # Errors
/// qemu-img is missing, the file names others, or it can't be read.
pub fn convert(
    source: (&File, &Path),
    format: SourceFormat,
    dir: &Path,
    cancel: &Cancel,
) -> Result<()> {
    refuse_references(source, format, dir, cancel)?;
    ask(source, dir, ("convert", format), cancel).map(|_| ())
}

/// What qemu-img answers.
fn ask(
    (file, path): (&File, &Path),
    dir: &Path,
    (verb, format): (&str, SourceFormat),
    cancel: &Cancel,
) -> Result<Vec<u8>> {
    let own = Owned::open(dir).or_fail(|| format!("open {}", dir.display()))?;
    let (mut complaints, theirs) = fds::pipe()?;
    // What is too much for the pipe is lost, and holds nobody up.
    let lossy = rustix::fs::OFlags::NONBLOCK;
    for end in [&complaints, &theirs] {
        rustix::fs::fcntl_setfl(end, lossy).or_fail(|| "prepare a pipe")?;
    }
    let note = format!("{verb}/{format}");
    let given = [
        (file.as_fd(), path.as_os_str()),
        (own.as_fd(), dir.as_os_str()),
        (theirs.as_fd(), OsStr::new(&note)),
    ];
    let child = helper::start(&HELPER, &given)?;
    drop(theirs);
    let (said, end) = child.hear(MAX_ANSWER, &mut || cancel.check_io());
    cancel.check()?;
    let Err(error) = end else { return Ok(said) };
    let mut text = Vec::new();
    let _ = complaints.by_ref().take(MAX_COMPLAINTS).read_to_end(&mut text);
    Err(unreadable(format, &String::from_utf8_lossy(&text), &error))
}

/// `driver=…,file.filename=PATH` with the commas of the path doubled, as QEMU's option syntax
/// wants.
fn option_value(driver: &str, path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut value = driver.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        value.push(byte);
        if byte == b',' {
            value.push(byte);
        }
    }
    OsString::from_vec(value)
}

/// An image that names a backing file or extents elsewhere is not one disk.
fn refuse_references(
    source: (&File, &Path),
    format: SourceFormat,
    dir: &Path,
    cancel: &Cancel,
) -> Result<()> {
    let refused = |what: String| {
        Err(Error::refused(
            Code::InvalidParameterValue,
            format!(
                "the disk refers to {what}, which is never opened; flatten it with qemu-img convert where it was made"
            ),
        ))
    };
    let answer = ask(source, dir, ("info", format), cancel)?;
    let info: serde_json::Value =
        serde_json::from_slice(&answer).or_fail(|| "understand what qemu-img says of the disk")?;
    if let Some(name) = info["backing-filename"].as_str() {
        return refused(format!("the backing file {name:?}"));
    }
    let extents = info["format-specific"]["data"]["extents"].as_array();
    for name in extents.into_iter().flatten().filter_map(|extent| extent["filename"].as_str()) {
        if Path::new(name) != source.1 {
            return refused(format!("the further file {name:?}"));
        }
    }
    Ok(())
}

/// Why it failed: the last line that it complained by.
fn unreadable(format: SourceFormat, complaints: &str, end: &Error) -> Error {
    if complaints.contains("No space left on device") || complaints.contains("Disk quota exceeded")
    {
        // Not the image's fault. The words are qemu-img's in the C locale.
        return Error::io("write the imported disk into the store", rustix::io::Errno::NOSPC);
    }
    let line = complaints.lines().rfind(|line| !line.trim().is_empty()).unwrap_or(end.message());
    let line = line.trim().trim_start_matches("qemu-img: ").trim_start_matches("spore: ");
    let why = one_line(line, 1000);
    Error::refused(
        Code::InvalidParameterValue,
        format!("the disk can't be read as {format}: {why}"),
    )
}

fn run(files: Vec<Given>) -> Result<()> {
    let [source, dir, complaints] = <[Given; 3]>::try_from(files).map_err(|_| not_ours())?;
    rustix::stdio::dup2_stderr(&complaints.file).or_fail(|| "complain")?;
    become_it(&source, &dir, complaints.text()?).inspect_err(|error| eprintln!("{error}"))
}

fn become_it(source: &Given, dir: &Given, what: &str) -> Result<()> {
    let (verb, format) = what.split_once('/').ok_or_else(not_ours)?;
    let Some(program) = foreign::find("qemu-img") else {
        return Err(Error::failure(
            "this format needs qemu-img, which is not installed; install the package qemu-utils",
        ));
    };
    let path = Path::new(&source.argument);
    let mut words: Vec<OsString> = vec!["qemu-img".into(), verb.into()];
    if verb == "info" {
        words.extend(["--output=json", "-f", format].map(OsString::from));
        words.push(path.into());
    } else {
        let driver = format!("driver={format},file.driver=file,file.locking=off,file.filename=");
        words.extend(["--image-opts", "-S", "4k", "-O", "raw"].map(OsString::from));
        words.extend([option_value(&driver, path), Path::new(&dir.argument).join(DATA).into()]);
    }
    foreign::become_it(&program, words, &[&source.file], &[&dir.file])
}
