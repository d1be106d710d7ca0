//! A function's configuration space: 256 bytes, each bit of which is the guest's to write or not.
//! (PCI Local Bus 3.0, 6)

use crate::error::{Error, Result};

/// Bytes of a configuration space. None of ours has an extended one.
pub const CONFIG_LEN: usize = 256;

/// Command register, with Memory Space (bit 1), Bus Master (bit 2) and Interrupt Disable (bit 10).
/// (6.2.2)
const COMMAND: usize = 0x04;
const COMMAND_WRITABLE: u16 = 1 << 1 | 1 << 2 | 1 << 10;
const MEMORY_SPACE: u16 = 1 << 1;
/// Status register; bit 4: there is a list of capabilities. (6.2.3)
const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const HEADER_TYPE: usize = 0x0e;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
/// Interrupt Line is a note of the guest's. Interrupt Pin is 0: no function of ours has INTx.
/// (6.2.4)
const INTERRUPT_LINE: usize = 0x3c;
/// Capabilities follow the header.
const FIRST_CAPABILITY: u8 = 0x40;

/// What a function says it is. (6.2.1, 6.2.4)
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID and subsystem ID.
    pub subsystem: (u16, u16),
    /// Class, subclass, programming interface: 0xccsspp.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
}

/// The registers of one function.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: [u8; CONFIG_LEN],
    /// The bits that the guest may write.
    writable: [u8; CONFIG_LEN],
    /// Where the next capability goes.
    next: u8,
    /// Bytes that BAR 0 decodes; 0 if there is none.
    bar_len: u32,
}

