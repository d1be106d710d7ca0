//! The admin queue's commands, which a vCPU's thread carries out as their doorbell rings. (NVM
//! Express 1.4, 5)

use super::command::{COMMAND_LEN, COMPLETION_LEN, Command, Completion, Status};
use super::identify::{self, MAX_EVENTS};
use super::prp;
use super::queue::{MAX_ENTRIES, Ring, Submission, fits};
use super::shared::{NAMESPACE, Shared};
use crate::virtio::worker::Worker;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Opcodes. (5, figure 139)
const DELETE_SUBMISSION: u8 = 0x00;
const CREATE_SUBMISSION: u8 = 0x01;
const GET_LOG_PAGE: u8 = 0x02;
const DELETE_COMPLETION: u8 = 0x04;
const CREATE_COMPLETION: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const ABORT: u8 = 0x08;
const SET_FEATURES: u8 = 0x09;
const GET_FEATURES: u8 = 0x0a;
const ASYNCHRONOUS_EVENT: u8 = 0x0c;
/// Feature identifiers that are more than a number to be kept. (5.21.1)
const WRITE_CACHE: u8 = 0x06;
const QUEUES: u8 = 0x07;
const EVENT_CONFIGURATION: u8 = 0x0b;
/// The last feature of those that a controller without options has, from 1 on, and one among them
/// that it has not: LBA ranges.
const LAST_FEATURE: u8 = 0x0b;
const LBA_RANGES: u8 = 0x03;
/// Of the event configuration: notices of changed namespaces.
const NAMESPACE_NOTICES: u32 = 1 << 8;
/// A notice of changed namespaces, and the log page that tells which. (5.2.1)
const NAMESPACE_EVENT: u32 = 2 | (CHANGED_NAMESPACES as u32) << 16;
const CHANGED_NAMESPACES: u8 = 0x04;
/// Most bytes of a log page that are given.
const MAX_LOG: usize = 4096;
/// CNS of Identify for the NVM command set's own limits.
const CNS_LIMITS: u32 = 6;

/// What of a controller commands change, and a snapshot keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What Set Features set, by identifier.
    features: [u32; LAST_FEATURE as usize + 1],
    /// Commands that wait for events.
    waiting: VecDeque<u16>,
    /// The namespace has changed since the log was read.
    changed: bool,
    /// And the driver has not been told.
    untold: bool,
    /// Which completion queue each I/O submission queue has, and 0 for those that there are not.
    completes_in: Vec<u16>,
}

impl State {
    /// As after reset, with places for so many I/O queues.
    pub fn new(queues: u16) -> Self {
        let mut features = [0; LAST_FEATURE as usize + 1];
        features[usize::from(WRITE_CACHE)] = 1;
        Self {
            features,
            waiting: VecDeque::new(),
            changed: false,
            untold: false,
            completes_in: vec![0; usize::from(queues) + 1],
        }
    }

    /// Whether what was saved can be a controller's with so many I/O queues.
    pub fn is_of(&self, queues: u16) -> bool {
        let sound = |id: &u16| *id <= queues;
        self.completes_in.len() == usize::from(queues) + 1
            && self.completes_in.iter().all(sound)
            && self.waiting.len() <= MAX_EVENTS
    }

    /// The driver has the volatile write cache on.
    pub fn cached(&self) -> bool {
        self.features[usize::from(WRITE_CACHE)] & 1 != 0
    }
}

/// The admin commands of one controller.
pub struct Admin {
    shared: Arc<Shared>,
    /// What the user calls the disk.
    device: String,
    /// Bytes.
    granularity: u32,
    /// The thread of each I/O submission queue, by number less 1.
    pub workers: Vec<Worker<Submission>>,
    /// What commands change.
    pub state: State,
}

impl Admin {
    /// Those of a controller whose I/O submission queues these threads serve.
    pub fn new(
        shared: Arc<Shared>,
        device: String,
        granularity: u32,
        workers: Vec<Worker<Submission>>,
    ) -> Self {
        let state = State::new(shared.queues());
        Self { shared, device, granularity, workers, state }
    }

    /// As after reset. True if nothing is in flight when it returns.
    pub fn reset(&mut self) -> bool {
        Worker::cease_all(&mut self.workers);
        for id in 0..=self.shared.queues() {
            self.shared.set_submission(id, 0, 0);
            if let Some(queue) = self.shared.completion(id) {
                queue.set(None, 0);
            }
        }
        self.state = State::new(self.shared.queues());
        self.shared.set_cached(true);
        self.rests()
    }

    /// No I/O queue's thread is in the middle of something.
    pub fn rests(&self) -> bool {
        self.workers.iter().all(Worker::rests)
    }

