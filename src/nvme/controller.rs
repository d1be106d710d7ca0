//! The controller as a function on the PCI bus: configuration space, memory, doorbells. (NVM
//! Express 1.4, 2.1 and 3.1)
//!
//! Locks are taken in this order: configuration, registers, vectors.

use super::TYPE;
use super::admin::{self, Admin};
use super::command::{COMMAND_LEN, COMPLETION_LEN};
use super::identify::VENDOR;
use super::io::IoThread;
use super::namespace::{Changed, Drive};
use super::queue::{MAX_ENTRIES, Ring, Submission, fits};
use super::registers::{self, Registers};
use super::shared::Shared;
use crate::chipset::pci::config::{ConfigSpace, Identity};
use crate::chipset::pci::{Function, Window};
use crate::error::{Error, Result};
use crate::mem::GuestRam;
use crate::sys::process::not_started;
use crate::virtio::Notices;
use crate::virtio::command::{self, Ending};
use crate::virtio::device::{DeviceState, Signal, ThreadStart};
use crate::virtio::transport::pci::{BAR_LEN, MsiRouting, MsixVector, PciInterrupt, Vectors};
use crate::virtio::transport::virtio_core::{Interrupt, NeedsReset};
use crate::virtio::transport::{Transport, TransportState};
use crate::virtio::worker::Worker;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// The EBS controller of EC2.
const DEVICE: u16 = 0x8061;
/// The structures' places in the memory.
const DOORBELLS: u64 = 0x1000;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_PENDING: u64 = 0x5000;
/// Bytes of each.
const PAGE: u64 = 0x1000;
/// CAP.DSTRD is 0: doorbells are 4 bytes, those of a queue side by side.
const DOORBELL: u64 = 4;
/// MSI-X. (PCI Local Bus 3.0, appendix H)
const CAP_MSIX: u8 = 0x11;
/// Version of [`State`].
const STATE_VERSION: u16 = 1;

/// What a snapshot keeps of a controller.
#[derive(Serialize, Deserialize)]
struct State {
    /// Bytes of the disk, and whether it is read-only.
    disk: (u64, bool),
    registers: registers::State,
    admin: admin::State,
    /// The submission queues that there are, the admin queue first, each with its tail.
    submission: Vec<(Submission, u32)>,
    /// The completion queues, or their places, each with the driver's head.
    completion: Vec<(Option<Ring>, u32)>,
    stopped: bool,
    vectors: Vectors,
    config: Vec<u8>,
}

/// Configuration space, and what is where in it.
struct Config {
    space: ConfigSpace,
    /// As it is after reset.
    fresh: ConfigSpace,
    /// The MSI-X capability.
    msix: usize,
}

impl Config {
    fn new(base: u32, vectors: u16) -> Self {
        let mut space = ConfigSpace::new(&Identity {
            vendor: VENDOR,
            device: DEVICE,
            subsystem: (VENDOR, 0),
            class: TYPE.pci_class,
            revision: 0,
        });
        space.set_bar0(base, BAR_LEN);
        // Message Control: the table's size less one, and the two bits that the driver writes. (PCI
        // 3.0, 6.8.2.3)
        let mut body = (vectors - 1).to_le_bytes().to_vec();
        body.extend((MSIX_TABLE as u32).to_le_bytes());
        body.extend((MSIX_PENDING as u32).to_le_bytes());
        let msix = space.add_capability(CAP_MSIX, &body, &[0, 0xc0]);
        Self { fresh: space.clone(), space, msix: msix.into() }
    }
}

/// Vectors of a controller with so many I/O queues: one each, and the admin queue's.
pub fn vectors(drive: &Drive) -> usize {
    drive.queues.len() + 1
}

/// A controller.
pub struct Controller {
    name: String,
    shared: Arc<Shared>,
    interrupt: Arc<PciInterrupt>,
    registers: Mutex<Registers>,
    /// The namespace has changed, and [`Registers`] have not been told.
    changed: AtomicBool,
    config: Mutex<Config>,
    window: Window,
    /// Wakes the thread of each I/O submission queue, by number less 1.
    bells: Vec<Arc<command::Shared<Submission>>>,
    endings: Vec<Ending>,
}

