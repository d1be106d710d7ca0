//! What may be typed.

use super::filter::Filter;
use super::output::Output;
use crate::action::{Count, Until, parse_duration, parse_memory, parse_percent};
use crate::plan::{DiskLimits, Engine, TransportKind};
use crate::record::image::RootDeviceType;
use crate::record::tag::Tag;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Exit codes, the end of the top-level help.
const EXIT_CODES: &str = "\
Exit codes:
  0    done, and true
  1    refused: no such object, wrong state, name taken, not enough capacity
  2    the command line is wrong
  124  not true within --timeout; what was started is left alive
  125  Spore or its host failed (I/O error, no space, KVM error)
  130  ^C took back what was being made

Objects:
  An id (i-0123456789abcdef0), any unique prefix of one (i-01) or a name
  addresses an object.

Files:
  The store is $SPORE_HOME, else $XDG_DATA_HOME/spore, else
  ~/.local/share/spore.

Examples:
  spore run demo -n 4 --wait      four clones of the built-in image
  spore image import debian.qcow2 --name debian
  spore run debian -n 3 -t t3.small --name web --wait
  spore ls --filter tag:Name='web*' -o json
  spore terminate $(spore ls -q)";

/// Launch N identical KVM instances from one image.
#[derive(Debug, Parser)]
#[command(
    name = "spore",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    after_long_help = EXIT_CODES,
    max_term_width = 100
)]
#[command(long_about = "Launch N identical KVM instances from one image.\n\n\
    Spore speaks EC2's words - images (ami-), instances (i-), volumes (vol-), snapshots (snap-) - \
    on one Linux machine with /dev/kvm. There is no daemon: every instance is one process, every \
    command works from the store's directories.")]
