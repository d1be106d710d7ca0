//! PV-GRUB from the outside: root volumes made by mke2fs, on disks of each kind, down to the guest
//! that boots.

mod common;

use common::programs::administrators;
use common::skip::skip;
use common::{Store, efi, has_kvm, volumes};
use std::path::{Path, PathBuf};
use std::time::Instant;

const MIB: usize = 1 << 20;

/// A file system of 8 MiB with what `fill` puts into a directory.
fn ext4(store: &Store, fill: impl Fn(&Path)) -> Vec<u8> {
    let dir = tempfile::tempdir_in(store.home()).unwrap();
    let (tree, image) = (dir.path().join("tree"), dir.path().join("image"));
    std::fs::create_dir_all(tree.join("boot/grub")).unwrap();
    fill(&tree);
    let mut make = administrators("mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-b", "1024", "-d"]).args([&tree, &image]).arg("8M");
    let made = make.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(&image).unwrap()
}

/// The demo guest as the kernel of two entries. Its own sector is at the end of the disk, behind
/// the file system.
fn root(store: &Store) -> Vec<u8> {
    let mut root = ext4(store, |tree| {
        let menu = "default 0\ntitle first\nroot (hd0,0)\nkernel /boot/demo root=/dev/xvda1 which=first\n\
                    title second\nkernel /boot/demo root=/dev/xvda1 demo.mode=panic\n";
        std::fs::write(tree.join("boot/grub/menu.lst"), menu).unwrap();
        std::fs::write(tree.join("boot/demo"), sporevm::demo::KERNEL).unwrap();
    });
    root.resize(root.len() + MIB, 0);
    root
}

/// A disk with this one partition, by a master boot record or a GUID partition table.
fn partitioned(content: &[u8], gpt: bool) -> Vec<u8> {
    let mut disk = vec![0; MIB];
    let (first, sectors) = ((MIB / 512) as u32, (content.len() / 512) as u32);
    disk[450] = if gpt { 0xee } else { 0x83 };
    disk[454..458].copy_from_slice(&first.to_le_bytes());
    disk[458..462].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    if gpt {
        disk[512..520].copy_from_slice(b"EFI PART");
        (disk[584], disk[592], disk[596]) = (2, 128, 128);
        disk[1024..1056].fill(1);
        disk[1056..1064].copy_from_slice(&u64::from(first).to_le_bytes());
        disk[1064..1072].copy_from_slice(&u64::from(first + sectors - 1).to_le_bytes());
    }
    disk.extend(content);
    disk
}

fn import(store: &Store, name: &str, disk: &[u8], kernel: &str) {
    let path: PathBuf = store.home().join(name);
    std::fs::write(&path, disk).unwrap();
    store.ok(&[
        "image",
        "import",
        path.to_str().unwrap(),
        "--name",
        name,
        "--kernel",
        kernel,
        "--transport",
        "mmio",
    ]);
    std::fs::remove_file(path).unwrap();
}

