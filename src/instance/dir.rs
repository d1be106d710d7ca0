//! An instance's directory: its record, its locks, its files.

use crate::error::{Code, Error, OrFail, Result};
use crate::id::InstanceId;
use crate::plan::VmReport;
use crate::record::image::RootDeviceType;
use crate::record::instance::InstanceRecord;
use crate::store::beneath::{Dir, Owned};
use crate::store::journal::Cause;
use crate::store::{self, Collection, Durability, Locked, Store};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// What the guest said.
pub const CONSOLE: &str = "console.log";
/// When it said that.
pub const CONSOLE_TIMES: &str = "console.times";
/// What the guest is given.
pub const USER_DATA: &str = "user-data";
/// The guest's SSH host keys, as OpenSSH reads them.
pub const KNOWN_HOSTS: &str = "known_hosts";
/// What the VMM printed.
pub const VMM_LOG: &str = "vmm.log";
/// What the VMM reports, one line of JSON each.
pub const REPORT: &str = "report.jsonl";
/// Where the VMM listens.
const SOCKET: &str = "control.sock";
/// Where programs of the host reach those of the guest.
pub const VSOCK: &str = "vsock.sock";
/// The same of SOCK_SEQPACKET.
const VSOCK_SEQPACKET: &str = "vsock-seqpacket.sock";
/// Whose flock the VMM holds; its process id is in it.
const VMM_LOCK: &str = "vmm.lock";
/// More of it is no number.
const MAX_PID: u64 = 64;

/// Longest tail of a report file that is looked at.
const REPORT_TAIL: u64 = 256 << 10;
/// What is reserved of each log when a VMM starts: on a file system that fills up, it can still say
/// so. Bytes.
const LOG_ROOM: u64 = 16 << 10;

/// The instances of a store.
pub fn instances(store: &Store) -> Collection<InstanceRecord> {
    store.collection()
}

/// Bytes of RAM of all instances that this user has running or being launched or started.
///
/// # Errors
/// The store can't be read. An instance that can't be counts nothing.
pub fn memory_in_use(store: &Store) -> Result<u64> {
    let memory = |id: InstanceId| {
        let dir = InstanceDir::new(store, &id);
        // The locks first: most of a busy store's instances are over, and their records need not be
        // read.
        let lives = dir.vmm_alive().unwrap_or(false) || dir.is_locked().unwrap_or(false);
        let record = if lives { dir.record().ok()?? } else { return None };
        record.instance.state.is_active().then_some(record.instance.spore.memory)
    };
    Ok(instances(store).own_ids()?.into_iter().filter_map(memory).fold(0, u64::saturating_add))
}

/// What must survive a power failure: an instance of which a volume does.
pub fn durability(record: &InstanceRecord) -> Durability {
    let instance = &record.instance;
    match instance.root_device_type {
        RootDeviceType::InstanceStore if instance.block_device_mappings.is_empty() => {
            Durability::Volatile
        }
        _ => Durability::Durable,
    }
}

/// Save the record as durably as its instance is.
///
/// # Errors
/// It can't be written.
pub fn save(locked: &mut Locked<InstanceRecord>) -> Result<()> {
    save_because(locked, None)
}

/// As [`save`], of what happened by itself.
///
/// # Errors
/// It can't be written.
pub fn save_because(locked: &mut Locked<InstanceRecord>, cause: Option<&Cause>) -> Result<()> {
    let durability = durability(&locked.record);
    locked.save_because(durability, cause)
}

/// One instance's directory.
#[derive(Clone, Debug)]
pub struct InstanceDir {
    store: Store,
    path: PathBuf,
    id: InstanceId,
}

impl InstanceDir {
    /// The directory of `id`, which need not exist.
    pub fn new(store: &Store, id: &InstanceId) -> Self {
        Self { store: store.clone(), path: instances(store).dir(id), id: id.clone() }
    }

    /// The instance's id.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// The store that it is in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The directory, open: everything but the record is behind this, which another's instance
    /// never passes.
    ///
    /// # Errors
    /// There is none; it is another's (`AuthFailure`), or others may write it.
    pub fn owned(&self) -> Result<Owned> {
        match Dir::open(&self.path) {
            Ok(dir) if !dir.is_ours() => Err(Error::refused(
                Code::AuthFailure,
                format!(
                    "{} belongs to account {}; only that one may do this",
                    self.id,
                    dir.owner()
                ),
            )),
            dir => dir.and_then(Dir::owned).or_fail(|| format!("open {}", self.path.display())),
        }
    }

    /// The path of a file in the directory, for messages.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Open a file in the directory for reading; `None` if there is none.
    ///
    /// # Errors
    /// As [`InstanceDir::owned`]'s; it is no plain file.
    pub fn open_file(&self, name: &str) -> Result<Option<File>> {
        match self.owned()?.file(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.map(Some).or_fail(|| format!("open {}", self.file(name).display())),
        }
    }

    /// The record; `None` if there is no such instance.
    ///
    /// # Errors
    /// It is corrupt.
    pub fn record(&self) -> Result<Option<InstanceRecord>> {
        absent(instances(&self.store).get(&self.id))
    }

    /// Whether the instance, which has this record, belongs to somebody else.
    pub fn is_anothers(&self, record: &InstanceRecord) -> bool {
        let shared = self.store.administrator().is_some();
        shared && record.owner_id != self.store.owner_id()
    }

    /// Wait for the right to change the instance's state. `None` if there is no such instance.
    ///
    /// # Errors
    /// Its record is corrupt.
    pub fn lock(&self) -> Result<Option<Locked<InstanceRecord>>> {
        absent(instances(&self.store).lock(&self.id))
    }

