//! A repository of an OCI registry (OCI distribution-spec 1.1).
//!
//! An image is an artifact: the package is its config, the chunks are its layers, and its id is its tag. Credentials
//! are those that `docker login` keeps.

use super::client::{MAX_IDS, RegionClient, provide_cryptography, root_cause};
use crate::error::{OrFail, Result};
use crate::transfer::package::{Chunk, is_digest};
use crate::transfer::remote::backend::{Answer, CONNECT, Fault, SILENCE};
use base64::Engine;
use futures_util::StreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use serde::Deserialize;
use std::path::PathBuf;

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
pub(super) struct Repository {
    client: Client,
    /// For what the other client would read without a bound.
    http: reqwest::Client,
    registry: String,
    repository: String,
    auth: RegistryAuth,
}

/// The tags of a repository.
#[derive(Deserialize)]
struct Tags {
    /// `null` where there are none any more.
    tags: Option<Vec<String>>,
}

impl From<OciDistributionError> for Fault {
    fn from(error: OciDistributionError) -> Self {
        use OciErrorCode::{BlobUnknown, ManifestUnknown, NameUnknown, NotFound};
        match &error {
            OciDistributionError::ImageManifestNotFoundError(_) => Self::Absent,
            OciDistributionError::RegistryError { envelope, .. }
                if envelope.errors.iter().any(|e| {
                    [BlobUnknown, ManifestUnknown, NameUnknown, NotFound].contains(&e.code)
                }) =>
            {
                Self::Absent
            }
            OciDistributionError::ServerError { code: 404, .. } => Self::Absent,
            OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::UnauthorizedError { .. } => Self::Denied(root_cause(&error)),
            _ => Self::Failed(root_cause(&error)),
        }
    }
}

