//! A repository of an OCI registry (OCI distribution-spec 1.1).
//!
//! An image is an artifact: the package is its config, the chunks are its layers, and its id and
//! its name are its tags. Credentials are those that `docker login` keeps.

use super::client::{MAX_IDS, RegionClient};
use super::registry::{Access, Registry, read};
use crate::error::Result;
use crate::transfer::package::{Chunk, is_digest};
use crate::transfer::remote::backend::{Answer, Fault};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use serde::{Deserialize, Serialize};

/// Media types: of the artifact, of the package and of a chunk.
const ARTIFACT: &str = "application/vnd.spore.image.v1";
const PACKAGE: &str = "application/vnd.spore.package.v1+json";
const CHUNK: &str = "application/vnd.spore.chunk.v1+zstd";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Longest manifest that registries have to take (distribution-spec, "Pushing Manifests").
const MAX_MANIFEST: usize = 4 << 20;
/// Tags asked for at once.
const TAGS: usize = 100;
/// Longest list of so many: a tag has at most 128 characters.
const MAX_TAGS_BODY: usize = 1 << 20;

/// An open repository.
pub(super) struct Repository(Registry);

/// The tags of a repository.
#[derive(Deserialize)]
struct Tags {
    /// `null` where there are none any more.
    tags: Option<Vec<String>>,
}

/// A manifest (image-spec, "OCI Image Manifest Specification"), as far as an artifact of ours has
/// one.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u8,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// What some content is (image-spec, "OCI Content Descriptors").
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

impl Repository {
    /// Open a repository. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The client can't be set up.
    pub(super) fn open(registry: &str, repository: &str) -> Result<Self> {
        Ok(Self(Registry::open(registry, repository)?))
    }

    /// What the registry answers to `path` of the repository, of at most `limit` bytes.
    async fn read(&self, path: &str, accept: &str, limit: usize) -> Answer<Vec<u8>> {
        let request = self.0.request(Method::GET, path)?.header(ACCEPT, accept);
        read(self.0.send(Access::Pull, request).await?, limit).await
    }

    async fn put_manifest(&self, tag: &str, manifest: Vec<u8>) -> Answer<()> {
        let request = self.0.request(Method::PUT, &format!("manifests/{tag}"))?;
        let request = request.header(CONTENT_TYPE, MANIFEST).body(manifest);
        self.0.send(Access::Push, request).await?;
        Ok(())
    }

    /// The manifest of that tag or digest.
    async fn manifest(&self, reference: &str) -> Answer<Vec<u8>> {
        let json = self.read(&format!("manifests/{reference}"), MANIFEST, MAX_MANIFEST).await?;
        match reference.strip_prefix("sha256:") {
            Some(digest) if crate::transfer::chunk::sha256(&json) != digest => {
                let why = format!("what it gives for {reference} is something else");
                Err(Fault::Failed(why))
            }
            _ => Ok(json),
        }
    }
}

impl RegionClient for Repository {
    async fn list(&self) -> Answer<Vec<String>> {
        let (mut ids, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("tags/list?n={TAGS}{after}");
            let page = match self.read(&path, "application/json", MAX_TAGS_BODY).await {
                // Nobody has pushed anything yet.
                Err(Fault::Absent) => return Ok(ids),
                page => page?,
            };
            let page: Tags =
                serde_json::from_slice(&page).map_err(|e| Fault::Failed(e.to_string()))?;
            let tags = page.tags.unwrap_or_default();
            let next = tags.last().filter(|_| tags.len() >= TAGS);
            let next = next.filter(|tag| is_tag(tag)).map(|tag| format!("&last={tag}"));
            ids.extend(tags);
            if ids.len() > MAX_IDS {
                return Err(Fault::Failed(format!("it lists more than {MAX_IDS} tags")));
            }
            match next.filter(|next| *next != after) {
                Some(next) => after = next,
                None => return Ok(ids),
            }
        }
    }

    async fn package(&self, id: &str, limit: u64) -> Answer<Vec<u8>> {
        let json = self.manifest(id).await?;
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|e| Fault::Failed(e.to_string()))?;
        let digest = manifest.config.digest.strip_prefix("sha256:").unwrap_or_default();
        let size = manifest.config.size;
        if manifest.config.media_type != PACKAGE || !is_digest(digest) || size > limit {
            return Err(Fault::Failed(format!("{id} is not an image of Spore's")));
        }
        self.get(digest, size).await
    }

    async fn has(&self, digest: &str) -> Answer<bool> {
        let request = self.0.request(Method::HEAD, &blob(digest))?;
        match self.0.send(Access::Push, request).await {
            Ok(_) => Ok(true),
            Err(Fault::Absent) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// In two requests (distribution-spec, "Pushing a blob monolithically").
    async fn put(&self, digest: &str, bytes: Vec<u8>) -> Answer<()> {
        let begin = self.0.request(Method::POST, "blobs/uploads/")?.header(CONTENT_LENGTH, 0);
        let begun = self.0.send(Access::Push, begin).await?;
        let place = begun.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let place = place.ok_or_else(|| Fault::Failed("it says no place for content".into()))?;
        let finish = self
            .0
            .upload(place, digest)?
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(bytes);
        self.0.send(Access::Push, finish).await?;
        Ok(())
    }

    /// A blob of exactly `size` bytes.
    async fn get(&self, digest: &str, size: u64) -> Answer<Vec<u8>> {
        let limit = usize::try_from(size).unwrap_or(usize::MAX);
        self.read(&blob(digest), "*/*", limit).await
    }

    async fn publish(&self, id: &str, json: Vec<u8>, chunks: &[&Chunk]) -> Answer<()> {
        let digest = crate::transfer::chunk::sha256(&json);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: Some(ARTIFACT.to_owned()),
            config: descriptor(PACKAGE, &digest, json.len() as u64),
            layers: chunks.iter().map(|c| descriptor(CHUNK, &c.digest, c.size)).collect(),
        };
        let text = serde_json::to_vec(&manifest).map_err(|e| Fault::Failed(e.to_string()))?;
        if text.len() > MAX_MANIFEST {
            return Err(Fault::Failed(
                "the image has more content than a registry's manifest can list".to_owned(),
            ));
        }
        self.put(&digest, json).await?;
        self.put_manifest(id, text).await
    }

    async fn tagged(&self, reference: &str, limit: u64) -> Option<Answer<Vec<u8>>> {
        Some(self.package(reference, limit).await)
    }

    async fn tag(&self, id: &str, tag: &str) -> Answer<()> {
        let manifest = self.manifest(id).await?;
        self.put_manifest(tag, manifest).await
    }
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256:{digest}")
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest: format!("sha256:{digest}"), size }
}

/// Whether it is a tag as registries have them, which stands in a URL as it is. (distribution-spec,
/// "Pulling manifests")
fn is_tag(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=128).contains(&text.len()) && text.chars().all(fine)
}
