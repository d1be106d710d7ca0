//! A controller's registers. (NVM Express 1.4, 3.1)

use super::admin::Admin;
use super::command::{COMMAND_LEN, COMPLETION_LEN, Completion};
use super::identify::VERSION;
use super::queue::{MAX_ENTRIES, Ring, Submission, fits};
use super::shared::Shared;
use crate::virtio::transport::pci::{NO_VECTOR, PciInterrupt};
use crate::virtio::transport::virtio_core::{Interrupt, set_high, set_low};
use crate::virtio::worker::Worker;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Registers, by offset.
const CAP: u64 = 0x00;
const VS: u64 = 0x08;
const INTMS: u64 = 0x0c;
const INTMC: u64 = 0x10;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;

/// CAP: MQES, CQR, TO (in units of half a second, the longest there is: what is in flight ends when
/// the host's storage answers), and of CSS the NVM command set.
const CAPABILITIES: u64 = (MAX_ENTRIES as u64 - 1) | 1 << 16 | 255 << 24 | 1 << 37;
/// CC: EN; and MPS, CSS and AMS, of which there is one each, 0.
const ENABLE: u32 = 1;
const CHOICES: u32 = 0x3ff0;
/// CC.SHN, and CSTS.SHST when it is complete.
const SHUTDOWN: u32 = 3 << 14;
const SHUT_DOWN: u32 = 2 << 2;
/// CSTS: RDY and CFS.
const READY: u32 = 1;
const FATAL: u32 = 1 << 1;

/// What a snapshot keeps of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    configuration: u32,
    status: u32,
    admin_sizes: u32,
    admin_submission: u64,
    admin_completion: u64,
    mask: u32,
}

/// The registers, and what they are in front of.
pub struct Registers {
    shared: Arc<Shared>,
    interrupt: Arc<PciInterrupt>,
    /// As the driver has set them.
    pub state: State,
    /// What the admin queue's commands do.
    pub admin: Admin,
    /// The admin submission queue, while the controller is enabled.
    queue: Option<Submission>,
    /// I/O submission queues that nobody serves at the moment.
    held: Vec<Submission>,
}

impl State {
    fn new() -> Self {
        Self {
            configuration: 0,
            status: 0,
            admin_sizes: 0,
            admin_submission: 0,
            admin_completion: 0,
            mask: 0,
        }
    }
}

impl Registers {
    /// As after power-on.
    pub fn new(shared: Arc<Shared>, interrupt: Arc<PciInterrupt>, admin: Admin) -> Self {
        Self { shared, interrupt, state: State::new(), admin, queue: None, held: Vec::new() }
    }

    /// The driver has the controller ready.
    pub fn is_ready(&self) -> bool {
        self.state.status & READY != 0 && !self.shared.stopped()
    }

