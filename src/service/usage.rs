//! What was used, added up from the journal.
//!
//! Time is measured by the clock that runs from the host's boot wherever both ends of an interval
//! lie in one boot: no jump of the wall clock counts. Across a reboot the wall clock has to do, and
//! an interval that it makes negative is empty. What the journal does not say is not counted: an
//! object that is gone without a word had no end.

use crate::error::Result;
use crate::image::attribute::parse_rate;
use crate::instance::dir::instances;
use crate::store::journal::{Entry, Event};
use crate::store::time::{boot_id, boot_ms};
use crate::store::{Store, now, time};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What one account used of one image under one rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Who.
    pub account_id: String,
    /// Of which image; `None` for volumes and snapshots that belong to none.
    pub image_id: Option<String>,
    /// The image's product codes when it was launched.
    pub product_codes: Vec<String>,
    /// The image's rate when it was launched.
    pub hourly_rate: Option<String>,
    /// Milliseconds that instances ran.
    pub instance_ms: u64,
    /// GiB-milliseconds that volumes existed, by their size.
    pub volume_gib_ms: u128,
    /// Byte-milliseconds that snapshots existed, by what they take on the medium.
    pub snapshot_byte_ms: u128,
}

/// Milliseconds of an hour.
const HOUR: f64 = 3_600_000.0;

impl Usage {
    /// Seconds that instances ran.
    pub fn instance_seconds(&self) -> f64 {
        self.instance_ms as f64 / 1000.0
    }

    /// GiB-hours of volumes.
    pub fn volume_gib_hours(&self) -> f64 {
        self.volume_gib_ms as f64 / HOUR
    }

    /// GiB-hours of snapshots.
    pub fn snapshot_gib_hours(&self) -> f64 {
        self.snapshot_byte_ms as f64 / (1u64 << 30) as f64 / HOUR
    }

    /// Instance-hours times the rate, with 6 decimals, rounded down.
    pub fn charge(&self) -> Option<String> {
        let rate = u128::from(parse_rate(self.hourly_rate.as_deref()?)?);
        let millionths = u128::from(self.instance_ms) * rate / 3_600_000;
        Some(format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000))
    }
}

/// A moment, by both clocks.
#[derive(Clone, Debug)]
struct Moment {
    /// Milliseconds since the epoch.
    wall: u64,
    boot_ms: u64,
    boot_id: String,
}

impl Moment {
    fn now() -> Self {
        Self { wall: millis(&now()), boot_ms: boot_ms(), boot_id: boot_id() }
    }

    fn of(entry: &Entry) -> Self {
        Self {
            wall: millis(&entry.event_time),
            boot_ms: entry.boot_ms,
            boot_id: entry.boot_id.clone(),
        }
    }

    /// Milliseconds from `self` to `end`; never negative.
    fn until(&self, end: &Self) -> u64 {
        if !self.boot_id.is_empty() && self.boot_id == end.boot_id {
            end.boot_ms.saturating_sub(self.boot_ms)
        } else {
            end.wall.saturating_sub(self.wall)
        }
    }
}

fn millis(text: &str) -> u64 {
    time::parse(text).and_then(|t| u64::try_from(t.as_millis()).ok()).unwrap_or(0)
}

/// What an interval that is not over is about.
#[derive(Clone, Debug)]
struct Open {
    since: Moment,
    record: Value,
}

/// The usage that all journals which this user may read tell of, until now.
///
/// # Errors
/// A journal or the store can't be read.
pub fn report(store: &Store) -> Result<Vec<Usage>> {
    // Whoever's VMM has ended is told of by that.
    super::instances::all(store)?;
    let entries = store.entries()?;
    let mut alive: HashSet<String> = HashSet::new();
    for record in instances(store).list()?.or_warn() {
        let active = record.instance.state.is_active();
        alive.extend(active.then(|| record.instance.instance_id.to_string()));
    }
    alive.extend(store.volumes().ids()?.iter().map(ToString::to_string));
    alive.extend(store.snapshots().ids()?.iter().map(ToString::to_string));
    Ok(Meter::new(&entries).add_up(&entries, &alive, &Moment::now()))
}

/// An account and the id of an object: an account's journal says nothing of another's objects,
/// whatever is in it.
type Object<'a> = (&'a str, &'a str);

fn object(entry: &Entry) -> Object<'_> {
    (&entry.account_id, &entry.id)
}

