//! Listings: of one's own objects all, of another account's as many as can do no harm.

use super::beneath::Dir;
use super::beneath::names::{Others, accounts};
use super::collection::Collection;
use super::record;
use crate::context::Context;
use crate::error::{Error, OrFail, Result};
use crate::record::Record;
use rustix::fs::FileType;
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// What a listing found.
#[derive(Debug)]
pub struct Listing<R> {
    /// The objects, by id.
    pub records: Vec<R>,
    /// One line for each record that can't be read.
    pub broken: Vec<Error>,
    /// Accounts of which not all is listed, by their first uid.
    left_out: Vec<u32>,
    context: Context,
}

impl<R: Record> Listing<R> {
    /// The objects; what can't be read, or is not, is a warning.
    pub fn or_warn(self) -> Vec<R> {
        if let Some(accounts) = accounts(&self.left_out) {
            self.context.warn(format_args!(
                "not all {} records of {accounts} are listed, there are too many: the others are found by their whole id only",
                R::KIND
            ));
        }
        for error in &self.broken {
            self.context.warn(error);
        }
        self.records
    }
}

/// How much is still read of another account, in bytes of this command's memory, which nobody else
/// is to fill.
struct Share(u64);

impl Share {
    /// For the records of one kind.
    const MOST: u64 = 24 << 20;
    /// What each object takes at least: it is opened and looked at.
    const LEAST: u64 = Self::MOST / Others::MOST as u64;
    /// A text is in a record, in what is shown of it and in what is printed.
    const TEXT: u64 = 3;
    /// A JSON object's node of a tree.
    const OBJECT: u64 = 640;
    /// An element of a list or an object.
    const ELEMENT: u64 = 64;

    /// Whether what is read next is still within it.
    fn take(&mut self, text: &[u8]) -> bool {
        let count = |sought: u8| text.iter().filter(|&&byte| byte == sought).count() as u64;
        let elements = count(b'{') * Self::OBJECT + count(b',') * Self::ELEMENT;
        let cost = (text.len() as u64 * Self::TEXT + elements).max(Self::LEAST);
        match self.0.checked_sub(cost) {
            Some(left) => self.0 = left,
            None => return false,
        }
        true
    }
}

impl<R: Record> Collection<R> {
    /// Where they are. There is nothing where there is no store yet, or one of an earlier Spore,
    /// which did not have this kind.
    fn place_if_there(&self) -> Result<Option<Dir>> {
        match self.place() {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            place => place.or_fail(|| format!("list {}", self.path().display())).map(Some),
        }
    }

    /// Every object that exists throughout, by id. Those that come or go meanwhile may be in it or
    /// not.
    ///
    /// # Errors
    /// The directory can't be read. A corrupt record is no error: it is in [`Listing::broken`].
    pub fn list(&self) -> Result<Listing<R>> {
        match self.place_if_there()? {
            Some(place) => self.list_by(|id| self.own(&place, id)),
            None => self.list_by(|_| Ok(None)),
        }
    }

    /// [`Collection::list`], one's own objects as `own` gives them.
    ///
    /// # Errors
    /// As [`Collection::list`]'s.
    pub fn list_by(&self, own: impl Fn(&R::Id) -> Result<Option<R>>) -> Result<Listing<R>> {
        let mut listing = Listing {
            records: Vec::new(),
            broken: Vec::new(),
            left_out: Vec::new(),
            context: self.store().context().clone(),
        };
        let Some(place) = self.place_if_there()? else { return Ok(listing) };
        let (ours, others) = self.ids_in(&place)?;
        for id in ours {
            match own(&id) {
                Ok(Some(record)) if *record.id() == id => listing.records.push(record),
                Ok(Some(record)) => listing.broken.push(Error::failure(format!(
                    "the record in {} is that of {}; put the directory aside",
                    self.dir(&id).display(),
                    record.id()
                ))),
                Ok(None) => {}
                Err(error) => listing.broken.push(error),
            }
        }
        for (account, (ids, more)) in others {
            let mut share = Share(Share::MOST);
            let whole =
                ids.into_iter().all(|id| self.add_others(&place, &id, &mut share, &mut listing));
            if more || !whole {
                listing.left_out.push(account);
            }
        }
        listing.records.sort_by(|a, b| a.id().cmp(b.id()));
        Ok(listing)
    }

    /// Reads another's object. False if the account's share is used up.
    fn add_others(&self, place: &Dir, id: &R::Id, share: &mut Share, to: &mut Listing<R>) -> bool {
        let Ok(dir) = place.object(id.as_ref()) else { return share.take(b"") };
        let text = record::others(&dir).unwrap_or_default();
        if !share.take(&text) {
            return false;
        }
        let record = serde_json::from_slice(&text).ok().filter(|record: &R| record.id() == id);
        to.records.extend(record.filter(|record| self.counts(&dir, record)));
        true
    }

    /// The ids of one's own objects, sorted.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn own_ids(&self) -> Result<Vec<R::Id>> {
        let Some(place) = self.place_if_there()? else { return Ok(Vec::new()) };
        Ok(self.ids_in(&place)?.0)
    }

    /// The ids of all objects that are listed, in no order.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn ids(&self) -> Result<Vec<R::Id>> {
        let Some(place) = self.place_if_there()? else { return Ok(Vec::new()) };
        let (mut ids, others) = self.ids_in(&place)?;
        ids.extend(others.into_values().flat_map(|(ids, _)| ids));
        Ok(ids)
    }

    /// One's own ids, and those of each other account with whether there are more.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn ids_in(&self, place: &Dir) -> Result<(Vec<R::Id>, BTreeMap<u32, (Vec<R::Id>, bool)>)> {
        // What is not an id is not ours.
        let id = |name: &String| name.parse::<R::Id>().ok();
        let is_id = |name: &str| name.parse::<R::Id>().is_ok();
        let names = match self.store().administrator() {
            Some(_) => place.names_by_account(FileType::Directory, is_id),
            None => place.all_names(is_id),
        };
        let names = names.or_fail(|| format!("list {}", self.path().display()))?;
        let of = |others: Others| (others.names.iter().filter_map(id).collect(), others.more);
        let others = names.others.into_iter().map(|(account, others)| (account, of(others)));
        Ok((names.ours.iter().filter_map(id).collect(), others.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_used_up_by_bytes_by_elements_and_by_objects() {
        let taken = |text: &[u8]| {
            let mut share = Share(Share::MOST);
            (0..=Others::MOST).take_while(|_| share.take(text)).count()
        };
        assert_eq!(taken(b""), Others::MOST);
        assert_eq!(taken(&[b'x'; 1 << 20]), 8);
        assert_eq!(taken(&[b','; 1 << 17]), 2);
        assert_eq!(taken(&[b'{'; 1 << 17]), 0);
    }
}
