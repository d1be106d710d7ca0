//! Random commands of two accounts on one shared store, compared with a model in memory: what each
//! does or with which of EC2's codes it is refused, and after each one all states and all bytes.
//!
//! `SEED=N` takes another sequence, `STEPS=N` more or fewer steps, `KILLS=N` more or fewer steps of
//! which some are killed. Needs root, because the accounts are two Unix users, and /dev/kvm,
//! because the guests are real. With CI=true both have to be there.

#[path = "../common/mod.rs"]
mod common;
mod disks;
mod images;
mod left;
mod machines;
mod step;
mod users;
mod world;

use sporevm::record::image::ImageState;
use sporevm::record::instance::State;
use sporevm::record::snapshot::SnapshotState;
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use step::{Draw, Effect, Expect, Rng, Seen, Step};
use users::{Outcome, Region, USERS};
use world::{Eyes, World};

/// Steps in one store: a new one is begun before what is terminated and deregistered outweighs the
/// rest.
const STEPS_OF_A_STORE: usize = 250;
/// After so many steps everything is read again, whatever its file's times say.
const READ_ALL: usize = 50;

type Kind = (&'static str, usize, fn(&mut Draw) -> Option<Step>);

/// Each kind of step, and how often it is drawn.
const KINDS: &[Kind] = &[
    ("image import", 3, |draw| draw.import_image()),
    ("image register", 3, |draw| draw.register_image()),
    ("image create", 4, |draw| draw.create_image()),
    ("image copy", 3, |draw| draw.copy_image()),
    ("image modify", 3, |draw| draw.modify_image()),
    ("image share", 6, |draw| draw.share_image()),
    ("image deprecate", 2, |draw| draw.deprecate_image()),
    ("image deregister", 3, |draw| draw.deregister_image()),
    ("image show", 2, |draw| draw.show_image()),
    ("image ls", 3, |draw| draw.list_images()),
    ("product accept", 1, |draw| draw.accept_product()),
    ("product cancel", 1, |draw| draw.cancel_product()),
    ("usage", 1, |draw| draw.report_usage()),
    ("snapshot import", 1, |draw| draw.import_snapshot()),
    ("snapshot create", 6, |draw| draw.create_snapshot()),
    ("snapshot create of an instance", 2, |draw| draw.create_snapshots()),
    ("snapshot copy", 3, |draw| draw.copy_snapshot()),
    ("snapshot delete", 7, |draw| draw.delete_snapshot()),
    ("snapshot verify", 2, |draw| draw.verify_snapshot()),
    ("volume create", 5, |draw| draw.create_volume()),
    ("volume attach", 7, |draw| draw.attach_volume()),
    ("volume detach", 4, |draw| draw.detach_volume()),
    ("volume resize", 3, |draw| draw.resize_volume()),
    ("volume delete", 4, |draw| draw.delete_volume()),
    ("write", 10, |draw| draw.write_volume()),
    ("tag", 4, |draw| draw.tag()),
    ("untag", 2, |draw| draw.untag()),
    ("run", 6, |draw| draw.run_instance()),
    ("stop", 10, |draw| draw.stop_instance()),
    ("start", 3, |draw| draw.start_instance()),
    ("reboot", 1, |draw| draw.reset_instance()),
    ("terminate", 3, |draw| draw.terminate_instance()),
    ("modify", 5, |draw| draw.modify_instance()),
    ("ls", 2, |draw| draw.list_instances()),
];

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A store, and what the model says of it.
struct Run {
    region: Region,
    eyes: Eyes,
    world: World,
    rng: Rng,
    born: HashMap<String, usize>,
    /// What was done so far, to be told if it comes to that.
    log: Vec<String>,
    /// How often each kind was done, and was refused.
    counts: BTreeMap<&'static str, (usize, usize)>,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.log.len().saturating_sub(40);
            eprintln!("the last steps were:\n{}", self.log[from..].join("\n"));
        }
    }
}

impl Run {
    fn new(seed: usize) -> Self {
        let region = Region::new();
        let mut eyes = Eyes::default();
        let world = eyes.look(&region.store, &USERS);
        let rng = Rng::new(seed as u64 + 1);
        let (born, counts) = (HashMap::new(), BTreeMap::new());
        let mut run = Self { region, eyes, world, rng, born, log: Vec::new(), counts };
        run.christen();
        run
    }

