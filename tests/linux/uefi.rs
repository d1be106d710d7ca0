//! Images that UEFI firmware boots.

use super::linux::{Lab, Shell};
use super::scenarios::rebooted;
use serde_json::Value;

/// A variable as efivarfs has it, of a vendor of the test's own. Its first four bytes are its
/// attributes: non-volatile, and there for boot services and at run time.
const VARIABLE: &str = "/sys/firmware/efi/efivars/Kept-12345678-1234-1234-1234-123456789abc";

/// An image that no BIOS boots is known as one by its disk, and boots by UEFI. What its guest sets
/// there is there after a reboot, after stop and start, and in instances of an image made of it.
/// The guest powers itself off.
pub fn variables_are_kept(lab: &Lab, image: &str) {
    let shown: Value =
        serde_json::from_str(&lab.ok(&["image", "show", image, "-o", "json"])).unwrap();
    assert_eq!(shown["Images"][0]["BootMode"], "uefi");
    let id = lab.launch_of(image, 1, &["-c", "1", "-m", "512M"]).remove(0);
    let one = std::slice::from_ref(&id);
    assert_eq!(lab.describe(&id)["CurrentInstanceBootMode"], "uefi");
    lab.wait(one, "login");
    let mut shell = lab.shell(&id);
    assert_eq!(shell.sh("ls -d /sys/firmware/efi"), "/sys/firmware/efi");
    assert_eq!(shell.sh("cat /sys/class/dmi/id/sys_vendor | wc -l"), "1", "there is SMBIOS");
    shell.sh(&format!("printf '\\7\\0\\0\\0spore' >{VARIABLE}"));
    assert_eq!(kept(&mut shell), "spore");
    let mut shell = rebooted(lab, &id, shell);
    assert_eq!(kept(&mut shell), "spore", "after a reboot");
    shell.sh("sync");
    shell.last_words("exec poweroff");
    lab.wait(one, "stopped");
    assert!(lab.reason(&id).contains("Client.InstanceInitiatedShutdown"), "{}", lab.reason(&id));

    lab.ok(&["image", "create", &id, "--name", "uefi-kept"]);
    lab.ok(&["start", &id]);
    let clone = lab.launch_of("uefi-kept", 1, &["-c", "1", "-m", "512M"]).remove(0);
    for id in [&id, &clone] {
        lab.wait(std::slice::from_ref(id), "login");
        let mut shell = lab.shell(id);
        assert_eq!(kept(&mut shell), "spore", "{id}");
        drop(shell);
        lab.ok(&["terminate", id]);
    }
    lab.ok(&["image", "deregister", "uefi-kept"]);
}

fn kept(shell: &mut Shell) -> String {
    shell.sh(&format!("cat {VARIABLE} | tail -c +5"))
}
