//! Images by name: what others publish, brought here once.

use super::Service;
use super::pull_region::Regional;
use super::register::{Boot, SourceFormat, import_from, register_snapshot};
use crate::error::{Code, Error, Result};
pub use crate::image::checksum::Checksum;
use crate::image::pulled::{self, is_reference};
pub use crate::image::quick_start::Published;
use crate::image::{catalog, quick_start};
use crate::import::Source;
use crate::record::image::{Image, ImageState};
use crate::record::name;
use crate::store::Store;
use crate::transfer::download::published::{Wanted, newest};
use crate::transfer::download::{self, Downloaded, Fetched};
use crate::transfer::remote::helper::helper;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether an image has become available.
const TICK: Duration = Duration::from_millis(200);
/// Digits of a file's checksum in the name of its image.
const DIGITS: usize = 8;

/// When an image that is not in the store is brought there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Where it is not there.
    #[default]
    Missing,
    /// Where it is not there, or its publisher has a newer one.
    Always,
    /// Never.
    Never,
}

/// An image to bring here.
#[derive(Clone, Debug, Default)]
pub struct PullImage {
    /// `NAME:VERSION`, `NAME`, `REGION/NAME` or an address.
    pub source: String,
    /// The image's name; what it was pulled as and the beginning of its checksum if absent.
    pub name: Option<String>,
    /// What the file is to be.
    pub checksum: Option<Checksum>,
    /// The disk's format, if it is not to be told from its first bytes.
    pub format: Option<SourceFormat>,
    /// What is said of it.
    pub boot: Boot,
}

/// What is published, and whether it is here.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct QuickStartImage {
    /// `NAME:VERSION`.
    pub reference: String,
    /// Other words for the version.
    pub aliases: Vec<String>,
    /// For people.
    pub title: String,
    /// Where its file is.
    pub location: String,
    /// Who logs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When that was last looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The newest image that was pulled of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
}

impl Service {
    /// Brings what is published under a name, or lies at an address, into the store. What is there
    /// already with the same checksum is not brought again.
    ///
    /// # Errors
    /// Nothing is known by that name; it can't be had; it is not what its publisher says, or no
    /// disk. What of it has come is kept for the next attempt where that may be good.
    pub fn pull_image(&self, request: &PullImage) -> Result<Image> {
        let store = self.swept();
        let Some(regional) = Regional::parse(store, &request.source)? else {
            return Pull::new(store, request)?.run();
        };
        if request.checksum.is_some() || request.format.is_some() {
            let why = "an image of a region has a format and a digest of its own";
            return Err(Error::usage(why).remedy("pin it by NAME@sha256:HEX"));
        }
        let source = pulled::source(&request.source)?;
        regional.pull(store, &source, request.name.as_deref(), &request.boot)
    }

    /// The image that a launch means: what is missing is pulled as the policy says. Gives what
    /// addresses it then.
    ///
    /// # Errors
    /// As [`Service::pull_image`]'s; `InvalidAMIID.NotFound`: it is not here, and not to be pulled.
    pub fn obtain_image(&self, text: &str, policy: PullPolicy) -> Result<String> {
        // A launch of what is here has nothing to do but that.
        if !is_pulled(&self.store, text)? {
            return Ok(text.to_owned());
        }
        let store = self.swept();
        if policy != PullPolicy::Always {
            match pulled::resolve(store, text) {
                Ok(image) => return Ok(image.image_id.to_string()),
                Err(error) if policy == PullPolicy::Never => return Err(error),
                Err(_) => {}
            }
        }
        let request = PullImage { source: text.to_owned(), ..PullImage::default() };
        Ok(self.pull_image(&request)?.image_id.to_string())
    }

    /// [`Service::obtain_image`], and waits for one that is pending.
    ///
    /// # Errors
    /// As [`Service::obtain_image`]'s; there is none.
    pub fn await_image(&self, text: &str, policy: PullPolicy) -> Result<String> {
        let image = self.obtain_image(text, policy)?;
        Ok(await_image(&self.store, &image)?.image_id.to_string())
    }

