//! Status, features, queues and workers of a device, which all transports share; each of them is a
//! way to spell it in registers.

use crate::error::{Error, Result};
use crate::mem::GuestRam;
use crate::virtio::command::{Ending, Rings, Served};
use crate::virtio::device::{Device, DeviceState, Services, Signal, ThreadStart};
use crate::virtio::queue::{QueueState, SplitQueue};
use crate::virtio::worker::Worker;
use crate::virtio::{Notices, feature};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// Device status bits. (VIRTIO 1.2, 2.1)
pub mod status {
    use virtio_bindings::virtio_config::*;

    /// The guest found the device.
    pub const ACKNOWLEDGE: u8 = VIRTIO_CONFIG_S_ACKNOWLEDGE as u8;
    /// The guest can drive it.
    pub const DRIVER: u8 = VIRTIO_CONFIG_S_DRIVER as u8;
    /// Features are agreed upon.
    pub const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
    /// The device cannot go on until it is reset. Ours to set.
    pub const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;
    /// The driver gave up.
    pub const FAILED: u8 = VIRTIO_CONFIG_S_FAILED as u8;
}

/// What a snapshot keeps of a device and of what every transport knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtioState {
    /// The driver's part of the device status.
    pub status: u8,
    /// The device is stopped (DEVICE_NEEDS_RESET).
    pub needs_reset: bool,
    /// Features that the driver accepted.
    pub driver_features: u64,
    /// Its queues.
    pub queues: Vec<QueueState>,
    /// The device's own state.
    pub device: DeviceState,
}

/// A device's core with the registers that say which part of it others show.
pub struct Registers {
    /// What the registers show.
    pub core: VirtioCore,
    /// Which 32 of the device's features.
    pub device_features_sel: u32,
    /// Which 32 of the driver's.
    pub driver_features_sel: u32,
    /// Which queue.
    pub queue_sel: u32,
}

impl Registers {
    /// As after reset.
    pub fn new(core: VirtioCore) -> Self {
        Self { core, device_features_sel: 0, driver_features_sel: 0, queue_sel: 0 }
    }

    /// As after reset, with the core. True if nothing is in flight when it returns.
    pub fn reset(&mut self) -> bool {
        (self.device_features_sel, self.driver_features_sel, self.queue_sel) = (0, 0, 0);
        self.core.reset()
    }

    /// The 32 features that DeviceFeaturesSel chooses.
    pub fn device_features(&self) -> u32 {
        half(self.core.features(), self.device_features_sel)
    }
}

/// 32 of the bits, as `select` says.
pub fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

/// Set the low half.
pub fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

/// Set the high half.
pub fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}

/// Whether a device is stopped, and who is told of it.
pub struct NeedsReset {
    stopped: AtomicBool,
    /// The device's.
    pub name: String,
    /// Who is told.
    pub notices: Notices,
}

impl NeedsReset {
    /// That of the device of this name, which is not.
    pub fn new(name: &str, notices: Notices) -> Self {
        Self { stopped: AtomicBool::new(false), name: name.to_owned(), notices }
    }

    /// It is stopped.
    pub fn is_set(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Stop it or not, without telling anybody.
    pub fn set(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::SeqCst);
    }

    /// Stop it for this reason; true if it was not stopped before.
    pub fn stop(&self, reason: &str) -> bool {
        let first = !self.stopped.swap(true, Ordering::SeqCst);
        if first {
            let name = &self.name;
            self.notices.tell(&format!("{name} stopped until the guest resets it: {reason}"));
        }
        first
    }
}

/// The transport's end of [`Signal`].
pub trait Interrupt: Signal {
    /// The device was reset: it is not stopped, and no interrupt is pending.
    fn clear(&self);
    /// As `stop`, without telling anybody: from a saved state.
    fn set_stopped(&self);
}

/// Keeps where parked queues are.
fn keep_states(queues: &mut [QueueState], rings: Option<Rings>) {
    for Served { queue, ring, .. } in rings.into_iter().flatten() {
        if let Some(state) = queues.get_mut(usize::from(queue)) {
            *state = QueueState { ready: state.ready, ..ring.state() };
        }
    }
}

/// Status, features, queues and workers of one device.
pub struct VirtioCore {
    device: Arc<dyn Device>,
    ram: GuestRam,
    interrupt: Arc<dyn Interrupt>,
    status: u8,
    driver_features: u64,
    queues: Vec<QueueState>,
    workers: Vec<Worker>,
}

