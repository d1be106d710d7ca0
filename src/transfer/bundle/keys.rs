//! RSA keys and certificates of bundles: the user's, and those of this store in EC2's part.

use crate::error::{Code, Error, OrFail, OrRefuse, Result};
use crate::store::Store;
use crate::store::beneath::Owned;
use crate::transfer::bundle::KeyFiles;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs1v15::{Signature, SigningKey, VerifyingKey};
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::OsRng;

use rsa::sha2::Sha256;
use rsa::signature::{RandomizedSigner, SignatureEncoding, Verifier};
use rsa::{Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::builder::{Builder, CertificateBuilder, Profile};
use x509_cert::der::{DecodePem, EncodePem};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::Validity;

/// Bits of a key that is made here.
const BITS: usize = 2048;
/// Most bits of a key that is read: more would only take time.
const MAX_BITS: usize = 16384;
/// For how long a certificate is valid that is made here: nobody looks.
const VALID: Duration = Duration::from_secs(20 * 365 * 86_400);

fn bad(path: &Path, what: &str) -> Error {
    Error::refused(
        Code::InvalidParameterValue,
        format!("{} is no {what}; give one in PEM", path.display()),
    )
}

fn read(path: &Path) -> Result<String> {
    let text = std::fs::read(path).or_refuse(|| format!("read {}", path.display()))?;
    String::from_utf8(text).map_err(|_| bad(path, "key or certificate"))
}

/// A private key of a file.
pub(super) fn private(path: &Path) -> Result<RsaPrivateKey> {
    let text = read(path)?;
    let key = RsaPrivateKey::from_pkcs8_pem(&text);
    key.or_else(|_| RsaPrivateKey::from_pkcs1_pem(&text)).map_err(|_| bad(path, "RSA private key"))
}

/// The public key of a certificate's file.
pub(super) fn public(path: &Path) -> Result<RsaPublicKey> {
    let refuse = || bad(path, "X.509 certificate of an RSA key");
    let certificate = Certificate::from_pem(read(path)?).map_err(|_| refuse())?;
    let info = certificate.tbs_certificate.subject_public_key_info;
    let key = info.subject_public_key.as_bytes().ok_or_else(refuse)?;
    let key = <RsaPublicKey as rsa::pkcs1::DecodeRsaPublicKey>::from_pkcs1_der(key);
    let key = key.map_err(|_| refuse())?;
    if rsa::traits::PublicKeyParts::n(&key).bits() > MAX_BITS {
        return Err(refuse());
    }
    Ok(key)
}

/// The account's own pair of key and certificate files for a `role`, made if they are not there.
fn own(store: &Store, role: &str) -> Result<(PathBuf, PathBuf)> {
    let dir = store.account()?.make_dir("keys").or_fail(|| "make the account's keys")?;
    let (key, cert) = (format!("{role}-key.pem"), format!("{role}-cert.pem"));
    let _lock = store.lock()?;
    if !(dir.has(&key) && dir.has(&cert)) {
        make(role, &dir, &key, &cert)?;
    }
    Ok((dir.path().join(key), dir.path().join(cert)))
}

fn make(role: &str, dir: &Owned, key_name: &str, cert_name: &str) -> Result<()> {
    let doing = || format!("make a key for the role '{role}'");
    let key = RsaPrivateKey::new(&mut OsRng, BITS).or_fail(doing)?;
    let info = key.to_public_key().to_public_key_der().or_fail(doing)?;
    let info = SubjectPublicKeyInfoOwned::try_from(info.as_bytes()).or_fail(doing)?;
    let name = Name::from_str(&format!("CN=spore {role}")).or_fail(doing)?;
    let valid = Validity::from_now(VALID).or_fail(doing)?;
    let signer = SigningKey::<Sha256>::new(key.clone());
    let builder = CertificateBuilder::new(
        Profile::Root,
        SerialNumber::from(1u32),
        valid,
        name,
        info,
        &signer,
    );
    let certificate = builder.or_fail(doing)?.build::<Signature>().or_fail(doing)?;
    let pem = key.to_pkcs8_pem(LineEnding::LF).or_fail(doing)?;
    let cert = certificate.to_pem(LineEnding::LF).or_fail(doing)?;
    dir.replace(key_name, pem.as_bytes(), true).or_fail(doing)?;
    dir.replace(cert_name, cert.as_bytes(), true).or_fail(doing)
}

/// What a bundle is made with.
pub(super) struct Writer {
    /// Signs.
    pub user: RsaPrivateKey,
    /// May decrypt.
    pub user_cert: RsaPublicKey,
    /// May decrypt.
    pub ec2_cert: RsaPublicKey,
}

/// The keys to make a bundle with.
pub(super) fn writer(store: &Store, files: &KeyFiles) -> Result<Writer> {
    let (key, cert) = match (&files.key, &files.cert) {
        (Some(key), Some(cert)) => (key.clone(), cert.clone()),
        (None, None) => own(store, "user")?,
        _ => return Err(Error::usage("give both `PrivateKey` and `Certificate`, or neither")),
    };
    let ec2 = match &files.ec2_cert {
        Some(cert) => cert.clone(),
        None => own(store, "ec2")?.1,
    };
    let keys = Writer { user: private(&key)?, user_cert: public(&cert)?, ec2_cert: public(&ec2)? };
    if keys.user.to_public_key() != keys.user_cert {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("{} is not the certificate of {}", cert.display(), key.display()),
        ));
    }
    Ok(keys)
}

