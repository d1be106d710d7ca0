//! What running instances use of the host, in CloudWatch's words.

use super::Service;
use crate::control::Status;
use crate::error::{OrFail, Result};
use crate::id::InstanceId;
use crate::instance::client;
use crate::instance::dir::InstanceDir;
use crate::record::instance::{InstanceRecord, State};
use crate::sys::usage;
use std::time::{Duration, Instant};

/// What one running instance has used since its VMM began. (Amazon CloudWatch, "Instance metrics")
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Which.
    pub instance_id: InstanceId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// When this was so.
    pub at: Instant,
    /// Since when it counts.
    pub uptime: Duration,
    /// Processor time of the host, the guest's and the devices'.
    pub processor: Duration,
    /// Bytes of the host's memory that are the instance's: what clones share counts in equal parts.
    pub memory: u64,
    /// vCPUs that the guest has.
    pub cpus: u8,
    /// Bytes of memory that the guest has.
    pub guest_memory: u64,
    /// DiskReadBytes.
    pub disk_read: u64,
    /// DiskWriteBytes.
    pub disk_write: u64,
    /// NetworkIn, in bytes.
    pub network_in: u64,
    /// NetworkOut, in bytes.
    pub network_out: u64,
}

impl Statistics {
    /// Percent of one CPU that it used since `before`, or since it began.
    pub fn processor_percent(&self, before: Option<&Self>) -> f64 {
        let same = before.filter(|before| before.uptime <= self.uptime);
        let (used, within) = match same {
            Some(before) => (self.processor.saturating_sub(before.processor), self.at - before.at),
            None => (self.processor, self.uptime),
        };
        100.0 * used.as_secs_f64() / within.as_secs_f64().max(0.001)
    }
}

impl Service {
    /// What the running ones of these use. One that ends meanwhile is left out.
    ///
    /// # Errors
    /// A VMM is another account's.
    pub fn instance_statistics(&self, records: &[InstanceRecord]) -> Result<Vec<Statistics>> {
        let running = |record: &&InstanceRecord| record.instance.state == State::Running;
        let mut all = Vec::new();
        for record in records.iter().filter(running) {
            let dir = InstanceDir::new(&self.store, &record.instance.instance_id);
            // Its process number comes from the one who listens at the socket in its directory.
            let Ok(status) = client::status(&dir) else { continue };
            match usage::of(status.pid) {
                Ok(used) => all.push(statistics(record, &status, used)),
                // It ended between the two.
                Err(_) if !dir.vmm_alive()? => {}
                used => drop(used.or_fail(|| format!("see what {} uses", dir.id()))?),
            }
        }
        Ok(all)
    }
}

fn statistics(record: &InstanceRecord, status: &Status, used: usage::Usage) -> Statistics {
    let (disks, interfaces) = (&status.disks, &status.interfaces);
    Statistics {
        instance_id: record.instance.instance_id.clone(),
        name: record.instance.name().map(str::to_owned),
        at: Instant::now(),
        uptime: Duration::from_millis(status.uptime_ms),
        processor: used.processor,
        memory: used.memory,
        cpus: record.instance.cpu_options.core_count,
        guest_memory: record.instance.spore.memory,
        disk_read: disks.values().map(|disk| disk.read_bytes).sum(),
        disk_write: disks.values().map(|disk| disk.write_bytes).sum(),
        network_in: interfaces.values().map(|one| one.received_bytes).sum(),
        network_out: interfaces.values().map(|one| one.sent_bytes).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_of_the_time_between_two_looks() {
        let at = Instant::now();
        let look = |uptime: u64, used: u64| Statistics {
            instance_id: "i-00000000000000001".parse().unwrap(),
            name: None,
            at: at + Duration::from_secs(uptime),
            uptime: Duration::from_secs(uptime),
            processor: Duration::from_secs(used),
            memory: 0,
            cpus: 1,
            guest_memory: 0,
            disk_read: 0,
            disk_write: 0,
            network_in: 0,
            network_out: 0,
        };
        let percent = |now: Statistics, before: Option<Statistics>| {
            now.processor_percent(before.as_ref()).round() as i64
        };
        assert_eq!(percent(look(10, 1), None), 10);
        assert_eq!(percent(look(12, 4), Some(look(10, 1))), 150);
        // It was stopped and started between the two.
        assert_eq!(percent(look(4, 1), Some(look(10, 1))), 25);
    }
}
