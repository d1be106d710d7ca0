use super::super::menu::Place;
use super::*;
use crate::ext4::Kind;

/// What update-grub of Debian 12 writes, shortened.
const DEBIAN: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi

if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
  fi
}
terminal_input console
if [ "${recordfail}" = 1 ] ; then set timeout=30 ; else set timeout=5 ; fi
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux $menuentry_id_option 'gnulinux-simple-6d7b' {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_msdos
	set root='hd0,msdos1'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1 --hint='hd0,msdos1'  6d7b
	else
	  search --no-floppy --fs-uuid --set=root 6d7b
	fi
	echo	'Loading Linux 6.1.0-18-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-18-amd64 root=UUID=6d7b ro  quiet
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-6.1.0-18-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-6d7b' {
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-18-amd64' --class debian $menuentry_id_option 'gnulinux-6.1.0-18-advanced' {
		set root='hd0,msdos1'
		linux	/boot/vmlinuz-6.1.0-18-amd64 root=UUID=6d7b ro  quiet
		initrd	/boot/early.cpio /boot/initrd.img-6.1.0-18-amd64
	}
	menuentry 'Debian GNU/Linux, with Xen 4.17' {
		multiboot2	/boot/xen-4.17-amd64.gz placeholder
		module2	/boot/vmlinuz-6.1.0-18-amd64 placeholder root=UUID=6d7b ro
	}
}
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
fi
"#;

/// Only grubenv and a kernel exist, on partition 1; partition 2 has the UUID 12-34 and the label
/// cloudimg-rootfs.
struct Disk;

impl Files for Disk {
    fn is_there(&self, _device: &str) -> bool {
        true
    }
    fn stat(&self, device: &str, path: &str) -> Option<(Kind, u64)> {
        let there = device == "hd0,msdos1" && path == "/boot/grub/grubenv" || path == "/k";
        there.then_some((Kind::File, 1024))
    }
    fn read(&self, _device: &str, path: &str) -> Option<String> {
        let text = match path {
            "/again" => "source /again\n",
            "/other" => "menuentry o {\nlinux /k $e $n\n}\n",
            _ => return None,
        };
        Some(text.to_owned())
    }
    fn names(&self, _device: &str, path: &str) -> Vec<String> {
        if path == "/boot/loader/entries" {
            vec!["a-1.conf".into(), "a-10.conf".into()]
        } else {
            vec![]
        }
    }
    fn search(&self, by: By, text: &str, _hints: &[&str]) -> Option<String> {
        let found =
            by == By::Uuid && text == "12-34" || by == By::Label && text == "cloudimg-rootfs";
        found.then(|| "hd0,msdos2".to_owned())
    }
    fn probe(&self, device: &str, _what: Probe) -> Option<String> {
        Some(format!("of {device}"))
    }
}

fn parsed(text: &str, environment: &[(&str, &str)]) -> Parsed {
    let environment = environment.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    let start = Start { device: "hd0,msdos1", directory: "/boot/grub", environment: &environment };
    parse(text, &start, &Disk)
}

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Menu, String> {
    let Parsed { menu, problems, .. } = parsed(text, environment);
    if problems.is_empty() { Ok(menu) } else { Err(problems.join("; ")) }
}

#[test]
fn what_update_grub_writes_is_read() {
    let menu = read(DEBIAN, &[]).unwrap();
    let simple = &menu.entries[0];
    assert_eq!(simple.id.as_deref(), Some("gnulinux-simple-6d7b"));
    assert_eq!(simple.place, Place::Partition(1));
    assert_eq!(simple.kernel.as_deref(), Some("/boot/vmlinuz-6.1.0-18-amd64"));
    assert_eq!(simple.arguments, "root=UUID=6d7b ro quiet");
    assert_eq!(simple.initrds, ["/boot/initrd.img-6.1.0-18-amd64"]);
    let advanced = &menu.entries[1];
    assert_eq!((advanced.index.as_str(), &advanced.place), ("1>0", &Place::Partition(1)));
    assert_eq!(advanced.initrds.len(), 2);
    assert!(menu.entries[2].other.as_ref().unwrap().contains("Xen"));
    assert_eq!((menu.entries.len(), menu.candidates(None)), (3, Ok(vec![0])));
}

#[test]
fn grub_reboot_and_grub_set_default_choose() {
    let once = read(DEBIAN, &[("next_entry", "gnulinux-advanced-6d7b>1")]).unwrap();
    assert_eq!(once.candidates(None).unwrap()[0], 2);
    let saved = DEBIAN.replace("set default=\"0\"", "set default=\"${saved_entry}\"");
    let menu = read(&saved, &[("saved_entry", "1>0")]).unwrap();
    assert_eq!(menu.candidates(None), Ok(vec![1]));
    assert_eq!(read(&saved, &[]).unwrap().candidates(None), Ok(vec![0]));
}

