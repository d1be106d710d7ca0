//! The other end of the socket: who has the disk, and wants to know what boots from it.

use super::detect::Disk;
use super::menu::Listed;
use super::process::HELPER;
use super::volume::Bytes;
use super::wire::{self, Answer, Found, Job, MAX_ANSWER, Order, PIECE, Range, Tag, Wanted};
use crate::boot::decompress::LARGEST;
use crate::error::{Code, Error, OrFail, Result};
use crate::helper::{self, one_line};
use crate::plan::{PvBoot, SavedEnvironment};
use crate::sys::fds;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The child has so much processor time for all of a job; between two packets it takes far less.
const PATIENCE: Duration = Duration::from_secs(60);
/// A whole job takes a fraction of a second; on a host that swaps, or in a machine in a machine,
/// far less than this.
const JOB: Duration = Duration::from_secs(300);
/// What a question counts at least, in bytes: there are no more than 4 million.
const QUESTION: u64 = 4096;
/// Bytes of the disk that a job may read in all.
const MAX_READ: u64 = 16 << 30;
/// Longest reason, in characters.
const LONGEST: usize = 2000;
/// Largest initial ramdisk.
const MAX_RAMDISK: u64 = 512 << 20;

/// A process that reads root volumes, and ends when this is dropped.
#[derive(Debug)]
pub struct Child {
    socket: OwnedFd,
    /// Unless another process has started it.
    process: Option<helper::Child>,
}

/// Files that came.
#[derive(Debug, Default)]
pub struct Files {
    /// The kernel, a memory file.
    pub kernel: Option<File>,
    /// The initial ramdisk, a memory file.
    pub ramdisk: Option<File>,
}

impl Child {
    /// Start one.
    ///
    /// # Errors
    /// No more processes or descriptors.
    pub fn start() -> Result<Self> {
        let doing = || "start a process that reads a root volume";
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).or_fail(doing)?;
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&ours, direction, Some(PATIENCE)).or_fail(doing)?;
        }
        let process = helper::start(&HELPER, &[(theirs.as_fd(), OsStr::new(""))])?;
        Ok(Self { socket: ours, process: Some(process) })
    }

    /// The end of one that was started by another process.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket, process: None }
    }

    /// For another process.
    pub fn into_socket(self) -> OwnedFd {
        if let Some(process) = self.process {
            process.let_go();
        }
        self.socket
    }

    /// What boots from `disk`; and of its files those that `want` asks for.
    ///
    /// # Errors
    /// Nothing boots from it, or finding out would cost too much: one line.
    pub fn boot(
        &self,
        disk: &dyn Bytes,
        boot: &PvBoot,
        want: &mut dyn FnMut(&Found) -> Wanted,
    ) -> Result<(Found, Files)> {
        match self.ask(Job::Boot(boot.clone()), disk, want)? {
            (Answer::Found(found), files)
                if found.saved.as_ref().is_none_or(SavedEnvironment::is_sound) =>
            {
                Ok((found, files))
            }
            _ => Err(wire::nonsense()),
        }
    }

    /// The path of the disk's menu, and its entries.
    ///
    /// # Errors
    /// As [`Child::boot`].
    pub fn list(&self, disk: &dyn Bytes, boot: &PvBoot) -> Result<(String, Vec<Listed>)> {
        match self.ask(Job::List(boot.clone()), disk, &mut |_| Wanted::default())? {
            (Answer::Listed { menu, entries }, _) => Ok((menu, entries)),
            _ => Err(wire::nonsense()),
        }
    }

    /// What of the disk matters for booting it.
    ///
    /// # Errors
    /// Finding out would cost too much.
    pub fn detect(&self, disk: &dyn Bytes) -> Result<Disk> {
        match self.ask(Job::Detect, disk, &mut |_| Wanted::default())? {
            (Answer::Detected(found), _) => Ok(found),
            _ => Err(wire::nonsense()),
        }
    }

    /// Unpack a kernel file. It must be asked of a child that has read nothing else: what it says
    /// is taken for what is in this file.
    ///
    /// # Errors
    /// It is none that boots here.
    pub fn unpack(self, kernel: &dyn Bytes) -> Result<File> {
        match self.ask(Job::Unpack, kernel, &mut |_| Wanted::default())? {
            (Answer::Unpacked, Files { kernel: Some(kernel), .. }) => Ok(kernel),
            _ => Err(wire::nonsense()),
        }
    }

    fn ask(
        &self,
        job: Job,
        disk: &dyn Bytes,
        want: &mut dyn FnMut(&Found) -> Wanted,
    ) -> Result<(Answer, Files)> {
        let socket = self.socket.as_fd();
        wire::put_json(socket, Tag::Job, &Order { job, size: disk.size() })?;
        let mut talk = Talk::default();
        let (mut buffer, mut piece) = (Vec::new(), vec![0; PIECE]);
        let begun = Instant::now();
        loop {
            if begun.elapsed() > JOB {
                return Err(Error::failure(format!(
                    "reading the root volume was given up: it would take more than {} s",
                    JOB.as_secs()
                )));
            }
            let Some((tag, body)) = wire::get(socket, &mut buffer)? else {
                return Err(Error::failure("the process that reads the root volume is gone"));
            };
            match tag {
                Tag::Read => {
                    let range: Range =
                        serde_json::from_slice(body).map_err(|_| wire::nonsense())?;
                    let bytes = piece.get_mut(..range.len as usize).ok_or_else(wire::nonsense)?;
                    talk.count(bytes.len())?;
                    match disk.read_exact_at(bytes, range.offset) {
                        Ok(()) => wire::put(socket, Tag::Bytes, bytes)?,
                        Err(why) => wire::put(socket, Tag::Fault, why.to_string().as_bytes())?,
                    }
                }
                Tag::Answer => {
                    if let Some(Answer::Found(found)) = talk.answered(body)? {
                        wire::put_json(socket, Tag::Want, &want(found))?;
                    }
                }
                Tag::Kernel => talk.kernel.put("kernel", body, LARGEST)?,
                Tag::Ramdisk => talk.ramdisk.put("ramdisk", body, MAX_RAMDISK)?,
                Tag::End => return talk.over(body),
                Tag::Job | Tag::Bytes | Tag::Fault | Tag::Want => return Err(wire::nonsense()),
            }
        }
    }
}

