//! What happened to the objects: one line of JSON each, appended, never changed.
//!
//! Every object that appears, goes or changes in what matters passes through the store, so no verb
//! can forget its line. `spore events` prints them, `spore usage` adds them up. An account has a
//! journal of its own, `accounts/UID/journal.jsonl`, which only it can write.
//!
//! A line is one write(2) with O_APPEND: lines of many processes never mix. A crash may tear the
//! last one; the next writer begins a new line after it, and readers leave out what is no line.
//! What a line of a durable object says is on the medium when the command that did it ends; all
//! lines before it are, too.

use super::accounts::{account_dir, account_of, make_account_dir};
use super::beneath::names::accounts as accounts_in_words;
use super::beneath::{Dir, Owned};
use super::time::{boot_id, boot_ms, rfc3339, since_epoch};
use crate::context::Context;
use crate::error::{OrFail, Result};
use crate::record::{Durability, Record};
use crate::sys::fault;
use rustix::fs::{FallocateFlags, FileType, fallocate};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The journal's name in an account's directory.
const JOURNAL: &str = "journal.jsonl";
/// Bytes that are set aside for lines to come: some 150.
const ROOM: u64 = 64 << 10;
/// Longest line that is read.
const MAX_LINE: u64 = 1 << 16;
/// Of another account's journals the last bytes are read, at most this many of all together, ...
const OTHERS_TAIL: u64 = 8 << 20;
/// ... lines of at most this many bytes, ...
const OTHERS_LINE: usize = 1 << 12;
/// ... each element of which counts so many bytes more: what they become in memory.
const OTHERS_ELEMENT: usize = 32;
/// Directories of another account that are looked at: it has one, and another where somebody took
/// its name.
const OTHERS_DIRECTORIES: usize = 16;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// It is there.
    Created,
    /// Something of it that matters is otherwise.
    Modified,
    /// It is going: the line is written first.
    Removed,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// RFC 3339, UTC, by the wall clock.
    pub event_time: String,
    /// Milliseconds since the host booted, sleep included: no clock that jumps can change the
    /// difference of two.
    pub boot_ms: u64,
    /// Which boot that was.
    pub boot_id: String,
    /// Who, a uid in decimal.
    pub account_id: String,
    /// By which verb, e.g. `image deregister`; empty of what no command did.
    pub command: String,
    /// What did it, if no command did: `guest powered off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What.
    pub event: Event,
    /// To which kind of object.
    pub kind: String,
    /// And which one.
    pub id: String,
    /// What matters of it, as it is now.
    pub record: Value,
}

/// What happened by itself, before any command saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Milliseconds since the epoch.
    pub at: u64,
    /// What it was, e.g. `guest powered off`.
    pub what: &'static str,
}

/// An account's journal, opened when it is first written to.
#[derive(Debug)]
pub(super) struct Journal {
    home: PathBuf,
    context: Context,
    dir: OnceLock<PathBuf>,
    file: OnceLock<File>,
    boot_id: OnceLock<String>,
    /// A line could not be written, and that has been said.
    failed: AtomicBool,
}

impl Journal {
    /// The journal of the user that this process is.
    pub(super) fn new(home: &Path, context: &Context) -> Self {
        Self {
            home: home.to_owned(),
            context: context.clone(),
            dir: OnceLock::new(),
            file: OnceLock::new(),
            boot_id: OnceLock::new(),
            failed: AtomicBool::new(false),
        }
    }

    /// The directory of what the user's account has to itself.
    pub(super) fn account_dir(&self) -> &Path {
        self.dir.get_or_init(|| account_dir(&self.home, &self.context))
    }

    fn file(&self) -> Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = open(self.account_dir())?;
        Ok(self.file.get_or_init(|| file))
    }
}

