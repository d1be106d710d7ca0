//! Regions: named stores beside one's own. Their names are the user's; an image belongs to one
//! region.
//!
//! A region is another directory, a bucket of an S3-compatible service or a repository of an OCI
//! registry.

use crate::context::Context;
use crate::error::{Code, Error, OrFail, Result};
use crate::store::Store;
use crate::store::beneath::Owned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The region of the store that a command works on.
pub const LOCAL: &str = "local";
/// The file in the account's directory that has them.
const FILE: &str = "regions.json";
/// Most of it that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A named region (EC2 Region).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Region {
    /// 1 to 64 lower-case letters, digits and dashes.
    pub region_name: String,
    /// Where it is.
    pub endpoint: Location,
}

/// Where a region is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Location {
    /// A store's directory, absolute.
    Directory(PathBuf),
    /// Objects below a prefix of a bucket.
    S3(S3Location),
    /// A repository of a registry.
    Oci {
        /// `host` or `host:port`.
        registry: String,
        /// The repository's name.
        repository: String,
    },
}

/// `s3://bucket/prefix?endpoint=URL&region=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    /// The service's URL; Amazon's own if absent.
    pub endpoint: Option<String>,
    /// The service's own name of its region.
    pub region: Option<String>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::S3(s3) => write!(f, "{s3}"),
            Self::Oci { registry, repository } => write!(f, "oci://{registry}/{repository}"),
        }
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let given = [("endpoint", &self.endpoint), ("region", &self.region)];
        let given = given.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        for (n, (key, value)) in given.enumerate() {
            write!(f, "{}{key}={value}", if n == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

impl TryFrom<String> for Location {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

fn malformed(text: &str, why: &str) -> Error {
    let shown: String = text.escape_debug().take(200).collect();
    Error::refused(Code::InvalidParameterValue, format!("'{shown}' is not a location: {why}"))
}

impl FromStr for Location {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with("s3://") {
            return text.parse().map(Self::S3);
        }
        if let Some(rest) = text.strip_prefix("oci://") {
            let (registry, repository) = rest
                .split_once('/')
                .ok_or_else(|| malformed(text, "it has the form oci://host/repository"))?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let host = |c: char| plain(c) || "[]:".contains(c);
            // distribution-spec, "Pulling manifests": lower case, and no empty component.
            let name = |part: &str| {
                let lower = !part.contains(|c: char| c.is_ascii_uppercase());
                part.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && lower
                    && part.chars().all(plain)
            };
            if registry.is_empty()
                || !registry.chars().all(host)
                || !repository.split('/').all(name)
            {
                return Err(malformed(
                    text,
                    "it has the form oci://host/repository, in lower case",
                ));
            }
            return Ok(Self::Oci {
                registry: registry.to_owned(),
                repository: repository.to_owned(),
            });
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        if path.is_empty() || path.contains("://") {
            return Err(malformed(text, "give a directory, s3://… or oci://…"));
        }
        let path = std::path::absolute(path).map_err(|e| malformed(text, &e.to_string()))?;
        Ok(Self::Directory(path))
    }
}

impl FromStr for S3Location {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let form = "it has the form s3://bucket/prefix?endpoint=URL&region=NAME";
        let rest = text.strip_prefix("s3://").ok_or_else(|| malformed(text, form))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let fine = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if bucket.is_empty() || !bucket.chars().all(fine) {
            return Err(malformed(text, form));
        }
        let prefix = prefix.trim_matches('/');
        if prefix.split('/').any(|part| part == ".." || part == ".") || prefix.contains("//") {
            return Err(malformed(text, "its prefix has an empty or dotted component"));
        }
        let mut location = Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("endpoint", url)) if url.starts_with("http") => {
                    location.endpoint = Some(url.trim_end_matches('/').to_owned());
                }
                Some(("region", name)) if !name.is_empty() => {
                    location.region = Some(name.to_owned());
                }
                _ => return Err(malformed(text, form)),
            }
        }
        Ok(location)
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Regions {
    regions: Vec<Region>,
}

/// The regions that the user has named, by name.
///
/// # Errors
/// The file that has them can't be read.
pub fn list(store: &Store) -> Result<Vec<Region>> {
    let dir = store.account_dir();
    let path = dir.join(FILE);
    let text = match Owned::open(&dir).and_then(|dir| dir.read(FILE, MAX_FILE)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.or_fail(|| format!("read {}", path.display()))?,
    };
    let corrupt = |why: String| {
        Error::failure(format!("{} is damaged: {why}; repair or remove it", path.display()))
    };
    let found: Regions = serde_json::from_slice(&text).map_err(|e| corrupt(e.to_string()))?;
    Ok(found.regions)
}

/// Replace the list. The caller holds the store's lock.
fn save(store: &Store, mut regions: Vec<Region>) -> Result<()> {
    regions.sort_by(|a, b| a.region_name.cmp(&b.region_name));
    let dir = store.account()?;
    let write = || -> std::io::Result<()> {
        dir.replace(FILE, &serde_json::to_vec_pretty(&Regions { regions })?, true)?;
        dir.sync()
    };
    write().or_fail(|| format!("write {}", dir.path().join(FILE).display()))
}

/// Name a region.
///
/// # Errors
/// The name is malformed or taken, or the location is the store's own.
pub fn add(store: &Store, name: &str, location: Location) -> Result<Region> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !(1..=64).contains(&name.len()) || !name.chars().all(fine) || name == LOCAL {
        let shown: String = name.escape_debug().take(100).collect();
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!(
                "'{shown}' can't be a region's name: it takes 1 to 64 lower-case letters, digits and dashes, and {LOCAL} is the store at hand"
            ),
        ));
    }
    if let Location::Directory(path) = &location {
        if same_directory(path, store.home()) {
            return Err(Error::refused(
                Code::InvalidParameterValue,
                format!("{} is the store at hand, the region {LOCAL}", path.display()),
            ));
        }
        Store::open_within(path, store.context())?;
    }
    let _lock = store.lock()?;
    let mut regions = list(store)?;
    if regions.iter().any(|region| region.region_name == name) {
        return Err(Error::refused(
            Code::InvalidParameterValue,
            format!("there is a region '{name}' already; choose another name or remove that one"),
        ));
    }
    let region = Region { region_name: name.to_owned(), endpoint: location };
    regions.push(region.clone());
    save(store, regions)?;
    Ok(region)
}

