//! Where a bundle is: files in a directory, or objects in a bucket.

use crate::context::Context;
use crate::error::{Code, Error, OrFail, Result};
use crate::store::beneath;
use crate::transfer::region::S3Location;
use crate::transfer::remote::backend::{Fault, Objects};
use crate::transfer::remote::helper::helper;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// An open place for bundles.
pub struct Storage {
    place: Place,
    /// As the user named it.
    text: String,
    context: Context,
}

enum Place {
    Directory(PathBuf),
    S3 { bucket: Box<dyn Objects>, location: S3Location },
}

impl Storage {
    /// A directory, or `s3://bucket/prefix?…`.
    ///
    /// # Errors
    /// It is malformed, or no directory.
    pub fn open(text: &str, context: &Context) -> Result<Self> {
        let place = if text.starts_with("s3://") {
            let location: S3Location = text.parse()?;
            Place::S3 { bucket: (helper(context)?.bucket)(&location)?, location }
        } else {
            let path = std::path::absolute(text).or_fail(|| format!("find {text}"))?;
            if !path.is_dir() {
                return Err(Error::refused(
                    Code::InvalidParameterValue,
                    format!("{} is not a directory; make it first", path.display()),
                ));
            }
            Place::Directory(path)
        };
        Ok(Self { place, text: text.to_owned(), context: context.clone() })
    }

    /// The place of a manifest, and the manifest's name in it.
    ///
    /// # Errors
    /// It names no object, or no place.
    pub fn of_manifest(text: &str, context: &Context) -> Result<(Self, String)> {
        let (path, query) = match text.strip_prefix("s3://").and_then(|_| text.split_once('?')) {
            Some((path, query)) => (path, format!("?{query}")),
            None => (text, String::new()),
        };
        let (place, name) = path.rsplit_once('/').unwrap_or((".", path));
        let place = if place.is_empty() { "/" } else { place };
        Ok((Self::open(&format!("{place}{query}"), context)?, name.to_owned()))
    }

    /// Whether it is a bucket, which the user's credentials are sent to.
    pub fn takes_credentials(text: &str) -> bool {
        text.starts_with("s3://")
    }

    /// What the work in it is done for.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Where the object of that name is.
    pub fn location(&self, name: &str) -> String {
        match &self.place {
            Place::Directory(path) => path.join(name).display().to_string(),
            Place::S3 { location, .. } => {
                let prefix = format!("{}/{name}", location.prefix);
                let prefix = prefix.trim_start_matches('/').to_owned();
                S3Location { prefix, ..location.clone() }.to_string()
            }
        }
    }

    fn reported(&self, name: &str, fault: Fault) -> Error {
        match fault {
            Fault::Absent => super::refusal::invalid(format!("{} has no {name}", self.text)),
            Fault::Denied(why) => {
                Error::refused(Code::AuthFailure, format!("{}: {why}", self.text))
            }
            Fault::Failed(why) => {
                let why = Fault::reported(&why);
                Error::refused(Code::Unavailable, format!("{} does not answer: {why}", self.text))
            }
        }
    }

    /// Whether the object exists.
    ///
    /// # Errors
    /// The place can't be reached.
    pub fn has(&self, name: &str) -> Result<bool> {
        match &self.place {
            Place::Directory(path) => Ok(path.join(name).symlink_metadata().is_ok()),
            Place::S3 { bucket, .. } => match bucket.stamp(name) {
                Ok(_) => Ok(true),
                Err(Fault::Absent) => Ok(false),
                Err(fault) => Err(self.reported(name, fault)),
            },
        }
    }

    /// An object of at most `limit` bytes.
    ///
    /// # Errors
    /// `InvalidManifest`: there is none, or it is longer.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let bytes = match &self.place {
            Place::Directory(path) => {
                let path = path.join(name);
                let mut bytes = Vec::new();
                let read = beneath::foreign_file(&path)
                    .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes).map(drop));
                match read {
                    Err(e) if e.kind() == ErrorKind::NotFound => {
                        return Err(self.reported(name, Fault::Absent));
                    }
                    read => read.or_fail(|| format!("read {}", path.display()))?,
                }
                bytes
            }
            Place::S3 { bucket, .. } => {
                let read = bucket.read(name, limit);
                read.map_err(|fault| self.reported(name, fault))?
            }
        };
        if bytes.len() as u64 > limit {
            return Err(super::refusal::invalid(format!("{name} has more than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Write an object, durable.
    ///
    /// # Errors
    /// No space; the place can't be reached.
    pub fn write(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        match &self.place {
            Place::Directory(path) => {
                let path = path.join(name);
                let write = || -> std::io::Result<()> {
                    let mut file = beneath::foreign_create(&path)?;
                    file.write_all(&bytes)?;
                    file.sync_all()
                };
                write().map_err(|cause| Error::io(format!("write {}", path.display()), cause))
            }
            Place::S3 { bucket, .. } => {
                let written = bucket.write(name, bytes);
                written.map_err(|fault| self.reported(name, fault))
            }
        }
    }

    /// Delete an object. Failing is harmless: nothing refers to it.
    pub fn delete(&self, name: &str) {
        match &self.place {
            Place::Directory(path) => drop(fs::remove_file(path.join(name))),
            Place::S3 { bucket, .. } => drop(bucket.delete(name)),
        }
    }

    /// What tells that an object is the same as before, without reading it.
    ///
    /// # Errors
    /// `InvalidManifest`: there is none.
    pub fn stamp(&self, name: &str) -> Result<(u64, String)> {
        let stamp = match &self.place {
            Place::Directory(path) => match path.join(name).metadata() {
                Ok(meta) => {
                    let (time, nanos) = (meta.mtime(), meta.mtime_nsec());
                    Ok((meta.len(), format!("{time}.{nanos:09} {}", meta.ino())))
                }
                Err(e) if e.kind() == ErrorKind::NotFound => Err(Fault::Absent),
                Err(e) => Err(Fault::Failed(e.to_string())),
            },
            Place::S3 { bucket, .. } => bucket.stamp(name),
        };
        stamp.map_err(|fault| self.reported(name, fault))
    }
}