/// A lock whose content is valid between any two statements, so that a poisoned one is as good as
/// another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controller {
    /// Make a controller of a drive, whose memory is at `base` when the guest finds it. There is
    /// one of `irqs` for each of its [`vectors`]; `on_start` is called first in each thread.
    ///
    /// # Errors
    /// No file descriptors are left, or the host has no thread for us.
    pub fn new(
        drive: Drive,
        ram: GuestRam,
        base: u32,
        (irqs, routing): (Vec<MsixVector>, Arc<dyn MsiRouting>),
        notices: Notices,
        on_start: &ThreadStart,
    ) -> Result<Arc<Self>> {
        let Drive { namespace, device, granularity, queues } = drive;
        let (disk, count) = (namespace.disk.clone(), queues.len() as u16);
        let name = disk.name.clone();
        let config = Config::new(base, irqs.len() as u16);
        let stopped = NeedsReset::new(&name, notices);
        let interrupt = Arc::new(PciInterrupt::new(stopped, usize::from(count) + 1, irqs, routing));
        let shared = Arc::new(Shared::new(disk, ram, count, interrupt.clone()));
        let doing = |cause| not_started("create the queues of an NVMe controller", cause);
        let (mut workers, mut bells) = (Vec::new(), Vec::new());
        for (number, queue) in (1..).zip(queues) {
            let (shared, on_start) = (shared.clone(), on_start.clone());
            let worker = Worker::start(&TYPE, number..number + 1, move |orders| {
                IoThread::new(orders, shared, queue).main(on_start);
            });
            let worker = worker.map_err(doing)?;
            bells.push(worker.shared());
            workers.push(worker);
        }
        let endings = workers.iter().map(Worker::ending).collect();
        let admin = Admin::new(shared.clone(), device, granularity, workers);
        let registers = Registers::new(shared.clone(), interrupt.clone(), admin);
        let controller = Arc::new(Self {
            name,
            shared,
            interrupt,
            registers: Mutex::new(registers),
            changed: AtomicBool::new(false),
            config: Mutex::new(config),
            window: Window::new(BAR_LEN.into()),
            bells,
            endings,
        });
        // Once, as this is the one controller.
        let _ = namespace.controller.set(controller.clone());
        Ok(controller)
    }

    /// Do something with the registers; then what had to wait for them.
    fn with_registers<T>(&self, work: impl FnOnce(&mut Registers) -> T) -> T {
        let done = work(&mut lock(&self.registers));
        self.tell_changes();
        done
    }

    /// Tell the driver what has changed. Whoever has the registers may wait for the host's storage,
    /// and does this when it is done with them.
    fn tell_changes(&self) {
        while self.changed.load(Ordering::SeqCst) {
            let mut registers = match self.registers.try_lock() {
                Ok(registers) => registers,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            if self.changed.swap(false, Ordering::SeqCst) {
                registers.namespace_changed();
            }
        }
    }

    /// The driver rings a doorbell: of submission queue n at 2 n, of completion queue n behind it.
    fn ring(&self, doorbell: u64, value: u32) {
        let queue = (doorbell / 2) as u16;
        let sound = if doorbell.is_multiple_of(2) {
            let moved = self.shared.move_tail(queue, value);
            if moved {
                self.wake(queue);
            }
            moved
        } else {
            let moved =
                self.shared.completion(queue).and_then(|completion| completion.move_head(value));
            if moved == Some(true) {
                // Any submission queue may complete there.
                (0..=self.shared.queues()).for_each(|queue| self.wake(queue));
            }
            moved.is_some()
        };
        if !sound {
            // 5.2: Invalid Doorbell Write Value. It counts for nothing.
            self.shared.disk.notices.tell(&format!(
                "{}: the guest wrote {value:#x} to doorbell {doorbell}, which has no such value",
                self.name
            ));
        }
    }

    fn wake(&self, queue: u16) {
        match queue.checked_sub(1) {
            None => self.with_registers(Registers::serve_admin),
            Some(at) => {
                if let Some(bell) = self.bells.get(usize::from(at)) {
                    // It fails only when the counter is full, and then the thread is woken already.
                    let _ = bell.notify.write(1);
                }
            }
        }
    }

    /// Have the queues of a saved state served again, which are what they say they are.
    fn take_queues(&self, registers: &mut Registers, state: &State) -> Result<()> {
        let other = || Error::failure(format!("the saved state of {} is damaged", self.name));
        for (id, (ring, head)) in (0..).zip(&state.completion) {
            let fits = |ring: &Ring| {
                (2..=4096).contains(&ring.size)
                    && ring.tail < ring.size
                    && *head < ring.size
                    && fits(&self.shared.ram, ring.base, ring.size, COMPLETION_LEN)
            };
            if ring.as_ref().is_some_and(|ring| !fits(ring)) {
                return Err(other());
            }
            self.shared.completion(id).ok_or_else(other)?.set(*ring, *head);
        }
        for (queue, tail) in &state.submission {
            let fits = (2..=4096).contains(&queue.size)
                && queue.head < queue.size
                && *tail < queue.size
                && queue.id <= self.shared.queues()
                && queue.backlog.len() <= 2 * MAX_ENTRIES as usize
                && fits(&self.shared.ram, queue.base, queue.size, COMMAND_LEN);
            if !fits || self.shared.submission_size(queue.id) != 0 {
                return Err(other());
            }
            self.shared.set_submission(queue.id, queue.size, *tail);
            registers.hold(queue.clone());
        }
        Ok(())
    }
}

