//! Disks that come and go while the guest runs, on a PCI bus.
//!
//! The event thread makes such a disk as it made the first ones, but confined: it may start threads
//! and make interrupts, and no io_uring. So these disks are served by preadv(2) and pwritev(2)
//! until the instance is started again.

use crate::block::Disk;
use crate::control::DiskState;
use crate::error::{Error, OrFail, Result};
use crate::plan::{DeviceConfig, DeviceId, DeviceKind, DiskPlan, Engine};
use crate::vmm::devices::{HotSlots, MadeFunction, NewDevice};
use crate::vmm::machine::{self, Machine, MachineDisk};
use crate::vmm::report::Report;
use crate::vmm::sandbox::Role;
use crate::vmm::state::VirtioDevice;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a disk that goes may take to finish what it has begun: some dozen MiB at most.
const REST: Duration = Duration::from_secs(2);
/// How long its last writes may take to be durable. Meanwhile nobody is answered.
const CLOSING: Duration = Duration::from_secs(5);

impl Machine {
    fn hot(&self) -> Result<&HotSlots> {
        self.hot.as_ref().ok_or_else(|| {
            Error::failure(
                "its devices are virtio-mmio, which come and go only while it is stopped",
            )
        })
    }

    /// Give the guest a disk called `id`, and tell it. Its files' descriptors, top first, and that
    /// which holds the volume are `fds`. Gives its slot.
    ///
    /// # Errors
    /// There is no PCI bus, no free slot, a device of that name, or the disk can't be opened.
    pub fn attach(
        &mut self,
        id: &DeviceId,
        plan: &DiskPlan,
        fds: Vec<OwnedFd>,
        report: &Arc<Report>,
    ) -> Result<u8> {
        let hot = self.hot()?;
        let devices = &self.config().devices;
        if devices.iter().any(|device| device.id == *id) {
            return Err(Error::failure(format!("it has a device {id} already")));
        }
        let is_free = |slot: &u8| devices.iter().all(|device| device.slot != *slot);
        let slot = (0..u32::BITS as u8).filter(|slot| hot.is_hot(*slot)).find(is_free);
        let full = "all of its slots for disks that come while it runs are taken; stop it first";
        let slot = slot.ok_or_else(|| Error::failure(full))?;
        let mut files: Vec<File> = fds.into_iter().map(File::from).collect();
        let hold = files.pop().filter(|_| files.len() == plan.layers.len());
        let hold = hold.ok_or_else(|| Error::failure("a descriptor of each file has to come"))?;
        let layers = files.into_iter().zip(plan.layers.iter().map(|layer| layer.format)).collect();
        let plan = DiskPlan { engine: Engine::Sync, ..plan.clone() };
        let commit = self.filters.map(|filters| filters.compile(Role::Commit)).transpose()?;
        let disk = machine::open_layers(&plan, layers, commit.map(Arc::new))?;
        let notices = machine::notices(report);
        let bus = self.config().chipset.disk_bus;
        let (device, front) = machine::start_disk(id, &plan, bus, disk.clone(), notices.clone())?;
        let new = NewDevice { slot, front, notices };
        let on_start = machine::thread_start(self.filters, std::slice::from_ref(&new))?;
        let MadeFunction { function, transport } = hot.bus.make(new, &self.ram, &on_start)?;
        hot.bus.root.plug(slot, function)?;
        hot.ports.plugged(slot);
        self.power.tell_hot_plug();
        self.parts.push(Arc::new(VirtioDevice::new(id, transport.clone(), Some(disk.clone()))));
        self.transports.push((slot, transport));
        let (taken, hold) = (AtomicBool::new(false), Some(hold.into()));
        self.disks.push(MachineDisk { id: id.clone(), disk, device, slot, taken, hold });
        let config = DeviceConfig { id: id.clone(), slot, kind: DeviceKind::Disk(plan) };
        self.config_mut().devices.push(config);
        Ok(slot)
    }

    /// Ask the guest to let go of a disk; with `force`, take it away at once, and tell the guest
    /// afterwards.
    ///
    /// # Errors
    /// There is no such disk, or it can't go while the guest runs; the host's storage does not
    /// answer.
    pub fn detach(&mut self, id: &DeviceId, force: bool, report: &Report) -> Result<()> {
        let hot = self.hot()?;
        let disk = self.disks.iter().find(|disk| disk.id == *id);
        let slot = disk.ok_or_else(|| Error::failure(format!("it has no disk {id}")))?.slot;
        if !hot.is_hot(slot) {
            let why = format!("{id} can't go while the guest runs; stop the instance first");
            return Err(Error::failure(why));
        }
        if !force {
            hot.ports.ask(slot);
        } else {
            hot.bus.root.hide(1 << slot);
            self.take_off(slot, report)?;
            self.hot()?.ports.tell_gone(slot);
        }
        self.power.tell_hot_plug();
        Ok(())
    }

    /// Take off the bus what the guest has let go of. What can't be taken goes to `report`.
    pub fn take_released(&mut self, report: &Report) {
        let Some(hot) = &self.hot else { return };
        let _ = hot.ports.wake().read();
        let slots = hot.ports.released();
        self.take_all_off(slots, report);
    }

    /// Take off the bus what the guest was asked to let go of: it is reset, and holds nothing.
    pub fn take_leaving(&mut self, report: &Report) {
        let slots = self.hot.as_ref().map_or(0, |hot| hot.ports.all_leaving());
        self.take_all_off(slots, report);
    }

    fn take_all_off(&mut self, slots: u32, report: &Report) {
        for slot in (0..u32::BITS as u8).filter(|slot| slots >> slot & 1 != 0) {
            if let Err(error) = self.take_off(slot, report) {
                report.notice(&error.to_string());
            }
        }
    }

    /// End what serves a disk, make it durable, and let go of its volume.
    fn take_off(&mut self, slot: u8, report: &Report) -> Result<()> {
        let at = self.disks.iter().position(|disk| disk.slot == slot);
        let (Some(hot), Some(at)) = (&self.hot, at) else { return Ok(()) };
        let transport = self.transports.iter().find(|(other, _)| *other == slot);
        if let Some((_, transport)) = transport {
            if !transport.shutdown(Instant::now() + REST) {
                let id = &self.disks[at].id;
                let why = format!("{id} can't go yet: the host's storage does not answer");
                return Err(Error::failure(why));
            }
            hot.bus.root.unplug(slot);
            transport.leave();
        }
        hot.ports.unplugged(slot);
        let disk = self.disks.remove(at);
        let name = VirtioDevice::name_of(&disk.id);
        self.parts.retain(|part| part.name() != name);
        self.transports.retain(|(other, _)| *other != slot);
        self.config_mut().devices.retain(|device| device.slot != slot);
        let closed = disk.disk.close_within(CLOSING).or_fail(|| format!("close {name}"));
        if let Err(error) = closed {
            report.notice(&error.to_string());
        }
        Ok(())
    }

    /// How far a disk has come, or gone.
    pub fn disk_state(&self, disk: &MachineDisk) -> DiskState {
        let transport = self.transports.iter().find(|(slot, _)| *slot == disk.slot);
        let live = transport.is_some_and(|(_, transport)| transport.is_live());
        if live {
            disk.taken.store(true, Ordering::Relaxed);
        }
        match self.hot.as_ref().and_then(|hot| hot.ports.leaving(disk.slot)) {
            Some(heard) if heard && live => DiskState::Busy,
            Some(_) => DiskState::Detaching,
            None if disk.taken.load(Ordering::Relaxed) => DiskState::Attached,
            None => DiskState::Attaching,
        }
    }
}
