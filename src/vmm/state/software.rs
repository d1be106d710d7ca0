//! What the machine executes first, and the RAM that it lies in.

use crate::block::FileDisk;
use crate::boot::Entry;
use crate::error::{Error, Result};
use crate::mem::{GuestRam, ram};
use crate::plan::{DeviceId, VmPlan};
use crate::vmm::component::{Component, decode, encode};
use crate::vmm::menu::Selection;
use crate::vmm::payload::Payload;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const NAME: &str = "software";
const VERSION: u16 = 1;

struct Content {
    payload: Payload,
    /// Where the boot processor begins after the last reset.
    entry: Option<Entry>,
    /// What a boot menu chose at the last reset, until it is told.
    selection: Option<Selection>,
}

/// Kernel or firmware, with RAM.
pub struct Software {
    plan: Arc<VmPlan>,
    ram: GuestRam,
    disks: Vec<(DeviceId, Arc<FileDisk>)>,
    content: Mutex<Content>,
}

impl Software {
    /// The payload of the plan's machine, whose boot menu may lie on one of `disks`.
    pub fn new(
        plan: Arc<VmPlan>,
        ram: GuestRam,
        payload: Payload,
        disks: Vec<(DeviceId, Arc<FileDisk>)>,
    ) -> Self {
        let content = Mutex::new(Content { payload, entry: None, selection: None });
        Self { plan, ram, disks, content }
    }

    /// Every field is valid at every moment, whoever panicked.
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the boot processor begins after the last reset.
    pub fn entry(&self) -> Option<Entry> {
        self.content().entry.take()
    }

    /// What a boot menu chose at the last reset, once.
    pub fn take_selection(&self) -> Option<Selection> {
        self.content().selection.take()
    }
}

impl Component for Software {
    fn name(&self) -> &str {
        NAME
    }

    /// The disks have come to rest.
    fn reset(&self) -> Result<()> {
        let mut content = self.content();
        let disk = |id: &DeviceId| {
            let found = self.disks.iter().find(|(name, _)| name == id);
            found.map(|(_, disk)| &**disk)
        };
        content.selection = content.payload.select(disk)?;
        ram::clear(&self.ram)?;
        content.entry = Some(content.payload.load(&self.plan, &self.ram)?);
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>> {
        encode(VERSION, &self.content().payload.mark()?)
    }

    fn restore(&self, state: &[u8]) -> Result<()> {
        let saved: Option<[u8; 32]> = decode(NAME, VERSION, state)?;
        if saved == self.content().payload.mark()? {
            return Ok(());
        }
        Err(Error::failure("it ran with another firmware than this host has"))
    }
}