/// The line that a command fails with.
fn fails(store: &Store, args: &[&str]) -> String {
    let output = store.spore(args);
    assert!(!output.status.success(), "spore {args:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// The menu is read at every start from the instance's own volume: what changed in its overlay
/// counts, and nobody else's boot changes.
#[test]
fn the_menu_of_the_own_volume_boots_on_disks_of_each_kind() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let root = root(&store);
    for (name, disk, kernel) in [
        ("undivided", root.clone(), "aki-pv-grub-hd0"),
        ("with-mbr", partitioned(&root, false), "aki-pv-grub-hd00"),
        ("with-gpt", partitioned(&root, true), "pv-grub-hd00"),
    ] {
        import(&store, name, &disk, kernel);
        let run = |more: &[&str]| {
            let args = [&["run", name, "-q", "-m", "64M", "--append", "extra=1"], more].concat();
            let id = store.ok(&args).trim().to_owned();
            store.wait(&id, "stopped");
            id
        };
        let id = run(&[]);
        assert!(store.logs(&id).contains("spore demo:"), "{}", store.logs(&id));
        let instance = store.describe(&id);
        assert_eq!(instance["VirtualizationType"], "paravirtual");
        assert_eq!(instance["Spore"]["BootEntry"], "first");
        let line = instance["Spore"]["CommandLine"].as_str().unwrap();
        let device = if name == "undivided" { "/dev/vda" } else { "/dev/vda1" };
        assert!(line.starts_with(&format!("root={device} which=first console=ttyS0")), "{line}");
        assert!(line.ends_with("extra=1"), "{line}");

        // In this volume, and no other, the other entry becomes the default.
        let menu = b"default 0\ntitle first";
        let at = disk.windows(menu.len()).position(|bytes| bytes == menu).unwrap();
        let sector = at - at % 512;
        let mut bytes = disk[sector..sector + 512].to_vec();
        bytes[at - sector + b"default ".len()] = b'1';
        let volume = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].as_str().unwrap();
        volumes::write(&store, volume, sector as u64, &bytes);
        store.ok(&["start", &id]);
        store.wait(&id, "stopped");
        assert_eq!(store.describe(&id)["Spore"]["BootEntry"], "second");
        assert_eq!(store.describe(&run(&[]))["Spore"]["BootEntry"], "first");

        // Asked for, an entry boots this time.
        store.ok(&["start", &id, "--boot-entry", "first"]);
        store.wait(&id, "stopped");
        assert_eq!(store.describe(&id)["Spore"]["BootEntry"], "first");
        let why = fails(&store, &["start", &id, "--boot-entry", "third"]);
        assert!(why.contains("no entry 'third'; it has 0 'first', 1 'second'"), "{why}");
    }
}

/// A disk with an EFI system partition alone: an image, an entry, and systemd-boot's configuration.
fn efi_disk(store: &Store, configuration: &str) -> PathBuf {
    let (partition, disk) = (store.home().join("esp"), store.home().join("efi.img"));
    let kernel = sporevm::demo::KERNEL;
    let image = efi::program(&[
        (".osrel", b"PRETTY_NAME=\"The image\"\nID=demo\nVERSION_ID=2\n"),
        (".cmdline", b"root=PARTUUID=00000000-0000-4000-8000-000000000001 which=image"),
        (".linux", kernel),
    ]);
    let entry = b"title The entry\nlinux /demo/linux\noptions which=entry\n";
    efi::system(
        &partition,
        4,
        &[
            ("EFI/Linux/demo-2+3.efi", &image),
            ("demo/linux", kernel),
            ("loader/entries/entry.conf", entry),
            ("loader/loader.conf", configuration.as_bytes()),
        ],
    );
    let offsets = efi::divided(&disk, &[(efi::ESP, 4)]);
    efi::put(&disk, offsets[0], &partition);
    disk
}

