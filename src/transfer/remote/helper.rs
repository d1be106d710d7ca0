//! What only the program `spore-remote` can do.
//!
//! A virtual machine's process is this very program, and begins with relocating all of its code:
//! TLS, HTTP and RSA would cost each start half a millisecond. So they are in a second program,
//! which has everything that the first has. A command that turns out to need it fails before it has
//! changed anything, and the command line becomes that program, with the same arguments.

use super::backend::{Backend, Objects};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::helper::{REMOTE, beside};
use crate::record::image::Image;
use crate::store::Store;
use crate::transfer::bundle::{Bundle, RegisterBundle};
use crate::transfer::download::transport::Transport;
use crate::transfer::region::{Location, S3Location};
use std::fmt;
use std::path::PathBuf;

/// Whose code is in the other program.
pub(crate) struct Helper {
    pub region: fn(&Location) -> Result<Box<dyn Backend>>,
    pub bucket: fn(&S3Location) -> Result<Box<dyn Objects>>,
    pub transport: fn(&str, bool) -> Result<Box<dyn Transport>>,
    pub bundle: fn(&Store, &Bundle, &str) -> Result<String>,
    pub register: fn(&Store, &RegisterBundle) -> Result<Image>,
}

/// The source of an error that says: another program can do this.
#[derive(Debug)]
struct Missing;

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{REMOTE} can do this")
    }
}

impl std::error::Error for Missing {}

/// Whether this program could not do it, and `spore-remote` can.
pub fn is_missing(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Missing>())
}

/// The rest of the program.
///
/// # Errors
/// This program does not have it ([`is_missing`]).
pub(crate) fn helper(context: &Context) -> Result<&'static Helper> {
    context.extension().ok_or_else(|| missing("talks to buckets and registries"))
}

/// The error for what the other program does, in its own words ([`is_missing`]).
pub fn missing(does: &str) -> Error {
    let why = format!("{REMOTE} {does}, and this program does not");
    Error::failure(why).remedy(format!("run {REMOTE}")).because(Missing)
}

/// The program that has the rest.
///
/// # Errors
/// This program can't be found.
pub fn remote() -> Result<PathBuf> {
    beside(REMOTE)
}
