//! When a guest said what is in its console log.

use super::dir::{CONSOLE_TIMES, InstanceDir};
use crate::error::{OrFail, Result};
use crate::plan::times::{Entry, LEN};
use crate::store::rfc3339;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

/// Most bytes of the file that are read: a VMM writes fewer.
const MAX_BYTES: u64 = 4 << 20;
/// In the place of a time that is not known.
const UNKNOWN: &str = "-";

/// The times of a log, as far as they are known.
#[derive(Debug, Default)]
pub struct Times {
    file: Option<File>,
    left: u64,
    /// The beginning of an entry that is not whole yet.
    part: Vec<u8>,
    /// From which byte on what was said when, in milliseconds since the epoch.
    said: Vec<(u64, u64)>,
}

impl Times {
    /// Those of an instance's console.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn of(dir: &InstanceDir) -> Result<Self> {
        let file = dir.open_file(CONSOLE_TIMES)?;
        let mut times = Self { file, left: MAX_BYTES, ..Self::default() };
        times.go_on().or_fail(|| format!("read {}", dir.file(CONSOLE_TIMES).display()))?;
        Ok(times)
    }

    /// Reads what has been added.
    fn go_on(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let read = file.take(self.left).read_to_end(&mut self.part)?;
        self.left -= read as u64;
        let bytes = std::mem::take(&mut self.part);
        let mut entries = bytes.chunks_exact(LEN);
        for entry in &mut entries {
            match Entry::of_bytes(entry.try_into().unwrap_or_default()) {
                Entry::Said { from, at } => self.said.push((from, at)),
                Entry::Cut(bytes) => {
                    let left = |(from, at): &(u64, u64)| Some((from.checked_sub(bytes)?, *at));
                    self.said = self.said.iter().filter_map(left).collect();
                }
            }
        }
        self.part = entries.remainder().to_vec();
        Ok(())
    }

    /// When the byte of this number was said.
    fn of_byte(&self, byte: u64) -> Option<u64> {
        let after = self.said.partition_point(|(from, _)| *from <= byte);
        self.said.get(after.checked_sub(1)?).map(|(_, at)| *at)
    }

    /// Where what was said at that time or later begins. What may be older is not left out where
    /// nobody knows.
    pub fn since(&self, time: u64) -> u64 {
        match self.said.iter().position(|(_, at)| *at >= time) {
            Some(0) => 0,
            Some(n) => self.said[n].0,
            None if self.said.is_empty() => 0,
            None => u64::MAX,
        }
    }
}

/// Writes a log on, each line with its time before it.
pub struct Stamped<'a> {
    to: &'a mut dyn Write,
    times: Times,
    /// The byte that is written next.
    at: u64,
    within: bool,
}

impl<'a> Stamped<'a> {
    /// From this byte of the log on.
    pub fn new(to: &'a mut dyn Write, times: Times, at: u64) -> Self {
        Self { to, times, at, within: false }
    }
}

impl Write for Stamped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.times.go_on()?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.within {
                let time = self.times.of_byte(self.at).map(Duration::from_millis);
                let time = time.map_or_else(|| UNKNOWN.to_owned(), rfc3339);
                write!(self.to, "{time} ")?;
            }
            self.to.write_all(line)?;
            self.within = !line.ends_with(b"\n");
            self.at += line.len() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fds;
    use std::io::Seek;

    fn times(entries: &[Entry]) -> Times {
        let mut file = fds::memfd("times").unwrap();
        entries.iter().for_each(|entry| file.write_all(&entry.to_bytes()).unwrap());
        file.rewind().unwrap();
        let mut times = Times { file: Some(file), left: MAX_BYTES, ..Times::default() };
        times.go_on().unwrap();
        times
    }

    fn said(from: u64, at: u64) -> Entry {
        Entry::Said { from, at }
    }

    #[test]
    fn a_line_has_the_time_of_its_first_byte() {
        let (mut text, times) = (Vec::new(), times(&[said(2, 1000), said(8, 2000)]));
        let mut stamped = Stamped::new(&mut text, times, 0);
        for piece in ["a\nfour", " five\nsix\nse", "ven"] {
            stamped.write_all(piece.as_bytes()).unwrap();
        }
        let at = |second: u32| format!("1970-01-01T00:00:0{second}.000Z");
        let lines = format!("- a\n{} four five\n{} six\n{1} seven", at(1), at(2));
        assert_eq!(String::from_utf8(text).unwrap(), lines);
    }

    #[test]
    fn what_was_said_since_a_time_is_found() {
        let of = times(&[said(2, 1000), said(8, 2000), said(20, 3000)]);
        assert_eq!([0, 1001, 2000, 2001, 3001].map(|at| of.since(at)), [0, 8, 8, 20, u64::MAX]);
        assert_eq!(Times::default().since(5), 0);
        // What is in no order is what somebody made.
        assert_eq!(times(&[said(9, 7), said(1, 3)]).since(8), u64::MAX);
    }

    #[test]
    fn times_are_of_the_log_as_it_was_cut() {
        let of = times(&[said(2, 1), said(8, 2), Entry::Cut(5), said(4, 3)]);
        assert_eq!((of.of_byte(2), of.of_byte(3), of.of_byte(4)), (None, Some(2), Some(3)));
        assert_eq!(times(&[said(2, 1), Entry::Cut(u64::MAX)]).of_byte(9), None);
    }
}
