//! Menus of our own writing for GRUB legacy, which use what menu.lst of EC2's images and of people
//! use.

use super::menus::{Case, case, differs, with};

/// Three entries, for what chooses one.
macro_rules! three {
    ($before:literal) => {
        concat!(
            $before,
            "\ntitle one\nroot (hd0,0)\nkernel /boot/k1 one\ninitrd /boot/i1\n",
            "\ntitle two\nkernel /boot/k2 two\n\n",
            "title three\nroot (hd0,1)\nkernel /k5 three\ninitrd /boot/i4\n",
        )
    };
}

/// Commands in an entry, with another to fall back to.
macro_rules! entry {
    ($commands:literal) => {
        concat!("fallback 1\ntitle it\n", $commands, "\ntitle fallback\nkernel /boot/k3 fallback\n")
    };
}

/// A word of a command line as long as words are.
const LONG: &str = concat!(
    "title a\nkernel /boot/k1 ",
    "a0123456789=0123456789012345678901234567890123456789 b0123456789=01234567890123456789012345 ",
    "c0123456789=0123456789012345678901234567890123456789 d0123456789=01234567890123456789012345\n"
);
const LONGER: &str = concat!(
    "title a\nkernel /boot/k1 ",
    "a0123456789=0123456789012345678901234567890123456789 b0123456789=01234567890123456789012345 ",
    "c0123456789=0123456789012345678901234567890123456789 d0123456789=01234567890123456789012345 ",
    "e0123456789=0123456789012345678901234567890123456789 f0123456789=01234567890123456789012345\n"
);

const NOBODY: &str = "nobody is there to press a key: what can be booted is";

