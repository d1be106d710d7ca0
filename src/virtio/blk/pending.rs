//! Requests that the host works on, found again by their token.

use super::request::Doing;
use super::work::Work;
use std::io;

/// One request of the guest.
pub(super) struct Pending<T> {
    /// Who asks for it.
    pub asker: T,
    pub doing: Doing,
    /// Bytes of data.
    pub len: u32,
    /// What is left to be begun.
    pub work: Work,
    /// It counts against the device's limits already.
    pub admitted: bool,
    /// Operations of the host that are not finished.
    pub operations: u32,
    /// Bytes that they transfer or touch.
    pub flying: u32,
    /// The first that failed.
    pub error: Option<io::Error>,
    /// A flush must follow.
    pub write_through: bool,
    /// Nobody waits for it any more.
    pub forgotten: bool,
}

/// Requests by token. Tokens are reused, so that it is as large as the most at one time: a queue's
/// size.
pub(super) struct Table<T> {
    entries: Vec<Option<Pending<T>>>,
    free: Vec<usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Keep a request; its token.
    pub fn insert(&mut self, pending: Pending<T>) -> u64 {
        let token = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.entries[token] = Some(pending);
        token as u64
    }

    /// The request of that token.
    pub fn get_mut(&mut self, token: u64) -> Option<&mut Pending<T>> {
        self.entries.get_mut(usize::try_from(token).ok()?)?.as_mut()
    }

    /// Give the request of that token up.
    pub fn remove(&mut self, token: u64) -> Option<Pending<T>> {
        let token = usize::try_from(token).ok()?;
        let pending = self.entries.get_mut(token)?.take()?;
        self.free.push(token);
        Some(pending)
    }

    /// Requests kept.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}
