//! When what is in a console log was said: a file beside it, which the VMM writes and commands
//! read.

/// One entry of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What follows this byte of the log was said at this time, in milliseconds since the epoch.
    Said {
        /// The byte.
        from: u64,
        /// The time.
        at: u64,
    },
    /// So many bytes at the log's beginning went: all before it in this file was of a longer log.
    Cut(u64),
}

/// Bytes of an entry.
pub const LEN: usize = 16;
/// In the place of a byte's number: the log was cut.
const CUT: u64 = u64::MAX;

impl Entry {
    /// As the file has it.
    pub fn to_bytes(self) -> [u8; LEN] {
        let (first, second) = match self {
            Self::Said { from, at } => (from, at),
            Self::Cut(bytes) => (CUT, bytes),
        };
        let mut entry = [0; LEN];
        entry[..LEN / 2].copy_from_slice(&first.to_le_bytes());
        entry[LEN / 2..].copy_from_slice(&second.to_le_bytes());
        entry
    }

    /// Of the file's bytes.
    pub fn of_bytes(bytes: [u8; LEN]) -> Self {
        let both = u128::from_le_bytes(bytes);
        match (both as u64, (both >> 64) as u64) {
            (CUT, bytes) => Self::Cut(bytes),
            (from, at) => Self::Said { from, at },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        for entry in [Entry::Said { from: 7, at: 1 << 41 }, Entry::Cut(32 << 20)] {
            assert_eq!(Entry::of_bytes(entry.to_bytes()), entry);
        }
    }
}