fn open(dir: &Path) -> Result<File> {
    let attempt = |dir: &Owned| -> io::Result<File> {
        let mut file = dir.append(JOURNAL)?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        let end = file.metadata()?.len();
        if end == 0 {
            dir.sync()?;
        }
        // On a disk that fills up it can still be said what is ended and deleted. Where there is no
        // room it is not.
        let _ = fallocate(&file, FallocateFlags::KEEP_SIZE, end, ROOM);
        super::reserve::fill(dir);
        Ok(file)
    };
    let path = dir.join(JOURNAL);
    attempt(&make_account_dir(dir)?).or_fail(|| format!("open the journal {}", path.display()))
}

impl Journal {
    /// Append a line about a record. What was done is done, so failing at it is a warning.
    pub(super) fn append_event<R: Record>(
        &self,
        event: Event,
        id: &str,
        mut record: Value,
        durability: Durability,
        cause: Option<&Cause>,
    ) {
        let stat = |content| Dir::open(&self.home.join(R::DIRECTORY).join(id))?.stat(content);
        if event != Event::Removed
            && let Some(content) = R::CONTENT
            && let Ok(stat) = stat(content)
        {
            record["StoredBytes"] = (stat.st_blocks * 512).into();
        }
        self.append((event, cause), (R::KIND, id), record, durability);
    }

    /// Append a line about what is no object of the store, such as a product.
    pub(super) fn append_event_of(&self, event: Event, kind: &str, id: &str, record: Value) {
        self.append((event, None), (kind, id), record, Durability::Durable);
    }

    fn append(
        &self,
        (event, cause): (Event, Option<&Cause>),
        (kind, id): (&str, &str),
        record: Value,
        durability: Durability,
    ) {
        let now = since_epoch();
        let at = cause.map_or(now, |cause| Duration::from_millis(cause.at).min(now));
        let ago = u64::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX);
        let command = if cause.is_none() { self.context.verb() } else { "" };
        let entry = Entry {
            event_time: rfc3339(at),
            boot_ms: boot_ms().saturating_sub(ago),
            boot_id: self.boot_id.get_or_init(boot_id).clone(),
            account_id: self.context.caller().to_string(),
            command: command.to_owned(),
            cause: cause.map(|cause| cause.what.to_owned()),
            event,
            kind: kind.to_owned(),
            id: id.to_owned(),
            record,
        };
        let write = || -> Result<()> {
            let mut line = serde_json::to_vec(&entry).or_fail(|| "write the journal")?;
            line.push(b'\n');
            fault::point("a line of the journal");
            let mut file = self.file()?;
            file.write_all(&line).or_fail(|| "write the journal")?;
            if durability == Durability::Durable {
                fault::point("sync of the journal");
                file.sync_data().or_fail(|| "sync the journal")?;
            }
            Ok(())
        };
        if let Err(error) = write() {
            // Once is enough: a launch of a hundred has as many lines.
            if !self.failed.swap(true, Ordering::Relaxed) {
                self.context.warn(format_args!(
                    "{error}; 'spore events' and 'spore usage' will not know of {id} and what follows"
                ));
            }
        }
    }

    /// All that this user may read of the journals: each account's in the order in which it
    /// happened, whatever the clock did. Lines that are none are left out.
    ///
    /// # Errors
    /// A journal can't be read.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let Ok(accounts) = Dir::place(&self.home.join("accounts")) else { return Ok(entries) };
        let is_account = |name: &str| account_of(name).is_some();
        let names = accounts.names_by_account(FileType::Directory, is_account);
        let names = names.or_fail(|| format!("list {}", accounts.path().display()))?;
        for name in &names.ours {
            let Some(account) = opened(&accounts, name) else { continue };
            let doing = || format!("read the journal {}", account.path().join(JOURNAL).display());
            match account.file(JOURNAL) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                file => read(file.or_fail(doing)?, &account, &mut entries).or_fail(doing)?,
            }
        }
        let mut left_out = Vec::new();
        for (account, others) in names.others {
            let more = others.more || others.names.len() > OTHERS_DIRECTORIES;
            let mut tail = Tail { left_out: more, ..Tail::default() };
            for name in others.names.iter().take(OTHERS_DIRECTORIES) {
                let Some(account) = opened(&accounts, name) else { continue };
                // What can't be read is for them to mend.
                let _ = account.file(JOURNAL).map(|journal| tail.read(journal, &account));
            }
            entries.extend(tail.entries);
            left_out.extend(tail.left_out.then_some(account));
        }
        if let Some(whose) = accounts_in_words(&left_out) {
            self.context.warn(format_args!(
                "the journal of {whose} has more than {} MiB, or lines that are too long: what is left out of it, 'spore \
                 events' and 'spore usage' of that account itself have",
                OTHERS_TAIL >> 20
            ));
        }
        Ok(entries)
    }
}