    /// Carry a command out. `None` if it is answered later.
    pub fn execute(&mut self, command: &Command) -> Option<Completion> {
        let done = match command.opcode() {
            _ if !command.is_plain() => Err(Status::INVALID_FIELD),
            DELETE_SUBMISSION => self.delete_submission(command),
            CREATE_SUBMISSION => self.create_submission(command),
            DELETE_COMPLETION => self.delete_completion(command),
            CREATE_COMPLETION => self.create_completion(command),
            GET_LOG_PAGE => self.log_page(command),
            IDENTIFY => self.identify(command),
            // Bit 0: it was not aborted. What is begun is soon over. (5.1)
            ABORT => Ok(1),
            SET_FEATURES => self.set_features(command),
            GET_FEATURES => self.get_features(command),
            ASYNCHRONOUS_EVENT => match self.state.waiting.len() < MAX_EVENTS {
                true => {
                    self.state.waiting.push_back(command.id());
                    return self.take_event();
                }
                false => Err(Status::EVENT_LIMIT_EXCEEDED),
            },
            _ => Err(Status::INVALID_OPCODE),
        };
        let (status, result) = match done {
            Ok(result) => (Status::SUCCESS, result),
            Err(status) => (status, 0),
        };
        Some(Completion { id: command.id(), status, result })
    }

    /// The namespace has changed: what the driver is told, if it waits for that.
    pub fn namespace_changed(&mut self) -> Option<Completion> {
        // One notice until the log is read. (5.2)
        self.state.untold |= !self.state.changed;
        self.state.changed = true;
        self.take_event()
    }

    fn take_event(&mut self) -> Option<Completion> {
        let wanted = self.state.features[usize::from(EVENT_CONFIGURATION)] & NAMESPACE_NOTICES != 0;
        if !wanted || !self.state.untold {
            return None;
        }
        let id = self.state.waiting.pop_front()?;
        self.state.untold = false;
        Some(Completion { id, status: Status::SUCCESS, result: NAMESPACE_EVENT })
    }