#[test]
fn tests_hold_as_in_grub() {
    for (condition, holds) in [
        ("[ a = a ]", true),
        ("[ a != a ]", false),
        ("[ \"$none\" ]", false),
        ("[ ! -z \"$none\" ]", false),
        ("[ 10 -gt 9 -a 1 -le 1 ]", true),
        ("[ a = b -o a = a ]", true),
        ("[ -s /boot/grub/grubenv ]", true),
        ("[ -s (hd0,msdos1)/boot/grub/grubenv ]", true),
        ("[ -s (hd0,msdos2)/boot/grub/grubenv ]", false),
        ("[ ]", true),
        ("[ a = b -a c = c -o d = d ]", true),
        ("[ ( a = b -o c = c ) -a d = e ]", false),
        ("[ -e /nothing ]", false),
        ("test x = x", true),
        ("true", true),
        ("unknown_command", true),
        ("! unknown_command", true),
        ("[ a10 -pgt a9 -a a1 -plt a2 ]", true),
        ("[ a1 -plt b2 ]", false),
        ("regexp a b", false),
    ] {
        let text = format!("if {condition}; then set default=yes; else set default=no; fi");
        let found = read(&text, &[]).unwrap().default;
        assert_eq!(found.as_deref(), Some(if holds { "yes" } else { "no" }), "{condition}");
    }
}

#[test]
fn searches_set_a_variable_to_what_is_found() {
    let second = Place::Partition(2);
    for (command, place) in [
        ("search --fs-uuid --set=root 12-34", &second),
        ("search.fs_uuid 12-34 root hd0,msdos1", &second),
        ("search --label --set root cloudimg-rootfs", &second),
        ("search -u -s 12-34", &second),
        ("search --fs-uuid --set=root 56-78", &Place::Partition(1)),
        ("search --fs-uuid --set=boot 12-34", &Place::Partition(1)),
        ("search --fs-uuid --set=boot 12-34; set root=$boot", &second),
        ("set root=(hd0,gpt2)", &second),
        ("root=hd0", &Place::Disk),
    ] {
        let text = format!("menuentry x {{\n{command}\nlinux /k a\n}}");
        let menu = read(&text, &[]).unwrap();
        assert_eq!(&menu.entries[0].place, place, "{command}");
    }
}

#[test]
fn what_an_entry_saves_is_told_with_it() {
    let text = "function savedefault {\nsaved_entry=\"${chosen}\"; save_env saved_entry\n}\n\
        submenu 's>' --id a {\nmenuentry b {\nsavedefault\nlinux /k\n}\n}\n\
        menuentry c {\nset x=1\nsave_env x y\nlinux /k\n}\n\
        menuentry d {\nsave_env -f /elsewhere x\nlinux /k\n}\n";
    let menu = read(text, &[]).unwrap();
    let saved = |at: usize| menu.saved(at).into_iter().collect::<Vec<_>>();
    assert_eq!(saved(0), [("saved_entry".into(), "a>b".into())]);
    assert_eq!(saved(1), [("x".into(), "1".into()), ("y".into(), String::new())]);
    assert_eq!(saved(2), []);
}

/// A disk with two of Fedora's entries.
struct Fedora;

impl Files for Fedora {
    fn is_there(&self, _device: &str) -> bool {
        true
    }
    fn stat(&self, device: &str, path: &str) -> Option<(Kind, u64)> {
        Disk.stat(device, path)
    }
    fn read(&self, _device: &str, path: &str) -> Option<String> {
        let name = path.rsplit_once('/')?.1.strip_suffix(".conf")?;
        let options = if name == "f-9" { "" } else { "options root=LABEL=x $kernelopts\n" };
        Some(format!(
            "title Fedora ({name})\nversion {name}\nlinux ($root)/vmlinuz-{name}\n\
             initrd /init-{name} $tuned_initrd\n{options}"
        ))
    }
    fn names(&self, device: &str, path: &str) -> Vec<String> {
        let there = device == "hd0,msdos1" && path == "/boot/loader/entries";
        let names = ["f-9.conf", "f-10.conf", "readme"].map(str::to_owned);
        if there { names.into() } else { vec![] }
    }
    fn search(&self, _by: By, _text: &str, _hints: &[&str]) -> Option<String> {
        None
    }
    fn probe(&self, _device: &str, _what: Probe) -> Option<String> {
        None
    }
}

