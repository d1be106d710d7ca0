use super::*;

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

/// Only grubenv exists.
struct Grubenv;

impl Files for Grubenv {
    fn exists(&self, place: &Place, path: &str, nonempty: bool) -> bool {
        *place == Place::Menu && path == "/boot/grub/grubenv" && nonempty
    }
}

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Menu, String> {
    let environment = environment.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    parse(text, "/boot/grub", &environment, &Grubenv)
}

#[test]
fn what_update_grub_writes_is_read() {
    let menu = read(DEBIAN, &[]).unwrap();
    let simple = &menu.entries[0];
    assert_eq!(simple.id.as_deref(), Some("gnulinux-simple-6d7b"));
    assert_eq!(simple.place, Place::Uuid("6d7b".into()));
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
        ("[ -s (hd0,1)/boot/grub/grubenv ]", false),
        ("[ -e /nothing ]", false),
        ("test x = x", true),
        ("true", true),
        ("unknown_command", false),
    ] {
        let text = format!("if {condition}; then set default=yes; else set default=no; fi");
        let found = read(&text, &[]).unwrap().default;
        assert_eq!(found.as_deref(), Some(if holds { "yes" } else { "no" }), "{condition}");
    }
}

#[test]
fn searches_set_the_root_device() {
    for (command, place) in [
        ("search --fs-uuid --set=root 12-34", Place::Uuid("12-34".into())),
        ("search.fs_uuid 12-34 root hd0,msdos1", Place::Uuid("12-34".into())),
        ("search --label --set root cloudimg-rootfs", Place::Label("cloudimg-rootfs".into())),
        ("search -u -s 12-34", Place::Uuid("12-34".into())),
        ("search --fs-uuid --set=boot 12-34", Place::Menu),
        ("set root=(hd0,gpt2)", Place::Partition(2)),
        ("root=hd0", Place::Disk),
    ] {
        let text = format!("menuentry x {{\n{command}\nlinux /k a\n}}");
        let menu = read(&text, &[]).unwrap();
        assert_eq!(menu.entries[0].place, place, "{command}");
    }
}

#[test]
fn fedoras_is_a_script_without_entries() {
    let menu = read("insmod blscfg\nblscfg\nset fallback=\"1 2\"\n", &[]).unwrap();
    assert!(menu.entries.is_empty());
    assert_eq!(menu.fallback, ["1", "2"]);
}

#[test]
fn a_script_that_grows_is_cut() {
    let doubled = "set a=xxxxxxxxxxxxxxxx\n".to_owned() + &"set a=\"$a$a\"\n".repeat(200);
    assert!(read(&doubled, &[]).is_ok());
    let nested = "submenu a {\n".repeat(30) + &"}\n".repeat(30);
    assert!(read(&nested, &[]).is_ok());
    let many = "menuentry a {\nlinux /k\n}\n".repeat(2 * MAX_ENTRIES);
    assert_eq!(read(&many, &[]).unwrap().entries.len(), MAX_ENTRIES);
    assert!(read("menuentry x {", &[]).is_err());
}

proptest::proptest! {
    #[test]
    fn any_script_is_a_menu_or_an_error(text in "(menuentry a \\{\n|submenu b \\{\n|linux /k \\$x\n|\\}\n|set x=\\$x\\$x\n|if \\[ \\$x = a \\]; then\n|fi\n|search --set=root -u 1\n|else\n){0,30}") {
        if let Ok(menu) = read(&text, &[("x", "y")]) {
            let _ = menu.candidates(None);
        }
    }
}
