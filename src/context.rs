//! On whose behalf something is done and by which verb, what stops it, and who hears of it
//! meanwhile.
//!
//! The command line makes one context of its process, a service makes one of each request. It is in
//! the [`crate::store::Store`] that the work is done on, so no work asks the process.

use crate::error::{Error, Result};
use crate::sys::process;
use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who hears of work while it is done.
pub trait Audience: Send + Sync {
    /// Takes one line that a user should know, and that fails nothing.
    fn warn(&self, line: &str);
    /// Takes one line that a user may want to know.
    fn note(&self, line: &str);
    /// Begins to show how far something is that has `size` bytes; `None`: nobody knows how many.
    fn meter(&self, size: Option<u64>) -> Box<dyn Meter>;
}

/// How far one piece of work is. It ends when this is dropped.
pub trait Meter: Send + Sync {
    /// So many bytes are done.
    fn at(&self, bytes: u64);
}

/// An audience that is not there.
struct Nobody;

impl Audience for Nobody {
    fn warn(&self, _line: &str) {}
    fn note(&self, _line: &str) {}
    fn meter(&self, _size: Option<u64>) -> Box<dyn Meter> {
        Box::new(Nobody)
    }
}

impl Meter for Nobody {
    fn at(&self, _bytes: u64) {}
}

/// A request to stop, looked at between two chunks of a long copy, so that what was begun can be
/// taken away.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// One that `flag` requests, e.g. of a signal's handler.
    pub fn by(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Whether somebody has asked to stop.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// Somebody has asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.requested() { Err(Error::failure(CANCELLED)) } else { Ok(()) }
    }

    /// [`Cancel::check`] for readers.
    ///
    /// # Errors
    /// Somebody has asked to stop.
    pub fn check_io(&self) -> io::Result<()> {
        if self.requested() { Err(io::Error::other(CANCELLED)) } else { Ok(()) }
    }
}

const CANCELLED: &str = "cancelled; nothing was kept";

/// What only some programs have, by its type.
pub type Extension = &'static (dyn Any + Send + Sync);

/// See the module. Cloning is cheap, and all clones are the same.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    caller: u32,
    verb: String,
    cancel: Cancel,
    audience: Arc<dyn Audience>,
    extension: Option<Extension>,
    reads: bool,
}

impl Default for Context {
    /// Of the process's user, by no verb, stopped by nothing and heard by nobody.
    fn default() -> Self {
        Self::new(process::user(), Arc::new(Nobody))
    }
}

impl Context {
    /// On behalf of the user `caller`, an effective uid, heard by `audience`.
    pub fn new(caller: u32, audience: Arc<dyn Audience>) -> Self {
        let (verb, cancel) = (String::new(), Cancel::default());
        Self(Arc::new(Inner { caller, verb, cancel, audience, extension: None, reads: false }))
    }

    /// The same by a verb, e.g. `image deregister`: what the journal says of it.
    pub fn by_verb(self, verb: String) -> Self {
        Self(Arc::new(Inner { verb, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same, for work that looks and makes nothing: where there is no store it finds an empty
    /// one, and what can't be brought up to date it takes as it is.
    pub fn reading(self) -> Self {
        Self(Arc::new(Inner { reads: true, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same, stopped by `cancel`.
    pub fn stopped_by(self, cancel: Cancel) -> Self {
        Self(Arc::new(Inner { cancel, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same, heard by `audience`.
    pub fn heard_by(self, audience: Arc<dyn Audience>) -> Self {
        Self(Arc::new(Inner { audience, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same with what the program has beyond others.
    pub fn with_extension(self, extension: Option<Extension>) -> Self {
        Self(Arc::new(Inner { extension, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The uid of whom it is done for.
    pub fn caller(&self) -> u32 {
        self.0.caller
    }

    /// The verb; empty if there is none.
    pub fn verb(&self) -> &str {
        &self.0.verb
    }

    /// Whether it makes nothing.
    pub fn reads(&self) -> bool {
        self.0.reads
    }

    /// What stops it.
    pub fn cancel(&self) -> &Cancel {
        &self.0.cancel
    }

    /// Whether somebody has asked to stop.
    pub fn cancelled(&self) -> bool {
        self.0.cancel.requested()
    }

    /// # Errors
    /// Somebody has asked to stop.
    pub fn check(&self) -> Result<()> {
        self.0.cancel.check()
    }

    /// Says one line that a user should know, and that fails nothing.
    pub fn warn(&self, line: impl fmt::Display) {
        self.0.audience.warn(&line.to_string());
    }

    /// Says one line that a user may want to know.
    pub fn note(&self, line: impl fmt::Display) {
        self.0.audience.note(&line.to_string());
    }

    /// Begins a piece of work of `size` bytes; `None`: nobody knows how many.
    pub fn progress(&self, size: Option<u64>) -> Progress {
        Progress { meter: self.0.audience.meter(size), cancel: self.0.cancel.clone() }
    }

    /// What this program has of that type.
    pub fn extension<T: Any>(&self) -> Option<&'static T> {
        self.0.extension?.downcast_ref()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({}, {:?})", self.0.caller, self.0.verb)
    }
}

/// A long piece of work on its way.
pub struct Progress {
    meter: Box<dyn Meter>,
    cancel: Cancel,
}

impl Progress {
    /// So many bytes are done.
    pub fn at(&self, bytes: u64) {
        self.meter.at(bytes);
    }

    /// # Errors
    /// Somebody has asked to stop.
    pub fn check(&self) -> Result<()> {
        self.cancel.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Audience for Heard {
        fn warn(&self, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
        fn note(&self, line: &str) {
            self.warn(line);
        }
        fn meter(&self, _size: Option<u64>) -> Box<dyn Meter> {
            Box::new(Nobody)
        }
    }

    #[test]
    fn two_contexts_of_one_process_know_nothing_of_each_other() {
        let heard = [Arc::<Heard>::default(), Arc::default()];
        let flag = Arc::<AtomicBool>::default();
        let one = Context::new(1, heard[0].clone()).by_verb("run".into());
        let one = one.stopped_by(Cancel::by(flag.clone()));
        let two = Context::new(2, heard[1].clone()).with_extension(Some(&7u32));
        flag.store(true, Ordering::Relaxed);
        one.warn("low");
        two.note("high");
        assert_eq!((one.caller(), one.verb()), (1, "run"));
        assert_eq!((two.caller(), two.verb()), (2, ""));
        assert!(one.cancel().check().is_err() && one.progress(None).check().is_err());
        assert!(two.cancel().check().is_ok() && two.cancel().check_io().is_ok());
        let said = heard.map(|heard| heard.0.lock().unwrap().clone());
        assert_eq!(said, [["low"], ["high"]]);
        assert_eq!((one.extension::<u32>(), two.extension::<u32>()), (None, Some(&7)));
        assert_eq!(two.extension::<u64>(), None);
    }
}
