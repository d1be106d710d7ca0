//! Which transports an initial ramdisk has drivers for: an instance gets one that its ramdisk can drive.
//!
//! A ramdisk is what somebody packed and may be made to hurt, so a process of its own unpacks it: `__modules`, which has the
//! file open, no other way to anything, few system calls, and little memory and time. Its answer is a word a line.

mod inside;

pub use inside::main;

use super::child;
use crate::error::{OrFail, Result};
use crate::plan::Transport;
use std::fs::File;

/// The hidden subcommand: `__modules FD`, the ramdisk.
pub const SUBCOMMAND: &str = "__modules";
/// Most bytes of the answer that are read.
const MAX_ANSWER: u64 = 4 << 10;

/// The transports that `ramdisk` has drivers for, the default first; none if that can't be told: it has no modules, or
/// is packed in a way that is not known here. That is no reason not to register it.
pub fn transports(ramdisk: &File) -> Vec<Transport> {
    ask(ramdisk).unwrap_or_default()
}

fn ask(ramdisk: &File) -> Result<Vec<Transport>> {
    let file = ramdisk.try_clone().or_fail(|| "pass the ramdisk on")?;
    let (status, answer) = child::ask(SUBCOMMAND, &[(file, "")], MAX_ANSWER)?;
    // Half a look could miss the one driver that matters.
    Ok(if status.success() { understand(&answer) } else { Vec::new() })
}

fn understand(answer: &str) -> Vec<Transport> {
    let said = |word: &str| answer.lines().any(|line| line == word);
    let known = [("mmio", Transport::Mmio), ("pci", Transport::Pci)];
    known.into_iter().filter(|(word, _)| said(word)).map(|(_, transport)| transport).collect()
}
