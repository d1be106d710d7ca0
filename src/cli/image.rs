//! `spore image …`.

use super::answer;
use super::args::{BootModeArg, DiskBusArg, FormatArg, TransportArg, tag};
use super::attribute::{self, DeprecateArgs, DeregisterArgs, ModifyArgs, ShareArgs};
use super::bundle::{BundleArgs, KeyArgs};
use super::complete;
use super::copy::CopyArgs;
use super::create::CreateArgs;
use super::image_ls::LsArgs;
use super::output::OutputArg;
use super::pull::{self, PullArgs};
use super::ui::Ui;
use super::{boot_entries, bundle, copy, create, detect, image_ls, input};
use crate::error::{Code, Error, Result};
use crate::record::image::{Image, RootDeviceType};
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::images::{DescribeImages, DescribedImage};
use crate::service::register::{Boot, ImportImage, RegisterImage, Root, is_bundle};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Longest manifest that is taken, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// Verbs on images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import a disk and register an image of it; prints the image's id
    ///
    /// The disk may be raw, qcow2, vmdk, vhd or vhdx, compressed by gzip, xz, zstd, lz4 or bzip2 or
    /// not at all, or the one disk in a tar archive, an OVA or a zip archive. It is copied into the
    /// store as a snapshot: sparse, checksummed, never modified afterwards. An image that refers to
    /// other files (a backing file, extents) is refused, and so is what is no disk; --format raw
    /// takes any file as it is.
    ///
    /// What 'spore image export' wrote is taken in with all that belongs to it: its kernel, its
    /// description, its tags.
    ///
    /// ^C cancels and leaves nothing behind.
    #[command(after_long_help = "Examples:\n  \
        spore image import debian.qcow2 --name debian-12 \\\n    \
        --kernel vmlinuz --initrd initrd.img\n  \
        curl -L https://example.org/d.raw.xz | spore image import - --name disk\n  \
        ssh host spore image export debian -o - | spore image import -")]
    Import(ImportArgs),
    /// Pull an image that somebody publishes, by its name or address; prints the image's id
    ///
    /// What distributions publish for clouds has names: 'spore image ls --quick-start' lists them,
    /// and $XDG_CONFIG_HOME/spore/images.yaml takes your own. The file is checked by the checksum
    /// that its publisher lists, or by --checksum. What is here already with that checksum is not
    /// brought again, however many commands ask at once; an interrupted download goes on where it
    /// was. Proxies are those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
    ///
    /// ^C leaves what has come, for the next pull of the same.
    Pull(PullArgs),
    /// Register an image of a disk, of a snapshot or of a manifest; prints the image's id
    ///
    /// A manifest is JSON with the names and the shape of EC2's RegisterImage (Name, Description,
    /// Architecture, VirtualizationType, KernelId, RamdiskId, CommandLine, RootDeviceType,
    /// RootDeviceName, BlockDeviceMappings, Tags). A field that it does not know is refused.
    ///
    /// Without --kernel the firmware boots the disk. What the disk itself has to be booted by is
    /// told by --dry-run, and warned of where it is something else; what is done is what you say.
    #[command(after_long_help = "Examples:\n  \
        spore image register web --disk web.img --dry-run\n  \
        spore image register web --snapshot snap-0123 --kernel aki-0123\n  \
        spore image show debian -o json |\n    \
        jq '.Images[0] | {Name: \"copy\", KernelId, BlockDeviceMappings}' |\n    \
        spore image register --manifest -")]
    Register(RegisterArgs),
    /// Make an image of an instance, with what was changed in it; prints the image's id
    ///
    /// All its volumes are taken at one instant and nothing is copied: what they have becomes the
    /// image's snapshots, and the volumes go on in new overlays. A running instance is shut down by
    /// its power button for that and started again. With --no-reboot it goes on: the image then has
    /// what the guest had on its disks at that moment, as after a power failure, and its file
    /// systems replay their journals when it boots.
    #[command(after_long_help = "Examples:\n  \
        spore image create web-1 --name web-golden --description 'nginx installed'\n  \
        spore image create i-0123 --name nightly --no-reboot --tag Env=prod\n  \
        spore image create web-1 --name web-clean --generalize\n  \
        spore image create web-1 --name small \\\n    \
        --block-device '{\"DeviceName\":\"/dev/vdb\",\"NoDevice\":\"\"}'")]
    Create(CreateArgs),
    /// Write an image to a file or to standard output, for 'spore image import' here or on another
    /// machine
    ///
    /// The file has the image's record, its kernel and ramdisk and the content of its snapshots,
    /// compressed by zstd and with digests, in a tar archive. Who may launch the image is not in
    /// it.
    #[command(after_long_help = "Examples:\n  \
        spore image export debian -o debian.spore\n  \
        spore image export debian -o - | ssh host spore image import -")]
    Export {
        /// The image: an id, a unique prefix of one, or a name
        #[arg(add = complete::image())]
        image: String,
        /// The file; '-' is standard output
        // It has the place of the format in which other commands print.
        #[arg(
            id = OutputArg::ID,
            short = 'o',
            long = "output",
            short_alias = 'O',
            alias = "file",
            value_name = "FILE",
            value_parser = OutputArg::file()
        )]
        file: OutputArg,
    },
    /// Bundle an image's root, or a snapshot, as EC2 has instance-store images; prints the
    /// manifest's location
    ///
    /// A bundle is a manifest (XML) and parts of 10 MiB, encrypted for you and for EC2 (here: this
    /// store) and signed by you, in a directory or a bucket. 'spore image register' takes the
    /// manifest's location. ec2-ami-tools and euca2ools read the same format.
    #[command(after_long_help = "Examples:\n  \
        spore image bundle web --to /srv/bundles\n  \
        spore image bundle web --key pk.pem --cert cert.pem \\\n    \
        --to 's3://images/web?endpoint=https://minio.example.org'\n  \
        spore image register /srv/bundles/web.manifest.xml --name web-2")]
    Bundle(BundleArgs),
    /// Copy an image within its region, or to or from another; prints the copy's id
    ///
    /// The copy is yours, whoever's the image is; permissions are not copied. It is pending until
    /// all of its content is there and verified. A copy that was interrupted goes on when it is run
    /// again. ^C takes it back.
    #[command(after_long_help = "Examples:\n  \
        spore image copy debian --name debian-2 --copy-tags\n  \
        spore image copy debian --to usb --name debian\n  \
        spore image copy debian --from usb --name debian")]
    Copy(CopyArgs),
    /// Find images
    #[command(visible_alias = "list")]
    Ls(Box<LsArgs>),
    /// Show images in full
    ///
    /// With -o json it is what EC2's DescribeImages answers. If one of several is not there, none
    /// is shown.
    #[command(visible_alias = "inspect")]
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE", add = complete::image())]
        images: Vec<String>,
    },
    /// List the entries of the boot menu on an image's root (PV-GRUB)
    ///
    /// menu.lst, grub.cfg, extlinux.conf, Boot Loader Specification entries or the unified kernel
    /// images of an EFI system partition, as aki-pv-grub-hd0 and aki-pv-grub-hd00 read them. The
    /// index, the id or the title of an entry is what 'spore run --boot-entry' takes.
    BootEntries {
        /// The image: an id, a unique prefix of one, or a name
        #[arg(add = complete::image())]
        image: String,
    },
    /// Change what may be changed of an image: description, product codes, rate, launch permission
    Modify(ModifyArgs),
    /// Say from when on others should not use an image any more; they don't find it then
    Deprecate(DeprecateArgs),
    /// Put images aside: nobody launches them, and others don't see them any more
    ///
    /// They are shared with nobody then, also when 'image enable' brings them back.
    #[command(
        after_long_help = "Examples:\n  spore image disable web\n  spore image ls --include-disabled"
    )]
    Disable {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE", add = complete::image())]
        images: Vec<String>,
    },
    /// Bring disabled images back
    #[command(after_long_help = "Examples:\n  spore image enable web")]
    Enable {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE", add = complete::image())]
        images: Vec<String>,
    },
    /// Keep images from being deregistered
    #[command(after_long_help = "Examples:\n  spore image protect web --with-cooldown")]
    Protect {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE", add = complete::image())]
        images: Vec<String>,
        /// For a day yet once 'image unprotect' takes it away
        #[arg(long)]
        with_cooldown: bool,
    },
    /// Let protected images be deregistered again
    #[command(after_long_help = "Examples:\n  spore image unprotect web")]
    Unprotect {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE", add = complete::image())]
        images: Vec<String>,
    },
    /// Say who may launch an image; without a change, print who may
    ///
    /// The kernel enforces it where several users share a store ('spore store share'). Before an
    /// image becomes public, its file systems are searched for what looks like secrets.
    #[command(
        after_long_help = "Examples:\n  spore image share web --add user:alice --add group:dev\n  \
        spore image share web --launch-permission \\\n    'Add=[{UserId=1001},{Group=all}]'"
    )]
    Share(ShareArgs),
    /// List what was made of images: instances, volumes, other images
    References {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "IMAGE", add = complete::image())]
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
    /// Kernel to boot directly: a file (bzImage or ELF vmlinux, registered if it is not yet) or a
    /// registered kernel
    #[arg(long, value_name = "FILE|KERNEL")]
    kernel: Option<String>,
    /// Its initial ramdisk: a file or a registered ramdisk
    #[arg(long, visible_alias = "ramdisk", requires = "kernel", value_name = "FILE|RAMDISK")]
    initrd: Option<String>,
    /// Its command line; the console, the root device and the instance's identity are added where
    /// absent
    #[arg(long, visible_alias = "command-line", value_name = "STRING")]
    cmdline: Option<String>,
    /// How its guest finds its devices: mmio or pci [default: what its ramdisk has drivers for]
    #[arg(long, value_enum)]
    transport: Option<TransportArg>,
    /// How firmware boots it [default: what the disk has; a BIOS where it has both]
    #[arg(long, value_enum, conflicts_with = "kernel")]
    boot_mode: Option<BootModeArg>,
    /// What its guest's disks are: virtio or nvme [default: what its ramdisk has drivers for]
    #[arg(long, value_enum)]
    disk_bus: Option<DiskBusArg>,
    /// ebs: the root is a volume that survives stop and start. instance-store: it is gone when the
    /// instance ends
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
    /// The image's name: 3 to 128 letters, digits, spaces and ()[]./-'@_, not taken. An exported
    /// image has one
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
    /// The image's name: 3 to 128 letters, digits, spaces and ()[]./-'@_, not taken; or a bundle's
    /// manifest
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
    keys: KeyArgs,
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

