//! `spore image …`.

use super::answer;
use super::args::{FormatArg, TransportArg, tag};
use super::attribute::{self, DeprecateArgs, DeregisterArgs, ModifyArgs, ShareArgs};
use super::image_ls::LsArgs;
use super::ui::Ui;
use crate::error::{Error, OrRefuse, Result};
use crate::id::SnapshotId;
use crate::image::catalog;
use crate::image::manifest::Manifest;
use crate::import::{self, Opened, Options, Reading, Source, arrival};
use crate::kernel::{self, BootFiles};
use crate::record::image::{Image, RootDeviceType};
use crate::record::tag::Tag;
use crate::service::images::{DescribeImages, DescribedImage};
use crate::store::{Staging, Store};
use crate::transfer::bundle::RegisterBundle;
use crate::transfer::package::NewImage;
use crate::transfer::{bundle, export};
use clap::{Args, Subcommand};
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
    /// The disk may be raw, qcow2, vmdk, vhd or vhdx, compressed by gzip, xz, zstd, lz4 or bzip2 or not at all, or the one
    /// disk in a tar archive, an OVA or a zip archive. It is copied into the store as a snapshot: sparse, checksummed,
    /// never modified afterwards. An image that refers to other files (a backing file, extents) is refused, and so is
    /// what is no disk; --format raw takes any file as it is.
    ///
    /// What 'spore image export' wrote is taken in with all that belongs to it: its kernel, its description, its tags.
    ///
    /// ^C cancels and leaves nothing behind.
    #[command(after_long_help = "Examples:\n  \
        spore image import debian.qcow2 --name debian-12 \\\n    \
        --kernel vmlinuz --initrd initrd.img\n  \
        curl -L https://example.org/d.raw.xz | spore image import - --name disk\n  \
        ssh host spore image export debian -o - | spore image import -")]
    Import(ImportArgs),
    /// Register an image of a disk, of a snapshot or of a manifest; prints the image's id
    ///
    /// A manifest is JSON with the names and the shape of EC2's RegisterImage (Name, Description, Architecture,
    /// VirtualizationType, KernelId, RamdiskId, CommandLine, RootDeviceType, RootDeviceName, BlockDeviceMappings,
    /// Tags). A field that it does not know is refused.
    ///
    /// Without --kernel the firmware boots the disk. What the disk itself has to be booted by is told by --dry-run, and
    /// warned of where it is something else; what is done is what you say.
    #[command(after_long_help = "Examples:\n  \
        spore image register web --disk web.img --dry-run\n  \
        spore image register web --snapshot snap-0123 --kernel aki-0123\n  \
        spore image show debian -o json |\n    \
        jq '.Images[0] | {Name: \"copy\", KernelId, BlockDeviceMappings}' |\n    \
        spore image register --manifest -")]
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
        spore image create web-1 --name small \\\n    \
        --block-device '{\"DeviceName\":\"/dev/vdb\",\"NoDevice\":\"\"}'")]
    Create(super::create::CreateArgs),
    /// Write an image to a file or to standard output, for 'spore image import' here or on another machine
    ///
    /// The file has the image's record, its kernel and ramdisk and the content of its snapshots, compressed by zstd and
    /// with digests, in a tar archive. Who may launch the image is not in it.
    #[command(after_long_help = "Examples:\n  \
        spore image export debian -o debian.spore\n  \
        spore image export debian -o - | ssh host spore image import -")]
    Export {
        /// The image: an id, a unique prefix of one, or a name
        image: String,
        /// The file (-o FILE does it, too); '-' is standard output
        #[arg(short = 'O', long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Bundle an image's root, or a snapshot, as EC2 has instance-store images; prints the manifest's location
    ///
    /// A bundle is a manifest (XML) and parts of 10 MiB, encrypted for you and for EC2 (here: this store) and signed
    /// by you, in a directory or a bucket. 'spore image register' takes the manifest's location. ec2-ami-tools and
    /// euca2ools read the same format.
    #[command(after_long_help = "Examples:\n  \
        spore image bundle web --to /srv/bundles\n  \
        spore image bundle web --key pk.pem --cert cert.pem \\\n    \
        --to 's3://images/web?endpoint=https://minio.example.org'\n  \
        spore image register /srv/bundles/web.manifest.xml --name web-2")]
    Bundle(super::bundle::BundleArgs),
    /// Copy an image within its region, or to or from another; prints the copy's id
    ///
    /// The copy is yours, whoever's the image is; permissions are not copied. It is pending until all of its content
    /// is there and verified. A copy that was interrupted goes on when it is run again. ^C takes it back.
    #[command(after_long_help = "Examples:\n  \
        spore image copy debian --name debian-2 --copy-tags\n  \
        spore image copy debian --to usb --name debian\n  \
        spore image copy debian --from usb --name debian")]
    Copy(super::copy::CopyArgs),
    /// Find images
    #[command(visible_alias = "list")]
    Ls(Box<LsArgs>),
    /// Show images in full
    ///
    /// With -o json it is what EC2's DescribeImages answers. If one of several is not there, none is shown.
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// List the entries of the boot menu on an image's root (PV-GRUB)
    ///
    /// menu.lst, Boot Loader Specification entries or grub.cfg, as aki-pv-grub-hd0 and aki-pv-grub-hd00 read them. The
    /// index, the id or the title of an entry is what 'spore run --boot-entry' takes.
    BootEntries {
        /// The image: an id, a unique prefix of one, or a name
        image: String,
    },
    /// Change what may be changed of an image: description, product codes, rate, launch permission
    Modify(ModifyArgs),
    /// Say from when on others should not use an image any more; they don't find it then
    Deprecate(DeprecateArgs),
    /// Say who may launch an image; without a change, print who may
    ///
    /// The kernel enforces it where several users share a store ('spore store share'). Before an image becomes public,
    /// its file systems are searched for what looks like secrets.
    #[command(
        after_long_help = "Examples:\n  spore image share web --add user:alice --add group:dev\n  \
        spore image share web --launch-permission \\\n    'Add=[{UserId=1001},{Group=all}]'"
    )]
    Share(ShareArgs),
    /// List what was made of images: instances, volumes, other images
    References {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Deregister images: nothing new is launched from them
    ///
    /// Their instances go on, and may be stopped and started. Their snapshots and kernels stay: see
    /// 'spore snapshot delete' and 'spore kernel deregister'.
    #[command(visible_alias = "rm")]
    Deregister(DeregisterArgs),
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
    /// How its guest finds its devices: mmio or pci [default: what its ramdisk has drivers for]
    #[arg(long, value_enum)]
    transport: Option<TransportArg>,
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
    /// The image's name: 3 to 128 letters, digits, spaces and ()[]./-'@_, not taken. An exported image has one
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    format: FormatArg,
    #[command(flatten)]
    boot: BootArgs,
}

