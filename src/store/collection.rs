//! All objects of one kind.

use super::beneath::{Dir, Owned};
use super::journal::{Cause, Event};
use super::open::{Store, StoreLock, wait_lock};
use super::record;
use super::reserve::{self, is_full};
use super::staging::{self, Staging};
use crate::error::{Code, Error, OrFail, Result};
use crate::record::{Durability, Record};
use serde_json::Value;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// The file in an object's directory whose flock is held for a transition.
const LOCK: &str = "lock";

/// The objects of one kind in a store.
#[derive(Clone, Debug)]
pub struct Collection<R> {
    store: Store,
    path: PathBuf,
    kind: PhantomData<fn() -> R>,
}

/// Files that replace others once they are whole.
const UNFINISHED: [&str; 4] = [record::NEW, "data.new", "bundle.json.new", "user-data.new"];

impl Store {
    /// The objects whose record is `R`.
    pub fn collection<R: Record>(&self) -> Collection<R> {
        let path = self.home().join(R::DIRECTORY);
        Collection { store: self.clone(), path, kind: PhantomData }
    }
}

impl<R: Record> Collection<R> {
    /// The object's directory, whether or not it exists.
    pub fn dir(&self, id: &R::Id) -> PathBuf {
        self.path.join(id.as_ref())
    }

    /// Make an object: `make` fills a directory and gives the record; it appears whole once that is
    /// done, and not at all if `make` fails.
    ///
    /// # Errors
    /// As `make`'s; it can't be written.
    pub fn create(
        &self,
        durability: Durability,
        make: impl FnOnce(&Path) -> Result<R>,
    ) -> Result<R> {
        let staging = Staging::new(&self.store)?;
        let record = make(staging.path())?;
        staging.publish(&self.store, &record, durability)?;
        Ok(record)
    }

    /// [`Collection::create`] whose object appears with its lock held, for one that is not at rest
    /// yet.
    ///
    /// # Errors
    /// As [`Collection::create`].
    pub fn create_locked(
        &self,
        durability: Durability,
        make: impl FnOnce(&Path) -> Result<R>,
    ) -> Result<Locked<R>> {
        let staging = Staging::new(&self.store)?;
        let record = make(staging.path())?;
        let lock = staging.dir()?.open_or_create(LOCK);
        let lock = lock.and_then(|file| wait_lock(&file).map(|()| file));
        let lock = lock.or_fail(|| format!("lock {}", record.id()))?;
        let dir = staging.publish(&self.store, &record, durability)?;
        let journal_view = record.journal_view();
        Ok(Locked { collection: self.clone(), record, journal_view, dir, _lock: lock })
    }

    /// The object's record.
    ///
    /// # Errors
    /// It does not exist, or its record is corrupt.
    pub fn get(&self, id: &R::Id) -> Result<R> {
        if let Some(built_in) = R::built_in().into_iter().find(|record| record.id() == id) {
            return Ok(built_in);
        }
        let found = match self.place().and_then(|place| place.object(id.as_ref())) {
            Ok(dir) => self.read(&dir)?,
            Err(error) => self.unopened(id, error)?,
        };
        found.filter(|record| record.id() == id).ok_or_else(|| not_found::<R>(id.as_ref()))
    }

    /// The place that has them all.
    pub(super) fn place(&self) -> io::Result<Dir> {
        Dir::place(&self.path)
    }

    /// The record of an object, unless somebody made it in another's name: in a shared store
    /// everybody can make directories.
    fn read(&self, dir: &Dir) -> Result<Option<R>> {
        Ok(record::read::<R>(dir)?.filter(|record| self.counts(dir, record)))
    }

