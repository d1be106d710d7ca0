//! A Linux guest that is hibernated at work.

use super::linux::{Lab, Shell};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds that the guest's clock may be off just after it goes on, with what a shell's answer
/// takes on a busy host.
const CLOCK: u64 = 10;

/// Reads, writes and syncs go on in the background, across so many cycles; time does too.
pub fn a_guest_at_work_goes_on(lab: &Lab, cycles: u32) {
    let ids = lab.launch(1, &["-c", "2", "-m", "512M"]);
    lab.wait(&ids, "login");
    let id = &ids[0];
    let mut shell = lab.shell(id);
    let boot = shell.sh("cat /proc/sys/kernel/random/boot_id");
    shell.sh("head -c 32M /dev/urandom > /root/noise; sha256sum /root/noise > /root/sum");
    let turn = "sha256sum -c /root/sum && n=$((n+1)) && echo $n > /root/n && sync";
    shell.sh(&format!(
        "(n=0; while {turn}; do :; done; touch /root/broken) >/dev/null 2>&1 & sleep 1"
    ));
    let mut count = counted(&mut shell);
    drop(shell);
    for _ in 0..cycles {
        lab.ok(&["stop", "--hibernate", id]);
        assert_eq!(lab.state(id), "stopped");
        assert!(lab.reason(id).contains("UserInitiatedHibernate"), "{}", lab.reason(id));
        lab.ok(&["start", id]);
        // Whoever was logged in still is.
        let mut shell = lab.console(id);
        let guest: u64 = shell.sh("date +%s").parse().unwrap();
        let host = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(guest.abs_diff(host) <= CLOCK, "the guest's clock says {guest}, the host's {host}");
        shell.sh(&format!("while [ $(cat /root/n) -le {count} ]; do sleep 0.1; done"));
        count = counted(&mut shell);
        assert_eq!(shell.sh("cat /proc/sys/kernel/random/boot_id"), boot, "it has not booted");
    }
    let mut shell = lab.console(id);
    shell.sh("test ! -e /root/broken");
    assert_eq!(shell.sh("dmesg | grep -c -i 'i/o error\\|lockup\\|hung task' || :"), "0");
    lab.ok(&["terminate", id]);
}

/// Turns of the background's work.
fn counted(shell: &mut Shell) -> u64 {
    // The file is empty for a moment while it is written.
    shell.sh("while ! grep . /root/n; do :; done").parse().unwrap()
}
