//! Debian's userland on the lab kernel, at native speed on a software KVM.
//!
//! Ignored by a plain `cargo test`; `scripts/test` runs them where it has a lab kernel.

#[path = "linux/booting.rs"]
mod booting;
#[path = "linux/cloud.rs"]
mod cloud;
#[path = "linux/direct_efi.rs"]
mod direct_efi;
#[path = "linux/hibernation.rs"]
mod hibernation;
#[path = "linux/imaging.rs"]
mod imaging;
mod linux;
#[path = "linux/network.rs"]
mod network;
#[path = "linux/packer.rs"]
mod packer;
#[path = "linux/scenarios.rs"]
mod scenarios;
#[path = "linux/shares.rs"]
mod shares;
#[path = "linux/volumes.rs"]
mod volumes;
#[path = "linux/vpc.rs"]
mod vpc;

use linux::Lab;

fn lab() -> Lab {
    Lab::new("vmlinux-lab", None, &[])
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn three_clones() {
    scenarios::clones_differ_only_where_they_should(&lab());
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn kill_9() {
    scenarios::fsynced_bytes_survive_kill_9(&lab());
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn fio() {
    scenarios::fio_verifies(&lab(), 64);
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn life() {
    scenarios::life_of_one_instance(&lab());
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn memory_above_4_gib() {
    scenarios::five_gib(&lab());
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn panic() {
    scenarios::guest_failures_are_told(&lab());
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn reboot() {
    scenarios::reboots_inside(&lab());
}

/// Ten Debian instances at once reach their login prompts.
#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn ten_at_once() {
    let lab = lab();
    let ids = lab.launch(10, &["-c", "1", "-m", "512M"]);
    lab.wait(&ids, "login");
    for id in &ids {
        assert_eq!(lab.state(id), "running");
    }
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn images() {
    imaging::images_of_a_writing_guest(&lab());
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn pv_grub() {
    booting::the_root_volumes_own_kernel_boots(&lab(), "vmlinux-lab");
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn direct_efi() {
    direct_efi::an_image_and_an_entry_boot(&lab(), "vmlinux-lab");
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn hibernated() {
    hibernation::a_guest_at_work_goes_on(&lab(), 3);
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn by_a_tap() {
    network::a_guest_talks_by_a_tap(&lab());
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn on_a_network() {
    vpc::clones_talk_on_a_network(&lab());
}

/// Debian 12 and 13 as clouds run them, on the lab kernel.
fn cloud_lab() -> Lab {
    let lab = lab();
    let kernel = linux::images().join("vmlinux-lab");
    // Its disk has partitions, and this kernel no initial ramdisk that would look for a label.
    let cmdline = "console=ttyS0 quiet root=/dev/vda1 rw";
    let boot = ["--kernel", kernel.to_str().unwrap(), "--cmdline", cmdline];
    for image in ["debian-cloud", "debian-13-cloud"] {
        lab.have(image, &boot);
    }
    lab
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn cloud_12() {
    cloud::cloud_init_finds_ec2(&cloud_lab(), "debian-cloud");
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn cloud_13() {
    cloud::cloud_init_finds_ec2(&cloud_lab(), "debian-13-cloud");
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn cloud_clones() {
    let lab = cloud_lab();
    for image in ["debian-cloud", "debian-13-cloud"] {
        cloud::clones_are_machines_of_their_own(&lab, image, 4);
    }
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn cloud_without_network() {
    cloud::is_reached_without_a_network(&cloud_lab(), "debian-13-cloud");
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn cloud_by_volume() {
    let lab = cloud_lab();
    for image in ["debian-cloud", "debian-13-cloud"] {
        cloud::is_configured_by_a_volume(&lab, image);
    }
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn cloud_command() {
    let lab = cloud_lab();
    cloud::runs_one_command(&lab, "debian-cloud", "default");
    cloud::runs_one_command(&lab, "debian-13-cloud", "none");
    cloud::ends_one_command(&lab, "debian-13-cloud", "none");
}

#[test]
#[ignore = "needs the lab kernel: scripts/test --box-all"]
fn more_cloud_by_packer() {
    packer::builds_an_image(&cloud_lab(), "debian-13-cloud");
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn shares() {
    shares::directories_are_shared(&lab());
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn cloud_share() {
    shares::a_command_finds_what_is_shared(&cloud_lab(), "debian-13-cloud");
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn by_several_queues() {
    network::a_guest_has_several_queues(&lab());
}

#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn a_volume_grows() {
    volumes::a_volume_grows_under_its_guest(&lab());
}

/// The same over virtio-mmio.
#[test]
#[ignore = "needs the lab kernel: scripts/test"]
fn over_mmio() {
    let lab = Lab::new("vmlinux-lab", None, &["--transport", "mmio"]);
    scenarios::fio_verifies(&lab, 64);
    scenarios::reboots_inside(&lab);
    hibernation::a_guest_at_work_goes_on(&lab, 2);
    volumes::a_volume_grows_under_its_guest(&lab);
    network::a_guest_talks_by_a_tap(&lab);
}
