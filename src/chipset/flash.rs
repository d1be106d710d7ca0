//! Flash memory that keeps UEFI's variables: Intel's command set (CFI primary command set 0001h) as
//! far as OVMF's driver speaks it. (JEDEC JEP137; Intel 28F640J5 datasheet, 4; EDK2's
//! OvmfPkg/QemuFlashFvbServicesRuntimeDxe/QemuFlash.c)
//!
//! The guest reads it without an exit: it is a read-only slot over memory of ours, and each write
//! is a command. No slot ever changes, which would cost milliseconds. What the driver asks for its
//! status, one byte, it finds in the byte that it asks at, until its next write.
//!
//! What is programmed goes to the file at once, in the guest's order, so that a VMM that is killed
//! leaves what the firmware's own recovery expects. It is made durable when the machine ends.

use crate::chipset::bus::BusDevice;
use crate::error::{Error, OrFail, Result};
use crate::mem::layout::{FIRMWARE_END, flash_fits};
use crate::mem::ram::RamRegion;
use crate::sys::fds;
use crate::sys::mmap::{self, HugePages};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// Bytes that are erased at a time.
pub const BLOCK: u64 = 4096;
/// What an erased byte reads as.
const ERASED: u8 = 0xff;

/// Commands.
const PROGRAM: u8 = 0x10;
const PROGRAM_TOO: u8 = 0x40;
const ERASE: u8 = 0x20;
const ERASE_CONFIRM: u8 = 0xd0;
const CLEAR_STATUS: u8 = 0x50;
const READ_STATUS: u8 = 0x70;

/// Bits of the status register.
const READY: u8 = 1 << 7;
const ERASE_ERROR: u8 = 1 << 5;
const PROGRAM_ERROR: u8 = 1 << 4;

/// What the next write is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Cycle {
    #[default]
    Command,
    /// The byte to be programmed, where it is to be.
    Program,
    /// The confirmation of an erasure, in the block to be erased.
    Erase,
}

/// The state that a hibernated machine keeps; the content is in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlashState {
    cycle: Cycle,
    status: u8,
    /// Where the status is shown, in place of the content.
    shown: Option<u64>,
}

/// The device.
pub struct Flash {
    file: File,
    len: u64,
    memory: MmapRegion,
    state: Mutex<Registers>,
}

struct Registers {
    state: FlashState,
    /// What the byte is that the status hides.
    hidden: u8,
    /// The file could not be written: nothing is lost in the guest's sight, but later.
    failed: Option<String>,
}

impl Flash {
    /// The device with the content of this file, which it keeps there.
    ///
    /// # Errors
    /// Its size is not possible, it can't be read, or the host has no memory.
    pub fn open(file: File) -> Result<Self> {
        let doing = || "open the UEFI variables";
        let len = fds::len(&file).or_fail(doing)?;
        if !flash_fits(len) {
            return Err(Error::failure(format!("UEFI variables of {len} bytes are not possible")));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).or_fail(doing)?;
        let pieces = mmap::anonymous(&[len as usize], HugePages::Refused).or_fail(doing)?;
        let memory = pieces.into_iter().next().ok_or("it has no pages").or_fail(doing)?;
        let slice = memory.get_slice(0, len as usize).or_fail(doing)?;
        slice.write_slice(&bytes, 0).or_fail(doing)?;
        let registers = Registers { state: FlashState::default(), hidden: 0, failed: None };
        Ok(Self { file, len, memory, state: Mutex::new(registers) })
    }

    /// Where the machine has it: up to where its firmware of `firmware` bytes begins. The guest
    /// reads it there; its writes are to come to this device.
    ///
    /// # Errors
    /// Both together are too large.
    pub fn region(&self, firmware: u64) -> Result<RamRegion> {
        let sum = firmware.checked_add(self.len).filter(|sum| flash_fits(*sum));
        let sum =
            sum.ok_or("it leaves no room for its variables").or_fail(|| "map the firmware")?;
        Ok(RamRegion { gpa: FIRMWARE_END - sum, host: self.memory.as_ptr() as u64, len: self.len })
    }

    /// Every field is valid between any two statements, whoever panicked.
    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The byte that the guest reads; erased beyond the end.
    fn byte(&self, at: u64) -> u8 {
        let slice = self.memory.get_slice(0, self.len as usize);
        slice.ok().and_then(|slice| slice.read_obj(at as usize).ok()).unwrap_or(ERASED)
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        if let Ok(slice) = self.memory.get_slice(0, self.len as usize) {
            // Callers stay within it.
            let _ = slice.write_slice(bytes, at as usize);
        }
    }

    /// Store bytes, for the guest and in the file. False if the file does not take them.
    fn store(&self, registers: &mut Registers, at: u64, bytes: &[u8]) -> bool {
        let written = self.file.write_all_at(bytes, at);
        if let Err(cause) = written {
            registers.failed = Some(cause.to_string());
            return false;
        }
        self.put(at, bytes);
        true
    }