    /// True if somebody is changing the instance's state now.
    ///
    /// # Errors
    /// The lock can't be opened.
    pub fn is_locked(&self) -> Result<bool> {
        self.held("lock")
    }

    /// True while the VMM lives.
    ///
    /// # Errors
    /// The directory is not readable.
    pub fn vmm_alive(&self) -> Result<bool> {
        self.held(VMM_LOCK)
    }

    /// Block until the VMM is gone.
    ///
    /// # Errors
    /// The directory is not readable.
    pub fn await_vmm_end(&self) -> Result<()> {
        let Some(file) = self.open_file(VMM_LOCK)? else { return Ok(()) };
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockShared))
            .or_fail(|| format!("wait for the VMM of {}", self.id))
    }

    fn held(&self, name: &str) -> Result<bool> {
        self.owned()?.is_held(name).or_fail(|| format!("probe {}", self.file(name).display()))
    }

    /// The lock that the VMM will hold, taken. Those who probe it hold it for a moment only, so
    /// this waits for them.
    ///
    /// # Errors
    /// The directory is gone or not writable.
    pub fn take_vmm_lock(&self) -> Result<File> {
        let doing = || format!("lock {}", self.file(VMM_LOCK).display());
        let file = self.owned()?.open_or_create(VMM_LOCK).or_fail(doing)?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).or_fail(doing)?;
        Ok(file)
    }

    /// Open a file for appending, made private to the owner if it is new, with room for
    /// [`LOG_ROOM`] more bytes.
    ///
    /// # Errors
    /// No space, no permission.
    pub fn open_log(&self, name: &str) -> Result<File> {
        let path = self.file(name);
        let file = self.owned()?.append(name).or_fail(|| format!("open {}", path.display()))?;
        let end = file.metadata().map_or(0, |meta| meta.len());
        match fallocate(&file, FallocateFlags::KEEP_SIZE, end, LOG_ROOM) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => Err(io::Error::from(error))
                .or_fail(|| format!("reserve room for {}", path.display())),
            // A file system that can't reserve.
            _ => Ok(file),
        }
    }

    /// A file for the times of what the guest says, which goes on where it ends.
    ///
    /// # Errors
    /// No permission.
    pub fn open_times(&self) -> Result<File> {
        let path = self.file(CONSOLE_TIMES);
        self.owned()?.append(CONSOLE_TIMES).or_fail(|| format!("open {}", path.display()))
    }

    /// An empty report file.
    ///
    /// # Errors
    /// No space, no permission.
    pub fn open_report(&self) -> Result<File> {
        let removed = self.owned()?.remove_if_there(REPORT);
        removed.or_fail(|| format!("remove {}", self.file(REPORT).display()))?;
        self.open_log(REPORT)
    }

    /// What the VMM has reported, as far as it is whole lines of known form, oldest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn reports(&self) -> Result<Vec<VmReport>> {
        let Some(mut file) = self.open_file(REPORT)? else { return Ok(Vec::new()) };
        let mut tail = Vec::new();
        file.seek(SeekFrom::End(0))
            .and_then(|end| file.seek(SeekFrom::Start(end.saturating_sub(REPORT_TAIL))))
            .and_then(|_| file.take(REPORT_TAIL).read_to_end(&mut tail))
            .or_fail(|| format!("read {}", self.file(REPORT).display()))?;
        Ok(tail
            .split(|&b| b == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    /// Remember the VMM's process id in the file that it holds locked.
    ///
    /// # Errors
    /// No space.
    pub fn write_pid(&self, pid: u32) -> Result<()> {
        let write = |mut file: File| {
            file.set_len(0)?;
            io::Write::write_all(&mut file, pid.to_string().as_bytes())
        };
        let written = self.owned()?.writable(VMM_LOCK).and_then(write);
        written.or_fail(|| format!("write {}", self.file(VMM_LOCK).display()))
    }

    /// The process id of the VMM that holds the lock.
    pub fn recorded_pid(&self) -> Option<u32> {
        let text = self.owned().ok()?.read(VMM_LOCK, MAX_PID).ok()?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// A path to the control socket that is short enough for sockaddr_un wherever the store is, and
    /// the directory that it goes through: it is valid while the latter is open.
    ///
    /// The socket lies beside the record, not under the runtime directory: two commands with
    /// different environments must find the same one.
    ///
    /// # Errors
    /// The directory is gone; it is another's.
    pub fn control_path(&self) -> Result<(PathBuf, Owned)> {
        self.socket_path(SOCKET)
    }

    /// As [`InstanceDir::control_path`], of the socket device's socket.
    ///
    /// # Errors
    /// As [`InstanceDir::control_path`]'s.
    pub fn vsock_path(&self) -> Result<(PathBuf, Owned)> {
        self.socket_path(VSOCK)
    }

    /// The same of SOCK_SEQPACKET.
    ///
    /// # Errors
    /// As [`InstanceDir::control_path`]'s.
    pub fn vsock_seqpacket_path(&self) -> Result<(PathBuf, Owned)> {
        self.socket_path(VSOCK_SEQPACKET)
    }

    fn socket_path(&self, name: &str) -> Result<(PathBuf, Owned)> {
        let dir = self.owned()?;
        Ok((dir.through(name), dir))
    }

    /// Remove what only a running VMM needs.
    ///
    /// # Errors
    /// No permission.
    pub fn remove_sockets(&self) -> Result<()> {
        [SOCKET, VSOCK, VSOCK_SEQPACKET].into_iter().try_for_each(|name| {
            let removed = self.owned()?.remove_if_there(name);
            removed.or_fail(|| format!("remove {}", self.file(name).display()))
        })
    }
}

/// `None` for an object that does not exist.
fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(e) if e.code() == Some(<InstanceRecord as store::Record>::NOT_FOUND) => Ok(None),
        result => result.map(Some),
    }
}
