//! A Linux guest that is hibernated at work.
#![allow(dead_code)] // each of the two test binaries that share this uses its part

use super::linux::{Lab, Shell};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds that the guest's clock may be off just after it goes on.
const CLOCK: u64 = 1;

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
    for cycle in 1..=cycles {
        lab.ok(&["stop", "--hibernate", id]);
        assert_eq!(lab.state(id), "stopped");
        assert!(lab.reason(id).contains("UserInitiatedHibernate"), "{}", lab.reason(id));
        lab.ok(&["start", id]);
        // Whoever was logged in still is.
        let mut shell = lab.console(id);
        let asked = now();
        let guest: u64 = shell.sh("date +%s").parse().unwrap();
        let answered = now();
        assert!(
            (asked - CLOCK..=answered + CLOCK).contains(&guest),
            "the guest's clock says {guest}, the host's {asked} to {answered}"
        );
        shell.sh(&format!("while [ $(cat /root/n) -le {count} ]; do sleep 0.1; done"));
        count = counted(&mut shell);
        assert_eq!(shell.sh("cat /proc/sys/kernel/random/boot_id"), boot, "it has not booted");
        // The kernel's driver of VM generation IDs has heard.
        let forks = shell.sh("dmesg | grep -c 'crng reseeded due to virtual machine fork'");
        assert_eq!(forks, cycle.to_string());
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

/// fio goes on to verify what it wrote, across so many cycles of an instance of `image`, whose VM
/// generation ID lies at `generation`.
pub fn fio_verifies_across_cycles(lab: &Lab, image: &str, generation: u64, cycles: usize) {
    let ids = lab.launch_of(image, 1, &["-c", "1", "-m", "512M"]);
    lab.wait(&ids, "login");
    let id = &ids[0];
    let mut shell = lab.shell(id);
    let boot = shell.sh("cat /proc/sys/kernel/random/boot_id");
    shell.sh("test -d /sys/bus/acpi/devices/VMGENCTR:00");
    let fio = "fio --output=/tmp/fio --name=cycles --directory=/root --size=16M --ioengine=libaio \
               --iodepth=8 --direct=1 --rw=randwrite --bssplit=4k/60:64k/40 --verify=crc32c \
               --verify_fatal=1 --verify_backlog=64 --time_based --runtime=1d";
    shell.sh(&format!("({fio}; touch /root/ended) >/dev/null 2>&1 & sleep 1"));
    let mut written = writes_beyond(&mut shell, 0);
    let mut known = BTreeSet::new();
    let mut told = events(&mut shell);
    drop(shell);
    for cycle in 1..=cycles {
        lab.ok(&["stop", "--hibernate", id]);
        assert!(lab.reason(id).contains("UserInitiatedHibernate"), "{}", lab.reason(id));
        known.insert(generation_id(lab, id, generation));
        assert_eq!(known.len(), cycle, "another generation ID each time: {known:?}");
        lab.ok(&["start", id]);
        let mut shell = lab.console(id);
        written = writes_beyond(&mut shell, written);
        assert_eq!(shell.sh("cat /proc/sys/kernel/random/boot_id"), boot, "it has not booted");
        let now = events(&mut shell);
        assert!(now > told, "the event device has interrupted");
        told = now;
    }
    let mut shell = lab.console(id);
    shell.sh("test ! -e /root/ended || { cat /tmp/fio; false; }");
    shell.sh("pkill -INT fio; while ! test -e /root/ended; do sleep 0.1; done");
    shell.sh("grep 'err= 0' /tmp/fio || { cat /tmp/fio; false; }");
    assert_eq!(shell.sh("dmesg | grep -c -i 'i/o error\\|lockup\\|hung task' || :"), "0");
    lab.ok(&["terminate", id]);
}

/// Waits until the root disk has completed more writes than these; how many.
fn writes_beyond(shell: &mut Shell, count: u64) -> u64 {
    let now = "awk '{print $5}' /sys/block/vda/stat";
    shell.sh(&format!("while [ $({now}) -le $(({count} + 500)) ]; do sleep 0.2; done"));
    shell.sh(now).parse().unwrap()
}

/// The VM generation ID as it lies in the memory of a hibernated instance: a stock kernel lets
/// nobody look there. RAM begins after the file's first page.
fn generation_id(lab: &Lab, id: &str, address: u64) -> [u8; 16] {
    let path = lab.home().join("instances").join(id).join("memory");
    let mut bytes = [0; 16];
    File::open(path).unwrap().read_exact_at(&mut bytes, 4096 + address).unwrap();
    assert_ne!(bytes, [0; 16], "there is one");
    bytes
}

/// Interrupts of the generic event device.
fn events(shell: &mut Shell) -> u64 {
    shell.sh("awk '/ACPI:Ged/ {n += $2} END {print n + 0}' /proc/interrupts").parse().unwrap()
}

/// Seconds since 1970 by the host's clock.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
