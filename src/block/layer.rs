//! One file of a disk's chain, and where in the chain bytes are.

use super::DiskFormat;
use super::host::HostFile;
use super::qcow2::{Mapping, Qcow2File};
use std::fs::File;
use std::io;

/// One layer.
pub(crate) enum Layer {
    Raw { host: HostFile, len: u64 },
    Qcow2(Box<Qcow2File>),
}

impl Layer {
    pub(crate) fn open(file: File, format: DiskFormat) -> io::Result<Self> {
        let host = HostFile::new(file);
        match format {
            DiskFormat::Raw => {
                let len = host.len()?;
                Ok(Self::Raw { host, len })
            }
            DiskFormat::Qcow2 => Ok(Self::Qcow2(Box::new(Qcow2File::open(host)?))),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Raw { len, .. } => len.next_multiple_of(512),
            Self::Qcow2(image) => image.size(),
        }
    }

    pub(crate) fn host(&self) -> &HostFile {
        match self {
            Self::Raw { host, .. } => host,
            Self::Qcow2(image) => &image.host,
        }
    }

    pub(crate) fn map(&self, offset: u64, len: u64) -> io::Result<(Mapping, u64)> {
        match self {
            Self::Raw { .. } => Ok((Mapping::Data { host: offset, copied: true }, len)),
            Self::Qcow2(image) => image.map(offset, len),
        }
    }
}

/// Where a range's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Zero,
    /// In the host file of a layer. Only what is in layer 0 and `copied` may be written in place.
    Host {
        layer: usize,
        offset: u64,
        copied: bool,
    },
    /// Inside a compressed cluster of a layer.
    Compressed {
        layer: usize,
    },
}

/// What a run of bytes holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes worth reading (they may still be zeros).
    Data,
    /// Known to read as zeros.
    Zero,
}
