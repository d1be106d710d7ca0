//! Debian's stock kernel and userland on a KVM that can run them: hardware, or the box.
//!
//! Ignored by a plain `cargo test`; `scripts/test` prepares the images and runs them, one at a
//! time.

#[path = "linux/booting.rs"]
mod booting;
#[path = "linux/cloud.rs"]
mod cloud;
#[path = "linux/hibernation.rs"]
mod hibernation;
#[path = "linux/imaging.rs"]
mod imaging;
#[path = "linux/limits.rs"]
mod limits;
mod linux;
#[path = "linux/nvme.rs"]
mod nvme;
#[path = "linux/scenarios.rs"]
mod scenarios;
#[path = "linux/uefi.rs"]
mod uefi;
#[path = "linux/volumes.rs"]
mod volumes;

use linux::Lab;

fn stock() -> Lab {
    Lab::new("vmlinuz", Some("initrd.img"), &[])
}

fn stock_over_mmio() -> Lab {
    Lab::new("vmlinuz", Some("initrd.img"), &["--transport", "mmio"])
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn three_clones() {
    scenarios::clones_and_how_they_end(&stock());
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn life() {
    scenarios::long_life(&stock());
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn limited_by_a_control_group() {
    limits::a_busy_guest_is_held_back(&stock());
}

/// The same over virtio-mmio.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_life_over_mmio() {
    scenarios::long_life(&stock_over_mmio());
}

/// Disks that are NVMe controllers, as EC2's.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_nvme() {
    nvme::a_root_is_as_on_ec2(&Lab::new("vmlinuz", Some("initrd.img"), &["--disk-bus", "nvme"]));
}

/// ACPI hot-plug, which the lab kernel has no driver for.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn volumes_come_and_go() {
    volumes::volumes_come_and_go(&stock(), "debian");
}

/// SeaBIOS, a master boot record, GRUB and its menu.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test"]
fn hvm() {
    let lab = stock();
    lab.have("debian-hvm", &[]);
    booting::boots_twice_and_then_another_kernel(&lab, "debian-hvm", "/boot/grub/grub.cfg");
}

/// The same from a GUID partition table, over virtio-mmio: SeaBIOS finds the disk there, too.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_hvm_gpt() {
    let lab = stock_over_mmio();
    lab.have("debian-hvm-gpt", &[]);
    booting::boots_twice_and_then_another_kernel(&lab, "debian-hvm-gpt", "/boot/grub/grub.cfg");
}

/// GRUB's menu is there for whoever is on the console.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_grub_menu() {
    let lab = stock();
    lab.have("debian-hvm", &[]);
    booting::grub_takes_commands(&lab, "debian-hvm");
}

/// menu.lst on an unpartitioned root.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_pv_grub() {
    let lab = stock();
    lab.have("debian-pv", &["--kernel", "aki-pv-grub-hd0"]);
    booting::boots_twice_and_then_another_kernel(&lab, "debian-pv", "/boot/grub/menu.lst");
}

/// The same for i386.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_i386() {
    let lab = stock();
    lab.have("debian-i386", &["--kernel", "aki-pv-grub-hd0"]);
    booting::boots_twice_and_then_another_kernel(&lab, "debian-i386", "/boot/grub/menu.lst");
}

/// That image, whose kernel has no 64-bit entry, by direct boot.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_i386_direct() {
    let lab = stock();
    lab.have("debian-i386", &["--kernel", "aki-pv-grub-hd0"]);
    booting::boots_directly(&lab, "debian-i386", "vmlinuz-i386", "initrd-i386.img");
}

#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_images() {
    imaging::images_of_a_writing_guest(&stock());
}

/// SeaBIOS, PCI and GRUB before it; the generation ID is in the last page below 4 GiB.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_hvm_hibernated() {
    let lab = stock();
    lab.have("debian-hvm", &[]);
    hibernation::fio_verifies_across_cycles(&lab, "debian-hvm", (512 << 20) - 4096, 3);
}

/// The same of a kernel that is entered directly, with the ID beside its tables.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_hibernated() {
    hibernation::fio_verifies_across_cycles(&stock(), "debian", 0xe_f000, 3);
}

/// OVMF, an EFI system partition, GRUB; variables that outlive a reboot, a stop and the instance.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_uefi() {
    let lab = stock();
    lab.have("debian-uefi", &[]);
    uefi::variables_are_kept(&lab, "debian-uefi");
}

/// Debian 13 as clouds run it, by its own boot record, kernel and initial ramdisk: on a network,
/// and without one.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_cloud_hvm() {
    let lab = stock();
    lab.have("debian-13-cloud", &[]);
    cloud::cloud_init_finds_ec2(&lab, "debian-13-cloud");
    cloud::is_reached_without_a_network(&lab, "debian-13-cloud");
}

/// Debian 12 as clouds run it, entered directly: the kernel is the one that is in it, too.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_cloud_direct() {
    let lab = stock();
    lab.have("debian-cloud", &[]);
    let [kernel, initrd] = ["vmlinuz", "initrd.img"].map(|name| linux::images().join(name));
    let boot = ["--kernel", kernel.to_str().unwrap(), "--initrd", initrd.to_str().unwrap()];
    let lab = Lab::new(
        "vmlinuz",
        Some("initrd.img"),
        &[&boot[..], &["--cmdline", "console=ttyS0 quiet root=LABEL=root ro"]].concat(),
    );
    cloud::cloud_init_finds_ec2(&lab, "debian-cloud");
}

/// Clones of Debian 13's.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_cloud_clones() {
    let lab = stock();
    lab.have("debian-13-cloud", &[]);
    cloud::clones_are_machines_of_their_own(&lab, "debian-13-cloud", 4);
}

/// An image of one of them that has forgotten itself, without cloud-init and with it.
#[test]
#[ignore = "needs Debian's images and a KVM that runs stock kernels: scripts/test --box-all"]
fn more_cloud_generalized() {
    let lab = stock();
    lab.have("debian-13-cloud", &[]);
    for network in ["none", "default"] {
        cloud::an_image_is_of_no_machine(&lab, "debian-13-cloud", network);
    }
}