/// One job's conversation.
#[derive(Default)]
struct Talk {
    read: u64,
    text: Vec<u8>,
    answer: Option<Answer>,
    kernel: Pieces,
    ramdisk: Pieces,
}

/// A file that comes in pieces. All but the last are full, and an empty one is the end: there is an
/// end to them.
#[derive(Default)]
struct Pieces {
    file: Option<File>,
    last: bool,
    over: bool,
}

impl Pieces {
    /// Add a piece; the file is made with the first.
    fn put(&mut self, name: &str, piece: &[u8], limit: u64) -> Result<()> {
        let doing = || format!("keep the {name} of a root volume");
        if self.over || (self.last && !piece.is_empty()) {
            return Err(wire::nonsense());
        }
        self.last = piece.len() < PIECE;
        self.over = piece.is_empty();
        if self.file.is_none() {
            self.file = Some(fds::memfd(name)?);
        }
        let Some(file) = &mut self.file else { return Err(wire::nonsense()) };
        file.write_all(piece).or_fail(doing)?;
        let len = fds::len(file).or_fail(doing)?;
        if len > limit { Err(wire::nonsense()) } else { Ok(()) }
    }
}

impl Talk {
    fn count(&mut self, bytes: usize) -> Result<()> {
        self.read += (bytes as u64).max(QUESTION);
        if self.read > MAX_READ {
            let gib = MAX_READ >> 30;
            return Err(Error::failure(format!(
                "reading the root volume was given up: it would take more than {gib} GiB of it"
            )));
        }
        Ok(())
    }

    /// A piece of the answer; the answer when it is whole.
    fn answered(&mut self, piece: &[u8]) -> Result<Option<&Answer>> {
        if self.answer.is_some() {
            return Err(wire::nonsense());
        }
        if !piece.is_empty() {
            self.text.extend_from_slice(piece);
            let fits = self.text.len() as u64 <= MAX_ANSWER;
            return if fits { Ok(None) } else { Err(wire::nonsense()) };
        }
        let text = std::mem::take(&mut self.text);
        let answer = serde_json::from_slice(&text).map_err(|_| wire::nonsense())?;
        Ok(Some(self.answer.insert(answer)))
    }

    fn over(self, why: &[u8]) -> Result<(Answer, Files)> {
        match self.answer {
            Some(Answer::Failed(why)) => {
                Err(Error::refused(Code::InvalidBootMenu, one_line(&why, LONGEST)))
            }
            _ if !why.is_empty() => {
                Err(Error::failure(one_line(&String::from_utf8_lossy(why), LONGEST)))
            }
            Some(answer) => {
                Ok((answer, Files { kernel: self.kernel.file, ramdisk: self.ramdisk.file }))
            }
            None => Err(wire::nonsense()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a job whose child says `what` for ever.
    fn reported(what: &[(Tag, &[u8])]) -> Error {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let child = Child::from_socket(ours);
        std::thread::scope(|scope| {
            // Ends when the other end is closed.
            scope.spawn(move || {
                for (tag, body) in what.iter().cycle() {
                    if wire::put(theirs.as_fd(), *tag, body).is_err() {
                        return;
                    }
                }
            });
            let said = child.detect(&vec![0; 512]).unwrap_err();
            drop(child);
            said
        })
    }

    #[test]
    fn a_child_that_says_the_same_for_ever_is_given_up() {
        let full = vec![7; PIECE];
        let nonsense: [&[(Tag, &[u8])]; 6] = [
            &[(Tag::Answer, b"\"Unpacked\""), (Tag::Answer, b"")],
            &[(Tag::Kernel, b"")],
            &[(Tag::Ramdisk, b"")],
            &[(Tag::Kernel, b"x")],
            &[(Tag::Ramdisk, &full), (Tag::Ramdisk, b"x")],
            &[(Tag::Answer, b"x")],
        ];
        for what in nonsense {
            assert!(reported(what).message().contains("nonsense"), "{:?}", what[0].0);
        }
    }

    #[test]
    fn questions_without_an_answer_to_them_count() {
        let mut talk = Talk::default();
        let most = MAX_READ / QUESTION;
        assert!((0..most).all(|_| talk.count(0).is_ok()));
        assert!(talk.count(0).unwrap_err().message().contains("16 GiB"));
    }
}
