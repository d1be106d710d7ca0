//! Images that boot as EC2's do: what is on their own disk boots, and what is put there boots next.
#![allow(dead_code)] // each of the two test binaries that share this uses its part

use super::linux::programs::administrators;
use super::linux::{Lab, Shell, images};
use super::scenarios::{over_the_transport_asked_for, rebooted};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Two instances of one image at once, with two CPUs each; then, in one of them, a second kernel by
/// `dpkg -i` alone, and a reboot into it. `menu` is the file that the kernel's package has to have
/// changed. In the box, where a boot takes minutes, it is one instance with one CPU only, unless
/// SPORE_TEST_MORE is set.
pub fn boots_twice_and_then_another_kernel(lab: &Lab, image: &str, menu: &str) {
    let set = |name: &str| std::env::var_os(name).is_some();
    let count = if set("SPORE_BOX") && !set("SPORE_TEST_MORE") { 1 } else { 2 };
    let cpus = count.to_string();
    let ids = lab.launch_of(image, count, &["-c", &cpus, "-m", "512M"]);
    lab.wait(&ids, "login");
    let name = |id: &String| {
        let mut shell = lab.shell(id);
        over_the_transport_asked_for(lab, &mut shell);
        assert_eq!(shell.sh("nproc"), cpus);
        let name = shell.sh("cat /proc/sys/kernel/hostname");
        shell.log_out();
        name
    };
    let names: BTreeSet<String> = ids.iter().map(name).collect();
    assert_eq!(names.len(), count, "each knows who it is: {names:?}");
    let (id, others) = ids.split_first().unwrap();
    others.iter().for_each(|other| drop(lab.ok(&["terminate", other])));
    let mut shell = lab.shell(id);
    let before = shell.sh("uname -r");
    let after = shell.sh("dpkg-deb -f /root/linux-image-*.deb Package | sed s/linux-image-//");
    assert_ne!(before, after);
    shell.sh("dpkg -i /root/linux-image-*.deb >/root/log 2>&1 || { cat /root/log; false; }");
    shell.sh(&format!("grep -q {after} {menu}"));
    let mut shell = rebooted(lab, id, shell);
    assert_eq!(shell.sh("uname -r"), after);
    lab.ok(&["terminate", id]);
}

/// GRUB's menu, its command line, and a kernel command line of one's own, all by `spore console`.
pub fn grub_takes_commands(lab: &Lab, image: &str) {
    let id = lab.launch_of(image, 1, &["-c", "1", "-m", "512M"]).remove(0);
    let mut grub = lab.console(&id);
    grub.insist("c", "grub> ");
    // What has been typed too often goes (^U); what is echoed is not what is looked for.
    grub.send("\x15echo m'e'n'u'\n");
    grub.expect("menu");
    grub.expect("grub> ");
    grub.send("linux /vmlinuz root=LABEL=root ro console=ttyS0 quiet of.my=own\n");
    grub.expect("grub> ");
    grub.send("initrd /initrd.img\n");
    grub.expect("grub> ");
    grub.send("boot\n");
    grub.expect("login: ");
    drop(grub);
    let mut shell = lab.shell(&id);
    assert!(shell.sh("cat /proc/cmdline").contains("of.my=own"));
    lab.ok(&["terminate", &id]);
}

/// An image for i386 by this kernel and initial ramdisk, whatever is on its disk.
pub fn boots_directly(lab: &Lab, image: &str, kernel: &str, initrd: &str) {
    let [kernel, initrd] =
        [kernel, initrd].map(|name| images().join(name).to_str().unwrap().to_owned());
    let cmdline = "console=ttyS0 quiet root=LABEL=root ro";
    let boot = ["--kernel", &kernel, "--initrd", &initrd, "--cmdline", cmdline];
    let id = lab.launch_of(image, 1, &[&boot[..], &["-c", "1", "-m", "512M"]].concat()).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    assert_eq!(shell.sh("uname -m"), "i686");
    assert!(shell.sh("cat /proc/cmdline").starts_with(cmdline));
    lab.ok(&["terminate", &id]);
}

