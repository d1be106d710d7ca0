//! Why a command was not done. (SPC-4, 4.5)

use serde::{Deserialize, Serialize};

/// Bytes of sense data in fixed format without additional bytes. (SPC-4, 4.5.3)
const LEN: usize = 18;
/// Response code: current, fixed format.
const CURRENT_FIXED: u8 = 0x70;

/// Sense key, additional sense code and its qualifier. (SPC-4, 4.5.6, annex F)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense(pub u8, pub u8, pub u8);

impl Sense {
    /// Nothing is wrong.
    pub const NONE: Self = Self(0, 0, 0);
    /// MEDIUM NOT PRESENT - TRAY OPEN
    pub const TRAY_OPEN: Self = Self(2, 0x3a, 2);
    /// UNRECOVERED READ ERROR
    pub const READ_ERROR: Self = Self(3, 0x11, 0);
    /// INVALID COMMAND OPERATION CODE
    pub const INVALID_COMMAND: Self = Self(5, 0x20, 0);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE
    pub const OUT_OF_RANGE: Self = Self(5, 0x21, 0);
    /// INVALID FIELD IN CDB
    pub const INVALID_FIELD: Self = Self(5, 0x24, 0);
    /// LOGICAL UNIT NOT SUPPORTED
    pub const NO_SUCH_UNIT: Self = Self(5, 0x25, 0);
    /// SAVING PARAMETERS NOT SUPPORTED
    pub const NOTHING_SAVED: Self = Self(5, 0x39, 0);
    /// MEDIUM REMOVAL PREVENTED
    pub const REMOVAL_PREVENTED: Self = Self(5, 0x53, 2);
    /// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED
    pub const MEDIUM_CHANGED: Self = Self(6, 0x28, 0);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED
    pub const RESET: Self = Self(6, 0x29, 0);

    /// As sense data in fixed format.
    pub fn bytes(self) -> [u8; LEN] {
        let Self(key, code, qualifier) = self;
        let mut bytes = [0; LEN];
        (bytes[0], bytes[2], bytes[7]) = (CURRENT_FIXED, key & 0xf, LEN as u8 - 8);
        (bytes[12], bytes[13]) = (code, qualifier);
        bytes
    }
}
