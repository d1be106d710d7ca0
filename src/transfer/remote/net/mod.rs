//! What talks to the network: the only asynchronous code, each call driven to its end by the thread
//! that made it.

mod bounded;
mod client;
mod http;
mod object;
mod oci;
mod registry;
mod s3;
mod watched;

use crate::error::{Code, Error, OrFail, Result};
use crate::transfer::download::transport::Transport;
use crate::transfer::package::Chunk;
use crate::transfer::region::{Location, S3Location};
use crate::transfer::remote::backend::{Answer, Backend, Objects};
use client::RegionClient;
use tokio::runtime::{Builder, Runtime};

/// Most objects of content: 64 TiB in chunks of 4 MiB, before they are compressed.
const MAX_BLOBS: usize = 1 << 24;

/// A client, and what drives it.
struct Driven<C> {
    client: C,
    runtime: Runtime,
}

/// Open a remote region. Nothing is asked of it yet.
///
/// # Errors
/// The client can't be set up; it is a directory.
pub(in crate::transfer) fn region(location: &Location) -> Result<Box<dyn Backend>> {
    Ok(match location {
        Location::S3(location) => {
            Box::new(Driven { client: s3::Bucket::open(location)?, runtime: runtime()? })
        }
        Location::Oci { registry, repository } => {
            let client = oci::Repository::open(registry, repository)?;
            Box::new(Driven { client, runtime: runtime()? })
        }
        Location::Directory(path) => {
            return Err(Error::failure(format!("{} is a directory", path.display())));
        }
    })
}

/// Open a bucket. Nothing is asked of it yet.
///
/// # Errors
/// The client can't be set up.
pub(in crate::transfer) fn bucket(location: &S3Location) -> Result<Box<dyn Objects>> {
    Ok(Box::new(Driven { client: s3::Bucket::open(location)?, runtime: runtime()? }))
}

/// What serves the file at an address. Nothing is asked of it yet. `vouched`: a checksum says
/// whether what comes is the right thing, so that it may come from anywhere.
///
/// # Errors
/// It is no address; the client can't be set up.
pub(in crate::transfer) fn transport(address: &str, vouched: bool) -> Result<Box<dyn Transport>> {
    if address.starts_with("s3://") {
        return Ok(Box::new(object::Object::open(&address.parse()?, runtime()?)?));
    }
    if address.starts_with("https://") || address.starts_with("http://") {
        return Ok(Box::new(http::Http::open(address, vouched, runtime()?)?));
    }
    let scheme: String = address.split("://").next().unwrap_or_default().chars().take(40).collect();
    let why = format!("nothing is fetched by '{}:'", scheme.escape_debug());
    let remedy = "give an address that begins with https://, http://, s3://, oci:// or file://";
    Err(Error::refused(Code::InvalidParameterValue, why).remedy(remedy))
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().or_fail(|| "set up the network")
}

impl<C: RegionClient> Backend for Driven<C> {
    fn list(&self) -> Answer<Vec<String>> {
        self.runtime.block_on(self.client.list())
    }
    fn package(&self, id: &str, limit: u64) -> Answer<Vec<u8>> {
        self.runtime.block_on(self.client.package(id, limit))
    }
    fn has(&self, digest: &str) -> Answer<bool> {
        self.runtime.block_on(self.client.has(digest))
    }
    fn put(&self, digest: &str, bytes: Vec<u8>) -> Answer<()> {
        self.runtime.block_on(self.client.put(digest, bytes))
    }
    fn get(&self, digest: &str, size: u64) -> Answer<Vec<u8>> {
        self.runtime.block_on(self.client.get(digest, size))
    }
    fn publish(&self, id: &str, json: Vec<u8>, chunks: &[&Chunk]) -> Answer<()> {
        self.runtime.block_on(self.client.publish(id, json, chunks))
    }
    fn tagged(&self, reference: &str, limit: u64) -> Option<Answer<Vec<u8>>> {
        self.runtime.block_on(self.client.tagged(reference, limit))
    }
    fn tag(&self, id: &str, tag: &str) -> Answer<()> {
        self.runtime.block_on(self.client.tag(id, tag))
    }
}

impl Objects for Driven<s3::Bucket> {
    fn read(&self, name: &str, limit: u64) -> Answer<Vec<u8>> {
        self.runtime.block_on(self.client.read_named(name, limit))
    }
    fn write(&self, name: &str, bytes: Vec<u8>) -> Answer<()> {
        self.runtime.block_on(self.client.write_named(name, bytes))
    }
    fn delete(&self, name: &str) -> Answer<()> {
        self.runtime.block_on(self.client.delete_named(name))
    }
    fn stamp(&self, name: &str) -> Answer<(u64, String)> {
        self.runtime.block_on(self.client.stamp(name))
    }
    fn list(&self, place: &str) -> Answer<Vec<(String, u64)>> {
        self.runtime.block_on(self.client.list_named(place, MAX_BLOBS))
    }
}
