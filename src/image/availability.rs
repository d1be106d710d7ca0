//! Whether an image can be launched, and whether it can be deregistered, as its owner wants it.

use super::catalog::check_own;
use super::permission::{self, Change};
use crate::error::{Code, Error, Result};
use crate::id::ImageId;
use crate::record::image::{DeregistrationProtection, Image, ImageState};
use crate::store::{Durability, Store, now, rfc3339};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a protection with a cooldown goes on once it is taken away. (EC2 User Guide, "Protect
/// an AMI from deregistration")
const COOLDOWN: Duration = Duration::from_secs(86_400);

/// Put an image of one's own aside: nobody may launch it, and others don't see it any more. One
/// that is disabled already stays so.
///
/// # Errors
/// It does not exist, is another's, deregistered or not available.
pub fn disable(store: &Store, id: &ImageId) -> Result<Image> {
    let image = store.images().get(id)?;
    check_own(store, &image)?;
    if super::builtin::is(id) {
        let why = format!("image {id} is built in, and comes back when it is asked for");
        return Err(Error::refused(Code::OperationNotPermitted, why));
    }
    if image.state == ImageState::Disabled {
        return Ok(image);
    }
    // Nobody has it shared when it comes back, as on EC2.
    permission::change(store, id, &Change { reset: true, ..Change::default() })?;
    set(store, id, ImageState::Available, ImageState::Disabled)
}

/// Have an image of one's own launched again. It is shared with nobody.
///
/// # Errors
/// It does not exist, is another's, or is not disabled.
pub fn enable(store: &Store, id: &ImageId) -> Result<Image> {
    set(store, id, ImageState::Disabled, ImageState::Available)
}

fn set(store: &Store, id: &ImageId, from: ImageState, to: ImageState) -> Result<Image> {
    store.images().update(id, Durability::Durable, |image| {
        check_own(store, image)?;
        if image.state != from && image.state != to {
            let why = format!("image {id} is {:?}", image.state).to_lowercase();
            return Err(Error::refused(Code::InvalidAMIIDUnavailable, why));
        }
        image.state = to;
        Ok(image.clone())
    })
}

/// Keep an image of one's own from being deregistered.
///
/// # Errors
/// It does not exist, is another's or deregistered; it is built in.
pub fn protect(store: &Store, id: &ImageId, with_cooldown: bool) -> Result<Image> {
    if super::builtin::is(id) {
        let why = format!("image {id} is built in, and comes back when it is asked for");
        return Err(Error::refused(Code::OperationNotPermitted, why));
    }
    store.images().update(id, Durability::Durable, |image| {
        check_own(store, image)?;
        let protection = DeregistrationProtection { with_cooldown, until: None };
        image.deregistration_protection = Some(protection);
        Ok(image.clone())
    })
}

/// Let an image of one's own be deregistered again, where it was protected with a cooldown a day
/// from now.
///
/// # Errors
/// It does not exist, is another's or deregistered.
pub fn unprotect(store: &Store, id: &ImageId) -> Result<Image> {
    store.images().update(id, Durability::Durable, |image| {
        check_own(store, image)?;
        match &mut image.deregistration_protection {
            Some(protection) if protection.word(&now()).is_none() => {
                image.deregistration_protection = None;
            }
            Some(protection) if protection.with_cooldown => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                // Who asks again does not begin again.
                protection.until.get_or_insert_with(|| rfc3339(since + COOLDOWN));
            }
            _ => image.deregistration_protection = None,
        }
        Ok(image.clone())
    })
}
