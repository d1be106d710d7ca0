//! Steps on snapshots and volumes, and tags of everything.

use super::step::{Draw, Effect, Expect, Foreseen, Step, nothing};
use super::world::{Attachment, Bytes, Snapshot, Tags, Volume, World};
use sporevm::record::instance::State;
use sporevm::record::snapshot::SnapshotState;

const MIB: usize = 1 << 20;

impl Draw<'_> {
    fn snapshots_of_ones_own(&self) -> usize {
        self.count(self.world.snapshots.values(), |s| s.owner == self.user)
    }

    fn is_running(&self, instance: &str) -> bool {
        self.world.instances.get(instance).is_some_and(|i| i.state == State::Running)
    }

    pub fn import_snapshot(&mut self) -> Option<Step> {
        if self.snapshots_of_ones_own() > 7 {
            return None;
        }
        let (user, content, file) = (self.user, self.region.root.clone(), self.region.file("root"));
        let effect: Effect = Box::new(move |world, seen| {
            let new = Snapshot::whole(user, None, content.clone());
            world.snapshots.insert(seen.out.to_owned(), new);
        });
        Some(self.step(&["snapshot", "import", &file], &[], Ok(effect)))
    }

    pub fn create_snapshot(&mut self) -> Option<Step> {
        if self.snapshots_of_ones_own() > 7 {
            return None;
        }
        let (id, user) = (self.a_volume(), self.user);
        let foreseen = self.volume(&id).map(|volume| -> Effect {
            let (content, volume) = (volume.content.clone(), id.clone());
            Box::new(move |world, seen| {
                let mut new = Snapshot::whole(user, Some(volume.clone()), content.clone());
                new.tags.insert("Of".into(), "volume".into());
                world.snapshots.insert(seen.out.to_owned(), new);
            })
        });
        Some(self.step(&["snapshot", "create", &id, "--tag", "Of=volume"], &[], foreseen))
    }

    /// Of all volumes of an instance.
    pub fn create_snapshots(&mut self) -> Option<Step> {
        if self.snapshots_of_ones_own() > 6 {
            return None;
        }
        let (id, user) = (self.an_instance(), self.user);
        let foreseen: Foreseen = self.instance(&id).and_then(|instance| {
            if !matches!(instance.state, State::Running | State::Stopped) {
                return Err("IncorrectInstanceState");
            }
            let volumes = instance.volumes.clone();
            let effect = move |world: &mut World, seen: &super::step::Seen| {
                let made: Vec<&str> = seen.out.lines().collect();
                assert_eq!(made.len(), volumes.len());
                for (snapshot, (_, volume)) in made.into_iter().zip(&volumes) {
                    let content = world.volumes[volume].content.clone();
                    let new = Snapshot::whole(user, Some(volume.clone()), content);
                    world.snapshots.insert(snapshot.to_owned(), new);
                }
            };
            Ok(Box::new(effect) as Effect)
        });
        Some(self.step(&["snapshot", "create", "-q", &id], &[], foreseen))
    }

    /// Whether a snapshot can be read: one's own, or that of an image that one may launch. `None`
    /// if it can't be told.
    fn readable(&self, id: &str) -> Option<Result<&Snapshot, &'static str>> {
        match self.world.snapshots.get(id) {
            Some(found) if found.owner == self.user || self.is_shared(id) => Some(Ok(found)),
            Some(_) => None,
            None => Some(Err("InvalidSnapshot.NotFound")),
        }
    }

    pub fn copy_snapshot(&mut self) -> Option<Step> {
        if self.snapshots_of_ones_own() > 7 {
            return None;
        }
        let (id, user) = (self.a_snapshot(), self.user);
        let foreseen: Foreseen = self.readable(&id)?.and_then(|source| {
            let Some(content) = source.content.clone() else { return Err("IncorrectState") };
            let volume = source.volume.clone().filter(|_| source.owner == user);
            let new = Snapshot::whole(user, volume, content);
            Ok(Box::new(move |world: &mut World, seen: &super::step::Seen| {
                world.snapshots.insert(seen.out.to_owned(), new.clone());
            }) as Effect)
        });
        Some(self.step(&["snapshot", "copy", &id], &[], foreseen))
    }

    pub fn delete_snapshot(&mut self) -> Option<Step> {
        let id = self.a_snapshot();
        let mut step = self.step(&["snapshot", "delete", &id], &[&id], Ok(nothing()));
        step.expect = match self.snapshot_to_change(&id) {
            Err(codes) => Expect::Refused(codes),
            Ok(_) if self.world.is_in_use(&id) => Expect::Refused(vec!["InvalidSnapshot.InUse"]),
            Ok(_) => Expect::Done(Box::new(move |world, _| {
                world.snapshots.remove(&id);
            })),
        };
        Some(step)
    }

    pub fn verify_snapshot(&mut self) -> Option<Step> {
        let id = self.a_snapshot();
        let whole = self.own_snapshot(&id).is_ok_and(|s| s.state == SnapshotState::Completed);
        whole.then(|| self.step(&["snapshot", "verify", &id], &[], Ok(nothing())))
    }

    fn volumes_of_ones_own(&self) -> usize {
        self.count(self.world.volumes.values(), |v| v.owner == self.user)
    }

    pub fn create_volume(&mut self) -> Option<Step> {
        if self.volumes_of_ones_own() > 7 {
            return None;
        }
        let (id, user) = (self.a_snapshot(), self.user);
        let (from, size) = (self.rng.percent(60), self.rng.below(3));
        let text = format!("{size}M");
        let mut args = vec!["volume", "create"];
        if from {
            args.extend(["--snapshot", &id]);
        }
        if !from || size != 1 {
            args.extend(["--size", &text]);
        }
        let empty = Bytes::new(Vec::new());
        let begin = match from {
            false => Ok((empty, None)),
            true => self.readable(&id)?.and_then(|snapshot| match &snapshot.content {
                Some(content) => Ok((content.clone(), Some(id.clone()))),
                None => Err("IncorrectState"),
            }),
        };
        let size = if from && size == 1 { None } else { Some(size * MIB) };
        let foreseen: Foreseen = begin.and_then(|(content, snapshot)| {
            let size = size.unwrap_or(content.0.len());
            if size == 0 || size < content.0.len() {
                return Err("InvalidParameterValue");
            }
            let content = content.grown(size);
            let new =
                Volume { owner: user, snapshot, attachment: None, tags: Tags::new(), content };
            Ok(Box::new(move |world: &mut World, seen: &super::step::Seen| {
                world.volumes.insert(seen.out.to_owned(), new.clone());
            }) as Effect)
        });
        Some(self.step(&args, &[], foreseen))
    }

    pub fn attach_volume(&mut self) -> Option<Step> {
        let (id, to) = (self.a_volume(), self.an_instance());
        let device = self.rng.pick(&["/dev/vdb", "/dev/vdc", "/dev/vda", "/dev/VD"]);
        // What comes to a running guest is in tests/snapshots.rs.
        if self.is_running(&to) {
            return None;
        }
        let attached = self.volume(&id).is_ok_and(|volume| volume.attachment.is_some());
        let foreseen: Foreseen = self.volume(&id).and_then(|_| {
            let instance = self.instance(&to)?;
            let taken = instance.volumes.iter().any(|(name, _)| name == device);
            match () {
                () if instance.state != State::Stopped => Err("IncorrectInstanceState"),
                () if attached => Err("VolumeInUse"),
                () if device == "/dev/VD" || taken => Err("InvalidParameterValue"),
                () => Ok(()),
            }?;
            let at = if device == "/dev/vda" { 0 } else { instance.volumes.len() };
            let (id, to) = (id.clone(), to.clone());
            Ok(Box::new(move |world: &mut World, _: &super::step::Seen| {
                let new = Attachment { instance: to.clone(), device: device.into(), delete: false };
                world.volumes.get_mut(&id).unwrap().attachment = Some(new);
                let instance = world.instances.get_mut(&to).unwrap();
                instance.volumes.insert(at, (device.to_owned(), id.clone()));
            }) as Effect)
        });
        Some(self.step(&["volume", "attach", &id, &to, "--device", device], &[&id, &to], foreseen))
    }

    pub fn detach_volume(&mut self) -> Option<Step> {
        let id = self.a_volume();
        let attachment = self.volume(&id).ok().and_then(|volume| volume.attachment.clone());
        let (volume, attached) = (id.clone(), attachment.clone());
        // Without its root an instance is not good for much.
        if attachment.as_ref().is_some_and(|a| a.device == "/dev/vda") && self.rng.percent(80) {
            return None;
        }
        if attachment.as_ref().is_some_and(|a| self.is_running(&a.instance)) {
            return None;
        }
        let foreseen: Foreseen = self.volume(&id).and_then(|_| {
            let attached = attached.ok_or("IncorrectState")?;
            if self.world.instances[&attached.instance].state != State::Stopped {
                return Err("IncorrectInstanceState");
            }
            Ok(Box::new(move |world: &mut World, _: &super::step::Seen| {
                world.volumes.get_mut(&volume).unwrap().attachment = None;
                let instance = world.instances.get_mut(&attached.instance).unwrap();
                instance.volumes.retain(|(_, id)| *id != volume);
            }) as Effect)
        });
        let of = attachment.map_or(String::new(), |a| a.instance);
        Some(self.step(&["volume", "detach", &id], &[&id, &of], foreseen))
    }

    pub fn resize_volume(&mut self) -> Option<Step> {
        let (id, size) = (self.a_volume(), (1 + self.rng.below(3)) * MIB);
        let volume = id.clone();
        let foreseen: Foreseen = self.volume(&id).and_then(|found| match () {
            () if size < found.content.0.len() => Err("InvalidParameterValue"),
            () => Ok(Box::new(move |world: &mut World, _: &super::step::Seen| {
                let found = world.volumes.get_mut(&volume).unwrap();
                found.content = found.content.grown(size);
            }) as Effect),
        });
        let size = format!("{}M", size / MIB);
        Some(self.step(&["volume", "resize", &id, "--size", &size], &[&id], foreseen))
    }

    pub fn delete_volume(&mut self) -> Option<Step> {
        let id = self.a_volume();
        let volume = id.clone();
        let foreseen: Foreseen = self.volume(&id).and_then(|found| match found.attachment {
            Some(_) => Err("VolumeInUse"),
            None => Ok(Box::new(move |world: &mut World, _: &super::step::Seen| {
                world.volumes.remove(&volume);
            }) as Effect),
        });
        Some(self.step(&["volume", "delete", &id], &[&id], foreseen))
    }

    /// Bytes of a volume, as its guest writes them.
    pub fn write_volume(&mut self) -> Option<Step> {
        let id = self.a_volume();
        let volume = self.volume(&id).ok()?;
        if volume.attachment.as_ref().is_some_and(|a| self.is_running(&a.instance)) {
            return None;
        }
        let sectors = volume.content.0.len() / 512;
        let len = (1 + self.rng.below(200)).min(sectors);
        let offset = self.rng.below(sectors - len + 1) * 512;
        let fill = self.rng.below(256) as u8;
        let bytes: Vec<u8> = (0..len * 512).map(|n| fill.wrapping_add((n / 512) as u8)).collect();
        let (target, new) = (id.clone(), bytes.clone());
        let effect: Effect = Box::new(move |world, _| {
            let volume = world.volumes.get_mut(&target).unwrap();
            volume.content = volume.content.with(offset, &new);
        });
        let mut step = self.step(&["write", &id], &[&id], Ok(effect));
        step.write = Some((id, offset as u64, bytes));
        Some(step)
    }

    /// The tags of the object, if the user may change them.
    fn tagged(&self, id: &str) -> Result<(), Vec<&'static str>> {
        match id.split_once('-').map_or("", |(kind, _)| kind) {
            "ami" => self.own_image(id).map(|_| ()).map_err(|code| vec![code]),
            "snap" => self.snapshot_to_change(id).map(|_| ()),
            "vol" => self.volume(id).map(|_| ()).map_err(|code| vec![code]),
            _ => self.instance(id).map(|_| ()).map_err(|code| vec![code]),
        }
    }

    fn tagging(&mut self, verb: &str, word: &str, change: impl Fn(&mut Tags) + 'static) -> Step {
        let id = match self.rng.below(4) {
            0 => self.an_image(),
            1 => self.a_snapshot(),
            2 => self.a_volume(),
            _ => self.an_instance(),
        };
        let mut step = self.step(&[verb, &id, word], &[&id], Ok(nothing()));
        step.expect = match self.tagged(&id) {
            Err(codes) => Expect::Refused(codes),
            Ok(()) => Expect::Done(Box::new(move |world, _| change(world.tags(&id)))),
        };
        step
    }

    pub fn tag(&mut self) -> Option<Step> {
        let (key, value) =
            (self.rng.pick(&["Env", "Team", "aws:x"]), self.rng.below(9).to_string());
        let word = format!("{key}={value}");
        let mut step = self.tagging("tag", &word, move |tags| {
            tags.insert(key.to_owned(), value.clone());
        });
        if key == "aws:x" {
            step.expect = Expect::Refused(vec!["InvalidParameterValue"]);
        }
        Some(step)
    }

    pub fn untag(&mut self) -> Option<Step> {
        let key = self.rng.pick(&["Env", "Team", "Of"]);
        Some(self.tagging("untag", key, move |tags| {
            tags.remove(key);
        }))
    }
}

impl World {
    fn tags(&mut self, id: &str) -> &mut Tags {
        if let Some(image) = self.images.get_mut(id) {
            return &mut image.tags;
        }
        if let Some(snapshot) = self.snapshots.get_mut(id) {
            return &mut snapshot.tags;
        }
        if let Some(volume) = self.volumes.get_mut(id) {
            return &mut volume.tags;
        }
        &mut self.instances.get_mut(id).unwrap().tags
    }
}