impl ConfigSpace {
    /// A type 0 header without BARs and capabilities.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; CONFIG_LEN],
            writable: [0; CONFIG_LEN],
            next: FIRST_CAPABILITY,
            bar_len: 0,
        };
        space.put(0x00, &identity.vendor.to_le_bytes());
        space.put(0x02, &identity.device.to_le_bytes());
        space.put(0x08, &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes());
        space.put(0x2c, &identity.subsystem.0.to_le_bytes());
        space.put(0x2e, &identity.subsystem.1.to_le_bytes());
        space.writable[COMMAND..COMMAND + 2].copy_from_slice(&COMMAND_WRITABLE.to_le_bytes());
        space.writable[INTERRUPT_LINE] = 0xff;
        space
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// With nothing for the guest to write.
    pub fn read_only(mut self) -> Self {
        self.writable = [0; CONFIG_LEN];
        self
    }

    /// As one function of several of its device: bit 7 of the header type. (6.2.1)
    pub fn multi_function(mut self) -> Self {
        self.bytes[HEADER_TYPE] |= 0x80;
        self
    }

    /// With these bytes at `at`, of which the guest may write the bits of `writable`.
    pub fn with<const N: usize>(mut self, at: usize, bytes: [u8; N], writable: [u8; N]) -> Self {
        self.put(at, &bytes);
        self.writable[at..at + N].copy_from_slice(&writable);
        self
    }

    /// Let BAR 0 decode `len` bytes of 32-bit memory, a power of two of at least a page, from
    /// `base` on. The bits below `len` are not writable, which is how the guest finds the size out.
    /// (6.2.5.1)
    pub fn set_bar0(&mut self, base: u32, len: u32) {
        debug_assert!(len.is_power_of_two() && len >= 4096 && base.is_multiple_of(len));
        self.put(BAR0, &base.to_le_bytes());
        self.writable[BAR0..BAR0 + 4].copy_from_slice(&(!(len - 1)).to_le_bytes());
        self.bar_len = len;
    }

    /// Append a capability: its id, and `body` behind the pointer to the next, of which the guest
    /// may write the bits of `writable`, from the body's beginning on. Where it lies. (6.7)
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u8 {
        let at = self.next;
        let start = usize::from(at);
        // The list is in order: the last pointer so far becomes this one's.
        let mut pointer = CAPABILITIES;
        while self.bytes[pointer] != 0 {
            pointer = usize::from(self.bytes[pointer]) + 1;
        }
        self.bytes[pointer] = at;
        self.bytes[start] = id;
        self.put(start + 2, body);
        self.writable[start + 2..start + 2 + writable.len()].copy_from_slice(writable);
        self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.next = (start + 2 + body.len()).next_multiple_of(4) as u8;
        at
    }

    /// The guest reads.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(bytes) =
            offset.checked_add(data.len()).and_then(|end| self.bytes.get(offset..end))
        {
            data.copy_from_slice(bytes);
        }
    }

    /// The guest writes; bits that are not its own stay.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((byte, mask), new) in bytes.zip(data) {
            *byte = *byte & !mask | new & mask;
        }
    }

    /// Two bytes of the registers.
    pub fn u16_at(&self, at: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Four bytes of the registers.
    pub fn u32_at(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Where BAR 0 decodes, and how much; `None` while Memory Space is off.
    pub fn memory(&self) -> Option<(u64, u64)> {
        let on = self.u16_at(COMMAND) & MEMORY_SPACE != 0 && self.bar_len != 0;
        on.then(|| (self.u32_at(BAR0).into(), self.bar_len.into()))
    }

    /// All of it, for a snapshot.
    pub fn save(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Take over what was saved.
    ///
    /// # Errors
    /// It is another function's: something that the guest cannot write differs.
    pub fn restore(&mut self, saved: &[u8]) -> Result<()> {
        let same = saved.len() == CONFIG_LEN
            && saved
                .iter()
                .zip(&self.bytes)
                .zip(&self.writable)
                .all(|((saved, byte), mask)| (saved ^ byte) & !mask == 0);
        if !same {
            return Err(Error::failure("the saved PCI configuration space is another device's"));
        }
        self.write(0, saved);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        vendor: 0x1af4,
        device: 0x1042,
        subsystem: (0x1af4, 0x1100),
        class: 0x01_8000,
        revision: 1,
    };

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(&IDENTITY);
        space.set_bar0(0xe000_0000, 0x8000);
        space
    }

    #[test]
    fn a_guest_finds_identity_and_size() {
        let mut space = space();
        assert_eq!(space.u32_at(0), 0x1042_1af4);
        assert_eq!(space.u32_at(8), 0x0180_0001);
        assert_eq!(space.u32_at(0x2c), 0x1100_1af4);
        assert_eq!(space.u16_at(0x3c), 0, "no interrupt pin");
        space.write(BAR0, &[0xff; 4]);
        assert_eq!(space.u32_at(BAR0), !0x7fff, "32 KiB of 32-bit memory");
        space.write(BAR0 + 4, &[0xff; 20]);
        assert!((1..6).all(|bar| space.u32_at(BAR0 + 4 * bar) == 0), "no other BAR");
    }

    #[test]
    fn memory_decodes_where_the_bar_says_when_the_command_says() {
        let mut space = space();
        assert_eq!(space.memory(), None);
        space.write(COMMAND, &[0xff, 0xff]);
        assert_eq!(space.u16_at(COMMAND), COMMAND_WRITABLE);
        assert_eq!(space.memory(), Some((0xe000_0000, 0x8000)));
        space.write(BAR0, &0xf123_4567_u32.to_le_bytes());
        assert_eq!(space.memory(), Some((0xf123_0000, 0x8000)));
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut space = space();
        assert_eq!(space.u16_at(STATUS), 0);
        let first = space.add_capability(9, &[1, 2, 3], &[]);
        let second = space.add_capability(0x11, &[0xf0, 0], &[0x0f]);
        assert_eq!((space.bytes[CAPABILITIES], first, second), (0x40, 0x40, 0x48));
        assert_eq!(space.u32_at(0x40), 0x0201_4809);
        assert_eq!(space.u32_at(0x48), 0x00f0_0011);
        space.write(0x40, &[0xff; 12]);
        assert_eq!(space.u32_at(0x40), 0x0201_4809, "read-only");
        assert_eq!(space.u32_at(0x48), 0x00ff_0011, "but for the bits said");
    }

    #[test]
    fn accesses_beyond_the_end_do_nothing() {
        let mut space = space();
        for offset in [CONFIG_LEN - 1, CONFIG_LEN, usize::MAX] {
            let mut data = [0; 4];
            space.read(offset, &mut data);
            assert_eq!(data, [0xff; 4]);
            space.write(offset, &data);
        }
    }

    #[test]
    fn a_saved_state_fits_its_own_device_only() {
        let mut space = space();
        space.write(BAR0, &0xf000_0000_u32.to_le_bytes());
        let saved = space.save();
        let mut other = self::space();
        other.restore(&saved).unwrap();
        assert_eq!(other.u32_at(BAR0), 0xf000_0000);
        let mut rng = ConfigSpace::new(&Identity { device: 0x1044, ..IDENTITY });
        assert!(rng.restore(&saved).is_err());
        assert!(other.restore(&saved[1..]).is_err());
    }
}
