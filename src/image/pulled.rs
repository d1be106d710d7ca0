//! Images that were pulled: which of the store's come from where, and what their files were.
//!
//! That is in their tags, which a user can see and take away. They don't travel with a copy: who
//! gives it would say what is to be believed of it.

use super::checksum::{Algorithm, Checksum};
use super::quick_start;
use crate::error::{Code, Error, Result};
use crate::record::image::{Image, ImageState};
use crate::record::tag::Tag;
use crate::store::Store;
use sha2::{Digest, Sha256};

/// The tag that says where an image was pulled from: `NAME:VERSION` or an address.
pub const SOURCE: &str = "spore:source";
/// Longest value of a tag, in characters.
const MAX_VALUE: usize = 255;

/// The tag of a checksum.
fn key(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Sha256 => "spore:sha256",
        Algorithm::Sha512 => "spore:sha512",
    }
}

/// Takes away what the tags say of where an image is from. Of what a stranger has written that is
/// not believed.
pub fn forget(tags: &mut Vec<Tag>) {
    let words = [SOURCE, key(Algorithm::Sha256), key(Algorithm::Sha512)];
    tags.retain(|tag| !words.contains(&tag.key.as_str()));
}

/// Whether a text names something to pull rather than what is in a store: no name of an image and
/// no id has a colon.
pub fn is_reference(text: &str) -> bool {
    text.contains(':')
}

/// The value of [`SOURCE`] for a reference, however it is written: the version of a published image
/// itself, an address without what is secret in it.
///
/// # Errors
/// As [`quick_start::find`]'s.
pub fn source(reference: &str) -> Result<String> {
    let Some((scheme, rest)) = reference.split_once("://") else {
        return Ok(match reference.contains('/') {
            // Of a region.
            true => reference.to_owned(),
            false => quick_start::find(reference)?.reference(),
        });
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let plain = format!("{scheme}://{host}{path}");
    if query.is_empty() && plain.chars().count() <= MAX_VALUE {
        return Ok(plain);
    }
    // A query may be a signature, which whoever may see the image need not have.
    let digest: String = crate::id::hex(&Sha256::digest(reference)).chars().take(16).collect();
    let cut: String = plain.chars().take(MAX_VALUE - 20).collect();
    Ok(format!("{cut}?{digest}"))
}

/// The tags of an image that was pulled.
pub fn tags(source: &str, sums: &[Checksum]) -> Vec<Tag> {
    let sums =
        sums.iter().map(|sum| Tag { key: key(sum.algorithm()).into(), value: sum.hex().into() });
    [Tag { key: SOURCE.into(), value: source.to_owned() }].into_iter().chain(sums).collect()
}

/// The checksums that the file of an image had, as its tags say.
pub fn sums(image: &Image) -> Vec<Checksum> {
    let sum = |tag: &Tag| {
        let name = tag.key.strip_prefix("spore:")?;
        format!("{name}:{}", tag.value).parse().ok()
    };
    image.tags.iter().filter_map(sum).collect()
}

/// Whether an image was pulled from there.
pub fn is_from(image: &Image, source: &str) -> bool {
    has(image, SOURCE, source)
}

fn has(image: &Image, key: &str, value: &str) -> bool {
    image.tags.iter().any(|tag| tag.key == key && tag.value == value)
}

/// The newest image that was pulled from there and can be launched, the caller's own before the
/// administrator's. What others say of theirs is not believed.
///
/// # Errors
/// The store can't be read.
pub fn newest(store: &Store, source: &str) -> Result<Option<Image>> {
    Ok(believed(store)?.into_iter().find(|image| is_from(image, source)))
}

/// The images whose file had that checksum and which can be launched, the caller's own before the
/// administrator's, the newest first.
///
/// # Errors
/// The store can't be read.
pub fn with_checksum(store: &Store, sum: &Checksum) -> Result<Vec<Image>> {
    let mut images = believed(store)?;
    images.retain(|image| has(image, key(sum.algorithm()), sum.hex()));
    Ok(images)
}

fn believed(store: &Store) -> Result<Vec<Image>> {
    let me = store.owner_id();
    let administrator = store.administrator().map(|uid| uid.to_string());
    let mut images = store.images().list()?.or_warn();
    images.retain(|image| {
        let owner = Some(&image.owner_id);
        image.state == ImageState::Available
            && (owner == Some(&me) || owner == administrator.as_ref())
    });
    images.sort_by(|a, b| {
        let rank = |image: &Image| image.owner_id != me;
        rank(a).cmp(&rank(b)).then_with(|| b.creation_date.cmp(&a.creation_date))
    });
    Ok(images)
}

/// The image in the store that a reference means: the newest that was pulled by it.
///
/// # Errors
/// `InvalidAMIID.NotFound`: none was; as [`source`]'s.
pub fn resolve(store: &Store, reference: &str) -> Result<Image> {
    newest(store, &source(reference)?)?.ok_or_else(|| {
        let shown: String = reference.escape_debug().take(200).collect();
        let why = format!("no image was pulled as '{shown}'");
        Error::refused(Code::InvalidAMIIDNotFound, why)
            .remedy(format!("'spore image pull {shown}' brings it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_one_however_it_is_written_and_keeps_no_secret() {
        for (reference, expected) in [
            ("debian:bookworm", "debian:12"),
            ("debian:12", "debian:12"),
            ("https://example.org/a.img", "https://example.org/a.img"),
            ("https://me:secret@example.org/a.img", "https://example.org/a.img"),
        ] {
            assert_eq!(source(reference).unwrap(), expected);
        }
        let signed = source("https://example.org/a.img?sig=secret").unwrap();
        assert!(signed.starts_with("https://example.org/a.img?") && !signed.contains("secret"));
        let long = source(&format!("https://example.org/{}", "a".repeat(999))).unwrap();
        assert!(long.len() <= MAX_VALUE);
        assert!(source("debian:99").is_err());
    }
}
