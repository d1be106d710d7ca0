//! Real SYSLINUX under QEMU, and configurations of our own writing for it: it reads what EXTLINUX
//! reads, from a FAT file system instead.

use super::menus::{Case, case, differs, with};
use super::qemu::{Booted, Judge};
use crate::common::programs::administrators;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the configuration is: SYSLINUX looks there, as EXTLINUX does.
pub const PATH: &str = "/boot/syslinux/syslinux.cfg";
/// What it begins with: what goes wrong can be read on the serial line.
pub const BEFORE: &str = "SERIAL 0 115200\n";

/// What it says when it waits for a person, for ever: a prompt behind an error has no time.
const WAITS: &[&str] = &["directory\r\nboot: ", "found!\r\nboot: "];
/// Its modules, of package syslinux-common.
const MODULES: &str = "/usr/lib/syslinux/modules/bios";

/// Why there can be no judge here.
pub fn missing() -> Option<String> {
    let lacks = |program: &&str| {
        let mut look = administrators(program);
        look.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    let lacking = ["syslinux", "mcopy", "mkfs.vfat"].into_iter().find(lacks).map(str::to_owned);
    let modules = Path::new(MODULES).join("menu.c32").exists();
    lacking.or((!modules).then(|| "syslinux-common".to_owned()))
}

/// What it boots from a disk with these files; `None` if nothing.
pub fn boot(judge: &Judge, name: &str, files: &[(&str, Vec<u8>)]) -> Option<Booted> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk");
    std::fs::write(&image, vec![0; 4 << 20]).unwrap();
    let run = |command: &mut Command| {
        let done = command.output().unwrap();
        assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    run(administrators("mkfs.vfat").args(["-F", "12", "-s", "4"]).arg(&image));
    let tree = dir.path().join("tree");
    let put = |path: &str, content: &[u8]| {
        let path = tree.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    files.iter().for_each(|(path, content)| put(path, content));
    for module in ["menu.c32", "libutil.c32"] {
        let content = std::fs::read(Path::new(MODULES).join(module)).unwrap();
        put(&format!("/boot/syslinux/{module}"), &content);
    }
    let tops = std::fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().path());
    run(Command::new("mcopy").arg("-si").arg(&image).args(tops).arg("::"));
    run(Command::new("syslinux").args(["-d", "boot/syslinux", "-i"]).arg(&image));
    judge.run(name, &std::fs::read(&image).unwrap(), None, WAITS)
}

/// Three labels, for what chooses one.
macro_rules! three {
    ($before:literal) => {
        concat!(
            $before,
            "\nLABEL one\n KERNEL /boot/k1\n APPEND root=/dev/sda1 one initrd=/boot/i1\n",
            "label two\n  menu label ^Two\n  linux ../k2\n  append two\n  initrd ../i1,../i2\n",
            "LABEL three\n\tLINUX /boot/k3\n\tINITRD /boot/i2\n\tAPPEND three quiet\n",
        )
    };
}

/// A label, chosen, with what is in front of it.
macro_rules! label {
    ($before:literal, $lines:literal) => {
        concat!("DEFAULT it\n", $before, "\nLABEL it\n", $lines, "\nLABEL last\nKERNEL /boot/k3\n")
    };
}

const NOBODY: &str = "nobody is there to choose: what would be chosen for them boots";

pub const CASES: &[Case] = &[
    // Which label it is.
    case("default", three!("DEFAULT two")),
    case("default-twice", three!("DEFAULT one\nDEFAULT three")),
    case("default-with-words", three!("DEFAULT two single 3")),
    case("default-of-none", three!("DEFAULT none")),
    case("default-is-a-file", three!("DEFAULT /boot/k2 by=file initrd=/boot/i2")),
    case("default-is-a-file-with-append", three!("APPEND all\nDEFAULT /boot/k2")),
    case("prompt-that-times-out", three!("PROMPT 1\nTIMEOUT 5\nDEFAULT two")),
    case("prompt-with-ontimeout", three!("PROMPT 1\nTIMEOUT 5\nONTIMEOUT three\nDEFAULT two")),
    case("ontimeout-without-a-prompt", three!("TIMEOUT 5\nONTIMEOUT three\nDEFAULT two")),
    differs("no-default", three!(""), ("k1", "<i1>"), NOBODY),
    // Menus.
    case("menu", three!("UI menu.c32\nTIMEOUT 5")),
    case("menu-with-default", three!("UI menu.c32\nTIMEOUT 5\nDEFAULT three")),
    case("menu-with-ontimeout", three!("UI menu.c32\nTIMEOUT 5\nDEFAULT three\nONTIMEOUT two")),
    case(
        "menu-default",
        concat!(
            "UI menu.c32\nTIMEOUT 5\nLABEL a\nKERNEL /boot/k1\nLABEL b\nMENU DEFAULT\nKERNEL /boot/k2\n",
            "LABEL c\nKERNEL /boot/k3\n"
        ),
    ),
    case(
        "menu-default-and-default",
        concat!(
            "UI menu.c32\nDEFAULT c\nTIMEOUT 5\nLABEL a\nKERNEL /boot/k1\nLABEL b\nMENU DEFAULT\nKERNEL /boot/k2\n",
            "LABEL c\nKERNEL /boot/k3\n"
        ),
    ),
    case(
        "menu-default-without-a-menu",
        "DEFAULT a\nLABEL a\nKERNEL /boot/k1\nLABEL b\nMENU DEFAULT\nKERNEL /boot/k2\n",
    ),
    case(
        "menu-with-submenus",
        concat!(
            "UI menu.c32\nTIMEOUT 5\nDEFAULT deep\nLABEL a\nKERNEL /boot/k1\nMENU BEGIN more\nMENU TITLE More\n",
            "LABEL deep\nKERNEL /boot/k2\nAPPEND deep\nMENU END\nLABEL z\nKERNEL /boot/k3\n"
        ),
    ),
    case(
        "hidden-label",
        "DEFAULT h\nLABEL a\nKERNEL /boot/k1\nLABEL h\nMENU HIDE\nKERNEL /boot/k2\n",
    ),
    // What a label says.
    case("append-of-all", label!("APPEND for=all", "KERNEL /boot/k1")),
    case("append-of-its-own", label!("APPEND for=all", "KERNEL /boot/k1\nAPPEND own")),
    case("append-of-nothing", label!("APPEND for=all", "KERNEL /boot/k1\nAPPEND -")),
    case("kernel-with-words", label!("", "KERNEL /boot/k1 x=1 y\nAPPEND z")),
    case("kernel-of-its-name", "DEFAULT ../k2\nLABEL ../k2\nAPPEND by=name\n"),
    case("linux-by-an-odd-name", label!("", "LINUX /boot/linux.bin\nAPPEND a")),
    case("initrd-in-both", label!("", "LINUX /boot/k1\nAPPEND initrd=/boot/i1 a\nINITRD /boot/i2")),
    case("initrd-twice", label!("", "LINUX /boot/k1\nINITRD /boot/i1\nINITRD /boot/i2")),
    case("initrd-word-twice", label!("", "LINUX /boot/k1\nAPPEND initrd=/boot/i1 initrd=/boot/i2")),
    case("initrd-that-is-gone", label!("", "LINUX /boot/k1\nINITRD /boot/gone")),
    case("kernel-that-is-gone", label!("", "LINUX /boot/gone")),
    case("onerror", label!("ONERROR last", "LINUX /boot/gone")),
    case("fdt-is-passed-over", label!("", "LINUX /boot/k1\nFDTDIR /boot/dtbs\nFDT /a\nAPPEND a")),
    // How lines are read.
    case(
        "tabs-and-spaces",
        "\tDeFaUlT\t it \n \tlabel   it  \n\tkernel\t/boot/k1\n  append  a   b \n",
    ),
    case(
        "remarks",
        "# DEFAULT two\nDEFAULT one\n#LABEL x\nLABEL one\n# KERNEL /boot/k2\nKERNEL /boot/k1\nAPPEND a # b\n",
    ),
    case("ends-of-dos", "DEFAULT one\r\nLABEL one\r\nKERNEL /boot/k1\r\nAPPEND a\r\n"),
    case(
        "help",
        concat!(
            "DEFAULT one\nLABEL one\nKERNEL /boot/k1\nTEXT HELP\nKERNEL /boot/k2\nLABEL two\nENDTEXT\n",
            "APPEND a\n"
        ),
    ),
    case(
        "unknown-words",
        label!("NOTHING\nKERNELS /boot/k2", "KERNEL /boot/k1\nappends x\nkernel= /boot/k2"),
    ),
    case("same-label-twice", "DEFAULT a\nLABEL a\nKERNEL /boot/k1\nLABEL a\nKERNEL /boot/k2\n"),
    // Other files.
    with(
        "include",
        "INCLUDE more.cfg\nLABEL x\nKERNEL /boot/k1\n",
        &[("/boot/syslinux/more.cfg", "DEFAULT inc\nLABEL inc\nKERNEL /boot/k2\nAPPEND of=more\n")],
    ),
    with(
        "include-in-a-label",
        "DEFAULT x\nLABEL x\nKERNEL /boot/k1\nINCLUDE /boot/append.cfg\nLABEL y\nKERNEL /boot/k2\n",
        &[("/boot/append.cfg", "APPEND from=a file\n")],
    ),
    with(
        "menu-include",
        "DEFAULT inc\nMENU INCLUDE more.cfg More\nLABEL x\nKERNEL /boot/k1\n",
        &[("/boot/syslinux/more.cfg", "LABEL inc\nKERNEL /boot/k2\nAPPEND of=more\n")],
    ),
    // As distributions write them.
    case(
        "debian",
        concat!(
            "## /boot/extlinux/extlinux.conf\n##\n\ndefault l0\nmenu title U-Boot menu\nprompt 0\ntimeout 50\n\n\n",
            "label l0\n\tmenu label Debian GNU/Linux 12 (bookworm) 6.1.0-18-amd64\n\tlinux /boot/k1\n\tinitrd /boot/i1\n",
            "\tfdtdir /usr/lib/linux-image-6.1.0-18-amd64/\n\n\tappend root=UUID=11111111-1111-4111-8111-111111111111 ro quiet\n\n",
            "label l0r\n\tmenu label Debian (rescue target)\n\tlinux /boot/k1\n\tinitrd /boot/i1\n\n\tappend ro single\n"
        ),
    ),
    case(
        "alpine",
        concat!(
            "# Generated by update-extlinux 6.04_pre1-r11\nDEFAULT menu.c32\nPROMPT 0\nMENU TITLE Alpine/Linux Boot Menu\n",
            "MENU HIDDEN\nMENU AUTOBOOT Alpine will be booted automatically in # seconds.\nTIMEOUT 10\nLABEL virt\n",
            "  MENU DEFAULT\n  MENU LABEL Linux virt\n  LINUX ../k1\n  INITRD ../i1\n",
            "  APPEND root=/dev/vda3 modules=ext4 quiet rootfstype=ext4\n\nMENU SEPARATOR\n"
        ),
    ),
    case(
        "arch",
        concat!(
            "DEFAULT arch\nPROMPT 0\nTIMEOUT 50\nLABEL arch\n    MENU LABEL Arch Linux\n    LINUX ../k1\n",
            "    APPEND root=/dev/sda3 rw\n    INITRD ../i1,../i2\nLABEL reboot\n    MENU LABEL Reboot\n    COM32 reboot.c32\n"
        ),
    ),
];