impl BootArgs {
    fn boot(&self) -> Boot {
        Boot {
            kernel_id: self.kernel.clone(),
            ramdisk_id: self.initrd.clone(),
            command_line: self.cmdline.clone(),
            boot_mode: self.boot_mode.map(Into::into),
            transport: self.transport.map(Into::into),
            disk_bus: self.disk_bus.map(Into::into),
            root_device_type: Some(self.root_device_type),
            description: self.description.clone(),
            tags: self.tags.clone(),
        }
    }
}

impl RegisterArgs {
    /// What the root begins as, a bundle aside.
    fn root(&self) -> Option<Root> {
        let format = self.format.format;
        let disk = self.disk.clone().map(|path| Root::Disk { path, format });
        disk.or_else(|| self.snapshot.clone().map(Root::Snapshot))
    }
}

/// Do an image command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &ImageCommand, ui: &Ui) -> Result<ExitCode> {
    let service = &ui.service()?;
    match command {
        ImageCommand::Import(args) => {
            let request = ImportImage {
                disk: args.disk.clone(),
                format: args.format.format,
                name: args.name.clone(),
                boot: args.boot.boot(),
            };
            reported(ui, ui.cancellable(|| service.import_image(&request))?)
        }
        ImageCommand::Pull(args) => pull::pull(service, ui, args),
        ImageCommand::Register(args) if args.dry_run => {
            detect::propose(service, ui, args.root().as_ref())
        }
        ImageCommand::Register(RegisterArgs { manifest: Some(path), .. }) => {
            let manifest = read_manifest(path)?;
            reported(ui, ui.cancellable(|| service.register_manifest(&manifest))?)
        }
        ImageCommand::Register(args) => reported(ui, ui.cancellable(|| register(service, args))?),
        ImageCommand::Create(args) => create::create(service, ui, args),
        ImageCommand::Export { image, file } => {
            let done = ui.cancellable(|| service.export_image(image, file.path()))?;
            Ok(done.map_or(ui.cancelled(), |()| ExitCode::SUCCESS))
        }
        ImageCommand::Bundle(args) => bundle::bundle(service, ui, args),
        ImageCommand::Copy(args) => reported(ui, copy::image(service, ui, args)?),
        ImageCommand::Ls(args) => image_ls::ls(service, ui, args),
        ImageCommand::Show { images } => {
            let id = |described: &DescribedImage| described.image.image_id.to_string();
            answer::show(ui, "Images", images, id, |image_ids| {
                service.describe_images(&DescribeImages { image_ids, ..Default::default() })
            })
        }
        ImageCommand::Modify(args) => attribute::modify(service, args),
        ImageCommand::Deprecate(args) => attribute::deprecate(service, ui, args),
        ImageCommand::Disable { images } => {
            Ok(answer::each(ui, images, |image| service.set_image_enabled(image, false).map(drop)))
        }
        ImageCommand::Enable { images } => {
            Ok(answer::each(ui, images, |image| service.set_image_enabled(image, true).map(drop)))
        }
        ImageCommand::Protect { images, with_cooldown } => Ok(answer::each(ui, images, |image| {
            service.protect_image(image, *with_cooldown).map(drop)
        })),
        ImageCommand::Unprotect { images } => attribute::unprotect(service, ui, images),
        ImageCommand::Share(args) => attribute::share(service, ui, args),
        ImageCommand::BootEntries { image } => boot_entries::run(service, ui, image),
        ImageCommand::References { images } => attribute::references(service, ui, images),
        ImageCommand::Deregister(args) => attribute::deregister(service, ui, args),
    }
}

/// Print a new image's id.
fn reported(ui: &Ui, image: Option<Image>) -> Result<ExitCode> {
    match image {
        None => Ok(ui.cancelled()),
        Some(image) => {
            answer::made(ui, "ImageId", image.image_id.as_str())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn register(service: &Service, args: &RegisterArgs) -> Result<Image> {
    let (name, boot) = (args.name.clone().unwrap_or_default(), args.boot.boot());
    if is_bundle(&name) {
        let root = Root::Bundle { location: name, keys: args.keys.files() };
        let name = args.bundle_name.clone();
        return service.register_image(&RegisterImage { name, root, boot });
    }
    let root = args.root().ok_or_else(|| {
        Error::usage("give the root volume's content: --disk, --snapshot or --manifest")
    })?;
    service.register_image(&RegisterImage { name: Some(name), root, boot })
}

fn read_manifest(path: &Path) -> Result<Vec<u8>> {
    let manifest = input::read(path, MAX_MANIFEST)?;
    if manifest.len() as u64 > MAX_MANIFEST {
        let why = format!("the manifest {} is longer than {MAX_MANIFEST} bytes", path.display());
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    Ok(manifest)
}