/// An account's directory.
fn opened(accounts: &Dir, name: &str) -> Option<Dir> {
    let account = accounts.object(name).ok()?;
    (account_of(name) == Some(account.owner())).then_some(account)
}

fn read(file: impl Read, account: &Dir, entries: &mut Vec<Entry>) -> io::Result<()> {
    each_line(file, |line| entries.extend(entry(line, account)))
}

/// What a line of an account's journal says. It says only what that account did.
fn entry(line: &[u8], account: &Dir) -> Option<Entry> {
    let entry = serde_json::from_slice::<Entry>(line).ok()?;
    (entry.account_id == account.owner().to_string()).then_some(entry)
}

/// The end of another account's journals, as much as can do no harm.
#[derive(Default)]
struct Tail {
    entries: Vec<Entry>,
    /// Bytes that are taken up, in the files and in memory.
    taken: u64,
    /// That is not all of it.
    left_out: bool,
}

impl Tail {
    fn read(&mut self, mut file: File, account: &Dir) -> io::Result<()> {
        let len = file.seek(SeekFrom::End(0))?;
        let most = OTHERS_TAIL.saturating_sub(self.taken);
        self.left_out |= len > most;
        file.seek(SeekFrom::Start(len.saturating_sub(most)))?;
        let mut text = Vec::new();
        file.take(most).read_to_end(&mut text)?;
        // The last lines are those that are taken.
        let lines: Vec<&[u8]> =
            text.rsplit(|&byte| byte == b'\n').take_while(|line| self.take(line)).collect();
        let fits = |line: &&&[u8]| line.len() <= OTHERS_LINE;
        self.left_out |= !lines.iter().all(|line| fits(&line));
        let read = |line: &&[u8]| entry(line, account);
        self.entries.extend(lines.iter().rev().filter(fits).filter_map(read));
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> bool {
        let elements = line.iter().filter(|&&byte| byte == b',').count();
        self.taken += (line.len() + 1 + elements * OTHERS_ELEMENT) as u64;
        self.left_out |= self.taken > OTHERS_TAIL;
        self.taken <= OTHERS_TAIL
    }
}

fn each_line(file: impl Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        each(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::fs;

    #[test]
    fn a_torn_line_costs_itself_only() {
        let (_dir, store) = Store::scratch();
        store.append_event_of(Event::Created, "product", "a", Value::Null);
        let path = store.account_dir().join(JOURNAL);
        let whole = fs::read(&path).unwrap();
        for cut in [1, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, [&whole[..], &whole[..cut]].concat()).unwrap();
            let again = Store::open_at(store.home()).unwrap();
            again.append_event_of(Event::Created, "product", "b", Value::Null);
            let ids: Vec<String> = again.entries().unwrap().into_iter().map(|e| e.id).collect();
            let complete = cut == whole.len() - 1;
            assert_eq!(ids.first().unwrap(), "a");
            assert_eq!(ids.last().unwrap(), "b");
            assert_eq!(ids.len(), if complete { 3 } else { 2 });
        }
    }

    #[test]
    fn lines_of_many_writers_do_not_mix() {
        let (_dir, store) = Store::scratch();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let store = Store::open_at(store.home()).unwrap();
                scope.spawn(move || {
                    for n in 0..50 {
                        let id = format!("{writer}-{n}");
                        store.append_event_of(
                            Event::Created,
                            "product",
                            &id,
                            "x".repeat(n * 20).into(),
                        );
                    }
                });
            }
        });
        let entries = store.entries().unwrap();
        assert_eq!(entries.len(), 400);
    }
}