    pub(super) fn counts(&self, dir: &Dir, record: &R) -> bool {
        let shared = self.store.administrator().is_some();
        !record.is_deleted() && (!shared || dir.owner().to_string() == record.owner())
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What to make of an object whose directory can't be opened: it went meanwhile, or is
    /// another's, hidden or misshapen, and doesn't exist for this user.
    fn unopened(&self, id: &R::Id, error: io::Error) -> Result<Option<R>> {
        let gone = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        if gone || !self.is_ours(id) {
            return Ok(None);
        }
        Err(Error::io(format!("open {}", self.dir(id).display()), error))
    }

    /// Whether what has the object's name is this user's, whatever it is.
    fn is_ours(&self, id: &R::Id) -> bool {
        let stat = self.place().and_then(|place| place.stat(id.as_ref()));
        stat.is_ok_and(|stat| stat.st_uid == super::beneath::user())
    }

    /// True if it exists.
    pub fn exists(&self, id: &R::Id) -> bool {
        self.owner(id).is_some()
    }

    /// The uid of its directory's owner, if it exists.
    pub fn owner(&self, id: &R::Id) -> Option<u32> {
        // Looked at from outside: another's need not be open to this user.
        self.place().ok()?.owner_of(id.as_ref())
    }

    /// One of the user's own objects, for a listing: what is left in it of killed commands goes.
    pub(super) fn own(&self, place: &Dir, id: &R::Id) -> Result<Option<R>> {
        match place.object(id.as_ref()) {
            Ok(dir) => self.read(&dir).inspect(|found| match found {
                Some(_) => self.sweep(dir),
                None => self.remove_empty_dir(dir),
            }),
            Err(error) => self.unopened(id, error),
        }
    }

    /// Hold the object's lock for a transition; waits for whoever has it.
    ///
    /// # Errors
    /// It does not exist, or its record is corrupt.
    pub fn lock(&self, id: &R::Id) -> Result<Locked<R>> {
        let doing = || format!("lock {}", self.dir(id).display());
        loop {
            let dir = match self.place().and_then(|place| place.object(id.as_ref())) {
                Ok(dir) if !dir.is_ours() => return Err(not_owned(&self.get(id)?)),
                Ok(dir) => dir.owned().or_fail(doing)?,
                Err(e) if e.kind() == ErrorKind::PermissionDenied && !self.is_ours(id) => {
                    return Err(not_owned(&self.get(id)?));
                }
                Err(e) => {
                    self.unopened(id, e)?;
                    return Err(not_found::<R>(id.as_ref()));
                }
            };
            let file = match dir.open_or_create(LOCK) {
                Err(e) if is_full(&e) && reserve::give_up(&self.store.account_dir()) => continue,
                file => file.or_fail(doing)?,
            };
            wait_lock(&file).or_fail(doing)?;
            // Whoever had it may have removed the object; the directory is then not the one of this
            // name.
            if !dir.is_at(&self.dir(id)) {
                continue;
            }
            let record = self.get(id)?;
            let journal_view = record.journal_view();
            return Ok(Locked { collection: self.clone(), record, journal_view, dir, _lock: file });
        }
    }

    /// True if somebody holds the object's lock: what is not at rest yet is still being worked on.
    /// Of another's object it is taken for granted: its record alone says how it is.
    ///
    /// # Errors
    /// The lock can't be probed.
    pub fn is_locked(&self, id: &R::Id) -> Result<bool> {
        match self.place().and_then(|place| place.object(id.as_ref())) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Ok(dir) if dir.is_ours() => dir.owned().and_then(|dir| dir.is_held(LOCK)),
            Ok(_) => Ok(true),
            Err(_) if !self.is_ours(id) => Ok(true),
            Err(e) => Err(e),
        }
        .or_fail(|| format!("probe the lock of {}", self.dir(id).display()))
    }

    /// A record as the object truly is. One that is `pending` without a maker who holds its lock is
    /// what `died` makes of it: its maker was killed.
    pub fn settled(
        &self,
        mut record: R,
        pending: impl Fn(&R) -> bool,
        died: impl FnOnce(&mut R),
    ) -> R {
        if !pending(&record) || !matches!(self.is_locked(record.id()), Ok(false)) {
            return record;
        }
        // It may have been completed between the two looks.
        if let Ok(again) = self.get(record.id()) {
            record = again;
        }
        if pending(&record) {
            died(&mut record);
        }
        record
    }

    /// True if nobody else of its owner may have the object's name.
    pub fn holds_name(&self, record: &R) -> bool {
        record.holds_name(self.is_locked(record.id()).unwrap_or(true))
    }

    /// # Errors
    /// `InvalidAMIName.Duplicate`: an object of this kind and owner has the name. It stays free
    /// while the store's lock is held.
    pub fn check_free(&self, _lock: &StoreLock, name: &str) -> Result<()> {
        let (listing, me) = (self.list()?, self.store.owner_id());
        let taken = |record: &&R| {
            record.name() == Some(name) && record.owner() == me && self.holds_name(record)
        };
        match listing.records.iter().find(taken) {
            None => Ok(()),
            Some(holder) => Err(Error::refused(
                Code::InvalidAMINameDuplicate,
                format!(
                    "the name '{name}' is taken by {} {}; choose another or deregister that one",
                    R::KIND,
                    holder.id()
                ),
            )),
        }
    }

    /// Change the object's record under its lock and give what `change` gives. If that fails
    /// nothing is changed.
    ///
    /// # Errors
    /// It does not exist; as `change`'s; it can't be written.
    pub fn update<T>(
        &self,
        id: &R::Id,
        durability: Durability,
        change: impl FnOnce(&mut R) -> Result<T>,
    ) -> Result<T> {
        let mut locked = self.lock(id)?;
        let result = change(&mut locked.record)?;
        locked.save(durability)?;
        Ok(result)
    }

