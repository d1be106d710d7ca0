//! `run`: launch, wait, show.

use super::answer::finish;
use super::args::{
    BootModeArg, CpuModelArg, DiskBusArg, MetadataArg, NetworkArg, TransportArg, launch_template,
    networks, tag,
};
use super::complete;
use super::limit::{self, Limits};
use super::openssh::Access;
use super::output::{emit, write_stdout};
use super::parse::{Count, parse_duration, parse_memory, parse_name, parse_percent, parse_size};
use super::progress::Progress;
use super::pull::{self, PullArg};
use super::share_arg::ShareArg;
use super::ui::{Ui, say};
use super::wait::{failed, parse_goal, shortfalls, wait_for};
use super::{input, instance_table};
use crate::error::{Code, Error, Result};
use crate::plan::Engine;
use crate::record::image::{BlockDeviceMapping, RootDeviceType};
use crate::record::instance::InstanceRecord;
use crate::record::limits::CgroupLimits;
use crate::record::metadata::MetadataOptionsRequest;
use crate::record::network::PublishedPort;
use crate::record::restart::RestartPolicy;
use crate::record::share::Share;
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::disks::NewVolume;
use crate::service::launch::{Launched, MAX_USER_DATA, Request, RunInstances, check_user_data};
use crate::service::wait::{Goal, Until, Waited};
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Lines of each console that `--wait` prints.
const LAST_LINES: usize = 20;

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
  spore run debian:12 -n 3        pulls Debian 12 if it is not here yet
  spore run debian --name web -t t3.small
                                  one Debian with 2 vCPUs and 2 GiB
  spore run debian -n 5:20 -q     as many as fit, at least five: their ids
  spore run debian --kernel ./bzImage --append 'systemd.unit=rescue.target'
  spore run debian --kernel lab   on a KVM without VMX or SVM
  spore run debian --network tap:tap0
                                  a guest with a network: a tap of this user's
  spore run debian --rm --wait --timeout 60
                                  gone when the guest powers off
  spore run debian --rm --foreground
                                  a service's command: ends as the guest does
  spore run debian --disk 20G --volume size=100G --volume snapshot=data
                                  a larger root and two more volumes
  spore run --cdrom netinst.iso --disk 20G --name box
                                  an installer's disc beside an empty disk
  spore run debian --disk-bus nvme --cpu-model x86-64-v3
                                  disks as EC2's, and a processor of any host
  spore run --rm debian -- make test
                                  a command in an instance that goes with it
  spore run debian --block-device-mappings \\
    '[{\"DeviceName\":\"/dev/vdb\",\"VirtualName\":\"ephemeral0\"}]'

