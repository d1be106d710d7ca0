//! The discs in an instance's CD-ROM drives: files that the user names, looked for at each start.

use super::fds::Fds;
use crate::error::{Code, Error, OrFail, OrRefuse, Result};
use crate::plan::{CdromPlan, DeviceId, DeviceKind};
use crate::record::instance::Instance;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most drives of an instance: each is a device of the machine.
const MOST: usize = 4;
/// Bytes of a block, of which a disc has one at least.
const BLOCK: u64 = 2048;

/// These discs where they will be found again.
///
/// # Errors
/// One is no file that could be a disc; there are more than an instance has drives for.
pub fn resolve(discs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if discs.len() > MOST {
        let why = format!("an instance has {MOST} CD-ROM drives at most");
        return Err(Error::refused(Code::InvalidParameterCombination, why));
    }
    let resolve = |path: &PathBuf| {
        let path = std::path::absolute(path).or_fail(|| format!("find {}", path.display()))?;
        disc(&path).map(|_| path)
    };
    discs.iter().map(resolve).collect()
}

/// The file of a disc.
fn disc(path: &Path) -> Result<File> {
    let doing = || format!("use {} as a disc", path.display());
    // Whoever named a pipe is not to wait for its other end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.or_refuse(doing)?;
    let meta = file.metadata().or_fail(doing)?;
    let why = match meta.is_file() {
        true if meta.len() >= BLOCK => {
            // A ring would have EAGAIN for what is not in memory, on file systems that can't wait.
            let flags = rustix::fs::fcntl_getfl(&file).or_fail(doing)?;
            rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK).or_fail(doing)?;
            return Ok(file);
        }
        true => "it is shorter than a block of 2048 bytes",
        false => "it is no regular file",
    };
    let why = format!("cannot {}: {why}; give an ISO image", doing());
    Err(Error::refused(Code::InvalidParameterValue, why))
}

/// The instance's drives, with their discs.
///
/// # Errors
/// A disc is not there any more.
pub fn open(fds: &mut Fds, instance: &Instance) -> Result<Vec<(DeviceId, DeviceKind)>> {
    let (engine, limits) = (instance.spore.engine, instance.spore.disk_limits);
    let mut devices = Vec::new();
    for (index, path) in instance.spore.cdroms.iter().enumerate() {
        let file = disc(path).map_err(|error| {
            let id = &instance.instance_id;
            let out = format!("'spore modify {id} --cdrom none'");
            // A hibernated machine keeps its drives with what is in them.
            error.remedy(match instance.spore.hibernated {
                None => format!("or take it out: {out}"),
                Some(_) => format!("or give its memory up, by --cold, and take it out: {out}"),
            })
        })?;
        let plan = CdromPlan { disc: fds.add(file), engine, limits };
        devices.push((Instance::cdrom(index).parse()?, DeviceKind::Cdrom(plan)));
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disc_is_a_file_of_a_block_or_more() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        std::fs::write(path("disc"), [0; 2048]).unwrap();
        std::fs::write(path("short"), [0; 2047]).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(resolve(&[path("disc")]).unwrap(), [path("disc")]);
        for (name, why) in [
            ("short", "shorter than a block"),
            ("pipe", "no regular file"),
            (".", "no regular file"),
            ("none", "No such file"),
        ] {
            let error = resolve(&[path(name)]).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("as a disc"), "{error}");
        }
        let flags = rustix::fs::fcntl_getfl(disc(&path("disc")).unwrap()).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK), "a ring would not wait for it");
        let five = vec![path("disc"); MOST + 1];
        assert!(resolve(&five).unwrap_err().to_string().contains("4 CD-ROM drives"));
    }
}
