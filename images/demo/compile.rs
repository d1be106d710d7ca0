//! How a freestanding guest is compiled: shared by `build.rs` (the built-in `demo`) and by the
//! tests.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Compile the Rust source at `main`, with everything it includes, to a static ELF at `out`.
///
/// The guest is built for the host's own target, whose `core` and `alloc` every toolchain has, and
/// linked at 1 MiB without start files or libraries. The result depends on the sources and the
/// compiler only: no build id, no paths, no debug information.
///
/// # Errors
/// What the compiler printed, or why it did not run.
pub fn compile(rustc: &OsStr, main: &Path, script: &Path, out: &Path) -> Result<(), String> {
    let here = main.parent().ok_or("the source has no directory")?;
    let mut remap = here.as_os_str().to_owned();
    remap.push("=guest");
    let output = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "guest"])
        .args(["--target", "x86_64-unknown-linux-gnu", "-C", "panic=abort", "-C", "opt-level=2"])
        .args(["-C", "codegen-units=1", "-C", "relocation-model=static", "-C", "strip=symbols"])
        .args(["-C", "force-unwind-tables=no"])
        .args(["-C", "link-args=-nostartfiles -nostdlib -static -no-pie"])
        .args(["-C", "link-args=-Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,-z,norelro"])
        .arg("-C")
        .arg(format!("link-arg=-Wl,-T,{}", script.display()))
        .arg("--remap-path-prefix")
        .arg(remap)
        .arg("-o")
        .arg(out)
        .arg(main)
        .output()
        .map_err(|e| format!("cannot run {}: {e}", rustc.display()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