Exit codes: 0 all up (with --wait: at the prompt, or powered off); 1
refused, or a guest failed before its prompt; 2 the command line is wrong;
124 no prompt within --timeout (the instances go on); 125 failure. With
--foreground: 0 all guests powered off; 1 a guest's kernel panicked or its CPU
shut down; 124 the time was up; 125 a VMM failed or was killed; 128 and its
number (130, 143) for a signal. With a command: its own; 1 a guest's kernel
panicked; 124 the time was up; 125 Spore failed, or nobody could get in.")]
#[command(group = clap::ArgGroup::new("until").args(["wait", "foreground", "command"]).multiple(true))]
pub struct Run {
    /// The image: an id, a unique prefix of one, or a name; or what 'spore image pull' takes, with
    /// a version or as an address: debian:12
    #[arg(required_unless_present_any = ["template", "cdroms"], add = complete::launchable())]
    pub image: Option<String>,
    /// Images that are not here.
    #[command(flatten)]
    pub pull: PullArg,
    /// A launch template ('spore template ls'), which says what is not said here; VERSION is a
    /// number or $Latest [default: the template's default version]
    #[arg(long, value_name = "NAME[:VERSION]")]
    pub template: Option<String>,
    /// How many: N, or MIN:MAX for at least MIN and at most MAX
    #[arg(
        short = 'n',
        long,
        default_value = "1",
        value_name = "N|MIN:MAX",
        allow_negative_numbers = true
    )]
    pub count: Count,
    /// Instance type, a preset of vCPUs and memory (list below) [default: the image's, else
    /// t3.micro]
    #[arg(short = 't', long = "type", value_name = "TYPE", add = complete::instance_type())]
    pub instance_type: Option<String>,
    /// vCPUs, 1 to 64, over the type's
    #[arg(short, long, value_name = "CPUS", value_parser = clap::value_parser!(u8).range(1..=64), allow_negative_numbers = true)]
    pub cpus: Option<u8>,
    /// Memory over the type's: 512M, 2G (a plain number counts MiB)
    #[arg(short, long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// Launch no more than fit into the memory that running instances leave of the host's; without
    /// this it is a warning
    #[arg(long)]
    pub no_overcommit: bool,
    /// CPU time that each instance may take at most: percent of one CPU, 1 to 6400. It needs a
    /// control group (v2) that this user may divide; so does --memory-max
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub cpu_quota: Option<u32>,
    /// Memory that each instance may take at most, its VMM's own included: 512M, 2G. One that wants
    /// more is ended
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory_max: Option<u64>,
    /// Name: the tag Name of every instance
    #[arg(long, value_parser = parse_name)]
    pub name: Option<String>,
    /// Kernel over the image's: a registered one (id or name), a file (bzImage or ELF vmlinux),
    /// which is registered, or 'lab', the one that 'scripts/build-image lab-kernel' built for a KVM
    /// that can't run stock kernels
    #[arg(long, value_name = "AKI|NAME|FILE")]
    pub kernel: Option<String>,
    /// Initial ramdisk over the image's: a registered one or a file
    #[arg(long, value_name = "ARI|NAME|FILE")]
    pub initrd: Option<String>,
    /// Boot the root device with this firmware: a BIOS, or UEFI's code (OVMF_CODE_4M.fd)
    /// [default for images without a kernel: SeaBIOS's bios-microvm.bin, or OVMF, as --boot-mode
    /// says]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd", "cmdline"])]
    pub firmware: Option<PathBuf>,
    /// How firmware boots the root device, in place of what the image says
    #[arg(long, value_enum, conflicts_with_all = ["kernel", "initrd", "cmdline"])]
    pub boot_mode: Option<BootModeArg>,
    /// Kernel command line in place of the image's
    #[arg(long, value_name = "STR")]
    pub cmdline: Option<String>,
    /// Append to the kernel command line
    #[arg(long, value_name = "STR", default_value = "", hide_default_value = true)]
    pub append: String,
    /// Boot this entry of the root volume's boot menu this time: its index, id or title ('spore
    /// image boot-entries')
    #[arg(long, value_name = "ENTRY")]
    pub boot_entry: Option<String>,
    /// Size of the root volume, which the image's has at least: 20G (whole GiB; a plain number
    /// counts GiB)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub disk: Option<u64>,
    /// One more volume (repeatable): size=20G, snapshot=SNAPSHOT or both, and device=/dev/vdX,
    /// delete=false (it outlives the instance), read-only
    #[arg(long = "volume", value_name = "size=SIZE,snapshot=SNAPSHOT,…", value_parser = super::volume_arg::parse)]
    pub volumes: Vec<NewVolume>,
    /// A directory of the host's that each guest sees at GUEST (repeatable), by virtio-fs: :ro to
    /// be read only, :rw to be changed. A guest whose systemd is 254 or later mounts it itself
    /// [default: rw, and ro with a command]
    #[arg(short = 'v', long = "share", value_name = "HOST:GUEST[:ro|:rw]", value_parser = super::share_arg::parse)]
    pub shares: Vec<ShareArg>,
    /// A file of the host's, an ISO image, as the disc in a CD-ROM drive (repeatable, up to 4).
    /// Firmware boots it where the root volume has nothing that boots, as that of the image
    /// 'blank' has, which is meant where none is named
    #[arg(long = "cdrom", value_name = "FILE")]
    pub cdroms: Vec<PathBuf>,
    /// Change the image's block devices: JSON as EC2's BlockDeviceMappings, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    pub block_device_mappings: Option<String>,
    /// Root device type in place of the image's: instance-store leaves no trace of the root
    #[arg(long, value_name = "TYPE", value_parser = ["ebs", "instance-store"])]
    pub root_device_type: Option<String>,
    /// Terminate instead of stopping when the guest powers off
    #[arg(long)]
    pub rm: bool,
    /// Start each again when its machine has ended: on-failure, when its guest has panicked or its
    /// VMM has failed or was killed; always, also when its guest has powered off. After 0.5 s, and
    /// twice as long each time, up to a minute. Not after 'spore stop'. See 'spore autostart'
    #[arg(
        long,
        value_name = "no|on-failure|always",
        default_value = "no",
        hide_default_value = true,
        value_parser = |text: &str| text.parse::<RestartPolicy>(),
        conflicts_with_all = ["rm", "foreground"]
    )]
    pub restart: RestartPolicy,
    /// Wait for each guest's login prompt, or its end, and print its console's last lines; ^C ends
    /// the wait, not the instances. =boot, =network, =ssh, =systemd, =cloud-init and =port:N wait
    /// for that ('spore wait'). With --foreground: tell then whoever started this that it is ready
    /// (sd_notify(3), READY=1) instead of when they run
    #[arg(
        long,
        value_name = "STATE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "login",
        value_parser = parse_goal,
        conflicts_with = "no_wait"
    )]
    pub wait: Option<Goal>,
    /// With --wait: give up after this long (30, 500ms, 2m); with --foreground: ask the guests to
    /// power off then; with a command: ask that to end then [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "until")]
    pub timeout: Option<Duration>,
    /// Staying with them.
    #[command(flatten)]
    pub held: Foreground,
    /// A command in one of them.
    #[command(flatten)]
    pub job: Job,
    /// Return as soon as the processes are started
    #[arg(long)]
    pub no_wait: bool,
    /// How the host does disk I/O
    #[arg(long, value_enum, default_value_t = EngineArg::Auto)]
    pub engine: EngineArg,
    /// What each guest may have of each of its disks and network interfaces, a second and (after a
    /// colon) at once: disk.iops=1000, disk.bandwidth=50M:200M, net.pps=20000, net.bandwidth=10M
    /// [default: as much as the host gives]
    #[arg(long, value_name = "LIMIT=RATE[:BURST],…", value_parser = limit::parse)]
    pub limit: Option<Limits>,
    /// What a network interface hangs on (repeatable): a network of 'spore network ls', of which
    /// 'default' is always there; tap:DEVICE, a tap of the host that is this user's; or none
    #[arg(long = "network", value_name = "NETWORK|tap:DEVICE|none")]
    pub networks: Vec<NetworkArg>,
    /// A security group of the network, by name or id (repeatable) [default: its default group]
    #[arg(long = "group", value_name = "GROUP", requires = "networks")]
    pub groups: Vec<String>,
    /// Pass a port of the host's on to each instance (repeatable): [ADDRESS:]HOST:GUEST[/udp], on
    /// the loopback address unless another is given; host port 0 is any that is free ('spore port'
    /// tells)
    #[arg(short = 'p', long = "publish", value_name = "PORTS", requires = "networks")]
    pub ports: Vec<PublishedPort>,
    /// The same for each port that the instances' security groups open to 0.0.0.0/0
    #[arg(short = 'P', long, requires = "networks")]
    pub publish_all: bool,
    /// Pairs of queues of each network interface, 1 to 8, for a guest with as many vCPUs; more than
    /// one takes a tap that has several (ip tuntap … multi_queue) [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8), allow_negative_numbers = true)]
    pub queues: Option<u8>,
    /// Which instructions each guest finds: all of the host's, or those of a level of the x86-64
    /// psABI, the same on every host [default: host]
    #[arg(long, value_enum, value_name = "MODEL", hide_possible_values = true)]
    pub cpu_model: Option<CpuModelArg>,
    /// Let each guest run virtual machines of its own (VMX, SVM); it can't be hibernated then
    #[arg(long)]
    pub nested: bool,
    /// How the guest finds its devices, in place of what suits the image
    #[arg(long, value_enum)]
    pub transport: Option<TransportArg>,
    /// What its disks are to the guest, in place of what suits the image
    #[arg(long, value_enum)]
    pub disk_bus: Option<DiskBusArg>,
    /// User data, which each guest finds in its metadata: text, @FILE, or - for standard input; at
    /// most 16 KiB
    #[arg(long, value_name = "TEXT|@FILE|-")]
    pub user_data: Option<String>,
    /// Key pair ('spore key ls') whose owner each guest is to let in; none for nobody [default:
    /// the one named 'default', which is made when it is first needed]
    #[arg(long, value_name = "NAME|none")]
    pub key: Option<String>,
    /// Where each guest finds its metadata [default: ec2]
    #[arg(long, value_enum, value_name = "WHERE")]
    pub metadata: Option<MetadataArg>,
    /// How each guest gets at it there, as on EC2: http-tokens=optional|required (IMDSv2 only),
    /// http-endpoint=enabled|disabled, hop-limit=1..64, http-protocol-ipv6=enabled|disabled,
    /// instance-metadata-tags=disabled|enabled [default: the first of each]
    #[arg(long, value_name = "OPTION=VALUE,…", value_parser = |text: &str| text.parse::<MetadataOptionsRequest>())]
    pub metadata_options: Option<MetadataOptionsRequest>,
    /// Tag of every instance (repeatable)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    pub tags: Vec<Tag>,
}

