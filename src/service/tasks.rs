//! What goes on behind an answer: ImportImage, ImportSnapshot and ExportImage as EC2 has them.
//!
//! A task is a record in the store before its request is answered. Whoever does it holds the flock
//! of its `worker` file; one that goes on and that nobody holds is begun again by whoever looks
//! ([`Service::unattended_tasks`]). So it outlives the service that was asked for it. What it makes
//! has a name or an id that is known before, by which whoever goes on sees that it is made already.

use super::filter::{Filter, Filters, select_by};
use super::register::{Boot, ImportImage, RegisterImage, Root};
use super::snapshots::ImportSnapshot;
use super::{Service, idempotent, shape};
use crate::context::{Audience, Cancel, Meter};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::{ImageId, SnapshotId};
pub use crate::id::{TaskId, TaskKind};
use crate::image::catalog;
use crate::import::SourceFormat;
use crate::record::image::{Image, ImageState};
use crate::record::snapshot::SnapshotState;
use crate::record::tag::{Tag, check_tags};
pub use crate::record::task::{DiskContainer, DiskSource, Task, TaskStatus};
use crate::record::task::{WORKER, Work};
use crate::record::token::ClientToken;
use crate::store::beneath::Owned;
use crate::store::{Collection, Durability, Store, now};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Most tasks of an account that go on at once. (EC2, "VM Import/Export quotas")
const MAX_ACTIVE: usize = 20;
/// Most that have ended and are told of.
const MAX_ENDED: usize = 100;
/// Most characters of a description, and of the beginning of an exported file's name.
const MAX_TEXT: usize = 255;
/// How often a task's record says how far it is, and is looked at whether it is to end.
const BEAT: Duration = Duration::from_millis(500);
/// Most characters of what a task says.
const MAX_MESSAGE: usize = 1000;

/// EC2's filters of the three actions, and where their answers have the values.
const FILTERS: Filters = Filters { tags: "Tags", names: &[("task-state", "Status")] };
const SNAPSHOT_FILTERS: Filters =
    Filters { tags: "Tags", names: &[("task-state", "SnapshotTaskDetail.Status")] };

/// What is asked for.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// What is to be done.
    pub work: NewWork,
    /// Free text.
    pub description: Option<String>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// What tells this request from others.
    pub client_token: Option<ClientToken>,
}

/// What a new task is to do.
#[derive(Clone, Debug)]
pub enum NewWork {
    /// EC2 ImportImage: of one disk. The image has the task's id for a name.
    ImportImage(DiskContainer),
    /// EC2 ImportSnapshot.
    ImportSnapshot(DiskContainer),
    /// EC2 ExportImage.
    ExportImage {
        /// The image.
        image_id: String,
        /// The directory, absolute.
        directory: PathBuf,
        /// As it was named.
        bucket: String,
        /// What the file's name begins with.
        prefix: String,
    },
}

