//! Unpacking a kernel by a process that has its file open and nothing else.

use crate::boot::{self, Mode, decompress::LARGEST};
use crate::child::{Child, Given, Helper, one_line};
use crate::error::{Error, Kind, OrFail, Result};
use crate::sys::seccomp::{Allow, Allow::Call};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};

/// Bytes of address space: the file, what it unpacks to, and that with its segments in their places.
const MEMORY: u64 = 4 << 30;
/// Seconds of processor time; a kernel of a distribution takes less than one.
const TIME: u64 = 120;
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
pub(crate) const HELPER: Helper =
    Helper { word: "__unpack", memory: MEMORY, seconds: Some(TIME), calls: CALLS, run };

#[derive(Serialize, Deserialize)]
enum Answer {
    Unpacked { mode: Mode, format: String, version: Option<String>, size: u64 },
    Failed { kind: Kind, code: Option<String>, message: String },
}

fn run(files: Vec<Given>) -> Result<()> {
    let given = files.into_iter().next().ok_or_else(|| Error::usage("this is for spore itself"))?;
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
    let file = file.try_clone().or_fail(|| "pass the kernel on")?;
    let (mut child, out) = Child::start(&HELPER, &[(file, "")])?;
    let mut out = BufReader::new(out);
    let mut line = Vec::new();
    out.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).or_fail(|| "unpack the kernel")?;
    let Ok(answer) = serde_json::from_slice(&line) else {
        return Err(child.failure("unpacking the kernel"));
    };
    let clean = |text: String| one_line(&text, 1000);
    match answer {
        Answer::Failed { kind, code, message } => {
            Err(Error::reported(kind, code.as_deref(), clean(message)))
        }
        Answer::Unpacked { mode, format, version, size } => {
            let mut elf = Vec::new();
            out.take(LARGEST.saturating_mul(2))
                .read_to_end(&mut elf)
                .or_fail(|| "unpack the kernel")?;
            if elf.len() as u64 != size {
                return Err(child.failure("unpacking the kernel"));
            }
            Ok(boot::UnpackedKernel {
                elf,
                format: clean(format),
                mode,
                version: version.map(clean),
            })
        }
    }
}