/// What belongs to `--foreground`.
#[derive(Debug, Args)]
pub struct Foreground {
    /// Stay until all have ended, with their consoles on standard output; whatever ends this
    /// command, be it kill -9, ends them. SIGTERM, SIGINT and SIGHUP press their power buttons
    #[arg(long, conflicts_with = "no_wait")]
    pub foreground: bool,
    /// With --foreground: standard input goes to the guest's serial line; on a terminal, key by
    /// key, and ^] presses its power button
    #[arg(short, long, requires = "foreground")]
    pub interactive: bool,
    /// With --foreground: how long a guest may take to power off before its plug is pulled (30,
    /// 500ms, 2m)
    #[arg(
        long,
        value_name = "TIME",
        default_value = "25",
        value_parser = parse_duration,
        requires = "foreground"
    )]
    pub stop_timeout: Duration,
}

/// What belongs to a command that the instance is for.
#[derive(Debug, Args)]
pub struct Job {
    /// With a command: how long it may take to end once it was asked, by a signal or --timeout,
    /// before the instance is terminated (30, 500ms, 2m)
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10",
        value_parser = parse_duration,
        requires = "command"
    )]
    pub kill_after: Duration,
    /// How the command gets in.
    #[command(flatten)]
    pub access: Access,
    /// With --rm: a command to be run in the instance, by ssh as root (as 'spore exec' does). Its
    /// standard input, output and exit code are this command's, and the instance is terminated when
    /// it has ended, whatever happens
    #[arg(
        last = true,
        value_name = "CMD",
        requires = "rm",
        conflicts_with_all = ["wait", "foreground", "no_wait"]
    )]
    pub command: Vec<OsString>,
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

