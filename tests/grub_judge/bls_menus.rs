//! Menus of our own writing for GRUB 2.14's `blscfg`: entries as kernel-install and grubby write
//! them, and as they don't.

use super::menus::{Case, with};

type Files = &'static [(&'static str, &'static str)];

/// What distributions' grub.cfg does about its entries, shortened.
const FEDORA: &str = "load_env\nif [ -z \"${kernelopts}\" ]; then\n set kernelopts=\"rd=LABEL=x ro\"\nfi\n\
    if [ \"${next_entry}\" ]; then set default=\"${next_entry}\"; set next_entry=; save_env next_entry\n\
    else set default=\"${saved_entry}\"; fi\ninsmod blscfg\nblscfg\n";

/// Two entries, of which the second is newer.
const TWO: Files = &[
    (
        "/loader/entries/0123456789abcdef-6.8.9-300.fc40.x86_64.conf",
        "title Fedora Linux (6.8.9-300.fc40.x86_64) 40\nversion 6.8.9-300.fc40.x86_64\nlinux /boot/k1\n\
         initrd /boot/i1\noptions old quiet\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class fedora\n",
    ),
    (
        "/loader/entries/0123456789abcdef-6.8.10-300.fc40.x86_64.conf",
        "title Fedora Linux (6.8.10-300.fc40.x86_64) 40\nversion 6.8.10-300.fc40.x86_64\nlinux /boot/k2\n\
         initrd /boot/i2\noptions new quiet\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class fedora\n",
    ),
];

/// Five, some of whose names are alike.
const FIVE: Files = &[
    ("/loader/entries/b-2.conf", "title b2\nlinux /boot/k2\noptions from b-2\n"),
    ("/loader/entries/a-10.conf", "title a10\nlinux /boot/k1\noptions from a-10\n"),
    ("/loader/entries/c.conf", "title c\nlinux /boot/k3\noptions from c\n"),
    ("/loader/entries/a-9.conf", "title a9\nlinux /boot/k1\noptions from a-9\n"),
    ("/loader/entries/b-2+3-1.conf", "title counted\nlinux /boot/k3\noptions from b-2+3-1\n"),
];

/// One entry, of these lines.
macro_rules! one {
    ($name:literal, $script:literal, $entry:literal) => {
        with($name, concat!($script, "\nblscfg\n"), &[("/loader/entries/it.conf", $entry)])
    };
}

/// A case in which Spore boots something else on purpose.
const fn differs(
    case: Case,
    kernel: &'static str,
    ramdisk: &'static str,
    why: &'static str,
) -> Case {
    Case { differs: Some((kernel, ramdisk, why)), ..case }
}