    /// Let the guest find the status where it asks for it.
    fn show(&self, registers: &mut Registers, at: u64) {
        registers.hidden = self.byte(at);
        registers.state.shown = Some(at);
        self.put(at, &[registers.state.status]);
    }

    /// Let the guest find the content again.
    fn hide(&self, registers: &mut Registers) {
        if let Some(at) = registers.state.shown.take() {
            self.put(at, &[registers.hidden]);
        }
    }

    fn command(&self, registers: &mut Registers, at: u64, value: u8) {
        match value {
            PROGRAM | PROGRAM_TOO => registers.state.cycle = Cycle::Program,
            ERASE => registers.state.cycle = Cycle::Erase,
            CLEAR_STATUS => registers.state.status = 0,
            READ_STATUS => self.show(registers, at),
            // To read the array needs no command here.
            _ => {}
        }
    }

    /// As QEMU's, which firmware knows, a byte takes any value: OVMF erases a block before where
    /// that matters.
    fn program(&self, registers: &mut Registers, at: u64, value: u8) {
        let done = self.store(registers, at, &[value]);
        registers.state.status |= if done { READY } else { READY | PROGRAM_ERROR };
    }

    fn erase(&self, registers: &mut Registers, at: u64, value: u8) {
        let start = at - at % BLOCK;
        let error = match value {
            ERASE_CONFIRM if self.store(registers, start, &[ERASED; BLOCK as usize]) => 0,
            ERASE_CONFIRM => ERASE_ERROR,
            // A sequence of commands that there is not.
            _ => ERASE_ERROR | PROGRAM_ERROR,
        };
        registers.state.status |= READY | error;
    }

    /// The machine's reset: what was programmed stays.
    pub fn reset(&self) {
        let mut registers = self.registers();
        self.hide(&mut registers);
        registers.state = FlashState::default();
    }

    /// Makes what was programmed durable.
    ///
    /// # Errors
    /// The host's file system refuses, or has refused before.
    pub fn sync(&self) -> Result<()> {
        let doing = || "keep the UEFI variables";
        self.file.sync_data().or_fail(doing)?;
        self.registers().failed.take().map_or(Ok(()), Err).or_fail(doing)
    }

    /// The state that a hibernated machine keeps.
    pub fn save(&self) -> FlashState {
        self.registers().state
    }

    /// Takes over a saved state; the content is the file's.
    pub fn restore(&self, state: FlashState) {
        let mut registers = self.registers();
        self.hide(&mut registers);
        registers.state = FlashState { shown: None, ..state };
        if let Some(at) = state.shown.filter(|at| *at < self.len) {
            self.show(&mut registers, at);
        }
    }
}

