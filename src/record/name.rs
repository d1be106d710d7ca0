//! What the name of an image, a kernel or a ramdisk may be.

use crate::error::{Code, Error, Result};

/// Fewest characters of a name.
const MIN: usize = 3;
/// Most characters of a name.
const MAX: usize = 128;
/// Allowed in a name beside letters and digits (EC2 API reference, RegisterImage, Name).
const PUNCTUATION: &str = "()[] ./-'@_";

/// # Errors
/// `InvalidAMIName.Malformed`: the name is not one that EC2 allows.
pub fn check(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c);
    let length = name.chars().count();
    if (MIN..=MAX).contains(&length) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::refused(
        Code::InvalidAMINameMalformed,
        format!(
            "'{}' is not a name: it takes {MIN} to {MAX} letters, digits, spaces and ()[]./-'@_",
            name.escape_debug()
        ),
    ))
}

/// A name made of a file's: what is not allowed becomes a dash.
pub fn from_file(file_name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut name: String =
        file_name.chars().take(MAX - 20).map(|c| if allowed(c) { c } else { '-' }).collect();
    while name.len() < MIN {
        name.push('-');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ec2s() {
        for good in ["abc", "debian/12 (amd64) [2026.1]-v1_a@b'c", &"x".repeat(128)] {
            assert!(check(good).is_ok(), "{good}");
            assert!(check(&from_file(good)).is_ok(), "{good}");
        }
        for bad in ["", "ab", "a:b", "naïve", "tab\there", "line\nbreak", &"x".repeat(129)] {
            assert_eq!(
                check(bad).unwrap_err().code(),
                Some(Code::InvalidAMINameMalformed),
                "{bad}"
            );
            assert!(check(&from_file(bad)).is_ok(), "{bad}");
        }
    }
}