    /// Sees that this program can do what [`Service::obtain_image`] would have to.
    ///
    /// # Errors
    /// It can't talk to the network ([`super::programs::is_missing`]).
    pub fn check_obtainable(&self, text: &str, policy: PullPolicy) -> Result<()> {
        let local = text.starts_with("file://") || !is_pulled(&self.store, text)?;
        let here = || pulled::resolve(&self.store, text).is_ok();
        match policy {
            PullPolicy::Never => Ok(()),
            PullPolicy::Missing if local || here() => Ok(()),
            _ if local => Ok(()),
            _ => helper(self.store.context()).map(drop),
        }
    }

    /// What is published, by name, and what of it is here.
    ///
    /// # Errors
    /// The user's own file is malformed; the store can't be read.
    pub fn describe_quick_start(&self) -> Result<Vec<QuickStartImage>> {
        let store = self.swept();
        let described = quick_start::all()?.into_iter().map(|one| {
            let reference = one.reference();
            let image_id = pulled::newest(store, &reference)?.map(|i| i.image_id.to_string());
            let (aliases, title, location) = (one.aliases, one.title, one.url);
            let (user, date) = (one.user, one.date);
            Ok(QuickStartImage { reference, aliases, title, location, user, date, image_id })
        });
        described.collect()
    }
}

/// Whether a text names something to pull: with a version, by an address, or in a region where the
/// store has no image of that name.
fn is_pulled(store: &Store, text: &str) -> Result<bool> {
    if is_reference(text) {
        return Ok(true);
    }
    Ok(text.contains('/')
        && store.images().resolve(text).is_err()
        && Regional::parse(store, text)?.is_some())
}

/// The image that a text addresses, once it is not pending any more.
///
/// # Errors
/// There is none; cancelled.
pub(super) fn await_image(store: &Store, text: &str) -> Result<Image> {
    let mut image = catalog::resolve(store, text)?;
    let id = image.image_id.to_string();
    if image.state == ImageState::Pending {
        store.context().note(format_args!("{id} is pending; waiting until it is available"));
    }
    while image.state == ImageState::Pending {
        store.context().check()?;
        std::thread::sleep(TICK);
        image = catalog::resolve(store, &id)?;
    }
    Ok(image)
}

/// An image on its way.
struct Pull<'a> {
    store: &'a Store,
    request: &'a PullImage,
    /// What its tag says of where it is from.
    source: String,
    /// What its name begins with.
    stem: String,
    wanted: Wanted,
}

impl<'a> Pull<'a> {
    fn new(store: &'a Store, request: &'a PullImage) -> Result<Self> {
        let asked = &request.source;
        if let Some(name) = &request.name {
            name::check(name)?;
        }
        let (source, stem, wanted) = match asked.contains("://") {
            true => {
                let wanted = Wanted { address: asked.clone(), checksum: request.checksum.clone() };
                (pulled::source(asked)?, stem(asked), wanted)
            }
            false => {
                let one = quick_start::find(asked)?;
                let wanted = newest(&one, request.checksum.as_ref(), store.context())?;
                (one.reference(), format!("{}-{}", one.name, one.version), wanted)
            }
        };
        Ok(Self { store, request, source, stem, wanted })
    }

    fn run(&self) -> Result<Image> {
        let checksum = self.wanted.checksum.as_ref();
        if let Some(image) = self.present(checksum)? {
            return Ok(image);
        }
        let place = download::take(self.store, &self.wanted.address)?;
        // Whoever had the turn before may have brought it.
        if let Some(image) = self.present(checksum)? {
            return Ok(image);
        }
        // A long download must not end in a refusal that could have come first.
        if let Some(name) = self.request.name.clone().or(checksum.map(|sum| self.name(sum))) {
            // Without a checksum it may be that very image's.
            let own = |image: Image| checksum.is_none() && pulled::is_from(&image, &self.source);
            if !self.store.images().resolve(&name).is_ok_and(own) {
                catalog::check_name(self.store, &name)?;
            }
        }
        let context = self.store.context();
        loop {
            match download::fetch(&place, &self.wanted.address, checksum, context)? {
                Fetched::File(downloaded) => {
                    let sha256 = downloaded.sums.first().cloned();
                    let image = match self.present(sha256.as_ref())? {
                        Some(image) => image,
                        None => self.import(downloaded).inspect_err(|error| {
                            // What is no disk does not become one.
                            if !context.cancelled() && !error.is_full() {
                                let _ = place.discard();
                            }
                        })?,
                    };
                    place.imported(sha256.as_ref().map_or("", Checksum::hex))?;
                    return Ok(image);
                }
                Fetched::Unchanged(sha256) => {
                    let sum = format!("sha256:{sha256}").parse()?;
                    match self.present(Some(&sum))? {
                        Some(image) => return Ok(image),
                        // Its image has gone: it is fetched as if it had never been there.
                        None => place.forget()?,
                    }
                }
            }
        }
    }

