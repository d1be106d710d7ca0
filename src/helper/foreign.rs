//! A helper that becomes a program of somebody else's.
//!
//! It limits itself before: by Landlock it may read the programs and libraries of the system, and
//! what it is said to; by seccomp it makes none of the calls that a converter or verifier has no
//! use for ([`denied`]).

use super::denied;
use crate::error::{OrFail, Result};
use crate::sys::final_program::FinalProgram;
use crate::sys::seccomp::Filter;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where a program is installed; `None` if it is not.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Becomes `program`, which may read the files `read` by their names, and do everything below the
/// directories `write`. What it is given as descriptors it has beside that.
///
/// # Errors
/// Always: why not.
pub fn become_it(
    program: &Path,
    words: Vec<OsString>,
    read: &[&File],
    write: &[&File],
) -> Result<()> {
    let last = FinalProgram::open(program).or_fail(|| format!("start {}", program.display()))?;
    confine(program, read, write)?;
    let denials = [&denied::calls()[..], &last.denials()].concat();
    Filter::deny(&denials)?.apply()?;
    last.execute(words)
}

fn confine(program: &Path, read: &[&File], write: &[&File]) -> Result<()> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset,
        RulesetAttr, RulesetCreatedAttr, path_beneath_rules,
    };
    let abi = ABI::V5;
    let system = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/nix/store", "/gnu/store"];
    // Somebody's own build has its libraries beside it, or where a package manager puts them.
    let path = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let own = path.parent().map(|dir| [dir.to_owned(), dir.with_file_name("lib")]);
    let own = own.into_iter().flatten().filter(|dir| dir.exists() && dir.parent().is_some());
    let devices = ["/dev/null", "/dev/urandom", "/proc/self"];
    let files = read.iter().map(|file| Ok(PathBeneath::new(file, AccessFs::ReadFile)));
    let dirs = write.iter().map(|dir| Ok(PathBeneath::new(dir, AccessFs::from_all(abi))));
    // Best effort: a kernel without Landlock still has the checks and limits of the helper.
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.add_rules(path_beneath_rules(system, AccessFs::from_read(abi))))
        .and_then(|rules| rules.add_rules(path_beneath_rules(own, AccessFs::from_read(abi))))
        .and_then(|rules| rules.add_rules(path_beneath_rules(devices, AccessFs::from_read(abi))))
        .and_then(|rules| rules.add_rules(files))
        .and_then(|rules| rules.add_rules(dirs))
        .and_then(|rules| rules.restrict_self())
        .or_fail(|| "confine a program")?;
    Ok(())
}
