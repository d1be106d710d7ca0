//! `spore image …`.

use super::filter::Filter;
use super::output::{self, Output, Table, human_bytes};
use super::select::{self, Filters};
use crate::error::{Error, OrFail, Result};
use crate::id::SnapshotId;
use crate::image::catalog::{self, Manifest};
use crate::image::import::{Options, Source, SourceFormat, cancel};
use crate::image::kernel::{self, Registered};
use crate::image::record::{Image, Kernel, Ramdisk, RootDeviceType, Tag};
use crate::image::{builtin, snapshot};
use crate::store::Store;
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Longest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// Verbs on images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import a disk and register an image of it; prints the image's id
    ///
    /// The disk may be raw, qcow2, vmdk, vhd or vhdx, compressed by gzip, xz or zstd or not at all. It is
    /// copied into the store as a snapshot: sparse, checksummed, never modified afterwards. An image that refers to
    /// other files (a backing file, extents) is refused. vmdk, vhdx and dynamic vhd need qemu-img.
    ///
    /// ^C cancels and leaves nothing behind.
    #[command(after_long_help = "Examples:\n  \
        spore image import debian.qcow2 --name debian-12 --kernel vmlinuz --initrd initrd.img\n  \
        curl -L https://example.org/disk.raw.xz | spore image import - --name disk")]
    Import(ImportArgs),
    /// Register an image of a disk, of a snapshot or of a manifest; prints the image's id
    ///
    /// A manifest is JSON with the names and the shape of EC2's RegisterImage (Name, Description, Architecture,
    /// VirtualizationType, KernelId, RamdiskId, CommandLine, RootDeviceType, RootDeviceName, BlockDeviceMappings,
    /// Tags). A field that it does not know is refused.
    #[command(after_long_help = "Examples:\n  \
        spore image register web --snapshot snap-0123 --kernel aki-0123\n  \
        spore image show debian -o json | jq '.Images[0] | {Name: \"copy\", KernelId, BlockDeviceMappings}' \\\n    \
        | spore image register --manifest -")]
    Register(RegisterArgs),
    /// Make an image of an instance, with what was changed in it; prints the image's id
    ///
    /// All its volumes are taken at one instant and nothing is copied: what they have becomes the image's snapshots,
    /// and the volumes go on in new overlays. A running instance is shut down by its power button for that and started
    /// again. With --no-reboot it goes on: the image then has what the guest had on its disks at that moment, as
    /// after a power failure, and its file systems replay their journals when it boots.
    #[command(after_long_help = "Examples:\n  \
        spore image create web-1 --name web-golden --description 'nginx installed'\n  \
        spore image create i-0123 --name nightly --no-reboot --tag Env=prod\n  \
        spore image create web-1 --name small-data --block-device '{\"DeviceName\":\"/dev/vdb\",\"NoDevice\":\"\"}'")]
    Create(super::create::CreateArgs),
    /// List images
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that match, e.g. name='debian*' or tag:Env=test (EC2's filter names; may be repeated)
        #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]")]
        filters: Vec<Filter>,
    },
    /// Show images in full
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Deregister images: nothing new is launched from them
    ///
    /// Their instances go on, and may be stopped and started. Their snapshots and kernels stay: see
    /// 'spore snapshot delete' and 'spore kernel deregister'.
    #[command(visible_alias = "rm")]
    Deregister {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

/// What says how an image boots and what it is.
#[derive(Debug, Args)]
pub struct BootArgs {
    /// Kernel to boot directly: a file (bzImage or ELF vmlinux, registered if it is not yet) or a registered kernel
    #[arg(long, value_name = "FILE|KERNEL")]
    kernel: Option<String>,
    /// Its initial ramdisk: a file or a registered ramdisk
    #[arg(long, visible_alias = "ramdisk", requires = "kernel", value_name = "FILE|RAMDISK")]
    initrd: Option<String>,
    /// Its command line; the console, the root device and the instance's identity are added where absent
    #[arg(long, visible_alias = "command-line", value_name = "STRING")]
    cmdline: Option<String>,
    /// ebs: the root is a volume that survives stop and start. instance-store: it is gone when the instance ends
    #[arg(long, value_name = "ebs|instance-store", default_value = "ebs", value_parser = root_device_type)]
    root_device_type: RootDeviceType,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A tag (may be repeated)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<Tag>,
}

/// Arguments of `image import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The disk; '-' is standard input
    #[arg(value_name = "FILE")]
    disk: PathBuf,
    /// The image's name: 3 to 128 letters, digits, spaces and ()[]./-'@_, not taken
    #[arg(long)]
    name: String,
    #[command(flatten)]
    format: FormatArg,
    #[command(flatten)]
    boot: BootArgs,
}

