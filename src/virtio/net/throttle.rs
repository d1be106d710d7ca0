//! How much of an interface its guest may have, sent and received together.

use crate::plan::{NetLimits, Rate};
use crate::virtio::bucket::Bucket;
use std::time::Duration;

/// The buckets of an interface.
pub(super) struct Throttle {
    packets: Option<Bucket>,
    bandwidth: Option<Bucket>,
}

impl Throttle {
    /// Full buckets.
    pub fn new(limits: NetLimits) -> Self {
        let bucket = |rate: Rate| Bucket::new(rate.per_second, rate.burst);
        Self { packets: limits.pps.map(bucket), bandwidth: limits.bandwidth.map(bucket) }
    }

    /// How long until a packet may pass; `None`: one may now.
    pub fn wait(&self) -> Option<Duration> {
        let wait = |bucket: &Option<Bucket>| bucket.as_ref().and_then(Bucket::wait);
        wait(&self.packets).max(wait(&self.bandwidth))
    }

    /// Counts a packet of so many bytes, which nobody knows before it has come: what it takes too
    /// much the next wait for.
    pub fn charge(&mut self, bytes: usize) {
        if let Some(bucket) = &mut self.packets {
            bucket.charge(1);
        }
        if let Some(bucket) = &mut self.bandwidth {
            bucket.charge(bytes as u64);
        }
    }
}
