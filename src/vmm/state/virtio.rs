//! A virtio device behind its transport, with the disk that it may have.

use crate::block::{Disk, FileDisk};
use crate::error::{Error, OrFail, Result};
use crate::plan::DeviceId;
use crate::virtio::transport::{Transport, TransportState};
use crate::vmm::component::{Component, decode, encode};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

const VERSION: u16 = 1;

/// How long the end of a machine waits for what a device has in flight: some dozen MiB at most. If
/// the host's storage takes longer the volumes are left as after a crash, which they are made for.
const REST: Duration = Duration::from_secs(2);
/// How long the close of a disk is waited for at least, however long another's took.
const LEAST: Duration = Duration::from_secs(1);

/// A device of the plan.
pub struct VirtioDevice {
    name: String,
    transport: Arc<dyn Transport>,
    disk: Option<Arc<FileDisk>>,
}

impl VirtioDevice {
    /// The device that the plan calls `id`.
    pub fn new(id: &DeviceId, transport: Arc<dyn Transport>, disk: Option<Arc<FileDisk>>) -> Self {
        Self { name: Self::name_of(id), transport, disk }
    }

    /// What the part of a device is called.
    pub fn name_of(id: &DeviceId) -> String {
        format!("device {id}")
    }
}

impl Component for VirtioDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn pause(&self) -> Result<()> {
        self.transport.pause()
    }

    fn resume(&self) {
        self.transport.resume();
    }

    fn reset(&self) -> Result<()> {
        if self.transport.reset() {
            return Ok(());
        }
        let why = "a disk does not come to rest: the host's storage does not answer";
        Err(Error::failure(why))
    }

    fn halt(&self, deadline: Instant) -> Result<()> {
        let rests = self.transport.shutdown(deadline.min(Instant::now() + REST));
        let Some(disk) = &self.disk else { return Ok(()) };
        let left = deadline.saturating_duration_since(Instant::now()).max(LEAST);
        let closed = if rests { disk.close_within(left) } else { Err(ErrorKind::TimedOut.into()) };
        closed.or_fail(|| format!("close {}", self.name))
    }

    fn save(&self) -> Result<Vec<u8>> {
        encode(VERSION, &self.transport.save()?)
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        let state: TransportState = decode(&self.name, VERSION, state)?;
        self.transport.restore(&state)
    }
}
