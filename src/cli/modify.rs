//! `spore modify`.

use super::args::{CpuModelArg, MetadataArg, NetworkArg, networks};
use super::complete;
use super::instance_table;
use super::output::emit;
use super::parse::{parse_memory, parse_name};
use super::run::user_data;
use super::ui::Ui;
use crate::error::{Error, Result};
use crate::record::metadata::MetadataOptionsRequest;
use crate::record::restart::RestartPolicy;
use crate::service::Service;
use crate::service::launch::ModifyInstanceAttribute;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `modify`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true)
    .args(["instance_type", "cpus", "memory", "cpu_model", "nested", "name", "restart", "kernel", "firmware", "initrd", "cdroms", "user_data", "networks", "metadata", "metadata_options", "delete_on_termination"]))]
#[command(override_usage = "spore modify [OPTIONS] <INSTANCE>")]
#[command(after_long_help = "\
Examples:
  spore modify web -t t3.large
  spore modify web -c 4 -m 8G --name web-large
  spore modify web --kernel ./bzImage --initrd none
  spore modify web --network tap:tap0
  spore modify box --cdrom none
  spore modify web --delete-on-termination /dev/vdb=true")]
pub struct Modify {
    /// The instance: an id, a unique prefix or a name. It must be stopped, unless only its name or
    /// its metadata options are changed
    #[arg(value_name = "INSTANCE", add = complete::instance())]
    target: String,
    /// Instance type, a preset of vCPUs and memory
    #[arg(short = 't', long = "type", value_name = "TYPE", add = complete::instance_type())]
    instance_type: Option<String>,
    /// vCPUs, 1 to 64, over the type's
    #[arg(short, long, value_name = "CPUS", value_parser = clap::value_parser!(u8).range(1..=64), allow_negative_numbers = true)]
    cpus: Option<u8>,
    /// Memory over the type's: 512M, 2G (a plain number counts MiB)
    #[arg(short, long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<u64>,
    /// Which instructions its guest finds ('spore run')
    #[arg(long, value_enum, value_name = "MODEL")]
    cpu_model: Option<CpuModelArg>,
    /// Whether its guest may run virtual machines of its own
    #[arg(long, value_name = "true|false")]
    nested: Option<bool>,
    /// Name: its tag Name
    #[arg(long, value_parser = parse_name)]
    name: Option<String>,
    /// When it is started again ('spore run --restart'), which may be changed while it runs, too
    #[arg(long, value_name = "no|on-failure|always", value_parser = |text: &str| text.parse::<RestartPolicy>())]
    restart: Option<RestartPolicy>,
    /// Kernel: a registered one (id or name) or a file, which is registered; none boots from disk
    #[arg(long, value_name = "AKI|NAME|FILE|none")]
    kernel: Option<String>,
    /// Boot from disk with this firmware
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd"])]
    firmware: Option<PathBuf>,
    /// Initial ramdisk: a registered one, a file, or none
    #[arg(long, visible_alias = "ramdisk", value_name = "ARI|NAME|FILE|none")]
    initrd: Option<String>,
    /// The disc in its CD-ROM drive from now on (repeatable): a file of the host's; or none
    #[arg(long = "cdrom", value_name = "FILE|none")]
    cdroms: Vec<PathBuf>,
    /// User data: text, @FILE, or - for standard input; empty for none
    #[arg(long, value_name = "TEXT|@FILE|-")]
    user_data: Option<String>,
    /// What its network interfaces hang on from now on (repeatable): a network of the
    /// store's; tap:DEVICE; or none
    #[arg(long = "network", value_name = "NETWORK|tap:DEVICE|none")]
    networks: Vec<NetworkArg>,
    /// Pairs of queues of each of them, 1 to 8
    #[arg(long, value_name = "N", default_value = "1", hide_default_value = true, requires = "networks", value_parser = clap::value_parser!(u8).range(1..=8), allow_negative_numbers = true)]
    queues: u8,
    /// Where its guest finds its metadata
    #[arg(long, value_enum, value_name = "WHERE")]
    metadata: Option<MetadataArg>,
    /// How its guest gets at its metadata; what is not given stays (see 'spore run')
    #[arg(long, value_name = "OPTION=VALUE,…", value_parser = |text: &str| text.parse::<MetadataOptionsRequest>())]
    metadata_options: Option<MetadataOptionsRequest>,
    /// Whether a device's volume goes with the instance (may be repeated)
    #[arg(long, value_name = "DEVICE=true|false", value_parser = device_flag)]
    delete_on_termination: Vec<(String, bool)>,
}

fn device_flag(text: &str) -> Result<(String, bool)> {
    let pair = text.split_once('=').and_then(|(device, flag)| Some((device, flag.parse().ok()?)));
    let (device, flag) =
        pair.ok_or_else(|| Error::usage("it is DEVICE=true or DEVICE=false, e.g. /dev/vdb=true"))?;
    Ok((device.to_owned(), flag))
}

/// `modify`.
///
/// # Errors
/// As [`Service::modify_instance_attribute`]'s.
pub fn modify(service: &Service, ui: &Ui, args: &Modify) -> Result<ExitCode> {
    let record = service.modify_instance_attribute(&ModifyInstanceAttribute {
        instance_id: args.target.clone(),
        instance_type: args.instance_type.clone(),
        cpus: args.cpus,
        memory: args.memory,
        cpu_model: args.cpu_model.map(Into::into),
        nested_virtualization: args.nested,
        name: args.name.clone(),
        restart: args.restart,
        kernel: args.kernel.clone(),
        ramdisk: args.initrd.clone(),
        firmware: args.firmware.clone(),
        cdroms: match &*args.cdroms {
            [] => None,
            [one] if one.as_os_str() == "none" => Some(Vec::new()),
            given => Some(given.to_vec()),
        },
        user_data: args.user_data.as_deref().map(user_data).transpose()?,
        networks: match &*args.networks {
            [] => None,
            given => Some((networks(given)?, args.queues)),
        },
        metadata_options: {
            let given = args.metadata_options.unwrap_or_default();
            args.metadata.map_or(given, |metadata| metadata.over(given))
        },
        no_cloud: args.metadata.map(|metadata| metadata == MetadataArg::Nocloud),
        delete_on_termination: args.delete_on_termination.clone(),
    })?;
    let records = [record];
    emit(&ui.output, &instance_table::list(service, ui, &records))?;
    Ok(ExitCode::SUCCESS)
}
