//! Products: what must be agreed to before an image that carries its code is launched.

use super::attribute::check_product_code;
use super::record::Image;
use crate::error::{Error, OrFail, Result};
use crate::store::journal::Event;
use crate::store::{Store, sync_dir};
use crate::volume::owner_id;
use serde_json::Value;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// Accepted codes are empty files here, in the account's directory.
fn dir(store: &Store) -> PathBuf {
    store.account_dir().join("products")
}

/// Agree to a product's terms and rate. Twice is as good as once.
///
/// # Errors
/// It is no product code; no space.
pub fn accept(store: &Store, code: &str) -> Result<()> {
    check_product_code(code)?;
    store.note_of(Event::Created, "product", code, Value::Null);
    let dir = dir(store);
    let doing = || format!("accept the product {code}");
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).or_fail(doing)?;
    crate::store::fault::point("acceptance of a product");
    File::create(dir.join(code)).or_fail(doing)?;
    sync_dir(&dir)
}

/// Take an acceptance back: nothing new of it is launched.
///
/// # Errors
/// `InvalidProductCode.NotFound`: it is not accepted.
pub fn cancel(store: &Store, code: &str) -> Result<()> {
    check_product_code(code)?;
    match fs::remove_file(dir(store).join(code)) {
        Ok(()) => {
            store.note_of(Event::Removed, "product", code, Value::Null);
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::refused(
            "InvalidProductCode.NotFound",
            format!("the product {code} is not accepted"),
        )),
        Err(e) => Err(Error::io(format!("cancel the product {code}"), e)),
    }
}

/// The accepted codes, sorted.
pub fn accepted(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(dir(store)).into_iter().flatten().flatten();
    let mut codes: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    codes.sort();
    codes
}

/// # Errors
/// `OptInRequired`: somebody else's image carries a product code that is not accepted.
pub fn check(store: &Store, image: &Image) -> Result<()> {
    if image.owner_id == owner_id() {
        return Ok(());
    }
    let missing = image
        .product_codes
        .iter()
        .map(|code| &code.product_code_id)
        .find(|code| check_product_code(code).is_err() || !dir(store).join(code).exists());
    let Some(code) = missing else { return Ok(()) };
    let rate = image.hourly_rate.as_deref().map(|rate| format!(", at {rate} an hour"));
    Err(Error::refused(
        "OptInRequired",
        format!(
            "image '{}' carries the product {code}{}; 'spore product accept {code}' first",
            image.name,
            rate.unwrap_or_default()
        ),
    ))
}