/// Forget a region. What is in it stays.
///
/// # Errors
/// There is none of that name.
pub fn remove(store: &Store, name: &str) -> Result<()> {
    let _lock = store.lock()?;
    let mut regions = list(store)?;
    regions.retain(|region| region.region_name != name);
    if regions.len() == list(store)?.len() {
        return Err(unknown(name));
    }
    save(store, regions)
}

/// The region of that name.
///
/// # Errors
/// `InvalidRegion`: there is none.
pub fn find(store: &Store, name: &str) -> Result<Region> {
    list(store)?.into_iter().find(|region| region.region_name == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    let shown: String = name.escape_debug().take(100).collect();
    Error::refused(
        Code::InvalidRegion,
        format!(
            "there is no region '{shown}'; 'spore region ls' has them, 'spore region add' makes one"
        ),
    )
}

impl Region {
    /// The store of a region that is a directory.
    ///
    /// # Errors
    /// `InvalidRegion`: the directory has gone, or is no store any more; as [`Store::open_at`]'s.
    pub fn open(&self, path: &Path, context: &Context) -> Result<Store> {
        if !path.join("images").is_dir() {
            let name = &self.region_name;
            return Err(Error::refused(
                Code::InvalidRegion,
                format!(
                    "the region '{name}' has gone: there is no store at {}; mount it, or 'spore region rm {name}'",
                    path.display()
                ),
            ));
        }
        Store::open_within(path, context)
    }
}

fn same_directory(a: &Path, b: &Path) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_what_they_say() {
        for text in [
            "/srv/spore",
            "s3://bucket",
            "s3://bucket/a/b?endpoint=http://127.0.0.1:9000&region=eu",
            "oci://localhost:5000/team/images",
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        assert_eq!("file:///x".parse::<Location>().unwrap(), Location::Directory("/x".into()));
        for bad in [
            "",
            "s3://",
            "s3:///prefix",
            "s3://b/../x",
            "s3://b?what=1",
            "s3://b?endpoint=ftp://x",
            "oci://host",
            "oci://host/",
            "oci://host/Upper",
            "oci://host/a//b",
            "oci://host/../b",
            "https://example.org",
        ] {
            assert_eq!(
                bad.parse::<Location>().unwrap_err().code(),
                Some(Code::InvalidParameterValue),
                "{bad}"
            );
        }
    }

    #[test]
    fn names_are_the_users() {
        let (dir, store) = Store::scratch();
        let west = Location::Directory(dir.path().join("west"));
        assert_eq!(find(&store, "west").unwrap_err().code(), Some(Code::InvalidRegion));
        add(&store, "west", west.clone()).unwrap();
        assert_eq!(find(&store, "west").unwrap().endpoint, west);
        for (name, location) in [
            ("west", "/elsewhere".parse().unwrap()),
            ("local", west.clone()),
            ("../x", west.clone()),
            ("", west.clone()),
            ("own", Location::Directory(store.home().to_owned())),
        ] {
            let error = add(&store, name, location).unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidParameterValue), "{name}");
        }
        let region = find(&store, "west").unwrap();
        region.open(&dir.path().join("west"), &Context::default()).unwrap();
        std::fs::remove_dir_all(dir.path().join("west")).unwrap();
        let gone = region.open(&dir.path().join("west"), &Context::default()).unwrap_err();
        assert_eq!(gone.code(), Some(Code::InvalidRegion));
        assert!(gone.to_string().contains("has gone"));
        remove(&store, "west").unwrap();
        assert_eq!(remove(&store, "west").unwrap_err().code(), Some(Code::InvalidRegion));
    }
}