pub struct Cli {
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Import, register, list and deregister images
    Image {
        /// What to do
        #[command(subcommand)]
        command: super::image::ImageCommand,
    },
    /// Register, list and deregister kernels for direct boot
    Kernel {
        /// What to do
        #[command(subcommand)]
        command: super::kernel::KernelCommand,
    },
    /// Register, list and deregister initial ramdisks
    Ramdisk {
        /// What to do
        #[command(subcommand)]
        command: super::kernel::RamdiskCommand,
    },
    /// Create, copy, import, list, verify and delete snapshots
    Snapshot {
        /// What to do
        #[command(subcommand)]
        command: super::snapshot::SnapshotCommand,
    },
    /// Create, list, attach, detach, resize and delete volumes
    Volume {
        /// What to do
        #[command(subcommand)]
        command: super::volume::VolumeCommand,
    },
    /// Name the stores that images are copied to and from
    Region {
        /// What to do
        #[command(subcommand)]
        command: super::region::RegionCommand,
    },
    /// Launch instances from an image
    ///
    /// Every instance gets a copy-on-write volume over the image's snapshot and is a process of its own. The command
    /// returns when all of them run (or, with -n MIN:MAX, at least MIN; or none is left and the cause is named).
    Run(Box<Run>),
    /// List instances
    ///
    /// The oldest first. Terminated ones can be seen for an hour, as on EC2.
    #[command(alias = "ps")]
    Ls(Ls),
    /// Show instances in full
    ///
    /// A line for each field of EC2's description: state and why, image, type, kernel and command line, block devices,
    /// tags; of a running instance also what its VMM says of its disks and memory. With -o json it is what EC2's
    /// DescribeInstances answers. If one of several is not there, none is shown.
    #[command(alias = "inspect")]
    Show(Targets),
    /// Print what a guest said on its console
    ///
    /// All that was written to its serial line since the instance was launched, through stops and reboots.
    ///
    /// It stays until the instance's record goes, an hour after its termination. With --vmm it is the VMM that tells: of
    /// what it refused a guest, of disks that failed, and how the instance ended.
    Logs(Logs),
    /// Attach to an instance's serial line; ^] detaches
    ///
    /// Several may be attached at once.
    ///
    /// On a terminal, keys go to the guest as they are, and ^] detaches. Otherwise standard input is passed on and the
    /// guest's output printed until the instance ends. What the guest said before is in 'spore logs'.
    Console(Console),
    /// Stop instances; their volumes stay
    ///
    /// Presses the ACPI power button, waits until the guest has powered off, and cuts it off if it has not within
    /// --timeout: a guest that has nothing to hear the button (acpid, systemd-logind) is cut off after 120 s by default.
    ///
    /// Volumes stay, and 'spore start' goes on with them. An instance with an instance-store root can only be
    /// terminated. To stop what is stopped is no error.
    Stop(Stop),
    /// Start stopped instances
    ///
    /// On their own volumes. Returns when they run.
    ///
    /// The guest boots anew, from what was on its volumes when it stopped. 'spore wait --for login' waits for its
    /// prompt. To start what runs is no error.
    Start(Start),
    /// Reboot instances
    ///
    /// Asks the guest by the ACPI power button to shut down, and starts the machine anew; resets it if the guest has
    /// not shut down within --timeout, by default 120 s. An instance with an instance-store root is reset at once.
    Reboot(Reboot),
    /// Terminate instances, and delete the volumes that go with them
    ///
    /// At once, as pulling the plug does: the guest is not asked. Deleted with an instance is its root volume and what
    /// else its block device mapping marks with DeleteOnTermination; volumes that were attached later stay (see 'spore
    /// modify --delete-on-termination'). 'spore ls' shows the instance as terminated for an hour. To terminate what is
    /// terminated is no error.
    #[command(
        alias = "rm",
        after_long_help = "\
Examples:
  spore terminate web
  spore terminate $(spore ls -q --filter tag:Name=web)

Exit codes: 0 all are terminated; 1 one could not be (the others are); 2 the
command line is wrong; 125 failure."
    )]
    Terminate(Targets),
    /// Wait until instances are in a state
    ///
    /// It ends as soon as one of them can't get there any more. Without --timeout it waits for ever. Nothing is done to
    /// the instances, whether or not the time is up.
    Wait(Wait),
    /// Tag images, instances, volumes, snapshots, kernels and ramdisks
    Tag(super::tag::TagArgs),
    /// Remove tags
    Untag(super::tag::UntagArgs),
    /// Accept products, which images may carry the codes of
    Product {
        /// What to do
        #[command(subcommand)]
        command: super::account::ProductCommand,
    },
    /// Report what was used, by image and product: instance-seconds and GiB-hours
    ///
    /// It is a report, not a bill. The administrator of a shared store sees everybody's, others their own.
    Usage,
    /// Print who did what to which object, and when
    Events(super::account::EventsArgs),
    /// Share the store with other users
    Store {
        /// What to do
        #[command(subcommand)]
        command: super::account::StoreCommand,
    },
    /// Change a stopped instance: its type, kernel, ramdisk, user data, what goes with it
    ///
    /// What is not given stays. An instance with an instance-store root can't be changed.
    Modify(super::modify::Modify),
    /// Show what images, snapshots, volumes and instances take on the disk
    ///
    /// SIZE is what a guest sees; SHARED is on the disk once, for this and for others; OWN is what deleting it would
    /// give back. Only what was changed takes space of its own.
    #[command(after_long_help = "Examples:\n  spore df\n  spore df -o json")]
    Df,
    /// Check whether this machine can run instances
    ///
    /// Looks at /dev/kvm and what it can do, io_uring, user namespaces, the store and its space, and boots the
    /// built-in image once for real, and the lab kernel if the store's cache has it. The table names the remedy for
    /// what is missing. Of these boots nothing stays.
    #[command(after_long_help = "\
Examples:
  spore doctor
  spore doctor -q                 the names of the checks that failed

Exit codes: 0 instances can run (a warning is no failure); 1 something that
Spore needs is missing.")]
    Doctor,
    /// Print a shell completion script
    ///
    /// The shell reads it from the directory of its completions, from the next login on.
    #[command(after_long_help = "\
