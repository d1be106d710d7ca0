//! The users and groups of this machine by name. A static program has no name service, so what is
//! in neither /etc/passwd nor /etc/group is known by its number only.

use crate::error::{Code, Error, Result};
use std::cell::OnceCell;

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

/// The ranges of uids that accounts may give their own processes (subuid(5)): what one of those
/// owns is its account's.
#[derive(Debug, Default)]
pub struct Ranges(OnceCell<Vec<(u32, u32)>>);

impl Ranges {
    /// The first uid of the range that has this one; itself, if none has.
    pub fn account_of(&self, uid: u32) -> u32 {
        let read = || ranges(&std::fs::read_to_string("/etc/subuid").unwrap_or_default());
        let within = |&&(first, count): &&(u32, u32)| uid >= first && uid - first < count;
        self.0.get_or_init(read).iter().find(within).map_or(uid, |(first, _)| *first)
    }
}

/// First uids and numbers of uids: NAME:FIRST:COUNT.
fn ranges(table: &str) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut numbers = line.split(':').skip(1).map(|number| number.trim().parse().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    table.lines().filter_map(range).collect()
}

/// All groups of this process.
pub fn own_groups() -> Vec<u32> {
    let mut groups = vec![rustix::process::getegid().as_raw()];
    groups.extend(rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_its_accounts() {
        let table = "alice:100000:65536\n1001:165536:65536\nbad\nmore:x:1\n";
        let ranges = Ranges(ranges(table).into());
        for (uid, account) in [(100_000, 100_000), (165_535, 100_000), (165_536, 165_536)] {
            assert_eq!(ranges.account_of(uid), account);
        }
        for uid in [0, 1001, 99_999, 231_072, u32::MAX] {
            assert_eq!(ranges.account_of(uid), uid);
        }
    }
}
