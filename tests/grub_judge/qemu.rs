//! Real GRUB under QEMU, and disks for it: a floppy with GRUB's core, a disk with a menu and
//! stand-in kernels.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::programs::administrators;

const MIB: usize = 1 << 20;
/// How long a menu may take. A missing file makes GRUB wait for 10 s for a key.
const PATIENCE: Duration = Duration::from_secs(100);
/// What the core has; the menus load no module that is not in it.
const MODULES: &[&str] = &[
    "biosdisk",
    "part_msdos",
    "part_gpt",
    "ext2",
    "normal",
    "linux",
    "linux16",
    "configfile",
    "search",
    "search_fs_uuid",
    "search_label",
    "search_fs_file",
    "test",
    "echo",
    "loadenv",
    "probe",
    "true",
    "boot",
    "eval",
    "sleep",
    "cat",
    "ls",
    "minicmd",
    "gzio",
    "chain",
    "multiboot",
    "cpuid",
    "halt",
    "reboot",
    "serial",
    "terminal",
    "password",
];
/// What only newer ones have.
const MORE: &[&str] = &["blsuki"];
/// Debian's GRUB 2.
pub const SYSTEMS: &str = "/usr/lib/grub/i386-pc";
/// What the menu begins with: errors can be read on the serial line, and GRUB shows a menu for ever
/// that says nothing of time.
pub const BEFORE: &str =
    "serial --unit=0\nterminal_output serial\nterminal_input serial\nset timeout=0\n";
/// What it shows when it waits for a person, for ever.
const WAITS: &[&str] = &["Use the ", "Enter username:", "grub> "];

/// What boots: which kernel, its command line, and the parts of its initial ramdisk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    pub kernel: String,
    pub line: String,
    pub ramdisk: String,
}

/// Programs, stand-in kernels and cores, made once.
pub struct Judge {
    dir: tempfile::TempDir,
    /// The code that all kernels have: what real mode begins with, and what protected mode does.
    code: [Vec<u8>; 2],
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}");
}