    /// Number what is new, in an order that is the same for the same seed.
    fn christen(&mut self) {
        let world = &self.world;
        let instances = world.instances.keys().map(|id| (0, String::new(), id));
        let device =
            |v: &world::Volume| v.attachment.as_ref().map_or(String::new(), |a| a.device.clone());
        let volumes = world.volumes.iter().map(|(id, v)| (1, device(v), id));
        let images = world.images.keys().map(|id| (2, String::new(), id));
        let mapped = |id: &String| {
            let devices = world.images.values().flat_map(|i| &i.devices);
            let mut names = devices.filter(|d| d.snapshot.as_ref() == Some(id));
            names.next().map_or(String::new(), |d| d.name.clone())
        };
        let of = |s: &world::Snapshot| {
            s.volume.as_ref().map_or(0, |id| self.born.get(id).map_or(0, |n| *n))
        };
        let snapshots =
            world.snapshots.iter().map(|(id, s)| (3, format!("{} {:09}", mapped(id), of(s)), id));
        let all = instances.chain(volumes).chain(images).chain(snapshots);
        let mut new: Vec<_> = all.filter(|(_, _, id)| !self.born.contains_key(*id)).collect();
        new.sort();
        let new: Vec<String> = new.into_iter().map(|(_, _, id)| id.clone()).collect();
        for id in new {
            let number = self.born.len();
            self.born.insert(id, number);
        }
    }

    fn draw(&mut self) -> (&'static str, Step) {
        let total: usize = KINDS.iter().map(|kind| kind.1).sum();
        loop {
            let mut at = self.rng.below(total);
            let kind = KINDS.iter().find(|kind| {
                let found = at < kind.1;
                at = at.saturating_sub(kind.1);
                found
            });
            let (name, _, make) = kind.expect("a kind");
            let user = USERS[self.rng.below(2)];
            let (world, region, born) = (&self.world, &self.region, &self.born);
            let mut draw = Draw { world, region, rng: &mut self.rng, user, born };
            if let Some(step) = make(&mut draw) {
                return (name, step);
            }
        }
    }

    fn look(&mut self) -> World {
        self.eyes.look(&self.region.store, &USERS)
    }

    /// Do a step, and compare.
    fn step(&mut self) {
        let (name, step) = self.draw();
        self.log.push(format!("{}: {}", step.user, step.args.join(" ")));
        let outcome = match &step.write {
            Some((id, offset, bytes)) => {
                self.region.write(id, *offset, bytes);
                Outcome::Done(String::new())
            }
            None => self.region.spore(step.user, &step.args, None),
        };
        self.settle(name, step, outcome);
    }

    fn settle(&mut self, name: &'static str, step: Step, outcome: Outcome) {
        if self.log.len().is_multiple_of(READ_ALL) {
            self.eyes.forget();
        }
        let now = self.look();
        let counts = self.counts.entry(name).or_default();
        let words = step.args.join(" ");
        match (step.expect, &outcome) {
            (Expect::Done(effect), Outcome::Done(out)) => {
                counts.0 += 1;
                effect(&mut self.world, &Seen { out, now: &now });
            }
            (Expect::Refused(codes), Outcome::Refused(code, said)) => {
                counts.1 += 1;
                assert!(codes.contains(&code.as_str()), "{words}: not {codes:?} but {said}");
            }
            (Expect::Refused(codes), _) => panic!("{words}: {outcome:?} instead of {codes:?}"),
            (Expect::Done(_), _) => panic!("{words}: {outcome:?}"),
        }
        self.compare(&words, &now);
        self.world = now;
        self.christen();
    }

    fn compare(&self, words: &str, now: &World) {
        let differences = self.world.differences(now);
        assert!(differences.is_empty(), "after {words}:\n{}", differences.join("\n"));
        assert_eq!(self.region.debris(), [""; 0].map(std::path::PathBuf::from), "{words}");
    }

