//! A process that outlives this test binary for as long as it takes to end what it started: a test
//! that is killed (by ^C, SIGKILL, a time limit) drops nothing, and virtual machines have sessions
//! of their own.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Notes what it is told until the binary is gone and the pipe breaks; what is still there then is
/// ended. A number is believed only if the process runs the program that was tested, from the
/// build's directory or a copy in the noted one.
const SCRIPT: &str = r#"
    spore=$1 programs=${1%/*}/ stores= vmms=
    while read -r kind what; do
        case $kind in
        store) stores="$stores$what
" ;;
        vmm) vmms="$vmms $what" ;;
        esac
    done
    ours() { case $(readlink "/proc/$1/exe") in "$programs"*) true ;; *) false ;; esac; }
    for pid in $vmms; do
        ! ours "$pid" || kill -9 "$pid"
    done
    printf %s "$stores" | while read -r SPORE_HOME; do
        [ -d "$SPORE_HOME" ] || continue
        export SPORE_HOME
        ids=$("$spore" ls -q </dev/null)
        [ -z "$ids" ] || "$spore" terminate $ids </dev/null
        # Another user's, and one that no longer hears.
        for process in /proc/[0-9]*; do
            pid=${process#/proc/}
            case $(readlink "$process/exe") in
            "$SPORE_HOME"/*) kill -9 "$pid" ;;
            "$programs"*) ! ls -l "$process/fd" | grep -qF " $SPORE_HOME/" || kill -9 "$pid" ;;
            esac
        done
        rm -rf "$SPORE_HOME"
    done
"#;

fn guard() -> &'static Mutex<Child> {
    static GUARD: OnceLock<Mutex<Child>> = OnceLock::new();
    GUARD.get_or_init(|| {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "guard", env!("CARGO_BIN_EXE_spore")]);
        // In no group that a terminal signals.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(command.spawn().unwrap())
    })
}

fn tell(line: &str) {
    let mut guard = guard().lock().unwrap();
    guard.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
}

/// Should this binary be killed, terminate the instances of this store, or of those below this
/// directory, and remove it.
pub fn store(home: &Path) {
    tell(&format!("store {}\n", home.display()));
}

/// Should this binary be killed, kill the VMM with this process id.
pub fn vmm(pid: u32) {
    tell(&format!("vmm {pid}\n"));
}
