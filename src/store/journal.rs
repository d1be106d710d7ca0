//! What happened to the objects: one line of JSON each, appended, never changed.
//!
//! Every object that appears, goes or changes in what matters passes through the store, so no verb can forget its
//! line. `spore events` prints them, `spore usage` adds them up. An account has a journal of its own,
//! `accounts/UID/journal.jsonl`, which only it can write.
//!
//! A line is one write(2) with O_APPEND: lines of many processes never mix. A crash may tear the last one; the next
//! writer begins a new line after it, and readers leave out what is no line. What a line of a durable object says is on
//! the medium when the command that did it ends; all lines before it are, too.

use super::beneath::{Dir, Owned};
use super::fault;
use super::time::{boot_id, boot_ms, rfc3339, since_epoch};
use crate::context::Context;
use crate::error::{OrFail, Result};
use crate::record::{Durability, Record};
use rustix::fs::{FallocateFlags, fallocate};
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
/// Of another account's journal, its last bytes are read, at most this many, ...
const OTHERS_TAIL: u64 = 8 << 20;
/// ... lines of at most this many bytes, ...
const OTHERS_LINE: usize = 1 << 12;
/// ... and with at most this many commas: what they become in memory is a small multiple of them.
const OTHERS_COMMAS: usize = 256;

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
    /// Milliseconds since the host booted, sleep included: no clock that jumps can change the difference of two.
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

/// Where a user's account is: `accounts/UID`. In a shared store whose administrator made none, anybody may have taken
/// that name; it is left to them then, and the account is `accounts/UID.SUFFIX`, the first that is the user's.
fn account_dir(home: &Path, context: &Context) -> PathBuf {
    let uid = context.caller();
    let accounts = home.join("accounts");
    let usual = accounts.join(uid.to_string());
    let Ok(place) = Dir::place(&accounts) else { return usual };
    let planted = match place.stat(&uid.to_string()) {
        Ok(stat) => stat.st_uid != uid,
        Err(_) => false,
    };
    if !planted {
        return usual;
    }
    let ours = |name: &String| {
        account_of(name) == Some(uid) && place.stat(name).is_ok_and(|stat| stat.st_uid == uid)
    };
    let found = place.names().unwrap_or_default().into_iter().filter(ours).min();
    let suffix = || crate::id::random_hex(8).unwrap_or_else(|_| "own".to_owned());
    let name = found.unwrap_or_else(|| {
        let name = format!("{uid}.{}", suffix());
        context.warn(format_args!(
            "{} is not yours and is left alone, your account is in {name}; the store's administrator can remove it",
            usual.display()
        ));
        name
    });
    accounts.join(name)
}

/// The uid that the name of an account's directory says.
fn account_of(name: &str) -> Option<u32> {
    name.split_once('.').map_or(name, |(uid, _)| uid).parse().ok()
}

/// Make the account's directory, and see that nobody else made it.
///
/// # Errors
/// No space; somebody else did.
pub(super) fn make_account_dir(dir: &Path) -> Result<Owned> {
    Owned::make_if_absent(dir).or_fail(|| format!("make {}", dir.display()))
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
        // On a disk that fills up it can still be said what is ended and deleted. Where there is no room it is not.
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

    /// All that this user may read of the journals: each account's in the order in which it happened, whatever the
    /// clock did. Lines that are none are left out.
    ///
    /// # Errors
    /// A journal can't be read.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let Ok(accounts) = Dir::place(&self.home.join("accounts")) else { return Ok(entries) };
        let mut names = accounts.names().unwrap_or_default();
        names.sort();
        for name in names {
            let Ok(account) = accounts.object(&name) else { continue };
            // A journal says only what its own account did.
            if account_of(&name) != Some(account.owner()) {
                continue;
            }
            let doing = || format!("read the journal {}", account.path().join(JOURNAL).display());
            match account.file(JOURNAL) {
                Err(e) if !account.is_ours() || e.kind() == io::ErrorKind::NotFound => {}
                Ok(file) if !account.is_ours() => {
                    if read_others(file, &mut entries).or_fail(doing)? {
                        self.context.warn(format_args!(
                            "the journal of account {} has more than {} MiB, or lines that are too long: what is left out of \
                             it, 'spore events' and 'spore usage' of that account itself have",
                            account.owner(),
                            OTHERS_TAIL >> 20
                        ));
                    }
                }
                file => read(file.or_fail(doing)?, &mut entries).or_fail(doing)?,
            }
        }
        Ok(entries)
    }
}

fn read(file: impl Read, entries: &mut Vec<Entry>) -> io::Result<()> {
    each_line(file, |line| entries.extend(serde_json::from_slice::<Entry>(line)))
}

/// The end of another account's journal, as much as can do no harm. Whether that is not all of it.
fn read_others(mut file: File, entries: &mut Vec<Entry>) -> io::Result<bool> {
    let len = file.seek(SeekFrom::End(0))?;
    let mut left_out = len > OTHERS_TAIL;
    file.seek(SeekFrom::Start(len.saturating_sub(OTHERS_TAIL)))?;
    each_line(file.take(OTHERS_TAIL), |line| {
        let commas = line.iter().filter(|&&byte| byte == b',').count();
        if line.len() <= OTHERS_LINE && commas <= OTHERS_COMMAS {
            entries.extend(serde_json::from_slice::<Entry>(line));
        } else {
            left_out = true;
        }
    })?;
    Ok(left_out)
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