/// What systemd-boot would offer boots without it, and without firmware: an image and an entry.
#[test]
fn what_an_efi_system_partition_has_boots_without_firmware() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let disk = efi_disk(&store, "timeout 3\ndefault demo-*\n");
    store.ok(&["image", "import", disk.to_str().unwrap(), "--name", "efi"]);
    let image: serde_json::Value =
        serde_json::from_str(&store.ok(&["image", "show", "efi", "-o", "json"])).unwrap();
    assert_eq!(image["Images"][0]["BootMode"], "uefi", "{image}");
    let entries = store.ok(&["image", "boot-entries", "efi"]);
    assert!(entries.contains("*  0      The image") && entries.contains("The entry"), "{entries}");

    let run = ["run", "efi", "-q", "-m", "64M", "--kernel", "aki-pv-grub-hd00"];
    let output = store.spore(&[&run[..], &["--transport", "mmio"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("guests of 'efi' find no EFI"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    store.wait(&id, "stopped");
    assert!(store.logs(&id).contains("spore demo:"), "{}", store.logs(&id));
    let instance = store.describe(&id);
    assert_eq!(instance["Spore"]["BootEntry"], "The image");
    assert!(instance["CurrentInstanceBootMode"].is_null(), "{instance}");
    let line = instance["Spore"]["CommandLine"].as_str().unwrap();
    assert!(line.starts_with("root=/dev/vda1 which=image console=ttyS0"), "{line}");

    store.ok(&["start", &id, "--boot-entry", "entry.conf"]);
    store.wait(&id, "stopped");
    let instance = store.describe(&id);
    assert_eq!(instance["Spore"]["BootEntry"], "The entry");
    assert!(instance["Spore"]["CommandLine"].as_str().unwrap().contains("which=entry"));
}

/// A host without UEFI firmware boots such an image directly, and says so; but not where UEFI was
/// asked for.
#[test]
fn without_uefi_firmware_an_image_boots_directly() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let disk = efi_disk(&store, "");
    store.ok(&["image", "import", disk.to_str().unwrap(), "--name", "efi", "--transport", "mmio"]);
    // Everywhere that it is looked for there is nothing, as these see it.
    let hidden = "for dir in /usr/share/OVMF /usr/share/edk2 /usr/share/qemu/firmware /etc/qemu/firmware \
                  /usr/local/share/qemu/firmware; do test ! -d $dir || mount -t tmpfs none $dir || exit 99; done; exec \"$@\"";
    let without = |args: &[&str]| {
        let mut command = administrators("unshare");
        command.args([
            "--user",
            "--map-current-user",
            "--keep-caps",
            "--mount",
            "sh",
            "-c",
            hidden,
        ]);
        command.arg("sh").arg(store.program()).args(args).env("SPORE_HOME", store.home());
        command.env("XDG_CONFIG_HOME", store.home()).output().unwrap()
    };
    let output = without(&["run", "efi", "-q", "-m", "64M"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(99) || said.contains("unshare:") {
        return skip("no user namespaces here");
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains("there is no UEFI firmware here") && said.contains("ovmf"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    store.wait(&id, "stopped");
    let instance = store.describe(&id);
    assert_eq!(instance["Spore"]["BootEntry"], "The image");
    assert_eq!(instance["KernelId"], "aki-pv-grub-hd00");
    let output =
        without(&["run", "efi", "-q", "-m", "64M", "--boot-mode", "uefi", "--transport", "pci"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("there is no UEFI firmware") && said.contains("aki-pv-grub-hd00"),
        "{said}"
    );
}

/// A reset of the machine reads the menu again, from what is on the disk at that moment.
#[test]
fn a_reset_reads_the_menu_again() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    import(&store, "resets", &root(&store), "aki-pv-grub-hd0");
    let id = store.ok(&["run", "resets", "-q", "-m", "64M", "--append", "demo.mode=echo"]);
    let id = id.trim();
    let pid = store.pid(id);
    store.ok(&["reboot", "--force", id]);
    reset_into(&store, id, "boots entry 0 ");
    assert_eq!(store.pid(id), pid);
    assert_eq!(store.state(id).0, "running");
}

/// Each boot makes the next entry the default.
const LEGACY: &str = "default saved\ntitle first\nkernel /boot/demo\nsavedefault 1\n\
              title second\nkernel /boot/demo\nsavedefault 2\n\
              title third\nkernel /boot/demo\nsavedefault\n";

/// As update-grub writes it for GRUB_DEFAULT=saved and GRUB_SAVEDEFAULT=true.
const MODERN: &str = "if [ -s $prefix/grubenv ]; then load_env; fi\n\
    if [ \"${next_entry}\" ] ; then set default=\"${next_entry}\"; set next_entry=; save_env next_entry; set boot_once=true\n\
    else set default=\"${saved_entry}\"; fi\n\
    function savedefault {\nif [ -z \"${boot_once}\" ]; then\nsaved_entry=\"${chosen}\"\nsave_env saved_entry\nfi\n}\n\
    menuentry 'first' --id one {\nsavedefault\nlinux /boot/demo\n}\n\
    submenu 'more' --id more {\nmenuentry 'second' --id two {\nsavedefault\nlinux /boot/demo\n}\n\
    menuentry 'third' {\nsavedefault\nlinux /boot/demo\n}\n}\n";

/// What GRUB would have written into the root volume is remembered with the instance, until the
/// guest writes there.
#[test]
fn what_the_menu_saves_counts_until_the_guest_says_otherwise() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let environment = |text: &str| {
        let text = format!("# GRUB Environment Block\n{text}");
        format!("{text}{}", "#".repeat(1024 - text.len()))
    };
    let cases = [
        ("legacy", "menu.lst", LEGACY, "default", "1\n#\n#\n".to_owned(), "0\n#\n#\n".to_owned()),
        (
            "modern",
            "grub.cfg",
            MODERN,
            "grubenv",
            environment("next_entry=more>two\n"),
            environment(""),
        ),
    ];
    for (name, menu, text, file, before, after) in cases {
        let mut root = ext4(&store, |tree| {
            std::fs::write(tree.join("boot/grub").join(menu), text).unwrap();
            std::fs::write(tree.join("boot/grub").join(file), &before).unwrap();
            std::fs::write(tree.join("boot/demo"), sporevm::demo::KERNEL).unwrap();
        });
        root.resize(root.len() + MIB, 0);
        import(&store, name, &root, "aki-pv-grub-hd0");
        let booted = |id: &str| {
            store.wait(id, "stopped");
            store.describe(id)["Spore"]["BootEntry"].as_str().unwrap().to_owned()
        };
        let id = store.ok(&["run", name, "-q", "-m", "64M"]).trim().to_owned();
        let mut boots = vec![booted(&id)];
        let mut start = |more: &[&str]| {
            store.ok(&[&["start", &id], more].concat());
            boots.push(booted(&id));
        };
        start(&[]);
        // Chosen by hand, an entry saves what it does when it boots by itself.
        start(&["--boot-entry", "third"]);
        start(&[]);
        // The guest writes: now that counts.
        let (at, sector) = (root.windows(before.len()).position(|b| b == before.as_bytes()), 512);
        let at = at.unwrap() / sector * sector;
        let mut bytes = root[at..at + 2 * sector].to_vec();
        bytes[..after.len()].copy_from_slice(after.as_bytes());
        let shown = store.describe(&id);
        let volume = shown["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].as_str().unwrap();
        volumes::write(&store, volume, at as u64, &bytes);
        start(&[]);
        start(&[]);
        let expected = match name {
            "legacy" => ["second", "third", "third", "third", "first", "second"],
            // A submenu does not see boot_once, which is not exported: GRUB, too, saves what was
            // for one boot.
            _ => {
                let second = "more > second";
                [second, second, "more > third", "more > third", "first", "first"]
            }
        };
        assert_eq!(boots, expected, "{name}");
        // It is the instance's, not the image's.
        let other = store.ok(&["run", name, "-q", "-m", "64M"]).trim().to_owned();
        assert_eq!(booted(&other), expected[0], "{name}");
    }
}

/// Each boot saves the next of three entries.
fn turns(store: &Store) -> Vec<u8> {
    let mut root = ext4(store, |tree| {
        let entry =
            |title: &str, next| format!("title {title}\nkernel /boot/demo\nsavedefault {next}\n");
        let menu = ["default saved\n".to_owned(), entry("a", 1), entry("b", 2), entry("c", 0)];
        std::fs::write(tree.join("boot/grub/menu.lst"), menu.concat()).unwrap();
        std::fs::write(tree.join("boot/grub/default"), "0\n#\n#\n").unwrap();
        std::fs::write(tree.join("boot/demo"), sporevm::demo::KERNEL).unwrap();
    });
    root.resize(root.len() + MIB, 0);
    root
}

/// It boots nothing as it goes on, and remembers what the menu saved.
#[test]
fn what_is_hibernated_reads_its_menu_at_the_next_reset() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    import(&store, "turns", &turns(&store), "aki-pv-grub-hd0");
    let run = ["run", "turns", "-q", "-m", "64M", "--append", "demo.mode=echo"];
    let id = store.ok(&run).trim().to_owned();
    for entry in [1, 2, 0] {
        store.wait_for_text(&id, "echo: ready");
        store.ok(&["stop", "--hibernate", &id]);
        assert!(store.state(&id).1.contains("UserInitiatedHibernate"), "{:?}", store.state(&id));
        store.ok(&["start", &id]);
        assert_eq!(store.describe(&id)["Spore"]["BootEntry"], "a", "it has booted nothing");
        store.ok(&["reboot", "--force", &id]);
        reset_into(&store, &id, &format!("boots entry {entry} "));
    }
}

/// The kernel that runs on needs nothing of its root volume that boots.
#[test]
fn what_is_hibernated_goes_on_though_nothing_boots_from_its_root() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    import(&store, "overwritten", &root(&store), "aki-pv-grub-hd0");
    let run = ["run", "overwritten", "-q", "-m", "64M", "--append", "demo.mode=write-until-killed"];
    let id = store.ok(&run).trim().to_owned();
    // Of which sector 2 was the superblock.
    store.wait_for_text(&id, "safe: 64 ");
    store.ok(&["stop", "--hibernate", &id]);
    let written = store.logs(&id).matches("safe:").count();
    store.ok(&["start", &id]);
    store.wait_for_text(&id, &format!("safe: {} ", written + 100));
    store.ok(&["stop", "--force", &id]);
    let why = fails(&store, &["start", &id]);
    assert!(why.contains("can't boot from its root volume"), "{why}");
}

/// At a reset, the VMM remembers; what it did not live to use is there for the next start.
#[test]
fn what_is_saved_at_a_reset_is_there_at_the_next_start() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    import(&store, "turns", &turns(&store), "aki-pv-grub-hd0");
    let id = store.ok(&["run", "turns", "-q", "-m", "64M", "--append", "demo.mode=echo"]);
    let id = id.trim();
    store.ok(&["reboot", "--force", id]);
    reset_into(&store, id, "boots entry 1 ");
    store.ok(&["stop", "--force", id]);
    store.ok(&["start", id]);
    assert_eq!(store.describe(id)["Spore"]["BootEntry"], "c");
}

/// Wait until its VMM says that a reset did this.
fn reset_into(store: &Store, id: &str, what: &str) {
    let deadline = Instant::now() + std::time::Duration::from_secs(100);
    while !store.vmm_logs(id).contains(what) {
        assert!(Instant::now() < deadline, "{}", store.vmm_logs(id));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn entries_are_listed_and_both_kernels_are_built_in() {
    let store = Store::new();
    import(&store, "listed", &root(&store), "aki-pv-grub-hd0");
    let text = store.ok(&["image", "boot-entries", "listed", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["Menu"], "/boot/grub/menu.lst on the disk");
    assert_eq!(json["BootEntries"][0]["Title"], "first");
    assert_eq!(json["BootEntries"][0]["Default"], true);
    assert_eq!(store.ok(&["image", "boot-entries", "listed", "-q"]), "0\n1\n");
    let kernels = store.ok(&["kernel", "ls", "-q"]);
    assert!(kernels.contains("aki-pv-grub-hd0\n") && kernels.contains("aki-pv-grub-hd00\n"));
    for (args, why) in [
        (&["run", "demo", "--boot-entry", "0"][..], "--boot-entry is for"),
        (&["run", "listed", "--cmdline", "x"], "--append adds to them"),
        (&["run", "listed", "--kernel", "pv-grub-hd00"], "aki-pv-grub-hd0 is for such a volume"),
        (&["kernel", "deregister", "aki-pv-grub-hd0"], "aki-pv-grub-hd0"),
    ] {
        let said = fails(&store, args);
        assert!(said.contains(why), "{args:?}: {said}");
    }
    assert_eq!(store.ok(&["ls", "-q"]), "", "what could not boot left nothing behind");
}

/// The disk with a further name for one of its directories, which no file system makes itself.
fn linked(store: &Store, disk: &[u8], directory: &str, name: &str) -> Vec<u8> {
    let path = store.home().join("linked");
    std::fs::write(&path, disk).unwrap();
    let command = format!("link {directory} {name}");
    let done = administrators("debugfs").args(["-w", "-R", &command]).arg(&path).output();
    assert!(done.unwrap().status.success());
    std::fs::read(&path).unwrap()
}

/// What an image's root may hold to make its reader suffer: each costs little and ends in one line.
#[test]
fn hostile_roots_end_in_one_line() {
    let store = Store::new();
    let sparse = |tree: &Path, name: &str, len: u64| {
        std::fs::File::create(tree.join(name)).unwrap().set_len(len).unwrap();
    };
    let menu = |tree: &Path, text: &str| {
        std::fs::write(tree.join("boot/grub/menu.lst"), text).unwrap();
    };
    let circle = ext4(&store, |tree| {
        std::os::unix::fs::symlink("menu.lst", tree.join("boot/grub/menu.lst")).unwrap();
    });
    let huge_menu = ext4(&store, |tree| sparse(tree, "boot/grub/menu.lst", 100 << 20));
    let huge_kernel = ext4(&store, |tree| {
        menu(tree, "title a\nkernel /boot/k\n");
        sparse(tree, "boot/k", 1 << 40);
    });
    let zeros = ext4(&store, |tree| {
        menu(tree, "title a\nkernel /boot/k\ninitrd /boot/i /boot/i /boot/i\n");
        sparse(tree, "boot/k", 100 << 20);
        sparse(tree, "boot/i", 100 << 20);
    });
    let deep = ext4(&store, |tree| {
        let script = "submenu x {\n".repeat(5000);
        std::fs::write(tree.join("boot/grub/grub.cfg"), script).unwrap();
    });
    let mut beyond = huge_kernel.clone();
    // Every pointer of its extents leads beyond the end: a header (magic 0xf30a), then entries of
    // 12 bytes.
    for at in (0..beyond.len() - 24).step_by(4) {
        if beyond[at..at + 2] == [0x0a, 0xf3] && beyond[at + 2] > 0 {
            beyond[at + 20..at + 24].copy_from_slice(&[0xff; 4]);
        }
    }
    let mut journal = huge_kernel.clone();
    journal[1024 + 0x60] |= 4; // needs recovery, from whatever is there
    for at in (0..journal.len()).step_by(1024) {
        if journal[at..at + 4] == [0xc0, 0x3b, 0x39, 0x98] {
            journal[at + 4..at + 64].fill(0xff);
        }
    }
    // A directory that lies in itself, and one whose entries never end.
    let inside = ext4(&store, |tree| std::fs::create_dir(tree.join("boot/loader")).unwrap());
    let inside = linked(&store, &inside, "/boot", "/boot/loader/entries");
    let mut endless = ext4(&store, |tree| menu(tree, "title a\nkernel /boot/k\n"));
    endless[1024 + 0x65] &= !4; // without metadata_csum nothing tells before it is read
    for at in 8..endless.len() - 8 {
        if endless[at..].starts_with(b"menu.lst") {
            endless[at - 4..at - 2].fill(0);
        }
    }
    for (name, disk, why) in [
        ("circle", circle, "can't be read"),
        ("inside", inside, "no boot menu was found"),
        ("endless", endless, "record length is too small"),
        ("huge-menu", huge_menu, "104857600 bytes"),
        ("huge-kernel", huge_kernel, "1099511627776 bytes"),
        ("zeros", zeros, "neither an ELF vmlinux nor a bzImage"),
        ("deep", deep, "too many blocks"),
        ("beyond", beyond, "root volume"),
        ("journal", journal, "root volume"),
    ] {
        import(&store, name, &disk, "aki-pv-grub-hd0");
        let before = Instant::now();
        let said = fails(&store, &["run", name, "-m", "64M"]);
        assert!(said.contains(why), "{name}: {said}");
        // Not a measurement: the process would be given up after 20 s of its own time.
        assert!(before.elapsed().as_secs() < 120, "{name}");
    }
    assert_eq!(store.ok(&["ls", "-q"]), "");
}
