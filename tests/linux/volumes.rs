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
    // The kernel says so after it is so.
    let said = "dmesg | grep -q 'vda: detected capacity change'";
    shell.sh(&format!("until {said}; do sleep 0.1; done"));
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

/// Volumes come to a guest that runs, and go: it finds each when told, writes to it, and lets go
/// when asked once it is unmounted; what it wrote is there. A mounted one is busy, and goes by
/// force.
pub fn volumes_come_and_go(lab: &Lab, image: &str) {
    let ids = lab.launch_of(image, 1, &["-c", "1", "-m", "512M"]);
    lab.wait(&ids, "login");
    let id = &ids[0];
    let mut shell = lab.shell(id);
    let volume = || lab.ok(&["volume", "create", "--size", "64M"]).trim().to_owned();
    let (first, second) = (volume(), volume());
    let attach = |volume: &str, device: &str| {
        lab.ok(&["volume", "attach", volume, id, "--device", device, "--timeout", "120"])
    };
    let serial = |volume: &str| volume.replace('-', "");
    // Its driver has it before the rest of the guest has.
    let find = |volume: &str| {
        format!(
            "until d=$(grep -ls {} /sys/block/vd*/serial | cut -d/ -f4) && test -b /dev/$d; \
             do sleep 0.2; done; echo $d",
            serial(volume)
        )
    };
    attach(&first, "/dev/vdb");
    let disk = shell.sh(&find(&first));
    shell.sh(&format!(
        "mkfs.ext4 -q /dev/{disk} && mount /dev/{disk} /mnt && echo kept > /mnt/f && sync"
    ));
    attach(&second, "/dev/vdc");
    let other = shell.sh(&find(&second));
    assert_ne!(disk, other);
    shell.sh(&format!("dd if=/dev/urandom of=/dev/{other} bs=1M count=8 oflag=direct 2>/dev/null"));
    // Over a hibernation both are where they were.
    drop(shell);
    lab.ok(&["stop", "--hibernate", id]);
    lab.ok(&["start", id]);
    let mut shell = lab.console(id);
    assert_eq!(shell.sh("cat /mnt/f"), "kept");
    shell.sh("umount /mnt");
    lab.ok(&["volume", "detach", &first, "--timeout", "120"]);
    shell.sh(&format!("test ! -e /sys/block/{disk}"));
    // The slot and the name are free again, and what was written is there.
    attach(&first, "/dev/vdb");
    let disk = shell.sh(&find(&first));
    shell.sh(&format!("mount /dev/{disk} /mnt"));
    assert_eq!(shell.sh("cat /mnt/f"), "kept");
    lab.ok(&["volume", "detach", "--force", &second, "--timeout", "120"]);
    shell.sh(&format!("while test -e /sys/block/{other}; do sleep 0.2; done"));
    lab.ok(&["terminate", id]);
    lab.ok(&["volume", "delete", &first, &second]);
}
