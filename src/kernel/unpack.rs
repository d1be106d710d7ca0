//! Unpacking a kernel by a process that has its file open and nothing else.

use crate::boot::{self, Mode, decompress::LARGEST};
use crate::error::{Error, Kind, OrFail, Result};
use crate::helper::{self, Child, Ends, Given, Helper, Syscalls, not_ours, one_line};
use crate::sys::seccomp::{Allow, Allow::Call};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

/// Bytes of address space: the file, what it unpacks to, and that with its segments in their
/// places.
const MEMORY: u64 = 4 << 30;
/// Seconds of processor time; a kernel of a distribution takes less than one.
const TIME: u64 = 120;
/// How long it may take on a slow disk.
const DEADLINE: Duration = Duration::from_secs(600);
/// Longest line that the bytes come behind.
const MAX_LINE: u64 = 4096;

/// What reading takes. Anything else ends the process.
const CALLS: &[Allow] = &[
    Call(libc::SYS_read),    // the kernel
    Call(libc::SYS_pread64), // the kernel
    Call(libc::SYS_lseek),   // its size
    Call(libc::SYS_statx),   // the same
    Call(libc::SYS_fstat),   // the same
    Call(libc::SYS_write),   // the answer
    Call(libc::SYS_close),   // the kernel
    Call(libc::SYS_fcntl),   // std looks at what it closes
];

/// The look, with the kernel's file. It answers with a line of JSON and the kernel's bytes.
pub(crate) const HELPER: Helper = Helper {
    word: "__unpack",
    syscalls: Syscalls::These(CALLS),
    memory: MEMORY,
    seconds: Some(TIME),
    ends: Ends::WithParent,
    environment: &[],
    run,
};

#[derive(Serialize, Deserialize)]
enum Answer {
    Unpacked { mode: Mode, format: String, version: Option<String>, size: u64 },
    Failed { kind: Kind, code: Option<String>, message: String },
}

fn run(files: Vec<Given>) -> Result<()> {
    let given = files.into_iter().next().ok_or_else(not_ours)?;
    let (answer, elf) = match boot::unpack(&given.file) {
        Ok(kernel) => {
            let size = kernel.elf.len() as u64;
            let (mode, format, version) = (kernel.mode, kernel.format, kernel.version);
            (Answer::Unpacked { mode, format, version, size }, kernel.elf)
        }
        Err(error) => {
            let (kind, code) = (error.kind(), error.code().map(|code| code.as_str().to_owned()));
            let message = error.message().chars().take(1000).collect();
            (Answer::Failed { kind, code, message }, Vec::new())
        }
    };
    let mut line = serde_json::to_vec(&answer).or_fail(|| "write JSON")?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    let said = out.write_all(&line).and_then(|()| out.write_all(&elf)).and_then(|()| out.flush());
    said.or_fail(|| "answer")
}

/// Unpacks a kernel (an ELF vmlinux or a bzImage) for registration.
///
/// # Errors
/// As [`boot::unpack`]'s; it would take too much memory or time.
pub(super) fn unpack(file: &File) -> Result<boot::UnpackedKernel> {
    let mut child = helper::start(&HELPER, &[(file.as_fd(), OsStr::new(""))])?;
    let (answer, elf) = hear(&child)?;
    let clean = |text: String| one_line(&text, 1000);
    match answer {
        Some(Answer::Failed { kind, code, message }) => {
            Err(Error::reported(kind, code.as_deref(), clean(message)))
        }
        Some(Answer::Unpacked { mode, format, version, size }) if elf.len() as u64 == size => {
            Ok(boot::UnpackedKernel {
                elf,
                format: clean(format),
                mode,
                version: version.map(clean),
            })
        }
        _ => Err(child.failure("unpacking the kernel")),
    }
}

/// The answer, if it is one, and the bytes behind it.
fn hear(child: &Child) -> Result<(Option<Answer>, Vec<u8>)> {
    let doing = || "unpack the kernel";
    let mut wait_on = helper::within(DEADLINE);
    let mut out = BufReader::with_capacity(1 << 16, child.reader(&mut wait_on));
    let (mut line, mut elf) = (Vec::new(), Vec::new());
    out.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).or_fail(doing)?;
    out.take(LARGEST.saturating_mul(2)).read_to_end(&mut elf).or_fail(doing)?;
    Ok((serde_json::from_slice(&line).ok(), elf))
}
