//! Images that boot as EC2's do: what is on their own disk boots, and what is put there boots next.

use super::linux::{Lab, Shell};
use std::collections::BTreeSet;

/// Two instances of one image at once; then, in one of them, a second kernel by `dpkg -i` alone, and a reboot into it.
/// `menu` is the file that the kernel's package has to have changed.
pub fn boots_twice_and_then_another_kernel(lab: &Lab, image: &str, menu: &str) {
    let ids = lab.launch_of(image, 2, &["-c", "1", "-m", "512M"]);
    lab.wait(&ids, "login");
    let names: BTreeSet<String> =
        ids.iter().map(|id| lab.shell(id).sh("cat /proc/sys/kernel/hostname")).collect();
    assert_eq!(names.len(), 2, "each knows who it is: {names:?}");
    lab.ok(&["terminate", &ids[1]]);
    let id = &ids[0];
    let mut shell = lab.shell(id);
    let before = shell.sh("uname -r");
    let after = second_kernel(&mut shell);
    assert_ne!(before, after);
    shell.sh("dpkg -i /root/linux-image-*.deb >/root/dpkg.log 2>&1 || { cat /root/dpkg.log; false; }");
    shell.sh(&format!("grep -q {after} {menu}"));
    let pid = lab.pid(id);
    let mut shell = reboot(lab, id, shell);
    assert_eq!(lab.pid(id), pid, "a reboot stays in its process");
    assert_eq!(shell.sh("uname -r"), after);
    lab.ok(&["terminate", id]);
}

/// To the login prompt, and there once more after a reboot inside.
pub fn boots_and_reboots(lab: &Lab, image: &str) {
    let id = lab.launch_of(image, 1, &["-c", "1", "-m", "512M"]).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    let boot = shell.sh("cat /proc/sys/kernel/random/boot_id");
    let mut shell = reboot(lab, &id, shell);
    assert_ne!(shell.sh("cat /proc/sys/kernel/random/boot_id"), boot);
    lab.ok(&["terminate", &id]);
}

/// The version of the kernel whose package lies in the image.
fn second_kernel(shell: &mut Shell) -> String {
    shell.sh("dpkg-deb -f /root/linux-image-*.deb Package | sed s/linux-image-//")
}

/// Reboot inside; a shell after it.
fn reboot(lab: &Lab, id: &str, mut shell: Shell) -> Shell {
    shell.send("exec reboot\n");
    shell.expect("reboot: Restarting system");
    shell.expect("login: ");
    drop(shell);
    lab.shell(id)
}
