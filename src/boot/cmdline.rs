//! The kernel command line: the image's or the menu's, the user's, and what every instance needs.

use crate::error::{Code, Error, OrFail, Result};
use crate::id::InstanceId;
use crate::mem::GuestRam;
use crate::mem::layout::{CMDLINE, CMDLINE_MAX};
use linux_loader::loader::{Cmdline, load_cmdline};
use vm_memory::GuestAddress;

/// Most bytes without the NUL: Linux's COMMAND_LINE_SIZE on x86 is 2048, and it drops the rest
/// without a word.
pub const MAX: usize = 2047;
const _: () = assert!((MAX as u64) < CMDLINE_MAX);

/// Refuse a command line that a kernel would not read to its end.
///
/// # Errors
/// Longer than [`MAX`], or with a NUL in it.
pub fn check(cmdline: &str) -> Result<()> {
    let refused = |why| Err(Error::refused(Code::InvalidParameterValue, why));
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
    let doing = || "write the kernel command line";
    let line = Cmdline::try_from(cmdline, MAX + 1).or_fail(doing)?;
    load_cmdline(&**ram, GuestAddress(CMDLINE), &line).or_fail(doing)
}

/// Put a command line together: `base` (the image's), then the defaults that it and `append` lack
/// (`root` is the root's device), then the identity, then `append`, whose parameters win because
/// the kernel takes the last of each. What stands after `--` is for init
/// (Documentation/admin-guide/kernel-parameters.rst) and stays at the end.
///
/// # Errors
/// Longer than the kernel takes, or not one line of text.
pub fn assemble(
    base: &str,
    append: &str,
    root: &str,
    (id, index): (&InstanceId, u32),
) -> Result<String> {
    let (base, base_init) = split_init(base);
    let (append, append_init) = split_init(append);
    let given: Vec<&str> = base.split_whitespace().chain(append.split_whitespace()).collect();
    let has = |name: &str| given.iter().any(|p| p.split('=').next() == Some(name));

    let mut words = vec![base.trim().to_owned()];
    if !has("console") {
        words.push("console=ttyS0".into());
    }
    if !has("root") {
        words.push(format!("root={root}"));
    }
    if !has("ro") && !has("rw") {
        words.push("rw".into());
    }
    // A panic ends the instance instead of leaving it to hang.
    if !has("panic") {
        words.push("panic=-1".into());
    }
    words.push(format!("spore.instance={id} spore.index={index}"));
    words.push(append.trim().to_owned());
    if base_init.is_some() || append_init.is_some() {
        words.push("--".into());
        words.extend([base_init, append_init].into_iter().flatten().map(|w| w.trim().to_owned()));
    }
    words.retain(|word| !word.is_empty());
    let line = words.join(" ");
    if line.chars().any(char::is_control) {
        return Err(Error::usage("the kernel command line contains a control character"));
    }
    check(&line)?;
    Ok(line)
}

/// Cut at the word `--`.
fn split_init(line: &str) -> (&str, Option<&str>) {
    let mut from = 0;
    while let Some(at) = line[from..].find("--").map(|at| at + from) {
        let before = line[..at].chars().next_back().is_none_or(char::is_whitespace);
        let after = line[at + 2..].chars().next().is_none_or(char::is_whitespace);
        if before && after {
            return (&line[..at], Some(&line[at + 2..]));
        }
        from = at + 2;
    }
    (line, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    fn line(base: &str, append: &str) -> String {
        let id = "i-0123456789abcdef0".parse().unwrap();
        assemble(base, append, "/dev/vda", (&id, 3)).unwrap()
    }

    #[test]
    fn defaults_stand_in_for_what_is_absent() {
        assert_eq!(
            line("", ""),
            "console=ttyS0 root=/dev/vda rw panic=-1 spore.instance=i-0123456789abcdef0 spore.index=3"
        );
        assert_eq!(
            line("console=hvc0 root=UUID=1 ro", "panic=5 quiet"),
            "console=hvc0 root=UUID=1 ro spore.instance=i-0123456789abcdef0 spore.index=3 panic=5 quiet"
        );
    }

    #[test]
    fn arguments_of_init_stay_behind_the_dashes() {
        assert_eq!(
            line("root=/dev/vdb -- single", "ro x--y -- three"),
            "root=/dev/vdb console=ttyS0 panic=-1 spore.instance=i-0123456789abcdef0 spore.index=3 ro x--y -- single three"
        );
    }

    #[test]
    fn what_is_written_is_the_line_and_a_nul() {
        let ram = crate::mem::ram::create(16 << 20).unwrap();
        for line in [
            String::new(),
            line("quiet  splash", "a=\"b -- c\" é -- single x -- y"),
            line("", "x -- "),
            "x".repeat(MAX),
        ] {
            write(&line, &ram).unwrap();
            let mut bytes = vec![0xff; line.len() + 1];
            ram.read_slice(&mut bytes, GuestAddress(CMDLINE)).unwrap();
            assert_eq!(bytes, [line.as_bytes(), b"\0"].concat());
        }
        assert!(write(&"x".repeat(MAX + 1), &ram).is_err());
    }

    #[test]
    fn a_line_that_the_kernel_would_cut_is_refused() {
        let id = "i-0123456789abcdef0".parse().unwrap();
        let long = "x".repeat(MAX + 1);
        assert!(assemble("", &long, "/dev/vda", (&id, 0)).unwrap_err().message().contains("2047"));
        assert!(assemble("", "a\nb", "/dev/vda", (&id, 0)).is_err());
    }

    #[test]
    fn what_the_kernel_would_cut_is_refused() {
        assert!(check(&"a".repeat(MAX)).is_ok());
        assert!(check(&"a".repeat(MAX + 1)).unwrap_err().message().contains("2048 bytes"));
        assert!(check("root=/dev/vda\0 init=/bin/sh").unwrap_err().message().contains("NUL"));
    }
}
