//! Arguments that several commands take.

use super::complete;
use crate::error::{Error, Result};
use crate::plan::{CpuModel, DiskBus, TransportKind};
use crate::record::image::BootMode;
use crate::record::metadata::{Endpoint, MetadataOptionsRequest};
use crate::record::network::Network;
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::filter::Filter;
use crate::service::instances::Selection;
use crate::service::launch_templates::Specification;
use crate::service::register::SourceFormat;
use clap::{Args, ValueEnum};

/// Instances that something is done to.
#[derive(Debug, Args)]
pub struct Targets {
    /// Instances: ids, unique prefixes, names (all that share it), NAME-INDEX or patterns ('web*')
    #[arg(required_unless_present_any = ["filters", "ec2_filters", "all"], value_name = "INSTANCE", add = complete::instance())]
    pub targets: Vec<String>,
    /// Which.
    #[command(flatten)]
    pub filters: Filters,
    /// All of yours that are not terminated
    #[arg(short, long, conflicts_with = "targets")]
    pub all: bool,
}

impl Targets {
    /// Their ids. Filters may leave none.
    ///
    /// # Errors
    /// One is unknown or ambiguous, or a filter is unknown.
    pub fn ids(&self, service: &Service) -> Result<Vec<String>> {
        let (instance_ids, filters) = (self.targets.clone(), self.filters.all());
        service.select_instances(&Selection { instance_ids, filters })
    }
}

/// Filters.
#[derive(Debug, Args)]
pub struct Filters {
    /// Only those for which this holds (repeatable; all must hold): a filter of EC2's, as listed by
    /// 'spore ls --help'
    #[arg(
        long = "filter",
        value_name = "NAME=VALUE[,VALUE]",
        value_parser = filter,
        add = complete::filter()
    )]
    filters: Vec<Filter>,
    /// The same in EC2's spelling
    #[arg(
        long = "filters",
        value_name = "Name=NAME,Values=VALUE[,VALUE]",
        value_parser = ec2_filter,
        hide_short_help = true
    )]
    ec2_filters: Vec<Filter>,
}

/// The same of a list, which has no other use for the short option.
#[derive(Debug, Args)]
pub struct ListFilters {
    /// Only those for which this holds (repeatable; all must hold)
    #[arg(
        short,
        long = "filter",
        value_name = "NAME=VALUE[,VALUE]",
        value_parser = filter,
        add = complete::filter()
    )]
    filters: Vec<Filter>,
    /// The same in EC2's spelling
    #[arg(
        long = "filters",
        value_name = "Name=NAME,Values=VALUE[,VALUE]",
        value_parser = ec2_filter,
        hide_short_help = true
    )]
    ec2_filters: Vec<Filter>,
}

impl ListFilters {
    /// All of them.
    pub fn all(&self) -> Vec<Filter> {
        self.filters.iter().chain(&self.ec2_filters).cloned().collect()
    }
}

impl Filters {
    /// All of them.
    pub fn all(&self) -> Vec<Filter> {
        self.filters.iter().chain(&self.ec2_filters).cloned().collect()
    }
}

/// [`CpuModel`] as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CpuModelArg {
    /// All that the host has
    Host,
    /// Up to SSE4.2
    #[value(name = "x86-64-v2")]
    V2,
    /// Up to AVX2
    #[value(name = "x86-64-v3")]
    V3,
    /// With AVX-512
    #[value(name = "x86-64-v4")]
    V4,
}

impl From<CpuModelArg> for CpuModel {
    fn from(model: CpuModelArg) -> Self {
        match model {
            CpuModelArg::Host => Self::Host,
            CpuModelArg::V2 => Self::V2,
            CpuModelArg::V3 => Self::V3,
            CpuModelArg::V4 => Self::V4,
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

/// [`BootMode`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BootModeArg {
    /// By UEFI firmware: OVMF, as the distribution has it
    Uefi,
    /// By a BIOS: SeaBIOS
    LegacyBios,
    /// By UEFI where the host has it, else by a BIOS
    UefiPreferred,
}

impl From<BootModeArg> for BootMode {
    fn from(mode: BootModeArg) -> Self {
        match mode {
            BootModeArg::Uefi => Self::Uefi,
            BootModeArg::LegacyBios => Self::LegacyBios,
            BootModeArg::UefiPreferred => Self::UefiPreferred,
        }
    }
}

/// [`DiskBus`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DiskBusArg {
    /// virtio block devices
    Virtio,
    /// NVMe controllers on the PCI bus, as EC2's
    Nvme,
}

impl From<DiskBusArg> for DiskBus {
    fn from(bus: DiskBusArg) -> Self {
        match bus {
            DiskBusArg::Virtio => Self::Virtio,
            DiskBusArg::Nvme => Self::Nvme,
        }
    }
}

/// Where a guest finds its metadata, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetadataArg {
    /// At 169.254.169.254, on a network of Spore's, as on EC2
    Ec2,
    /// On a read-only volume labelled CIDATA, by cloud-init's NoCloud
    Nocloud,
    /// Nowhere
    None,
}