Examples:
  spore completions bash > ~/.local/share/bash-completion/completions/spore
  spore completions zsh > ~/.zfunc/_spore
  spore completions fish > ~/.config/fish/completions/spore.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Instance types (vCPUs, memory):
  spore.tiny (1, 32 MiB)   t2.nano (1, 512 MiB)     t2.micro (1, 1 GiB)
  t2.small (1, 2 GiB)      t3.nano (2, 512 MiB)     t3.micro (2, 1 GiB)
  t3.small (2, 2 GiB)      t3.medium (2, 4 GiB)     t3.large (2, 8 GiB)
  t3.xlarge (4, 16 GiB)    t3.2xlarge (8, 32 GiB)   c5.large (2, 4 GiB)
  c5.xlarge (4, 8 GiB)     c5.2xlarge (8, 16 GiB)   m5.large (2, 8 GiB)
  m5.xlarge (4, 16 GiB)    m5.2xlarge (8, 32 GiB)   r5.large (2, 16 GiB)

Examples:
  spore run demo -n 4 --wait      four clones, their consoles, exit code 0
  spore run debian --name web -t t3.small
                                  one Debian with 2 vCPUs and 2 GiB
  spore run debian -n 5:20 -q     as many as fit, at least five: their ids
  spore run debian --kernel ./bzImage --append 'systemd.unit=rescue.target'
  spore run debian --kernel lab   on a KVM without VMX or SVM
  spore run debian --rm --wait --timeout 60
                                  gone when the guest powers off
  spore run debian --block-device-mappings \\
    '[{\"DeviceName\":\"/dev/vdb\",\"VirtualName\":\"ephemeral0\"}]'

Exit codes: 0 all up (with --wait: at the prompt, or powered off); 1
refused, or a guest failed before its prompt; 2 the command line is wrong;
124 no prompt within --timeout (the instances go on); 125 failure.")]
pub struct Run {
    /// The image: an id, a unique prefix of one, or a name
    pub image: String,
    /// How many: N, or MIN:MAX for at least MIN and at most MAX
    #[arg(
        short = 'n',
        long,
        default_value = "1",
        value_name = "N|MIN:MAX",
        allow_negative_numbers = true
    )]
    pub count: Count,
    /// Instance type, a preset of vCPUs and memory (list below) [default: the image's, else t3.micro]
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub instance_type: Option<String>,
    /// vCPUs, 1 to 64, over the type's
    #[arg(short, long, value_name = "CPUS", value_parser = clap::value_parser!(u8).range(1..=64), allow_negative_numbers = true)]
    pub cpus: Option<u8>,
    /// Memory over the type's: 512M, 2G (a plain number counts MiB)
    #[arg(short, long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// Launch no more than fit into the memory that running instances leave of the host's; without this it is a warning
    #[arg(long)]
    pub no_overcommit: bool,
    /// CPU time that each instance may take at most: percent of one CPU, 1 to 6400. It needs a control group (v2) that
    /// this user may divide; so does --memory-max
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub cpu_quota: Option<u32>,
    /// Memory that each instance may take at most, its VMM's own included: 512M, 2G. One that wants more is ended
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory_max: Option<u64>,
    /// Name: the tag Name of every instance
    #[arg(long, value_parser = parse_name)]
    pub name: Option<String>,
    /// Kernel over the image's: a registered one (id or name), a file (bzImage or ELF vmlinux), which is registered, or
    /// 'lab', the one that 'scripts/build-image lab-kernel' built for a KVM that can't run stock kernels
    #[arg(long, value_name = "AKI|NAME|FILE")]
    pub kernel: Option<String>,
    /// Initial ramdisk over the image's: a registered one or a file
    #[arg(long, value_name = "ARI|NAME|FILE")]
    pub initrd: Option<String>,
    /// Boot the root device by its boot record, with this firmware [default for images without a kernel: SeaBIOS's
    /// bios-microvm.bin]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd", "cmdline"])]
    pub firmware: Option<std::path::PathBuf>,
    /// Kernel command line in place of the image's
    #[arg(long, value_name = "STR")]
    pub cmdline: Option<String>,
    /// Append to the kernel command line
    #[arg(long, value_name = "STR", default_value = "", hide_default_value = true)]
    pub append: String,
    /// Boot this entry of the root volume's boot menu this time: its index, id or title ('spore image boot-entries')
    #[arg(long, value_name = "ENTRY")]
    pub boot_entry: Option<String>,
    /// Change the image's block devices: JSON as EC2's BlockDeviceMappings, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    pub block_device_mappings: Option<String>,
    /// Root device type in place of the image's: instance-store leaves no trace of the root
    #[arg(long, value_name = "TYPE", value_parser = ["ebs", "instance-store"])]
    pub root_device_type: Option<String>,
    /// Terminate instead of stopping when the guest powers off
    #[arg(long)]
    pub rm: bool,
    /// Wait for each guest's login prompt, or its end, and print its console's last lines; ^C ends the wait, not the
    /// instances
    #[arg(long, conflicts_with = "no_wait")]
    pub wait: bool,
    /// With --wait: give up after this long (30, 500ms, 2m) [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "wait")]
    pub timeout: Option<Duration>,
    /// Return as soon as the processes are started
    #[arg(long)]
    pub no_wait: bool,
    /// How the host does disk I/O
    #[arg(long, value_enum, default_value_t = EngineArg::Auto)]
    pub engine: EngineArg,
    /// What each guest may have of each of its disks, a second and (after a colon) at once: disk.iops=1000,
    /// disk.bandwidth=50M:200M [default: as much as the host gives]
    #[arg(long, value_name = "LIMIT=RATE[:BURST],…", value_parser = super::limit::parse)]
    pub limit: Option<DiskLimits>,
    /// How the guest finds its devices, in place of what suits the image
    #[arg(long, value_enum)]
    pub transport: Option<TransportArg>,
    /// User data: text, @FILE, or - for standard input. It is kept with the instance
    #[arg(long, value_name = "TEXT|@FILE|-")]
    pub user_data: Option<String>,
    /// Tag of every instance (repeatable)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = super::image::tag)]
    pub tags: Vec<Tag>,
}

