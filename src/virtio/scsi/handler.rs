//! Serves the queues: commands go to the drive, and what it is to read to the disc's queue.

use super::request::{
    Address, CHECK_CONDITION, Command, Control, GOOD, RESPONSE, Response, function, response,
};
use super::sense::Sense;
use super::target::{CONTROL, EVENT, REQUESTS, Target};
use super::unit::Answer;
use crate::block::Queue;
use crate::virtio::blk::executor::{Executor, New};
use crate::virtio::blk::request::Request;
use crate::virtio::blk::work::Work;
use crate::virtio::chain::DescriptorChain;
use crate::virtio::device::{Cease, Outcome, PollFds, QueueHandler};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Who has something read: its command.
struct Asker {
    chain: DescriptorChain,
    /// Bytes of its room for sense data, and of the data.
    sense_size: u32,
    len: u32,
}

/// All queues of the device.
pub struct Handler {
    target: Arc<Target>,
    executor: Executor<Asker>,
}

impl Handler {
    /// That of a drive whose disc is read by `queue`.
    pub fn new(target: Arc<Target>, queue: Box<dyn Queue>) -> Self {
        let executor = Executor::new(target.disk.clone(), queue);
        Self { target, executor }
    }

    fn command(&mut self, chain: DescriptorChain) -> Outcome {
        let sizes = self.target.guest().sizes;
        let Some(room) = chain.writable_len().checked_sub(RESPONSE + sizes.sense) else {
            return Outcome::Stop("a command has no room for its response".into());
        };
        let Some(command) = Command::read(&chain, sizes.cdb) else {
            return finish(&chain, sizes.sense, Ending::Undone(Response::Failure));
        };
        let answer = match command.address {
            Address::Drive => self.target.guest().unit.execute(&command.cdb),
            Address::OtherUnit => self.target.guest().unit.absent(&command.cdb),
            Address::Nobody => {
                return finish(&chain, sizes.sense, Ending::Undone(Response::BadTarget));
            }
        };
        match answer {
            Answer::Data(data) => finish(&chain, sizes.sense, Ending::Data(&data)),
            Answer::Check(sense) => finish(&chain, sizes.sense, Ending::Check(sense)),
            Answer::Read { len, .. } if len > room => {
                finish(&chain, sizes.sense, Ending::Undone(Response::Overrun))
            }
            Answer::Read { offset, len } => self.read(chain, sizes.sense, offset, len),
        }
    }

    fn read(&mut self, chain: DescriptorChain, sense_size: u32, offset: u64, len: u32) -> Outcome {
        let data = chain.writable(RESPONSE + sense_size, len);
        let work = data.and_then(|data| Work::of(Request::Read { offset, len, data }, chain.ram()));
        let Some((work, doing, len)) = work else {
            return finish(&chain, sense_size, Ending::Undone(Response::Failure));
        };
        let ram = chain.ram().clone();
        let asker = Asker { chain, sense_size, len };
        self.executor.begin(New { asker, work, doing, len, write_through: false }, &ram);
        Outcome::Deferred
    }

    fn control(&mut self, chain: &DescriptorChain) -> Outcome {
        let (what, address) = match Control::read(chain) {
            None => return answered(chain, &[Response::Failure as u8]),
            Some(Control::TaskManagement(what, address)) => (what, address),
            // event_actual: none of the events that were asked for. (struct virtio_scsi_ctrl_an)
            Some(Control::Notification(Address::Nobody)) => {
                return answered(chain, &[0, 0, 0, 0, Response::BadTarget as u8]);
            }
            Some(Control::Notification(_)) => {
                return answered(chain, &[0, 0, 0, 0, Response::Ok as u8]);
            }
        };
        if address == Address::Nobody {
            return answered(chain, &[Response::BadTarget as u8]);
        }
        let resets = matches!(what, function::I_T_NEXUS_RESET | function::LOGICAL_UNIT_RESET);
        let aborts = matches!(
            what,
            function::ABORT_TASK | function::ABORT_TASK_SET | function::CLEAR_TASK_SET
        );
        if !resets && !aborts {
            return answered(chain, &[Response::Rejected as u8]);
        }
        if address == Address::OtherUnit && what != function::I_T_NEXUS_RESET {
            return answered(chain, &[Response::IncorrectLun as u8]);
        }
        // What is to be aborted is soon done, and this is answered after it.
        if self.executor.in_flight() > 0 {
            return Outcome::NotNow;
        }
        if resets {
            self.target.guest().unit.reset();
        }
        answered(chain, &[Response::Ok as u8])
    }
}