impl Service {
    /// Puts a task into the store; [`Service::do_task`] does it.
    ///
    /// # Errors
    /// `InvalidParameterValue`: what it is to import or export can't be, as far as that is to be
    /// seen at once. `IdempotentParameterMismatch`; `LimitExceeded`: too many go on.
    pub fn begin_task(&self, new: &NewTask) -> Result<Task> {
        let store = self.swept();
        check_tags(&new.tags)?;
        let given = new.client_token.as_ref();
        let _turn = given.map(|given| idempotent::turn(store, given)).transpose()?;
        let all = own(store)?;
        if let Some(given) = given {
            let token = |task: &Task| task.client_token.clone();
            if let Some(begun) = idempotent::made(store, all.clone(), token, given)? {
                return Ok(begun);
            }
        }
        if all.iter().filter(|task| task.status.goes_on()).count() >= MAX_ACTIVE {
            let why = format!("{MAX_ACTIVE} tasks go on already; wait for one, or cancel it");
            return Err(Error::refused(Code::LimitExceeded, why));
        }
        let (kind, work) = self.checked(&new.work)?;
        if new.description.as_ref().is_some_and(|text| text.chars().count() > MAX_TEXT) {
            let why = format!("a description has {MAX_TEXT} characters at most");
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
        forget(store, &all);
        tasks(store).create(Durability::Durable, |_| {
            Ok(Task {
                task_id: TaskId::generate(kind)?,
                owner_id: store.owner_id(),
                creation_date: now(),
                status: TaskStatus::Active,
                status_message: None,
                progress: 0,
                description: new.description.clone(),
                tags: new.tags.clone(),
                client_token: new.client_token.clone(),
                work,
                image_id: None,
                snapshot_id: None,
            })
        })
    }

    /// What is to be done, looked at as far as that takes no time.
    fn checked(&self, work: &NewWork) -> Result<(TaskKind, Work)> {
        Ok(match work {
            NewWork::ImportImage(disk) => {
                check_container(&self.store, disk)?;
                (TaskKind::ImportImage, Work::ImportImage { disk: disk.clone() })
            }
            NewWork::ImportSnapshot(disk) => {
                check_container(&self.store, disk)?;
                let snapshot_id = SnapshotId::generate()?;
                let work = Work::ImportSnapshot { disk: disk.clone(), snapshot_id };
                (TaskKind::ImportSnapshot, work)
            }
            NewWork::ExportImage { image_id, directory, bucket, prefix } => {
                check_export(directory, prefix)?;
                let image_id = catalog::resolve(&self.store, image_id)?.image_id;
                let (directory, bucket) = (directory.clone(), bucket.clone());
                let prefix = prefix.clone();
                let work = Work::ExportImage { image_id, directory, bucket, prefix };
                (TaskKind::ExportImage, work)
            }
        })
    }

    /// The caller's tasks of a kind: those named, or all, the oldest first.
    ///
    /// # Errors
    /// `InvalidConversionTaskId`: one of those named is not there. A filter is unknown.
    pub fn describe_tasks(
        &self,
        kind: TaskKind,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<Task>> {
        let all = own(&self.store)?;
        let mut found: Vec<Task> = match ids {
            [] => all.into_iter().filter(|task| task.task_id.kind() == Some(kind)).collect(),
            ids => ids.iter().map(|id| named(&all, id, &[kind])).collect::<Result<_>>()?,
        };
        found.sort_by(|a, b| (&a.creation_date, &a.task_id).cmp(&(&b.creation_date, &b.task_id)));
        let known = match kind {
            TaskKind::ImportSnapshot => SNAPSHOT_FILTERS,
            _ => FILTERS,
        };
        select_by(found, filters, known, shape::task::described)
    }

    /// EC2 CancelImportTask: the state that the task had. One that is done already stays so.
    ///
    /// # Errors
    /// `InvalidConversionTaskId`: there is none of that id. `IncorrectState`: it has ended.
    pub fn cancel_import_task(&self, id: &str) -> Result<(Task, TaskStatus)> {
        let imports = [TaskKind::ImportImage, TaskKind::ImportSnapshot];
        let id = named(&own(&self.store)?, id, &imports)?.task_id;
        tasks(&self.store).update(&id, Durability::Durable, |task| {
            let before = task.status;
            if !before.goes_on() {
                let why = format!("{id} is {} already", before.as_str());
                return Err(Error::refused(Code::IncorrectState, why));
            }
            task.status = TaskStatus::Deleting;
            Ok((task.clone(), before))
        })
    }

    /// The caller's tasks that go on and that nobody does.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn unattended_tasks(&self) -> Result<Vec<TaskId>> {
        let unattended = |task: &Task| {
            let dir = Owned::open(&tasks(&self.store).dir(&task.task_id));
            task.status.goes_on() && matches!(dir.and_then(|dir| dir.is_held(WORKER)), Ok(false))
        };
        let own = own(&self.store)?.into_iter();
        Ok(own.filter(unattended).map(|task| task.task_id).collect())
    }

    /// Does a task, unless somebody does. What becomes of it is in its record.
    ///
    /// # Errors
    /// The record can't be read or written.
    pub fn do_task(&self, id: &TaskId) -> Result<()> {
        let tasks = tasks(&self.store);
        let Some(_turn) = turn(&tasks, id)? else { return Ok(()) };
        let task = tasks.get(id)?;
        if !task.status.goes_on() {
            return Ok(());
        }
        let heard = Arc::new(Heard::default());
        heard.cancel.store(task.status == TaskStatus::Deleting, Ordering::Relaxed);
        let context = self.store.context().clone().heard_by(Arc::new(Teller(heard.clone())));
        let context = context.stopped_by(Cancel::by(heard.cancel.clone()));
        let work = || -> Result<Made> {
            context.check()?;
            Self::open_within(self.home(), &context)?.work(&task)
        };
        let done = std::thread::scope(|scope| {
            let (ended, end) = mpsc::channel();
            let (heard, tasks) = (&heard, &tasks);
            // Without it nobody sees how far the task is, and it can't be cancelled.
            let watcher = std::thread::Builder::new().name("task".into());
            let _ = watcher.spawn_scoped(scope, move || heard.watch(tasks, id, &end));
            let done = work();
            drop::<Sender<()>>(ended);
            done
        });
        tasks.update(id, Durability::Durable, |task| {
            match done {
                Ok((image_id, snapshot_id)) => {
                    (task.status, task.progress) = (TaskStatus::Completed, 100);
                    (task.image_id, task.snapshot_id) = (image_id, snapshot_id);
                    task.status_message = heard.warned();
                }
                Err(_) if heard.cancel.load(Ordering::Relaxed) => {
                    task.status = TaskStatus::Deleted;
                    task.status_message = Some("cancelled by its user".to_owned());
                }
                Err(error) => {
                    let of_snapshot = id.kind() == Some(TaskKind::ImportSnapshot);
                    task.status = if of_snapshot { TaskStatus::Error } else { TaskStatus::Deleted };
                    let code = error.code().map_or("ServerError", |_| "ClientError");
                    task.status_message = Some(shortened(&format!("{code}: {error}")));
                }
            }
            Ok(())
        })
    }

    /// Does what a task says, in as far as that is not done.
    fn work(&self, task: &Task) -> Result<Made> {
        let store = self.swept();
        match &task.work {
            Work::ImportImage { disk } => {
                let images = store.images().list()?.or_warn();
                let is = |image: &&Image| {
                    image.name == task.task_id.as_str()
                        && image.owner_id == task.owner_id
                        && image.state == ImageState::Available
                };
                let image = match images.iter().find(is) {
                    Some(made) => made.clone(),
                    None => self.import_container(task, disk)?,
                };
                let root = image.root_snapshot().cloned();
                Ok((Some(image.image_id), root))
            }
            Work::ImportSnapshot { disk, snapshot_id } => {
                let made = store.snapshots().get(snapshot_id);
                if made.is_ok_and(|made| made.state == SnapshotState::Completed) {
                    return Ok((None, Some(snapshot_id.clone())));
                }
                let DiskSource::File { path, .. } = &disk.from else {
                    return Err(no_copy());
                };
                self.import_snapshot(&ImportSnapshot {
                    disk: path.clone(),
                    format: format(disk)?,
                    snapshot_id: Some(snapshot_id.clone()),
                    description: description(task, disk).unwrap_or_default(),
                    tags: Vec::new(),
                })?;
                Ok((None, Some(snapshot_id.clone())))
            }
            Work::ExportImage { image_id, directory, prefix, .. } => {
                let file = directory.join(format!("{prefix}{}.raw", task.task_id));
                // It appears whole, in place of what has its name: that may be anybody's.
                self.export_disk(image_id.as_str(), &file)?;
                Ok((None, None))
            }
        }
    }

    fn import_container(&self, task: &Task, disk: &DiskContainer) -> Result<Image> {
        let name = Some(task.task_id.to_string());
        let boot = Boot { description: description(task, disk), ..Boot::default() };
        match &disk.from {
            DiskSource::File { path, .. } => {
                let (disk, format) = (path.clone(), format(disk)?);
                self.import_image(&ImportImage { disk, format, name, boot })
            }
            DiskSource::Snapshot(id) => {
                let root = Root::Snapshot(id.to_string());
                self.register_image(&RegisterImage { name, root, boot })
            }
        }
    }
}

/// What came of a task.
type Made = (Option<ImageId>, Option<SnapshotId>);

fn tasks(store: &Store) -> Collection<Task> {
    store.collection()
}

fn own(store: &Store) -> Result<Vec<Task>> {
    let mut all = tasks(store).list()?.or_warn();
    all.retain(|task| task.owner_id == store.owner_id());
    Ok(all)
}

fn named(all: &[Task], id: &str, kinds: &[TaskKind]) -> Result<Task> {
    let id: TaskId = id.parse()?;
    let of_kind = id.kind().is_some_and(|kind| kinds.contains(&kind));
    let found = all.iter().find(|task| task.task_id == id).filter(|_| of_kind);
    found.cloned().ok_or_else(|| {
        let why = format!("there is no task {id} of that kind");
        Error::refused(Code::InvalidConversionTaskId, why)
    })
}

/// Forgets those that ended first, beyond as many as are kept.
fn forget(store: &Store, all: &[Task]) {
    let mut ended: Vec<&Task> = all.iter().filter(|task| !task.status.goes_on()).collect();
    ended.sort_by(|a, b| a.creation_date.cmp(&b.creation_date));
    let surplus = ended.len().saturating_sub(MAX_ENDED);
    // What stays is only told of for longer.
    ended.iter().take(surplus).for_each(|task| drop(tasks(store).remove(&task.task_id)));
}

/// The turn of who does a task, unless another has it.
fn turn(tasks: &Collection<Task>, id: &TaskId) -> Result<Option<File>> {
    let doing = || format!("begin {id}");
    let file = tasks.lock(id)?.owned().open_or_create(WORKER).or_fail(doing)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(cause) => Err(Error::io(doing(), cause)),
    }
}

