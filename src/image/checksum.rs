//! Checksums by which publishers say what a file is, and the files in which they say it.

use crate::error::{Code, Error, Result};
use crate::id::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::fmt;
use std::str::FromStr;

/// How a checksum is made. What is weaker than SHA-256 vouches for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// As it is written before a checksum.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Hexadecimal digits of a checksum.
    const fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// The one whose checksums have so many digits.
    fn of_digits(count: usize) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|algorithm| algorithm.digits() == count)
    }
}

/// A checksum: `sha256:HEX` or `sha512:HEX`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Checksum {
    algorithm: Algorithm,
    /// In lower case.
    hex: String,
}

impl Checksum {
    /// How it is made.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its digits, in lower case.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Of hexadecimal digits, by their number; `None` if they are none.
    fn of_hex(text: &str) -> Option<Self> {
        let algorithm = Algorithm::of_digits(text.len())?;
        let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| Self { algorithm, hex: text.to_ascii_lowercase() })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Checksum {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once(':').and_then(|(name, digits)| {
            Self::of_hex(digits).filter(|sum| sum.algorithm.name().eq_ignore_ascii_case(name))
        });
        parsed.ok_or_else(|| {
            let shown: String = text.escape_debug().take(160).collect();
            let why = format!("'{shown}' is no checksum");
            Error::refused(Code::InvalidParameterValue, why)
                .remedy("give sha256: and 64 hexadecimal digits, or sha512: and 128")
        })
    }
}

impl TryFrom<String> for Checksum {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Checksum> for String {
    fn from(sum: Checksum) -> Self {
        sum.to_string()
    }
}

/// What makes the checksums of bytes that come in order: always SHA-256, and what else is asked.
#[derive(Clone)]
pub struct Hasher {
    sha256: Sha256,
    sha512: Option<Sha512>,
}

impl Hasher {
    /// One whose sums can be compared with `expected`.
    pub fn new(expected: Option<&Checksum>) -> Self {
        let more = expected.is_some_and(|sum| sum.algorithm == Algorithm::Sha512);
        Self { sha256: Sha256::new(), sha512: more.then(Sha512::new) }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    /// The checksums of what came: SHA-256 first.
    pub fn finish(self) -> Vec<Checksum> {
        let sum = |algorithm, digest: &[u8]| Checksum { algorithm, hex: hex(digest) };
        let sha512 = self.sha512.map(|hasher| sum(Algorithm::Sha512, &hasher.finalize()));
        let sha256 = sum(Algorithm::Sha256, &self.sha256.finalize());
        [sha256].into_iter().chain(sha512).collect()
    }
}

/// The checksums that a publisher's file lists, with the names of the files that they are of. What
/// else it has is passed over: comments, signatures, sizes.
///
/// Known are what sha256sum(1) writes (`HEX  NAME`, `HEX *NAME`), what `--tag` and BSD write
/// (`SHA256 (NAME) = HEX`), and a checksum alone.
pub fn listed(text: &str) -> Vec<(String, Checksum)> {
    text.lines().filter_map(|line| line_of(line.trim())).collect()
}

fn line_of(line: &str) -> Option<(String, Checksum)> {
    if let Some((head, digits)) = line.rsplit_once(" = ") {
        let (word, name) = head.split_once(" (")?;
        let sum = Checksum::of_hex(digits)?;
        let named = word.replace('-', "").eq_ignore_ascii_case(sum.algorithm.name());
        return named.then_some((base(name.strip_suffix(')')?), sum));
    }
    let (digits, name) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let name = name.trim_start().trim_start_matches('*');
    Some((base(name), Checksum::of_hex(digits)?))
}

/// The last part of a path: some lists have `./NAME`.
fn base(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn checksums_are_what_sha256sum_says() {
        let mut hasher = Hasher::new(None);
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        let sums = hasher.finish();
        assert_eq!(sums, [format!("sha256:{A}").parse::<Checksum>().unwrap()]);
        let long = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
        let sums = Hasher::new(Some(&long)).finish();
        assert_eq!(sums[1].algorithm(), Algorithm::Sha512);
        assert!(sums[1].hex().starts_with("cf83e1357eefb8bd"), "of nothing (FIPS 180-4)");
    }

    #[test]
    fn a_checksum_has_an_algorithm_and_its_digits() {
        let upper = format!("SHA256:{}", A.to_uppercase());
        assert_eq!(upper.parse::<Checksum>().unwrap().to_string(), format!("sha256:{A}"));
        for bad in ["", A, "md5:0", "sha256:", &format!("sha512:{A}"), &format!("sha256:{A}0")] {
            assert!(bad.parse::<Checksum>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_all_kinds_are_read() {
        let long = "ab".repeat(64);
        let text = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# a.qcow2: 123 bytes\n\
             SHA256 (a.qcow2) = {A}\nSHA256 (a.qcow2) = {long}\n{A} *b.img\n{long}  ./c.raw\n{A}\n\
             d41d8cd98f00b204e9800998ecf8427e  weak.img\nSHA1 (x) = {A}\n"
        );
        let found = listed(&text);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.qcow2", "b.img", "c.raw", ""]);
        assert_eq!(found[2].1.to_string(), format!("sha512:{long}"));
    }
}