/// What a bundle is read with: the private keys that may decrypt it, and the certificate of its
/// signer.
pub(super) struct Reader {
    /// EC2's and the user's.
    pub ec2: RsaPrivateKey,
    /// The user's.
    pub user: RsaPrivateKey,
    /// Whose signature counts.
    pub signer: RsaPublicKey,
}

/// The keys to read a bundle with.
pub(super) fn reader(store: &Store, files: &KeyFiles) -> Result<Reader> {
    let own_user = own(store, "user")?;
    let ec2 = own(store, "ec2")?.0;
    let user = private(files.key.as_ref().unwrap_or(&own_user.0))?;
    let signer = match (&files.cert, &files.key) {
        (Some(cert), _) => public(cert)?,
        (None, Some(_)) => user.to_public_key(),
        (None, None) => public(&own_user.1)?,
    };
    Ok(Reader { ec2: private(&ec2)?, user, signer })
}

/// Encrypt a short text (PKCS #1 v1.5).
pub(super) fn encrypt(key: &RsaPublicKey, text: &str) -> Result<Vec<u8>> {
    key.encrypt(&mut OsRng, Pkcs1v15Encrypt, text.as_bytes()).or_fail(|| "encrypt the bundle's key")
}

/// Decrypt 16 bytes in hexadecimal; `None` if that is not what it is. Blinded, as the signature:
/// how long it takes says nothing of the key (SECURITY.md, RUSTSEC-2023-0071).
pub(super) fn decrypt(key: &RsaPrivateKey, bytes: &[u8]) -> Option<[u8; 16]> {
    let text = key.decrypt_blinded(&mut OsRng, Pkcs1v15Encrypt, bytes).ok()?;
    unhex(std::str::from_utf8(&text).ok()?)?.try_into().ok()
}

/// Sign (RSASSA-PKCS1-v1_5 with SHA-1, as EC2 has it).
pub(super) fn sign(key: &RsaPrivateKey, text: &[u8]) -> Result<Vec<u8>> {
    let signature = SigningKey::<Sha1>::new(key.clone()).try_sign_with_rng(&mut OsRng, text);
    Ok(signature.or_fail(|| "sign the bundle")?.to_vec())
}

/// Whether it is the signature of the text.
pub(super) fn is_signed(key: &RsaPublicKey, text: &[u8], signature: &[u8]) -> bool {
    let key = VerifyingKey::<Sha1>::new(key.clone());
    Signature::try_from(signature).is_ok_and(|signature| key.verify(text, &signature).is_ok())
}

/// Bytes of hexadecimal.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|two| Some(digit(*two.first()?)? << 4 | digit(*two.get(1)?)?)).collect()
}
