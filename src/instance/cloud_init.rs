//! What cloud-init tells on an instance's console at its first boot, as on EC2: the guest's SSH
//! host keys, and the user whom it has given the instance's key.

use super::dir::{CONSOLE, InstanceDir};
use super::times::Times;
use crate::error::{OrFail, Result};
use std::io::{Read, Seek, SeekFrom};

/// Most bytes of a console that are looked at: all is told at the first boot.
const WINDOW: u64 = 4 << 20;
/// Most keys.
const MAX_KEYS: usize = 16;
/// Longest key: that of 16384 bits of RSA has 2.8 KiB.
const MAX_KEY: usize = 4096;
/// What stands before and behind them. (cloud-init, tools/write-ssh-key-fingerprints)
const BEGIN: &str = "-----BEGIN SSH HOST KEY KEYS-----";
const END: &str = "-----END SSH HOST KEY KEYS-----";

/// What stands before and behind a user's name. (cloudinit/config/cc_ssh_authkey_fingerprints.py)
const KEYS_OF: [&str; 3] = ["ci-info: ", "Authorized keys from ", " for user "];
/// Longest name of a user. (useradd(8))
const MAX_USER: usize = 32;

/// What it has told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The host keys, each its type and itself in base64; none if it has told none.
    pub host_keys: Vec<String>,
    /// The user.
    pub user: Option<String>,
}

/// What cloud-init has told on an instance's console, since this time if one is given, in
/// milliseconds since the epoch.
///
/// # Errors
/// The console's log can't be read.
pub fn words(dir: &InstanceDir, since: Option<u64>) -> Result<Words> {
    let Some(mut file) = dir.open_file(CONSOLE)? else { return Ok(Words::default()) };
    // By its time, for a log that is too long loses its beginning.
    let start = since.map(|since| Ok(Times::of(dir)?.since(since))).transpose()?.unwrap_or(0);
    let mut bytes = Vec::new();
    let end = file.seek(SeekFrom::End(0));
    let read = end.and_then(|end| file.seek(SeekFrom::Start(start.min(end))));
    let read = read.and_then(|_| file.take(WINDOW).read_to_end(&mut bytes));
    read.or_fail(|| format!("read {}", dir.file(CONSOLE).display()))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(Words { host_keys: keys_in(&text), user: text.lines().find_map(user_in) })
}

/// The user whose keys a line is about.
fn user_in(line: &str) -> Option<String> {
    let after = KEYS_OF.iter().try_fold(line, |line, piece| Some(line.split_once(piece)?.1))?;
    let name = after.trim_end().trim_end_matches('+');
    is_user(name).then(|| name.to_owned())
}

/// Whether it can be the name of a user. (useradd(8))
pub fn is_user(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let other = |c: char| first(c) || matches!(c, '-' | '.');
    name.len() <= MAX_USER && name.starts_with(first) && name.chars().all(other)
}

/// Those of the first list in a text.
pub fn keys_in(text: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| !line.contains(BEGIN));
    lines.next();
    let listed: Vec<&str> = lines.take_while(|line| !line.contains(END)).take(MAX_KEYS).collect();
    listed.into_iter().filter_map(key_in).collect()
}

/// The key of a line, before which the console may have something else.
fn key_in(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| !is_type(word));
    let (kind, key) = (words.next()?, words.next()?);
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let fits = key.len() <= MAX_KEY && key.starts_with("AAAA") && key.chars().all(base64);
    fits.then(|| format!("{kind} {key}"))
}

/// Whether a word is what a type of keys is called. (RFC 4253, 6.6; RFC 5656, 3.1; RFC 8709, 4)
fn is_type(word: &str) -> bool {
    let known = ["ssh-rsa", "ssh-ed25519"].contains(&word) || word.starts_with("ecdsa-sha2-nistp");
    known && word.len() <= 32 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_as_cloud_init_tells_them() {
        let text = "ci-info: no authorized SSH keys\r\n\
            <14>Nov 29 16:00:00 cloud-init: -----BEGIN SSH HOST KEY KEYS-----\r\n\
            ecdsa-sha2-nistp256 AAAAE2VjZHNh= root@web\r\n\
            [   12.3] cloud-init[7]: ssh-ed25519 AAAAC3Nz/+ root@web\r\n\
            -----END SSH HOST KEY KEYS-----\r\nssh-rsa AAAAB3 late\r\n";
        assert_eq!(keys_in(text), ["ecdsa-sha2-nistp256 AAAAE2VjZHNh=", "ssh-ed25519 AAAAC3Nz/+"]);
        assert!(keys_in("nothing\n").is_empty());
    }

    #[test]
    fn who_may_log_in_is_whom_cloud_init_names() {
        let line = |user: &str| {
            format!(
                "ci-info: +++Authorized keys from /home/x/.ssh/authorized_keys for user {user}+++\r"
            )
        };
        assert_eq!(user_in(&line("debian")).as_deref(), Some("debian"));
        assert_eq!(
            user_in(&format!("[ 12.3] cloud-init[7]: {}", line("a.b-1"))).as_deref(),
            Some("a.b-1")
        );
        for none in ["", "-oProxyCommand=x", "a b", "$(x)", "\u{1b}[2J", &"a".repeat(33)] {
            assert_eq!(user_in(&line(none)), None, "{none}");
        }
        assert_eq!(user_in("Authorized keys from x for user debian"), None);
    }

    #[test]
    fn a_guest_that_tells_anything_gets_nothing_else_into_the_file() {
        let evil = |line: &str| keys_in(&format!("{BEGIN}\n{line}\n{END}\n"));
        for line in [
            "ssh-ed25519",
            "ssh-ed25519 AAAA*",
            "ssh-ed25519 \u{1b}[2J",
            "@cert-authority * ssh-dss AAAA",
            "ecdsa-sha2-nistp256;rm AAAA",
            &format!("ssh-rsa AAAA{}", "A".repeat(MAX_KEY)),
        ] {
            assert!(evil(line).is_empty(), "{line}");
        }
        assert_eq!(keys_in(&format!("{BEGIN}\n{}", "ssh-rsa AAAA\n".repeat(99))).len(), MAX_KEYS);
    }
}
