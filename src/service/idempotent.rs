//! ClientToken: a launch that is asked for again is done once. (EC2 Developer Guide, "Ensuring
//! idempotency in Amazon EC2 API requests")
//!
//! What was launched is found in the instances' own records, so nothing has to be kept beside them:
//! a token is good for as long as one of its instances is told.

use super::instances;
use crate::error::{Code, Error, OrFail, Result};
use crate::record::instance::InstanceRecord;
use crate::record::token::ClientToken;
use crate::store::{Record, Store};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::fs::File;

/// Most characters of a token. (EC2 API Reference, RunInstances)
const MAX_TOKEN: usize = 64;
/// Where the locks are in the account's directory, which tokens share by their digests.
const DIRECTORY: &str = "client-tokens";
const LOCKS: u8 = 32;

/// The turn of a request among all with its token: nobody else has it until this is dropped.
///
/// # Errors
/// `InvalidParameterValue`: the token is none; no space.
pub fn turn(store: &Store, given: &ClientToken) -> Result<File> {
    turn_among(store, "", given)
}

/// The same of a copy, which may wait for another region: only copies wait for it.
///
/// # Errors
/// As [`turn`]'s.
pub fn copys_turn(store: &Store, given: &ClientToken) -> Result<File> {
    turn_among(store, "copy-", given)
}

fn turn_among(store: &Store, of: &str, given: &ClientToken) -> Result<File> {
    let fits = (1..=MAX_TOKEN).contains(&given.token.len());
    if !fits || !given.token.bytes().all(|c| c.is_ascii_graphic()) {
        let why = format!("a ClientToken has 1 to {MAX_TOKEN} ASCII characters, and no spaces");
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    let number = Sha256::digest(&given.token)[0] % LOCKS;
    let doing = || "wait for the turn of a ClientToken";
    let dir = store.account()?.make_dir(DIRECTORY).or_fail(doing)?;
    let file = dir.open_or_create(&format!("{of}{number}")).or_fail(doing)?;
    flock(&file, FlockOperation::LockExclusive).or_fail(doing)?;
    Ok(file)
}

/// What a request with that token has launched before; nothing, if it is the first.
///
/// # Errors
/// `IdempotentParameterMismatch`: that was another request. The store can't be read.
pub fn launched(store: &Store, given: &ClientToken) -> Result<Vec<InstanceRecord>> {
    let mut records = instances::all(store)?;
    let token = |record: &InstanceRecord| {
        record.instance.client_token.as_ref().is_some_and(|other| other.token == given.token)
    };
    records.retain(|record| record.owner_id == store.owner_id() && token(record));
    match records.first() {
        Some(first) if first.instance.client_token.as_ref() != Some(given) => {
            Err(mismatch(given, &first.instance.instance_id))
        }
        _ => Ok(records),
    }
}

/// Which of these a request with that token has made before.
///
/// # Errors
/// `IdempotentParameterMismatch`: that was another request.
pub fn made<R: Record>(
    store: &Store,
    records: Vec<R>,
    token: impl Fn(&R) -> Option<ClientToken>,
    given: &ClientToken,
) -> Result<Option<R>> {
    let under = |record: &R| {
        let same = token(record).is_some_and(|had| had.token == given.token);
        same && record.owner() == store.owner_id()
    };
    match records.into_iter().find(under) {
        Some(made) if token(&made).as_ref() != Some(given) => Err(mismatch(given, made.id())),
        found => Ok(found),
    }
}

/// The error for a token under which something else was asked for.
pub fn mismatch(given: &ClientToken, made: &impl Display) -> Error {
    let why = format!(
        "the ClientToken '{}' was given with other parameters, for {made}; give another token",
        given.token
    );
    Error::refused(Code::IdempotentParameterMismatch, why)
}
