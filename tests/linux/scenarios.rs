//! What must hold for every Linux kernel that Spore boots, stock or not.

use super::linux::Lab;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// SHA-256 of every file under the store's snapshots.
pub fn snapshot_digests(lab: &Lab) -> String {
    let output = Command::new("sh")
        .args(["-c", "find snapshots -type f -name 'data*' -exec sha256sum {} +"])
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

/// Three clones at once: the same root, differing in identity only; each writes its own disk; the base stays.
pub fn clones_differ_only_where_they_should(lab: &Lab) {
    let before = snapshot_digests(lab);
    let ids = lab.launch(3, &["-c", "1", "-m", "512M"]);
    lab.wait(&ids, "login");
    let mut same = BTreeSet::new();
    let mut own = BTreeSet::new();
    for (index, id) in ids.iter().enumerate() {
        let mut shell = lab.shell(id);
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
        assert_eq!(shell.sh("cat /root/mine"), *id);
    }
    assert_eq!(same.len(), 1, "{same:?}");
    assert_eq!(own.len(), 3, "{own:?}");
    lab.ok(&["terminate", &ids[0], &ids[1], &ids[2]]);
    assert_eq!(snapshot_digests(lab), before);
    assert!(overlays(lab).is_empty(), "volumes go with their instances");
}

/// Bytes that the guest has had acknowledged by fsync survive kill -9 of the VMM.
pub fn fsynced_bytes_survive_kill_9(lab: &Lab) {
    let id = lab.launch(1, &["-c", "1", "-m", "512M"]).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    shell.sh("dd if=/dev/urandom of=/root/data bs=1M count=64 conv=fsync 2>/dev/null");
    let digest = shell.sh("sha256sum < /root/data");
    shell.sh("echo 3 > /proc/sys/vm/drop_caches; sync /root/data /root");
    lab.kill(&id);
    drop(shell);
    lab.wait(std::slice::from_ref(&id), "stopped");
    for overlay in overlays(lab) {
        let check = Command::new("qemu-img").arg("check").arg(&overlay).output().unwrap();
        assert!(check.status.success(), "{check:?}");
    }
    lab.ok(&["start", &id]);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    assert_eq!(shell.sh("sha256sum < /root/data"), digest);
    lab.ok(&["terminate", &id]);
}

/// A checksummed mix of block sizes with flushes and discards.
pub fn fio_verifies(lab: &Lab, mib: u32) {
    let id = lab.launch(1, &["-c", "2", "-m", "768M"]).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
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
    shell.log_out();
    lab.ok(&["stop", &id]);
    assert_eq!(lab.state(&id), "stopped");
    for overlay in overlays(lab) {
        let check = Command::new("qemu-img").arg("check").arg(&overlay).output().unwrap();
        assert!(check.status.success(), "{check:?}");
    }
    lab.ok(&["terminate", &id]);
}

/// A reboot inside the guest stays in its process and starts afresh.
pub fn reboots_inside(lab: &Lab) {
    let id = lab.launch(1, &["-c", "2", "-m", "512M"]).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    let boot = shell.sh("cat /proc/sys/kernel/random/boot_id");
    let pid = lab.pid(&id);
    // `exec`, here and below: a shell that stays ignores SIGTERM, and systemd waits for it.
    shell.send("exec reboot\n");
    // A getty may offer another login on the way down.
    shell.expect("reboot: Restarting system");
    shell.expect("login: ");
    drop(shell);
    assert_eq!(lab.pid(&id), pid, "a reboot stays in its process");
    let mut shell = lab.shell(&id);
    assert_ne!(shell.sh("cat /proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(shell.sh("nproc"), "2");
    lab.ok(&["terminate", &id]);
}

/// Power-off, stop and start each end in the right state.
pub fn life_of_one_instance(lab: &Lab) {
    let id = lab.launch(1, &["-c", "2", "-m", "512M"]).remove(0);
    let one = std::slice::from_ref(&id);
    lab.wait(one, "login");
    let mut shell = lab.shell(&id);
    assert_eq!(shell.sh("nproc"), "2");
    shell.last_words("exec poweroff");
    lab.wait(one, "stopped");
    assert!(lab.reason(&id).contains("Client.InstanceInitiatedShutdown"), "{}", lab.reason(&id));
    lab.ok(&["start", &id]);
    lab.wait(one, "login");
    lab.ok(&["stop", &id]);
    assert_eq!(lab.state(&id), "stopped");
    assert!(lab.reason(&id).contains("Client.UserInitiatedShutdown"), "{}", lab.reason(&id));
    lab.ok(&["terminate", &id]);
    assert_eq!(lab.state(&id), "terminated");
}

/// More RAM than lies below the hole.
pub fn five_gib(lab: &Lab) {
    let id = lab.launch(1, &["-c", "1", "-m", "5G"]).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    let kib: u64 = shell.sh("awk '/MemTotal/ {print $2}' /proc/meminfo").parse().unwrap();
    assert!((4_700_000..5 << 20).contains(&kib), "{kib} KiB");
    lab.ok(&["terminate", &id]);
}

/// A kernel that panics.
pub fn guest_failures_are_told(lab: &Lab) {
    let id = lab.launch(1, &["-c", "1", "-m", "512M"]).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let shell = lab.shell(&id);
    shell.last_words("echo c > /proc/sysrq-trigger");
    lab.wait(std::slice::from_ref(&id), "stopped");
    assert!(lab.reason(&id).contains("panic"), "{}", lab.reason(&id));
    assert!(lab.logs(&id).contains("Kernel panic"));
    lab.ok(&["terminate", &id]);
}