impl Changed for Controller {
    fn namespace_changed(&self) {
        self.changed.store(true, Ordering::SeqCst);
        self.tell_changes();
    }
}

impl Transport for Controller {
    fn pause(&self) -> Result<()> {
        if self.with_registers(Registers::pause) {
            return Ok(());
        }
        let name = &self.name;
        Err(Error::failure(format!(
            "{name} does not come to rest: the host's storage does not answer"
        )))
    }

    fn resume(&self) {
        self.with_registers(Registers::resume);
        self.interrupt.repeat();
    }

    fn save(&self) -> Result<TransportState> {
        self.pause()?;
        let config = lock(&self.config);
        let registers = lock(&self.registers);
        let geometry = self.shared.disk.geometry();
        let queues = 0..=self.shared.queues();
        let completion = queues.filter_map(|id| self.shared.completion(id));
        let submission = registers.held();
        let state = State {
            disk: (geometry.size, geometry.read_only),
            registers: registers.state.clone(),
            admin: registers.admin.state.clone(),
            submission: submission
                .map(|queue| (queue.clone(), self.shared.tail(queue.id)))
                .collect(),
            completion: completion.map(|queue| (*queue.ring(), queue.head())).collect(),
            stopped: self.interrupt.stopped(),
            vectors: self.interrupt.save().1,
            config: config.space.save(),
        };
        Ok(TransportState::Nvme(DeviceState::new(&TYPE, STATE_VERSION, &state)))
    }

    fn restore(&self, state: &TransportState) -> Result<()> {
        let mut config = lock(&self.config);
        let mut registers = lock(&self.registers);
        let TransportState::Nvme(state) = state else {
            let name = &self.name;
            return Err(Error::failure(format!("the saved state of {name} is of another bus")));
        };
        let state: State = state.decode(&self.name, &TYPE, STATE_VERSION)?;
        let geometry = self.shared.disk.geometry();
        let queues = self.shared.queues();
        let count = |vectors: &Vectors| (vectors.msix.vectors(), vectors.queues.len());
        let same = state.disk == (geometry.size, geometry.read_only)
            && state.admin.is_of(queues)
            && state.completion.len() == usize::from(queues) + 1
            && self.interrupt.with(count) == count(&state.vectors);
        if !same {
            return Err(Error::failure(format!(
                "the saved state is of another disk than {}: size, queues or read-only differ",
                self.name
            )));
        }
        config.space.restore(&state.config)?;
        self.window.follow(&config.space);
        registers.reset();
        self.take_queues(&mut registers, &state)?;
        registers.state = state.registers;
        self.shared.set_cached(state.admin.cached());
        registers.admin.state = state.admin;
        if state.stopped {
            self.interrupt.set_stopped();
        }
        self.interrupt.restore(0, &state.vectors);
        Ok(())
    }

    fn reset(&self) -> bool {
        let mut config = lock(&self.config);
        config.space = config.fresh.clone();
        self.window.follow(&config.space);
        let rests = self.with_registers(Registers::reset);
        self.interrupt.power_on();
        rests
    }

    fn endings(&self) -> &[Ending] {
        &self.endings
    }

    fn is_live(&self) -> bool {
        // Whoever holds the lock may wait for the host's storage.
        self.registers.try_lock().is_ok_and(|registers| registers.is_ready())
    }

    fn leave(&self) {
        self.interrupt.leave();
    }
}

impl Function for Controller {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        lock(&self.config).space.read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        let mut config = lock(&self.config);
        config.space.write(offset, data);
        let control = config.space.u16_at(config.msix + 2);
        self.interrupt.change(|vectors| vectors.msix.set_control(control));
        self.window.follow(&config.space);
    }

    fn window(&self) -> &Window {
        &self.window
    }

    fn read_memory(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let at = offset % PAGE;
        match offset - at {
            0 => self.with_registers(|registers| registers.read(at, data)),
            // 3.1.25: what is read there is not defined.
            DOORBELLS => data.fill(0),
            MSIX_TABLE => self.interrupt.with(|vectors| vectors.msix.read_table(at, data)),
            MSIX_PENDING => self.interrupt.with(|vectors| vectors.msix.read_pending(at, data)),
            _ => {}
        }
    }

    fn write_memory(&self, offset: u64, data: &[u8]) {
        let at = offset % PAGE;
        match (offset - at, data) {
            (0, _) => self.with_registers(|registers| registers.write(at, data)),
            (DOORBELLS, &[a, b, c, d]) if at.is_multiple_of(DOORBELL) => {
                // 16 bits of value; the others are reserved.
                let value = u32::from_le_bytes([a, b, c, d]) & 0xffff;
                self.ring(at / DOORBELL, value);
            }
            (MSIX_TABLE, _) => self.interrupt.write_table(at, data),
            // The rest is read-only.
            _ => {}
        }
    }
}
