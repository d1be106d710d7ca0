//! What names and tags may be.

use super::record::Tag;
use crate::error::{Error, Result};
use crate::store::{Record, Store, StoreLock};

/// Fewest characters of a name.
const MIN: usize = 3;
/// Most characters of a name.
const MAX: usize = 128;
/// Allowed in a name beside letters and digits (EC2 API reference, RegisterImage, Name).
const PUNCTUATION: &str = "()[] ./-'@_";

/// # Errors
/// `InvalidAMIName.Malformed`: the name is not one that EC2 allows.
pub fn check(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c);
    let length = name.chars().count();
    if (MIN..=MAX).contains(&length) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::refused(
        "InvalidAMIName.Malformed",
        format!(
            "'{}' is not a name: it takes {MIN} to {MAX} letters, digits, spaces and ()[]./-'@_",
            name.escape_debug()
        ),
    ))
}

/// A name made of a file's: what is not allowed becomes a dash.
pub fn from_file(file_name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut name: String =
        file_name.chars().take(MAX - 20).map(|c| if allowed(c) { c } else { '-' }).collect();
    while name.len() < MIN {
        name.push('-');
    }
    name
}

/// # Errors
/// `InvalidAMIName.Duplicate`: an object of this kind has the name. It stays free while the store's lock is held.
pub fn check_free<R: Record>(store: &Store, _lock: &StoreLock, name: &str) -> Result<()> {
    let listing = store.collection::<R>().list()?;
    match listing.records.iter().find(|record| record.name() == Some(name)) {
        None => Ok(()),
        Some(holder) => Err(Error::refused(
            "InvalidAMIName.Duplicate",
            format!(
                "the name '{name}' is taken by {} {}; choose another or deregister that one",
                R::KIND,
                holder.id()
            ),
        )),
    }
}

/// # Errors
/// `InvalidParameterValue`: a key is empty, too long or given twice, or a value too long (EC2, "Tag restrictions").
pub fn check_tags(tags: &[Tag]) -> Result<()> {
    let refuse = |why: String| Err(Error::refused("InvalidParameterValue", why));
    for (index, tag) in tags.iter().enumerate() {
        let key = tag.key.escape_debug();
        if !(1..=127).contains(&tag.key.chars().count()) || tag.value.chars().count() > 255 {
            return refuse(format!(
                "the tag '{key}' is malformed: a key has 1 to 127 characters, a value at most 255"
            ));
        }
        if tags[..index].iter().any(|other| other.key == tag.key) {
            return refuse(format!("the tag '{key}' is given twice; give each key once"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ec2s() {
        for good in ["abc", "debian/12 (amd64) [2026.1]-v1_a@b'c", &"x".repeat(128)] {
            assert!(check(good).is_ok(), "{good}");
            assert!(check(&from_file(good)).is_ok(), "{good}");
        }
        for bad in ["", "ab", "a:b", "naïve", "tab\there", "line\nbreak", &"x".repeat(129)] {
            assert_eq!(check(bad).unwrap_err().code(), Some("InvalidAMIName.Malformed"), "{bad}");
            assert!(check(&from_file(bad)).is_ok(), "{bad}");
        }
    }

    #[test]
    fn tags_have_one_value_a_key() {
        let tag = |key: &str| Tag { key: key.into(), value: "v".into() };
        assert!(check_tags(&[tag("a"), tag("b")]).is_ok());
        assert!(check_tags(&[tag("a"), tag("a")]).is_err());
        assert!(check_tags(&[tag("")]).is_err());
    }
}
