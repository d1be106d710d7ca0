//! Menus of our own writing, which use what menus of distributions and of people use.

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Mbr,
    Gpt,
    /// Not at all: one file system.
    None,
}

/// A menu, and what is beside it on partition 1.
pub struct Case {
    pub name: &'static str,
    pub table: Table,
    pub menu: &'static str,
    pub files: &'static [(&'static str, &'static str)],
    /// What Spore does instead, on purpose: the kernel and the ramdisk that it boots, and why.
    pub differs: Option<(&'static str, &'static str, &'static str)>,
}

pub const fn case(name: &'static str, menu: &'static str) -> Case {
    Case { name, table: Table::Mbr, menu, files: &[], differs: None }
}

pub const fn with(
    name: &'static str,
    menu: &'static str,
    files: &'static [(&'static str, &'static str)],
) -> Case {
    Case { name, table: Table::Mbr, menu, files, differs: None }
}

/// A case in which Spore boots something else on purpose.
pub const fn differs(
    name: &'static str,
    menu: &'static str,
    (kernel, ramdisk): (&'static str, &'static str),
    why: &'static str,
) -> Case {
    Case { differs: Some((kernel, ramdisk, why)), ..case(name, menu) }
}

/// Three entries, for what chooses one.
macro_rules! three {
    ($before:literal) => {
        concat!(
            $before,
            "\nmenuentry 'one' --class a --id first { linux /boot/k1 one\n initrd /boot/i1\n}\n",
            "submenu 'more > two' --id more {\n menuentry 'two' --id second { linux /boot/k2 two\n }\n",
            " menuentry \"three\" { linux /boot/k3 three\n initrd /boot/i1 /boot/i2\n }\n}\n",
            "menuentry \"four\" { linux /boot/k2 four\n }\n",
        )
    };
}

/// An entry that shows variables.
macro_rules! shows {
    ($before:literal, $words:literal) => {
        concat!($before, "\nmenuentry x { linux /boot/k1 ", $words, "\n}\n")
    };
}

pub const CASES: &[Case] = &[
    case("first", three!("")),
    with(
        "update-grub",
        include_str!("debian.cfg"),
        &[("/boot/grub/grubenv", "saved_entry=gnulinux-advanced>gnulinux-k2\n")],
    ),
    Case { table: Table::Gpt, ..case("gpt", three!("set default=3")) },
    Case { table: Table::None, ..case("undivided", three!("set default=0")) },
    case("by-index", three!("set default=\"3\"")),
    case("by-title", three!("set default=four")),
    case("by-id", three!("set default=first")),
    case("in-submenu", three!("set default='1>1'")),
    case("in-submenu-by-ids", three!("set default='more>second'")),
    case("in-submenu-by-titles", three!("set default='more >> two>three'")),
    case("submenu-itself", three!("set default=1")),
    case("default-of-none", three!("set default=nothing")),
    case("default-beyond", three!("set default=9")),
    case(
        "fallback",
        concat!(
            "set default=0\nset fallback=2\nmenuentry a { linux /boot/gone\n}\n",
            "menuentry b { linux /boot/k1\n}\nmenuentry c { linux /boot/k3 it\n}\n"
        ),
    ),
    case(
        "fallbacks",
        concat!(
            "set fallback=\"1 2\"\nmenuentry a { linux /boot/gone\n}\n",
            "menuentry b { linux /boot/gone2\n}\nmenuentry c { linux /boot/k3 it\n}\n"
        ),
    ),
    with(
        "next-entry",
        concat!(
            "if [ -s $prefix/grubenv ]; then load_env\nfi\n",
            "if [ \"${next_entry}\" ]; then\n set default=\"${next_entry}\"\n set next_entry=\n save_env next_entry\nelse\n",
            " set default=0\nfi\nmenuentry a { linux /boot/k1\n}\nmenuentry b --id bb { linux /boot/k2\n}\n"
        ),
        &[("/boot/grub/grubenv", "next_entry=bb\n")],
    ),
    with(
        "saved-entry",
        three!("load_env\nset default=\"${saved_entry}\""),
        &[("/boot/grub/grubenv", "saved_entry=more>second\nother=a\\\\b\n")],
    ),
    case(
        "elif",
        shows!(
            "set a=2\nif [ $a = 1 ]; then b=one; elif [ $a = 2 ]\nthen b=two\nelse b=other; fi",
            "$b"
        ),
    ),
    case(
        "numbers",
        shows!(
            "if [ 10 -gt 9 ]; then r=1; fi\nif [ 1 -le 1 -a 2 -ne 3 ]; then r=${r}2; fi\nif [ -1 -lt 0 ]; then r=${r}3; fi\nif [ 5 -eq 05 ]; then r=${r}4; fi\nif [ 2 -ge 3 ]; then r=${r}5; fi",
            "r=$r"
        ),
    ),
    case(
        "and-or",
        shows!(
            "if [ a = b -a c = c -o d = d ]; then r=1; fi\nif [ a = a -o b = c -a d = e ]; then r=${r}2; fi\nif [ a = b -o c = d -a e = e ]; then r=${r}3; fi",
            "r=$r"
        ),
    ),
    case(
        "parentheses",
        shows!(
            "if [ ( a = b -o c = c ) -a ( d = d ) ]; then r=1; fi\nif [ ! ( a = a ) -o b = c ]; then r=${r}2; fi\nif [ a = b -a ( c = c -o d = d ) ]; then r=${r}3; fi",
            "r=$r"
        ),
    ),
    case(
        "nothing-tested",
        shows!(
            "if [ ]; then r=1; fi\nif [ $none ]; then r=${r}2; fi\nif [ \"$none\" ]; then r=${r}3; fi\nif [ ! -z \"$none\" ]; then r=${r}4; fi\nif test x; then r=${r}5; fi\nif [ -n \"$none\" -o -z a ]; then r=${r}6; fi",
            "r=$r"
        ),
    ),
    case(
        "files-tested",
        shows!(
            "if [ -f /boot/k1 ]; then r=1; fi\nif [ -f /boot ]; then r=${r}2; fi\nif [ -d /boot ]; then r=${r}3; fi\nif [ -s /boot/none ]; then r=${r}4; fi\nif [ -e ($root)/boot/i1 ]; then r=${r}5; fi\nif [ -s (hd0,msdos2)/k5 ]; then r=${r}6; fi\nif [ ! -e /none ]; then r=${r}7; fi\nif [ -d /boot/k1 ]; then r=${r}8; fi",
            "r=$r"
        ),
    ),
    case(
        "strings-compared",
        shows!(
            "if [ a '<' b ]; then r=1; fi\nif [ b '<=' a ]; then r=${r}2; fi\nif [ a == a ]; then r=${r}3; fi\nif [ a1 -plt b2 ]; then r=${r}4; fi\nif [ a10 -pgt a9 ]; then r=${r}5; fi\nif [ = = = ]; then r=${r}6; fi\nif [ -z = -z ]; then r=${r}7; fi",
            "r=$r"
        ),
    ),
    case("function-without-an-end", shows!("function f { set a=$# }\nf x\nset b=2", "a=$a b=$b")),
    case(
        "negated",
        shows!(
            "if ! false; then r=1; fi\nif ! true; then r=${r}2; fi\nif ! [ a = b ]; then r=${r}3; fi\nif nothing_of_that_name; then r=${r}4; fi\nnothing_of_that_name\nif [ $? = 0 ]; then r=${r}5; fi\nif ! nothing_of_that_name; then r=${r}6; fi",
            "r=$r"
        ),
    ),
    case("status", shows!("true\na=$?\nfalse\nb=$?\n[ a = b ]\nc=$?", "$a $b $c")),
    case("function", shows!("function f { set r=\"$#-$1-$2-${3}-\"; }\nf one 'two words'", "$r")),
    case(
        "function-words",
        shows!(
            "function g { set n=$#; }\nfunction f { g $@; set a=$n; g \"$@\"; set b=$n; g \"$*\"; set c=$n; shift; set d=$1; }\nf one 'two words' three",
            "$a $b $c $d"
        ),
    ),
    case(
        "function-returns",
        shows!(
            "function f { return 1; set a=no; }\nfunction g { return 0; }\nif f; then r=1; fi\nif g; then r=${r}2; fi",
            "r=$r $a"
        ),
    ),
    case(
        "function-in-entry",
        concat!(
            "function pick { linux /boot/$1 by=$2\n}\n",
            "menuentry a { pick k3 f\n initrd /boot/i2 }\n"
        ),
    ),
    case("for", shows!("for a in one 'two words' three; do set r=\"${r}/$a\"; done", "$r")),
    case(
        "for-words",
        shows!(
            "set l='a b  c'\nfor a in $l x; do\n if [ $a = b ]; then continue; fi\n if [ $a = x ]; then break; fi\n set r=$r.$a\ndone",
            "$r"
        ),
    ),
    case(
        "while",
        shows!(
            "while [ \"$r\" != aaaa ]; do set r=a$r; done\nuntil [ \"$s\" = bb ]; do set s=b$s\ndone",
            "$r $s"
        ),
    ),
    with(
        "source",
        shows!("source /boot/grub/more.cfg\n. $prefix/again.cfg", "$a $b $c"),
        &[
            ("/boot/grub/more.cfg", "set a=1\nset b=$config_directory\n"),
            ("/boot/grub/again.cfg", "set c=3"),
        ],
    ),
    with(
        "source-gone",
        shows!(
            "source /boot/grub/none.cfg\nif [ -f ${config_directory}/custom.cfg ]; then\n source ${config_directory}/custom.cfg\nelif [ -z \"${config_directory}\" -a -f $prefix/custom.cfg ]; then\n source $prefix/custom.cfg\nfi",
            "$r"
        ),
        &[("/boot/grub/custom.cfg", "set r=custom\n")],
    ),
    with(
        "source-entries",
        three!("source /boot/grub/more.cfg\nset default=1"),
        &[("/boot/grub/more.cfg", "menuentry before { linux /boot/k3 before\n}\n")],
    ),
    with(
        "configfile",
        "set a=1\nset b=2\nexport b\nset default=5\nconfigfile /boot/grub/other.cfg\nmenuentry a { linux /boot/k1\n}\n",
        &[(
            "/boot/grub/other.cfg",
            "set timeout=0\nmenuentry b { linux /boot/k2 a=$a b=$b d=$default\n}\n",
        )],
    ),
    with(
        "configfile-in-entry",
        "menuentry a { set root=hd0,msdos2\n configfile (hd0,msdos1)/boot/grub/other.cfg\n}\n",
        &[(
            "/boot/grub/other.cfg",
            "set timeout=0\nset default=1\nmenuentry b { linux /boot/k1\n}\nmenuentry c { linux /k5 r=$root }\n",
        )],
    ),
    with(
        "configfile-empty",
        "configfile /boot/grub/other.cfg\nmenuentry a { linux /boot/k1\n}\n",
        &[("/boot/grub/other.cfg", "set x=y\n")],
    ),
    with(
        "photon",
        include_str!("photon.cfg"),
        &[
            (
                "/boot/photon.cfg",
                "photon_cmdline=init=/lib/systemd/systemd ro loglevel=3\nphoton_linux=k2\nphoton_initrd=i2\n",
            ),
            ("/boot/systemd.cfg", "systemd_cmdline=net.ifnames=0\n"),
        ],
    ),
    with(
        "load-env-names",
        shows!(
            "load_env -f /boot/env a c\nload_env --file /boot/none\nif [ $? = 0 ]; then r=wrong; fi",
            "$a $b $c $r"
        ),
        &[("/boot/env", "a=1\nb=2\nc=3\n")],
    ),
    with(
        "no-environment-block",
        shows!("if load_env -f /boot/env.txt; then r=1; fi", "r=$r a=$a"),
        &[("/boot/env.txt", "a=1\n")],
    ),
    with("initrdfail", include_str!("initrdfail.cfg"), &[("/boot/grub/grubenv", "")]),
    with(
        "initrdfail-again",
        include_str!("initrdfail.cfg"),
        &[("/boot/grub/grubenv", "initrdfail=1\n")],
    ),
    case(
        "by-uuid",
        "search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1 --hint='hd0,msdos1' 22222222-2222-4222-8222-222222222222\nmenuentry a { linux /k5 $root\n}\n",
    ),
    case(
        "by-uuid-gone",
        "search --no-floppy --fs-uuid --set=root 99999999-2222-4222-8222-222222222222\nif [ $? = 0 ]; then r=found; fi\nmenuentry a { linux /boot/k1 $root $r\n}\n",
    ),
    case(
        "by-label",
        "search --label --set=other data\nmenuentry a { linux ($other)/k5 $other $root\n}\n",
    ),
    case("by-file", "search --file --set=root /marker\nmenuentry a { linux /k5 $root\n}\n"),
    case(
        "set-apart",
        "search --fs-uuid --set root 22222222-2222-4222-8222-222222222222\nmenuentry a { linux /k5 $root\n}\n",
    ),
    case(
        "short-options",
        "search -n -u 22222222-2222-4222-8222-222222222222 -s\nmenuentry a { linux /k5 $root\n}\n",
    ),
    case("set-nothing", "search --label data\nmenuentry a { linux /boot/k1 $root\n}\n"),
    case(
        "search-by-name",
        "search.fs_uuid 22222222-2222-4222-8222-222222222222 root hd0,msdos2\nsearch.fs_label root first\nsearch.file /marker third\nmenuentry a { linux /k5 $root $first $third\n}\n",
    ),
    Case {
        table: Table::Gpt,
        ..case(
            "gpt-names",
            "search --label --set=root data\nmenuentry a { linux /k5 $root\n initrd (hd0,gpt1)/boot/i1 /boot/i4\n}\n",
        )
    },
    case(
        "probe",
        shows!(
            "probe --set=a --fs-uuid $root\nprobe -s b --label (hd0,msdos2)\nprobe --set=c --fs $root\nprobe --set=d --partmap hd0,msdos1\nif probe -u (hd0,msdos9) --set=e; then r=1; fi",
            "$a $b $c $d $e $r"
        ),
    ),
    case(
        "quoted",
        "menuentry a { linux /boot/k1 a=\"b c\" 'd e' \"f\\\"g\" 'h\\i' \\\"j \"k\\\\l\" m\\ n \"\" o\n}\n",
    ),
    case(
        "words",
        shows!(
            "set a='1 2'\nset b=\" 3\"\nset c=\"4 \"",
            "$a x$a\"$a\" y$b z${c}w \"q$b\" '$a' $none \"$none\""
        ),
    ),
    case(
        "escapes",
        shows!("set a=x\\$y\nset b=\"\\$a\"\nset c='it'\\''s'", "$a $b $c \\x41 \"t\\tu\""),
    ),
    case(
        "continued",
        "set a=1 # a comment\n# another \\\nset b=2\\\n3\nmenuentry a {\n linux /boot/k1 $a $b \\\n  more # none\n}\n",
    ),
    case(
        "semicolons",
        "set a=1; set b=2;\nmenuentry a { set c=3; linux /boot/k1 $a $b $c; initrd /boot/i1; }\n",
    ),
    case(
        "mistake-at-the-end",
        "menuentry a { linux /boot/k1\n}\nset default=1\nmenuentry b { linux /boot/k2 b\n}\nif [ x ; then done\n",
    ),
    case(
        "unclosed-at-the-end",
        "menuentry a { linux /boot/k1\n}\nmenuentry b { linux /boot/k2\n}\nset default=1\nmenuentry c { linux /boot/k3\n",
    ),
    case(
        "if-without-fi",
        "menuentry a { linux /boot/k1\n}\nset default=1\nmenuentry b { linux /boot/k2\n}\nif true; then\n set default=0\n",
    ),
    case(
        "brace-too-many",
        "menuentry a { linux /boot/k1\n}\n}\nmenuentry b { linux /boot/k2\n}\nset default=1\n",
    ),
    case(
        "mistake-in-the-middle",
        "menuentry a { linux /boot/k1\n}\nset x | y\nmenuentry b { linux /boot/k2\n}\nset default=1\nfi\nmenuentry c { linux /boot/k3\n}\n",
    ),
    case(
        "mistake-in-an-entry",
        "menuentry a {\n linux /boot/k1 ; ; true & false\n}\nmenuentry b { linux /boot/k2 b\n}\n",
    ),
    case("unclosed-quote", "menuentry a { linux /boot/k1\n}\nset x=\"y\n"),
    case(
        "entry-arguments",
        "menuentry 'the title' --class x k2 'last words' { linux /boot/$2 \"$1\" $3 $#\n}\n",
    ),
    case(
        "set-behind",
        "menuentry a { linux /boot/k1 $x\n}\nmenuentry b { linux /k5 $x\n}\nset x=late\nset default=1\nset root=(hd0,msdos2)\n",
    ),
    case(
        "exported",
        "set a=1\nset b=2\nexport b\nset default='0>0'\nsubmenu s { set c=3\n menuentry x { linux /boot/k1 a=$a b=$b c=$c d=$default\n }\n}\n",
    ),
    case(
        "three-deep",
        "set default='0>1>0'\nsubmenu a { menuentry x { linux /boot/k1\n }\n submenu b { menuentry y { linux /boot/k2 $chosen\n }\n }\n}\n",
    ),
    case(
        "chosen",
        "set default='s>y>>z'\nsubmenu a --id s { menuentry x { linux /boot/k1\n }\n menuentry 'y>z' { linux /boot/k2 $chosen\n }\n}\n",
    ),
    case(
        "devices",
        "menuentry a { linux (hd0,msdos2)/k5 a\n initrd (hd0,2)/boot/i4 ($root)/boot/i1\n}\n",
    ),
    case(
        "initrd-twice",
        "menuentry a { linux /boot/k2 second\n initrd /boot/i1\n initrd /boot/i2\n}\n",
    ),
    case(
        "linux-tried",
        "menuentry a { if linux /boot/gone x; then true; else linux /boot/k2 else; fi\n}\n",
    ),
    case("eval", shows!("set a=b\neval \"set $a=c\"\neval 'set d=$b'", "$a $b $d")),
    case("unset", shows!("set a=1\nset b=2\nunset a\nc=3\nd=", "$a $b $c '$d'")),
    case(
        "platform",
        shows!(
            "",
            "$grub_platform $grub_cpu $feature_menuentry_id $feature_none $config_file $prefix"
        ),
    ),
    case(
        "booted-at-once",
        "linux /boot/k3 at-once\ninitrd /boot/i1\nboot\nmenuentry a { linux /boot/k1\n}\n",
    ),
    Case {
        differs: Some((
            "k1",
            "",
            "a ramdisk that is named and can't be read is no reason to boot without one",
        )),
        ..case(
            "ramdisk-gone",
            "set fallback=1\nmenuentry a { linux /boot/k2\n initrd /boot/gone\n}\nmenuentry b { linux /boot/k1\n}\n",
        )
    },
    case("linux16", "menuentry a { linux16 /boot/k1 a b=\"c d\"\n initrd16 /boot/i1 /boot/i2\n}\n"),
    Case {
        differs: Some(("k2", "", "GRUB does not live to boot the second")),
        ..case(
            "linux16-twice",
            "menuentry a { linux16 /boot/k1 a\n initrd16 /boot/i1\n linux16 /boot/k2 b\n}\n",
        )
    },
    Case {
        differs: Some(("k2", "", "GRUB spoils the command line of the second")),
        ..case(
            "linux-twice",
            "menuentry a { linux /boot/k1 a\n initrd /boot/i1\n linux /boot/k2 b\n}\n",
        )
    },
    Case {
        differs: Some(("k2", "<i2>", "GRUB spoils the command line of the second")),
        ..case(
            "linux-twice-and-a-ramdisk",
            "menuentry a { linux /boot/k1 a\n linux /boot/k2 b\n initrd /boot/i2\n}\n",
        )
    },
    case(
        "linux-twice-the-second-gone",
        "set fallback=1\nmenuentry a { linux /boot/k1 a\n initrd /boot/i1\n linux /boot/gone b\n}\nmenuentry b { linux /boot/k3\n}\n",
    ),
    case("initrd-before", "menuentry a { initrd /boot/i1\n linux /boot/k1 a\n}\n"),
    Case {
        differs: Some((
            "k3",
            "",
            "a ramdisk that is named and can't be read is no reason to boot without it",
        )),
        ..case(
            "initrd-twice-the-second-gone",
            "set fallback=1\nmenuentry a { linux /boot/k1 a\n initrd /boot/i1\n initrd /boot/gone\n}\nmenuentry b { linux /boot/k3\n}\n",
        )
    },
    case(
        "two-in-a-line",
        "menuentry a { linux /boot/k1 a\n} menuentry b { linux /boot/k2 b\n}\nmenuentry c { linux /boot/k3 c\n}\n",
    ),
    case(
        "two-in-a-line-apart",
        "set default=1\nmenuentry a { linux /boot/k1 a\n}; menuentry b { linux /boot/k2 b\n}\n",
    ),
    case(
        "initrds",
        "menuentry a { linux /boot/k1 a\n initrd /boot/i2 /boot/i1 (hd0,msdos2)/boot/i4\n}\n",
    ),
    case("initrd-of-none", "menuentry a { linux /boot/k1 a\n initrd\n}\n"),
    Case {
        differs: Some((
            "k1",
            "<i1>",
            "a ramdisk that is named is loaded, by whichever of its two commands",
        )),
        ..case("linux16-and-initrd", "menuentry a { linux16 /boot/k1 a\n initrd /boot/i1\n}\n")
    },
    Case {
        differs: Some((
            "k1",
            "<i1>",
            "these are Red Hat's and Ubuntu's, who have them on BIOS, too",
        )),
        ..case("linuxefi", "menuentry a { linuxefi /boot/k1 a\n initrdefi /boot/i1\n}\n")
    },
    case(
        "superusers",
        "set superusers=root\npassword root x\nmenuentry a { linux /boot/k1\n}\nmenuentry b --unrestricted { linux /boot/k2\n}\n",
    ),
    case("superusers-of-none", "menuentry a --users root { linux /boot/k1 a\n}\n"),
    case(
        "superusers-unrestricted",
        "set superusers=root\npassword root x\nset default=1\nmenuentry a { linux /boot/k1\n}\nmenuentry b --unrestricted { linux /boot/k2\n}\n",
    ),
    case(
        "superusers-of-a-submenu",
        "set superusers=root\nexport superusers\npassword root x\nset default='0>0'\nsubmenu a { menuentry b --unrestricted { linux /boot/k2\n }\n}\n",
    ),
    // As distributions and people write them.
    case(
        "entries-in-a-loop",
        "set default=1\nfor k in k1 k2 k3; do\n menuentry \"Linux $k\" \"$k\" { linux /boot/$2 t=$1\n }\ndone\n",
    ),
    case(
        "entries-in-a-function",
        "function e { menuentry \"$1\" --id $2 $2 { linux /boot/$2 }\n}\ne one k1\ne two k2\nset default=k2\n",
    ),
    case("setparams", "menuentry a { setparams k2 'x y'\n linux /boot/$1 $2\n}\n"),
    case(
        "windows-lines",
        "set a=b\r\nmenuentry x {\r\n linux /boot/k1 a=$a last\r\n initrd /boot/i1\r\n}\r\n",
    ),
    case(
        "one-line-ifs",
        shows!(
            "if [ a = b ]; then set r=1; elif [ a = a ]; then set r=2; else set r=3; fi; set s=4",
            "$r $s"
        ),
    ),
    case(
        "test-without-blanks",
        shows!(
            "if [ a=b ]; then r=1; fi\nif [a = a]; then r=${r}2; fi\nif [ a = a]; then r=${r}3; fi",
            "r=$r"
        ),
    ),
    case(
        "id-option",
        "if [ x\"${feature_menuentry_id}\" = xy ]; then menuentry_id_option=\"--id\"; else menuentry_id_option=\"\"; fi\nexport menuentry_id_option\nset default='gnulinux-advanced-1>gnulinux-2'\nsubmenu 'Advanced' $menuentry_id_option 'gnulinux-advanced-1' {\n menuentry 'A' --class gnu-linux --class os $menuentry_id_option 'gnulinux-1' { linux /boot/k1\n }\n menuentry 'B' $menuentry_id_option 'gnulinux-2' { linux /boot/k2 c=$chosen\n }\n}\n",
    ),
    with(
        "suse",
        "if [ -f ${config_directory}/grubenv ]; then load_env -f ${config_directory}/grubenv\nelif [ -s $prefix/grubenv ]; then load_env\nfi\nif [ \"$env_block\" ]; then set env_block=\"(${root})$env_block\"; export env_block; load_env -f \"$env_block\"\nfi\nset btrfs_relative_path=\"yes\"\nexport btrfs_relative_path\nif [ \"${next_entry}\" ]; then set default=\"${next_entry}\"; set next_entry=; save_env next_entry\n set boot_once=true\nelse set default=\"${saved_entry}\"\nfi\nmenuentry 'SLES' --class sles { linux /boot/k1 ${extra_cmdline} security=apparmor\n initrd /boot/i1\n}\nmenuentry snap { linux /boot/k2\n}\nif [ -f \"/.snapshots/grub-snapshot.cfg\" ]; then source \"/.snapshots/grub-snapshot.cfg\"\nfi\n",
        &[
            ("/boot/grub/grubenv", "saved_entry=Snap 5\nextra_cmdline=a=b c\n"),
            (
                "/.snapshots/grub-snapshot.cfg",
                "if [ x$snapshot_found != xtrue ]; then\n submenu 'Start bootloader from a snapshot' { true\n }\nfi\nmenuentry 'Snap 5' { linux /boot/k3 $extra_cmdline more\n}\n",
            ),
        ],
    ),
    with(
        "environment-saved-twice",
        "load_env\nset a=new\nsave_env a b\nload_env\nmenuentry x { linux /boot/k1 $a $b x\n}\n",
        &[("/boot/grub/grubenv", "a=old\nb=kept\n")],
    ),
    with(
        "environment-saved-before-another-file",
        "load_env\nif [ \"${next_entry}\" ]; then set next_entry=; save_env next_entry; fi\nconfigfile /boot/other.cfg\n",
        &[
            ("/boot/grub/grubenv", "next_entry=b\n"),
            (
                "/boot/other.cfg",
                "set timeout=0\nload_env\nif [ \"${next_entry}\" ]; then set default=\"${next_entry}\"; fi\nmenuentry a { linux /boot/k1\n}\nmenuentry b { linux /boot/k2\n}\n",
            ),
        ],
    ),
];
