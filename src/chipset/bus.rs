//! Address decoding: which device answers a port or memory-mapped access.

/// A device with registers. Accesses come from vCPU threads, `data` has 1, 2, 4 or 8 bytes (as many
/// as the guest's access), `offset` is relative to the device's base. What a device does not
/// implement reads as all ones and ignores writes.
pub trait BusDevice: Send + Sync {
    /// The guest reads; fill `data`.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// The guest writes `data`.
    fn write(&self, offset: u64, data: &[u8]);
}