impl VirtioCore {
    /// A device as it is after reset, with its worker threads: `services` are all of its queues',
    /// in order.
    ///
    /// # Errors
    /// No file descriptors are left, or the host has no threads for us.
    pub fn new(
        device: Arc<dyn Device>,
        services: Services,
        ram: GuestRam,
        interrupt: Arc<dyn Interrupt>,
        on_start: &ThreadStart,
    ) -> io::Result<Self> {
        let count = device.queue_sizes().len();
        debug_assert!(
            services.iter().flat_map(|service| service.queues.clone()).eq(0..count as u16)
        );
        let signal: Arc<dyn Signal> = interrupt.clone();
        device.connect(signal.clone());
        let workers = services
            .into_iter()
            .map(|service| Worker::new(device.kind(), service, signal.clone(), on_start.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        let queues = vec![QueueState::default(); count];
        Ok(Self { device, ram, interrupt, status: 0, driver_features: 0, queues, workers })
    }

    /// The device.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// All features offered.
    pub fn features(&self) -> u64 {
        feature::RING | self.device.features()
    }

    /// Features that the driver accepted so far.
    pub fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// Replace 32 of the accepted features, `select` 0 or 1. Ignored when it is not the time.
    /// (3.1.1)
    pub fn set_driver_features(&mut self, select: u32, value: u32) {
        let negotiating =
            self.status & (status::DRIVER | status::FEATURES_OK | status::FAILED) == status::DRIVER;
        if !negotiating || select > 1 {
            return;
        }
        let shift = 32 * select;
        self.driver_features &= !(u64::from(u32::MAX) << shift);
        self.driver_features |= u64::from(value) << shift;
    }

    /// The device status, with our own bit.
    pub fn status(&self) -> u8 {
        self.status | if self.interrupt.stopped() { status::NEEDS_RESET } else { 0 }
    }

    /// The driver writes the status. Zero resets; a bit once set stays; steps out of order are
    /// ignored. (2.1.1, 3.1.1)
    pub fn set_status(&mut self, value: u8) {
        if value == 0 {
            self.reset();
            return;
        }
        let value = value & !status::NEEDS_RESET;
        if self.status & !value != 0 || self.status & status::FAILED != 0 {
            return;
        }
        for (bit, requires) in [
            (status::ACKNOWLEDGE, 0),
            (status::DRIVER, status::ACKNOWLEDGE),
            (status::FEATURES_OK, status::DRIVER),
            (status::DRIVER_OK, status::FEATURES_OK),
            (status::FAILED, 0),
        ] {
            let new = value & bit != 0 && self.status & bit == 0;
            if !new || self.status & requires != requires {
                continue;
            }
            if bit == status::FEATURES_OK && !self.features_acceptable() {
                continue;
            }
            self.status |= bit;
            if bit == status::DRIVER_OK {
                self.resume();
            }
        }
    }

    /// 2.2.2, 6.1: a subset of what is offered, and no legacy driver.
    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.features() == 0
            && self.driver_features & feature::VERSION_1 != 0
    }

    /// The largest size of a queue; 0 if there is none of that number.
    pub fn max_queue_size(&self, queue: u32) -> u16 {
        self.device.queue_sizes().get(queue as usize).copied().unwrap_or(0)
    }

    /// How many queues there are.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// The driver is ready and the device serves it.
    pub fn live(&self) -> bool {
        let phase = status::DRIVER_OK | status::FAILED;
        self.status & phase == status::DRIVER_OK && !self.interrupt.stopped()
    }

    /// The registers of a queue.
    pub fn queue(&self, queue: u32) -> Option<&QueueState> {
        self.queues.get(queue as usize)
    }

    /// The registers of a queue, if the driver may set them now: features agreed upon, the driver
    /// and the queue not live. (3.1.1, 4.2.2.2)
    pub fn queue_setup(&mut self, queue: u32) -> Option<&mut QueueState> {
        let phase = status::FEATURES_OK | status::DRIVER_OK | status::FAILED;
        let set_up = self.status & phase == status::FEATURES_OK;
        self.queues.get_mut(queue as usize).filter(|state| set_up && !state.ready)
    }

    /// The driver hands a queue over, or takes it back. A queue that cannot be stops the device.
    pub fn set_queue_ready(&mut self, queue: u32, ready: bool) {
        if !ready {
            self.take_queue_back(queue);
            return;
        }
        let (ram, max) = (self.ram.clone(), self.max_queue_size(queue));
        let Some(state) = self.queue_setup(queue) else { return };
        (state.next_avail, state.next_used) = (0, 0);
        match state.check(&ram, max) {
            Ok(()) => state.ready = true,
            Err(reason) => self.interrupt.stop(&format!("queue {queue} cannot be used: {reason}")),
        }
    }

    fn take_queue_back(&mut self, queue: u32) {
        let Some(state) = self.queues.get_mut(queue as usize) else { return };
        if !std::mem::take(&mut state.ready) {
            return;
        }
        let serves = |worker: &Worker| worker.queues().contains(&(queue as u16));
        let Some(index) = self.workers.iter().position(serves) else { return };
        let worker = &mut self.workers[index];
        if worker.queues().len() == 1 {
            worker.cease();
            return;
        }
        // The others of its service go on where they were.
        let rings = worker.park();
        if !worker.rests() {
            self.interrupt
                .stop(&format!("queue {queue} is in use: the host's storage does not answer"));
            return;
        }
        keep_states(&mut self.queues, rings);
        if self.live()
            && let Err(reason) = self.run(index)
        {
            self.interrupt.stop(&format!("a queue cannot be served: {reason}"));
        }
    }

    /// Where the driver's notifications of a queue arrive, which may be those of others, too.
    pub fn notify_fd(&self, queue: u32) -> Option<&EventFd> {
        let queue = u16::try_from(queue).ok()?;
        let worker = self.workers.iter().find(|worker| worker.queues().contains(&queue))?;
        Some(worker.notify_fd())
    }

    /// The driver notifies of a queue.
    pub fn notify(&self, queue: u32) {
        if let Some(event) = self.notify_fd(queue) {
            // It fails only when the counter is full, and then the worker is woken already.
            let _ = event.write(1);
        }
    }

    /// Back to the state after power-on. True if nothing is in flight when it returns (2.1.2,
    /// 2.4.1); else the host's storage does not answer, and a queue that waits for it can't be
    /// served.
    pub fn reset(&mut self) -> bool {
        Worker::cease_all(&mut self.workers);
        self.device.reset();
        self.interrupt.clear();
        self.status = 0;
        self.driver_features = 0;
        self.queues.fill(QueueState::default());
        self.workers.iter().all(Worker::rests)
    }

    /// The ends of its workers' threads.
    pub fn endings(&self) -> Vec<Ending> {
        self.workers.iter().map(Worker::ending).collect()
    }

    /// Stops serving and finishes what is in flight. [`Self::resume`] goes on.
    ///
    /// # Errors
    /// The host's storage does not answer.
    pub fn pause(&mut self) -> Result<()> {
        for rings in Worker::park_all(&mut self.workers) {
            keep_states(&mut self.queues, Some(rings));
        }
        if self.workers.iter().all(Worker::rests) {
            return Ok(());
        }
        let name = self.device.name();
        Err(Error::failure(format!(
            "{name} does not come to rest: the host's storage does not answer"
        )))
    }

    /// Let the workers serve, if the driver is ready and the device not stopped.
    pub fn resume(&mut self) {
        if !self.live() {
            return;
        }
        for index in 0..self.workers.len() {
            if let Err(reason) = self.run(index) {
                return self.interrupt.stop(&format!("a queue cannot be served: {reason}"));
            }
        }
    }

    /// Lets a worker serve those of its queues that are ready.
    fn run(&mut self, index: usize) -> Result<(), String> {
        let (worker, sizes) = (&mut self.workers[index], self.device.queue_sizes());
        let mut rings = Rings::new();
        for queue in worker.queues() {
            let at = usize::from(queue);
            if let (Some(state), Some(max)) =
                (self.queues.get(at).filter(|q| q.ready), sizes.get(at))
            {
                let ring = SplitQueue::new(self.ram.clone(), *state, *max, self.driver_features);
                rings.push(Served::new(queue, ring.map_err(|e| e.to_string())?));
            }
        }
        if rings.is_empty() {
            return Ok(());
        }
        worker.run(rings, self.driver_features).map_err(|e| e.to_string())
    }

    /// Pauses, and says what there is to keep.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub fn save(&mut self) -> Result<VirtioState> {
        self.pause()?;
        Ok(VirtioState {
            status: self.status,
            needs_reset: self.interrupt.stopped(),
            driver_features: self.driver_features,
            queues: self.queues.clone(),
            device: self.device.save(),
        })
    }

