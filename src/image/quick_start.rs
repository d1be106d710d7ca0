//! The images that distributions publish, by name: what is embedded, and the user's own file over
//! it.
//!
//! Both are the same form of YAML, which `quick_start.yaml` explains.

use super::checksum::Checksum;
use crate::error::{Code, Error, OrFail, Result};
use crate::record::image::BootMode;
use crate::store::{beneath, config_home, pattern};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

const EMBEDDED: &str = include_str!("quick_start.yaml");
/// Longest file of a user's, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The version that a name alone means.
const LATEST: &str = "latest";

/// An image that somebody publishes, and how its newest file is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Published {
    /// e.g. `debian`: lower-case letters, digits, dots, dashes.
    pub name: String,
    /// e.g. `13`; with the name it is unique.
    pub version: String,
    /// Other words for the version.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// For people.
    pub title: String,
    /// The file. A `*` in its last component stands for what the newest is called by.
    pub url: String,
    /// A page of links that has the names which a `*` stands for; the list of checksums if absent.
    #[serde(default)]
    pub listing: Option<String>,
    /// The publisher's list of checksums, or what is appended to the file's URL.
    #[serde(default)]
    pub checksums: Option<String>,
    /// The signature of the list: an address, or what is appended to the list's; within it if
    /// absent.
    #[serde(default)]
    pub signature: Option<String>,
    /// The fingerprints of the keys that the list may be signed with.
    #[serde(default)]
    pub signers: Vec<String>,
    /// The file's checksum, of one that does not change.
    #[serde(default)]
    pub checksum: Option<Checksum>,
    /// Who logs in.
    #[serde(default)]
    pub user: Option<String>,
    /// The firmware interfaces that it is made for, if known.
    #[serde(default)]
    pub boot_mode: Option<BootMode>,
    /// When that was last looked up: YYYY-MM-DD.
    #[serde(default)]
    pub date: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    images: Vec<Published>,
}

impl Published {
    /// `NAME:VERSION`.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.version)
    }

    /// Whether `word` is its version, or another word for it.
    fn is_version(&self, word: &str) -> bool {
        self.version == word || self.aliases.iter().any(|alias| alias == word)
    }

    /// The place of its files, up to the last slash, and the name or pattern of the file in it.
    pub fn split(&self) -> (&str, &str) {
        let slash = self.url.rfind('/').map_or(0, |at| at + 1);
        self.url.split_at(slash)
    }

    /// Of `names` the newest that the URL's pattern matches: runs of digits count as numbers.
    pub fn newest<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let (_, file) = self.split();
        names.filter(|name| pattern::matches(file, name)).max_by(|a, b| natural(a).cmp(&natural(b)))
    }

    /// Whether its file's name is looked for.
    pub fn is_pattern(&self) -> bool {
        self.split().1.contains('*')
    }

    fn check(&self) -> Result<(), String> {
        let word = |text: &str| {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
            (1..=64).contains(&text.len())
                && text.chars().all(fine)
                && !text.starts_with(['.', '-'])
        };
        let words = [&self.name, &self.version].into_iter().chain(&self.aliases);
        if let Some(bad) = words.clone().find(|text| !word(text)) {
            let bad: String = bad.escape_debug().take(80).collect();
            return Err(format!(
                "'{bad}' is no name or version: lower-case letters, digits, . _ -"
            ));
        }
        let of = |why: &str| Err(format!("{}: {why}", self.reference()));
        let (place, file) = self.split();
        let suffix = |text: &str| text.starts_with('.') && !text.contains('/');
        let addresses = [&self.listing, &self.checksums, &self.signature];
        let addresses = [Some(&self.url)].into_iter().chain(addresses.map(Option::as_ref));
        for url in addresses.flatten().filter(|text| !suffix(text)) {
            let known =
                ["https://", "http://", "s3://"].iter().any(|scheme| url.starts_with(scheme));
            let tricks = url.split('/').any(|part| matches!(part, "." | ".."));
            if !known || tricks || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return of("an address is https://…, http://… or s3://…, and has no .. in it");
            }
        }
        if place.contains('*') || file.is_empty() || file.contains(['?', '[', '\\']) {
            return of("its url ends in a file's name, where alone a * may be");
        }
        let fingerprint = |text: &String| {
            text.len() == 40 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'A'..=b'F'))
        };
        if !self.signers.iter().all(fingerprint) {
            return of("a signer is a fingerprint of 40 digits and capital letters A to F");
        }
        if self.signers.is_empty() && self.signature.is_some()
            || self.checksums.is_none() && !self.signers.is_empty()
        {
            return of("a signature has signers, and is of checksums");
        }
        let listed =
            self.listing.is_some() || self.checksums.as_deref().is_some_and(|s| !suffix(s));
        match self.is_pattern() && !listed {
            true => of("a * in its url needs a listing, or checksums with an address of their own"),
            false => Ok(()),
        }
    }
}

/// A name's digits as numbers, the rest as it is.
fn natural(name: &str) -> Vec<(u128, &str)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (before, after) = rest.split_at(text);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, more) = after.split_at(digits);
        parts.push((number.parse().unwrap_or(u128::MAX), before));
        rest = more;
    }
    // What comes before a number decides before the number does.
    parts.into_iter().flat_map(|(number, text)| [(0, text), (number, "")]).collect()
}

/// All that are published, the user's own first; no two have one name and version.
///
/// # Errors
/// The user's file can't be read, or is malformed: the line says where.
pub fn all() -> Result<Vec<Published>> {
    let own = match user_file() {
        Some(path) => own(&path)?,
        None => Vec::new(),
    };
    let embedded = parse(EMBEDDED).map_err(Error::failure)?;
    let hidden = |one: &Published| own.iter().any(|own| own.reference() == one.reference());
    let rest: Vec<Published> = embedded.into_iter().filter(|one| !hidden(one)).collect();
    Ok(own.into_iter().chain(rest).collect())
}