impl Repository {
    /// Open a repository. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The client can't be set up.
    pub(super) fn open(registry: &str, repository: &str) -> Result<Self> {
        provide_cryptography();
        let config = ClientConfig {
            protocol: if is_loopback(registry) {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("spore/", env!("CARGO_PKG_VERSION")),
            use_monolithic_push: true,
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).or_fail(|| format!("talk to {registry}"))?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(concat!("spore/", env!("CARGO_PKG_VERSION")))
            .build()
            .or_fail(|| format!("talk to {registry}"))?;
        let auth = credentials(registry).unwrap_or(RegistryAuth::Anonymous);
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Ok(Self { client, http, registry, repository, auth })
    }

    fn tag(&self, id: &str) -> Reference {
        Reference::with_tag(self.registry.clone(), self.repository.clone(), id.to_owned())
    }

    /// What the registry answers to `path` of the repository, of at most `limit` bytes.
    async fn read(&self, path: &str, accept: &str, limit: usize) -> Answer<Vec<u8>> {
        let name = self.tag("latest");
        let token = self.client.auth(&name, &self.auth, RegistryOperation::Pull).await?;
        let scheme = if is_loopback(&self.registry) { "http" } else { "https" };
        let registry = name.resolve_registry();
        let url = format!("{scheme}://{registry}/v2/{}/{path}", name.repository());
        let request = self.http.get(url).header("Accept", accept);
        let request = match (token, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, word)) => request.basic_auth(user, Some(word)),
            _ => request,
        };
        let failed = |e: reqwest::Error| Fault::Failed(root_cause(&e));
        let mut response = request.send().await.map_err(failed)?;
        match response.status() {
            status if status.is_success() => {}
            status if status.as_u16() == 404 => return Err(Fault::Absent),
            status if matches!(status.as_u16(), 401 | 403) => {
                return Err(Fault::Denied(format!("it answers {status}")));
            }
            status => return Err(Fault::Failed(format!("it answers {status}"))),
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if bytes.len() + piece.len() > limit {
                let most = limit >> 20;
                return Err(Fault::Failed(format!("its answer has more than {most} MiB")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// What says where, when no tag matters, and that we may.
    async fn anywhere(&self, operation: RegistryOperation) -> Answer<Reference> {
        let name = self.tag("latest");
        self.client.auth(&name, &self.auth, operation).await?;
        Ok(name)
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
        let json = self.read(&format!("manifests/{id}"), MANIFEST, MAX_MANIFEST).await?;
        let manifest: OciImageManifest =
            serde_json::from_slice(&json).map_err(|e| Fault::Failed(e.to_string()))?;
        let digest = manifest.config.digest.strip_prefix("sha256:").unwrap_or_default();
        let size = u64::try_from(manifest.config.size).unwrap_or(u64::MAX);
        if manifest.config.media_type != PACKAGE || !is_digest(digest) || size > limit {
            return Err(Fault::Failed(format!("{id} is not an image of Spore's")));
        }
        self.get(digest, size).await
    }

    async fn has(&self, digest: &str) -> Answer<bool> {
        let name = self.anywhere(RegistryOperation::Push).await?;
        Ok(self.client.blob_exists(&name, &format!("sha256:{digest}")).await?)
    }

    async fn put(&self, digest: &str, bytes: Vec<u8>) -> Answer<()> {
        let name = self.anywhere(RegistryOperation::Push).await?;
        self.client.push_blob(&name, bytes, &format!("sha256:{digest}")).await?;
        Ok(())
    }

    /// A blob of exactly `size` bytes.
    async fn get(&self, digest: &str, size: u64) -> Answer<Vec<u8>> {
        let name = self.anywhere(RegistryOperation::Pull).await?;
        let layer = descriptor(CHUNK, digest, size);
        let mut stream = self.client.pull_blob_stream(&name, &layer).await?;
        let mut bytes = Vec::with_capacity(size as usize);
        while let Some(piece) = stream.stream.next().await {
            let piece = piece.map_err(|e| Fault::Failed(root_cause(&e)))?;
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > size {
                return Err(Fault::Failed(format!("it has more than {size} bytes of {digest}")));
            }
        }
        Ok(bytes)
    }

    async fn publish(&self, id: &str, json: Vec<u8>, chunks: &[&Chunk]) -> Answer<()> {
        let digest = crate::transfer::chunk::sha256(&json);
        let config = descriptor(PACKAGE, &digest, json.len() as u64);
        let manifest = OciImageManifest {
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: Some(ARTIFACT.to_owned()),
            config,
            layers: chunks.iter().map(|c| descriptor(CHUNK, &c.digest, c.size)).collect(),
            ..OciImageManifest::default()
        };
        let size = serde_json::to_vec(&manifest).map_or(usize::MAX, |json| json.len());
        if size > MAX_MANIFEST {
            return Err(Fault::Failed(
                "the image has more content than a registry's manifest can list".to_owned(),
            ));
        }
        self.put(&digest, json).await?;
        self.client.push_manifest(&self.tag(id), &OciManifest::Image(manifest)).await?;
        Ok(())
    }
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.to_owned(),
        digest: format!("sha256:{digest}"),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

/// Whether it is a tag as registries have them, which stands in a URL as it is. (distribution-spec, "Pulling manifests")
fn is_tag(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=128).contains(&text.len()) && text.chars().all(fine)
}

/// A registry on this machine speaks plain HTTP, as Docker has it.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) { host } else { registry }
    });
    host == "localhost" || host.starts_with("127.") || host == "[::1]"
}

/// What `docker login` has for the registry: `auths.REGISTRY.auth`, "user:password" in base64.
fn credentials(registry: &str) -> Option<RegistryAuth> {
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    let text = std::fs::read(dir.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let auth = config["auths"][registry]["auth"].as_str()?;
    let plain = base64::engine::general_purpose::STANDARD.decode(auth).ok()?;
    let plain = String::from_utf8(plain).ok()?;
    let (user, password) = plain.split_once(':')?;
    Some(RegistryAuth::Basic(user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_in_the_clear() {
        for local in ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000"] {
            assert!(is_loopback(local), "{local}");
        }
        for remote in ["ghcr.io", "localhost.example.org:5000", "10.0.0.1:5000"] {
            assert!(!is_loopback(remote), "{remote}");
        }
    }
}