impl Run {
    /// The root device type asked for.
    pub fn root_device_type(&self) -> Option<RootDeviceType> {
        self.root_device_type.as_deref().map(|text| match text {
            "instance-store" => RootDeviceType::InstanceStore,
            _ => RootDeviceType::Ebs,
        })
    }
}

/// `run`.
pub fn run(service: &Service, ui: &Ui, args: &Run) -> Result<ExitCode> {
    // Before standard input is read: what pulls may be another program.
    pull::check(service, args.image.as_deref(), &args.pull)?;
    let mut request = request(args)?;
    // Who is interrupted from here on still hears what has been launched.
    let launch = || {
        request.image_id = pull::image(service, args.image.as_deref(), &args.pull)?;
        Progress::during("launching", || service.run_instances(&request))
    };
    let Some(launched) = ui.cancellable(launch)? else { return Ok(ui.cancelled()) };
    tell_of(&launched);
    for (index, share) in request.request.shares.iter().enumerate() {
        let (tag, at) = (Share::tag(index), &share.guest_path);
        say(format_args!(
            "note: a guest with systemd 254 or later mounts {share}; another by 'mount -t virtiofs {tag} {at}'"
        ));
    }
    let mut records = launched.records;
    let mut errors = Vec::new();
    if let Some(goal) = args.wait {
        let until = Until::GuestOrEnd(goal);
        let ids = records.iter().map(|record| record.instance.instance_id.to_string()).collect();
        let waited = wait_for(service, ids, until, args.timeout)?;
        records = refreshed(records, &waited);
        if ui.context.cancelled() {
            emit(&ui.output, &instance_table::launched(service, ui, &records))?;
            eprintln!("spore: interrupted{}", going_on(&records));
            return Ok(ui.cancelled());
        }
        if ui.output.is_table() {
            write_stdout(consoles(service, &records)?.as_bytes())?;
        }
        errors.extend(shortfalls(&waited, until, args.timeout));
        errors.extend(records.iter().filter_map(failed));
    }
    emit(&ui.output, &instance_table::launched(service, ui, &records))?;
    finish(ui, errors)
}