    /// Kill a command, look at what is left, and do it again. False if nothing was killed.
    fn kill(&mut self) -> bool {
        let changes = |(_, step): &(&str, Step)| {
            let nothing = step.touches.is_empty() && !step.creates();
            !nothing && step.write.is_none() && matches!(step.expect, Expect::Done(_))
        };
        let Some((name, mut step)) = (0..20).map(|_| self.draw()).find(changes) else {
            return false;
        };
        // Few commands have more points than this.
        let fault = 1 + self.rng.below(16) as u64;
        self.log.push(format!("{}: SPORE_FAULT={fault} {}", step.user, step.args.join(" ")));
        let outcome = self.region.spore(step.user, &step.args, Some(fault));
        let Outcome::Killed(said) = &outcome else {
            self.settle(name, step, outcome);
            return false;
        };
        self.log.push(format!("  {}", said.trim()));
        // The next commands find what is left and bring it up to date: each that lists objects of a
        // kind, the user's own.
        let lists =
            [&["ls"][..], &["usage"], &["image", "ls"], &["volume", "ls"], &["snapshot", "ls"]];
        for words in lists {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            let next = self.region.spore(step.user, &words, None);
            assert!(matches!(next, Outcome::Done(_)), "{next:?}");
        }
        // A guest that was to be asked to stop, and had not been, is asked by now.
        for (id, _) in self.look().instances.iter().filter(|(_, i)| i.state == State::Stopping) {
            let words = ["wait", "--for", "stopped", "--timeout", "60s", id].map(str::to_owned);
            let stopped = self.region.spore(step.user, &words, None);
            assert!(matches!(stopped, Outcome::Done(_)), "{stopped:?}");
        }
        let now = self.look();
        let Expect::Done(effect) = std::mem::replace(&mut step.expect, Expect::Refused(vec![]))
        else {
            unreachable!("it was not refused")
        };
        self.judge(&step, &effect, &now);
        assert_eq!(self.region.debris(), [""; 0].map(std::path::PathBuf::from));
        left::no_lonely_snapshot(name, &self.world, &now);
        left::nothing_half_written(&self.region.store);
        self.world = now;
        self.christen();
        if matches!(name, "image share" | "image copy") {
            // Half of a permission is given; a copy is gone on with.
            let (log, user) = (step.args.join(" "), step.user);
            self.log.push(format!("{user}: {log}, again"));
            let again = self.region.spore(user, &step.args, None);
            self.resume(name, &step, again);
        }
        true
    }

    /// A command that was killed is run again to its end.
    fn resume(&mut self, name: &str, step: &Step, outcome: Outcome) {
        let now = self.look();
        match &outcome {
            Outcome::Done(id) if name == "image copy" => {
                assert_eq!(now.images[id].state, ImageState::Available);
                for snapshot in now.images[id].snapshots() {
                    assert_eq!(now.snapshots[snapshot].state, SnapshotState::Completed);
                }
            }
            Outcome::Done(_) => {}
            // It had been done.
            Outcome::Refused(code, _) if code == "InvalidAMIName.Duplicate" => {}
            _ => panic!("{:?} again: {outcome:?}", step.args),
        }
        self.world = now;
        self.christen();
    }

    /// What a killed command may leave: each object as it was or as it was to be, or new and whole,
    /// or new and told to be unfinished; and never another byte in what was there.
    fn judge(&self, step: &Step, effect: &Effect, now: &World) {
        let (before, words) = (&self.world, step.args.join(" "));
        let creates = step.creates();
        let mut after = before.clone();
        if !creates {
            effect(&mut after, &Seen { out: "", now });
        }
        let touched = |id: &String| step.touches.contains(id);
        for (id, old) in &before.snapshots {
            match now.snapshots.get(id) {
                Some(new) if new.content != old.content && old.content.is_some() => {
                    panic!("{words}: the bytes of {id} have changed")
                }
                Some(new) => assert!(new == old || touched(id), "{words}: {id}: {new:?}"),
                None => assert!(touched(id), "{words}: {id} has gone"),
            }
        }
        for (id, old) in &before.volumes {
            match now.volumes.get(id) {
                Some(new) if new != old => {
                    let wanted = after.volumes.get(id).map(|v| v.content.clone());
                    let content = [Some(old.content.clone()), wanted];
                    assert!(touched(id), "{words}: {id}: {new:?}");
                    assert!(content.contains(&Some(new.content.clone())), "{words}: {id}: {new:?}");
                }
                None => assert!(touched(id), "{words}: {id} has gone"),
                Some(_) => {}
            }
        }
        for (id, old) in &before.images {
            let new = &now.images[id];
            let ok = new == old || touched(id) && (creates || Some(new) == after.images.get(id));
            assert!(ok, "{words}: {id}: {old:?} is {new:?}");
        }
        for (id, old) in &before.instances {
            let new = &now.instances[id];
            assert!(new == old || touched(id), "{words}: {id}: {old:?} is {new:?}");
            let settled = matches!(new.state, State::Running | State::Stopped | State::Terminated);
            assert!(settled, "{words}: {id} is {:?}", new.state);
        }
        self.judge_new(&words, creates, now);
    }

