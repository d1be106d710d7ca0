//! What of an image may be changed after it is registered, and its tags.

use super::catalog::check_own;
use crate::error::{Code, Error, Result};
use crate::id::ImageId;
use crate::image::manifest::check_description;
use crate::record::image::{Image, ImdsSupport, ProductCode};
use crate::store::beneath::Owned;
use crate::store::{Durability, Store, rfc3339, time};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file whose time of modification is when the image was last launched.
const LAUNCHED: &str = "launched";
/// Farthest that a deprecation may be away: EC2's ten years.
const FARTHEST: Duration = Duration::from_secs(10 * 366 * 86_400);
/// Most product codes of an image.
const MAX_CODES: usize = 20;

/// What `image modify` changes; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Modification {
    /// New text.
    pub description: Option<String>,
    /// Further product codes. EC2 has no way to take one away.
    pub product_codes: Vec<String>,
    /// A decimal number.
    pub hourly_rate: Option<String>,
    /// What its guest reads metadata by. EC2 has no way to take that back.
    pub imds_support: Option<ImdsSupport>,
}

/// Change an image of one's own.
///
/// # Errors
/// `InvalidParameterValue`; it does not exist, is another's or deregistered.
pub fn modify(store: &Store, id: &ImageId, change: &Modification) -> Result<Image> {
    check_description(change.description.as_deref())?;
    change.product_codes.iter().try_for_each(|code| check_product_code(code))?;
    if change.hourly_rate.as_deref().is_some_and(|rate| parse_rate(rate).is_none()) {
        return Err(invalid("an hourly rate is a number such as 0.05, with at most 6 decimals"));
    }
    store.images().update(id, Durability::Durable, |image| {
        check_own(store, image)?;
        if let Some(text) = &change.description {
            image.description = Some(text.clone()).filter(|text| !text.is_empty());
        }
        for code in &change.product_codes {
            if image.product_codes.iter().all(|old| old.product_code_id != *code) {
                image.product_codes.push(ProductCode {
                    product_code_id: code.clone(),
                    product_code_type: "marketplace".into(),
                });
            }
        }
        if image.product_codes.len() > MAX_CODES {
            return Err(invalid(format!("an image has at most {MAX_CODES} product codes")));
        }
        if let Some(rate) = &change.hourly_rate {
            image.hourly_rate = Some(rate.clone());
        }
        image.imds_support = change.imds_support.or(image.imds_support);
        Ok(image.clone())
    })
}

/// # Errors
/// `InvalidParameterValue`: it is not 1 to 64 letters, digits and dashes.
pub fn check_product_code(code: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if (1..=64).contains(&code.len()) && code.chars().all(fine) {
        return Ok(());
    }
    let shown: String = code.chars().take(64).collect();
    Err(invalid(format!(
        "'{}' is not a product code: it takes 1 to 64 letters, digits and dashes",
        shown.escape_debug()
    )))
}

/// A rate in millionths.
pub fn parse_rate(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    if !digits(whole, 9) || !digits(decimals, 6) {
        return None;
    }
    format!("{whole}{decimals:0<6}").parse().ok()
}

/// Deprecate an image of one's own from `at` on (see [`time::parse`]), or never.
///
/// # Errors
/// `InvalidParameterValue`: that is no time, has passed or is more than ten years away; as
/// [`modify`].
pub fn deprecate(store: &Store, id: &ImageId, at: Option<&str>) -> Result<Image> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = match at {
        None => None,
        Some(text) => {
            let at = time::parse(text).ok_or_else(|| {
                invalid(format!(
                    "'{}' is not a time such as 2030-01-31 or 2030-01-31T12:00:00Z (UTC)",
                    text.escape_debug()
                ))
            })?;
            if at < now || at > now + FARTHEST {
                return Err(invalid(format!("{text} is past, or more than ten years away")));
            }
            Some(rfc3339(at))
        }
    };
    store.images().update(id, Durability::Durable, |image| {
        check_own(store, image)?;
        image.deprecation_time = at;
        Ok(image.clone())
    })
}

/// True if the image is deprecated at `now` (RFC 3339 as [`rfc3339`] writes it).
pub fn is_deprecated(image: &Image, now: &str) -> bool {
    image.deprecation_time.as_deref().is_some_and(|time| time <= now)
}

/// Remember that the image was launched now: one file's time, which any number of launches may set
/// at once. Only the owner's launches leave it: nobody else can write there, and what anybody may
/// write tells nothing. Others' journals, which have their launches, are their own to read.
pub fn launched(store: &Store, image: &Image) {
    if image.owner_id != store.owner_id() {
        return;
    }
    let dir = Owned::open(&store.images().dir(&image.image_id));
    let file = dir.and_then(|dir| dir.open_or_create(LAUNCHED));
    // Not worth a launch: what is lost is one time of many.
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}

/// When the image was last launched (EC2 attribute lastLaunchedTime).
pub fn last_launched(store: &Store, id: &ImageId) -> Option<String> {
    let modified =
        store.images().dir(id).join(LAUNCHED).symlink_metadata().ok()?.modified().ok()?;
    modified.duration_since(UNIX_EPOCH).ok().map(rfc3339)
}

fn invalid(why: impl Into<String>) -> Error {
    Error::refused(Code::InvalidParameterValue, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact() {
        for (text, millionths) in [("0.05", 50_000), ("1", 1_000_000), ("2.000001", 2_000_001)] {
            assert_eq!(parse_rate(text), Some(millionths), "{text}");
        }
        for bad in ["", ".", "1.", ".5", "-1", "1e3", "0.0000001", "9999999999", "٣"] {
            assert_eq!(parse_rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn product_codes_are_plain() {
        assert!(check_product_code("abc-123").is_ok());
        for bad in ["", "a b", "../x", &"x".repeat(65)] {
            assert!(check_product_code(bad).is_err(), "{bad}");
        }
    }
}
