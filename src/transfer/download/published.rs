//! What a publisher has: where the newest file is, and what its checksum is to be.

use super::fetch::small;
use super::signature::{Verdict, verify};
use super::transport::shown;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::image::checksum::{Checksum, listed};
use crate::image::quick_start::Published;

/// Longest list of checksums or page of links, in bytes.
const MAX_LIST: usize = 4 << 20;

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its address.
    pub address: String,
    /// What it is to be, if anybody says.
    pub checksum: Option<Checksum>,
}

/// The newest file of what is published. `given` goes before what the publisher says.
///
/// # Errors
/// The publisher's list can't be had, or has no such file.
pub fn newest(one: &Published, given: Option<&Checksum>, context: &Context) -> Result<Wanted> {
    let given = given.or(one.checksum.as_ref()).cloned();
    let (place, file) = one.split();
    let list = match &one.checksums {
        Some(list) if !list.starts_with('.') && (given.is_none() || one.is_pattern()) => {
            Some(checked(one, list, context)?)
        }
        _ => None,
    };
    let name = match one.is_pattern() {
        false => file.to_owned(),
        true => {
            let names = match (&one.listing, &list) {
                (Some(page), _) => links(&text(page, context)?),
                (None, list) => names(list.as_deref().unwrap_or_default()),
            };
            let newest = one.newest(names.iter().map(String::as_str));
            newest.ok_or_else(|| absent(one, file))?.to_owned()
        }
    };
    let address = format!("{place}{name}");
    let checksum = match (given, &one.checksums) {
        (Some(given), _) => Some(given),
        (None, None) => None,
        (None, Some(suffix)) if list.is_none() => {
            // What stands beside one file may call it by another name, of its build.
            let sums = listed(&checked(one, &format!("{address}{suffix}"), context)?);
            let named = |name: &str| sums.iter().find(|(of, _)| of == name);
            let only = || sums.first().filter(|_| sums.len() == 1);
            Some(named(&name).or_else(only).ok_or_else(|| absent(one, &name))?.1.clone())
        }
        (None, Some(_)) => {
            let sums = listed(list.as_deref().unwrap_or_default());
            let found = sums.into_iter().find(|(of, _)| *of == name);
            Some(found.ok_or_else(|| absent(one, &name))?.1)
        }
    };
    Ok(Wanted { address, checksum })
}

fn absent(one: &Published, name: &str) -> Error {
    let list = one.listing.as_ref().or(one.checksums.as_ref()).map(|list| shown(list));
    let (list, reference) = (list.unwrap_or_default(), one.reference());
    let why = format!("{reference}: its publisher's list {list} has no {name}");
    Error::refused(Code::Unavailable, why)
        .remedy("give the file's address and --checksum, or an entry of your own in images.yaml")
}

/// What the list of checksums at an address says, as far as its publisher has signed it where that
/// is known.
fn checked(one: &Published, address: &str, context: &Context) -> Result<String> {
    let list = bytes(address, context)?;
    if one.signers.is_empty() {
        return Ok(String::from_utf8_lossy(&list).into_owned());
    }
    let beside = one.signature.as_deref().map(|signature| match signature.starts_with('.') {
        true => format!("{address}{signature}"),
        false => signature.to_owned(),
    });
    let signature = beside.map(|place| small(&place, MAX_LIST, context)).transpose()?;
    let verdict = verify(&list, signature.as_deref(), &one.signers).map_err(|error| {
        let why = format!("{} is not to be trusted: {}", shown(address), error.message());
        Error::refused(Code::InvalidManifest, why)
            .remedy("nothing was fetched; ask its publisher, or give the file's --checksum")
    })?;
    let list = match verdict {
        Verdict::Signed(list) => list,
        Verdict::Unknown(why) => {
            context
                .note(format_args!("the signature of {} was not checked: {why}", shown(address)));
            list
        }
    };
    Ok(String::from_utf8_lossy(&list).into_owned())
}

fn text(address: &str, context: &Context) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(address, context)?).into_owned())
}

fn bytes(address: &str, context: &Context) -> Result<Vec<u8>> {
    let local = ["127.", "localhost", "[::1]"]
        .iter()
        .any(|host| address.strip_prefix("http://").is_some_and(|rest| rest.starts_with(host)));
    if address.starts_with("http://") && !local {
        let shown = shown(address);
        context
            .warn(format_args!("{shown} comes over plain HTTP: anybody on the way can change it"));
    }
    small(address, MAX_LIST, context)
}

fn names(list: &str) -> Vec<String> {
    listed(list).into_iter().map(|(name, _)| name).collect()
}

/// What the links of a page lead to, as far as that is beside the page.
fn links(page: &str) -> Vec<String> {
    let values = page.split("href=").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        rest[1..].split(quote).next()
    });
    let plain = |name: &&str| !name.is_empty() && !name.contains(['/', '?', '#', '%', ':']);
    let names = values.map(|name| name.strip_prefix("./").unwrap_or(name));
    names.filter(plain).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_what_is_beside_a_page() {
        let page = "<a href=\"../\">up</a> <a href=\"./a-1.img\">a</a><a href='b.img'>b</a>\
                    <a href=\"http://evil/a-2.img\">x</a><a href=\"a-3.img?x\">y</a><a href=\"";
        assert_eq!(links(page), ["a-1.img", "b.img"]);
    }
}
