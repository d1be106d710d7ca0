//! Removing from a bucket what none of its images and snapshots needs any more. (A registry does
//! that itself.)
//!
//! A copy into the bucket leaves out what is there already, and nothing refers to that until the
//! copy is done: it must not go meanwhile. So a copy puts a flag up before it asks what is there,
//! and then looks for a collector's; a collector puts its flag up before it looks for copies'.
//! Whoever is second sees the first, because the service shows an object to all who list it once
//! its writer has been told that it is there (Amazon S3 User Guide, "Amazon S3 data consistency
//! model"). A flag's time is the service's, so no clock of ours counts.

use crate::error::{Code, Error, Result};
use crate::id::{SnapshotId, random_hex};
use crate::transfer::package::{SnapshotPackage, is_digest};
use crate::transfer::remote::Remote;
use crate::transfer::remote::backend::Objects;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Where the flags are.
const COPIES: &str = "copies";
const COLLECTORS: &str = "collectors";
/// Where content is.
const BLOBS: &str = "blobs/sha256";
/// An older flag is a killed copy's.
const LONGEST_COPY: Duration = Duration::from_secs(7 * 86_400);
/// An older flag is a killed collector's: one that lives ends in half of that.
const LONGEST_COLLECTION: Duration = Duration::from_secs(600);
/// How long a copy waits for a collector.
const PATIENCE: Duration = Duration::from_secs(60);

/// A flag that is up.
pub struct Flag<'a> {
    objects: &'a dyn Objects,
    place: &'static str,
    name: String,
}

impl<'a> Flag<'a> {
    fn raise(remote: &Remote, objects: &'a dyn Objects, place: &'static str) -> Result<Self> {
        let flag = Self { objects, place, name: random_hex(16)? };
        let put = objects.write(&format!("{place}/{}", flag.name), Vec::new());
        put.map_err(|fault| remote.reported("take a flag", fault))?;
        Ok(flag)
    }

    /// How old the flags at `place` are, by the time of this one.
    fn others(&self, remote: &Remote, place: &str) -> Result<Vec<(String, Duration)>> {
        let list = |place: &str| {
            self.objects.list(place).map_err(|fault| remote.reported("say who uses it", fault))
        };
        let own = list(self.place)?.into_iter().find(|(name, _)| *name == self.name);
        let Some((_, now)) = own else {
            let why = format!("the region '{}' does not show what it was given", remote.name());
            return Err(Error::refused(Code::Unavailable, why));
        };
        let age = |then: u64| Duration::from_millis(now.saturating_sub(then));
        let all = list(place)?.into_iter().filter(|(name, _)| *name != self.name);
        Ok(all.map(|(name, then)| (name, age(then))).collect())
    }
}

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        // One that stays is old some day.
        let _ = self.objects.delete(&format!("{}/{}", self.place, self.name));
    }
}

/// Say that a copy is going on, before anything is asked of the region. `None` where nothing is
/// ever collected.
///
/// # Errors
/// `Unavailable`: somebody is removing content and takes too long; the region fails.
pub fn announce(remote: &Remote) -> Result<Option<Flag<'_>>> {
    remote.objects().map(|objects| announce_within(remote, objects, PATIENCE)).transpose()
}

fn announce_within<'a>(
    remote: &Remote,
    objects: &'a dyn Objects,
    patience: Duration,
) -> Result<Flag<'a>> {
    let begin = Instant::now();
    loop {
        let flag = Flag::raise(remote, objects, COPIES)?;
        let mut collectors = flag.others(remote, COLLECTORS)?;
        collectors.retain(|(_, age)| *age < LONGEST_COLLECTION);
        if collectors.is_empty() {
            return Ok(flag);
        }
        if begin.elapsed() >= patience {
            return Err(Error::refused(
                Code::Unavailable,
                format!(
                    "the region '{}' is being cleared of old content; try again",
                    remote.name()
                ),
            ));
        }
        std::thread::sleep(Duration::from_secs(1).min(patience));
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How much of it.
    pub chunks: usize,
    /// Another copy was going on, and all was left for the next time.
    pub busy: bool,
}

/// Remove the content that nothing in the region refers to.
///
/// # Errors
/// The region fails; something in it can't be understood, so that nobody knows what it needs.
pub fn collect(remote: &Remote) -> Result<Collected> {
    let Some(objects) = remote.objects() else { return Ok(Collected::default()) };
    let begin = Instant::now();
    let flag = Flag::raise(remote, objects, COLLECTORS)?;
    for (name, age) in flag.others(remote, COPIES)? {
        if age < LONGEST_COPY {
            return Ok(Collected { chunks: 0, busy: true });
        }
        let _ = objects.delete(&format!("{COPIES}/{name}"));
    }
    for (name, age) in flag.others(remote, COLLECTORS)? {
        if age >= LONGEST_COLLECTION {
            let _ = objects.delete(&format!("{COLLECTORS}/{name}"));
        }
    }
    // After the flags: a copy that ended before them has its image there.
    let needed: HashSet<String> = remote.needed()?.into_iter().collect();
    let blobs = objects.list(BLOBS).map_err(|fault| remote.reported("list its content", fault))?;
    let mut collected = Collected::default();
    for (digest, _) in blobs.iter().filter(|(name, _)| is_digest(name) && !needed.contains(name)) {
        if begin.elapsed() >= LONGEST_COLLECTION / 2 {
            break;
        }
        let gone = objects.delete(&format!("{BLOBS}/{digest}"));
        gone.map_err(|fault| remote.reported("remove content", fault))?;
        collected.chunks += 1;
    }
    Ok(collected)
}

impl Remote {
    /// Deregister an image of one's own: nothing new can be copied from it, and the region forgets
    /// what only it needs.
    ///
    /// # Errors
    /// `InvalidAMIID.NotFound`, `InvalidAMIID.Unavailable`: it is deregistered; `AuthFailure`: it
    /// is another's; the region fails.
    pub fn deregister(&self, text: &str) -> Result<()> {
        let package = self.resolve(text)?;
        self.check_owner(&package.image)?;
        self.publish(&package.deregistered())?;
        self.collect()
    }

    /// Delete a snapshot of one's own that is not an image's.
    ///
    /// # Errors
    /// As [`Remote::snapshot`]'s; `AuthFailure`: it is another's.
    pub fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let package = self.snapshot(id)?;
        self.check_owner(&package.snapshot)?;
        self.publish_snapshot(&SnapshotPackage { disk: None, ..package })?;
        self.collect()
    }

    fn collect(&self) -> Result<()> {
        if collect(self)?.busy {
            self.context.note(format_args!(
                "something is being copied into '{}': what it no longer needs goes the next time",
                self.name
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
