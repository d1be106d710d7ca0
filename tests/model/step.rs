//! What a step is, and what is drawn from to make one.

use super::users::{Region, USERS};
use super::world::{Image, Instance, Snapshot, Volume, World};
use sporevm::record::image::ImageState;
use std::collections::HashMap;

/// xorshift64* (Vigna 2014): the same steps for the same seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Less than `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        high as usize % n.max(1)
    }

    pub fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// What a command said, and what the store has after it: where new ids come from.
pub struct Seen<'a> {
    pub out: &'a str,
    pub now: &'a World,
}

/// What a command that is done makes of the world.
pub type Effect = Box<dyn Fn(&mut World, &Seen)>;

pub enum Expect {
    Done(Effect),
    /// With one of these of EC2's error codes.
    Refused(Vec<&'static str>),
}

pub struct Step {
    pub user: u32,
    pub args: Vec<String>,
    pub expect: Expect,
    /// Objects that it may change.
    pub touches: Vec<String>,
    /// In place of a command: bytes of a volume at an offset.
    pub write: Option<(String, u64, Vec<u8>)>,
}

impl Step {
    /// Whether it makes objects, whose ids nobody knows before.
    pub fn creates(&self) -> bool {
        let verb = self.args.get(1).map_or("", String::as_str);
        self.args[0] == "run" || ["import", "register", "create", "copy"].contains(&verb)
    }
}

/// What a step is drawn from.
pub struct Draw<'a> {
    pub world: &'a World,
    pub region: &'a Region,
    pub rng: &'a mut Rng,
    pub user: u32,
    /// When an object was first seen, so that the order does not hang on random ids.
    pub born: &'a HashMap<String, usize>,
}

pub type Foreseen = Result<Effect, &'static str>;

/// Nothing changes.
pub fn nothing() -> Effect {
    Box::new(|_, _| {})
}