/// The one that `NAME`, `NAME:VERSION` or `NAME:ALIAS` means.
///
/// # Errors
/// `InvalidAMIID.NotFound`: there is none; the line says which versions there are. As [`all`]'s.
pub fn find(text: &str) -> Result<Published> {
    let all = all()?;
    let (name, version) = text.split_once(':').unwrap_or((text, LATEST));
    let named: Vec<&Published> = all.iter().filter(|one| one.name == name).collect();
    let by = |is: &dyn Fn(&Published) -> bool| named.iter().find(|one| is(one)).copied();
    // A word for a version of the user's must not hide a version of the embedded ones.
    let found = by(&|one| one.version == version).or_else(|| by(&|one| one.is_version(version)));
    let only = || named.first().copied().filter(|_| version == LATEST);
    if let Some(one) = found.or_else(only) {
        return Ok(one.clone());
    }
    let shown: String = text.escape_debug().take(100).collect();
    let why = format!("nothing is known to be published as '{shown}'");
    let remedy = match named.is_empty() {
        true => "'spore image ls --quick-start' has what is".to_owned(),
        false => {
            let versions: Vec<&str> = named.iter().map(|one| one.version.as_str()).collect();
            format!("of {name} there are {}", versions.join(", "))
        }
    };
    Err(Error::refused(Code::InvalidAMIIDNotFound, why).remedy(remedy))
}

/// Where the user's own are: `$XDG_CONFIG_HOME/spore/images.yaml`, else in `~/.config`.
fn user_file() -> Option<PathBuf> {
    Some(config_home()?.join("spore/images.yaml"))
}

fn own(path: &std::path::Path) -> Result<Vec<Published>> {
    let doing = || format!("read {}", path.display());
    let file = match beneath::foreign_file(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        file => file.or_fail(doing)?,
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).or_fail(doing)?;
    let parsed = match text.len() as u64 > MAX_FILE {
        true => Err(format!("it is longer than {MAX_FILE} bytes")),
        false => parse(&text),
    };
    parsed.map_err(|why| {
        let why = format!("{} is malformed: {why}", path.display());
        Error::refused(Code::InvalidParameterValue, why)
    })
}

fn parse(text: &str) -> Result<Vec<Published>, String> {
    let file: File = serde_yaml_ng::from_str(text).map_err(|e| e.to_string())?;
    for (index, one) in file.images.iter().enumerate() {
        one.check()?;
        if file.images[..index].iter().any(|other| other.reference() == one.reference()) {
            return Err(format!("{} is there twice", one.reference()));
        }
    }
    Ok(file.images)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded() -> Vec<Published> {
        parse(EMBEDDED).unwrap()
    }

    #[test]
    fn what_is_embedded_is_whole() {
        let all = embedded();
        for one in &all {
            let reference = one.reference();
            assert!(one.url.starts_with("https://"), "{reference}: over TLS");
            assert!(one.checksums.is_some(), "{reference}: its publisher says what it is");
            assert!(one.user.is_some() && one.date.as_ref().is_some_and(|d| d.len() == 10));
            let latest = |other: &&Published| other.name == one.name && other.is_version(LATEST);
            assert_eq!(all.iter().filter(latest).count(), 1, "{reference}");
            for word in one.aliases.iter().chain([&one.version]) {
                let of = |other: &&Published| other.name == one.name && other.is_version(word);
                assert_eq!(all.iter().filter(of).count(), 1, "{reference}: {word}");
            }
        }
        for name in ["debian", "ubuntu", "fedora", "centos", "almalinux", "rocky", "opensuse"] {
            assert!(all.iter().any(|one| one.name == name), "{name}");
        }
        for name in ["arch", "alpine", "amazonlinux", "freebsd"] {
            assert!(all.iter().any(|one| one.name == name), "{name}");
        }
    }

    #[test]
    fn the_newest_is_by_numbers_and_not_by_letters() {
        let all = embedded();
        let alpine = all.iter().find(|one| one.reference() == "alpine:3.23").unwrap();
        let names = ["9-x86_64-bios-cloudinit-r0", "10-x86_64-bios-cloudinit-r0"]
            .map(|rest| format!("nocloud_alpine-3.23.{rest}.qcow2"));
        let others = ["nocloud_alpine-3.23.11-aarch64-uefi-cloudinit-r0.qcow2", "../evil"];
        let all = names.iter().map(String::as_str).chain(others);
        assert_eq!(alpine.newest(all), Some(names[1].as_str()));
        assert_eq!(alpine.newest(others.into_iter()), None);
    }

    #[test]
    fn a_file_with_tricks_is_refused() {
        let image = |name: &str, url: &str, more: &str| {
            parse(&format!(
                "images:\n- {{name: {name}, version: \"1\", title: x, url: '{url}'{more}}}"
            ))
        };
        assert!(image("mine", "https://example.org/a.img", "").is_ok());
        assert!(image("mine", "https://example.org/a-*.img", ", checksums: .sha256").is_err());
        for (name, url) in [
            ("../mine", "https://example.org/a.img"),
            ("Mine", "https://example.org/a.img"),
            ("mine", "file:///etc/shadow"),
            ("mine", "/etc/shadow"),
            ("mine", "https://example.org/../a.img"),
            ("mine", "https://example.org/*/a.img"),
            ("mine", "https://example.org/"),
        ] {
            assert!(image(name, url, "").is_err(), "{name} {url}");
        }
        assert!(image("mine", "https://example.org/a.img", ", path: x").is_err());
        assert!(parse("images: 7").is_err() && parse("a: [").is_err());
    }
}