/// Tells of a launch what its answer does not say: whose image it was, if nobody vouches for it,
/// and what did not come up.
pub fn tell_of(launched: &Launched) {
    let image = &launched.image;
    if launched.unvouched {
        say(format_args!(
            "note: image {} is account {}'s: nobody vouches for what is in it",
            image.image_id, image.owner_id
        ));
    }
    if let Some(first) = launched.failures.first() {
        // Not an error: at least as many came up as had to (RunInstances' MinCount).
        let (up, all) = (launched.records.len(), launched.records.len() + launched.failures.len());
        say(format_args!(
            "warning: {up} of {all} instances came up; the next: {}",
            first.message()
        ));
    }
}

/// What the arguments ask for.
///
/// # Errors
/// They contradict each other; a file that they name can't be read.
pub fn request(args: &Run) -> Result<RunInstances> {
    let mut tags = args.tags.clone();
    if let Some(name) = &args.name {
        if tags.iter().any(|tag| tag.key == "Name") {
            return Err(Error::usage("--name and --tag Name=… say the same; give one of them"));
        }
        tags.push(Tag { key: "Name".into(), value: name.clone() });
    }
    if args.template.is_some() && args.networks.iter().any(|n| matches!(n, NetworkArg::None)) {
        let why = "--network none takes nothing away that a launch template says; leave out one";
        return Err(Error::usage(why));
    }
    let limits = args.limit.unwrap_or_default();
    Ok(RunInstances {
        image_id: args.image.clone().unwrap_or_default(),
        launch_template: args.template.as_deref().map(|text| launch_template(text).0),
        terminate_on_shutdown: args.rm.then_some(true),
        kernel_id: args.kernel.clone(),
        ramdisk_id: args.initrd.clone(),
        request: Request {
            min_count: args.count.min,
            max_count: args.count.max,
            instance_type: args.instance_type.clone(),
            cpus: args.cpus,
            memory: args.memory,
            kernel: None,
            ramdisk: None,
            firmware: args.firmware.clone(),
            boot_mode: args.boot_mode.map(Into::into),
            command_line: args.cmdline.clone(),
            append: args.append.clone(),
            boot_entry: args.boot_entry.clone(),
            root_device_type: args.root_device_type(),
            terminate_on_shutdown: args.rm,
            restart: args.restart,
            block_device_mappings: mappings(args.block_device_mappings.as_deref())?,
            engine: args.engine.into(),
            disk_limits: limits.disk,
            networks: networks(&args.networks)?,
            groups: args.groups.clone(),
            ports: args.ports.clone(),
            publish_all: args.publish_all,
            queues: args.queues.unwrap_or(1),
            net_limits: limits.net,
            cpu_model: args.cpu_model.map(Into::into).unwrap_or_default(),
            nested_virtualization: args.nested.then_some(true),
            transport: args.transport.map(Into::into),
            disk_bus: args.disk_bus.map(Into::into),
            no_overcommit: args.no_overcommit,
            cgroup_limits: CgroupLimits { cpu_quota: args.cpu_quota, memory_max: args.memory_max },
            tags,
            key_name: args.key.clone(),
            client_token: None,
            key: None,
            metadata_options: metadata_options(args),
            no_cloud: args.metadata == Some(MetadataArg::Nocloud),
            shares: shares(args)?,
            cdroms: args.cdroms.clone(),
        },
        root_size: args.disk,
        volumes: args.volumes.clone(),
        user_data: args.user_data.as_deref().map(user_data).transpose()?,
        wait_running: !args.no_wait,
        wait_image: true,
        ..RunInstances::default()
    })
}