    fn judge_new(&self, words: &str, creates: bool, now: &World) {
        let before = &self.world;
        for (id, new) in now.snapshots.iter().filter(|(id, _)| !before.snapshots.contains_key(*id))
        {
            assert!(creates, "{words}: {id} is there");
            assert_ne!(new.state, SnapshotState::Pending, "{words}: {id}");
            let source = new.volume.as_ref().and_then(|id| before.volumes.get(id));
            if let (Some(content), Some(source)) = (&new.content, source) {
                // A copy's source may be older than what its volume has now.
                let of_volume = !words.starts_with("snapshot copy");
                assert!(!of_volume || *content == source.content, "{words}: {id}");
            }
            if new.content.is_some() {
                let record = self.region.store.snapshots().resolve(id).unwrap();
                sporevm::snapshot::verify(&self.region.store, &record).unwrap();
            }
        }
        for (id, new) in now.images.iter().filter(|(id, _)| !before.images.contains_key(*id)) {
            assert!(creates, "{words}: {id} is there");
            assert!(
                matches!(new.state, ImageState::Available | ImageState::Failed),
                "{words}: {id}"
            );
            let whole = |s: &String| {
                now.snapshots.get(s).is_some_and(|s| s.state == SnapshotState::Completed)
            };
            assert!(new.state == ImageState::Failed || new.snapshots().all(whole), "{words}: {id}");
        }
        for (id, new) in now.volumes.iter().filter(|(id, _)| !before.volumes.contains_key(*id)) {
            assert!(creates, "{words}: {id} is there");
            // A launch that was undone leaves none.
            let alone = words.starts_with("volume create");
            assert!(alone || new.attachment.is_some(), "{words}: {id} belongs to nobody");
        }
        for (id, new) in now.instances.iter().filter(|(id, _)| !before.instances.contains_key(*id))
        {
            let settled = matches!(new.state, State::Running | State::Terminated);
            assert!(creates && settled, "{words}: {id} is {:?}", new.state);
        }
    }
}

fn possible() -> bool {
    common::skip::is_root() && common::has_kvm()
}

/// Do it for each of so many stores, two at a time.
fn in_stores(stores: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= stores {
                        return;
                    }
                    work(n);
                }
            });
        }
    });
}

#[test]
fn two_accounts_find_what_the_model_says() {
    if !possible() {
        return;
    }
    let (seed, steps) = (number("SEED", 1), number("STEPS", 2000));
    let counts = Mutex::new(BTreeMap::<&str, (usize, usize)>::new());
    in_stores(steps.div_ceil(STEPS_OF_A_STORE), |n| {
        let mut run = Run::new(seed + n);
        run.log.push(format!("SEED={} STEPS={STEPS_OF_A_STORE}", seed + n));
        for _ in 0..STEPS_OF_A_STORE.min(steps - n * STEPS_OF_A_STORE) {
            run.step();
        }
        for (name, (done, refused)) in &run.counts {
            let mut counts = counts.lock().unwrap();
            let all = counts.entry(name).or_default();
            *all = (all.0 + done, all.1 + refused);
        }
    });
    let counts = counts.into_inner().unwrap();
    eprintln!("done and refused: {counts:?}");
    if steps >= 2000 {
        assert_eq!(counts.len(), KINDS.len());
        assert!(counts.values().all(|(done, _)| *done > 0), "{counts:?}");
        assert!(counts.values().filter(|(_, refused)| *refused > 0).count() >= 20, "{counts:?}");
    }
}

#[test]
fn a_killed_command_leaves_a_consistent_store() {
    if !possible() {
        return;
    }
    let (seed, steps) = (number("SEED", 1), number("KILLS", 250));
    let (killed, volumes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    in_stores(steps.div_ceil(STEPS_OF_A_STORE), |n| {
        let mut run = Run::new(1000 + seed + n);
        run.log.push(format!("SEED={} KILLS={STEPS_OF_A_STORE}", seed + n));
        for _ in 0..STEPS_OF_A_STORE {
            if run.rng.percent(30) {
                run.step();
            } else if run.kill() {
                killed.fetch_add(1, Ordering::Relaxed);
            }
        }
        volumes.fetch_add(left::every_volume_is_sound(&run.region.store), Ordering::Relaxed);
        let now = run.look();
        left::no_orphan(&run.region, &now);
    });
    eprintln!(
        "{killed:?} commands were killed: 0 snapshots that no image names, 0 processes without an instance, 0 of \
         {volumes:?} volumes inconsistent"
    );
    assert!(killed.into_inner() * 5 > steps);
}