impl MetadataArg {
    /// EC2's options for that, where those that are given don't say.
    pub fn over(self, given: MetadataOptionsRequest) -> MetadataOptionsRequest {
        let endpoint = match self {
            Self::Ec2 => Endpoint::Enabled,
            Self::Nocloud | Self::None => Endpoint::Disabled,
        };
        MetadataOptionsRequest { http_endpoint: given.http_endpoint.or(Some(endpoint)), ..given }
    }
}

/// A network as an argument.
#[derive(Clone, Debug)]
pub enum NetworkArg {
    /// No network at all.
    None,
    /// This one.
    Network(Network),
}

impl std::str::FromStr for NetworkArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" { Ok(Self::None) } else { text.parse().map(Self::Network) }
    }
}

/// The networks that are meant by these.
///
/// # Errors
/// There is `none` among others.
pub fn networks(given: &[NetworkArg]) -> Result<Vec<Network>> {
    let network = |arg: &NetworkArg| match arg {
        NetworkArg::None => None,
        NetworkArg::Network(network) => Some(network.clone()),
    };
    let networks: Vec<Network> = given.iter().filter_map(network).collect();
    if !networks.is_empty() && networks.len() < given.len() {
        let why = "--network none and another --network contradict each other; give one of them";
        return Err(Error::usage(why));
    }
    Ok(networks)
}

/// The disk's format.
#[derive(Debug, Args)]
pub struct FormatArg {
    /// The disk's format, instead of telling it from its first bytes: raw, qcow2, vmdk, vhd or vhdx
    #[arg(id = "disk_format", long = "format", value_name = "FORMAT", value_parser = |text: &str| text.parse::<SourceFormat>())]
    pub format: Option<SourceFormat>,
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

/// `NAME=VALUE[,VALUE...]`.
///
/// # Errors
/// There is no `=`, or nothing before it.
pub fn filter(text: &str) -> Result<Filter> {
    match text.split_once('=') {
        Some((name, values)) if !name.is_empty() => {
            Ok(Filter { name: name.to_owned(), values: split(values) })
        }
        _ => Err(Error::usage(format!(
            "'{}' is not a filter of the form name=value[,value...]",
            text.escape_debug()
        ))),
    }
}

/// `Name=NAME,Values=VALUE[,VALUE...]`, as EC2's tools have it.
///
/// # Errors
/// It is not of this form.
pub fn ec2_filter(text: &str) -> Result<Filter> {
    let parts = text.strip_prefix("Name=").and_then(|rest| rest.split_once(",Values="));
    match parts {
        Some((name, values)) if !name.is_empty() => {
            Ok(Filter { name: name.to_owned(), values: split(values) })
        }
        _ => Err(Error::usage(format!(
            "'{}' is not a filter of the form Name=name,Values=value[,value...]",
            text.escape_debug()
        ))),
    }
}

/// The values between commas; one after a `\` separates nothing.
fn split(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut literal = false;
    for c in text.chars() {
        match values.last_mut() {
            Some(value) if c != ',' || literal => value.push(c),
            _ => values.push(String::new()),
        }
        literal = c == '\\' && !literal;
    }
    values
}

/// The template and the version that a text names.
pub fn launch_template(text: &str) -> (Specification, Option<String>) {
    let (template, version) = match text.rsplit_once(':') {
        Some((template, version)) => (template.to_owned(), Some(version.to_owned())),
        None => (text.to_owned(), None),
    };
    let (id, name) = match template.parse::<crate::id::LaunchTemplateId>() {
        Ok(_) => (Some(template), None),
        Err(_) => (None, Some(template)),
    };
    (Specification { id, name, version: version.clone() }, version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web_or_db() -> Filter {
        Filter { name: "tag:Name".into(), values: vec!["web".into(), "db*".into()] }
    }

    #[test]
    fn values_of_filters_are_between_commas() {
        let web = filter("tag:Name=web,db*").unwrap();
        assert_eq!(web, web_or_db());
        let comma = filter(r"name=a\,b,c\\,d").unwrap();
        assert_eq!(comma.values, [r"a\,b", r"c\\", "d"]);
        assert_eq!(ec2_filter("Name=tag:Name,Values=web,db*").unwrap(), web_or_db());
        for bad in ["tag:Name=web", "Name=,Values=x", "Name=x", "Values=x,Name=y"] {
            assert!(ec2_filter(bad).is_err(), "{bad}");
        }
        assert!(filter("novalue").is_err() && filter("=value").is_err());
    }
}