/// [`Engine`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum EngineArg {
    /// io_uring if the host has it, else sync
    Auto,
    /// io_uring, or fail
    Uring,
    /// preadv and pwritev
    Sync,
}

impl From<EngineArg> for Engine {
    fn from(engine: EngineArg) -> Self {
        match engine {
            EngineArg::Auto => Self::Auto,
            EngineArg::Uring => Self::Uring,
            EngineArg::Sync => Self::Sync,
        }
    }
}

/// [`TransportKind`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TransportArg {
    /// virtio-mmio: registers that the ACPI tables name
    Mmio,
    /// virtio-pci, with MSI-X
    Pci,
}

impl From<TransportArg> for TransportKind {
    fn from(transport: TransportArg) -> Self {
        match transport {
            TransportArg::Mmio => Self::Mmio,
            TransportArg::Pci => Self::Pci,
        }
    }
}

impl Run {
    /// The root device type asked for.
    pub fn root_device_type(&self) -> Option<RootDeviceType> {
        self.root_device_type.as_deref().map(|text| match text {
            "instance-store" => RootDeviceType::InstanceStore,
            _ => RootDeviceType::Ebs,
        })
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > 255 || text.chars().any(char::is_control) {
        return Err("a name has 1 to 255 characters, none of them a control character".into());
    }
    Ok(text.to_owned())
}

/// Arguments of `ls`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Filters (values may hold * and ?; several values of one filter are
alternatives, several filters must all hold):
  instance-id, instance-state-name, instance-state-code, instance-type,
  image-id, reservation-id, owner-id, launch-index, kernel-id, ramdisk-id,
  root-device-type, root-device-name, architecture, virtualization-type,
  state-reason-code, block-device-mapping.volume-id, tag:KEY, tag-key

Examples:
  spore ls --filter instance-state-name=running,pending
  spore ls -q --filter tag:Name='web*'
  spore ls -o json | jq -r '.Reservations[].Instances[].InstanceId'")]
