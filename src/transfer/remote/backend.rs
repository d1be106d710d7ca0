//! What a remote region has to be able to do, whatever its protocol.

use crate::transfer::package::Chunk;
use std::time::Duration;

/// How long a connection may take to come about.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing may be heard on one.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// What a backend says went wrong.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is not there.
    Absent,
    /// The user may not.
    Denied(String),
    /// Anything else.
    Failed(String),
}

impl Fault {
    /// What a server says, as a part of a line: its answer may have many, and be long.
    pub(crate) fn reported(why: &str) -> String {
        let words: Vec<&str> = why.split_whitespace().collect();
        words.join(" ").chars().take(300).collect()
    }
}

/// What a backend gives.
pub(crate) type Answer<T> = std::result::Result<T, Fault>;

/// A remote region, as a store of packages and of content by digest.
pub(crate) trait Backend: Send + Sync {
    /// The ids of the images and snapshots in it.
    fn list(&self) -> Answer<Vec<String>>;
    /// The package of an image or a snapshot, of at most `limit` bytes.
    fn package(&self, id: &str, limit: u64) -> Answer<Vec<u8>>;
    /// Whether it has this content.
    fn has(&self, digest: &str) -> Answer<bool>;
    /// Take content.
    fn put(&self, digest: &str, bytes: Vec<u8>) -> Answer<()>;
    /// Give content of `size` bytes.
    fn get(&self, digest: &str, size: u64) -> Answer<Vec<u8>>;
    /// Let an image or a snapshot appear, in place of what has its id.
    fn publish(&self, id: &str, json: Vec<u8>, chunks: &[&Chunk]) -> Answer<()>;
    /// The package that has this tag, or whose manifest has this digest (`sha256:HEX`), of at most
    /// `limit` bytes. `None`: this kind of region has neither.
    fn tagged(&self, reference: &str, limit: u64) -> Option<Answer<Vec<u8>>> {
        let _ = (reference, limit);
        None
    }
    /// Give what has appeared a tag, in place of what had that, where there are tags.
    fn tag(&self, id: &str, tag: &str) -> Answer<()> {
        let _ = (id, tag);
        Ok(())
    }
}

/// A bucket, as a place for objects by name.
pub(crate) trait Objects: Send + Sync {
    /// The object, of at most `limit` bytes.
    fn read(&self, name: &str, limit: u64) -> Answer<Vec<u8>>;
    /// Make or replace it.
    fn write(&self, name: &str, bytes: Vec<u8>) -> Answer<()>;
    /// It is gone then.
    fn delete(&self, name: &str) -> Answer<()>;
    /// Its size, and what tells that it is the same as before.
    fn stamp(&self, name: &str) -> Answer<(u64, String)>;
    /// What is in the directory of that name: the last part of each name, and when it was written,
    /// in milliseconds since the epoch by the service's clock.
    fn list(&self, place: &str) -> Answer<Vec<(String, u64)>>;
}
