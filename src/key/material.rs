//! The keys themselves: made, read, and their fingerprints.

use crate::error::{Code, Error, OrFail, Result};
use crate::id::hex;
use crate::record::key::KeyType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ssh_key::public::{KeyData, RsaPublicKey as SshRsa};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, Mpint, PrivateKey, PublicKey};

/// Bits of an RSA key that is made, as EC2's have.
const RSA_BITS: usize = 2048;
/// Bits of one that is imported: what OpenSSH takes. (sshkey.h)
const MIN_RSA_BITS: usize = 1024;
const MAX_RSA_BITS: usize = 16_384;
/// Most bytes of a public key's text.
pub const MAX_TEXT: u64 = 16 << 10;

/// What is public of a key.
#[derive(Debug)]
pub struct Public {
    /// Its type.
    pub key_type: KeyType,
    /// A line of authorized_keys without a comment: algorithm and base64.
    pub openssh: String,
    /// As EC2 computes it.
    pub fingerprint: String,
}

/// A new key: what is public of it, and the private half as EC2 gives it: PKCS#1 in PEM of RSA
/// (RFC 8017, A.1.2), OpenSSH's format of Ed25519.
///
/// # Errors
/// The kernel's random generator is not readable.
pub fn generate(key_type: KeyType) -> Result<(Public, String)> {
    let doing = || "make a key pair";
    match key_type {
        KeyType::Ed25519 => {
            let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).or_fail(doing)?;
            let text = key.to_openssh(ssh_key::LineEnding::LF).or_fail(doing)?;
            Ok((public(key.public_key())?, text.to_string()))
        }
        KeyType::Rsa => {
            let key = RsaPrivateKey::new(&mut OsRng, RSA_BITS).or_fail(doing)?;
            let text = key.to_pkcs1_pem(LineEnding::LF).or_fail(doing)?;
            let ssh = SshRsa { e: integer(key.e())?, n: integer(key.n())? };
            let mut public = public(&KeyData::from(ssh).into())?;
            // Of one that EC2 makes it is the private key's.
            let der = key.to_pkcs8_der().or_fail(doing)?;
            public.fingerprint = colons(&Sha1::digest(der.as_bytes()));
            Ok((public, text.to_string()))
        }
    }
}

/// The key in a line of OpenSSH's format.
///
/// # Errors
/// `InvalidKey.Format`: it is none, or of a type that EC2 does not take. Nothing of the text is
/// quoted: it may be a private key.
pub fn parse(text: &str) -> Result<Public> {
    if text.contains("PRIVATE KEY") || text.starts_with("PuTTY-User-Key-File") {
        return refuse(
            "this is a private key, which nobody needs but its owner; give the public one, which \
             'ssh-keygen -y -f FILE' prints",
        );
    }
    let line = text.trim();
    if line.contains(['\n', '\r']) {
        return refuse("a public key is one line; give one key, in OpenSSH's format");
    }
    match PublicKey::from_openssh(line) {
        Ok(key) => public(&key),
        Err(_) => refuse(
            "this is no public key in OpenSSH's format: a line that begins with ssh-ed25519 or \
             ssh-rsa, as in ~/.ssh/id_ed25519.pub",
        ),
    }
}

fn public(key: &PublicKey) -> Result<Public> {
    let doing = || "write a public key";
    let openssh = PublicKey::from(key.key_data().clone()).to_openssh().or_fail(doing)?;
    let (key_type, fingerprint) = match key.key_data() {
        KeyData::Ed25519(_) => {
            let blob = key.to_bytes().or_fail(doing)?;
            (KeyType::Ed25519, STANDARD.encode(Sha256::digest(blob)))
        }
        KeyData::Rsa(rsa) => (KeyType::Rsa, rsa_fingerprint(rsa)?),
        _ => {
            return refuse(
                "a key pair is of type ed25519 or rsa; make one by 'ssh-keygen -t ed25519'",
            );
        }
    };
    Ok(Public { key_type, openssh: openssh.trim_end().to_owned(), fingerprint })
}

/// MD5 over the public key in DER (SubjectPublicKeyInfo), as EC2 has it of an imported RSA key.
fn rsa_fingerprint(key: &SshRsa) -> Result<String> {
    let number = |mpint: &Mpint| mpint.as_positive_bytes().map(BigUint::from_bytes_be);
    let (Some(n), Some(e)) = (number(&key.n), number(&key.e)) else {
        return refuse("the numbers of this RSA key are negative; make another");
    };
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&n.bits()) {
        let why = format!(
            "this RSA key has {} bits, and may have {MIN_RSA_BITS} to {MAX_RSA_BITS}; make another",
            n.bits()
        );
        return refuse(why);
    }
    let Ok(key) = RsaPublicKey::new_with_max_size(n, e, MAX_RSA_BITS) else {
        return refuse("the numbers of this RSA key are no key's; make another");
    };
    let der = key.to_public_key_der().or_fail(|| "write a public key")?;
    Ok(colons(&Md5::digest(der.as_bytes())))
}

fn integer(number: &BigUint) -> Result<Mpint> {
    Mpint::from_positive_bytes(&number.to_bytes_be()).or_fail(|| "write a public key")
}

/// Pairs of digits with colons between.
fn colons(digest: &[u8]) -> String {
    let pairs: Vec<String> = digest.iter().map(|byte| hex(&[*byte])).collect();
    pairs.join(":")
}

fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::refused(Code::InvalidKeyFormat, why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEjCYNDOWJlPvgUvMfXzSxVFyvKwBbJTdaEsUE3hdmtb";

    #[test]
    fn a_made_key_is_read_again() {
        for key_type in [KeyType::Ed25519, KeyType::Rsa] {
            let (made, private) = generate(key_type).unwrap();
            let read = parse(&format!("{} a comment\n", made.openssh)).unwrap();
            assert_eq!((read.key_type, &read.openssh), (key_type, &made.openssh));
            // Of an RSA key EC2 has two fingerprints: of the private half, and of an imported one.
            assert_eq!(read.fingerprint == made.fingerprint, key_type == KeyType::Ed25519);
            assert!(private.contains("PRIVATE KEY"));
            let error = parse(&private).unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidKeyFormat));
            assert!(error.to_string().contains("private key"), "{error}");
            assert_ne!(generate(key_type).unwrap().0.openssh, made.openssh);
        }
    }

    #[test]
    fn what_is_no_key_of_ec2s_is_refused_and_not_quoted() {
        let options = format!("command=\"secret\" {ED25519}");
        let two = format!("{ED25519}\n{ED25519}");
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
        for bad in [
            "",
            "secret",
            "ssh-ed25519",
            "ssh-ed25519 secret",
            &ED25519[..ED25519.len() - 4],
            "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret",
            "-----BEGIN RSA PRIVATE KEY-----\nsecret",
            "PuTTY-User-Key-File-3: secret",
            ecdsa,
            &options,
            &two,
            // An RSA key of 512 bits.
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQDPVHNhZ9wXcN1EsX5CzmRsyJcYhHjwaBaHMrNMUVuTuHbBAb+6nTbcJWK6ozlyJ9KyV8vLdtVt3XV6I0BHAMLP",
        ] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidKeyFormat), "{bad:?}");
            let reported = error.to_string();
            assert!(!reported.contains("secret") && !reported.contains('\n'), "{reported}");
        }
    }
}
