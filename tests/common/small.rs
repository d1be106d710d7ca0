//! File systems of their own that are small, which takes a user namespace.

use super::Store;
use super::skip::skip_anywhere;
use std::process::Command;

/// What a shell script says on its two outputs with a tmpfs of so many MiB on /mnt, `$SPORE` the
/// program, and `$HERE` and `$SPORE_HOME` the `store`. `None`, and it is said, where namespaces are
/// not allowed. The script must succeed.
pub fn run(store: &Store, mib: u32, script: &str) -> Option<(Vec<String>, String)> {
    let script = format!("mount -t tmpfs -o size={mib}m none /mnt || exit 77\n{script}");
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).env("SPORE", env!("CARGO_BIN_EXE_spore"));
    command.env("SPORE_HOME", store.home()).env("HERE", store.home());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(77) || said.contains("unshare failed") {
        skip_anywhere("user namespaces are not allowed here");
        return None;
    }
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{said}");
    Some((told.lines().map(str::to_owned).collect(), said))
}
