//! Starting instances with the host: a systemd user unit, written where its user keeps such.

use super::Service;
use crate::error::{Code, Error, OrFail, Result};
use crate::helper::lasting;
use crate::store::config_home;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The unit's name.
pub const UNIT: &str = "spore-autostart.service";
/// Where what starts with a user's service manager is linked.
const WANTS: &str = "default.target.wants";
/// Where systemd-logind keeps whose service manager starts with the host. (loginctl(1),
/// enable-linger)
const LINGER: &str = "/var/lib/systemd/linger";
/// It is there if systemd is the host's service manager. (sd_booted(3))
const BOOTED: &str = "/run/systemd/system";

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autostart {
    /// The unit's file.
    pub unit: PathBuf,
    /// The store that it starts, if it is enabled.
    pub home: Option<PathBuf>,
    /// The host's service manager is systemd.
    pub systemd: bool,
    /// The user's service manager starts with the host, before anybody logs in.
    pub lingers: bool,
}

impl Service {
    /// How the unit is.
    ///
    /// # Errors
    /// There is no place for units; the unit can't be read.
    pub fn autostart(&self) -> Result<Autostart> {
        let unit = units()?.join(UNIT);
        let linked = units()?.join(WANTS).join(UNIT).symlink_metadata().is_ok();
        let home = match fs::read_to_string(&unit) {
            Ok(text) if linked => {
                let line =
                    text.lines().find_map(|line| line.strip_prefix("Environment=SPORE_HOME="));
                line.map(PathBuf::from)
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).or_fail(|| format!("read {}", unit.display()));
            }
            _ => None,
        };
        Ok(Autostart {
            unit,
            home,
            systemd: Path::new(BOOTED).exists(),
            lingers: lingers(self.store.context().caller()),
        })
    }

    /// Have this store's instances started with the host.
    ///
    /// # Errors
    /// Another store's are; the unit can't be written.
    pub fn enable_autostart(&self) -> Result<Autostart> {
        let found = self.autostart()?;
        let home = self.store.home();
        if let Some(other) = found.home.as_deref().filter(|other| *other != home) {
            let why = format!(
                "the instances of {} start with the host; disable that first",
                other.display()
            );
            return Err(Error::refused(Code::IncorrectState, why));
        }
        let text = unit_text(&lasting()?, home)?;
        let wants = units()?.join(WANTS);
        fs::create_dir_all(&wants).or_fail(|| format!("make {}", wants.display()))?;
        fs::write(&found.unit, text).or_fail(|| format!("write {}", found.unit.display()))?;
        let link = wants.join(UNIT);
        match symlink(&found.unit, &link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(error).or_fail(|| format!("make {}", link.display()))?;
            }
            _ => {}
        }
        self.autostart()
    }

    /// Have them not started any more. What runs goes on.
    ///
    /// # Errors
    /// The unit can't be removed.
    pub fn disable_autostart(&self) -> Result<Autostart> {
        let link = units()?.join(WANTS).join(UNIT);
        for path in [link, units()?.join(UNIT)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).or_fail(|| format!("remove {}", path.display()));
                }
                _ => {}
            }
        }
        self.autostart()
    }
}

/// Whether this user's service manager starts with the host.
fn lingers(user: u32) -> bool {
    let is_this = |name: &str| crate::account::user(name).is_ok_and(|uid| uid == user);
    let Ok(entries) = fs::read_dir(LINGER) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_this))
}

/// Where a user's units are. (systemd.unit(5))
fn units() -> Result<PathBuf> {
    let config = config_home();
    let config = config.ok_or_else(|| Error::failure("neither XDG_CONFIG_HOME nor HOME is set"))?;
    Ok(config.join("systemd/user"))
}

/// The unit. Its processes are the instances: they are asked to power off before the manager ends
/// what is left.
fn unit_text(program: &Path, home: &Path) -> Result<String> {
    let plain = |path: &Path| {
        // What systemd would read as something else. (systemd.service(5), "Command lines")
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
        let text = path.to_str().filter(|text| text.chars().all(is_plain));
        let why = || format!("{} has characters that a unit can't have plainly", path.display());
        text.map(str::to_owned).ok_or_else(|| Error::failure(why()))
    };
    let (program, home) = (plain(program)?, plain(home)?);
    Ok(format!(
        "# Written by 'spore autostart enable', removed by 'spore autostart disable'.\n\
         [Unit]\n\
         Description=Spore instances that are started again (--restart)\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         Environment=SPORE_HOME={home}\n\
         ExecStart={program} autostart start\n\
         ExecStop={program} autostart stop\n\
         TimeoutStopSec=60\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_a_unit_would_read_otherwise_is_refused() {
        let text = unit_text(Path::new("/usr/bin/spore"), Path::new("/home/me/.local/share/spore"));
        assert!(text.unwrap().contains("ExecStart=/usr/bin/spore autostart start\n"));
        for path in ["/home/me/my store", "/a%b", "/a\nExecStart=/bin/sh", "/$HOME", "/a\"b"] {
            assert!(unit_text(Path::new("/usr/bin/spore"), Path::new(path)).is_err(), "{path:?}");
        }
    }
}