    /// The error of a state that is another transport's.
    pub fn other_transport(&self) -> Error {
        let name = self.device.name();
        Error::failure(format!("the saved state of {name} is of another transport"))
    }

    /// Take over a saved state. [`Self::resume`] lets it live.
    ///
    /// # Errors
    /// It is the state of another device.
    pub fn restore(&mut self, state: &VirtioState) -> Result<()> {
        let name = self.device.name();
        if state.queues.len() != self.queues.len() {
            return Err(Error::failure(format!(
                "{name} has {} queues and its saved state {}",
                self.queues.len(),
                state.queues.len()
            )));
        }
        // Until they are agreed upon they are whatever the driver has written so far.
        let agreed = state.status & (status::FEATURES_OK | status::DRIVER_OK) != 0;
        if agreed && state.driver_features & !self.features() != 0 {
            return Err(Error::failure(format!(
                "the saved state of {name} uses features that it does not have: {:#x}",
                state.driver_features & !self.features()
            )));
        }
        self.reset();
        self.device.restore(&state.device)?;
        self.status = state.status & !status::NEEDS_RESET;
        self.driver_features = state.driver_features;
        self.queues.clone_from(&state.queues);
        if state.needs_reset {
            self.interrupt.set_stopped();
        }
        Ok(())
    }
}
