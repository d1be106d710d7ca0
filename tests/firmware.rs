//! A machine that boots from disk as a PC does: SeaBIOS, a boot record that this test writes, BIOS
//! services and the virtio disks below them. It takes any /dev/kvm, and the distribution's SeaBIOS.

mod common;

use common::programs::administrators;
use common::skip::skip;
use common::{Store, has_kvm};
use sporevm::instance::firmware;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// Where a boot record runs, and where it loads what comes after it.
const RECORD: u16 = 0x7c00;
const STAGE: u16 = 0x8000;
/// The byte that counts the boots, in the third sector.
const COUNT: u16 = STAGE + 512;

/// With CI=true what is needed has to be there.
fn can_run() -> bool {
    let seabios = firmware::find(None);
    if let Err(error) = &seabios {
        skip(error);
    }
    has_kvm() && seabios.is_ok()
}

/// Real-mode code.
struct Code(Vec<u8>);

impl Code {
    fn then(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// An opcode with a 16-bit operand.
    fn with(self, opcode: &[u8], operand: u16) -> Self {
        self.then(opcode).then(&operand.to_le_bytes())
    }

    /// INT 13h: extended read (0x42) or write (0x43) by the packet at `packet`; forever here if it
    /// fails.
    fn disk(self, function: u8, packet: u16) -> Self {
        // mov si, packet; mov ax, function << 8; int 0x13; 1: jc 1b
        self.with(&[0xbe], packet).then(&[0xb8, 0, function, 0xcd, 0x13, 0x72, 0xfe])
    }

    /// INT 10h: print what is in al.
    fn print_al(self) -> Self {
        // mov ah, 0x0e; mov bx, 7; int 0x10
        self.then(&[0xb4, 0x0e, 0xbb, 7, 0, 0xcd, 0x10])
    }

    /// mov dx, port; mov al, value; out dx, al
    fn out(self, port: u16, value: u8) -> Self {
        self.with(&[0xba], port).then(&[0xb0, value, 0xee])
    }

    fn print(self, text: &str) -> Self {
        // mov al, byte
        text.bytes().fold(self, |code, byte| code.then(&[0xb0, byte]).print_al())
    }

    /// `jmp` to itself.
    fn hang(self) -> Self {
        self.then(&[0xeb, 0xfe])
    }

    /// A sector of it, ending with `end`.
    fn sector(mut self, end: &[u8]) -> Vec<u8> {
        assert!(self.0.len() + end.len() <= 512, "{} bytes", self.0.len());
        self.0.resize(512 - end.len(), 0);
        self.0.extend(end);
        self.0
    }
}

/// A disk address packet: `count` sectors from `lba` on, at address `to`.
fn packet(count: u8, to: u16, lba: u8) -> [u8; 16] {
    let [low, high] = to.to_le_bytes();
    [16, 0, count, 0, low, high, 0, 0, lba, 0, 0, 0, 0, 0, 0, 0]
}

/// A disk whose boot record loads two sectors more, prints `name` and how often it has booted, and
/// writes that to the disk. The first boot ends by `first`, the second switches off.
fn disk(name: &str, first: (u16, u8)) -> Vec<u8> {
    let read = packet(2, STAGE, 1);
    let record = Code(Vec::new())
        .then(&[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0]) // xor ax, ax; mov ds, ax; mov ss, ax
        .with(&[0xbc], RECORD) // mov sp, RECORD
        .disk(0x42, RECORD + 512 - 2 - 16)
        .with(&[0xea], STAGE) // jmp 0:STAGE
        .then(&[0, 0]);
    let [low, high] = COUNT.to_le_bytes();
    let stage = Code(Vec::new())
        .print(name)
        .then(&[0xfe, 0x06, low, high]) // inc byte [COUNT]
        .then(&[0xa0, low, high, 0x04, b'0']) // mov al, [COUNT]; add al, '0'
        .print_al()
        // SeaBIOS keeps the last character back for a while.
        .print(". ")
        .disk(0x43, STAGE + 512 - 16)
        .then(&[0x80, 0x3e, low, high, 2, 0x73, 8]) // cmp byte [COUNT], 2; jae past the next two
        .out(first.0, first.1)
        .hang()
        .out(0x600, 5 << 2 | 1 << 5) // ACPI's sleep control: S5
        .hang();
    let mut disk = record.sector(&[&read[..], &[0x55, 0xaa]].concat());
    disk.extend(stage.sector(&packet(1, COUNT, 2)));
    disk.resize(1 << 20, 0);
    disk
}

/// Import a disk as image `name`; its root's snapshot.
fn import(store: &Store, name: &str, disk: &[u8]) -> String {
    let path = store.home().join(name);
    std::fs::write(&path, disk).unwrap();
    let imported =
        store.ok(&["image", "import", path.to_str().unwrap(), "--name", name, "-o", "json"]);
    let image = store.ok(&["image", "show", name, "-o", "json"]);
    let image: serde_json::Value = serde_json::from_str(&image).unwrap();
    let snapshot = &image["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"];
    snapshot.as_str().unwrap_or_else(|| panic!("{imported} {image}")).to_owned()
}

fn run(store: &Store, args: &[&str]) -> String {
    let base = ["run", "-q", "-m", "64M"];
    store.ok(&[&base, args].concat()).trim().to_owned()
}

#[test]
fn a_boot_record_runs_reads_writes_and_resets_through_the_firmware() {
    if !can_run() {
        return;
    }
    let store = Store::new();
    // Each of a PC's ways to reset.
    for (name, port, value) in [("cf9", 0xcf9, 6), ("i8042", 0x64, 0xfe), ("port92", 0x92, 1)] {
        import(&store, name, &disk(&format!("{name} boot "), (port, value)));
        let id = run(&store, &[name, "--cpus", "3"]);
        store.wait(&id, "stopped");
        let log = store.logs(&id);
        assert_eq!(log.matches("SeaBIOS (version").count(), 2, "{log}");
        assert!(log.contains(&format!("{name} boot 1.")), "{log}");
        assert!(log.contains(&format!("{name} boot 2.")), "{log}");
        // Started again, it finds what it wrote.
        store.ok(&["start", &id]);
        store.wait(&id, "stopped");
        assert!(store.logs(&id).contains(&format!("{name} boot 3.")));
    }
}

#[test]
fn of_several_disks_the_root_boots() {
    if !can_run() {
        return;
    }
    let store = Store::new();
    let other = import(&store, "other", &disk("other ", (0x600, 0x34)));
    import(&store, "root", &disk("root ", (0x600, 0x34)));
    let mapping = |device: &str| {
        format!(r#"{{"DeviceName": "{device}", "Ebs": {{"SnapshotId": "{other}"}}}}"#)
    };
    let mappings = format!("[{}, {}]", mapping("/dev/vdb"), mapping("/dev/vdc"));
    let id = run(&store, &["root", "--block-device-mappings", &mappings]);
    store.wait(&id, "stopped");
    let log = store.logs(&id);
    assert!(log.contains("root 1.") && !log.contains("other"), "{log}");
}

#[test]
fn firmware_can_be_given_and_taken_back() {
    if !can_run() {
        return;
    }
    let store = Store::new();
    import(&store, "disk", &disk("boot ", (0x600, 0x34)));
    let own = store.home().join("bios.bin");
    std::fs::copy(firmware::find(None).unwrap(), &own).unwrap();
    let path = own.to_str().unwrap();
    let id = run(&store, &["disk", "--firmware", path]);
    store.wait(&id, "stopped");
    assert!(store.logs(&id).contains("boot 1."));
    assert_eq!(store.describe(&id)["Spore"]["Firmware"], path);
    // It is looked for at every start.
    std::fs::remove_file(&own).unwrap();
    let refused = store.spore(&["start", &id]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains(path), "{told}");
    store.ok(&["modify", &id, "--kernel", "none"]);
    store.ok(&["start", &id]);
    store.wait(&id, "stopped");
    assert!(store.logs(&id).contains("boot 2."));
}

#[test]
fn an_image_without_a_kernel_is_hvm() {
    let store = Store::new();
    import(&store, "disk", &disk("boot ", (0x600, 0x34)));
    let image = store.ok(&["image", "show", "disk", "-o", "json"]);
    let image: serde_json::Value = serde_json::from_str(&image).unwrap();
    assert_eq!(image["Images"][0]["VirtualizationType"], "hvm");
    if !can_run() {
        return;
    }
    let id = run(&store, &["disk"]);
    let instance = store.describe(&id);
    assert_eq!(instance["VirtualizationType"], "hvm");
    assert!(instance.get("KernelId").is_none(), "{instance}");
    // A kernel's command line needs a kernel.
    let refused = store.spore(&["run", "disk", "--append", "quiet"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("--kernel"), "{told}");
    store.wait(&id, "stopped");
    // With one, it boots directly, and gets a command line as at a launch.
    let kernel = store.home().join("kernel");
    std::fs::write(&kernel, sporevm::demo::KERNEL).unwrap();
    store.ok(&["modify", &id, "--kernel", kernel.to_str().unwrap()]);
    let line = store.describe(&id)["Spore"]["CommandLine"].clone();
    assert!(line.as_str().is_some_and(|line| line.contains(&id)), "{line}");
}

/// Debian's iPXE as a disk: its boot record is ISOLINUX's, which loads iPXE by BIOS services as a
/// kernel.
#[test]
fn ipxe_reaches_its_first_screen() {
    let Ok(disk) = std::fs::read("/usr/lib/ipxe/ipxe.iso") else {
        return skip("no iPXE: install package ipxe");
    };
    if !can_run() {
        return;
    }
    let store = Store::new();
    import(&store, "ipxe", &disk);
    let id = run(&store, &["ipxe", "--cpus", "1"]);
    store.wait_for_text(&id, "ISOLINUX");
    store.wait_for_text(&id, "Features: DNS HTTP");
}

/// A boot loader with a file system reads its files through the BIOS, and what is typed on the
/// console from the serial port: it starts the boot sector that it is told to.
#[test]
fn syslinux_prompts_and_takes_a_command_on_the_console() {
    if !can_run() {
        return;
    }
    let store = Store::new();
    let file = |name: &str, content: &[u8]| {
        let path = store.home().join(name);
        std::fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let (disk, config) = (file("disk", &vec![0; 4 << 20]), file("config", SYSLINUX.as_bytes()));
    let chosen =
        file("chosen", &Code(Vec::new()).print("chosen\r\nby name\r\n").then(&[0xeb, 0xfe]).0);
    let all = [
        made(&["mkfs.vfat", "-F", "12", "-s", "4", &disk]),
        made(&["mcopy", "-i", &disk, &config, "::syslinux.cfg"]),
        made(&["mcopy", "-i", &disk, &chosen, "::chosen.bs"]),
        made(&["syslinux", "--install", &disk]),
    ];
    if all.contains(&false) {
        return skip("install packages syslinux, mtools, dosfstools");
    }
    store.ok(&["image", "import", &disk, "--name", "syslinux"]);
    let id = run(&store, &["syslinux", "--cpus", "1"]);
    // A prompt is no whole line.
    while !store.logs(&id).contains("boot:") {
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut console = store.command(&["console", &id]);
    let mut console = console.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    console.stdin.as_mut().unwrap().write_all(b"own\r").unwrap();
    store.wait_for_text(&id, "chosen");
    console.kill().unwrap();
    console.wait().unwrap();
}

/// SYSLINUX drives the serial port itself, beside the BIOS, which prints there too: what it says
/// may come twice.
const SYSLINUX: &str = "SERIAL 0 115200\nPROMPT 1\nDEFAULT none\nLABEL own\nKERNEL chosen.bs\n";

/// Whether the command is there; it has worked then.
fn made(words: &[&str]) -> bool {
    match administrators(words[0]).args(&words[1..]).output() {
        Err(_) => false,
        Ok(output) => {
            assert!(output.status.success(), "{words:?}: {output:?}");
            true
        }
    }
}

#[test]
fn a_disk_without_a_boot_record_is_told_on_the_console() {
    if !can_run() {
        return;
    }
    let store = Store::new();
    import(&store, "empty", &[0; 1 << 20]);
    let id = run(&store, &["empty"]);
    store.wait_for_text(&id, "not a bootable disk");
    assert_eq!(store.state(&id).0, "running");
}

/// A disc that boots by El Torito without emulating another drive: its boot image prints, reads the
/// block after itself by the BIOS, prints what that begins with, and switches off. (El Torito
/// Bootable CD-ROM Format Specification 1.0, figures 2, 3, 7)
fn disc(name: &str) -> Vec<u8> {
    const BLOCK: usize = 2048;
    let [catalog, image, data] = [19u8, 20, 21];
    let stage = packet(1, STAGE, data);
    let [low, high] = STAGE.to_le_bytes();
    let boot = Code(Vec::new())
        .then(&[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0]) // xor ax, ax; mov ds, ax; mov ss, ax
        .with(&[0xbc], RECORD) // mov sp, RECORD
        .print(name)
        .disk(0x42, RECORD + 512 - 16)
        .then(&[0xa0, low, high]) // mov al, [STAGE]
        .print_al()
        .print(". ")
        .out(0x600, 5 << 2 | 1 << 5)
        .hang();
    let mut disc = vec![0; 22 * BLOCK];
    let mut put = |block: u8, at: usize, bytes: &[u8]| {
        disc[usize::from(block) * BLOCK + at..][..bytes.len()].copy_from_slice(bytes);
    };
    put(16, 0, b"\x01CD001\x01");
    put(17, 0, b"\0CD001\x01EL TORITO SPECIFICATION");
    put(17, 0x47, &[catalog, 0, 0, 0]);
    put(18, 0, b"\xffCD001\x01");
    // The validation entry, whose words sum up to 0, and the default entry: one sector.
    put(catalog, 0, &[1]);
    put(catalog, 28, &[0xaa, 0x55, 0x55, 0xaa]);
    put(catalog, 32, &[0x88, 0, 0, 0, 0, 0, 1, 0, image]);
    put(image, 0, &boot.sector(&stage));
    put(data, 0, b"!");
    disc
}

#[test]
fn a_disc_boots_where_the_root_has_nothing_to_boot() {
    if !can_run() {
        return;
    }
    let store = Store::new();
    let path = store.home().join("a.iso");
    let iso = path.to_str().unwrap();
    std::fs::write(&path, disc("disc ")).unwrap();
    let id = run(&store, &["--cdrom", iso, "--disk", "9"]);
    store.wait(&id, "stopped");
    let log = store.logs(&id);
    assert!(log.contains("disc !."), "{log}");
    assert_eq!(store.describe(&id)["Spore"]["Cdroms"], serde_json::json!([iso]));
    assert!(store.ok(&["show", &id]).contains(iso));
    // The disk's own boot record comes first, whatever is in the drive.
    import(&store, "disk", &disk("disk boot ", (0x600, 0x34)));
    let id = run(&store, &["disk", "--cdrom", iso]);
    store.wait(&id, "stopped");
    let log = store.logs(&id);
    assert!(log.contains("disk boot 1.") && !log.contains("disc"), "{log}");
    // It is looked for at every start, and can be taken out.
    std::fs::remove_file(&path).unwrap();
    let refused = store.spore(&["start", &id]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains(iso) && told.contains("--cdrom none"), "{told}");
    store.ok(&["modify", &id, "--cdrom", "none"]);
    store.ok(&["start", &id]);
    store.wait(&id, "stopped");
    assert!(store.logs(&id).contains("disk boot 2."));
    let refused = store.spore(&["run", "--cdrom", iso]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!store.ok(&["ls", "-aq"]).is_empty());
}