/// The disk's format.
#[derive(Debug, Args)]
pub struct FormatArg {
    /// The disk's format, instead of telling it from its first bytes: raw, qcow2, vmdk, vhd or vhdx
    #[arg(id = "disk_format", long = "format", value_name = "FORMAT", value_parser = |text: &str| text.parse::<SourceFormat>())]
    pub format: Option<SourceFormat>,
}

/// Arguments of `image register`.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// The image's name: 3 to 128 letters, digits, spaces and ()[]./-'@_, not taken
    #[arg(required_unless_present = "manifest", conflicts_with = "manifest")]
    name: Option<String>,
    /// A disk, imported as by 'spore image import'; '-' is standard input
    #[arg(long, value_name = "FILE", group = "root")]
    disk: Option<PathBuf>,
    /// A snapshot that the root volume begins as
    #[arg(long, value_name = "SNAPSHOT", group = "root")]
    snapshot: Option<String>,
    /// All of it, as JSON; '-' is standard input
    #[arg(long, value_name = "FILE", group = "root", conflicts_with_all = ["kernel", "initrd", "cmdline", "description", "tags"])]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArg,
    #[command(flatten)]
    boot: BootArgs,
}

/// `KEY=VALUE`.
///
/// # Errors
/// There is no `=`.
pub fn tag(text: &str) -> Result<Tag> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok(Tag { key: key.to_owned(), value: value.to_owned() })
        }
        _ => Err(Error::usage(format!("'{}' is not KEY=VALUE", text.escape_debug()))),
    }
}

fn root_device_type(text: &str) -> Result<RootDeviceType> {
    match text {
        "ebs" => Ok(RootDeviceType::Ebs),
        "instance-store" => Ok(RootDeviceType::InstanceStore),
        _ => Err(Error::usage("it is ebs or instance-store")),
    }
}

/// EC2's filters of DescribeImages.
const FILTERS: Filters = &[
    ("architecture", "Architecture"),
    ("block-device-mapping.delete-on-termination", "BlockDeviceMappings.Ebs.DeleteOnTermination"),
    ("block-device-mapping.device-name", "BlockDeviceMappings.DeviceName"),
    ("block-device-mapping.snapshot-id", "BlockDeviceMappings.Ebs.SnapshotId"),
    ("block-device-mapping.volume-size", "BlockDeviceMappings.Ebs.VolumeSize"),
    ("creation-date", "CreationDate"),
    ("description", "Description"),
    ("image-id", "ImageId"),
    ("is-public", "Public"),
    ("kernel-id", "KernelId"),
    ("name", "Name"),
    ("owner-id", "OwnerId"),
    ("ramdisk-id", "RamdiskId"),
    ("root-device-name", "RootDeviceName"),
    ("root-device-type", "RootDeviceType"),
    ("state", "State"),
    ("virtualization-type", "VirtualizationType"),
];

/// Do an image command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &ImageCommand, output: Output) -> Result<ExitCode> {
    let store = Store::open()?;
    match command {
        ImageCommand::Import(args) => {
            let source = Source::from_argument(args.disk.clone());
            cancellable(|| import(&store, &source, &args.name, args.format.format, &args.boot))
                .and_then(|image| told(output, image))
        }
        ImageCommand::Register(args) => {
            cancellable(|| register(&store, args)).and_then(|image| told(output, image))
        }
        ImageCommand::Create(args) => super::create::create(&store, output, args),
        ImageCommand::Ls { filters } => {
            builtin::ensure(&store, builtin::DEMO)?;
            let images = store.images().list()?.or_warn().into_iter();
            let images = images.map(|image| catalog::settled(&store, image)).collect();
            list(&store, output, select::select(images, filters, FILTERS)?)?;
            Ok(ExitCode::SUCCESS)
        }
        ImageCommand::Show { images } => {
            select::show(output, "Images", images, |text| catalog::resolve(&store, text))
        }
        ImageCommand::Deregister { images } => Ok(select::each(images, |text| {
            let image = catalog::resolve(&store, text)?;
            catalog::deregister(&store, &image.image_id).map(drop)
        })),
    }
}

/// The exit code of a command that ^C ended: 128 + SIGINT, as shells have it.
pub const CANCELLED: u8 = 130;