    /// The queue's number, 1 to what there may be, and its entries.
    fn new_queue(&self, command: &Command) -> Result<(u16, u32), Status> {
        let (id, size) = (command.dword(10) as u16, (command.dword(10) >> 16) + 1);
        if id == 0 || id > self.shared.queues() {
            return Err(Status::INVALID_QUEUE);
        }
        if !(2..=MAX_ENTRIES).contains(&size) {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        // CAP.CQR: they are contiguous.
        if command.dword(11) & 1 == 0 {
            return Err(Status::INVALID_FIELD);
        }
        Ok((id, size))
    }

    fn create_completion(&mut self, command: &Command) -> Result<u32, Status> {
        let (id, size) = self.new_queue(command)?;
        let queue = self.shared.completion(id).ok_or(Status::INVALID_QUEUE)?;
        if queue.ring().is_some() {
            return Err(Status::INVALID_QUEUE);
        }
        let base = command.prps().0;
        if !fits(&self.shared.ram, base, size, COMPLETION_LEN) {
            return Err(Status::INVALID_FIELD);
        }
        queue.set(Some(Ring { base, size, tail: 0, phase: true }), 0);
        Ok(0)
    }

    /// The vector that a command just done gave a completion queue: its number, and the vector if
    /// it interrupts at all. A vector that there is not is refused.
    ///
    /// # Errors
    /// There are only so many `vectors`.
    pub fn vector(command: &Command, vectors: u16) -> Result<Option<(u16, Option<u16>)>, Status> {
        if command.opcode() != CREATE_COMPLETION {
            return Ok(None);
        }
        let (vector, enabled) = ((command.dword(11) >> 16) as u16, command.dword(11) & 2 != 0);
        if enabled && vector >= vectors {
            return Err(Status::INVALID_VECTOR);
        }
        Ok(Some((command.dword(10) as u16, enabled.then_some(vector))))
    }

    fn create_submission(&mut self, command: &Command) -> Result<u32, Status> {
        let (id, size) = self.new_queue(command)?;
        if self.shared.submission_size(id) != 0 {
            return Err(Status::INVALID_QUEUE);
        }
        let completes_in = (command.dword(11) >> 16) as u16;
        let there = self.shared.completion(completes_in).is_some_and(|q| q.ring().is_some());
        if completes_in == 0 || !there {
            return Err(Status::COMPLETION_QUEUE_INVALID);
        }
        let base = command.prps().0;
        if !fits(&self.shared.ram, base, size, COMMAND_LEN) {
            return Err(Status::INVALID_FIELD);
        }
        let queue = Submission { id, base, size, head: 0, completes_in, backlog: VecDeque::new() };
        self.shared.set_submission(id, size, 0);
        self.run(queue);
        Ok(0)
    }

    /// Have an I/O submission queue served.
    pub fn run(&mut self, queue: Submission) {
        let (id, completes_in) = (queue.id, queue.completes_in);
        let worker = id.checked_sub(1).and_then(|at| self.workers.get_mut(usize::from(at)));
        let Some(worker) = worker else { return };
        if let Err(error) = worker.run(queue, 0) {
            return self.shared.stop(&format!("a queue cannot be served: {error}"));
        }
        self.state.completes_in[usize::from(id)] = completes_in;
    }

    fn delete_submission(&mut self, command: &Command) -> Result<u32, Status> {
        let id = command.dword(10) as u16;
        let at = usize::from(id);
        if id == 0 || self.shared.submission_size(id) == 0 {
            return Err(Status::INVALID_QUEUE);
        }
        let worker = self.workers.get_mut(at - 1).ok_or(Status::INVALID_QUEUE)?;
        drop(worker.cease());
        if !worker.rests() {
            // Its completions would come into whatever has its completion queue's place then.
            self.shared.stop("a queue was deleted whose commands the host's storage does not end");
        }
        self.shared.set_submission(id, 0, 0);
        self.state.completes_in[at] = 0;
        Ok(0)
    }

    fn delete_completion(&mut self, command: &Command) -> Result<u32, Status> {
        let id = command.dword(10) as u16;
        let queue = self.shared.completion(id).filter(|queue| id != 0 && queue.ring().is_some());
        let queue = queue.ok_or(Status::INVALID_QUEUE)?;
        if self.state.completes_in.contains(&id) {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        queue.set(None, 0);
        Ok(0)
    }

    fn identify(&self, command: &Command) -> Result<u32, Status> {
        let namespace = command.namespace();
        let of_namespace = || match namespace {
            NAMESPACE => Ok(()),
            _ => Err(Status::INVALID_NAMESPACE),
        };
        let (cns, command_set) = (command.dword(10) & 0xff, command.dword(11) >> 24);
        let page = match cns {
            0 => {
                of_namespace()?;
                identify::namespace(&self.shared, self.granularity)
            }
            1 => identify::controller(&self.shared, &self.device),
            // 5.15.2.3: beyond these is nothing.
            2 if namespace < 0xffff_fffe => identify::active(namespace),
            2 => return Err(Status::INVALID_NAMESPACE),
            3 => {
                of_namespace()?;
                identify::identifiers(&self.shared)
            }
            CNS_LIMITS if command_set == 0 => identify::limits(),
            _ => return Err(Status::INVALID_FIELD),
        };
        prp::write(&self.shared.ram, command.prps(), &page)?;
        Ok(0)
    }

    fn log_page(&mut self, command: &Command) -> Result<u32, Status> {
        let (page, retain) = (command.dword(10) as u8, command.dword(10) & 1 << 15 != 0);
        // LPA: twelve bits of length, and no offset.
        let len = ((command.dword(10) >> 16 & 0xfff) as usize + 1) * 4;
        let disk = &self.shared.disk;
        let mut log = match page {
            1 => vec![0; 64],
            2 => {
                let read = disk.read_bytes.load(Ordering::Relaxed);
                identify::health(read, disk.write_bytes.load(Ordering::Relaxed)).to_vec()
            }
            3 => identify::firmware().to_vec(),
            CHANGED_NAMESPACES => {
                let first = if self.state.changed { NAMESPACE } else { 0 };
                first.to_le_bytes().to_vec()
            }
            _ => return Err(Status::INVALID_LOG_PAGE),
        };
        log.resize(len.min(MAX_LOG), 0);
        prp::write(&self.shared.ram, command.prps(), &log)?;
        if page == CHANGED_NAMESPACES && !retain {
            (self.state.changed, self.state.untold) = (false, false);
        }
        Ok(0)
    }

    /// As many I/O queues as there may be, of both kinds, less 1. (5.21.1.7)
    fn granted(&self) -> u32 {
        let most = u32::from(self.shared.queues()) - 1;
        most | most << 16
    }

    fn set_features(&mut self, command: &Command) -> Result<u32, Status> {
        let (feature, value) = (command.dword(10) as u8, command.dword(11));
        // ONCS: nothing is saved.
        if command.dword(10) >> 31 != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        if feature == QUEUES {
            if value & 0xffff == 0xffff || value >> 16 == 0xffff {
                return Err(Status::INVALID_FIELD);
            }
            if self.state.completes_in.iter().any(|id| *id != 0) {
                return Err(Status::SEQUENCE_ERROR);
            }
            return Ok(self.granted());
        }
        *self.feature(feature)? = value;
        if feature == WRITE_CACHE {
            self.shared.set_cached(self.state.cached());
        }
        Ok(0)
    }

    fn get_features(&mut self, command: &Command) -> Result<u32, Status> {
        match command.dword(10) as u8 {
            QUEUES => Ok(self.granted()),
            feature => self.feature(feature).copied(),
        }
    }

    fn feature(&mut self, feature: u8) -> Result<&mut u32, Status> {
        let known = feature != 0 && feature != LBA_RANGES;
        let place = self.state.features.get_mut(usize::from(feature)).filter(|_| known);
        place.ok_or(Status::INVALID_FIELD)
    }
}