impl Draw<'_> {
    pub fn step(&self, args: &[&str], touches: &[&str], foreseen: Foreseen) -> Step {
        Step {
            user: self.user,
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            expect: match foreseen {
                Ok(effect) => Expect::Done(effect),
                Err(code) => Expect::Refused(vec![code]),
            },
            touches: touches.iter().map(|id| (*id).to_owned()).collect(),
            write: None,
        }
    }

    pub fn other(&self) -> u32 {
        if self.user == USERS[0] { USERS[1] } else { USERS[0] }
    }

    /// One of those, mostly the user's own; now and then another's, or one that never was.
    fn target<'t>(&mut self, all: impl Iterator<Item = (&'t String, u32)>, never: &str) -> String {
        let mut all: Vec<(&String, u32)> = all.collect();
        all.sort_by_key(|(id, _)| self.born.get(*id));
        let other = self.rng.percent(15);
        let from: Vec<&String> = all
            .iter()
            .filter(|(_, owner)| (*owner != self.user) == other)
            .map(|(id, _)| *id)
            .collect();
        if from.is_empty() || self.rng.percent(2) {
            return never.to_owned();
        }
        from[self.rng.below(from.len())].clone()
    }

    pub fn an_image(&mut self) -> String {
        let world = self.world;
        // What is deregistered is looked at less often than what is there.
        let old = self.rng.percent(10);
        let some =
            world.images.iter().filter(|(_, i)| (i.state == ImageState::Deregistered) == old);
        self.target(some.map(|(id, i)| (id, i.owner)), "ami-0000000000000bad0")
    }

    pub fn a_snapshot(&mut self) -> String {
        let world = self.world;
        self.target(world.snapshots.iter().map(|(id, s)| (id, s.owner)), "snap-0000000000000bad0")
    }

    pub fn a_volume(&mut self) -> String {
        let world = self.world;
        self.target(world.volumes.iter().map(|(id, v)| (id, v.owner)), "vol-0000000000000bad0")
    }

    pub fn an_instance(&mut self) -> String {
        let world = self.world;
        let dead = self.rng.percent(8);
        let some = world.instances.iter().filter(|(_, i)| i.is_alive() != dead);
        self.target(some.map(|(id, i)| (id, i.owner)), "i-0000000000000bad0")
    }

    /// A name for an image, which may be taken or malformed.
    pub fn a_name(&mut self) -> String {
        match self.rng.below(20) {
            0 => "x".to_owned(),
            1 => "demo".to_owned(),
            _ => format!("image-{}", self.rng.below(12)),
        }
    }

    /// # Errors
    /// The name can't be given.
    pub fn check_name(&self, name: &str) -> Result<(), &'static str> {
        if name.len() < 3 {
            return Err("InvalidAMIName.Malformed");
        }
        let mut images = self.world.images.values();
        let taken = images.any(|image| {
            let registered = image.state == ImageState::Available;
            registered && image.owner == self.user && image.name == name
        });
        if taken || name == "demo" { Err("InvalidAMIName.Duplicate") } else { Ok(()) }
    }

    /// # Errors
    /// The user does not see it, or it is deregistered.
    pub fn image(&self, id: &str) -> Result<&Image, &'static str> {
        let found = self.world.images.get(id).filter(|image| image.is_seen_by(self.user));
        match found {
            None => Err("InvalidAMIID.NotFound"),
            Some(image) if image.state == ImageState::Deregistered => {
                Err("InvalidAMIID.Unavailable")
            }
            Some(image) => Ok(image),
        }
    }

    /// # Errors
    /// As [`Draw::image`]; it is another's.
    pub fn own_image(&self, id: &str) -> Result<&Image, &'static str> {
        self.image(id).and_then(|i| if i.owner == self.user { Ok(i) } else { Err("AuthFailure") })
    }

    /// A snapshot of one's own, or of an image that one may launch.
    ///
    /// # Errors
    /// It does not exist.
    pub fn own_snapshot(&self, id: &str) -> Result<&Snapshot, &'static str> {
        let found = self.world.snapshots.get(id).filter(|s| s.owner == self.user);
        found.ok_or("InvalidSnapshot.NotFound")
    }

    /// Whether an image that the user may launch is made of another's snapshot.
    pub fn is_shared(&self, id: &str) -> bool {
        let launches = |i: &&Image| i.state == ImageState::Available && i.is_seen_by(self.user);
        self.world.images.values().filter(launches).any(|i| i.snapshots().any(|s| s == id))
    }

    /// Whether it may be changed. What was shared once may be readable long after.
    ///
    /// # Errors
    /// Another's, or none.
    pub fn snapshot_to_change(&self, id: &str) -> Result<&Snapshot, Vec<&'static str>> {
        match self.world.snapshots.get(id) {
            None => Err(vec!["InvalidSnapshot.NotFound"]),
            Some(snapshot) if snapshot.owner == self.user => Ok(snapshot),
            Some(_) if self.is_shared(id) => Err(vec!["AuthFailure"]),
            Some(_) => Err(vec!["AuthFailure", "InvalidSnapshot.NotFound"]),
        }
    }

    /// # Errors
    /// It is not there for this user.
    pub fn volume(&self, id: &str) -> Result<&Volume, &'static str> {
        let found = self.world.volumes.get(id).filter(|volume| volume.owner == self.user);
        found.ok_or("InvalidVolume.NotFound")
    }

    /// # Errors
    /// It is not there for this user.
    pub fn instance(&self, id: &str) -> Result<&Instance, &'static str> {
        let found = self.world.instances.get(id).filter(|instance| instance.owner == self.user);
        found.ok_or("InvalidInstanceID.NotFound")
    }

    /// How many of its own the user has, so that no kind outgrows the test.
    pub fn count<'t, T: 't>(
        &self,
        all: impl Iterator<Item = &'t T>,
        counts: impl Fn(&T) -> bool,
    ) -> usize {
        all.filter(|one| counts(one)).count()
    }
}