/// Directories to share: with a command to be read only, unless they say otherwise.
fn shares(args: &Run) -> Result<Vec<Share>> {
    let job = !args.job.command.is_empty();
    args.shares.iter().map(|share| share.share(job)).collect()
}

fn metadata_options(args: &Run) -> MetadataOptionsRequest {
    let given = args.metadata_options.unwrap_or_default();
    args.metadata.map_or(given, |metadata| metadata.over(given))
}

/// Most bytes of a file of mappings: EC2 has no more devices than fit in fewer.
const MAX_MAPPINGS: u64 = 1 << 20;

/// Where user data comes from.
fn user_data_file(text: &str) -> Option<PathBuf> {
    text.strip_prefix('@').map(PathBuf::from)
}

/// EC2's BlockDeviceMappings: JSON, or a file of it.
fn mappings(text: Option<&str>) -> Result<Vec<BlockDeviceMapping>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let text = match user_data_file(text) {
        Some(path) => input::read(&path, MAX_MAPPINGS)?,
        None => text.as_bytes().to_vec(),
    };
    if text.len() as u64 > MAX_MAPPINGS {
        let why = format!("the mapping is longer than {MAX_MAPPINGS} bytes");
        return Err(Error::refused(Code::InvalidBlockDeviceMapping, why));
    }
    serde_json::from_slice(&text).map_err(|e| {
        Error::refused(Code::InvalidBlockDeviceMapping, format!("the mapping is malformed: {e}"))
    })
}

/// The bytes that `--user-data` means.
///
/// # Errors
/// They can't be read, or are more than EC2 takes.
pub fn user_data(text: &str) -> Result<Vec<u8>> {
    let bytes = match (text, user_data_file(text)) {
        ("-", _) => input::read(Path::new(text), MAX_USER_DATA)?,
        (_, Some(path)) => input::read(&path, MAX_USER_DATA)?,
        _ => text.as_bytes().to_vec(),
    };
    check_user_data(&bytes)?;
    Ok(bytes)
}

/// What becomes of those that nobody waits for any more.
fn going_on(records: &[InstanceRecord]) -> String {
    let active = records.iter().filter(|record| record.instance.state.is_active());
    let ids: Vec<&str> = active.map(|record| record.instance.instance_id.as_str()).collect();
    match ids.is_empty() {
        true => String::new(),
        false => format!("; they go on, and 'spore terminate {}' ends them", ids.join(" ")),
    }
}

/// The records as the wait left them.
fn refreshed(records: Vec<InstanceRecord>, waited: &[Waited]) -> Vec<InstanceRecord> {
    let newer = |(old, waited): (InstanceRecord, &Waited)| match waited {
        Waited::Reached(record) | Waited::Impossible(record) | Waited::TimedOut(record, _) => {
            record.clone()
        }
        Waited::Lost(_) => old,
    };
    records.into_iter().zip(waited).map(newer).collect()
}

/// The end of each console under a heading.
fn consoles(service: &Service, records: &[InstanceRecord]) -> Result<String> {
    let mut text = String::new();
    for record in records {
        let instance = &record.instance;
        let (id, index) = (&instance.instance_id, instance.ami_launch_index);
        text.push_str(&format!("-- {id}, index {index}, {}\n", instance.state.name()));
        for line in service.last_console_lines(record, LAST_LINES)? {
            text.push_str(&format!("{line}\n"));
        }
        text.push('\n');
    }
    Ok(text)
}
