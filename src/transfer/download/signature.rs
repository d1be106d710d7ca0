//! What a publisher has signed, by the host's gpgv and the publisher's certificate where this host
//! has it.
//!
//! gpgv reads what came from the network. It runs as the helper `__gpgv`, which may read the
//! programs and libraries of the system and is given the rest as descriptors.

use super::keys;
use crate::error::{Code, Error, OrFail, Result};
use crate::helper::{self, Ends, Given, Helper, Syscalls, foreign, not_ours, within};
use crate::sys::fds;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::time::Duration;

/// Address space that gpgv may take, in bytes; seconds, of processor and in all.
const MEMORY: u64 = 1 << 30;
const SECONDS: u64 = 20;
const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of its status lines.
const MAX_STATUS: u64 = 64 << 10;

/// gpgv, with the certificates, noted with what it is to say: `status`, or the `text` that was
/// signed; what is signed; and the signature, where that is another file.
pub(crate) const HELPER: Helper = Helper {
    word: "__gpgv",
    syscalls: Syscalls::OfAnotherProgram,
    memory: MEMORY,
    seconds: Some(SECONDS),
    ends: Ends::WithParent,
    environment: &["PATH", "LD_LIBRARY_PATH"],
    run,
};

/// What is known of a list after its signature was looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One of the signers has signed it: what exactly.
    Signed(Vec<u8>),
    /// It can't be told: why.
    Unknown(String),
}

/// Asks whether `list` is signed by one whose primary key has one of these fingerprints: by
/// `signature`, or, without one, in itself (RFC 9580, 7).
///
/// # Errors
/// It is not, though this host has the key; gpgv can't be asked.
pub fn verify(list: &[u8], signature: Option<&[u8]>, signers: &[String]) -> Result<Verdict> {
    let certificates = keys::certificates(signers);
    if certificates.is_empty() {
        let place = keys::own_dir().unwrap_or_default();
        let (signers, place) = (signers.join(" or "), place.display());
        return Ok(Verdict::Unknown(format!("no key {signers} is in {place} or a package")));
    }
    if foreign::find("gpgv").is_none() {
        return Ok(Verdict::Unknown("gpgv is not installed (package gpgv)".into()));
    }
    let certificates = memory(&certificates)?;
    let signed = memory(list)?;
    let signature = signature.map(memory).transpose()?;
    let ask = |what: &str, limit: u64| {
        let mut given =
            vec![(certificates.as_fd(), OsStr::new(what)), (signed.as_fd(), OsStr::new(""))];
        given.extend(signature.as_ref().map(|file| (file.as_fd(), OsStr::new(""))));
        Ok::<_, Error>(helper::start(&HELPER, &given)?.hear(limit, &mut within(LIMIT)))
    };
    let (status, end) = ask("status", MAX_STATUS)?;
    let status = String::from_utf8_lossy(&status);
    if end.is_err() || !vouches(&status, signers) {
        return Err(bad(&status));
    }
    if signature.is_some() {
        return Ok(Verdict::Signed(list.to_vec()));
    }
    // What stands before and after it in the file is anybody's.
    let (text, end) = ask("text", list.len() as u64)?;
    end.map_err(|_| bad(&status))?;
    Ok(Verdict::Signed(text))
}

fn memory(bytes: &[u8]) -> Result<File> {
    let mut file = fds::memfd("spore-signed")?;
    file.write_all(bytes).and_then(|()| file.rewind()).or_fail(|| "pass a signature on")?;
    Ok(file)
}

/// The words of gpgv's status lines. (GnuPG's doc/DETAILS)
fn lines(status: &str) -> impl Iterator<Item = Vec<&str>> {
    status.lines().filter_map(|line| Some(line.strip_prefix("[GNUPG:] ")?.split(' ').collect()))
}

/// Whether every signature is good and a signer's.
fn vouches(status: &str, signers: &[String]) -> bool {
    const FAULTS: [&str; 6] =
        ["BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "UNEXPECTED"];
    // The last word is the fingerprint of the primary key.
    let of_signer = |words: &Vec<&str>| {
        words.last().is_some_and(|fingerprint| signers.iter().any(|one| one == fingerprint))
    };
    let valid: Vec<_> = lines(status).filter(|words| words[0] == "VALIDSIG").collect();
    let faulty = lines(status).any(|words| FAULTS.contains(&words[0]));
    !faulty && !valid.is_empty() && valid.iter().all(of_signer)
}

fn bad(status: &str) -> Error {
    let has = |word: &str| lines(status).any(|words| words[0] == word);
    let why = match () {
        () if has("BADSIG") => "it is not what was signed",
        () if has("EXPSIG") || has("EXPKEYSIG") => "its signature or its signer's key has expired",
        () if has("REVKEYSIG") => "its signer's key was revoked",
        () if has("ERRSIG") || has("VALIDSIG") => "somebody else has signed it",
        () if has("NODATA") => "it is not signed",
        () => "its signature can't be read",
    };
    Error::refused(Code::InvalidManifest, why)
}

fn run(files: Vec<Given>) -> Result<()> {
    let mut files = files.into_iter();
    let (Some(certificates), Some(signed)) = (files.next(), files.next()) else {
        return Err(not_ours());
    };
    let status = certificates.text()? == "status";
    let program = foreign::find("gpgv").ok_or_else(not_ours)?;
    let mut words: Vec<OsString> = ["gpgv", "--quiet"].map(OsString::from).into();
    words.extend(match status {
        true => ["--status-fd", "1"].map(OsString::from),
        false => ["--output", "-"].map(OsString::from),
    });
    words.extend(["--keyring".into(), inherited(certificates.file)?]);
    // The signature comes before what it is of.
    let signature = files.next().map(|given| inherited(given.file)).transpose()?;
    words.extend(signature);
    words.push(inherited(signed.file)?);
    foreign::become_it(&program, words, &[], &[])
}

/// The name of a file under which the program has it, too.
fn inherited(file: File) -> Result<OsString> {
    let kept = rustix::io::dup(&file).or_fail(|| "pass a file on")?;
    let name = format!("/proc/self/fd/{}", kept.as_raw_fd());
    // It stays open until the program ends.
    let _ = kept.into_raw_fd();
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_if_all_are_good_and_of_signers() {
        let signer = "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81".to_owned();
        let valid = |primary: &str| {
            format!("[GNUPG:] VALIDSIG {primary} 2026-01-01 1 0 4 0 1 10 00 {primary}\n")
        };
        let vouches = |status: &str| vouches(status, std::slice::from_ref(&signer));
        assert!(vouches(&valid(&signer)));
        assert!(!vouches("") && !vouches("[GNUPG:] NODATA 4\n"));
        assert!(!vouches(&valid("36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6")));
        for more in ["[GNUPG:] BADSIG 1 x\n", "[GNUPG:] EXPKEYSIG 1 x\n", &valid("0123")] {
            assert!(!vouches(&format!("{}{more}", valid(&signer))), "{more}");
        }
        // What is in the text of a list is not gpgv's word.
        assert!(!vouches(&valid(&signer).replace("[GNUPG:]", " [GNUPG:]")));
    }
}
