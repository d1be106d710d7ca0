//! Steps on instances. Their guests are real ones, of the image `demo`, that wait for the power
//! button.

use super::step::{Draw, Effect, Foreseen, Seen, Step, nothing};
use super::world::{Attachment, Instance, Tags, Volume, World};
use sporevm::instance::types;
use sporevm::record::image::{ImageState, RootDeviceType};
use sporevm::record::instance::State;

impl Draw<'_> {
    pub fn run_instance(&mut self) -> Option<Step> {
        let alive = |i: &Instance| i.owner == self.user && i.is_alive();
        if self.count(self.world.instances.values(), alive) > 2 {
            return None;
        }
        let id = if self.rng.percent(25) { "demo".to_owned() } else { self.an_image() };
        let root = self.rng.pick(&["ebs", "ebs", "ebs", "ebs", "ebs", "", "instance-store"]);
        let mut args = vec!["run", &id, "-q", "-m", "64M"];
        args.extend(["--append", "demo.mode=poweroff-on-button"]);
        if !root.is_empty() {
            args.extend(["--root-device-type", root]);
        }
        let foreseen = self.foresee_run(&id, root);
        Some(self.step(&args, &[], foreseen))
    }

    fn foresee_run(&self, text: &str, root: &str) -> Foreseen {
        let demo = || self.world.images.iter().find(|(_, i)| i.name == "demo" && i.owner == 0);
        let id = if text == "demo" { demo().unwrap().0.clone() } else { text.to_owned() };
        let image = self.image(&id)?;
        if image.owner != self.user && !image.codes.is_subset(&self.world.products[&self.user]) {
            return Err("OptInRequired");
        }
        if image.state != ImageState::Available {
            return Err("InvalidAMIID.Unavailable");
        }
        // The built-in empty disk, or a copy: nothing would take the arguments.
        if !image.has_kernel {
            return Err("InvalidParameterCombination");
        }
        let kind = image.tags.get("spore:instance-type").map_or(types::DEFAULT, String::as_str);
        let new = Instance {
            owner: self.user,
            image: id,
            state: State::Running,
            root: match root {
                "" => image.root,
                "ebs" => RootDeviceType::Ebs,
                _ => RootDeviceType::InstanceStore,
            },
            kind: kind.to_owned(),
            volumes: Vec::new(),
            tags: Tags::new(),
        };
        let mut devices = image.devices.clone();
        devices.sort_by_key(|device| device.name != "/dev/vda");
        Ok(Box::new(move |world, seen| {
            let mut new = new.clone();
            if new.root == RootDeviceType::Ebs {
                let volumes = &seen.now.instances[seen.out].volumes;
                assert_eq!(volumes.len(), devices.len());
                for (device, (_, volume)) in devices.iter().zip(volumes) {
                    let snapshot = device.snapshot.clone().unwrap();
                    let content = world.snapshots[&snapshot].content.clone().unwrap();
                    let attachment = Some(Attachment {
                        instance: seen.out.to_owned(),
                        device: device.name.clone(),
                        delete: device.delete,
                    });
                    let (owner, snapshot, tags) = (new.owner, Some(snapshot), Tags::new());
                    let made = Volume { owner, snapshot, attachment, tags, content };
                    world.volumes.insert(volume.clone(), made);
                    new.volumes.push((device.name.clone(), volume.clone()));
                }
            }
            world.instances.insert(seen.out.to_owned(), new);
        }))
    }

    fn become_state(id: &str, state: State) -> Effect {
        let id = id.to_owned();
        Box::new(move |world, _| world.instances.get_mut(&id).unwrap().state = state)
    }

    pub fn stop_instance(&mut self) -> Option<Step> {
        let id = self.an_instance();
        let foreseen = self.instance(&id).and_then(|it| match it.state {
            State::Stopped => Ok(nothing()),
            State::Running if it.root == RootDeviceType::Ebs => {
                Ok(Self::become_state(&id, State::Stopped))
            }
            State::Running => Err("UnsupportedOperation"),
            _ => Err("IncorrectInstanceState"),
        });
        let force: &[&str] = if self.rng.percent(50) { &["--force"] } else { &[] };
        Some(self.step(&[&["stop", &id], force].concat(), &[&id], foreseen))
    }

    pub fn start_instance(&mut self) -> Option<Step> {
        let id = self.an_instance();
        let foreseen = self.instance(&id).and_then(|it| match it.state {
            State::Running => Ok(nothing()),
            State::Stopped if it.volumes.first().is_some_and(|(at, _)| at == "/dev/vda") => {
                Ok(Self::become_state(&id, State::Running))
            }
            _ => Err("IncorrectInstanceState"),
        });
        Some(self.step(&["start", &id], &[&id], foreseen))
    }

    pub fn reset_instance(&mut self) -> Option<Step> {
        let id = self.an_instance();
        let foreseen = self.instance(&id).and_then(|it| match it.state {
            State::Running => Ok(nothing()),
            _ => Err("IncorrectInstanceState"),
        });
        Some(self.step(&["reboot", "--force", &id], &[&id], foreseen))
    }

    pub fn terminate_instance(&mut self) -> Option<Step> {
        let id = self.an_instance();
        let mut touches = vec![id.clone()];
        let foreseen = self.instance(&id).map(|it| -> Effect {
            touches.extend(it.volumes.iter().map(|(_, volume)| volume.clone()));
            let id = id.clone();
            Box::new(move |world: &mut World, _: &Seen| {
                let instance = world.instances.get_mut(&id).unwrap();
                instance.state = State::Terminated;
                for (_, volume) in std::mem::take(&mut instance.volumes) {
                    let found = world.volumes.get_mut(&volume).unwrap();
                    if found.attachment.take().unwrap().delete {
                        world.volumes.remove(&volume);
                    }
                }
            })
        });
        let touches: Vec<&str> = touches.iter().map(String::as_str).collect();
        Some(self.step(&["terminate", &id], &touches, foreseen))
    }

    pub fn modify_instance(&mut self) -> Option<Step> {
        let id = self.an_instance();
        let kind = self.rng.pick(&["spore.tiny", "t3.nano", "x99.huge"]);
        let device = self.rng.pick(&["/dev/vda", "/dev/vdb", "/dev/vdd"]);
        let (typed, delete) = (self.rng.percent(40), self.rng.percent(50));
        let flag = format!("{device}={delete}");
        let args = if typed {
            ["modify", &id, "-t", kind]
        } else {
            ["modify", &id, "--delete-on-termination", &flag]
        };
        let mut touches = vec![id.as_str()];
        let foreseen: Foreseen = self.instance(&id).and_then(|it| {
            let volume =
                it.volumes.iter().find(|(name, _)| name == device).map(|(_, id)| id.clone());
            match () {
                () if it.root == RootDeviceType::InstanceStore => Err("UnsupportedOperation"),
                () if it.state != State::Stopped => Err("IncorrectInstanceState"),
                () if typed && kind == "x99.huge" => Err("InvalidParameterValue"),
                () if !typed && volume.is_none() => Err("InvalidInstanceAttributeValue"),
                () => Ok(()),
            }?;
            let id = id.clone();
            Ok(Box::new(move |world: &mut World, _: &Seen| {
                if typed {
                    world.instances.get_mut(&id).unwrap().kind = kind.to_owned();
                } else {
                    let volume = world.volumes.get_mut(volume.as_ref().unwrap()).unwrap();
                    volume.attachment.as_mut().unwrap().delete = delete;
                }
            }) as Effect)
        });
        if let Ok(it) = self.instance(&id) {
            touches.extend(it.volumes.iter().map(|(_, volume)| volume.as_str()));
        }
        Some(self.step(&args, &touches, foreseen))
    }

    pub fn list_instances(&mut self) -> Option<Step> {
        let user = self.user;
        let check = move |world: &mut World, seen: &Seen| {
            let mut listed: Vec<&str> = seen.out.lines().collect();
            listed.sort_unstable();
            let mine = world.instances.iter().filter(|(_, it)| it.owner == user);
            let mine: Vec<&str> = mine.map(|(id, _)| id.as_str()).collect();
            assert_eq!(listed, mine, "account {user}");
        };
        Some(self.step(&["ls", "-a", "-q"], &[], Ok(Box::new(check))))
    }
}
