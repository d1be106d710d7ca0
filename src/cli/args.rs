//! Arguments that several commands take.

use crate::error::{Error, Result};
use crate::import::SourceFormat;
use crate::plan::TransportKind;
use crate::record::network::Network;
use crate::record::tag::Tag;
use clap::{Args, ValueEnum};

/// Instances.
#[derive(Debug, Args)]
pub struct Targets {
    /// Instances: ids, unique prefixes or names
    #[arg(required = true, value_name = "INSTANCE")]
    pub targets: Vec<String>,
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
