//! What must hold for every Linux kernel that Spore boots, stock or not.
#![allow(dead_code)] // each of the two test binaries that share this uses its part

use super::linux::{Lab, Shell};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// What every file under the store's snapshots is: its SHA-256; in the box, where that takes half a
/// minute for each image, its size and when it was last written to.
pub fn snapshot_digests(lab: &Lab) -> String {
    let what = if std::env::var_os("SPORE_BOX").is_some() {
        r"-printf '%p %s %b %T+\n'"
    } else {
        "-exec sha256sum {} +"
    };
    let output = Command::new("sh")
        .args(["-c", &format!("find snapshots -type f -name 'data*' {what}")])
        .current_dir(lab.home())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty(), "the store has snapshot data");
    text
}

/// Files of the guest's own volume: (overlays on disk).
pub fn overlays(lab: &Lab) -> Vec<PathBuf> {
    let output = Command::new("find")
        .args([lab.home().to_str().unwrap(), "-name", "overlay-*.qcow2"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

/// Three clones at once: the same root, differing in identity only; each writes its own disk; the
/// base stays.
pub fn clones_differ_only_where_they_should(lab: &Lab) {
    let before = snapshot_digests(lab);
    let ids: Vec<String> = three_clones(lab).into_iter().map(|(id, _)| id).collect();
    all_gone(lab, &ids, &before);
}

/// The same; and then one of them powers itself off, and the kernel of another panics.
pub fn clones_and_how_they_end(lab: &Lab) {
    let before = snapshot_digests(lab);
    let (ids, shells): (Vec<String>, Vec<Shell>) = three_clones(lab).into_iter().unzip();
    let mut shells = shells.into_iter();
    powers_off(lab, &ids[0], shells.next().unwrap());
    panics(lab, &ids[1], shells.next().unwrap());
    assert_eq!(lab.state(&ids[2]), "running", "the others' ends are not its own");
    all_gone(lab, &ids, &before);
}

/// Launch three, tell them apart, and write something of its own to each one's disk.
fn three_clones(lab: &Lab) -> Vec<(String, Shell)> {
    let ids = lab.launch(3, &["-c", "1", "-m", "512M"]);
    lab.wait(&ids, "login");
    let mut same = BTreeSet::new();
    let mut own = BTreeSet::new();
    let look = |(index, id): (usize, String)| {
        let mut shell = lab.shell(&id);
        same.insert(
            shell.sh(
                "uname -a | cut -d' ' -f3-; nproc; cat /etc/os-release; blkid -s UUID /dev/vda",
            ),
        );
        own.insert(shell.sh("cat /sys/class/dmi/id/product_uuid 2>/dev/null || cat /proc/cmdline"));
        let cmdline = shell.sh("cat /proc/cmdline");
        assert!(cmdline.contains(&format!("spore.instance={id}")), "{cmdline}");
        assert!(cmdline.contains(&format!("spore.index={index}")), "{cmdline}");
        shell.sh(&format!("echo {id} > /root/mine && sync"));
        assert_eq!(shell.sh("cat /root/mine"), id);
        (id, shell)
    };
    let clones = ids.into_iter().enumerate().map(look).collect();
    assert_eq!(same.len(), 1, "{same:?}");
    assert_eq!(own.len(), 3, "{own:?}");
    clones
}

/// Terminate them: their volumes go, and what they were launched from is as it was `before`.
fn all_gone(lab: &Lab, ids: &[String], before: &str) {
    for id in ids {
        lab.ok(&["terminate", id]);
    }
    assert_eq!(snapshot_digests(lab), before);
    assert!(overlays(lab).is_empty(), "volumes go with their instances");
}

/// Launch one, and log in when it is up.
fn launched(lab: &Lab, cpus: &str, memory: &str) -> (String, Shell) {
    let id = lab.launch(1, &["-c", cpus, "-m", memory]).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    over_the_transport_asked_for(lab, &mut shell);
    (id, shell)
}

/// The root disk is where the lab's transport is.
pub fn over_the_transport_asked_for(lab: &Lab, shell: &mut Shell) {
    let path = shell.sh("readlink -f /sys/block/vda");
    assert_eq!(path.contains("/pci0000:00/"), lab.over_pci(), "{path}");
}

/// All that can befall one instance, one after the other, with more RAM than lies below the hole.
/// Where a boot takes a minute, this takes three; the lab kernel's tests do the same apart.
pub fn long_life(lab: &Lab) {
    let (id, mut shell) = launched(lab, "2", "5G");
    assert_eq!(shell.sh("nproc"), "2");
    has_five_gib(&mut shell);
    fio(&mut shell, 8);
    let shell = rebooted(lab, &id, shell);
    let shell = killed(lab, &id, shell);
    stopped(lab, &id, shell);
    terminated(lab, &id);
    base_is_intact(lab);
}

/// Bytes that the guest has had acknowledged by fsync survive kill -9 of the VMM.
pub fn fsynced_bytes_survive_kill_9(lab: &Lab) {
    let (id, shell) = launched(lab, "1", "512M");
    killed(lab, &id, shell);
    terminated(lab, &id);
    base_is_intact(lab);
}

/// A checksummed mix of block sizes with flushes and discards.
pub fn fio_verifies(lab: &Lab, mib: u32) {
    let (id, mut shell) = launched(lab, "2", "768M");
    fio(&mut shell, mib);
    stopped(lab, &id, shell);
    terminated(lab, &id);
}

/// A reboot inside the guest stays in its process and starts afresh.
pub fn reboots_inside(lab: &Lab) {
    let (id, mut shell) = launched(lab, "2", "512M");
    assert_eq!(shell.sh("nproc"), "2");
    rebooted(lab, &id, shell);
    terminated(lab, &id);
}

/// Power-off, stop and start each end in the right state.
pub fn life_of_one_instance(lab: &Lab) {
    let (id, mut shell) = launched(lab, "2", "512M");
    assert_eq!(shell.sh("nproc"), "2");
    powers_off(lab, &id, shell);
    lab.ok(&["start", &id]);
    lab.wait(std::slice::from_ref(&id), "login");
    lab.ok(&["stop", &id]);
    assert_eq!(lab.state(&id), "stopped");
    assert!(lab.reason(&id).contains("Client.UserInitiatedShutdown"), "{}", lab.reason(&id));
    terminated(lab, &id);
}

/// More RAM than lies below the hole.
pub fn five_gib(lab: &Lab) {
    let (id, mut shell) = launched(lab, "1", "5G");
    has_five_gib(&mut shell);
    terminated(lab, &id);
}

/// A kernel that panics.
pub fn guest_failures_are_told(lab: &Lab) {
    let (id, shell) = launched(lab, "1", "512M");
    panics(lab, &id, shell);
    terminated(lab, &id);
}

fn has_five_gib(shell: &mut Shell) {
    let kib: u64 = shell.sh("awk '/MemTotal/ {print $2}' /proc/meminfo").parse().unwrap();
    assert!((4_700_000..5 << 20).contains(&kib), "{kib} KiB");
}

fn fio(shell: &mut Shell, mib: u32) {
    let fio = format!(
        "fio --output=/tmp/fio --directory=/root --size={mib}M --ioengine=libaio --iodepth=16 --direct=1 \
         --verify=crc32c --verify_fatal=1 --do_verify=1"
    );
    shell.sh(&format!(
        "{fio} --name=mix --rw=randwrite --bssplit=4k/40:12k/20:64k/20:132k/20 --fsync=64 || {{ cat /tmp/fio; false; }}"
    ));
    shell.sh("rm /root/mix*; sync; fstrim -v /");
    shell.sh(&format!(
        "{fio} --name=again --rw=randrw --bs=4k --numjobs=2 --fdatasync=32 || {{ cat /tmp/fio; false; }}"
    ));
    shell.sh("rm /root/again*; sync; fstrim -v /");
    shell.sh("touch /root/last; sync");
}

/// Reboot from the inside; a shell after it.
pub fn rebooted(lab: &Lab, id: &str, mut shell: Shell) -> Shell {
    let cpus = shell.sh("nproc");
    let boot = shell.sh("cat /proc/sys/kernel/random/boot_id");
    let pid = lab.pid(id);
    // `exec`, here and below: a shell that stays ignores SIGTERM, and systemd waits for it.
    shell.send("exec reboot\n");
    // A getty may offer another login on the way down.
    shell.expect("reboot: Restarting system");
    shell.expect("login: ");
    drop(shell);
    assert_eq!(lab.pid(id), pid, "a reboot stays in its process");
    let mut shell = lab.shell(id);
    assert_ne!(shell.sh("cat /proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(shell.sh("nproc"), cpus);
    shell
}

/// Write 64 MiB, kill the VMM when they are acknowledged, start again: they are there. A shell
/// after it.
fn killed(lab: &Lab, id: &String, mut shell: Shell) -> Shell {
    let one = std::slice::from_ref(id);
    shell.sh("dd if=/dev/urandom of=/root/data bs=1M count=64 conv=fsync 2>/dev/null");
    let digest = shell.sh("sha256sum < /root/data");
    shell.sh("echo 3 > /proc/sys/vm/drop_caches; sync /root/data /root");
    lab.kill(id);
    drop(shell);
    lab.wait(one, "stopped");
    overlays_are_sound(lab);
    lab.ok(&["start", id]);
    lab.wait(one, "login");
    let mut shell = lab.shell(id);
    assert_eq!(shell.sh("sha256sum < /root/data"), digest);
    shell
}

/// `spore stop`, which a guest without anybody logged in obeys by shutting down.
fn stopped(lab: &Lab, id: &str, shell: Shell) {
    shell.log_out();
    lab.ok(&["stop", id]);
    assert_eq!(lab.state(id), "stopped");
    assert!(lab.reason(id).contains("Client.UserInitiatedShutdown"), "{}", lab.reason(id));
    overlays_are_sound(lab);
}

fn powers_off(lab: &Lab, id: &String, shell: Shell) {
    shell.last_words("exec poweroff");
    lab.wait(std::slice::from_ref(id), "stopped");
    assert!(lab.reason(id).contains("Client.InstanceInitiatedShutdown"), "{}", lab.reason(id));
}

fn panics(lab: &Lab, id: &String, shell: Shell) {
    shell.last_words("echo c > /proc/sysrq-trigger");
    lab.wait(std::slice::from_ref(id), "stopped");
    assert!(lab.reason(id).contains("panic"), "{}", lab.reason(id));
    assert!(lab.logs(id).contains("Kernel panic"));
}

/// What all instances began as still has the digest that was recorded of it.
fn base_is_intact(lab: &Lab) {
    for id in lab.ok(&["snapshot", "ls", "-q"]).lines() {
        lab.ok(&["snapshot", "verify", id]);
    }
}

fn terminated(lab: &Lab, id: &str) {
    lab.ok(&["terminate", id]);
    assert_eq!(lab.state(id), "terminated");
}

fn overlays_are_sound(lab: &Lab) {
    for overlay in overlays(lab) {
        let check = Command::new("qemu-img").arg("check").arg(&overlay).output().unwrap();
        assert!(check.status.success(), "{check:?}");
    }
}
