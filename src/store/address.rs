//! What addresses an object: its id, a unique prefix of that, its name, and for those that are
//! launched together its name and its index.

use super::Collection;
use super::collection::{ls, not_found};
use super::pattern::{self, is_pattern};
use crate::error::{Code, Error, Result};
use crate::id::Id;
use crate::record::Record;

impl<R: Record> Collection<R> {
    /// The one object that `text` addresses: its id, its name, its name and its index (`web-0`,
    /// `web.0`), a pattern of names, or a prefix of its id that no other has.
    ///
    /// # Errors
    /// None (EC2's `…NotFound`), or several: the line lists them.
    pub fn resolve(&self, text: &str) -> Result<R> {
        let mut found = self.addressed(text)?;
        match found.len() {
            0 => Err(not_found::<R>(text)),
            1 => Ok(found.swap_remove(0)),
            _ => Err(ambiguous(text, &found)),
        }
    }

    /// The objects that `text` addresses: as [`Collection::resolve`], but all that share a name or
    /// match a pattern.
    ///
    /// # Errors
    /// None, or several that neither a name nor a pattern has together.
    pub fn find(&self, text: &str) -> Result<Vec<R>> {
        let found = self.addressed(text)?;
        let named = |r: &R| R::NAMES_ARE_SHARED && r.name() == Some(text);
        match found.len() {
            0 => Err(not_found::<R>(text)),
            1 => Ok(found),
            _ if is_pattern(text) || found.iter().all(named) => Ok(found),
            _ => Err(ambiguous(text, &found)),
        }
    }

    /// Whatever `text` could mean, by id.
    fn addressed(&self, text: &str) -> Result<Vec<R>> {
        if let Ok(id) = text.parse() {
            return Ok(vec![self.get(&id)?]);
        }
        if let Some(built_in) = R::built_in().into_iter().find(|r| r.name() == Some(text)) {
            return Ok(vec![built_in]);
        }
        let records = self.list()?.records;
        let matching = |is: &dyn Fn(&R) -> bool| -> Vec<R> {
            let found: Vec<&R> = records.iter().filter(|r| is(r)).collect();
            self.first_in_rank(found).into_iter().cloned().collect()
        };
        let mut found = matching(&|r| r.name() == Some(text));
        if let (true, Some((name, index))) = (found.is_empty(), name_and_index(text)) {
            found = matching(&|r| r.index() == Some(index) && r.name() == Some(name));
        }
        if found.is_empty() && is_pattern(text) {
            found = matching(&|r| r.name().is_some_and(|name| pattern::matches(text, name)));
        }
        if found.is_empty() && text.len() > R::Id::PREFIX.len() {
            let begins = records.iter().filter(|r| r.id().as_ref().starts_with(text));
            found = begins.cloned().collect();
        }
        Ok(found)
    }

    /// One's own come first, then the administrator's, then what others share.
    fn first_in_rank<'a>(&self, named: Vec<&'a R>) -> Vec<&'a R> {
        let me = self.store().context().caller();
        let ranks =
            [Some(me), self.store().administrator()].map(|uid| uid.map(|uid| uid.to_string()));
        let of = |rank: &Option<String>| -> Vec<&'a R> {
            let is = |r: &&&R| rank.as_deref() == Some(r.owner());
            named.iter().filter(is).copied().collect()
        };
        let named = ranks.iter().map(of).find(|of| !of.is_empty()).unwrap_or(named.clone());
        let holds: Vec<&R> = named.iter().copied().filter(|r| self.holds_name(r)).collect();
        if holds.is_empty() { named } else { holds }
    }
}

/// `web-0` and `web.0`: the first of those called web.
fn name_and_index(text: &str) -> Option<(&str, u32)> {
    let (name, index) = text.rsplit_once(['-', '.'])?;
    // As it is printed, and no other way.
    let canonical = index == "0" || !index.starts_with('0');
    let digits = index.bytes().all(|b| b.is_ascii_digit());
    (canonical && digits).then(|| Some((name, index.parse().ok()?))).flatten()
}

fn ambiguous<R: Record>(text: &str, found: &[R]) -> Error {
    const SHOWN: usize = 5;
    let ids: Vec<&str> = found.iter().take(SHOWN).map(|r| r.id().as_ref()).collect();
    let more = if found.len() > SHOWN { ", …" } else { "" };
    // Clones have one name.
    let first = found.iter().find(|r| R::NAMES_ARE_SHARED && r.name() == Some(text));
    let text = text.escape_debug();
    let remedy = match first.and_then(Record::index) {
        Some(index) => format!("give one's id, or its index as in {text}-{index}"),
        None if is_pattern(&text.to_string()) => format!("choose one: '{}'", ls::<R>()),
        None => "give more of the id".to_owned(),
    };
    let (count, kind, ids) = (found.len(), R::KIND, ids.join(", "));
    Error::refused(
        Code::InvalidParameterValue,
        format!("'{text}' addresses {count} {kind}s: {ids}{more}; {remedy}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_follows_a_name() {
        assert_eq!(name_and_index("web-0"), Some(("web", 0)));
        assert_eq!(name_and_index("a-b.12"), Some(("a-b", 12)));
        for none in ["web", "web-", "web-00", "web-01", "web-x", "web--1 ", "web-4294967296"] {
            assert_eq!(name_and_index(none), None, "{none}");
        }
    }
}
