//! What a shell offers where an argument is an object: what is in the store now. A shell asks by
//! starting this program, which makes nothing and says nothing but that.

use crate::context::{Audience, Context, Meter};
use crate::record::Record;
use crate::record::instance::State;
use crate::service::Service;
use crate::service::images::DescribeImages;
use crate::service::instances::{self, DescribeInstances};
use crate::service::launch::TYPES;
use crate::service::snapshots::{self, DescribeSnapshots};
use crate::service::volumes::{self, DescribeVolumes};
use crate::service::{images, kernels};
use crate::sys::process;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

/// Nobody hears what goes wrong behind a TAB key.
struct Nobody;

impl Audience for Nobody {
    fn warn(&self, _line: &str) {}
    fn note(&self, _line: &str) {}
    fn meter(&self, _size: Option<u64>) -> Box<dyn Meter> {
        Box::new(Self)
    }
}

impl Meter for Nobody {
    fn at(&self, _bytes: u64) {}
}

/// What can be typed, and what it is.
type Offers = Vec<(String, String)>;

/// Instances, by name, by name and index, and by id.
pub fn instance() -> ArgValueCompleter {
    completer(|service| {
        let records = service.describe_instances(&DescribeInstances::default()).ok()?;
        let live = records.iter().filter(|r| r.instance.state != State::Terminated);
        let live: Vec<_> = live.map(|record| &record.instance).collect();
        let mut named: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for instance in &live {
            if let Some(name) = instance.name() {
                named.entry(name).or_default().push(instance.ami_launch_index);
            }
        }
        let mut offers = Offers::new();
        for (name, indices) in named {
            match indices.as_slice() {
                [_] => offers.push((name.to_owned(), "instance".to_owned())),
                many => {
                    offers.push((name.to_owned(), format!("{} instances", many.len())));
                    let one = |index: &u32| (format!("{name}-{index}"), "one of them".to_owned());
                    offers.extend(many.iter().map(one));
                }
            }
        }
        offers.extend(live.iter().map(|instance| {
            let what = [instance.name().unwrap_or_default(), instance.state.name()].join(" ");
            (instance.instance_id.to_string(), what.trim().to_owned())
        }));
        Some(offers)
    })
}

/// Images, by name and by id.
pub fn image() -> ArgValueCompleter {
    completer(|service| {
        let images = service.describe_images(&DescribeImages::default()).ok()?;
        let names = images.iter().map(|d| (d.image.name.clone(), d.image.image_id.to_string()));
        let ids = images.iter().map(|d| (d.image.image_id.to_string(), d.image.name.clone()));
        Some(names.chain(ids).collect())
    })
}

/// Images, and what is published and can be pulled.
pub fn launchable() -> ArgValueCompleter {
    completer(|service| {
        let images = service.describe_images(&DescribeImages::default()).ok()?;
        let names = images.iter().map(|d| (d.image.name.clone(), d.image.image_id.to_string()));
        let ids = images.iter().map(|d| (d.image.image_id.to_string(), d.image.name.clone()));
        Some(names.chain(ids).chain(references(service)).collect())
    })
}

/// What is published and can be pulled.
pub fn published() -> ArgValueCompleter {
    completer(|service| Some(references(service)))
}

fn references(service: &Service) -> Offers {
    let published = service.describe_quick_start().unwrap_or_default();
    published.into_iter().map(|one| (one.reference, one.title)).collect()
}

/// Volumes, by name and by id.
pub fn volume() -> ArgValueCompleter {
    completer(|service| {
        let volumes = service.describe_volumes(&DescribeVolumes::default()).ok()?;
        Some(volumes.iter().flat_map(|described| offers(&described.volume)).collect())
    })
}

/// Snapshots, by name and by id.
pub fn snapshot() -> ArgValueCompleter {
    completer(|service| {
        let snapshots = service.describe_snapshots(&DescribeSnapshots::default()).ok()?;
        Some(snapshots.iter().flat_map(|described| offers(&described.snapshot)).collect())
    })
}

/// Kernels, by name and by id.
pub fn kernel() -> ArgValueCompleter {
    completer(|service| {
        let kernels = service.describe_kernels(&[], &[]).ok()?;
        Some(kernels.iter().flat_map(offers).collect())
    })
}

/// Initial ramdisks, by name and by id.
pub fn ramdisk() -> ArgValueCompleter {
    completer(|service| {
        let ramdisks = service.describe_ramdisks(&[], &[]).ok()?;
        Some(ramdisks.iter().flat_map(offers).collect())
    })
}

/// Instance types.
pub fn instance_type() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let offer = |preset: &crate::service::launch::InstanceType| {
            let what = format!("{} CPUs, {} MiB", preset.cpus, preset.memory_mib);
            (preset.name.to_owned(), what)
        };
        candidates(current, TYPES.iter().map(offer).collect())
    })
}

/// Names of filters, of all kinds of objects.
pub fn filter() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let all = [
            instances::filter_names(),
            images::filter_names(),
            volumes::filter_names(),
            snapshots::filter_names(),
            kernels::filter_names(),
        ];
        let mut names: Vec<&str> = all.into_iter().flatten().chain(["tag:", "tag-key"]).collect();
        names.sort_unstable();
        names.dedup();
        let offer = |name: &&str| match name.ends_with(':') {
            true => ((*name).to_owned(), "KEY=VALUE".to_owned()),
            false => (format!("{name}="), String::new()),
        };
        candidates(current, names.iter().map(offer).collect())
    })
}

fn offers<R: Record>(record: &R) -> Offers {
    let (id, name) = (record.id().as_ref().to_owned(), record.name().map(str::to_owned));
    let named = name.clone().map(|name| (name, id.clone()));
    named.into_iter().chain([(id, name.unwrap_or_default())]).collect()
}

fn completer(
    offer: impl Fn(&Service) -> Option<Offers> + Send + Sync + 'static,
) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let context = Context::new(process::user(), Arc::new(Nobody)).reading();
        let service = Service::open(&context).ok();
        let offers = service.and_then(|service| offer(&service));
        candidates(current, offers.unwrap_or_default())
    })
}

/// Of the offers those that go on from what is typed. A name that is no word of a shell's is not
/// among them.
fn candidates(current: &OsStr, offers: Offers) -> Vec<CompletionCandidate> {
    let Some(typed) = current.to_str() else { return Vec::new() };
    let plain = |text: &str| text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    let fits = offers.into_iter().filter(|(value, _)| value.starts_with(typed) && plain(value));
    let candidate = |(value, what): (String, String)| {
        let what: String = what.chars().filter(|c| !c.is_control()).collect();
        CompletionCandidate::new(value).help((!what.is_empty()).then(|| what.into()))
    };
    fits.map(candidate).collect()
}
