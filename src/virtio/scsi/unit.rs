//! The CD-ROM drive: commands in, answers out. (SPC-4, MMC-6)
//!
//! Its disc is of one session with one track of data, and always the same: who opens the tray finds
//! the disc in it when it is closed again, at the latest by a reset.

use super::data::{self, BLOCK};
use super::request::CDB;
use super::sense::Sense;
use serde::{Deserialize, Serialize};

/// Most bytes that one command reads.
pub const MAX_TRANSFER: u32 = 32 << 20;

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const INQUIRY: u8 = 0x12;
const MODE_SENSE_6: u8 = 0x1a;
const START_STOP_UNIT: u8 = 0x1b;
const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1e;
const READ_CAPACITY_10: u8 = 0x25;
const READ_10: u8 = 0x28;
const READ_TOC: u8 = 0x43;
const GET_CONFIGURATION: u8 = 0x46;
const GET_EVENT_STATUS: u8 = 0x4a;
const READ_DISC_INFORMATION: u8 = 0x51;
const MODE_SENSE_10: u8 = 0x5a;
const READ_16: u8 = 0x88;
const SERVICE_ACTION_IN_16: u8 = 0x9e;
const REPORT_LUNS: u8 = 0xa0;
const READ_12: u8 = 0xa8;
/// The service action that is READ CAPACITY (16).
const READ_CAPACITY_16: u8 = 0x10;

/// How a command ends.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, with this data for the initiator: no more than it said that it takes.
    Data(Vec<u8>),
    /// To be read from the disc, inside it: byte offset and bytes, at most [`MAX_TRANSFER`].
    Read {
        /// A multiple of [`BLOCK`].
        offset: u64,
        /// Likewise.
        len: u32,
    },
    /// CHECK CONDITION.
    Check(Sense),
}

/// A change of the medium that nobody has asked for yet. (MMC-6, table 322)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaEvent {
    /// NoChg
    None = 0,
    /// NewMedia
    New = 2,
    /// MediaRemoval
    Removal = 3,
}

/// What the guest has made of the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The tray is open.
    open: bool,
    /// The tray is not to be opened.
    locked: bool,
    /// A unit attention condition to be reported. (SAM-5, 5.14)
    attention: Option<Sense>,
    /// For who polls.
    event: MediaEvent,
}

/// The drive.
#[derive(Debug)]
pub struct Unit {
    /// What the guest has made of it.
    pub state: State,
    /// What it is called: its serial number.
    name: String,
    /// Blocks of the disc.
    blocks: u64,
}

