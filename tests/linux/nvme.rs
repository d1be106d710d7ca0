//! Disks that are NVMe controllers, under a stock kernel's driver.

use super::linux::Lab;
use super::scenarios::rebooted;

/// The guest finds an EBS volume, its data survives reboots and hibernation, and it grows.
pub fn a_root_is_as_on_ec2(lab: &Lab) {
    let id = lab.launch(1, &["-c", "2", "-m", "768M"]).remove(0);
    let one = std::slice::from_ref(&id);
    lab.wait(one, "login");
    let mut shell = lab.shell(&id);
    assert_eq!(shell.sh("findmnt -no SOURCE /"), "/dev/nvme0n1");
    assert_eq!(shell.sh("xargs < /sys/class/nvme/nvme0/model"), "Amazon Elastic Block Store");
    let volume = lab.describe(&id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].clone();
    let volume = volume.as_str().unwrap().to_owned();
    assert_eq!(shell.sh("xargs < /sys/class/nvme/nvme0/serial"), volume.replace('-', ""));
    assert_eq!(shell.sh("ls /sys/block/nvme0n1/mq | wc -l"), "2", "a queue for each vCPU");
    shell.sh("dd if=/dev/urandom of=/root/data bs=1M count=64 conv=fsync 2>/dev/null");
    let digest = shell.sh("sha256sum < /root/data");
    shell.sh("fstrim /");
    let mut shell = rebooted(lab, &id, shell);
    assert_eq!(shell.sh("sha256sum < /root/data"), digest);
    lab.ok(&["volume", "resize", &volume, "--size", "3"]);
    assert_eq!(shell.sh("cat /sys/block/nvme0n1/size"), (3u64 << 21).to_string());
    drop(shell);
    lab.ok(&["stop", "--hibernate", &id]);
    lab.ok(&["start", &id]);
    let mut shell = lab.console(&id);
    shell.send("\n");
    shell.sh("echo 3 > /proc/sys/vm/drop_caches");
    assert_eq!(shell.sh("sha256sum < /root/data"), digest);
    let troubles = "dmesg | grep -E 'nvme.*(timeout|error|abort|reset)' | wc -l";
    assert_eq!(shell.sh(troubles), "0");
    drop(shell);
    lab.ok(&["terminate", &id]);
}