    /// Remove the object and all in its directory.
    ///
    /// # Errors
    /// It does not exist or can't be removed. A corrupt one can be removed.
    pub fn remove(&self, id: &R::Id) -> Result<()> {
        match self.owner(id) {
            None if !self.is_ours(id) => return Err(not_found::<R>(id.as_ref())),
            Some(owner) if owner != super::beneath::user() => {
                return Err(not_owned(&self.get(id)?));
            }
            _ => self.store.journal().append_event::<R>(
                Event::Removed,
                id.as_ref(),
                Value::Null,
                R::REMOVAL,
                None,
            ),
        }
        if staging::discard(&self.store, &self.dir(id))? {
            Ok(())
        } else {
            Err(not_found::<R>(id.as_ref()))
        }
    }

    /// Remove what is left of an object that is deleted already.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn discard(&self, id: &R::Id) -> Result<()> {
        staging::discard(&self.store, &self.dir(id)).map(drop)
    }

    /// Removes an own object whose record has no content: that exists only after a power failure,
    /// and the object never was.
    fn remove_empty_dir(&self, dir: Dir) {
        let Ok(dir) = dir.owned() else { return };
        if record::has_blank_record(&dir) {
            let _ = staging::discard(&self.store, dir.path());
        }
    }

    /// Removes from an own object what a killed command had begun to write in it.
    fn sweep(&self, dir: Dir) {
        let Ok(dir) = dir.owned() else { return };
        if !UNFINISHED.iter().any(|name| dir.has(name)) {
            return;
        }
        let Ok(file) = dir.writable(LOCK) else { return };
        // Nobody works on it.
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            UNFINISHED.iter().for_each(|name| drop(dir.remove(name)));
        }
    }
}

/// An object whose lock is held. Dropping it gives the lock back; nothing is saved by that.
#[derive(Debug)]
pub struct Locked<R> {
    collection: Collection<R>,
    /// The record, as it is on disk until changed here.
    pub record: R,
    /// What the journal last said of it.
    journal_view: Value,
    dir: Owned,
    _lock: File,
}

impl<R: Record> Locked<R> {
    /// The store that it is in.
    pub fn store(&self) -> &Store {
        &self.collection.store
    }

    /// The object's directory.
    pub fn dir(&self) -> PathBuf {
        self.collection.dir(self.record.id())
    }

    /// The same, held open.
    pub fn owned(&self) -> &Owned {
        &self.dir
    }

    /// Write [`Locked::record`].
    ///
    /// # Errors
    /// It can't be written; the old record stays.
    pub fn save(&mut self, durability: Durability) -> Result<()> {
        self.save_because(durability, None)
    }

    /// [`Locked::save`] of what happened by itself.
    ///
    /// # Errors
    /// As [`Locked::save`].
    pub fn save_because(&mut self, durability: Durability, cause: Option<&Cause>) -> Result<()> {
        let account = self.collection.store.account_dir();
        record::rewrite(&account, &self.dir, &self.record, durability)?;
        let journal_view = self.record.journal_view();
        if journal_view != self.journal_view {
            let id = self.record.id().as_ref();
            let store = &self.collection.store;
            store.journal().append_event::<R>(
                Event::Modified,
                id,
                journal_view.clone(),
                durability,
                cause,
            );
            self.journal_view = journal_view;
        }
        Ok(())
    }

    /// Write [`Locked::record`], which says that it is deleted: it is removed as far as anybody can
    /// tell.
    ///
    /// # Errors
    /// It can't be written; the old record stays.
    pub fn withdraw(self) -> Result<()> {
        let (store, id) = (&self.collection.store, self.record.id().as_ref());
        store.journal().append_event::<R>(Event::Removed, id, Value::Null, R::REMOVAL, None);
        record::rewrite(&store.account_dir(), &self.dir, &self.record, R::REMOVAL)
    }

    /// Remove the object.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn remove(self) -> Result<()> {
        self.collection.remove(self.record.id())
    }
}

/// The error for changing what another owns.
pub fn not_owned<R: Record>(record: &R) -> Error {
    Error::refused(
        Code::AuthFailure,
        format!("{} belongs to account {}; only that one may do this", record.id(), record.owner()),
    )
}

/// # Errors
/// `AuthFailure`: the object is another's.
pub fn check_owner<R: Record>(store: &Store, record: &R) -> Result<()> {
    if record.owner() == store.owner_id() { Ok(()) } else { Err(not_owned(record)) }
}

pub(super) fn not_found<R: Record>(text: &str) -> Error {
    Error::refused(
        R::NOT_FOUND,
        format!("there is no {} '{}'; '{}' lists them", R::KIND, text.escape_debug(), ls::<R>()),
    )
}

/// The command that lists such objects.
pub(super) fn ls<R: Record>() -> String {
    match R::LISTED_BY {
        "" => format!("spore {} ls", R::KIND),
        listed => listed.to_owned(),
    }
}
