//! The users and groups of this machine by name. A static program has no name service, so what is in neither
//! /etc/passwd nor /etc/group is known by its number only.

use crate::error::{Code, Error, Result};

/// A user's uid.
///
/// # Errors
/// `InvalidUserID.Unknown`: there is none of that name.
pub fn user(name: &str) -> Result<u32> {
    find("user", "/etc/passwd", name)
}

/// A group's gid.
///
/// # Errors
/// `InvalidUserID.Unknown`: there is none of that name.
pub fn group(name: &str) -> Result<u32> {
    find("group", "/etc/group", name)
}

fn find(kind: &str, file: &str, name: &str) -> Result<u32> {
    // The last number is that of nobody at all (setresuid(2)).
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    if let Some(id) = number(name) {
        return Ok(id);
    }
    let table = std::fs::read_to_string(file).unwrap_or_default();
    // name:password:id:… (passwd(5), group(5)).
    let id = table.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
        let matches = !name.is_empty() && fields.first() == Some(&name);
        matches.then(|| number(fields.get(2)?)).flatten()
    });
    id.ok_or_else(|| {
        Error::refused(
            Code::InvalidUserIDUnknown,
            format!("there is no {kind} '{}' in {file}; give its number", name.escape_debug()),
        )
    })
}

/// All groups of this process.
pub fn own_groups() -> Vec<u32> {
    let mut groups = vec![rustix::process::getegid().as_raw()];
    groups.extend(rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()));
    groups
}
