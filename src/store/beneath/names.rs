//! The names in a place where everybody may put something: any number of them, of anything.

use super::{Dir, user};
use crate::account;
use rustix::fs::FileType;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Names in a place, by whose they are.
#[derive(Debug, Default)]
pub struct Names {
    /// The effective user's, in order.
    pub ours: Vec<String>,
    /// Each other account's, by its first uid.
    pub others: BTreeMap<u32, Others>,
}

/// Another account's names.
#[derive(Debug, Default)]
pub struct Others {
    /// The first of them in order, at most [`Others::MOST`].
    pub names: BTreeSet<String>,
    /// There are more.
    pub more: bool,
}

impl Others {
    /// Names that are looked at of one account's.
    pub const MOST: usize = 8192;

    fn add(&mut self, name: &str) {
        if self.names.len() < Self::MOST {
            self.names.insert(name.to_owned());
            return;
        }
        self.more = true;
        if self.names.last().is_some_and(|last| name < last.as_str()) {
            self.names.pop_last();
            self.names.insert(name.to_owned());
        }
    }
}

/// Some accounts in words.
pub fn accounts(uids: &[u32]) -> Option<String> {
    let first = uids.first()?;
    Some(match uids.len() - 1 {
        0 => format!("account {first}"),
        more => format!("account {first} and {more} more"),
    })
}

impl Dir {
    /// The names that are `wanted`. Of another's only those that stand for something of that
    /// `kind`, and a bounded number.
    ///
    /// # Errors
    /// It can't be read.
    pub fn names_by_account(
        &self,
        kind: FileType,
        wanted: impl Fn(&str) -> bool,
    ) -> io::Result<Names> {
        let (me, mut names) = (user(), Names::default());
        let accounts = account::Ranges::default();
        self.each_name(|name| {
            let stat = if wanted(name) { self.stat(name) } else { return };
            // Without an answer it went meanwhile.
            let Ok(stat) = stat else { return };
            if stat.st_uid == me {
                names.ours.push(name.to_owned());
            } else if FileType::from_raw_mode(stat.st_mode) == kind {
                names.others.entry(accounts.account_of(stat.st_uid)).or_default().add(name);
            }
        })?;
        names.ours.sort();
        Ok(names)
    }

    /// The names that are `wanted`, of whom they may be: nobody else can put any into a private
    /// store.
    ///
    /// # Errors
    /// It can't be read.
    pub fn all_names(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Names> {
        let mut names = Names::default();
        self.each_name(|name| names.ours.extend(wanted(name).then(|| name.to_owned())))?;
        names.ours.sort();
        Ok(names)
    }

    /// The names of what is the effective user's.
    ///
    /// # Errors
    /// It can't be read.
    pub fn own_names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        self.each_name(|name| {
            if self.stat(name).is_ok_and(|stat| stat.st_uid == user()) {
                names.push(name.to_owned());
            }
        })?;
        Ok(names)
    }

    /// Tells `each` every name that is text, in no order.
    fn each_name(&self, mut each: impl FnMut(&str)) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            match entry?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => each(name),
            }
        }
        Ok(())
    }
}

impl super::Owned {
    /// The names in it that are text, in no order: nobody else puts any there.
    ///
    /// # Errors
    /// It can't be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        self.each_name(|name| names.push(name.to_owned()))?;
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_any_number_the_first_are_kept() {
        let mut others = Others::default();
        for n in (0..Others::MOST + 5).rev() {
            others.add(&format!("{n:06}"));
        }
        assert!(others.more && others.names.len() == Others::MOST);
        assert_eq!(accounts(&[7, 8, 9]).unwrap(), "account 7 and 2 more");
        assert_eq!(others.names.last().unwrap(), &format!("{:06}", Others::MOST - 1));
    }
}
