//! What guests say on their serial lines, and what their VMMs tell.

use super::Service;
use super::instances::find;
use crate::error::{Code, Error, Result};
pub use crate::instance::console::{Detached, Part};
use crate::instance::console::{attach, connect, copy_log, last_lines};
use crate::instance::dir::{CONSOLE, InstanceDir, VMM_LOG};
pub use crate::instance::plain::{Plain, Shown};
use crate::plan::VmReport;
use crate::record::instance::InstanceRecord;
pub use crate::store::rfc3339;
pub use crate::store::time::parse as parse_time;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// A running instance's serial line, for whoever waits for several things at once.
pub struct SerialLine {
    /// What is written to it is typed. What is read from it was said, and is in the log by then;
    /// it ends with the VM.
    pub stream: UnixStream,
    /// All that the guest says. The VMM cuts it at its beginning when it is too long.
    pub log: File,
    /// The byte of the log at which the instance's last start begins.
    pub start: u64,
}

impl Service {
    /// EC2 GetConsoleOutput: what a guest has said, copied to `to`.
    ///
    /// # Errors
    /// The instance is unknown, the log can't be read or `to` not written; this user has no inotify
    /// instance left.
    pub fn get_console_output(
        &self,
        instance_id: &str,
        part: Part,
        to: &mut dyn Write,
    ) -> Result<()> {
        copy_log(&find(&self.store, instance_id)?, CONSOLE, part, to)
    }

    /// The last lines of what a guest has said since its last start, at most `most`, without
    /// control characters.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn last_console_lines(&self, record: &InstanceRecord, most: usize) -> Result<Vec<String>> {
        last_lines(&self.dir(record), record.instance.spore.console_start, most)
    }

    /// What an instance's VMM printed, which is copied to `to`, and what it reported, the oldest
    /// first.
    ///
    /// # Errors
    /// The instance is unknown, its logs can't be read or `to` not written.
    pub fn get_vmm_output(&self, instance_id: &str, to: &mut dyn Write) -> Result<Vec<VmReport>> {
        let dir = find(&self.store, instance_id)?;
        copy_log(&dir, VMM_LOG, Part::default(), to)?;
        dir.reports()
    }

    /// Joins `input` and `output` to a running instance's serial line, until the VM ends. With
    /// `keys`, `^]` in the input ends it too; otherwise input is passed on untouched.
    ///
    /// # Errors
    /// No VMM answers, or a stream fails.
    pub fn attach_console(
        &self,
        record: &InstanceRecord,
        input: impl Read + AsFd,
        output: impl Write + Send,
        keys: bool,
    ) -> Result<Detached> {
        attach(&self.dir(record), input, output, keys)
    }

    /// A running instance's serial line.
    ///
    /// # Errors
    /// `IncorrectInstanceState`: it does not run. No VMM answers; it has no log.
    pub fn serial_line(&self, instance_id: &str) -> Result<SerialLine> {
        let record = self.describe_instance(instance_id)?;
        let (id, state) = (&record.instance.instance_id, record.instance.state);
        if !state.is_active() {
            let why = format!("{id} is {}; its system log has what it said", state.name());
            return Err(Error::refused(Code::IncorrectInstanceState, why));
        }
        let dir = self.dir(&record);
        let stream = connect(&dir)?;
        let log = dir.open_file(CONSOLE)?;
        let log = log.ok_or_else(|| Error::failure(format!("{id} has no console log")))?;
        Ok(SerialLine { stream, log, start: record.instance.spore.console_start })
    }

    fn dir(&self, record: &InstanceRecord) -> InstanceDir {
        InstanceDir::new(&self.store, &record.instance.instance_id)
    }
}
