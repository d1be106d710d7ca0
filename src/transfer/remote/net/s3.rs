//! A bucket of an S3-compatible service.
//!
//! Credentials are in the environment, in AWS's variables; without them the bucket is asked
//! anonymously.

use super::bounded::Bounded;
use super::client::{MAX_IDS, RegionClient, provide_cryptography, root_cause};
use crate::error::{Code, Error, Result};
use crate::id::SnapshotId;
use crate::transfer::package::Chunk;
use crate::transfer::region::S3Location;
use crate::transfer::remote::backend::{Answer, CONNECT, Fault, SILENCE};
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error as S3Error, GetOptions, GetResult, ObjectStore,
    ObjectStoreExt, PutPayload, RetryConfig,
};
use std::time::Duration;

/// Where packages are, below the prefix.
const IMAGES: &str = "images";
const SNAPSHOTS: &str = "snapshots";
/// Most attempts beside the first.
const RETRIES: usize = 3;
/// How long they may take.
const RETRY_TIME: Duration = Duration::from_secs(20);

/// An open bucket.
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: String,
}

impl From<S3Error> for Fault {
    fn from(error: S3Error) -> Self {
        match error {
            S3Error::NotFound { .. } => Self::Absent,
            S3Error::PermissionDenied { .. } | S3Error::Unauthenticated { .. } => {
                Self::Denied(root_cause(&error))
            }
            error => Self::Failed(root_cause(&error)),
        }
    }
}

impl Bucket {
    /// Open a bucket. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The client can't be set up.
    pub(super) fn open(location: &S3Location) -> Result<Self> {
        provide_cryptography();
        let options = ClientOptions::new()
            .with_connect_timeout(CONNECT)
            .with_timeout(SILENCE)
            .with_allow_http(
                location.endpoint.as_ref().is_some_and(|url| url.starts_with("http:")),
            );
        let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..Default::default() };
        let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIME };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&location.bucket)
            .with_client_options(options)
            .with_http_connector(Bounded)
            .with_retry(retry);
        if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
            builder = builder.with_skip_signature(true);
        }
        if let Some(endpoint) = &location.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &location.region {
            builder = builder.with_region(region);
        }
        let store = builder.build().map_err(|e| {
            Error::refused(Code::InvalidParameterValue, format!("{location} can't be used: {e}"))
        })?;
        Ok(Self { store, prefix: location.prefix.clone() })
    }

    /// Where an object is: a path of components that have been checked.
    fn path(&self, name: &str) -> Path {
        if self.prefix.is_empty() {
            Path::from(name)
        } else {
            Path::from(format!("{}/{name}", self.prefix))
        }
    }

    fn blob(&self, digest: &str) -> Path {
        self.path(&format!("blobs/sha256/{digest}"))
    }

    /// Read an object of at most `limit` bytes.
    async fn read(&self, path: &Path, limit: u64) -> Answer<Vec<u8>> {
        let object = self.store.get(path).await?;
        let (size, mut stream) = (object.meta.size, object.into_stream());
        let too_long = || Fault::Failed(format!("{path} has more than {limit} bytes"));
        if size > limit {
            return Err(too_long());
        }
        let mut bytes = Vec::with_capacity(size as usize);
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
            if bytes.len() as u64 > limit {
                return Err(too_long());
            }
        }
        Ok(bytes)
    }

    /// Read the object of that name below the prefix.
    pub(super) async fn read_named(&self, name: &str, limit: u64) -> Answer<Vec<u8>> {
        self.read(&self.path(name), limit).await
    }

    /// Write the object of that name below the prefix.
    pub(super) async fn write_named(&self, name: &str, bytes: Vec<u8>) -> Answer<()> {
        self.store.put(&self.path(name), PutPayload::from(bytes)).await?;
        Ok(())
    }

    /// Delete the object of that name below the prefix.
    pub(super) async fn delete_named(&self, name: &str) -> Answer<()> {
        self.store.delete(&self.path(name)).await?;
        Ok(())
    }

    /// What tells that an object is the same as before: its size, and its time and tag as the
    /// service gives them.
    pub(super) async fn stamp(&self, name: &str) -> Answer<(u64, String)> {
        let meta = self.store.head(&self.path(name)).await?;
        let tag = meta.e_tag.unwrap_or_default();
        Ok((meta.size, format!("{} {tag}", meta.last_modified.timestamp_millis())))
    }

    /// The objects of a directory below the prefix: the last part of each name, and when it was
    /// written. More than `most` are none that we made.
    pub(super) async fn list_named(&self, place: &str, most: usize) -> Answer<Vec<(String, u64)>> {
        let mut listing = self.store.list(Some(&self.path(place)));
        let mut all = Vec::new();
        while let Some(object) = listing.try_next().await? {
            let time = u64::try_from(object.last_modified.timestamp_millis()).unwrap_or(0);
            all.extend(object.location.filename().map(|name| (name.to_owned(), time)));
            if all.len() > most {
                return Err(Fault::Failed(format!("it lists more than {most} objects in {place}")));
            }
        }
        Ok(all)
    }

    /// The object of that name below the prefix, or what of it the options ask for.
    pub(super) async fn object(
        &self,
        name: &str,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.store.get_opts(&self.path(name), options).await
    }

    /// Where the package of an image or a snapshot is.
    fn at(&self, id: &str) -> Path {
        let place = if id.starts_with(SnapshotId::PREFIX) { SNAPSHOTS } else { IMAGES };
        self.path(&format!("{place}/{id}.json"))
    }
}

impl RegionClient for Bucket {
    async fn list(&self) -> Answer<Vec<String>> {
        let mut all = self.list_named(IMAGES, MAX_IDS).await?;
        all.extend(self.list_named(SNAPSHOTS, MAX_IDS).await?);
        let ids = all.iter().filter_map(|(name, _)| name.strip_suffix(".json"));
        Ok(ids.map(str::to_owned).collect())
    }

    async fn package(&self, id: &str, limit: u64) -> Answer<Vec<u8>> {
        self.read(&self.at(id), limit).await
    }

    async fn has(&self, digest: &str) -> Answer<bool> {
        match self.store.head(&self.blob(digest)).await {
            Ok(_) => Ok(true),
            Err(S3Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn put(&self, digest: &str, bytes: Vec<u8>) -> Answer<()> {
        self.store.put(&self.blob(digest), PutPayload::from(bytes)).await?;
        Ok(())
    }

    async fn get(&self, digest: &str, limit: u64) -> Answer<Vec<u8>> {
        self.read(&self.blob(digest), limit).await
    }

    async fn publish(&self, id: &str, json: Vec<u8>, _: &[&Chunk]) -> Answer<()> {
        self.store.put(&self.at(id), PutPayload::from(json)).await?;
        Ok(())
    }
}