pub const CASES: &[Case] = &[
    with("newest", "blscfg\n", TWO),
    with("fedora", FEDORA, TWO),
    with(
        "fedora-saved",
        FEDORA,
        &[
            ("/boot/grub/grubenv", "saved_entry=old-1\nkernelopts=rd=LABEL=y ro\n"),
            (
                "/loader/entries/old-1.conf",
                "title old\nlinux /boot/k1\ninitrd /boot/i1\noptions $kernelopts quiet\n",
            ),
            ("/loader/entries/old-2.conf", "title new\nlinux /boot/k2\noptions $kernelopts\n"),
        ],
    ),
    with(
        "fedora-next",
        FEDORA,
        &[
            ("/boot/grub/grubenv", "saved_entry=a\nnext_entry=b\n"),
            ("/loader/entries/a.conf", "title a\nlinux /boot/k1\n"),
            ("/loader/entries/b.conf", "title b\nlinux /boot/k2\n"),
        ],
    ),
    with("by-number", "set default=3\nblscfg\n", FIVE),
    with("by-id", "set default=a-9\nblscfg\n", FIVE),
    with("by-id-with-its-ending", "set default=a-9.conf\nblscfg\n", FIVE),
    with("by-title", "set default=counted\nblscfg\n", FIVE),
    with("by-id-with-a-counter", "set default=b-2+3-1\nblscfg\n", FIVE),
    with("first-of-five", "blscfg\n", FIVE),
    with("second-of-five", "set default=1\nblscfg\n", FIVE),
    with("third-of-five", "set default=2\nblscfg\n", FIVE),
    with("last-of-five", "set default=4\nblscfg\n", FIVE),
    with("default-of-none", "set default=x\nblscfg\n", FIVE),
    with(
        "rescue-last",
        "set default=2\nblscfg\n",
        &[
            ("/loader/entries/0f-0-rescue.conf", "title rescue\nlinux /boot/k3\n"),
            ("/loader/entries/0f-5.14.0-70.el9.conf", "title older\nlinux /boot/k1\n"),
            ("/loader/entries/0f-5.14.0-427.el9.conf", "title newer\nlinux /boot/k2\n"),
        ],
    ),
    with(
        "versions",
        "blscfg\n",
        &[
            ("/loader/entries/f-6.1~rc1.conf", "title rc\nlinux /boot/k1\n"),
            ("/loader/entries/f-6.1.conf", "title 6.1\nlinux /boot/k2\n"),
            ("/loader/entries/f-6.1.conf.rpmsave", "title saved\nlinux /boot/k3\n"),
        ],
    ),
    with(
        "not-entries",
        "blscfg\n",
        &[
            ("/loader/entries/z.conf~", "title z\nlinux /boot/k1\n"),
            ("/loader/entries/y.txt", "title y\nlinux /boot/k1\n"),
            ("/loader/entries/x.CONF", "title x\nlinux /boot/k1\n"),
            ("/loader/entries/w.conf/a", "title w\nlinux /boot/k1\n"),
            ("/loader/entries/.v.conf", "title v\nlinux /boot/k3\n"),
            ("/loader/entries/a.conf", "title a\nlinux /boot/k2\n"),
        ],
    ),
    with(
        "hidden-by-number",
        "set default=1\nblscfg\n",
        &[
            ("/loader/entries/.v.conf", "title v\nlinux /boot/k3\n"),
            ("/loader/entries/a.conf", "title a\nlinux /boot/k2\n"),
        ],
    ),
    with(
        "around",
        "menuentry before { linux /boot/k1 before\n}\nblscfg\nmenuentry after { linux /boot/k3 after\n}\n",
        TWO,
    ),
    with(
        "around-the-second",
        "set default=1\nmenuentry before { linux /boot/k1 before\n}\nblscfg\n",
        TWO,
    ),
    with(
        "around-the-last",
        "set default=3\nmenuentry before { linux /boot/k1 before\n}\nblscfg\nmenuentry after { linux /boot/k3 after\n}\n",
        TWO,
    ),
    with(
        "in-a-submenu",
        "set default='1>1'\nmenuentry a { linux /boot/k3\n}\nsubmenu more { blscfg\n}\n",
        TWO,
    ),
    with("default-alone", "set default=1\nexport default\nblscfg --show-default\n", FIVE),
    with("default-alone-by-title", "set default=a9\nblscfg -d\n", FIVE),
    with("others-alone", "set default=1\nblscfg --show-non-default\nset default=0\n", FIVE),
    with("one-alone", "blscfg --entry a-9.conf\n", FIVE),
    with("one-alone-short", "blscfg -e b-2.conf\n", FIVE),
    with(
        "elsewhere",
        "blscfg --path /other\n",
        &[("/other/a.conf", "title a\nlinux /boot/k2 \noptions a b\n")],
    ),
    with(
        "elsewhere-by-a-file",
        "blscfg -p (hd0,msdos1)/other/a.conf\n",
        &[("/other/a.conf", "title a\nlinux /boot/k2\n")],
    ),
    with("elsewhere-nothing", "blscfg -p /other\nmenuentry a { linux /boot/k3\n}\n", TWO),
    with(
        "elsewhere-or-here",
        "blscfg --path /other --enable-fallback\nmenuentry a { linux /boot/k3\n}\n",
        TWO,
    ),
    with("nothing", "blscfg\nmenuentry a { linux /boot/k3 a\n}\n", &[]),
    differs(
        with(
            "below-boot",
            "blscfg\nmenuentry a { linux /boot/k3 a\n}\n",
            &[("/boot/loader/entries/a.conf", "title a\nlinux /boot/k2\n")],
        ),
        "k2",
        "",
        "Fedora's blscfg finds what is below /boot",
    ),
    differs(
        with(
            "default-as-fedora-has-it",
            "set default=a-9\nblscfg default\nset default=0\nmenuentry a { linux /boot/k3\n}\n",
            FIVE,
        ),
        "k1",
        "",
        "the words `default` and `non-default` are Fedora's",
    ),
    with(
        "other-root",
        "set root=hd0,msdos2\nblscfg -p (hd0,msdos1)/other\n",
        &[("/other/a.conf", "title a\nlinux /k5\ninitrd /boot/i4\noptions a\n")],
    ),
    one!("without-a-title", "set default=/boot/k1", "linux /boot/k1\noptions a\n"),
    one!("without-a-kernel", "menuentry a { linux /boot/k3\n}", "title a\noptions a\n"),
    one!(
        "kernel-gone",
        "menuentry a { linux /boot/k3\n}\nset default=1\nset fallback=0",
        "title b\nlinux /boot/gone\n"
    ),
    one!("order-of-keys", "", "options b\ninitrd /boot/i1\nlinux /boot/k1\ntitle b\n"),
    one!(
        "keys-twice",
        "",
        "title a\ntitle b\nlinux /boot/k1\nlinux /boot/k2\noptions one two\noptions three four\n"
    ),
    one!("ramdisks", "", "title a\nlinux /boot/k1\ninitrd /boot/i1\ninitrd /boot/i2\n"),
    one!("ramdisks-in-a-line", "", "title a\nlinux /boot/k1\ninitrd /boot/i2 /boot/i1\n"),
    one!("empty-line", "", "title a\nlinux /boot/k1\n\noptions a b\ninitrd /boot/i1\n"),
    one!("key-alone", "", "title a\nlinux /boot/k1\noptions\ninitrd /boot/i1\n"),
    one!("key-and-a-space", "", "title a\nlinux /boot/k1\noptions \ninitrd /boot/i1\n"),
    one!(
        "comments",
        "",
        "# title b\n  # x\n#\ntitle a\nlinux /boot/k1 # here\noptions a # b\n#initrd /boot/i1\n"
    ),
    one!("blanks", "", "  title\ta\n\tlinux   /boot/k1  \n options \t a   b  \ninitrd\t/boot/i1\n"),
    one!("windows-lines", "", "title a\r\nlinux /boot/k1\r\noptions a b\r\ninitrd /boot/i1\r\n"),
    one!("no-newline-at-the-end", "", "title a\nlinux /boot/k1\noptions a b"),
    one!(
        "other-keys",
        "",
        "title a\nversion 1\nmachine-id 0123\nsort-key x\narchitecture x64\nid other\ngrub_hotkey a\nlinux /boot/k1\noptions ab\n"
    ),
    one!(
        "id-is-the-name",
        "menuentry a { linux /boot/k3\n}\nset default=it",
        "title b\nid other\nlinux /boot/k2\n"
    ),
    one!("devicetree", "", "title a\nlinux /boot/k1\ndevicetree /boot/dtb\noptions ab\n"),
    one!(
        "variables",
        "set kernelopts='ro quiet'\nset tuned_params=tuned",
        "title a\nlinux /boot/k1\noptions rd=x $kernelopts $tuned_params last\n"
    ),
    one!(
        "variable-at-the-end",
        "set kernelopts='ro quiet'",
        "title a\nlinux /boot/k1\noptions rd=x $kernelopts\n"
    ),
    one!(
        "variable-first",
        "set kernelopts='ro quiet'",
        "title a\nlinux /boot/k1\noptions $kernelopts debug\n"
    ),
    one!(
        "variable-and-a-letter",
        "set kernelopts='ro quiet'",
        "title a\nlinux /boot/k1\noptions $kernelopts 3\n"
    ),
    one!(
        "variable-in-a-word",
        "set id=abc",
        "title a\nlinux /boot/k1\noptions rd=UUID=$id/x more\n"
    ),
    one!(
        "variables-in-a-row",
        "set aa=11\nset bb=22",
        "title a\nlinux /boot/k1\noptions x=$aa$bb more\n"
    ),
    one!(
        "variables-that-are-not-set",
        "set bb=22",
        "title a\nlinux /boot/k1\noptions x=1 $none $bb more\n"
    ),
    one!(
        "variables-that-are-not-set-in-a-row",
        "set bb=22",
        "title a\nlinux /boot/k1\noptions $none$bb more\n"
    ),
    one!("variable-in-braces", "set bb=22", "title a\nlinux /boot/k1\noptions x=${bb} more\n"),
    one!("variable-of-a-letter", "set b=22", "title a\nlinux /boot/k1\noptions more $b\n"),
    one!("letter-alone", "", "title a\nlinux /boot/k1\noptions s\n"),
    one!(
        "variable-in-the-ramdisk",
        "set tuned_initrd=/boot/i2",
        "title a\nlinux /boot/k1\ninitrd /boot/i1 $tuned_initrd\n"
    ),
    one!(
        "variable-in-the-ramdisk-not-set",
        "",
        "title a\nlinux /boot/k1\ninitrd /boot/i1 $tuned_initrd\n"
    ),
    one!("variable-in-the-kernel", "set kernel=k2", "title a\nlinux /boot/$kernel\n"),
    one!(
        "root-in-the-kernel",
        "",
        "title a\nlinux ($root)/boot/k1\ninitrd ($root)/boot/i1\noptions ab\n"
    ),
    one!(
        "variable-in-the-title",
        "set version=5\nset default='a $version'",
        "title a $version\nlinux /boot/k1\noptions title=$version\n"
    ),
    one!(
        "variable-set-behind",
        "set late=early",
        "title a\nlinux /boot/$kernel\noptions v=$late w\n"
    ),
    with(
        "variable-set-later",
        "set late=early\nblscfg\nset late=late\nset kernel=k3\n",
        &[("/loader/entries/a.conf", "title a\nlinux /boot/$kernel\noptions v=$late more\n")],
    ),
    one!("quotes", "", "title \"a b\"\nlinux /boot/k1\noptions a=\"b c\" 'd e' f\\ g \"h\n"),
    one!(
        "quotes-that-close",
        "",
        "title a\nlinux /boot/k1\noptions dyndbg=\"file a +p\" 'd  e' x\n"
    ),
    one!("semicolon", "", "title a\nlinux /boot/k1\noptions a; echo b\n"),
    one!("brace", "", "title a\nlinux /boot/k1\noptions a }b more\n"),
    one!("users", "set grub_users=root", "title a\ngrub_users $grub_users\nlinux /boot/k1\n"),
    one!(
        "users-and-superusers",
        "set superusers=root\nexport superusers\npassword root x\nset grub_users=root",
        "title a\ngrub_users $grub_users\nlinux /boot/k1\n"
    ),
    one!(
        "superusers-alone",
        "set superusers=root\nexport superusers\npassword root x",
        "title a\ngrub_users $grub_users\nlinux /boot/k1\n"
    ),
    one!(
        "savedefault",
        "function savedefault {\n set ran=1\n set root=hd0,msdos2\n}\nset blsuki_save_default=true",
        "title a\nlinux /k5\noptions more\n"
    ),
    one!(
        "savedefault-not",
        "function savedefault {\n set root=hd0,msdos2\n}\nset blsuki_save_default=no",
        "title a\nlinux /boot/k1\noptions more\n"
    ),
    one!(
        "arguments",
        "",
        "title a\ngrub_arg b\ngrub_arg c\nlinux /boot/k1\noptions args=$1 more\n"
    ),
    one!("efi", "menuentry b { linux /boot/k3\n}\nset default=1", "title a\nefi /EFI/x.efi\n"),
    with(
        "boot-counter",
        "load_env\nif [ \"${boot_counter}\" -a \"${boot_success}\" = 0 ]; then\n if [ \"${boot_counter}\" = 0 ]; then set default=1; fi\nfi\nblscfg\n",
        &[
            ("/boot/grub/grubenv", "boot_counter=0\nboot_success=0\n"),
            ("/loader/entries/a-1.conf", "title old\nlinux /boot/k1\n"),
            ("/loader/entries/a-2.conf", "title new\nlinux /boot/k2\n"),
        ],
    ),
];
