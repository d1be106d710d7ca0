//! Writes a plan that is JSON on stdin as a VMM reads it, for those who start one by hand, as
//! scripts/bench does.

use sporevm::plan::VmPlan;
use std::io::{Error, Write, stdin, stdout};

fn main() -> Result<(), Error> {
    let plan: VmPlan = serde_json::from_reader(stdin())?;
    stdout().write_all(&plan.to_bytes().map_err(Error::other)?)
}
