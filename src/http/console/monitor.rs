//! What instances use over time, drawn. The samples are the service's and in memory: they are taken
//! as long as browsers come, and tell nothing that an answer depends on.

use crate::error::Result;
use crate::http::front::{Front, blocking};
use crate::service::instances::DescribeInstances;
use crate::service::statistics::Statistics;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often a sample is taken.
const PERIOD: Duration = Duration::from_secs(5);
/// Most samples of an instance: an hour's.
const MAX_SAMPLES: usize = 720;
/// Most instances of which samples are taken.
const MAX_INSTANCES: usize = 128;
/// How long samples are taken after a browser was here last; then they are forgotten.
const WANTED: Duration = Duration::from_secs(3600);
/// Width and height of a drawing, in its own units.
const SIZE: (f64, f64) = (600.0, 100.0);

/// What an instance used from one look to the next.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    /// Percent of all its vCPUs.
    processor: f64,
    /// Bytes a second: disk read, disk written, network in, network out.
    rates: [f64; 4],
}

#[derive(Default)]
struct Inner {
    /// When a browser was here last.
    wanted: Option<Instant>,
    rings: BTreeMap<String, (Statistics, VecDeque<Sample>)>,
}

/// The samples.
#[derive(Default)]
pub struct Monitor(Mutex<Inner>);

/// One drawing.
pub struct Chart {
    /// What of.
    pub title: &'static str,
    /// The value at its top.
    pub top: String,
    /// Name, the path's data, and the last value.
    pub lines: Vec<(&'static str, String, String)>,
}

/// The drawings of an instance.
pub struct Charts {
    /// One a measure; none where there are no samples yet.
    pub charts: Vec<Chart>,
    /// How far back they go, in minutes.
    pub minutes: u64,
}

impl Monitor {
    /// Notes that a browser is here.
    pub fn want(&self) {
        self.inner().wanted = Some(Instant::now());
    }

    /// Nothing panics while it holds it.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes samples as long as the service runs.
    pub async fn run(self: Arc<Self>, front: Arc<Front>) {
        loop {
            sleep(PERIOD).await;
            let wanted = {
                let mut inner = self.inner();
                let wanted = inner.wanted.is_some_and(|at| at.elapsed() < WANTED);
                if !wanted {
                    *inner = Inner::default();
                }
                wanted
            };
            if wanted {
                let front = front.clone();
                if let Ok(all) = blocking(move || look(&front)).await {
                    self.inner().add(all);
                }
            }
        }
    }

