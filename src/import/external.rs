//! qemu-img for the formats that Spore does not read itself: confined, optional, and never trusted.
//!
//! The file is untrusted and so, having parsed it, is qemu-img. It runs as `spore __qemu-img`, which
//! limits itself before it becomes qemu-img: by Landlock it may read the programs and libraries of the
//! system and the one source file, and write only below the target's directory; by seccomp it makes none of
//! the calls that a converter has no use for ([`denied`]); it gains no privileges and has bounded memory. Formats whose files name further files are examined first and refused.

use super::cancel;
use super::denied;
use super::format::SourceFormat;
use crate::error::{Code, Error, OrFail, Result};
use crate::sys::confine::{die_with, limit};
use crate::sys::last::Last;
use crate::sys::process::not_started;
use crate::sys::seccomp::Filter;
use crate::transfer::remote::helper::launcher;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::Duration;

/// Address space that qemu-img may take, in bytes.
const MEMORY: u64 = 4 << 30;
/// The hidden subcommand that confines itself and becomes qemu-img: `__qemu-img PARENT SOURCE DIR ARG…`.
pub const SUBCOMMAND: &str = "__qemu-img";

/// Convert `source` to a raw, sparse `target` in a directory of its own.
///
/// # Errors
/// qemu-img is missing, the file names others, or it can't be read.
pub fn convert(source: &Path, format: SourceFormat, target: &Path) -> Result<()> {
    let dir = target.parent().unwrap_or(Path::new("."));
    refuse_references(source, format, dir)?;
    let driver = format!("driver={format},file.driver=file,file.locking=off,file.filename=");
    let mut command = confined(source, dir)?;
    command.args(["convert", "--image-opts", "-S", "4k", "-O", "raw"]);
    command.arg(option_value(&driver, source)).arg(target);
    let output = finish(command.spawn().map_err(missing)?)?;
    if !output.status.success() {
        return Err(unreadable(format, &output));
    }
    Ok(())
}

/// `driver=…,file.filename=PATH` with the commas of the path doubled, as QEMU's option syntax wants.
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
fn refuse_references(source: &Path, format: SourceFormat, dir: &Path) -> Result<()> {
    let mut command = confined(source, dir)?;
    command.args(["info", "--output=json", "-f", format.name()]).arg(source);
    let output = finish(command.spawn().map_err(missing)?)?;
    let refused = |what: String| {
        Err(Error::refused(
            Code::InvalidParameterValue,
            format!(
                "the disk refers to {what}, which is never opened; flatten it with qemu-img convert where it was made"
            ),
        ))
    };
    if !output.status.success() {
        return Err(unreadable(format, &output));
    }
    let info: serde_json::Value = serde_json::from_slice(&output.stdout)
        .or_fail(|| "understand what qemu-img says of the disk")?;
    if let Some(name) = info["backing-filename"].as_str() {
        return refused(format!("the backing file {name:?}"));
    }
    let extents = info["format-specific"]["data"]["extents"].as_array();
    for name in extents.into_iter().flatten().filter_map(|extent| extent["filename"].as_str()) {
        if Path::new(name) != source {
            return refused(format!("the further file {name:?}"));
        }
    }
    Ok(())
}

fn confined(source: &Path, dir: &Path) -> Result<Command> {
    let mut command = Command::new(launcher()?);
    let own = std::process::id().to_string();
    command.arg(SUBCOMMAND).arg(own).arg(source).arg(dir).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Wait for the child; a cancelled import kills it.
fn finish(mut child: Child) -> Result<Output> {
    while child.try_wait().or_fail(|| "wait for qemu-img")?.is_none() {
        if cancel::requested() {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    cancel::check()?;
    child.wait_with_output().or_fail(|| "read what qemu-img says")
}

fn missing(cause: std::io::Error) -> Error {
    not_started("start qemu-img", cause)
}

fn unreadable(format: SourceFormat, output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        // Not the image's fault. The words are qemu-img's in the C locale.
        return Error::io("write the imported disk into the store", rustix::io::Errno::NOSPC);
    }
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    let line = line.trim().trim_start_matches("qemu-img: ").trim_start_matches("spore: ");
    Error::refused(
        Code::InvalidParameterValue,
        format!("the disk can't be read as {format}: {line}"),
    )
}

/// `spore __qemu-img PARENT SOURCE DIR ARG…`: limit this process, then become qemu-img.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let [parent, source, dir, ..] = &arguments[..] else { return ExitCode::from(2) };
    let parent = parent.to_str().and_then(|parent| parent.parse().ok());
    let Some(parent) = parent else { return ExitCode::from(2) };
    let Some(program) = program() else {
        eprintln!(
            "this format needs qemu-img, which is not installed; install the package qemu-utils"
        );
        return ExitCode::from(125);
    };
    let mut words = vec![OsString::from("qemu-img")];
    words.extend_from_slice(&arguments[3..]);
    let mut become_it = || {
        // It stays so in the program that this process becomes.
        die_with(parent)?;
        let last = Last::open(&program).or_fail(|| format!("start {}", program.display()))?;
        confine(Path::new(source), Path::new(dir), (&program, &last))?;
        last.execute(std::mem::take(&mut words))
    };
    if let Err(error) = become_it() {
        eprintln!("{error}");
    }
    ExitCode::from(125)
}

/// Where it is installed.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("qemu-img")).find(|file| file.is_file())
}

fn confine(source: &Path, dir: &Path, (path, program): (&Path, &Last)) -> Result<()> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
        RulesetCreatedAttr, path_beneath_rules,
    };
    limit(MEMORY, None)?;
    let abi = ABI::V5;
    let system = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/nix/store", "/gnu/store"];
    // Somebody's own build has its libraries beside it, or where a package manager puts them.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let own = path.parent().map(|dir| [dir.to_owned(), dir.with_file_name("lib")]);
    let own = own.into_iter().flatten().filter(|dir| dir.exists() && dir.parent().is_some());
    let devices = ["/dev/null", "/dev/urandom", "/proc/self"];
    // Best effort: a kernel without Landlock still has the checks and limits above.
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.add_rules(path_beneath_rules(system, AccessFs::from_read(abi))))
        .and_then(|rules| rules.add_rules(path_beneath_rules(own, AccessFs::from_read(abi))))
        .and_then(|rules| rules.add_rules(path_beneath_rules(devices, AccessFs::from_read(abi))))
        .and_then(|rules| rules.add_rules(path_beneath_rules([source], AccessFs::from_read(abi))))
        .and_then(|rules| rules.add_rules(path_beneath_rules([dir], AccessFs::from_all(abi))))
        .and_then(|rules| rules.restrict_self())
        .or_fail(|| "confine qemu-img")?;
    let denials = [&denied::calls()[..], &program.denials()].concat();
    Filter::deny(&denials)?.apply()
}
