//! The kernel command line.

use crate::error::{Error, OrFail, Result};
use crate::mem::GuestRam;
use crate::mem::layout::{CMDLINE, CMDLINE_MAX};
use vm_memory::{Bytes, GuestAddress};

/// Most bytes without the NUL: Linux's COMMAND_LINE_SIZE on x86 is 2048, and it drops the rest without a word.
pub const MAX: usize = 2047;
const _: () = assert!((MAX as u64) < CMDLINE_MAX);

/// Refuse a command line that a kernel would not read to its end.
///
/// # Errors
/// Longer than [`MAX`], or with a NUL in it.
pub fn check(cmdline: &str) -> Result<()> {
    let refused = |why| Err(Error::refused("InvalidParameterValue", why));
    if cmdline.contains('\0') {
        return refused(
            "the kernel command line contains a NUL, at which the kernel would stop reading; take it out"
                .into(),
        );
    }
    if cmdline.len() > MAX {
        return refused(format!(
            "the kernel command line has {} bytes, the kernel reads {MAX}; shorten it",
            cmdline.len()
        ));
    }
    Ok(())
}

/// Write it, and the NUL, at [`CMDLINE`].
///
/// # Errors
/// As [`check`].
pub fn write(cmdline: &str, ram: &GuestRam) -> Result<()> {
    check(cmdline)?;
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    ram.write_slice(&bytes, GuestAddress(CMDLINE)).or_fail(|| "write the kernel command line")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_would_cut_is_refused() {
        assert!(check(&"a".repeat(MAX)).is_ok());
        assert!(check(&"a".repeat(MAX + 1)).unwrap_err().message().contains("2048 bytes"));
        assert!(check("root=/dev/vda\0 init=/bin/sh").unwrap_err().message().contains("NUL"));
    }
}
