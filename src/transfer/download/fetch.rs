//! Fetching one file, over as many attempts as that takes.

use super::file::LocalFile;
use super::place::{Place, State};
use super::transport::{Ask, Content, Reply, Transport, Trouble, shown};
use crate::context::{Cancel, Context};
use crate::error::{Code, Error, OrFail, Result};
use crate::image::checksum::{Checksum, Hasher};
use crate::import::room;
use crate::record::limits::MAX_SIZE;
use crate::transfer::remote::helper::helper;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

/// Attempts one after the other that bring nothing.
const ATTEMPTS: u32 = 5;
/// The wait after the first of them; each is twice as long as the one before.
const BACKOFF: Duration = Duration::from_millis(500);
/// How often it is looked whether to wait on.
const TICK: Duration = Duration::from_millis(100);
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// A file that has come.
pub struct Downloaded {
    /// It, open for reading from its beginning.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// Its checksums, SHA-256 first.
    pub sums: Vec<Checksum>,
}

/// What [`fetch`] came to.
pub enum Fetched {
    /// The file.
    File(Downloaded),
    /// It is still the one that was imported, of this SHA-256.
    Unchanged(String),
}

/// What serves an address. `vouched`: a checksum says whether what comes is the right thing.
///
/// # Errors
/// It is none; this program can't talk to it
/// ([`crate::transfer::remote::helper::is_missing`]).
fn open(address: &str, vouched: bool, context: &Context) -> Result<Box<dyn Transport>> {
    match address.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => Ok(Box::new(LocalFile(path.into()))),
        Some(_) => Err(Error::refused(
            Code::InvalidParameterValue,
            format!("{address} is no address of a file: it has the form file:///path"),
        )),
        None => (helper(context)?.transport)(address, vouched),
    }
}

/// Brings what is at `address` to its place, or as much as comes. Where nothing is expected, a file
/// that is still the one that was imported before is not fetched again.
///
/// # Errors
/// It can't be had; it is not what `expected` says, and nothing of it is kept then; cancelled.
pub fn fetch(
    place: &Place,
    address: &str,
    expected: Option<&Checksum>,
    context: &Context,
) -> Result<Fetched> {
    let shown = shown(address);
    let mut part = Part::open(place, expected)?;
    if part.is_whole() {
        return part.finish().map(Fetched::File);
    }
    let transport = open(address, expected.is_some(), context)?;
    let mut afresh = part.have == 0;
    loop {
        match part.bring(&*transport, context).map_err(|e| e.into_error(&shown, &part, context))? {
            Some(unchanged) => return Ok(Fetched::Unchanged(unchanged)),
            None if part.is_expected() => return part.finish().map(Fetched::File),
            // What an earlier command left may be of another file.
            None if !afresh => afresh = true,
            None => {
                let found = part.sum();
                place.discard()?;
                return Err(wrong(&shown, expected, &found));
            }
        }
        part.restart()?;
    }
}

fn wrong(shown: &str, expected: Option<&Checksum>, found: &str) -> Error {
    let expected = expected.map(ToString::to_string).unwrap_or_default();
    let why = format!("{shown} is not what it should be: {expected} was said, and {found} came");
    Error::refused(Code::InvalidManifest, why).remedy("nothing of it is kept; ask its publisher")
}

/// A file of which a part is there.
struct Part<'a> {
    place: &'a Place,
    expected: Option<&'a Checksum>,
    file: File,
    state: State,
    have: u64,
    hasher: Hasher,
}

/// Why a part did not become more.
enum Stop {
    Trouble(Trouble),
    Own(Error),
}