/// Run in a guest that has a kernel as /root/vmlinux: a package of it under another version, which
/// its `uname -r` tells, installed as Debian's kernels are: the menu is written by the package's
/// script.
const INSTALL: &str = r#"#!/bin/sh
set -eu
[ -e /root/release ] || uname -r >/root/release
old=$(cat /root/release) new=${old%?}$1 version=9.$1.0-lab
rm -rf /root/k
mkdir -p /root/k/DEBIAN /root/k/boot
sed "s/$old/$new/g" /root/vmlinux >/root/k/boot/vmlinuz-$version
printf '%s\n' "Package: linux-image-$version" 'Version: 1' 'Architecture: amd64' 'Maintainer: none <none@localhost>' \
	'Description: kernel' >/root/k/DEBIAN/control
printf '#!/bin/sh\nexec run-parts --arg=%s --arg=/boot/vmlinuz-%s /etc/kernel/postinst.d\n' $version $version \
	>/root/k/DEBIAN/postinst
chmod 755 /root/k/DEBIAN/postinst
dpkg-deb -Znone -b /root/k /root/k.deb
dpkg -i /root/k.deb
grep -q "/boot/vmlinuz-$version" /boot/grub/menu.lst
sync
"#;

/// A root with PV-GRUB's menu boots the kernel that was installed into it, and after the next
/// installation the next. `kernel` is one that boots here; it is what is installed, under other
/// versions.
pub fn the_root_volumes_own_kernel_boots(lab: &Lab, kernel: &str) {
    let disk = lab.home().join("pv-lab.img");
    let given = images().join(kernel);
    add_to_root(&images().join("debian-pv.img"), &disk, &given);
    let words = ["--kernel", given.to_str().unwrap()];
    lab.ok(&[&["image", "import", disk.to_str().unwrap(), "--name", "pv-lab"], &words[..]].concat());
    std::fs::remove_file(&disk).unwrap();

    let id = lab.launch_of("pv-lab", 1, &["-c", "1", "-m", "512M"]).remove(0);
    let one = std::slice::from_ref(&id);
    lab.wait(one, "login");
    let mut shell = lab.shell(&id);
    for line in INSTALL.lines() {
        shell.sh(&format!("printf '%s\\n' '{}' >>/root/install", line.replace('\'', r"'\''")));
    }
    // The lab kernel has no modules, and boots without an initial ramdisk: nothing is to make one.
    shell.sh("rm /etc/kernel/postinst.d/initramfs-tools");
    let first = install(&mut shell, 4);
    shell.log_out();
    lab.ok(&["stop", &id]);
    lab.ok(&["modify", &id, "--kernel", "aki-pv-grub-hd0"]);
    lab.ok(&["start", &id]);
    lab.wait(one, "login");
    let mut shell = lab.shell(&id);
    assert_eq!(shell.sh("uname -r"), first);
    let second = install(&mut shell, 5);
    assert_ne!(first, second);
    let mut shell = rebooted(lab, &id, shell);
    assert_eq!(shell.sh("uname -r"), second);
    lab.ok(&["terminate", &id]);
}

/// Install a kernel whose version ends with `digit`; what its `uname -r` will be.
fn install(shell: &mut Shell, digit: u32) -> String {
    shell.sh(&format!("sh /root/install {digit} >/root/log 2>&1 || {{ cat /root/log; false; }}"));
    shell.sh(&format!("old=$(uname -r); echo ${{old%?}}{digit}"))
}

/// A copy of the disk with a file more, /root/vmlinux.
fn add_to_root(from: &Path, to: &Path, file: &Path) {
    let copied =
        Command::new("cp").args(["--sparse=always", "-L"]).args([from, to]).status().unwrap();
    assert!(copied.success());
    let commands = to.with_extension("debugfs");
    std::fs::write(&commands, format!("cd /root\nwrite {} vmlinux\n", file.display())).unwrap();
    let mut debugfs = administrators("debugfs");
    let output = debugfs.arg("-w").arg("-f").args([&commands, to]).output().unwrap();
    std::fs::remove_file(&commands).unwrap();
    assert!(output.status.success(), "{output:?}");
}
