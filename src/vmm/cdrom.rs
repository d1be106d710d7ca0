//! CD-ROM drives: the disc as a file, and the device in front of it.

use crate::block::{self, Disk, DiskFormat, FileDisk};
use crate::error::{OrFail, Result};
use crate::plan::{CdromPlan, DeviceId};
use crate::sys::fds;
use crate::sys::seccomp::Filter;
use crate::virtio::Notices;
use crate::virtio::device::Services;
use crate::virtio::scsi::Scsi;
use std::sync::Arc;

/// Open the disc, in whose file nothing is looked for, on a thread that is confined first.
///
/// # Errors
/// The descriptor is missing, or the host has no thread for us.
pub fn open(id: &DeviceId, plan: &CdromPlan, filter: Option<Arc<Filter>>) -> Result<Arc<FileDisk>> {
    let disc = vec![(fds::take_file(plan.disc)?, DiskFormat::Raw)];
    let begin = Box::new(move || filter.map_or(Ok(()), |filter| filter.apply()));
    block::open_aside(disc, true, begin).or_fail(|| format!("open the disc of {id}"))
}

/// The drive that it is in.
///
/// # Errors
/// The host cannot do I/O as the plan wants it.
pub fn start(
    id: &DeviceId,
    plan: &CdromPlan,
    disc: &Arc<FileDisk>,
    notices: Notices,
) -> Result<(Arc<Scsi>, Services)> {
    let disc = disc.clone() as Arc<dyn Disk>;
    let made = Scsi::create(id.as_str(), &disc, plan.engine, plan.limits, notices);
    made.or_fail(|| format!("start CD-ROM drive {id}"))
}
