//! Commands and their completions as they lie in queues. (NVM Express 1.4, 4.2 and 4.6)

use serde::{Deserialize, Serialize};

/// Bytes of a command.
pub const COMMAND_LEN: u64 = 64;
/// Bytes of a completion.
pub const COMPLETION_LEN: u64 = 16;

/// A command, copied out of its queue once.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Dwords 0 to 15.
    dwords: [u32; 16],
}

impl Command {
    /// That of these bytes.
    pub fn parse(bytes: &[u8; COMMAND_LEN as usize]) -> Self {
        let mut dwords = [0; 16];
        for (dword, bytes) in dwords.iter_mut().zip(bytes.chunks_exact(4)) {
            *dword = bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        }
        Self { dwords }
    }

    /// OPC.
    pub fn opcode(&self) -> u8 {
        self.dwords[0] as u8
    }

    /// CID: what its completion has, too.
    pub fn id(&self) -> u16 {
        (self.dwords[0] >> 16) as u16
    }

    /// Neither a part of a fused operation nor with scatter gather lists, of which we have none.
    pub fn is_plain(&self) -> bool {
        self.dwords[0] >> 8 & 0xff == 0
    }

    /// NSID.
    pub fn namespace(&self) -> u32 {
        self.dwords[1]
    }

    /// PRP1 and PRP2.
    pub fn prps(&self) -> (u64, u64) {
        (self.pair(6), self.pair(8))
    }

    /// Dword `number`, below 16.
    pub fn dword(&self, number: usize) -> u32 {
        self.dwords.get(number).copied().unwrap_or(0)
    }

    /// Dwords `number` and `number` + 1.
    pub fn pair(&self, number: usize) -> u64 {
        u64::from(self.dword(number)) | u64::from(self.dword(number + 1)) << 32
    }
}

/// Status Code Type and Status Code: 11 bits. (4.6.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status(pub u16);

impl Status {
    pub const SUCCESS: Self = Self(0);
    pub const INVALID_OPCODE: Self = Self(0x001);
    pub const INVALID_FIELD: Self = Self(0x002);
    pub const DATA_TRANSFER_ERROR: Self = Self(0x004);
    pub const INVALID_NAMESPACE: Self = Self(0x00b);
    pub const SEQUENCE_ERROR: Self = Self(0x00c);
    pub const PRP_OFFSET_INVALID: Self = Self(0x013);
    pub const NAMESPACE_WRITE_PROTECTED: Self = Self(0x020);
    pub const LBA_OUT_OF_RANGE: Self = Self(0x080);
    pub const CAPACITY_EXCEEDED: Self = Self(0x081);
    pub const COMPLETION_QUEUE_INVALID: Self = Self(0x100);
    pub const INVALID_QUEUE: Self = Self(0x101);
    pub const INVALID_QUEUE_SIZE: Self = Self(0x102);
    pub const EVENT_LIMIT_EXCEEDED: Self = Self(0x105);
    pub const INVALID_VECTOR: Self = Self(0x108);
    pub const INVALID_LOG_PAGE: Self = Self(0x109);
    pub const INVALID_QUEUE_DELETION: Self = Self(0x10c);
    pub const NOT_SAVEABLE: Self = Self(0x10d);
    pub const WRITE_FAULT: Self = Self(0x280);
    pub const READ_ERROR: Self = Self(0x281);

    /// It went well.
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }

    /// The field of a completion without its phase: Do Not Retry, and the codes.
    fn field(self) -> u16 {
        let do_not_retry = u16::from(self != Self::SUCCESS) << 14;
        do_not_retry | self.0 & 0x7ff
    }
}

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Of the command.
    pub id: u16,
    /// How it went.
    pub status: Status,
    /// Dword 0.
    pub result: u32,
}

impl Completion {
    /// All but the last dword, for a queue whose head is at `head`.
    pub fn beginning(&self, queue: u16, head: u16) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.result.to_le_bytes());
        bytes[8..10].copy_from_slice(&head.to_le_bytes());
        bytes[10..].copy_from_slice(&queue.to_le_bytes());
        bytes
    }

    /// The last dword, which the driver waits for.
    pub fn end(&self, phase: bool) -> u32 {
        let field = u32::from(self.status.field()) << 1 | u32::from(phase);
        u32::from(self.id) | field << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_and_its_completion_are_what_a_driver_has() {
        let mut bytes = [0; 64];
        (bytes[0], bytes[2], bytes[3], bytes[4]) = (2, 0x34, 0x12, 1);
        bytes[24..32].copy_from_slice(&0x1_0000_2000_u64.to_le_bytes());
        bytes[40..48].copy_from_slice(&7u64.to_le_bytes());
        let command = Command::parse(&bytes);
        assert_eq!((command.opcode(), command.id(), command.namespace()), (2, 0x1234, 1));
        assert_eq!((command.prps(), command.pair(10)), ((0x1_0000_2000, 0), 7));
        assert!(command.is_plain());
        bytes[1] = 0x40;
        assert!(!Command::parse(&bytes).is_plain());
        let done = Completion { id: 0x1234, status: Status::LBA_OUT_OF_RANGE, result: 5 };
        assert_eq!(done.beginning(3, 9), [5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 3, 0]);
        assert_eq!(done.end(true), 0x1234 | (1 << 15 | 0x80 << 1 | 1) << 16);
        assert_eq!(Completion { status: Status::SUCCESS, ..done }.end(false), 0x1234);
    }
}