pub struct Ls {
    /// Instances: ids, unique prefixes or names [default: all]
    pub targets: Vec<String>,
    /// Only those for which this holds (repeatable)
    #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]")]
    pub filters: Vec<Filter>,
}

/// Instances.
#[derive(Debug, Args)]
pub struct Targets {
    /// Instances: ids, unique prefixes or names
    #[arg(required = true, value_name = "INSTANCE")]
    pub targets: Vec<String>,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The instance: an id, a unique prefix or a name
    #[arg(value_name = "INSTANCE")]
    pub target: String,
    /// Go on until the instance ends
    #[arg(short, long)]
    pub follow: bool,
    /// Print what the VMM has to tell instead: errors, stopped devices, resets, the end
    #[arg(long, conflicts_with = "follow")]
    pub vmm: bool,
}

/// Arguments of `console`.
#[derive(Debug, Args)]
pub struct Console {
    /// The instance: an id, a unique prefix or a name
    #[arg(value_name = "INSTANCE")]
    pub target: String,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore stop web
  spore stop --timeout 10 web db
  spore stop --force $(spore ls -q --filter instance-state-name=running)

Exit codes: 0 all are stopped (with --no-wait: asked); 1 one could not be
(the others are); 2 the command line is wrong; 125 failure.")]
pub struct Stop {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// How long the guest may take before it is cut off (30, 500ms, 2m)
    #[arg(long, value_name = "TIME", default_value = "120", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Do not ask the guest: end it at once, as pulling the plug does
    #[arg(short, long)]
    pub force: bool,
    /// Only press the button
    #[arg(long, conflicts_with = "force")]
    pub no_wait: bool,
    /// Keep memory and devices on disk: 'spore start' goes on where the guest is now
    #[arg(long, conflicts_with_all = ["force", "no_wait", "timeout"])]
    pub hibernate: bool,
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// Boot this entry of the root volume's boot menu this time: its index, id or title (PV-GRUB)
    #[arg(long, value_name = "ENTRY")]
    pub boot_entry: Option<String>,
    /// Drop the memory of a hibernated instance and boot it
    #[arg(long)]
    pub cold: bool,
    /// Start none unless all fit into the memory that running instances leave of the host's; without this it is a warning
    #[arg(long)]
    pub no_overcommit: bool,
    /// Return as soon as the processes are started
    #[arg(long)]
    pub no_wait: bool,
}

/// Arguments of `reboot`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore reboot web
  spore reboot --force web

Exit codes: 0 all have begun anew; 1 one could not (the others have); 2 the
command line is wrong; 125 failure.")]
pub struct Reboot {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// How long the guest may take before it is reset (30, 500ms, 2m)
    #[arg(long, value_name = "TIME", default_value = "120", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Do not ask the guest: reset at once, as the reset button does
    #[arg(short, long)]
    pub force: bool,
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore wait web            until it is stopped or terminated
  spore wait --for login --timeout 2m $(spore ls -q)

Exit codes: 0 all are; 1 one can't get there any more; 2 the command line is
wrong; 124 the time is up (the instances go on); 125 failure.")]
pub struct Wait {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// For what: exit is stopped or terminated
    #[arg(long = "for", value_enum, default_value_t = UntilArg::Exit, value_name = "STATE")]
    pub until: UntilArg,
    /// Give up after this long (30, 500ms, 2m) [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// [`Until`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum UntilArg {
    /// Its vCPUs run
    Running,
    /// Its console shows a login prompt
    Login,
    /// It is stopped
    Stopped,
    /// It is terminated
    Terminated,
    /// It is stopped or terminated
    Exit,
}

impl From<UntilArg> for Until {
    fn from(until: UntilArg) -> Self {
        match until {
            UntilArg::Running => Self::Running,
            UntilArg::Login => Self::Login,
            UntilArg::Stopped => Self::Stopped,
            UntilArg::Terminated => Self::Terminated,
            UntilArg::Exit => Self::Exit,
        }
    }
}

/// Where user data comes from.
pub fn user_data_file(text: &str) -> Option<PathBuf> {
    text.strip_prefix('@').map(PathBuf::from)
}