fn answered(chain: &DescriptorChain, bytes: &[u8]) -> Outcome {
    match chain.write(0, bytes) {
        true => Outcome::Done(bytes.len() as u32),
        false => Outcome::Stop("a request has no room for its response in guest memory".into()),
    }
}

/// How a command ends.
enum Ending<'a> {
    /// It is done, with this data.
    Data(&'a [u8]),
    /// It is done, and the data is there: so many bytes.
    Read(u32),
    /// It is refused.
    Check(Sense),
    /// It has not come to the unit, or nothing can come back from it.
    Undone(Response),
}

/// The response, before that the data, and how many bytes of all there are.
fn finish(chain: &DescriptorChain, sense_size: u32, ending: Ending<'_>) -> Outcome {
    let begin = RESPONSE + sense_size;
    // It was looked at before.
    let room = chain.writable_len().saturating_sub(begin);
    let (mut code, mut status, mut sense, mut len) = (Response::Ok, GOOD, Vec::new(), 0);
    match ending {
        Ending::Data(data) => {
            let fits = &data[..data.len().min(room as usize)];
            if fits.len() < data.len() {
                code = Response::Overrun;
            }
            if !chain.write(begin, fits) {
                code = Response::Failure;
            }
            len = fits.len() as u32;
        }
        Ending::Read(read) => len = read,
        Ending::Check(why) => (status, sense) = (CHECK_CONDITION, why.bytes().to_vec()),
        Ending::Undone(why) => code = why,
    }
    sense.truncate(sense_size as usize);
    let mut bytes = response(sense.len() as u32, room - len, status, code);
    bytes.extend(sense);
    // What is written counts from the beginning: all of the room for sense data, if data follows.
    bytes.resize(begin as usize, 0);
    match chain.write(0, &bytes) {
        true => Outcome::Done(begin + len),
        false => Outcome::Stop("a response is outside guest memory".into()),
    }
}

impl QueueHandler for Handler {
    fn start(&mut self, _features: u64, cease: Cease) {
        self.executor.start(cease);
    }

    fn is_ready(&self, queue: u16) -> bool {
        queue != REQUESTS || self.executor.is_ready()
    }

    fn due(&self) -> Option<Duration> {
        self.executor.due()
    }

    fn handle(&mut self, queue: u16, chain: DescriptorChain) -> Outcome {
        match queue {
            CONTROL => self.control(&chain),
            // It stays there for an event that does not come.
            EVENT => Outcome::NotNow,
            _ => self.command(chain),
        }
    }

    fn submit_batch(&mut self) -> io::Result<()> {
        self.executor.submit_batch()
    }

    fn wake_on<'a>(&'a self, _waits: &dyn Fn(u16) -> bool, fds: &mut PollFds<'a>) {
        self.executor.wake_on(fds);
    }

    fn completions(&mut self, each: &mut dyn FnMut(u16, u16, u32)) {
        self.executor.completions(&mut |Asker { chain, sense_size, len }, _, error| {
            let ending = match error {
                None => Ending::Read(len),
                Some(_) => Ending::Check(Sense::READ_ERROR),
            };
            // The response lies where there was memory, which does not go away, or nowhere.
            let used = match finish(&chain, sense_size, ending) {
                Outcome::Done(used) => used,
                _ => 0,
            };
            each(REQUESTS, chain.head(), used);
        });
    }

    fn in_flight(&self) -> usize {
        self.executor.in_flight()
    }
}