    /// The guest reads: 4 or 8 bytes, aligned; else all ones.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len() as u64) {
            return;
        }
        for (at, data) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            data.copy_from_slice(&self.dword(at).to_le_bytes());
        }
    }

    fn dword(&self, offset: u64) -> u32 {
        let fatal = if self.shared.stopped() { FATAL } else { 0 };
        let half = |value: u64| (value >> (8 * (offset & 4))) as u32;
        match offset {
            VS => VERSION,
            INTMS | INTMC => self.state.mask,
            CC => self.state.configuration,
            // 3.1.6: RDY is cleared when the controller is ready to be enabled again.
            CSTS if !self.rests() => self.state.status | fatal | READY,
            CSTS => self.state.status | fatal,
            AQA => self.state.admin_sizes,
            _ => match offset & !7 {
                CAP => half(CAPABILITIES),
                ASQ => half(self.state.admin_submission),
                ACQ => half(self.state.admin_completion),
                _ => 0,
            },
        }
    }

    /// The guest writes: 4 or 8 bytes, aligned.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len() as u64) {
            return;
        }
        for (at, data) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            let value = data.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            self.set_dword(at, value);
        }
    }

    fn set_dword(&mut self, offset: u64, value: u32) {
        let enabled = self.state.configuration & ENABLE != 0;
        match offset {
            // Of pins, which no function of ours has: MSI-X is masked by its table. (3.1.3)
            INTMS => self.state.mask |= value,
            INTMC => self.state.mask &= !value,
            CC => self.configure(value),
            // The admin queue is where it was when the controller was enabled.
            _ if enabled => {}
            AQA => self.state.admin_sizes = value & 0xfff_0fff,
            _ => {
                let state = &mut self.state;
                let (address, value) = match offset & !7 {
                    ASQ => (&mut state.admin_submission, value),
                    ACQ => (&mut state.admin_completion, value),
                    _ => return,
                };
                // Bits 11:0 are reserved.
                match offset & 4 {
                    0 => set_low(address, value & !0xfff),
                    _ => set_high(address, value),
                }
            }
        }
    }

    /// CC is written.
    fn configure(&mut self, value: u32) {
        let before = std::mem::replace(&mut self.state.configuration, value);
        if before & ENABLE != 0 && value & ENABLE == 0 {
            let configuration = self.state.configuration;
            self.disable();
            self.state.configuration = configuration;
        }
        if before & ENABLE == 0 && value & ENABLE != 0 {
            self.enable();
        }
        match value & SHUTDOWN {
            0 => self.state.status &= !SHUT_DOWN,
            // What was flushed is durable, and the end of the machine makes the rest so.
            _ => self.state.status |= SHUT_DOWN,
        }
    }

    /// No I/O queue's thread is in the middle of something.
    fn rests(&self) -> bool {
        self.state.configuration & ENABLE != 0 || self.admin.rests()
    }

    fn enable(&mut self) {
        let entries = |sizes: u32| (sizes & 0xfff) + 1;
        let (submissions, completions) =
            (entries(self.state.admin_sizes), entries(self.state.admin_sizes >> 16));
        let (base, completion) = (self.state.admin_submission, self.state.admin_completion);
        let sound = self.state.configuration & CHOICES == 0
            && submissions >= 2
            && completions >= 2
            && fits(&self.shared.ram, base, submissions, COMMAND_LEN)
            && fits(&self.shared.ram, completion, completions, COMPLETION_LEN);
        if !sound {
            let why = "the guest enabled it with an admin queue or a page size that can't be";
            return self.shared.stop(why);
        }
        // What comes late would be told in queues that are another driver's.
        if !self.admin.rests() {
            return self.shared.stop("the guest enabled it before what was in flight had ended");
        }
        let ring = Ring { base: completion, size: completions, tail: 0, phase: true };
        if let Some(queue) = self.shared.completion(0) {
            queue.set(Some(ring), 0);
        }
        let backlog = VecDeque::new();
        let size = submissions;
        self.queue = Some(Submission { id: 0, base, size, head: 0, completes_in: 0, backlog });
        self.shared.set_submission(0, size, 0);
        self.set_vector(0, Some(0));
        self.state.status = READY;
    }

    /// The Controller Reset: all but the admin queue's registers is as after power-on. (7.3.2)
    /// True if nothing is in flight when it returns.
    fn disable(&mut self) -> bool {
        let rests = self.admin.reset();
        self.queue = None;
        self.held.clear();
        let State { admin_sizes, admin_submission, admin_completion, .. } = self.state;
        self.state = State { admin_sizes, admin_submission, admin_completion, ..State::new() };
        self.interrupt.clear();
        rests
    }

    /// As after power-on. True if nothing is in flight when it returns.
    pub fn reset(&mut self) -> bool {
        let rests = self.disable();
        self.state = State::new();
        rests
    }

    fn set_vector(&self, queue: u16, vector: Option<u16>) {
        self.interrupt.change(|vectors| {
            if let Some(place) = vectors.queues.get_mut(usize::from(queue)) {
                *place = vector.unwrap_or(NO_VECTOR);
            }
        });
    }

    /// Carry out what waits in the admin queue: a queue's worth at most.
    pub fn serve_admin(&mut self) {
        let Some(mut queue) = self.queue.take() else { return };
        let vectors = self.interrupt.with(|vectors| vectors.msix.vectors());
        for _ in 0..queue.size {
            // A driver that takes no completions gets no more commands done.
            let full = queue.backlog.len() >= MAX_ENTRIES as usize;
            if self.shared.stopped() || full && !self.shared.post(&mut queue) {
                break;
            }
            let Some(command) = queue.fetch(&self.shared.ram, self.shared.tail(0)) else { break };
            let done = match Admin::vector(&command, vectors) {
                Err(status) => Some(Completion { id: command.id(), status, result: 0 }),
                Ok(vector) => {
                    let done = self.admin.execute(&command);
                    let succeeded = done.is_some_and(|done| done.status.is_success());
                    if let (true, Some((id, vector))) = (succeeded, vector) {
                        self.set_vector(id, vector);
                    }
                    done
                }
            };
            queue.backlog.extend(done);
        }
        self.shared.post(&mut queue);
        self.queue = Some(queue);
    }

    /// Finish what is in flight. False if the host's storage does not answer.
    pub fn pause(&mut self) -> bool {
        let parked = Worker::park_all(&mut self.admin.workers);
        // Of a pause before this one nothing is known that they don't know better.
        self.held.retain(|held| parked.iter().all(|queue| queue.id != held.id));
        self.held.extend(parked);
        self.admin.rests()
    }

    /// Serve the queues that are held again.
    pub fn resume(&mut self) {
        for queue in std::mem::take(&mut self.held) {
            self.admin.run(queue);
        }
        self.admin.workers.iter().for_each(Worker::go_on);
        self.serve_admin();
    }

    /// Have a queue served at [`Self::resume`].
    pub fn hold(&mut self, queue: Submission) {
        match queue.id {
            0 => self.queue = Some(queue),
            _ => self.held.push(queue),
        }
    }

    /// The queues of a controller that is paused.
    pub fn held(&self) -> impl Iterator<Item = &Submission> {
        self.queue.iter().chain(&self.held)
    }

    /// Tell the driver that the namespace has changed, if it wants to know.
    pub fn namespace_changed(&mut self) {
        let event = self.admin.namespace_changed();
        if let Some(queue) = &mut self.queue {
            queue.backlog.extend(event);
            self.shared.post(queue);
        }
    }
}