/// Arguments of `image register`.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// The image's name: 3 to 128 letters, digits, spaces and ()[]./-'@_, not taken; or a bundle's manifest
    #[arg(
        required_unless_present = "manifest",
        conflicts_with = "manifest",
        value_name = "NAME|BUNDLE.manifest.xml"
    )]
    name: Option<String>,
    /// The name of an image that is registered from a bundle [default: the bundle's]
    #[arg(long = "name", value_name = "NAME")]
    bundle_name: Option<String>,
    #[command(flatten)]
    keys: super::bundle::KeyArgs,
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
    /// Register nothing: look at the disk or the snapshot and propose how to boot it, and why
    #[arg(long, conflicts_with_all = ["manifest", "bundle_name"])]
    dry_run: bool,
}

fn root_device_type(text: &str) -> Result<RootDeviceType> {
    match text {
        "ebs" => Ok(RootDeviceType::Ebs),
        "instance-store" => Ok(RootDeviceType::InstanceStore),
        _ => Err(Error::usage("it is ebs or instance-store")),
    }
}

/// Do an image command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &ImageCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    let store = service.store();
    arrival::sweep(store);
    match command {
        ImageCommand::Import(args) => {
            ui.cancellable(|| import_any(store, args)).and_then(|image| told(ui, image))
        }
        ImageCommand::Register(args) if args.dry_run => {
            let root = (args.disk.as_deref(), args.snapshot.as_deref());
            super::detect::propose(store, ui, root, args.format.format)
        }
        ImageCommand::Register(args) => {
            ui.cancellable(|| register(store, args)).and_then(|image| told(ui, image))
        }
        ImageCommand::Create(args) => super::create::create(&service, ui, args),
        ImageCommand::Export { image, file } => {
            let image = catalog::resolve(store, image)?;
            let done = ui.cancellable(|| export::to(store, &image, file))?;
            Ok(done.map_or(ui.cancelled(), |()| ExitCode::SUCCESS))
        }
        ImageCommand::Bundle(args) => {
            let made = ui.cancellable(|| super::bundle::bundle(store, args))?;
            let Some(location) = made else { return Ok(ui.cancelled()) };
            answer::made(ui, "ImageLocation", &location)?;
            Ok(ExitCode::SUCCESS)
        }
        ImageCommand::Copy(args) => {
            super::copy::image(store, ui, args).and_then(|image| told(ui, image))
        }
        ImageCommand::Ls(args) => super::image_ls::ls(ui, args),
        ImageCommand::Show { images } => {
            let id = |described: &DescribedImage| described.image.image_id.to_string();
            answer::show(ui, "Images", images, id, |image_ids| {
                service.describe_images(&DescribeImages { image_ids, ..Default::default() })
            })
        }
        ImageCommand::Modify(args) => attribute::modify(store, args),
        ImageCommand::Deprecate(args) => attribute::deprecate(store, args),
        ImageCommand::Share(args) => attribute::share(store, ui, args),
        ImageCommand::BootEntries { image } => super::boot_entries::run(store, ui, image),
        ImageCommand::References { images } => attribute::references(store, ui, images),
        ImageCommand::Deregister(args) => attribute::deregister(store, args),
    }
}