#[test]
fn blscfg_puts_entries_where_it_stands_with_the_scripts_variables() {
    let text = "set kernelopts='ro quiet'\nset tuned_initrd=/tuned\nset default_kernelopts=fallback\n\
        menuentry first {\nlinux /k\n}\nblscfg\nmenuentry last {\nlinux /k\n}\n\
        if [ \"${boot_counter}\" = 0 -a \"${boot_success}\" = 0 ]; then set default=2; else decrement boot_counter; set default=f-10; fi\n\
        save_env boot_counter\n";
    let read = |environment: &[(&str, &str)], text: &str| {
        let environment = environment.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let start =
            Start { device: "hd0,msdos1", directory: "/boot/grub", environment: &environment };
        parse(text, &start, &Fedora).menu
    };
    let menu = read(&[], text);
    let titles: Vec<&str> = menu.entries.iter().map(|entry| entry.title.as_str()).collect();
    assert_eq!(titles, ["first", "Fedora (f-10)", "Fedora (f-9)", "last"]);
    let entry = &menu.entries[1];
    assert_eq!((entry.index.as_str(), entry.id.as_deref()), ("1", Some("f-10")));
    assert_eq!(entry.kernel.as_deref(), Some("/vmlinuz-f-10"));
    assert_eq!(entry.initrds, ["/init-f-10", "/tuned"]);
    assert_eq!(entry.arguments, "root=LABEL=x ro quiet");
    assert_eq!(menu.entries[2].arguments, "fallback");
    assert_eq!(menu.candidates(None), Ok(vec![1]));
    assert_eq!(menu.saves["boot_counter"], "-1");
    let worn = read(&[("boot_counter", "0"), ("boot_success", "0")], &format!("load_env\n{text}"));
    assert_eq!(worn.candidates(None), Ok(vec![2]));
    let one = read(
        &[],
        "set default=f-9\nexport default\nblscfg default\nsubmenu o {\nblscfg non-default\n}\n",
    );
    let ids: Vec<_> = one.entries.iter().map(|e| (e.index.as_str(), e.id.as_deref())).collect();
    assert_eq!(ids, [("0", Some("f-9")), ("1>0", Some("f-10"))]);
}

#[test]
fn a_script_that_grows_is_cut() {
    let doubled = "set a=xxxxxxxxxxxxxxxx\n".to_owned() + &"set a=\"$a$a\"\n".repeat(200);
    assert!(read(&doubled, &[]).is_ok());
    let nested = "submenu a {\n".repeat(30) + &"}\n".repeat(30);
    assert!(read(&nested, &[]).is_ok());
    let many = "menuentry a {\nlinux /k\n}\n".repeat(2 * MAX_ENTRIES);
    assert_eq!(read(&many, &[]).unwrap().entries.len(), MAX_ENTRIES);
    let good = "menuentry a {\nlinux /k\n}\n";
    for (bad, why) in [("menuentry x {", "a { without its }"), ("}\n", "a } without a {")] {
        let Parsed { menu, problems, .. } = parsed(&format!("{good}{bad}"), &[]);
        assert_eq!(menu.entries.len(), 1, "{bad}");
        assert!(problems[0].contains(why), "{problems:?}");
    }
    // What would go on for ever ends, and what came before it counts.
    for endless in [
        "while true; do set a=$a; done\n",
        "function f {\nf\n}\nf\n",
        "source /again\n",
        "function g {\nwhile true; do g; done\n}\ng\n",
        "eval \"eval x\"\nfor a in 1 2; do until false; do x; done; done\n",
    ] {
        assert_eq!(parsed(&format!("{good}{endless}"), &[]).menu.entries.len(), 1, "{endless}");
    }
    let menu = read("menuentry a {\nwhile true; do x; done\n}\nmenuentry b {\nlinux /k\n}\n", &[])
        .unwrap();
    assert!(menu.entries[0].other.as_ref().unwrap().contains("too many commands"));
}

proptest::proptest! {
    #[test]
    fn any_script_is_a_menu_or_an_error(text in "(menuentry a \\{\n|function f \\{\n|f \\$@\n|for a in \\$x b; do\n|done\n|while \\[ a \\]; do\n|configfile /other\n|submenu b \\{\n|linux /k \\$x\n|\\}\n|set x=\\$x\\$x\n|if \\[ \\$x = a \\]; then\n|fi\n|search --set=root -u 1\n|else\n){0,30}") {
        if let Ok(menu) = read(&text, &[("x", "y")]) {
            let _ = menu.candidates(None);
        }
    }
}