/// Run something long that ^C undoes. `None` if it was.
///
/// # Errors
/// As `work`'s.
pub fn cancellable<T>(work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    cancel::watch_signals()?;
    match work() {
        Err(error) if cancel::requested() => {
            super::report(&error);
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// Print a new image's id.
fn told(output: Output, image: Option<Image>) -> Result<ExitCode> {
    match image {
        None => Ok(ExitCode::from(CANCELLED)),
        Some(image) => {
            select::made(output, "ImageId", image.image_id.as_str())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What a command has made so far, for the case that the rest fails.
struct Undo<'a> {
    store: &'a Store,
    kernel: Option<Registered<Kernel>>,
    ramdisk: Option<Registered<Ramdisk>>,
    snapshot: Option<SnapshotId>,
}

impl<'a> Undo<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, kernel: None, ramdisk: None, snapshot: None }
    }

    /// Find or register what the image boots.
    fn boot(&mut self, args: &BootArgs) -> Result<()> {
        self.kernel = args.kernel.as_deref().map(|k| kernel::find(self.store, k)).transpose()?;
        self.ramdisk =
            args.initrd.as_deref().map(|r| kernel::find_ramdisk(self.store, r)).transpose()?;
        Ok(())
    }

    fn register(&self, root: SnapshotId, name: &str, args: &BootArgs) -> Result<Image> {
        let mut manifest = Manifest::with_root(name, root);
        manifest.kernel_id = self.kernel.as_ref().map(|k| k.record.kernel_id.clone());
        manifest.ramdisk_id = self.ramdisk.as_ref().map(|r| r.record.ramdisk_id.clone());
        manifest.command_line = args.cmdline.clone();
        manifest.root_device_type = Some(args.root_device_type);
        manifest.description = args.description.clone();
        manifest.tags = args.tags.clone();
        catalog::register(self.store, manifest)
    }

    /// Keep everything if it went well; else remove what is new and unused. Failing at that is harmless.
    fn settle<T>(self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            if let Some(id) = &self.snapshot {
                let _ = snapshot::delete(self.store, id);
            }
            if let Some(kernel) = self.kernel.filter(|k| k.new) {
                let _ = kernel::deregister(self.store, &kernel.record.kernel_id);
            }
            if let Some(ramdisk) = self.ramdisk.filter(|r| r.new) {
                let _ = kernel::deregister_ramdisk(self.store, &ramdisk.record.ramdisk_id);
            }
        }
        result
    }
}

fn import(
    store: &Store,
    source: &Source,
    name: &str,
    format: Option<SourceFormat>,
    boot: &BootArgs,
) -> Result<Image> {
    // A long copy must not end in a refusal that could have come first.
    catalog::check_name(store, name)?;
    let mut undo = Undo::new(store);
    let mut work = || {
        undo.boot(boot)?;
        let options = Options { format, progress: true };
        let description = format!("Imported for image {name}");
        let snapshot = snapshot::import(store, source, &options, &description, Vec::new())?;
        undo.snapshot = Some(snapshot.snapshot_id.clone());
        undo.register(snapshot.snapshot_id, name, boot)
    };
    let result = work();
    undo.settle(result)
}

fn register(store: &Store, args: &RegisterArgs) -> Result<Image> {
    if let Some(path) = &args.manifest {
        return catalog::register(store, Manifest::parse(&read_manifest(path)?)?);
    }
    let name = args.name.as_deref().unwrap_or_default();
    if let Some(disk) = &args.disk {
        let source = Source::from_argument(disk.clone());
        return import(store, &source, name, args.format.format, &args.boot);
    }
    let Some(text) = &args.snapshot else {
        return Err(Error::usage(
            "give the root volume's content: --disk, --snapshot or --manifest",
        ));
    };
    catalog::check_name(store, name)?;
    let root = store.snapshots().resolve(text)?.snapshot_id;
    let mut undo = Undo::new(store);
    let result = undo.boot(&args.boot).and_then(|()| undo.register(root, name, &args.boot));
    undo.settle(result)
}

fn read_manifest(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let result = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_MANIFEST).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|f| f.take(MAX_MANIFEST).read_to_end(&mut text))
    };
    result.or_fail(|| format!("read the manifest {}", path.display()))?;
    Ok(text)
}

/// The exact size of an image's root volume, if its snapshot is there.
fn root_size(store: &Store, image: &Image) -> Option<u64> {
    let mut mappings = image.block_device_mappings.iter();
    let root = mappings.find(|m| m.device_name == image.root_device_name)?;
    let id = root.ebs.as_ref()?.snapshot_id.as_ref()?;
    Some(store.snapshots().get(id).ok()?.size_bytes)
}

fn list(store: &Store, output: Output, mut images: Vec<Image>) -> Result<()> {
    images.sort_by(|a, b| a.name.cmp(&b.name));
    let row = |image: &Image| {
        let text = |value: serde_json::Result<serde_json::Value>| {
            value.ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
        };
        vec![
            image.image_id.to_string(),
            image.name.clone(),
            text(serde_json::to_value(image.state)),
            text(serde_json::to_value(image.root_device_type)),
            image.kernel_id.as_ref().map_or("firmware".to_owned(), ToString::to_string),
            root_size(store, image).map_or("-".to_owned(), human_bytes),
            image.creation_date.clone(),
        ]
    };
    let table = Table {
        columns: vec!["ID", "NAME", "STATE", "ROOT", "BOOTS", "SIZE", "CREATED"],
        rows: images.iter().map(row).collect(),
        ids: images.iter().map(|image| image.image_id.to_string()).collect(),
        json: json!({ "Images": images }),
    };
    output::emit(output, &table)
}
