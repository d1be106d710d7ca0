//! Products: what must be agreed to before an image that carries its code is launched.

use super::attribute::check_product_code;
use crate::error::{Code, Error, OrFail, Result};
use crate::record::image::Image;
use crate::store::Store;
use crate::store::beneath::Owned;
use crate::store::journal::Event;
use serde_json::Value;

/// Accepted codes are empty files here, in the account's directory.
const DIRECTORY: &str = "products";

fn dir(store: &Store) -> std::io::Result<Owned> {
    Owned::open(&store.account_dir())?.dir(DIRECTORY)
}

/// Agree to a product's terms and rate. Twice is as good as once.
///
/// # Errors
/// It is no product code; no space.
pub fn accept(store: &Store, code: &str) -> Result<()> {
    check_product_code(code)?;
    store.append_event_of(Event::Created, "product", code, Value::Null);
    let accept = |dir: Owned| {
        crate::sys::fault::point("acceptance of a product");
        drop(dir.open_or_create(code)?);
        dir.sync()
    };
    let accepted = store.account()?.make_dir(DIRECTORY).and_then(accept);
    accepted.or_fail(|| format!("accept the product {code}"))
}

/// Take an acceptance back: nothing new of it is launched.
///
/// # Errors
/// `InvalidProductCode.NotFound`: it is not accepted.
pub fn cancel(store: &Store, code: &str) -> Result<()> {
    check_product_code(code)?;
    match dir(store).and_then(|dir| dir.remove(code)) {
        Ok(()) => {
            store.append_event_of(Event::Removed, "product", code, Value::Null);
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::refused(
            Code::InvalidProductCodeNotFound,
            format!("the product {code} is not accepted"),
        )),
        Err(e) => Err(Error::io(format!("cancel the product {code}"), e)),
    }
}

/// The accepted codes, sorted.
pub fn accepted(store: &Store) -> Vec<String> {
    let mut codes = dir(store).and_then(|dir| dir.names()).unwrap_or_default();
    codes.sort();
    codes
}

/// # Errors
/// `OptInRequired`: somebody else's image carries a product code that is not accepted.
pub fn check(store: &Store, image: &Image) -> Result<()> {
    if image.owner_id == store.owner_id() {
        return Ok(());
    }
    let missing = image.product_codes.iter().map(|code| &code.product_code_id).find(|code| {
        check_product_code(code).is_err() || !dir(store).is_ok_and(|dir| dir.has(code))
    });
    let Some(code) = missing else { return Ok(()) };
    let rate = image.hourly_rate.as_deref().map(|rate| format!(", at {rate} an hour"));
    Err(Error::refused(
        Code::OptInRequired,
        format!(
            "image '{}' carries the product {code}{}; 'spore product accept {code}' first",
            image.name,
            rate.unwrap_or_default()
        ),
    ))
}
