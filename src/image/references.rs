//! What images refer to, and so keep from being removed.

use crate::error::{Code, Error, Result};
use crate::record::image::{Image, ImageState};
use crate::store::Store;

/// # Errors
/// An image `uses` the object. An image that can't be read might: it must be repaired or removed
/// first.
pub(crate) fn refuse_in_use(
    store: &Store,
    code: Code,
    object: &str,
    uses: impl Fn(&Image) -> bool,
) -> Result<()> {
    let listing = store.images().list()?;
    let users: Vec<String> = listing
        .records
        .iter()
        // Nobody else's image can be made of it, whatever its record says.
        .filter(|image| image.owner_id == store.owner_id())
        .filter(|image| image.state != ImageState::Deregistered && uses(image))
        .map(|image| format!("{} ('{}')", image.image_id, image.name))
        .collect();
    if !users.is_empty() {
        return Err(Error::refused(
            code,
            format!("{object} is used by {}; deregister that first", users.join(", ")),
        ));
    }
    match listing.broken.into_iter().next() {
        Some(broken) => Err(broken.context(format!("can't tell whether {object} is in use"))),
        None => Ok(()),
    }
}