fn format(disk: &DiskContainer) -> Result<Option<SourceFormat>> {
    let named = disk.format.as_deref().map(str::to_ascii_lowercase);
    // An archive says itself what it is.
    let named = named.filter(|name| name != "ova");
    named.map(|name| name.parse()).transpose()
}

fn description(task: &Task, disk: &DiskContainer) -> Option<String> {
    task.description.clone().or_else(|| disk.description.clone())
}

fn no_copy() -> Error {
    let why = "a snapshot is not imported as a snapshot; use CopySnapshot";
    Error::refused(Code::InvalidParameterValue, why)
}

/// # Errors
/// It can't be imported, as is seen at once.
fn check_container(store: &Store, disk: &DiskContainer) -> Result<()> {
    format(disk)?;
    let refused = |why: String| Error::refused(Code::InvalidParameterValue, why);
    match &disk.from {
        DiskSource::File { path, .. } => match path.metadata() {
            Ok(found) if found.is_file() => Ok(()),
            Ok(_) => Err(refused(format!("{} is no plain file", path.display()))),
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                Err(refused(format!("{} is not there", path.display())))
            }
            Err(cause) => Err(refused(format!("cannot read {}: {cause}", path.display()))),
        },
        DiskSource::Snapshot(id) => store.snapshots().get(id).map(drop),
    }
}