    /// What an instance has used, drawn.
    pub fn charts(&self, id: &str) -> Charts {
        let inner = self.inner();
        let Some((_, samples)) = inner.rings.get(id).filter(|(_, ring)| ring.len() > 1) else {
            return Charts { charts: Vec::new(), minutes: 0 };
        };
        let rate = |n: usize| move |sample: &Sample| sample.rates[n];
        let (first, last) = (samples[0].at, samples[samples.len() - 1].at);
        let charts = vec![
            chart("CPU", samples, &[("of all vCPUs", &|s| s.processor)], |top| {
                format!("{top:.0}%")
            }),
            chart("Disk", samples, &[("read", &rate(0)), ("written", &rate(1))], per_second),
            chart("Network", samples, &[("in", &rate(2)), ("out", &rate(3))], per_second),
        ];
        Charts { charts, minutes: (last - first).as_secs().div_ceil(60) }
    }
}

fn per_second(rate: f64) -> String {
    format!("{}/s", bytes(rate as u64))
}

fn look(front: &Front) -> Result<Vec<Statistics>> {
    let service = front.open("")?;
    let mut records = service.describe_instances(&DescribeInstances::default())?;
    records.retain(|record| record.instance.state.is_active());
    records.truncate(MAX_INSTANCES);
    service.instance_statistics(&records)
}

impl Inner {
    fn add(&mut self, all: Vec<Statistics>) {
        self.rings.retain(|id, _| all.iter().any(|one| one.instance_id.as_str() == id));
        for now in all {
            let id = now.instance_id.to_string();
            let Some((before, ring)) = self.rings.get_mut(&id) else {
                self.rings.insert(id, (now, VecDeque::new()));
                continue;
            };
            // One that was stopped and started counts from nothing again.
            if now.uptime >= before.uptime {
                if ring.len() == MAX_SAMPLES {
                    ring.pop_front();
                }
                ring.push_back(between(before, &now));
            }
            *before = now;
        }
    }
}

fn between(before: &Statistics, now: &Statistics) -> Sample {
    let seconds = (now.at - before.at).as_secs_f64().max(0.001);
    let rate = |of: fn(&Statistics) -> u64| of(now).saturating_sub(of(before)) as f64 / seconds;
    Sample {
        at: now.at,
        processor: now.processor_percent(Some(before)) / f64::from(now.cpus.max(1)),
        rates: [
            rate(|of| of.disk_read),
            rate(|of| of.disk_write),
            rate(|of| of.network_in),
            rate(|of| of.network_out),
        ],
    }
}

/// A line's name, and its value in a sample.
type Line<'a> = (&'static str, &'a dyn Fn(&Sample) -> f64);

fn chart(
    title: &'static str,
    samples: &VecDeque<Sample>,
    lines: &[Line<'_>],
    shown: impl Fn(f64) -> String,
) -> Chart {
    let values = lines.iter().flat_map(|(_, of)| samples.iter().map(of));
    let top = values.fold(1.0, f64::max);
    let top = if title == "CPU" { 100.0 } else { top };
    let first = samples.front().map(|sample| sample.at);
    let since = |sample: &Sample| first.map_or(0.0, |first| (sample.at - first).as_secs_f64());
    let all = samples.back().map_or(0.0, since).max(0.001);
    let line = |(name, of): &Line<'_>| {
        let mut path = String::new();
        for sample in samples {
            let x = since(sample) / all * SIZE.0;
            let y = SIZE.1 - (of(sample) / top).min(1.0) * SIZE.1;
            let word = if path.is_empty() { 'M' } else { 'L' };
            path.push_str(&format!("{word}{x:.1} {y:.1}"));
        }
        (*name, path, shown(samples.back().map_or(0.0, of)))
    };
    Chart { title, top: shown(top), lines: lines.iter().map(line).collect() }
}

/// A number of bytes as a person reads it.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(at: Instant, seconds: u64, processor: u64, disk_read: u64) -> Statistics {
        Statistics {
            instance_id: "i-00000000000000001".parse().unwrap(),
            name: None,
            at: at + Duration::from_secs(seconds),
            uptime: Duration::from_secs(seconds),
            processor: Duration::from_secs(processor),
            memory: 0,
            cpus: 2,
            guest_memory: 0,
            disk_read,
            disk_write: 0,
            network_in: 0,
            network_out: 0,
        }
    }

    #[test]
    fn what_is_drawn_is_the_difference_of_two_looks() {
        let (monitor, at) = (Monitor::default(), Instant::now());
        for n in 0..4u64 {
            monitor.inner().add(vec![statistics(at, 10 * n, 10 * n, 10_240 * n)]);
        }
        let drawn = monitor.charts("i-00000000000000001");
        let [cpu, disk, _] = &drawn.charts[..] else { panic!("three charts") };
        assert_eq!((cpu.lines[0].2.as_str(), disk.lines[0].2.as_str()), ("50%", "1.0 KiB/s"));
        assert_eq!(cpu.lines[0].1, "M0.0 50.0L300.0 50.0L600.0 50.0");
        // It has ended.
        monitor.inner().add(Vec::new());
        assert!(monitor.charts("i-00000000000000001").charts.is_empty());
    }

    #[test]
    fn a_ring_has_a_bound() {
        let (monitor, at) = (Monitor::default(), Instant::now());
        (0..2 * MAX_SAMPLES as u64)
            .for_each(|n| monitor.inner().add(vec![statistics(at, n, n, n)]));
        assert_eq!(monitor.inner().rings["i-00000000000000001"].1.len(), MAX_SAMPLES);
    }

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
