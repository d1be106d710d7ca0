//! What only the program `spore-remote` can do.
//!
//! A virtual machine's process is this very program, and begins with relocating all of its code: TLS, HTTP and RSA
//! would cost each start half a millisecond. So they are in a second program, which has everything that the first has.
//! A command that turns out to need it becomes it, with its own arguments, before it has changed anything.

use super::{Answer, net};
use crate::error::{Error, Result};
use crate::helper::beside;
use crate::record::image::Image;
use crate::store::Store;
use crate::transfer::bundle::{self, Bundle, RegisterBundle};
use crate::transfer::package::Chunk;
use crate::transfer::region::{Location, S3Location};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

/// The other program's name; it is beside this one.
const PROGRAM: &str = "spore-remote";

/// A remote region, as a store of packages and of content by digest.
pub(crate) trait Backend: Send + Sync {
    /// The ids of the images and snapshots in it.
    fn list(&self) -> Answer<Vec<String>>;
    /// The package of an image or a snapshot, of at most `limit` bytes.
    fn package(&self, id: &str, limit: u64) -> Answer<Vec<u8>>;
    /// Whether it has this content.
    fn has(&self, digest: &str) -> Answer<bool>;
    /// Take content.
    fn put(&self, digest: &str, bytes: Vec<u8>) -> Answer<()>;
    /// Give content of `size` bytes.
    fn get(&self, digest: &str, size: u64) -> Answer<Vec<u8>>;
    /// Let an image or a snapshot appear, in place of what has its id.
    fn publish(&self, id: &str, json: Vec<u8>, chunks: &[&Chunk]) -> Answer<()>;
}

/// A bucket, as a place for objects by name.
pub(crate) trait Objects: Send + Sync {
    /// The object, of at most `limit` bytes.
    fn read(&self, name: &str, limit: u64) -> Answer<Vec<u8>>;
    /// Make or replace it.
    fn write(&self, name: &str, bytes: Vec<u8>) -> Answer<()>;
    /// It is gone then.
    fn delete(&self, name: &str) -> Answer<()>;
    /// Its size, and what tells that it is the same as before.
    fn stamp(&self, name: &str) -> Answer<(u64, String)>;
    /// What is in the directory of that name: the last part of each name, and when it was written, in milliseconds since
    /// the epoch by the service's clock.
    fn list(&self, place: &str) -> Answer<Vec<(String, u64)>>;
}

/// Whose code is in the other program.
pub(crate) struct Helper {
    pub region: fn(&Location) -> Result<Box<dyn Backend>>,
    pub bucket: fn(&S3Location) -> Result<Box<dyn Objects>>,
    pub bundle: fn(&Store, &Bundle, &str) -> Result<String>,
    pub register: fn(&Store, &RegisterBundle) -> Result<Image>,
}

static HELPER: OnceLock<Helper> = OnceLock::new();

/// This program has it all. The first thing that `spore-remote` does.
pub fn provide() {
    crate::helper::this_is_another();
    let _ = HELPER.set(Helper {
        region: net::region,
        bucket: net::bucket,
        bundle: bundle::write::write,
        register: bundle::read::register,
    });
}

/// The rest of the program. One that lacks it becomes the one that has it.
///
/// # Errors
/// There is no such program.
pub(crate) fn helper() -> Result<&'static Helper> {
    if let Some(helper) = HELPER.get() {
        return Ok(helper);
    }
    let path = beside(PROGRAM)?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(&path);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let cause = command.args(arguments).exec();
    Err(Error::failure(format!(
        "cannot run {}: {cause}; it is installed beside spore, and talks to buckets and registries",
        path.display()
    )))
}