    /// The image of a file with that checksum, if the store has its content: under this name, or
    /// under another, whose disk it then shares.
    fn present(&self, sum: Option<&Checksum>) -> Result<Option<Image>> {
        let Some(sum) = sum else { return Ok(None) };
        let images = pulled::with_checksum(self.store, sum)?;
        let is = |image: &&Image| match &self.request.name {
            Some(name) => *name == image.name && image.owner_id == self.store.owner_id(),
            None => pulled::is_from(image, &self.source),
        };
        if let Some(image) = images.iter().find(is) {
            return Ok(Some(image.clone()));
        }
        let own = images.iter().find(|image| image.owner_id == self.store.owner_id());
        let Some((own, root)) = own.and_then(|own| Some((own, own.root_snapshot()?))) else {
            return Ok(None);
        };
        let mut boot = self.request.boot.clone();
        boot.kernel_id = own.kernel_id.as_ref().map(ToString::to_string);
        boot.ramdisk_id = own.ramdisk_id.as_ref().map(ToString::to_string);
        boot.command_line = own.command_line.clone();
        boot.transport = own.transport;
        boot.tags.extend(pulled::tags(&self.source, &pulled::sums(own)));
        register_snapshot(self.store, &self.name(sum), root.as_str(), &boot).map(Some)
    }

    fn import(&self, downloaded: Downloaded) -> Result<Image> {
        let Downloaded { file, path, sums } = downloaded;
        let sum = self.wanted.checksum.as_ref().or(sums.first());
        let sum = sum.ok_or_else(|| Error::failure("a file has come without a checksum"))?;
        if self.wanted.checksum.is_none() {
            self.store.context().warn(format_args!(
                "nobody says what {} should be; --checksum {sum} says that it is to be what came now",
                self.source
            ));
        }
        let mut boot = self.request.boot.clone();
        boot.tags.extend(pulled::tags(&self.source, &sums));
        let source = Source::Fetched { file: Arc::new(file), path, from: self.source.clone() };
        import_from(self.store, &source, self.request.format, Some(&self.name(sum)), &boot)
    }

    /// A name of an image never changes, so one that is made up says which file it was.
    fn name(&self, sum: &Checksum) -> String {
        let digits = sum.hex().get(..DIGITS).unwrap_or_default();
        self.request.name.clone().unwrap_or_else(|| format!("{}-{digits}", self.stem))
    }
}

/// What the name of an image begins with that was pulled from an address.
fn stem(address: &str) -> String {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let file = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let ends = [
        ".xz", ".gz", ".zst", ".bz2", ".lz4", ".zip", ".tar", ".qcow2", ".raw", ".img", ".vmdk",
        ".vhd", ".vhdx", ".ova", ".spore",
    ];
    let mut stem = file;
    while let Some(shorter) = ends.iter().find_map(|end| stem.strip_suffix(end)) {
        stem = shorter;
    }
    name::from_file(stem)
}

/// # Errors
/// `InvalidParameterValue`: it is no word for a policy.
impl std::str::FromStr for PullPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "missing" => Ok(Self::Missing),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(Error::refused(Code::InvalidParameterValue, "it is missing, always or never")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn an_images_name_begins_as_its_files() {
        for (address, expected) in [
            ("https://example.org/images/debian-12.qcow2", "debian-12"),
            ("https://example.org/FreeBSD-15.raw.xz?sig=x/y.img", "FreeBSD-15"),
            ("file:///srv/my disk.img", "my-disk"),
            ("https://example.org/", "example.org"),
        ] {
            assert_eq!(stem(address), expected);
        }
    }
}