pub const CASES: &[Case] = &[
    // Which entry it is.
    case("first", three!("")),
    case("by-number", three!("default 2")),
    case("by-number-with-a-tab", three!("default\t1")),
    case("by-number-with-equals", three!("default=1")),
    case("by-number-with-equalses", three!("default = = 2")),
    case("number-with-a-remark", three!("default 1 # the second")),
    case("number-with-letters", three!("default 1st")),
    case("number-in-hex", three!("default 0x2")),
    case("number-that-is-none", three!("default two")),
    case("number-too-large", three!("default 99999999999")),
    case("negative-number", three!("default -1")),
    case("beyond-the-last", three!("default 7")),
    case("beyond-the-last-with-fallback", three!("default 7\nfallback 9 2 1")),
    case("default-twice", three!("default 1\ndefault 2")),
    case("default-twice-wrong", three!("default 1\ndefault x")),
    with("saved", three!("default saved"), &[("/boot/grub/default", "2\n#\n#\n#\n#\n")]),
    with("saved-equals", three!("default=saved"), &[("/boot/grub/default", "1\n")]),
    with("saved-with-a-space", three!("default saved "), &[("/boot/grub/default", "2\n")]),
    with("saved-once", three!("default saved"), &[("/boot/grub/default", "0:1\n")]),
    with("saved-nothing", three!("default saved"), &[("/boot/grub/default", "")]),
    with("saved-words", three!("default saved"), &[("/boot/grub/default", "two\n")]),
    with("saved-beyond", three!("default saved\nfallback 1"), &[("/boot/grub/default", "12\n")]),
    with("saved-long", three!("default saved"), &[("/boot/grub/default", "000000000000002\n")]),
    case("saved-without-a-file", three!("default saved")),
    // Titles.
    case("title-empty", "default 1\ntitle\nkernel /boot/k1\ntitle\nkernel /boot/k2 it\n"),
    case("title-equals", "default 1\ntitle = a\nkernel /boot/k1\ntitle=b\nkernel /boot/k2 it\n"),
    case(
        "title-alone",
        "default 1\ntitle a\ntitle b\nkernel /boot/k1 b\ntitle c\nkernel /boot/k2 c\n",
    ),
    case(
        "title-of-other-commands",
        "default 1\ntitle a\nquiet\nnothing at all\ntitle b\nkernel /boot/k1 b\ntitle c\nkernel /boot/k2 c\n",
    ),
    case(
        "title-last-alone",
        "default 2\nfallback 1\ntitle a\nkernel /boot/k1\ntitle b\nkernel /boot/k2 b\ntitle c\n",
    ),
    case(
        "title-between",
        "default 1\ntitle a\nkernel /boot/k1\ntitle b\n\n# c\ntitle d\nkernel /boot/k2 d\ntitle e\nkernel /boot/k3\n",
    ),
    case(
        "title-in-capitals",
        "Title a\nkernel /boot/k1\ntitle b\nkernel /boot/k2 b\nTITLE c\nkernel /boot/k3 c\n",
    ),
    case("titled", "titles a\nkernel /boot/k1\ntitle\tb\nkernel /boot/k2 b\n"),
    // Lines.
    case(
        "windows-lines",
        "default 1\r\ntitle a\r\nkernel /boot/k1\r\ntitle b\r\nkernel /boot/k2 b=c\r\ninitrd /boot/i2\r\n",
    ),
    case("no-newline-at-the-end", "title a\nroot (hd0,0)\nkernel /boot/k2 a\ninitrd /boot/i2"),
    case(
        "tabs",
        "\ttitle a\n\t\troot\t(hd0,0)\n \t kernel\t\t/boot/k1\ta\tb\n\tinitrd\t/boot/i1\t\n",
    ),
    case(
        "comments",
        "# a\n  # default 1\n\ttitle a # b\n#title c\nkernel /boot/k1 a # b\n# initrd /boot/i1\n\t# x\n",
    ),
    case(
        "comment-goes-on",
        "# default 1 \\\ndefault 1\ntitle a\nkernel /boot/k1\ntitle b\nkernel /boot/k2\n",
    ),
    case("goes-on", "title a\nkernel /boot/k1 a \\\n  b=c \\\n\td\n\\\ninitrd \\\n/boot/i1\n"),
    case("goes-on-in-a-word", "title a\nkernel /boot/k1 a\\\nb\n"),
    case("goes-on-by-two", "title a\nkernel /boot/k1 a \\\\\nb\ninitrd /boot/i1\n"),
    case("goes-on-at-the-end", "title a\nkernel /boot/k1 a\ninitrd /boot/i1 \\"),
    case("backslashes", "title a\nkernel /boot/k1 a\\b \\c d\\\\e \\\"f\n"),
    case("quotes", "title \"a\nkernel /boot/k1 a=\"b c\" 'd e' \"f\n"),
    case("equals", "title a\nroot=(hd0,0)\nkernel=/boot/k1 =a b= c==d\ninitrd==/boot/i1\n"),
    case(
        "spaces",
        "title   a\nroot   (hd0,0)\nkernel   /boot/k1   a    b   \ninitrd   /boot/i1   \n",
    ),
    case(
        "commands-in-capitals",
        entry!("ROOT (hd0,1)\nkernel /boot/k1 a\nInitrd /boot/i1\nKERNEL /boot/k2\n"),
    ),
    case("long-line", LONG),
    differs(
        "longer-line",
        LONGER,
        ("k1", ""),
        "GRUB legacy cuts a command line at 255 bytes, PV-GRUB did at 1024: Linux takes 2047, and more is refused",
    ),
    // Devices.
    case("root-elsewhere", "title a\nroot (hd0,1)\nkernel /k5 a\ninitrd /boot/i4\n"),
    case("root-with-a-remark", "title a\nroot (hd0,1)   # data\nkernel /k5 a\n"),
    case("root-glued", "title a\nroot (hd0,1)/boot\nkernel /k5 a\n"),
    case("root-twice", "title a\nroot (hd0,1)\nroot (hd0,0)\nkernel /boot/k1 a\n"),
    case("root-between", "title a\nroot (hd0,1)\nkernel /k5 a\nroot (hd0,0)\ninitrd /boot/i2\n"),
    case("root-of-none", "title a\nroot (hd0,1)\nroot\nkernel /k5 a\n"),
    case("root-verified-not", "title a\nrootnoverify (hd0,1)\nkernel /k5 a\n"),
    case("root-before-the-title", "root (hd0,1)\ntitle a\nkernel /boot/k1 a\n"),
    case("root-without-brackets", entry!("root hd0,0\nkernel /boot/k1 a")),
    case("root-half-open", entry!("root (hd0,0\nkernel /boot/k1 a")),
    case("root-with-spaces", entry!("root ( hd0,0 )\nkernel /boot/k1 a")),
    case("root-in-capitals", entry!("root (HD0,0)\nkernel /boot/k1 a")),
    case("root-by-bios-number", "title a\nroot (0x80,1)\nkernel /k5 a\n"),
    case("root-by-hex", "title a\nroot (hd0x0,0x1)\nkernel /k5 a\n"),
    case("root-of-grub-2", entry!("root (hd0,msdos1)\nkernel /boot/k1 a")),
    case("root-of-the-whole-disk", entry!("root (hd0)\nkernel /boot/k1 a")),
    case(
        "root-of-the-whole-disk-and-paths",
        "title a\nroot (hd0)\nkernel (hd0,0)/boot/k1 a\ninitrd (hd0,0)/boot/i1\n",
    ),
    case("root-of-no-partition", entry!("root (hd0,2)\nkernel (hd0,0)/boot/k1 a")),
    case("root-of-no-disk", entry!("root (hd1,0)\nkernel (hd0,0)/boot/k1 a")),
    case("root-of-a-floppy", entry!("root (fd0)\nkernel (hd0,0)/boot/k1 a")),
    case("root-of-a-slice", entry!("root (hd0,0,a)\nkernel (hd0,0)/boot/k1 a")),
    case("root-with-a-comma", "title a\nroot (hd0,1,)\nkernel /k5 a\n"),
    case("root-of-the-same-disk", "title a\nroot (,1)\nkernel /k5 a\n"),
    case("root-of-the-same", "title a\nroot (hd0,1)\nroot (,)\nkernel /k5 a\n"),
    case("root-of-the-same-whole", entry!("root ()\nkernel /boot/k1 a")),
    case("device-in-paths", "title a\nkernel (hd0,1)/k5 a\ninitrd (hd0,0)/boot/i1\n"),
    case(
        "device-in-one-path",
        "title a\nroot (hd0,1)\nkernel (hd0,0)/boot/k1 a\ninitrd /boot/i4\n",
    ),
    case("device-of-none-in-a-path", entry!("kernel (hd0,5)/boot/k1 a")),
    case("device-and-no-slash", entry!("kernel (hd0,0)boot/k1 a")),
    case("device-and-a-space", entry!("kernel (hd0,0) /boot/k1 a")),
    differs(
        "by-uuid",
        "title a\nuuid 22222222-2222-4222-8222-222222222222\nkernel /k5 a\n",
        ("k5", ""),
        "`uuid` is Ubuntu's, whose images are read as Ubuntu's GRUB reads them; to others it is no command",
    ),
    case("find", "title a\nfind /marker\nkernel /boot/k1 a\n"),
    case("find-nothing", "title a\nfind /nothing\nkernel /boot/k1 a\n"),
    // Kernels and ramdisks.
    case(
        "kernel-options",
        "title a\nkernel --no-mem-option --type=biglinux /boot/k1 a --type=b\ninitrd /boot/i1\n",
    ),
    differs(
        "kernel-of-a-type",
        "title a\nkernel --type=linux /boot/k1 a\n",
        ("k1", ""),
        "PV-GRUB, whose kernels are of one type, looks at none",
    ),
    case("kernel-without-a-slash", entry!("kernel boot/k1 a")),
    case("kernel-alone", entry!("kernel")),
    case("kernel-gone", entry!("kernel /boot/gone a\ninitrd /boot/i1")),
    case("kernel-that-is-none", entry!("kernel /boot/i1 a")),
    case("kernel-that-is-a-directory", entry!("kernel /boot a")),
    case("kernel-twice", "title a\nkernel /boot/k1 a\ninitrd /boot/i1\nkernel /boot/k2 b\n"),
    case("kernel-twice-the-second-gone", entry!("kernel /boot/k1 a\nkernel /boot/gone b")),
    case("kernel-behind-its-ramdisk", entry!("initrd /boot/i1\nkernel /boot/k1 a")),
    case("two-slashes", "title a\nkernel //boot//k1 a\ninitrd /./boot/../boot/i1\n"),
    case("ramdisks", "title a\nkernel /boot/k1 a\ninitrd /boot/i1 /boot/i2\n"),
    case("ramdisk-twice", "title a\nkernel /boot/k1 a\ninitrd /boot/i1\ninitrd /boot/i2\n"),
    case("ramdisk-gone", entry!("kernel /boot/k1 a\ninitrd /boot/gone")),
    case("ramdisk-of-none", entry!("kernel /boot/k1 a\ninitrd")),
    case("ramdisk-without-a-slash", entry!("kernel /boot/k1 a\ninitrd boot/i1")),
    case("module", "title a\nkernel /boot/k1 a\nmodule /boot/i1 b\n"),
    case("modules", "title a\nkernel /boot/k1 a\nmodule /boot/i1\nmodulenounzip /boot/i2\n"),
    case("module-alone", entry!("module /boot/i1\nkernel /boot/k1 a")),
    case("video", "title a\nkernel /boot/k1 vga=0x317 a\n"),
    differs(
        "video-that-is-none",
        entry!("kernel /boot/k1 vga=none a"),
        ("k1", ""),
        "PV-GRUB has no screen, and looks at no vga=",
    ),
    // How an entry ends, and what else is in one.
    case("boot", "title a\nkernel /boot/k1 a\nboot\ninitrd /boot/i1\nkernel /boot/k2\n"),
    case("boot-nothing", entry!("root (hd0,0)\nboot\nkernel /boot/k1 a")),
    differs("nothing-to-boot", entry!("root (hd0,0)"), ("k3", ""), NOBODY),
    case(
        "no-command-of-ours",
        "title a\nroot (hd0,0)\nquiet\ngfxmenu /boot/x\nkernel /boot/k1 a\nsearch --set x\n",
    ),
    case("header-in-an-entry", entry!("kernel /boot/k1 a\ntimeout 5")),
    case("default-in-an-entry", entry!("default 0\nkernel /boot/k1 a")),
    case("header-behind-boot", "title a\nkernel /boot/k1 a\nboot\nhiddenmenu\n"),
    case(
        "header",
        "color cyan/blue white/blue\nhiddenmenu\npassword --md5 $1$x\ntitle a\nkernel /boot/k1 a\n",
    ),
    case(
        "locked",
        "password x\nfallback 1\ntitle a\nlock\nkernel /boot/k1\ntitle b\nkernel /boot/k2 b\n",
    ),
    case("locked-without-a-password", "title a\nlock\nkernel /boot/k1 a\n"),
    case(
        "locked-and-no-fallback",
        "password x\ntitle a\nlock\nkernel /boot/k1\ntitle b\nkernel /boot/k2 b\n",
    ),
    case(
        "password-in-an-entry",
        "title a\npassword x\nkernel /boot/k1\ntitle b\nkernel /boot/k2 b\n",
    ),
    differs("pause", "title a\npause PAUSED\nkernel /boot/k1 a\n", ("k1", ""), NOBODY),
    case("map", "title a\nmap (hd0) (hd1)\nmap (hd1) (hd0)\nmakeactive\nkernel /boot/k1 a\n"),
    case("map-of-none", entry!("map hd0 hd1\nkernel /boot/k1 a")),
    case("hide", "title a\nunhide (hd0,0)\nhide (hd0,1)\nkernel /boot/k1 a\n"),
    case("print", "title a\nprint Booting\ncat /boot/i1\nclear\nkernel /boot/k1 a\n"),
    case("cat-of-none", entry!("cat /boot/gone\nkernel /boot/k1 a")),
    case("memory", "title a\nuppermem 60000\nkernel /boot/k1 a mem=48M\ninitrd /boot/i1\n"),
    case("memory-of-no-number", entry!("uppermem all\nkernel /boot/k1 a")),
    case("chainloader-of-none", entry!("rootnoverify (hd0,0)\nmakeactive\nchainloader +1")),
    case("chainloader-before", "title a\nchainloader --force +1\nkernel /boot/k1 a\n"),
    case("configfile-gone", entry!("configfile /boot/gone")),
    with(
        "configfile",
        "default 1\ntitle a\nkernel /boot/k1\ntitle b\nroot (hd0,0)\nconfigfile /boot/other/menu\n",
        &[
            (
                "/boot/other/menu",
                "timeout 0\ndefault saved\ntitle c\nkernel /boot/k2\ntitle d\nkernel /boot/k3 d\n",
            ),
            ("/boot/other/default", "1\n"),
        ],
    ),
    with(
        "configfile-in-turn",
        "title a\nconfigfile /boot/b\n",
        &[
            (
                "/boot/b",
                "timeout 0\nfallback 1\ntitle b\nkernel /boot/gone\ntitle c\nconfigfile (hd0,0)/boot/c\n",
            ),
            ("/boot/c", "timeout 0\ntitle d\nroot (hd0,1)\nkernel /k5 d\n"),
        ],
    ),
    with(
        "savedefault",
        "title a\nkernel /boot/k1 a\nsavedefault\n",
        &[("/boot/grub/default", "0\n#\n#\n#\n#\n#\n")],
    ),
    with(
        "savedefault-number",
        "fallback 1\ntitle a\nsavedefault 1\nkernel /boot/k1 a\ntitle b\nkernel /boot/k2\n",
        &[("/boot/grub/default", "0\n#\n#\n#\n#\n#\n")],
    ),
    with(
        "savedefault-fallback",
        "fallback 1\ntitle a\nsavedefault fallback\nkernel /boot/k1 a\ntitle b\nkernel /boot/k2\n",
        &[("/boot/grub/default", "0\n#\n#\n#\n#\n#\n")],
    ),
    with(
        "savedefault-fallback-of-none",
        "fallback 1\ndefault 1\ntitle a\nkernel /boot/k1 a\ntitle b\nsavedefault fallback\nkernel /boot/k2\n",
        &[("/boot/grub/default", "0\n#\n#\n#\n#\n#\n")],
    ),
    with(
        "savedefault-once",
        entry!("kernel /boot/k1 a\nsavedefault --default=1 --once"),
        &[("/boot/grub/default", "0\n#\n#\n#\n#\n#\n")],
    ),
    differs(
        "savedefault-without-a-file",
        entry!("kernel /boot/k1 a\nsavedefault"),
        ("k1", ""),
        "PV-GRUB writes nothing to a root volume: what is saved is remembered beside it, or not at all",
    ),
    // What is tried instead.
    case(
        "fallbacks",
        "fallback 1 2\ntitle a\nkernel /boot/gone\ntitle b\nroot (hd0,7)\ntitle c\nkernel /boot/k3 c\n",
    ),
    case(
        "fallbacks-with-equals",
        "fallback=2 1\ntitle a\nkernel /boot/gone\ntitle b\nkernel /boot/k2\ntitle c\nkernel /boot/k3 c\n",
    ),
    case(
        "fallbacks-with-commas",
        "fallback 2,1\ntitle a\nkernel /boot/gone\ntitle b\nkernel /boot/k2 b\ntitle c\nkernel /boot/k3 c\n",
    ),
    case(
        "fallback-of-words",
        "fallback one 1\ntitle a\nkernel /boot/gone\ntitle b\nkernel /boot/k2\n",
    ),
    case(
        "fallback-of-words-at-the-end",
        "fallback 1 two\ntitle a\nkernel /boot/gone\ntitle b\nkernel /boot/k2\n",
    ),
    case(
        "fallback-twice",
        "fallback 2\nfallback 1\ntitle a\nkernel /boot/gone\ntitle b\nkernel /boot/k2 b\ntitle c\nkernel /boot/k3\n",
    ),
    case(
        "fallback-repeated",
        "fallback 1 1 2\ntitle a\nkernel /boot/gone\ntitle b\nkernel /boot/gone\ntitle c\nkernel /boot/k3 c\n",
    ),
    case(
        "fallback-repeated-at-the-end",
        "fallback 2 1 2\ntitle a\nkernel /boot/gone\ntitle b\nkernel /boot/k2 b\ntitle c\nkernel /boot/gone\n",
    ),
    case(
        "fallback-is-the-default",
        "default 1\nfallback 1 0\ntitle a\nkernel /boot/k1 a\ntitle b\nkernel /boot/gone\n",
    ),
    case(
        "fallback-to-none",
        "fallback 1\ntitle a\nkernel /boot/gone\ntitle b\nkernel /boot/gone\ntitle c\nkernel /boot/k3\n",
    ),
    case("no-fallback", "title a\nkernel /boot/gone\ntitle b\nkernel /boot/k2\n"),
    case("no-entries", "default 0\nkernel /boot/k1\n"),
];