/// Print a new image's id.
fn told(ui: &Ui, image: Option<Image>) -> Result<ExitCode> {
    match image {
        None => Ok(ui.cancelled()),
        Some(image) => {
            answer::made(ui, "ImageId", image.image_id.as_str())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What a command has made so far, for the case that the rest fails.
struct Undo<'a> {
    store: &'a Store,
    boot: BootFiles,
}

impl<'a> Undo<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, boot: BootFiles::default() }
    }

    /// Find or register what the image boots.
    fn boot(&mut self, args: &BootArgs) -> Result<()> {
        let (kernel, ramdisk) = (args.kernel.as_deref(), args.initrd.as_deref());
        self.boot.kernel = kernel.map(|text| kernel::find(self.store, text)).transpose()?;
        self.boot.ramdisk = ramdisk.map(|text| kernel::find(self.store, text)).transpose()?;
        Ok(())
    }

    fn manifest(&self, root: SnapshotId, name: &str, args: &BootArgs) -> Manifest {
        let mut manifest = Manifest::with_root(name, root);
        manifest.kernel_id = self.boot.kernel_id();
        manifest.ramdisk_id = self.boot.ramdisk_id();
        manifest.command_line = args.cmdline.clone();
        manifest.root_device_type = Some(args.root_device_type);
        manifest.transport = args.transport.map(Into::into);
        manifest.description = args.description.clone();
        manifest.tags = args.tags.clone();
        manifest
    }

    /// Keep everything if it went well; else remove what is new and unused.
    fn settle<T>(self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.boot.undo(self.store);
        }
        result
    }
}

