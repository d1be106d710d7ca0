//! Requests as the driver frames them, and answers. (VIRTIO 1.2, 5.6.6)

use crate::virtio::chain::DescriptorChain;

/// Bytes before the CDB: lun, id, task_attr, prio, crn. (struct virtio_scsi_req_cmd, 5.6.6.1)
const HEADER: u32 = 19;
/// Bytes of the response before its sense data: sense_len, residual, status_qualifier, status,
/// response.
pub const RESPONSE: u32 = 12;
/// Bytes of a CDB that are looked at: those of the longest command that is known.
pub const CDB: usize = 16;

/// GOOD and CHECK CONDITION. (SAM-5, 5.3.1)
pub const GOOD: u8 = 0;
pub const CHECK_CONDITION: u8 = 2;

/// What became of a request on its way to the unit. (5.6.6.1, 5.6.6.2)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// VIRTIO_SCSI_S_OK, and VIRTIO_SCSI_S_FUNCTION_COMPLETE
    Ok = 0,
    /// VIRTIO_SCSI_S_OVERRUN: the buffers are too small for the data.
    Overrun = 1,
    /// VIRTIO_SCSI_S_BAD_TARGET
    BadTarget = 3,
    /// VIRTIO_SCSI_S_FAILURE
    Failure = 9,
    /// VIRTIO_SCSI_S_FUNCTION_REJECTED
    Rejected = 11,
    /// VIRTIO_SCSI_S_INCORRECT_LUN: there is no such logical unit to be managed.
    IncorrectLun = 12,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// The drive: target 0, LUN 0.
    Drive,
    /// Another logical unit of target 0.
    OtherUnit,
    /// Another target, or a well-known logical unit.
    Nobody,
}

impl Address {
    /// The first byte is 1, the second the target, and then follows a single-level LUN. (5.6.6.1;
    /// SAM-5, 4.7.6)
    pub fn of(lun: [u8; 8]) -> Self {
        match lun {
            [1, 0, 0 | 0x40, 0, 0, 0, 0, 0] => Self::Drive,
            [1, 0, ..] => Self::OtherUnit,
            _ => Self::Nobody,
        }
    }
}

/// A command.
pub struct Command {
    /// Whom it is for.
    pub address: Address,
    /// Its CDB, or as much of it as counts.
    pub cdb: [u8; CDB],
}

impl Command {
    /// Read a command, once. `None`: it is not whole, or not in guest memory.
    pub fn read(chain: &DescriptorChain, cdb_size: u32) -> Option<Self> {
        let mut header = [0; HEADER as usize];
        let mut cdb = [0; CDB];
        let given = &mut cdb[..CDB.min(cdb_size as usize)];
        let whole = chain.readable_len() >= HEADER + cdb_size;
        let read = whole && chain.read(0, &mut header) && chain.read(HEADER, given);
        let lun = *header.first_chunk()?;
        read.then_some(Self { address: Address::of(lun), cdb })
    }
}

/// The response to a command, but for its sense data.
pub fn response(sense_len: u32, residual: u32, status: u8, response: Response) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RESPONSE as usize);
    bytes.extend(sense_len.to_le_bytes());
    bytes.extend(residual.to_le_bytes());
    bytes.extend([0, 0, status, response as u8]);
    bytes
}

/// What is asked in the control queue. (5.6.6.2)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// VIRTIO_SCSI_T_TMF, of a subtype and a unit.
    TaskManagement(u32, Address),
    /// VIRTIO_SCSI_T_AN_QUERY or VIRTIO_SCSI_T_AN_SUBSCRIBE.
    Notification(Address),
}

impl Control {
    /// Read a request, once. `None`: it is none.
    pub fn read(chain: &DescriptorChain) -> Option<Self> {
        let word = |at: u32| {
            let mut bytes = [0; 4];
            chain.read(at, &mut bytes).then(|| u32::from_le_bytes(bytes))
        };
        let address = |at: u32| {
            let mut lun = [0; 8];
            chain.read(at, &mut lun).then(|| Address::of(lun))
        };
        match word(0)? {
            0 => Some(Self::TaskManagement(word(4)?, address(8)?)),
            1 | 2 => Some(Self::Notification(address(4)?)),
            _ => None,
        }
    }
}

/// Task management functions. (5.6.6.2; SAM-5, 7)
pub mod function {
    pub const ABORT_TASK: u32 = 0;
    pub const ABORT_TASK_SET: u32 = 1;
    pub const CLEAR_TASK_SET: u32 = 3;
    pub const I_T_NEXUS_RESET: u32 = 4;
    pub const LOGICAL_UNIT_RESET: u32 = 5;
}
