//! What only the program `spore-remote` can do.
//!
//! A virtual machine's process is this very program, and begins with relocating all of its code: TLS, HTTP and RSA
//! would cost each start half a millisecond. So they are in a second program, which has everything that the first has.
//! A command that turns out to need it becomes it, with its own arguments, before it has changed anything.

use super::backend::{Backend, Objects};
use crate::error::{Error, Result};
use crate::helper::beside;
use crate::record::image::Image;
use crate::store::Store;
use crate::transfer::bundle::{Bundle, RegisterBundle};
use crate::transfer::region::{Location, S3Location};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

/// The other program's name; it is beside this one.
const PROGRAM: &str = "spore-remote";

/// Whose code is in the other program.
pub(crate) struct Helper {
    pub region: fn(&Location) -> Result<Box<dyn Backend>>,
    pub bucket: fn(&S3Location) -> Result<Box<dyn Objects>>,
    pub bundle: fn(&Store, &Bundle, &str) -> Result<String>,
    pub register: fn(&Store, &RegisterBundle) -> Result<Image>,
}

pub(in crate::transfer) static HELPER: OnceLock<Helper> = OnceLock::new();

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