/// Why there can be no judge here.
pub fn missing() -> Option<String> {
    let lacks = |program: &str| {
        let mut look = administrators(program);
        look.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    let programs = ["qemu-system-x86_64", "grub-mkimage", "mke2fs", "as", "objcopy"];
    let lacking = programs.into_iter().find(|program| lacks(program));
    let modules = Path::new(SYSTEMS).join("boot.img").exists();
    lacking.map(str::to_owned).or((!modules).then(|| "grub-pc-bin".to_owned()))
}

impl Judge {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grub_judge/kernel.S");
        run(Command::new("as").arg("--32").arg(source).arg("-o").arg(path("kernel.o")));
        let code = [".setup", ".text"].map(|section| {
            let mut copy = Command::new("objcopy");
            run(copy.args(["-O", "binary", "-j", section]).args([path("kernel.o"), path("code")]));
            std::fs::read(path("code")).unwrap()
        });
        Self { dir, code }
    }

    /// A bzImage that says that it is `name`. (Documentation/arch/x86/boot.rst, "The Real-Mode
    /// Kernel Header")
    pub fn kernel(&self, name: &str) -> Vec<u8> {
        let mut image = vec![0; 1024 + 0x8000];
        image[0x1f1] = 1; // setup_sects
        image[0x1f4..0x1f8].copy_from_slice(&0x800u32.to_le_bytes()); // syssize
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x200..0x202].copy_from_slice(&[0xeb, 0x66]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x208u16.to_le_bytes());
        image[0x211] = 1; // loaded high
        image[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
        image[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        image[0x230..0x234].copy_from_slice(&4096u32.to_le_bytes());
        image[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes()); // cmdline_size
        image[0x268..][..self.code[0].len()].copy_from_slice(&self.code[0]);
        image[1024..][..self.code[1].len()].copy_from_slice(&self.code[1]);
        image[1024 + 0x7800..][..name.len()].copy_from_slice(name.as_bytes());
        image
    }

    /// GRUB of these modules on a floppy, which looks for its configuration below `prefix`.
    fn floppy(&self, from: &Path, prefix: &str) -> PathBuf {
        let name: String = format!("{}{prefix}", from.display());
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = self.dir.path().join(format!("floppy-{name}"));
        if path.exists() {
            return path;
        }
        let core = self.dir.path().join(format!("core-{name}"));
        let mut make = Command::new("grub-mkimage");
        make.args(["-O", "i386-pc", "-p", prefix, "-d"]).arg(from).arg("-o").arg(&core);
        let more = MORE.iter().filter(|name| from.join(format!("{name}.mod")).exists());
        run(make.args(MODULES).args(more));
        let mut floppy = std::fs::read(from.join("boot.img")).unwrap();
        floppy.extend(std::fs::read(core).unwrap());
        floppy.resize(2880 << 10, 0);
        std::fs::write(&path, floppy).unwrap();
        path
    }

    /// What GRUB of these modules boots from a disk; `None` if nothing.
    pub fn boot(&self, from: &Path, name: &str, disk: &[u8], prefix: &str) -> Option<Booted> {
        self.run(name, disk, Some(&self.floppy(from, prefix)), WAITS)
    }

    /// What boots from a disk, or from a floppy beside it; `None` if nothing, as when something
    /// `waits` for a person.
    pub fn run(
        &self,
        name: &str,
        disk: &[u8],
        floppy: Option<&Path>,
        waits: &[&str],
    ) -> Option<Booted> {
        let file = |suffix: &str| self.dir.path().join(format!("{name}{suffix}"));
        std::fs::write(file(".disk"), disk).unwrap();
        let drive = |path: &Path, kind: &str| {
            ["-drive".to_owned(), format!("file={},format=raw,if={kind}", path.display())]
        };
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-accel", "tcg", "-m", "64", "-display", "none", "-monitor", "none", "-net", "none",
        ])
        .args(["-no-reboot", "-boot", "order=ac,menu=off"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-serial", &format!("file:{}", file(".serial").display())])
        .args(drive(&file(".disk"), "ide"))
        .args(floppy.into_iter().flat_map(|path| drive(path, "floppy")))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
        let said = || {
            let said = std::fs::read(file(".serial")).unwrap_or_default();
            String::from_utf8_lossy(&said).into_owned()
        };
        let mut child = qemu.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            let waits = || waits.iter().any(|what| said().contains(what));
            if Instant::now() > deadline || waits() {
                child.kill().unwrap();
                child.wait().unwrap();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = said();
        std::fs::remove_file(file(".disk")).unwrap();
        let part = |from: &str, to: &str| {
            let (_, rest) = said.split_once(from)?;
            rest.split_once(to).map(|(part, _)| part.to_owned())
        };
        Some(Booted {
            kernel: part("\nKERNEL ", "\nLINE ")?,
            line: part("\nLINE ", "\nRAMDISK ")?,
            ramdisk: part("\nRAMDISK ", "\nEND\n")?,
        })
    }

    /// An ext4 file system of 4 MiB with these files.
    pub fn ext4(&self, name: &str, uuid: &str, label: &str, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let ext4 = ["-t", "ext4", "-O", "^metadata_csum,^64bit"];
        self.files(&ext4, name, uuid, label, files)
    }

    /// An ext2 file system of 4 MiB with these files, as GRUB legacy reads it.
    pub fn ext2(&self, name: &str, uuid: &str, label: &str, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        self.files(&["-t", "ext2", "-I", "128"], name, uuid, label, files)
    }

    fn files(
        &self,
        kind: &[&str],
        name: &str,
        uuid: &str,
        label: &str,
        files: &[(&str, Vec<u8>)],
    ) -> Vec<u8> {
        let (tree, image) = (self.dir.path().join(format!("{name}.d")), self.dir.path().join(name));
        for (path, content) in files {
            let path = tree.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let mut make = administrators("mke2fs");
        make.args(["-q", "-F", "-b", "1024", "-U", uuid, "-L", label]).args(kind).arg("-d");
        run(make.args([&tree, &image]).arg("4M"));
        let bytes = std::fs::read(&image).unwrap();
        std::fs::remove_dir_all(tree).unwrap();
        std::fs::remove_file(image).unwrap();
        bytes
    }
}

/// A disk with these partitions from 1 MiB on, by a master boot record.
pub fn mbr(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut disk = vec![0; MIB];
    for (n, part) in parts.iter().enumerate() {
        let (first, sectors) = ((disk.len() / 512) as u32, (part.len() / 512) as u32);
        let entry = &mut disk[446 + n * 16..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        disk.extend(part);
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.resize(disk.len() + MIB, 0);
    disk
}

/// The same by a GUID partition table.
pub fn gpt(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut disk = mbr(parts);
    disk[446..510].fill(0);
    disk[450] = 0xee;
    disk[454] = 1;
    let sectors = (disk.len() / 512 - 1) as u32;
    disk[458..462].copy_from_slice(&sectors.to_le_bytes());
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[520..524].copy_from_slice(&[0, 0, 1, 0]);
    disk[524] = 92;
    disk[536] = 1;
    (disk[584], disk[592], disk[596]) = (2, 128, 128);
    let mut first = (MIB / 512) as u64;
    for (n, part) in parts.iter().enumerate() {
        let sectors = (part.len() / 512) as u64;
        let entry = &mut disk[1024 + n * 128..][..128];
        // "Linux filesystem data" 0FC63DAF-8483-4772-8E79-3D69D8477DE4
        entry[..16].copy_from_slice(&[
            0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47,
            0x7d, 0xe4,
        ]);
        entry[16..32].fill(n as u8 + 1);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&(first + sectors - 1).to_le_bytes());
        first += sectors;
    }
    disk
}
