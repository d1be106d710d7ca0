//! How much of a disk its guest may have.

use crate::plan::{DiskLimits, Rate};
use crate::virtio::bucket::Bucket;
use std::time::Duration;

/// The buckets of a disk, which all of its queues take from.
pub(super) struct Throttle {
    iops: Option<Bucket>,
    bandwidth: Option<Bucket>,
}

impl Throttle {
    /// Full buckets.
    pub fn new(limits: DiskLimits) -> Self {
        let bucket = |rate: Rate| Bucket::new(rate.per_second, rate.burst);
        Self { iops: limits.iops.map(bucket), bandwidth: limits.bandwidth.map(bucket) }
    }

    /// Take a request, if `first`, and so many bytes. If there is not enough of either, neither is
    /// taken: the time until there may be.
    pub fn take(&mut self, first: bool, bytes: u32) -> Option<Duration> {
        let Self { iops, bandwidth } = self;
        let mut iops = iops.as_mut().filter(|_| first);
        if let Some(wait) = iops.as_ref().and_then(|bucket| bucket.wait()) {
            return Some(wait);
        }
        if let Some(wait) = bandwidth.as_mut().and_then(|bucket| bucket.take(bytes.into())) {
            return Some(wait);
        }
        // It was there a moment ago, and the lock is held.
        iops.as_mut().and_then(|bucket| bucket.take(1))
    }
}