/// # Errors
/// There is no such directory, or the prefix is not one of a file's name.
fn check_export(directory: &Path, prefix: &str) -> Result<()> {
    let refused = |why: String| Err(Error::refused(Code::InvalidParameterValue, why));
    if !directory.is_dir() {
        return refused(format!("{} is not a directory; make it first", directory.display()));
    }
    let bad = |c: char| c == '/' || c.is_control();
    if prefix.chars().count() > MAX_TEXT - 64 || prefix.contains(bad) || prefix.starts_with('.') {
        return refused("S3Prefix is the beginning of a file's name here, without '/'".to_owned());
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

/// What is heard of a task's work, and what stops it.
#[derive(Default)]
struct Heard {
    cancel: Arc<AtomicBool>,
    percent: AtomicU8,
    warnings: Mutex<Vec<String>>,
}

impl Heard {
    /// What is to be known of what was made.
    fn warned(&self) -> Option<String> {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        (!warnings.is_empty()).then(|| shortened(&warnings.join("; ")))
    }

    /// Writes down how far a task is, and stops it if that is wanted, until it has ended.
    fn watch(&self, tasks: &Collection<Task>, id: &TaskId, end: &Receiver<()>) {
        let mut written = 0;
        while end.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
            let percent = self.percent.load(Ordering::Relaxed);
            let status = match percent == written {
                true => tasks.get(id).map(|task| task.status),
                false => tasks.update(id, Durability::Durable, |task| {
                    task.progress = percent;
                    Ok(task.status)
                }),
            };
            written = percent;
            if status.is_ok_and(|status| status == TaskStatus::Deleting) {
                self.cancel.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Most warnings that are kept.
const MAX_WARNINGS: usize = 8;

struct Teller(Arc<Heard>);

impl Audience for Teller {
    fn warn(&self, line: &str) {
        let mut warnings = self.0.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < MAX_WARNINGS {
            warnings.push(line.to_owned());
        }
    }

    fn note(&self, _line: &str) {}

    fn meter(&self, size: Option<u64>) -> Box<dyn Meter> {
        Box::new(Part { heard: self.0.clone(), size })
    }
}

/// A piece of a task's work.
struct Part {
    heard: Arc<Heard>,
    size: Option<u64>,
}

impl Meter for Part {
    fn at(&self, bytes: u64) {
        let percent = |size: u64| bytes.saturating_mul(99).checked_div(size);
        if let Some(percent) = self.size.and_then(percent) {
            let percent = u8::try_from(percent).unwrap_or(99).min(99);
            self.heard.percent.store(percent, Ordering::Relaxed);
        }
    }
}