impl Stop {
    fn into_error(self, shown: &str, part: &Part<'_>, context: &Context) -> Error {
        match self {
            Self::Trouble(Trouble::Cancelled) | Self::Own(_) if context.cancelled() => {
                let why = format!("cancelled; {} MiB of {shown} are kept", part.have >> 20);
                Error::failure(why).remedy("pull it again to go on")
            }
            Self::Trouble(trouble) => trouble.error(shown),
            Self::Own(error) => error.context(shown),
        }
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl<'a> Part<'a> {
    fn open(place: &'a Place, expected: Option<&'a Checksum>) -> Result<Self> {
        let (file, state, hasher) = (place.data()?, place.state(), Hasher::new(expected));
        let mut part = Self { place, expected, file, state, have: 0, hasher };
        // What nothing could tell from another file is of no use.
        if part.state.mark.is_none() && expected.is_none() {
            part.restart()?;
        } else {
            part.digest()?;
        }
        Ok(part)
    }

    /// Digests what is there.
    fn digest(&mut self) -> Result<()> {
        let mut bytes = vec![0; PIECE];
        loop {
            let doing = || "read what was fetched before";
            let count = self.file.read(&mut bytes).or_fail(doing)?;
            if count == 0 {
                return Ok(());
            }
            self.hasher.update(&bytes[..count]);
            self.have += count as u64;
        }
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).or_fail(|| "empty what was fetched before")?;
        (self.have, self.hasher) = (0, Hasher::new(self.expected));
        Ok(())
    }

    /// Whether it is what it is to be, without asking anybody.
    fn is_whole(&self) -> bool {
        self.have > 0 && self.expected.is_some() && self.is_expected()
    }

    /// Whether nothing else is expected.
    fn is_expected(&self) -> bool {
        let sums = self.hasher.clone().finish();
        self.expected.is_none_or(|expected| sums.contains(expected))
    }

    fn sum(&self) -> String {
        self.hasher.clone().finish().pop().map(|sum| sum.to_string()).unwrap_or_default()
    }

    fn finish(self) -> Result<Downloaded> {
        let (file, path) = self.place.opened()?;
        Ok(Downloaded { file, path, sums: self.hasher.finish() })
    }

    /// Brings the rest. Gives the SHA-256 of what was imported if it is still that.
    fn bring(&mut self, from: &dyn Transport, context: &Context) -> Result<Option<String>, Stop> {
        let (mut failures, mut most) = (0, self.have);
        loop {
            let why = match self.attempt(from, context) {
                Ok(done) => return Ok(done),
                Err(Stop::Trouble(Trouble::Passing(why))) => why,
                Err(stop) => return Err(stop),
            };
            // One that begins anew each time has to come further than ever.
            failures = if self.have > most { 1 } else { failures + 1 };
            most = most.max(self.have);
            if failures >= ATTEMPTS {
                return Err(Trouble::Passing(why).into());
            }
            wait(BACKOFF * 2u32.pow(failures - 1), context.cancel())?;
        }
    }

    fn attempt(&mut self, from: &dyn Transport, context: &Context) -> Result<Option<String>, Stop> {
        let imported = self.state.imported.clone().filter(|_| self.expected.is_none());
        // All of it may be there: nothing follows its last byte, so it is asked for anew.
        let whole = self.state.size == Some(self.have);
        // Nothing would tell whether what follows is of the same file.
        let unknown = self.state.mark.is_none() && self.expected.is_none();
        let ask = Ask {
            from: if whole || unknown { 0 } else { self.have },
            if_still: self.state.mark.as_deref().filter(|_| self.have > 0 && !whole),
            unless_still: match whole && self.have > 0 {
                true => self.state.mark.as_deref(),
                false => {
                    imported.as_ref().map(|(mark, _)| mark.as_str()).filter(|_| self.have == 0)
                }
            },
        };
        match from.get(ask, context.cancel())? {
            Reply::Unchanged if self.have > 0 => Ok(None),
            Reply::Unchanged => Ok(imported.map(|(_, sha256)| sha256)),
            Reply::Content(content) => self.take(content, context).map(|()| None),
        }
    }

    fn take(&mut self, content: Content<'_>, context: &Context) -> Result<(), Stop> {
        let Content { from, size, mark, mut body } = content;
        // A part may come without the time of its file. (RFC 9110, 15.3.7)
        let other = mark.is_some() && mark != self.state.mark;
        if from > 0 && self.expected.is_none() && other {
            self.restart()?;
            return Err(Trouble::Passing("it has changed meanwhile".to_owned()).into());
        }
        if from != self.have {
            self.restart()?;
        }
        if from > self.have {
            let why = format!("byte {} was asked for, and byte {from} came", self.have);
            return Err(Trouble::Final(Code::Unavailable, why).into());
        }
        let most = size.unwrap_or(MAX_SIZE).min(MAX_SIZE);
        if size.is_some_and(|size| size > MAX_SIZE) {
            let why = "it is larger than the limit of 16 TiB".to_owned();
            return Err(Trouble::Final(Code::InvalidParameterValue, why).into());
        }
        room::check(&self.place.home, size.unwrap_or(0).saturating_sub(self.have))?;
        let mark = mark.or_else(|| self.state.mark.take().filter(|_| from > 0));
        (self.state.mark, self.state.size) = (mark, size);
        self.place.set_state(&self.state)?;
        let progress = context.progress(size);
        while let Some(bytes) = body.next(context.cancel())? {
            if most - self.have < bytes.len() as u64 {
                let why = "it has more bytes than it says".to_owned();
                return Err(Trouble::Final(Code::Unavailable, why).into());
            }
            self.file.write_all_at(&bytes, self.have).or_fail(|| "write what comes")?;
            self.hasher.update(&bytes);
            self.have += bytes.len() as u64;
            progress.at(self.have);
        }
        match size {
            Some(size) if self.have < size => {
                let why = format!("it broke off after {} of {size} bytes", self.have);
                Err(Trouble::Passing(why).into())
            }
            _ => Ok(()),
        }
    }
}

/// Waits, unless somebody asks to stop.
fn wait(time: Duration, cancel: &Cancel) -> Result<(), Trouble> {
    let mut left = time;
    while !left.is_zero() {
        if cancel.requested() {
            return Err(Trouble::Cancelled);
        }
        let tick = left.min(TICK);
        std::thread::sleep(tick);
        left -= tick;
    }
    Ok(())
}

/// All of a small file, of at most `limit` bytes.
///
/// # Errors
/// It can't be had; it is longer; cancelled.
pub(super) fn small(address: &str, limit: usize, context: &Context) -> Result<Vec<u8>> {
    let transport = open(address, false, context)?;
    let mut failures = 0;
    loop {
        match whole(&*transport, limit, context.cancel()) {
            Ok(bytes) => return Ok(bytes),
            Err(Trouble::Passing(why)) => {
                failures += 1;
                if failures >= ATTEMPTS {
                    return Err(Trouble::Passing(why).error(&shown(address)));
                }
            }
            Err(trouble) => return Err(trouble.error(&shown(address))),
        }
        let waited = wait(BACKOFF * 2u32.pow(failures - 1), context.cancel());
        waited.map_err(|trouble| trouble.error(&shown(address)))?;
    }
}

fn whole(from: &dyn Transport, limit: usize, cancel: &Cancel) -> Result<Vec<u8>, Trouble> {
    let Reply::Content(mut content) = from.get(Ask::default(), cancel)? else {
        return Err(Trouble::Final(Code::Unavailable, "it has nothing new".to_owned()));
    };
    let mut bytes = Vec::new();
    while let Some(piece) = content.body.next(cancel)? {
        if bytes.len() + piece.len() > limit {
            let why = format!("it has more than {limit} bytes");
            return Err(Trouble::Final(Code::Unavailable, why));
        }
        bytes.extend_from_slice(&piece);
    }
    match content.size {
        Some(size) if size != bytes.len() as u64 => {
            Err(Trouble::Passing(format!("it broke off after {} of {size} bytes", bytes.len())))
        }
        _ => Ok(bytes),
    }
}
