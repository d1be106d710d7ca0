//! Arguments that several commands take.

use crate::error::{Error, Result};
use crate::import::SourceFormat;
use crate::plan::TransportKind;
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