/// So many bytes of a CDB as a number. They are of the longest command that there is.
fn number(cdb: &[u8; CDB], at: usize, len: usize) -> u64 {
    cdb[at..at + len].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// What fits an allocation length. (SPC-4, 4.2.5.6)
fn cut(mut data: Vec<u8>, allocated: u64) -> Answer {
    data.truncate(usize::try_from(allocated).unwrap_or(usize::MAX));
    Answer::Data(data)
}

impl Unit {
    /// A drive with a disc of so many bytes.
    pub fn new(name: &str, bytes: u64) -> Self {
        Self { state: State::powered_on(), name: name.into(), blocks: bytes / BLOCK }
    }

    /// Blocks of the disc.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// As it is switched on: the tray is closed.
    pub fn power_on(&mut self) {
        self.state = State::powered_on();
    }

    /// A logical unit reset leaves the tray as it is. (SAM-5, 6.3.3)
    pub fn reset(&mut self) {
        self.state.locked = false;
        self.state.attention = Some(Sense::RESET);
    }

    /// The answer of a logical unit that there is not. (SPC-4, 6.6.2, 6.33, 6.39)
    pub fn absent(&self, cdb: &[u8; CDB]) -> Answer {
        match cdb[0] {
            INQUIRY if cdb[1] & 1 == 0 => {
                let mut data = data::inquiry();
                data[0] = data::NO_UNIT;
                cut(data, number(cdb, 3, 2))
            }
            REPORT_LUNS => Self::report_luns(cdb),
            REQUEST_SENSE => cut(Sense::NO_SUCH_UNIT.bytes().into(), cdb[4].into()),
            _ => Answer::Check(Sense::NO_SUCH_UNIT),
        }
    }

    /// Do a command.
    pub fn execute(&mut self, cdb: &[u8; CDB]) -> Answer {
        // These tell of no unit attention, and leave it pending; REQUEST SENSE has it as its data.
        // (SPC-4, 6.6.1, 6.33, 6.39; MMC-6, 6.5, 6.6)
        match cdb[0] {
            INQUIRY => self.inquiry(cdb),
            REPORT_LUNS => Self::report_luns(cdb),
            REQUEST_SENSE => self.request_sense(cdb),
            GET_CONFIGURATION => self.get_configuration(cdb),
            GET_EVENT_STATUS => self.event_status(cdb),
            _ => match self.state.attention.take() {
                Some(sense) => Answer::Check(sense),
                None => self.execute_further(cdb),
            },
        }
    }

    fn execute_further(&mut self, cdb: &[u8; CDB]) -> Answer {
        match cdb[0] {
            MODE_SENSE_6 => self.mode_sense(cdb, false),
            MODE_SENSE_10 => self.mode_sense(cdb, true),
            START_STOP_UNIT => self.start_stop(cdb),
            PREVENT_ALLOW_MEDIUM_REMOVAL => {
                self.state.locked = cdb[4] & 1 != 0;
                Answer::Data(Vec::new())
            }
            TEST_UNIT_READY
            | READ_CAPACITY_10
            | READ_10
            | READ_TOC
            | READ_DISC_INFORMATION
            | READ_16
            | SERVICE_ACTION_IN_16
            | READ_12 => match self.state.open {
                true => Answer::Check(Sense::TRAY_OPEN),
                false => self.of_the_disc(cdb),
            },
            _ => Answer::Check(Sense::INVALID_COMMAND),
        }
    }

    /// Commands that want a disc, which is there.
    fn of_the_disc(&self, cdb: &[u8; CDB]) -> Answer {
        let invalid = Answer::Check(Sense::INVALID_FIELD);
        match cdb[0] {
            READ_10 => self.read(number(cdb, 2, 4), number(cdb, 7, 2)),
            READ_12 => self.read(number(cdb, 2, 4), number(cdb, 6, 4)),
            READ_16 => self.read(number(cdb, 2, 8), number(cdb, 10, 4)),
            READ_CAPACITY_10 => Answer::Data(data::capacity_10(self.blocks)),
            SERVICE_ACTION_IN_16 if cdb[1] & 0x1f == READ_CAPACITY_16 => {
                cut(data::capacity_16(self.blocks), number(cdb, 10, 4))
            }
            SERVICE_ACTION_IN_16 => invalid,
            READ_TOC => {
                let toc = data::toc(self.blocks, cdb[2] & 0xf, cdb[6], cdb[1] & 2 != 0);
                toc.map_or(invalid, |toc| cut(toc, number(cdb, 7, 2)))
            }
            // Of the disc itself, as there is no other information. (MMC-6, 6.21)
            READ_DISC_INFORMATION => match cdb[1] & 7 {
                0 => cut(data::disc_information(), number(cdb, 7, 2)),
                _ => invalid,
            },
            _ => Answer::Data(Vec::new()),
        }
    }

    /// READ (10), (12) and (16). (MMC-6, 6.15, 6.16)
    fn read(&self, first: u64, blocks: u64) -> Answer {
        let Some(end) = first.checked_add(blocks).filter(|end| *end <= self.blocks) else {
            return Answer::Check(Sense::OUT_OF_RANGE);
        };
        if blocks == 0 {
            return Answer::Data(Vec::new());
        }
        match u32::try_from((end - first) * BLOCK) {
            Ok(len @ ..=MAX_TRANSFER) => Answer::Read { offset: first * BLOCK, len },
            _ => Answer::Check(Sense::INVALID_FIELD),
        }
    }

    /// INQUIRY, and its vital product data. (SPC-4, 6.6, 7.8)
    fn inquiry(&self, cdb: &[u8; CDB]) -> Answer {
        let data = match (cdb[1] & 1, cdb[2]) {
            (0, 0) => Some(data::inquiry()),
            (0, _) => None,
            (_, page) => data::vital_product_data(page, &self.name),
        };
        data.map_or(Answer::Check(Sense::INVALID_FIELD), |data| cut(data, number(cdb, 3, 2)))
    }

    /// (SPC-4, 6.33)
    fn report_luns(cdb: &[u8; CDB]) -> Answer {
        // All, those that are well known, or both: LUN 0 is none of the second kind.
        match cdb[2] {
            0 | 2 => cut(data::luns(1), number(cdb, 6, 4)),
            1 => cut(data::luns(0), number(cdb, 6, 4)),
            _ => Answer::Check(Sense::INVALID_FIELD),
        }
    }

    /// What is reported with a command is not kept: the data is a unit attention condition, or why
    /// the drive is not ready. (SPC-4, 6.39)
    fn request_sense(&mut self, cdb: &[u8; CDB]) -> Answer {
        let ready = if self.state.open { Sense::TRAY_OPEN } else { Sense::NONE };
        if cdb[1] & 1 != 0 {
            // Descriptor format.
            return Answer::Check(Sense::INVALID_FIELD);
        }
        let sense = self.state.attention.take().unwrap_or(ready);
        cut(sense.bytes().into(), cdb[4].into())
    }

    /// (SPC-4, 6.11, 6.12; MMC-6, 7)
    fn mode_sense(&self, cdb: &[u8; CDB], long: bool) -> Answer {
        let (control, page) = (cdb[2] >> 6, cdb[2] & 0x3f);
        if control == 3 {
            return Answer::Check(Sense::NOTHING_SAVED);
        }
        // None can be changed, and none differs from its default.
        let changeable = control == 1;
        let pages = match cdb[3] {
            0 | 0xff => data::mode_pages(page, self.state.locked, changeable),
            _ => None,
        };
        let allocated = if long { number(cdb, 7, 2) } else { cdb[4].into() };
        pages.map_or(Answer::Check(Sense::INVALID_FIELD), |pages| {
            cut(data::mode_parameters(&pages, long), allocated)
        })
    }

    /// (MMC-6, 6.42) A power condition is one that nobody notices here.
    fn start_stop(&mut self, cdb: &[u8; CDB]) -> Answer {
        const START: u8 = 1;
        const LOAD_EJECT: u8 = 2;
        let what = if cdb[4] >> 4 == 0 { cdb[4] & (START | LOAD_EJECT) } else { 0 };
        let state = &mut self.state;
        match (what, state.open) {
            (LOAD_EJECT, false) if state.locked => return Answer::Check(Sense::REMOVAL_PREVENTED),
            (LOAD_EJECT, false) => (state.open, state.event) = (true, MediaEvent::Removal),
            (3, true) => {
                (state.open, state.event) = (false, MediaEvent::New);
                state.attention = Some(Sense::MEDIUM_CHANGED);
            }
            (START, true) => return Answer::Check(Sense::TRAY_OPEN),
            _ => {}
        }
        Answer::Data(Vec::new())
    }

    /// (MMC-6, 6.5)
    fn get_configuration(&self, cdb: &[u8; CDB]) -> Answer {
        let disc = (!self.state.open).then_some(self.blocks);
        let features = data::configuration(cdb[1] & 3, number(cdb, 2, 2) as u16, disc);
        let data = features.map(|data| cut(data, number(cdb, 7, 2)));
        data.unwrap_or(Answer::Check(Sense::INVALID_FIELD))
    }

    /// (MMC-6, 6.6) Who asks for no more than the header has not heard of the event.
    fn event_status(&mut self, cdb: &[u8; CDB]) -> Answer {
        if cdb[1] & 1 == 0 {
            // Not to be answered before something happens.
            return Answer::Check(Sense::INVALID_FIELD);
        }
        let allocated = number(cdb, 7, 2);
        let Some(data) = data::media_event(cdb[4], self.state.event as u8, self.state.open) else {
            return cut(data::no_event().into(), allocated);
        };
        if allocated > data::no_event().len() as u64 {
            self.state.event = MediaEvent::None;
        }
        cut(data.into(), allocated)
    }
}

impl State {
    fn powered_on() -> Self {
        let attention = Some(Sense::RESET);
        Self { open: false, locked: false, attention, event: MediaEvent::None }
    }
}
