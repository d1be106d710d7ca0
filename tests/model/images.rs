//! Steps on images, and what EC2 says they do.

use super::step::{Draw, Expect, Foreseen, Seen, Step, nothing};
use super::world::{Device, Image, Snapshot, World};
use sporevm::record::image::{ImageState, RootDeviceType};
use sporevm::record::instance::State;
use sporevm::record::snapshot::SnapshotState;
use std::collections::BTreeSet;

const CODES: [&str; 2] = ["code-a", "code-b"];

fn blank(owner: u32, name: &str) -> Image {
    Image {
        owner,
        name: name.to_owned(),
        state: ImageState::Available,
        description: None,
        public: false,
        shared: BTreeSet::new(),
        codes: BTreeSet::new(),
        rate: None,
        deprecated: None,
        root: RootDeviceType::Ebs,
        has_kernel: true,
        devices: Vec::new(),
        tags: Default::default(),
        instance: None,
        source: None,
    }
}

/// The devices of a new image, whose snapshots are new, too.
fn renewed(devices: &[Device], id: &str, seen: &Seen) -> Vec<Device> {
    let now = &seen.now.images[id].devices;
    assert_eq!(now.len(), devices.len(), "{id}");
    let renew = |(old, new): (&Device, &Device)| {
        assert!(new.snapshot.is_some() && new.snapshot != old.snapshot, "{id}");
        Device { snapshot: new.snapshot.clone(), ..old.clone() }
    };
    devices.iter().zip(now).map(renew).collect()
}

