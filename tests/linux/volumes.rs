//! Volumes that change under a running Linux guest.
#![allow(dead_code)] // each of the two test binaries that share this uses its part

use super::linux::Lab;

/// The root grows while the guest writes to it; its file system is grown online, and what was
/// written to the new part is there after a hibernation and a stop.
pub fn a_volume_grows_under_its_guest(lab: &Lab) {
    let ids = lab.launch(1, &["-c", "1", "-m", "512M"]);
    lab.wait(&ids, "login");
    let id = &ids[0];
    let root = lab.describe(id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    let root = root.as_str().unwrap();
    let mut shell = lab.shell(id);
    let before: u64 = shell.sh("cat /sys/block/vda/size").parse().unwrap();
    let after = before + (512 << 20) / 512;
    shell.sh("{ (while :; do date > /root/tick; sync /root/tick; done) >/dev/null 2>&1 & }");
    lab.ok(&["volume", "resize", root, "--size", &format!("{}M", after / 2048)]);
    shell.sh(&format!("while [ $(cat /sys/block/vda/size) != {after} ]; do sleep 0.1; done"));
    shell.sh("dmesg | grep -q 'vda: detected capacity change'");
    shell.sh("resize2fs /dev/vda >/dev/null 2>&1");
    let free: u64 = shell.sh("df --output=avail -BM / | tail -1 | tr -d ' M'").parse().unwrap();
    shell.sh(&format!("head -c {}M /dev/urandom > /root/large && sync", free - 50));
    let digest = shell.sh("sha256sum < /root/large");
    drop(shell);
    lab.ok(&["stop", "--hibernate", id]);
    lab.ok(&["start", id]);
    let mut shell = lab.console(id);
    shell.sh("echo 3 > /proc/sys/vm/drop_caches");
    assert_eq!(shell.sh("sha256sum < /root/large"), digest);
    assert_eq!(shell.sh("dmesg | grep -c -i 'i/o error\\|EXT4-fs error' || :"), "0");
    shell.sh("sync");
    lab.ok(&["stop", "--force", id]);
    lab.ok(&["start", id]);
    lab.wait(&ids, "login");
    let mut shell = lab.shell(id);
    assert_eq!(shell.sh("cat /sys/block/vda/size"), after.to_string());
    assert_eq!(shell.sh("sha256sum < /root/large"), digest);
    lab.ok(&["terminate", id]);
}
