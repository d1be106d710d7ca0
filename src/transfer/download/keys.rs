//! Publishers' OpenPGP certificates that this host has: from the user, and from packages.

use crate::id::hex;
use crate::store::{beneath, config_home};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where packages put keys, by themselves or in directories of distributions.
const SYSTEM: [&str; 3] =
    ["/usr/share/keyrings", "/usr/share/distribution-gpg-keys", "/etc/pki/rpm-gpg"];
/// Longest file of keys, in bytes, and most files that are looked at.
const MAX_FILE: u64 = 4 << 20;
const MAX_FILES: usize = 1000;
/// Packet tags. (RFC 9580, 5)
const PUBLIC_KEY: u8 = 6;

/// The user's own: `$XDG_CONFIG_HOME/spore/keys`, else in `~/.config`.
pub fn own_dir() -> Option<PathBuf> {
    Some(config_home()?.join("spore/keys"))
}

/// The certificates whose primary keys have one of these fingerprints (40 hexadecimal digits, in
/// upper case), one after the other in binary. What can't be read is passed over.
pub fn certificates(fingerprints: &[String]) -> Vec<u8> {
    let mut files = Vec::new();
    let dirs = own_dir().into_iter().chain(SYSTEM.map(PathBuf::from));
    dirs.for_each(|dir| list(&dir, 1, &mut files));
    let mut found = Vec::new();
    for path in files {
        let Ok(file) = beneath::foreign_file(&path) else { continue };
        let mut bytes = Vec::new();
        if file.take(MAX_FILE).read_to_end(&mut bytes).is_err() {
            continue;
        }
        for certificate in split(&binary(bytes)) {
            let is = |one: &String| fingerprint(certificate).as_ref() == Some(one);
            // One key may be in several files.
            if fingerprints.iter().any(is) && !contains(&found, certificate) {
                found.extend_from_slice(certificate);
            }
        }
    }
    found
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

/// The files in a directory, and in its directories down to `depth`.
fn list(dir: &Path, depth: u32, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if files.len() >= MAX_FILES {
            return;
        }
        match path.is_dir() {
            true if depth > 0 => list(&path, depth - 1, files),
            true => {}
            false => files.push(path),
        }
    }
}

/// A file of keys without its armor, if it has one. (RFC 9580, 6.2)
fn binary(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&bytes) else { return bytes };
    let mut found = Vec::new();
    for block in text.split("-----BEGIN PGP PUBLIC KEY BLOCK-----").skip(1) {
        let block = block.split("-----END PGP").next().unwrap_or_default();
        // Headers end with an empty line; a line that begins with '=' is the checksum.
        let body = block.trim_start_matches([' ', '\t', '\r']).lines().skip(1);
        let body = body.skip_while(|line| line.contains(": ")).map(str::trim);
        let body: String = body.filter(|line| !line.starts_with('=')).collect();
        found.extend(STANDARD.decode(body).unwrap_or_default());
    }
    found
}

/// The certificates in `bytes`, each from its primary key to before the next one's.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let (mut begun, mut at) = (None, 0);
    while let Some(Packet { tag, end, .. }) = packet(bytes, at) {
        if tag == PUBLIC_KEY
            && let Some(begin) = begun.replace(at)
        {
            found.push(&bytes[begin..at]);
        }
        at = end;
    }
    found.extend(begun.map(|begin| &bytes[begin..at]));
    found
}

/// A packet: its tag, where its body begins, and where it ends.
struct Packet {
    tag: u8,
    body: usize,
    end: usize,
}

/// The packet at `at`; `None` where there is none whose length is there. (RFC 9580, 4.2)
fn packet(bytes: &[u8], at: usize) -> Option<Packet> {
    let first = *bytes.get(at)?;
    let length = |from: usize, count: usize| -> Option<usize> {
        let bytes = bytes.get(from..from.checked_add(count)?)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    let (tag, body, long) = match first {
        0xc0.. => match *bytes.get(at + 1)? {
            short @ ..192 => (first & 0x3f, at + 2, usize::from(short)),
            192..224 => (first & 0x3f, at + 3, length(at + 1, 2)?.checked_sub(0xc000 - 192)?),
            255 => (first & 0x3f, at + 6, length(at + 2, 4)?),
            // Bodies in parts are of data, never of keys.
            _ => return None,
        },
        0x80.. => {
            let count = [1, 2, 4].get(usize::from(first & 3)).copied()?;
            (first >> 2 & 0xf, at + 1 + count, length(at + 1, count)?)
        }
        _ => return None,
    };
    let end = body.checked_add(long).filter(|end| *end <= bytes.len())?;
    Some(Packet { tag, body, end })
}

/// The fingerprint of a certificate's primary key, which is of version 4. (RFC 9580, 5.5.4.2)
fn fingerprint(certificate: &[u8]) -> Option<String> {
    let Packet { body, end, .. } = packet(certificate, 0)?;
    let key = &certificate[body..end];
    let long = u16::try_from(key.len()).ok().filter(|_| key.first() == Some(&4))?;
    let digest = Sha1::new().chain_update([0x99]).chain_update(long.to_be_bytes());
    Some(hex(&digest.chain_update(key).finalize()).to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version 4 key of `len` bytes, which is none that could be used.
    fn key(len: usize) -> Vec<u8> {
        let mut bytes = vec![4; len];
        bytes[1] = u8::try_from(len % 251).unwrap();
        bytes
    }

    #[test]
    fn packets_have_lengths_of_all_forms() {
        let (short, long) = (key(100), key(300));
        let user = [&[0xb4, 3][..], b"who"].concat();
        let forms = [
            [&[0x98, 100][..], &short, &user].concat(),
            [&[0x99, 1, 44][..], &long, &user].concat(),
            [&[0x9a, 0, 0, 1, 44][..], &long].concat(),
            [&[0xc6, 100][..], &short].concat(),
            [&[0xc6, 192, 108][..], &long, &user].concat(),
            [&[0xc6, 255, 0, 0, 1, 44][..], &long].concat(),
        ];
        let all = forms.concat();
        assert_eq!(split(&all), forms.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let of = |index: usize| fingerprint(&forms[index]).unwrap();
        assert!(of(0) == of(3) && of(1) == of(2) && of(1) == of(4) && of(4) == of(5));
        assert_ne!(of(0), of(1));
        for cut in 0..all.len() {
            drop(split(&all[..cut]));
        }
        for hostile in [&[0xc6, 255, 255, 255, 255, 255][..], &[0x9b, 1, 2], &[0xc6, 230], &[0x99]]
        {
            assert!(split(hostile).is_empty());
        }
    }

    #[test]
    fn armor_is_taken_off() {
        let armored = "x\n-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: a\n\nmAEE\nBA==\n=abcd\n\
                       -----END PGP PUBLIC KEY BLOCK-----\n";
        assert_eq!(binary(armored.into()), [0x98, 1, 4, 4]);
        assert_eq!(binary(armored.replace("Comment: a\n", "").into()), [0x98, 1, 4, 4]);
        assert!(binary(b"-----BEGIN PGP PUBLIC KEY BLOCK-----".to_vec()).is_empty());
        assert_eq!(binary(vec![0x98, 1, 4]), [0x98, 1, 4]);
    }
}