impl Draw<'_> {
    fn images_of_ones_own(&self) -> usize {
        let alive = |i: &Image| i.owner == self.user && i.state != ImageState::Deregistered;
        self.count(self.world.images.values(), alive)
    }

    pub fn import_image(&mut self) -> Option<Step> {
        if self.images_of_ones_own() > 5 {
            return None;
        }
        let (name, user, root) = (self.a_name(), self.user, self.region.root.clone());
        let kind = self.rng.pick(&["ebs", "ebs", "ebs", "instance-store"]);
        let (disk, kernel) = (self.region.file("root"), self.region.file("kernel"));
        let args = ["image", "import", &disk, "--name", &name, "--kernel", &kernel];
        let args = [&args[..], &["--root-device-type", kind, "--tag", "Env=test"]].concat();
        let new = name.clone();
        let foreseen = self.check_name(&name).map(|()| -> super::step::Effect {
            Box::new(move |world, seen| {
                let snapshot = seen.now.images[seen.out].devices[0].snapshot.clone();
                let mut image = blank(user, &new);
                image.root = match kind {
                    "ebs" => RootDeviceType::Ebs,
                    _ => RootDeviceType::InstanceStore,
                };
                image.tags.insert("Env".into(), "test".into());
                let root_device = Device { name: "/dev/vda".into(), snapshot, delete: true };
                let id = root_device.snapshot.clone().unwrap();
                image.devices.push(root_device);
                world.images.insert(seen.out.to_owned(), image);
                world.snapshots.insert(id, Snapshot::whole(user, None, root.clone()));
            })
        });
        Some(self.step(&args, &[], foreseen))
    }

    pub fn register_image(&mut self) -> Option<Step> {
        if self.images_of_ones_own() > 5 {
            return None;
        }
        let (name, user, snapshot) = (self.a_name(), self.user, self.a_snapshot());
        let kernel = self.region.file("kernel");
        let args = ["image", "register", &name, "--snapshot", &snapshot, "--kernel", &kernel];
        let complete = |s: &Snapshot| match s.state {
            SnapshotState::Completed => Ok(()),
            _ => Err(vec!["IncorrectState"]),
        };
        let checked = self.check_name(&name).map_err(|code| vec![code]);
        let checked = checked.and_then(|()| complete(self.snapshot_to_change(&snapshot)?));
        let mut step = self.step(&args, &[], Ok(nothing()));
        let (name, snapshot) = (name.clone(), snapshot.clone());
        step.expect = match checked {
            Err(codes) => Expect::Refused(codes),
            Ok(()) => Expect::Done(Box::new(move |world, seen| {
                let mut image = blank(user, &name);
                let snapshot = Some(snapshot.clone());
                image.devices = vec![Device { name: "/dev/vda".into(), snapshot, delete: true }];
                world.images.insert(seen.out.to_owned(), image);
            })),
        };
        Some(step)
    }

    pub fn create_image(&mut self) -> Option<Step> {
        if self.images_of_ones_own() > 5 {
            return None;
        }
        let (id, name) = (self.an_instance(), self.a_name());
        let mut args = vec!["image", "create", &id, "--name", &name];
        if self.rng.percent(60) {
            args.push("--no-reboot");
        }
        let foreseen = self.foresee_created(&id, &name);
        Some(self.step(&args, &[&id], foreseen))
    }

    fn foresee_created(&self, id: &str, name: &str) -> Foreseen {
        let instance = self.instance(id)?;
        if instance.root == RootDeviceType::InstanceStore {
            return Err("InvalidParameterValue");
        }
        if !matches!(instance.state, State::Running | State::Stopped) {
            return Err("IncorrectInstanceState");
        }
        self.check_name(name)?;
        if instance.volumes.iter().all(|(device, _)| device != "/dev/vda") {
            return Err("InvalidBlockDeviceMapping");
        }
        let mut image = blank(self.user, name);
        image.instance = Some(id.to_owned());
        image.source = Some(instance.image.clone());
        // EC2: an image of a paid image's instance carries its codes.
        let source = self.world.images.get(&instance.image).filter(|i| i.is_seen_by(self.user));
        if let Some(source) = source {
            (image.codes, image.rate) = (source.codes.clone(), source.rate.clone());
        }
        let volumes = instance.volumes.clone();
        let delete =
            |volume: &String| self.world.volumes[volume].attachment.as_ref().unwrap().delete;
        let device = |(name, volume): &(String, String)| Device {
            name: name.clone(),
            snapshot: None,
            delete: delete(volume),
        };
        image.devices = volumes.iter().map(device).collect();
        Ok(Box::new(move |world, seen| {
            let mut image = image.clone();
            image.devices = renewed(&image.devices, seen.out, seen);
            for (snapshot, (_, volume)) in image.snapshots().zip(&volumes) {
                let content = world.volumes[volume].content.clone();
                let new = Snapshot::whole(image.owner, Some(volume.clone()), content);
                world.snapshots.insert(snapshot.clone(), new);
            }
            world.images.insert(seen.out.to_owned(), image);
        }))
    }

    pub fn copy_image(&mut self) -> Option<Step> {
        if self.images_of_ones_own() > 5 {
            return None;
        }
        let (id, name) = (self.an_image(), self.a_name());
        let foreseen = self.foresee_copied(&id, &name);
        let left = self.world.images.iter().filter(|(_, image)| image.name == name);
        let left: Vec<&str> = left.map(|(id, _)| id.as_str()).collect();
        Some(self.step(&["image", "copy", &id, "--name", &name], &left, foreseen))
    }

    fn foresee_copied(&self, id: &str, name: &str) -> Foreseen {
        let source = self.image(id)?.clone();
        if source.state != ImageState::Available {
            return Err("InvalidAMIID.Unavailable");
        }
        if !source.codes.is_empty() && source.owner != self.user {
            return Err("OperationNotPermitted");
        }
        // What an earlier copy of the same image under this name left is gone on with.
        let left = |i: &&Image| {
            i.owner == self.user
                && i.name == name
                && i.state == ImageState::Failed
                && i.source.as_deref() == Some(id)
                && i.instance.is_none()
        };
        let left = self.world.images.values().find(left).cloned();
        self.check_name(name)?;
        let copy = left.unwrap_or_else(|| Image {
            description: source.description.clone(),
            codes: source.codes.clone(),
            rate: source.rate.clone(),
            root: source.root,
            has_kernel: source.has_kernel,
            devices: source.devices.clone(),
            source: Some(id.to_owned()),
            ..blank(self.user, name)
        });
        Ok(Box::new(move |world, seen| {
            let mut copy = copy.clone();
            copy.state = ImageState::Available;
            copy.devices = renewed(&source.devices, seen.out, seen);
            for (new, old) in copy.snapshots().zip(source.snapshots()) {
                let content = world.snapshots[old].content.clone().unwrap();
                let new_one = Snapshot::whole(copy.owner, None, content);
                world.snapshots.insert(new.clone(), new_one);
            }
            world.images.insert(seen.out.to_owned(), copy);
        }))
    }

    /// `args`, and what they make of an image of one's own.
    fn change_image(
        &self,
        id: &str,
        args: &[&str],
        change: impl Fn(&mut Image) + 'static,
    ) -> (Vec<String>, Foreseen) {
        let target = id.to_owned();
        let foreseen = self.own_image(id).map(|_| -> super::step::Effect {
            Box::new(move |world, _| change(world.images.get_mut(&target).unwrap()))
        });
        (args.iter().map(|word| (*word).to_owned()).collect(), foreseen)
    }

    pub fn modify_image(&mut self) -> Option<Step> {
        let id = self.an_image();
        let number = self.rng.below(1000).to_string();
        let (args, mut foreseen) = match self.rng.below(4) {
            0 => {
                let code = self.rng.pick(&CODES);
                self.change_image(&id, &["--product-code", code], move |image| {
                    image.codes.insert(code.to_owned());
                })
            }
            1 => {
                let rate = format!("0.{number}");
                self.change_image(&id, &["--hourly-rate", &rate.clone()], move |image| {
                    image.rate = Some(rate.clone());
                })
            }
            2 => self.change_image(&id, &["--hourly-rate", "much"], |_| {}),
            _ => self.change_image(&id, &["--description", &number.clone()], move |image| {
                image.description = Some(number.clone());
            }),
        };
        if args[1] == "much" {
            foreseen = foreseen.and(Err("InvalidParameterValue"));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Some(self.step(&[&["image", "modify", &id], &args[..]].concat(), &[&id], foreseen))
    }

    pub fn share_image(&mut self) -> Option<Step> {
        let (id, other) = (self.an_image(), self.other());
        let who = format!("user:{other}");
        let (args, foreseen) = match self.rng.below(6) {
            0 | 1 => self.change_image(&id, &["--add", &who], move |image| {
                image.shared.insert(other);
            }),
            2 => self.change_image(&id, &["--add", "all", "--yes"], |image| image.public = true),
            3 => self.change_image(&id, &["--remove", &who], move |image| {
                image.shared.remove(&other);
            }),
            4 => self.change_image(&id, &["--remove", "all"], |image| image.public = false),
            _ => self.change_image(&id, &["--reset"], |image| {
                image.public = false;
                image.shared.clear();
            }),
        };
        let available = |image: &Image| image.state == ImageState::Available;
        let known = self.own_image(&id).map_or(true, available);
        let foreseen = if known { foreseen } else { Err("InvalidAMIID.Unavailable") };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Some(self.step(&[&["image", "share", &id], &args[..]].concat(), &[&id], foreseen))
    }

    pub fn deprecate_image(&mut self) -> Option<Step> {
        let id = self.an_image();
        let (args, foreseen) = if self.rng.percent(60) {
            self.change_image(&id, &["--at", "2035-01-31T12:00:00Z"], |image| {
                image.deprecated = Some("2035-01-31T12:00:00.000Z".into());
            })
        } else if self.rng.percent(80) {
            self.change_image(&id, &["--cancel"], |image| image.deprecated = None)
        } else {
            let (args, foreseen) = self.change_image(&id, &["--at", "1999-12-31"], |_| {});
            (args, foreseen.and(Err("InvalidParameterValue")))
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Some(self.step(&[&["image", "deprecate", &id], &args[..]].concat(), &[&id], foreseen))
    }

    pub fn deregister_image(&mut self) -> Option<Step> {
        if self.images_of_ones_own() < 3 && self.rng.percent(70) {
            return None;
        }
        let (id, all) = (self.an_image(), self.rng.percent(40));
        let mut args = vec!["image", "deregister", &id];
        let snapshots =
            self.own_image(&id).map_or(Vec::new(), |i| i.snapshots().cloned().collect());
        if all {
            args.push("--delete-associated-snapshots");
        }
        let touches: Vec<&str> =
            snapshots.iter().map(String::as_str).chain([id.as_str()]).collect();
        let (target, snapshots) = (id.clone(), snapshots.clone());
        let foreseen = self.own_image(&id).map(|_| -> super::step::Effect {
            Box::new(move |world, _| {
                world.images.get_mut(&target).unwrap().state = ImageState::Deregistered;
                for snapshot in snapshots.iter().filter(|_| all) {
                    if !world.is_in_use(snapshot) {
                        world.snapshots.remove(snapshot);
                    }
                }
            })
        });
        Some(self.step(&args, &touches, foreseen))
    }

    pub fn show_image(&mut self) -> Option<Step> {
        let id = self.an_image();
        let foreseen = self.image(&id).map(|_| nothing());
        Some(self.step(&["image", "show", &id], &[], foreseen))
    }

    /// What is listed is what the user may see, and nothing else.
    pub fn list_images(&mut self) -> Option<Step> {
        let user = self.user;
        let check = move |world: &mut World, seen: &Seen| {
            let listed: BTreeSet<&str> = seen.out.lines().collect();
            let there = |i: &Image| i.state != ImageState::Deregistered && i.is_seen_by(user);
            let visible = world.images.iter().filter(|(_, image)| there(image));
            assert_eq!(listed, visible.map(|(id, _)| id.as_str()).collect(), "account {user}");
        };
        Some(self.step(&["image", "ls", "-q"], &[], Ok(Box::new(check))))
    }

    pub fn accept_product(&mut self) -> Option<Step> {
        let (code, user) = (self.rng.pick(&CODES), self.user);
        let accept = move |world: &mut World, _: &Seen| {
            world.products.entry(user).or_default().insert(code.to_owned());
        };
        Some(self.step(&["product", "accept", code], &["products"], Ok(Box::new(accept))))
    }

    pub fn cancel_product(&mut self) -> Option<Step> {
        let (code, user) = (self.rng.pick(&CODES), self.user);
        let foreseen: Foreseen = if self.world.products[&user].contains(code) {
            Ok(Box::new(move |world, _| {
                world.products.get_mut(&user).unwrap().remove(code);
            }))
        } else {
            Err("InvalidProductCode.NotFound")
        };
        Some(self.step(&["product", "cancel", code], &["products"], foreseen))
    }

    pub fn report_usage(&mut self) -> Option<Step> {
        Some(self.step(&["usage"], &[], Ok(nothing())))
    }
}