/// Import a disk or an exported image, whichever it is.
fn import_any(store: &Store, args: &ImportArgs) -> Result<Image> {
    let staging = Staging::new(store)?;
    let options = Options { format: args.format.format, context: store.context().clone() };
    let source = Source::from_argument(args.disk.clone());
    match import::open(&source, staging.path(), &options)? {
        Opened::Exported(_) if args.boot.kernel.is_some() || args.boot.cmdline.is_some() => {
            Err(Error::usage("an exported image brings its own kernel and command line"))
        }
        Opened::Exported(reading) => {
            let new = NewImage {
                name: args.name.clone().unwrap_or_default(),
                description: args.boot.description.clone(),
                copy_tags: true,
                tags: args.boot.tags.clone(),
                source_region: String::new(),
            };
            export::read::import(store, reading, new)
        }
        Opened::Disk(reading) => {
            let name = args.name.as_deref();
            let name = name.ok_or_else(|| Error::usage("a disk has no name: give --name"))?;
            import_disk(store, (staging, reading), name, &args.boot)
        }
    }
}

/// Import a disk that is being read, register an image of it, and warn if nothing on it boots.
fn import_disk(
    store: &Store,
    disk: (Staging, Reading),
    name: &str,
    boot: &BootArgs,
) -> Result<Image> {
    // A long copy must not end in a refusal that could have come first.
    catalog::check_name(store, name)?;
    let mut undo = Undo::new(store);
    let work = || {
        undo.boot(boot)?;
        let description = format!("Imported for image {name}");
        let manifest = |root: SnapshotId| undo.manifest(root, name, boot);
        arrival::import(store, disk, &description, manifest)
    };
    let result = work();
    let image = undo.settle(result)?;
    super::detect::warn(store, &image);
    Ok(image)
}

fn register(store: &Store, args: &RegisterArgs) -> Result<Image> {
    if let Some(path) = &args.manifest {
        return catalog::register(store, Manifest::parse(&read_manifest(path)?)?);
    }
    let name = args.name.as_deref().unwrap_or_default();
    if name.split('?').next().is_some_and(|path| path.ends_with(bundle::SUFFIX)) {
        return register_bundle(store, name, args);
    }
    if let Some(disk) = &args.disk {
        let staging = Staging::new(store)?;
        let options = Options { format: args.format.format, context: store.context().clone() };
        let source = Source::from_argument(disk.clone());
        return match import::open(&source, staging.path(), &options)? {
            Opened::Disk(reading) => import_disk(store, (staging, reading), name, &args.boot),
            Opened::Exported(_) => {
                Err(Error::usage("it is an exported image: 'spore image import' takes it"))
            }
        };
    }
    let Some(text) = &args.snapshot else {
        return Err(Error::usage(
            "give the root volume's content: --disk, --snapshot or --manifest",
        ));
    };
    catalog::check_name(store, name)?;
    let root = store.snapshots().resolve(text)?.snapshot_id;
    let mut undo = Undo::new(store);
    let result = undo
        .boot(&args.boot)
        .and_then(|()| catalog::register(store, undo.manifest(root, name, &args.boot)));
    let image = undo.settle(result)?;
    super::detect::warn(store, &image);
    Ok(image)
}

fn register_bundle(store: &Store, location: &str, args: &RegisterArgs) -> Result<Image> {
    bundle::prepare(store)?;
    let mut undo = Undo::new(store);
    let mut work = || {
        undo.boot(&args.boot)?;
        let request = RegisterBundle {
            location: location.to_owned(),
            name: args.bundle_name.clone(),
            description: args.boot.description.clone(),
            kernel: undo.boot.kernel_id(),
            ramdisk: undo.boot.ramdisk_id(),
            command_line: args.boot.cmdline.clone(),
            tags: args.boot.tags.clone(),
            keys: args.keys.files(),
        };
        bundle::register(store, &request)
    };
    let result = work();
    undo.settle(result)
}

fn read_manifest(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let result = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_MANIFEST).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|f| f.take(MAX_MANIFEST).read_to_end(&mut text))
    };
    result.or_refuse(|| format!("read the manifest {}", path.display()))?;
    Ok(text)
}