impl BusDevice for Flash {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = self.byte(at);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        // It is a byte wide.
        let &[value] = data else { return };
        let mut registers = self.registers();
        self.hide(&mut registers);
        match std::mem::take(&mut registers.state.cycle) {
            Cycle::Command => self.command(&mut registers, offset, value),
            Cycle::Program => self.program(&mut registers, offset, value),
            Cycle::Erase => self.erase(&mut registers, offset, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCKS: u64 = 3;
    const LEN: u64 = BLOCKS * BLOCK;

    fn file() -> File {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..LEN).map(|n| (n / 7) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; LEN as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn byte(flash: &Flash, at: u64) -> u8 {
        let mut data = [0];
        flash.read(at, &mut data);
        data[0]
    }

    /// QemuFlashDetected in EDK2, word for word what it takes for RAM, ROM and flash.
    fn detected(flash: &Flash) -> &'static str {
        let at = (0..LEN).find(|at| !matches!(byte(flash, *at), 0 | CLEAR_STATUS | READ_STATUS));
        let at = at.unwrap();
        let original = byte(flash, at);
        flash.write(at, &[CLEAR_STATUS]);
        if byte(flash, at) == CLEAR_STATUS {
            return "RAM";
        }
        flash.write(at, &[READ_STATUS]);
        let found = match byte(flash, at) {
            byte if byte == original => "ROM",
            READ_STATUS => "RAM",
            0 => "flash",
            _ => "nothing",
        };
        flash.write(at, &[0xff]);
        assert_eq!(byte(flash, at), original);
        found
    }

    #[test]
    fn firmware_takes_it_for_flash_and_what_it_writes_stays() {
        let file = file();
        let flash = Flash::open(file.try_clone().unwrap()).unwrap();
        assert_eq!(detected(&flash), "flash");
        let before = content(&file);
        for (at, value) in [(BLOCK + 5, ERASE), (BLOCK + 5, ERASE_CONFIRM), (BLOCK + 9, PROGRAM)] {
            flash.write(at, &[value]);
        }
        flash.write(BLOCK + 9, &[0x42]);
        flash.write(BLOCK, &[0xff]);
        let mut wanted = before;
        wanted[BLOCK as usize..2 * BLOCK as usize].fill(ERASED);
        wanted[BLOCK as usize + 9] = 0x42;
        assert_eq!(content(&file), wanted);
        flash.sync().unwrap();
        let again = Flash::open(file).unwrap();
        assert!((0..LEN).all(|at| byte(&again, at) == wanted[at as usize]));
        assert_eq!(detected(&flash), "flash", "whatever was done before");
    }

    #[test]
    fn it_lies_below_its_firmware() {
        let flash = Flash::open(file()).unwrap();
        let region = flash.region(0x37_c000).unwrap();
        assert_eq!((region.gpa, region.len), ((1 << 32) - 0x37_c000 - LEN, LEN));
        for firmware in [u64::MAX, 8 << 20, 1] {
            assert!(flash.region(firmware).is_err(), "{firmware:#x}");
        }
        for len in [0, 1, 4095, (8 << 20) + 4096] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(len).unwrap();
            assert!(Flash::open(file).is_err(), "{len}");
        }
    }

    #[test]
    fn a_file_that_takes_nothing_is_told_to_the_guest_and_at_the_end() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), content(&file())).unwrap();
        let flash = Flash::open(File::open(path.path()).unwrap()).unwrap();
        let before = byte(&flash, 7);
        for value in [PROGRAM, 0x42, READ_STATUS] {
            flash.write(7, &[value]);
        }
        assert_eq!(byte(&flash, 7), READY | PROGRAM_ERROR);
        flash.write(7, &[0xff]);
        assert_eq!(byte(&flash, 7), before);
        assert!(flash.sync().is_err());
    }

    /// The command set, of an array of bytes.
    #[derive(Default)]
    struct Model {
        array: Vec<u8>,
        state: FlashState,
    }

    impl Model {
        fn write(&mut self, at: u64, value: u8) {
            self.state.shown = None;
            let block = (at / BLOCK * BLOCK) as usize;
            match (std::mem::take(&mut self.state.cycle), value) {
                (Cycle::Program, value) => {
                    self.array[at as usize] = value;
                    self.state.status |= 0x80;
                }
                (Cycle::Erase, 0xd0) => {
                    self.array[block..block + BLOCK as usize].fill(0xff);
                    self.state.status |= 0x80;
                }
                (Cycle::Erase, _) => self.state.status |= 0xb0,
                (Cycle::Command, 0x10 | 0x40) => self.state.cycle = Cycle::Program,
                (Cycle::Command, 0x20) => self.state.cycle = Cycle::Erase,
                (Cycle::Command, 0x50) => self.state.status = 0,
                (Cycle::Command, 0x70) => self.state.shown = Some(at),
                (Cycle::Command, _) => {}
            }
        }

        fn read(&self, at: u64) -> u8 {
            match self.state.shown {
                Some(shown) if shown == at => self.state.status,
                _ => self.array[at as usize],
            }
        }
    }

    fn value() -> impl Strategy<Value = u8> {
        let command = prop::sample::select(vec![0x10, 0x40, 0x20, 0xd0, 0x50, 0x70, 0xff]);
        prop_oneof![3 => command, 1 => any::<u8>()]
    }

    proptest! {
        #[test]
        fn it_does_what_the_command_set_says_over_reset_and_hibernation(
            steps in prop::collection::vec((0..LEN, value(), 0u8..40), 0..200),
        ) {
            let file = file();
            let mut flash = Flash::open(file.try_clone().unwrap()).unwrap();
            let mut model = Model { array: content(&file), ..Model::default() };
            for (at, value, what) in steps {
                match what {
                    0 => {
                        flash.reset();
                        model.state = FlashState::default();
                    }
                    1 => {
                        let state = flash.save();
                        flash = Flash::open(file.try_clone().unwrap()).unwrap();
                        flash.restore(state);
                    }
                    2 => flash.write(at.min(LEN - 4), &[value; 4]),
                    _ => {
                        flash.write(at, &[value]);
                        model.write(at, value);
                    }
                }
                prop_assert_eq!(byte(&flash, at), model.read(at));
                prop_assert_eq!(flash.save(), model.state);
            }
            prop_assert_eq!(content(&file), &model.array[..]);
            flash.reset();
            model.state = FlashState::default();
            prop_assert!((0..LEN).all(|at| byte(&flash, at) == model.read(at)));
        }

        /// A saved state may be anybody's.
        #[test]
        fn no_state_shows_what_is_not_there(at in any::<u64>(), status in any::<u8>()) {
            let flash = Flash::open(file()).unwrap();
            flash.restore(FlashState { cycle: Cycle::Erase, status, shown: Some(at) });
            flash.write(LEN - 1, &[0xd0]);
            prop_assert_eq!(byte(&flash, LEN - 1), 0xff);
        }
    }
}