/// The sum in the making.
struct Meter<'a> {
    /// The image that first had each snapshot.
    image_of_snapshot: HashMap<&'a str, &'a str>,
    /// The image of each instance.
    image_of_instance: HashMap<Object<'a>, &'a str>,
    open: HashMap<Object<'a>, (&'a Entry, Open)>,
    rows: BTreeMap<(String, String, String, String), Usage>,
}

impl<'a> Meter<'a> {
    fn new(entries: &'a [Entry]) -> Self {
        let (mut image_of_snapshot, mut image_of_instance) = (HashMap::new(), HashMap::new());
        for entry in entries {
            for id in entry.record["Snapshots"].as_array().into_iter().flatten() {
                image_of_snapshot.entry(id.as_str().unwrap_or_default()).or_insert(&*entry.id);
            }
            if let ("instance", Some(image)) = (&*entry.kind, entry.record["ImageId"].as_str()) {
                image_of_instance.insert(object(entry), image);
            }
        }
        Self { image_of_snapshot, image_of_instance, open: HashMap::new(), rows: BTreeMap::new() }
    }

    fn add_up(mut self, entries: &'a [Entry], alive: &HashSet<String>, now: &Moment) -> Vec<Usage> {
        for entry in entries {
            match &*entry.kind {
                "instance" => self.instance(entry),
                "volume" | "snapshot" => {
                    self.close(object(entry), &Moment::of(entry), 0);
                    if entry.event != Event::Removed {
                        self.begin(entry);
                    }
                }
                _ => {}
            }
        }
        let lives = |(_, id): &Object<'_>| alive.contains(*id);
        let open: Vec<Object<'a>> = self.open.keys().copied().filter(lives).collect();
        for object in open {
            self.close(object, now, 0);
        }
        self.rows.into_values().collect()
    }

    fn begin(&mut self, entry: &'a Entry) {
        let open = Open { since: Moment::of(entry), record: entry.record.clone() };
        self.open.insert(object(entry), (entry, open));
    }

    fn instance(&mut self, entry: &'a Entry) {
        let state = entry.record["State"].as_str().unwrap_or_default();
        let over = entry.event == Event::Removed || matches!(state, "stopped" | "terminated");
        if over {
            // It ended before somebody noticed, by the wall clock at both ends.
            let ended = entry.record["EndedAt"].as_u64();
            let late = ended.map_or(0, |at| millis(&entry.event_time).saturating_sub(at));
            self.close(object(entry), &Moment::of(entry), late);
        } else if !self.open.contains_key(&object(entry)) {
            self.begin(entry);
        }
    }

    /// Count what was open until `end`, less what of it came after the true end.
    fn close(&mut self, object: Object<'a>, end: &Moment, late: u64) {
        let Some((entry, open)) = self.open.remove(&object) else { return };
        let elapsed = open.since.until(end);
        let elapsed = elapsed - late.min(elapsed);
        let usage = self.row(entry, &open.record);
        match &*entry.kind {
            "instance" => usage.instance_ms += elapsed,
            "volume" => {
                let gib = u128::from(open.record["Size"].as_u64().unwrap_or(0));
                usage.volume_gib_ms += gib * u128::from(elapsed);
            }
            _ => {
                let bytes = u128::from(open.record["StoredBytes"].as_u64().unwrap_or(0));
                usage.snapshot_byte_ms += bytes * u128::from(elapsed);
            }
        }
    }

    fn row(&mut self, entry: &Entry, record: &Value) -> &mut Usage {
        let snapshot = |id: Option<&str>| id.and_then(|id| self.image_of_snapshot.get(id));
        let image = match &*entry.kind {
            "instance" => record["ImageId"].as_str(),
            "volume" => record["InstanceId"]
                .as_str()
                .and_then(|id| self.image_of_instance.get(&(&*entry.account_id, id)))
                .or_else(|| snapshot(record["SnapshotId"].as_str()))
                .copied(),
            _ => snapshot(Some(&entry.id)).copied(),
        };
        let codes = record["ProductCodes"].as_array().into_iter().flatten();
        let codes = codes.filter_map(|code| code["ProductCodeId"].as_str().map(str::to_owned));
        let usage = Usage {
            account_id: entry.account_id.clone(),
            image_id: image.map(str::to_owned),
            product_codes: codes.collect(),
            hourly_rate: record["HourlyRate"].as_str().map(str::to_owned),
            ..Usage::default()
        };
        let key = (
            usage.account_id.clone(),
            usage.image_id.clone().unwrap_or_default(),
            usage.product_codes.join(","),
            usage.hourly_rate.clone().unwrap_or_default(),
        );
        self.rows.entry(key).or_insert(usage)
    }
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
