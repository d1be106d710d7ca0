//! GRUB legacy's menu.lst, as pv-grub-menu, ec2's own tools and people write it: read and executed
//! as GRUB 0.97 does. (GRUB 0.97 manual, "Configuration" and "Commands"; stage2/stage2.c and
//! stage2/cmdline.c in its sources)

use super::devices::Files;
use super::legacy_entry::Run;
use super::legacy_menu::{Read, number, saved_in};
use super::menu::Menu;

/// Where a menu is, and what was saved.
pub struct Start<'a> {
    /// The device that it is on, as GRUB 2 calls it, e.g. `hd0,msdos1`.
    pub device: &'a str,
    /// The entry that is the saved default, if one was remembered; otherwise it is what the file
    /// beside the menu says.
    pub saved: Option<&'a str>,
    /// What is in the file beside the menu that has the saved default.
    pub default_file: Option<&'a str>,
}

/// Read a menu, and execute its entries. Nothing in it is an error: GRUB, too, goes on after a line
/// that it does not understand.
pub fn parse(text: &str, start: &Start<'_>, files: &dyn Files) -> Menu {
    let run = Run::new(start.device, files);
    let saved = start.saved.and_then(|text| number(text).map(|(value, _)| value));
    let saved = saved.unwrap_or_else(|| saved_in(start.default_file));
    let read = Read::new(text, saved);
    let mut menu = read.menu();
    for at in 0..read.entries.len() {
        menu.push(run.entry(&read, at, 0).0);
    }
    menu
}

#[cfg(test)]
mod tests {
    use super::super::devices::{By, Probe};
    use super::super::menu::Place;
    use super::*;
    use crate::ext4::Kind;

    /// A disk of two partitions, which have what does not begin with `/gone`; a file says this.
    struct Two<'a>(&'a str);

    impl Files for Two<'_> {
        fn is_there(&self, device: &str) -> bool {
            ["hd0,1", "hd0,2", "hd0,msdos1"].contains(&device)
        }
        fn stat(&self, device: &str, path: &str) -> Option<(Kind, u64)> {
            let there = self.is_there(device) && !path.starts_with("/gone");
            there.then_some((Kind::File, 1))
        }
        fn read(&self, device: &str, path: &str) -> Option<String> {
            self.stat(device, path)?;
            Some(if path.ends_with("/default") { "1\n".into() } else { self.0.to_owned() })
        }
        fn names(&self, _device: &str, _path: &str) -> Vec<String> {
            Vec::new()
        }
        fn search(&self, _by: By, text: &str, _hints: &[&str]) -> Option<String> {
            (text == "1234-abcd").then(|| "hd0,msdos2".to_owned())
        }
        fn probe(&self, _device: &str, _what: Probe) -> Option<String> {
            None
        }
    }

    /// What a file that is a menu says.
    const OTHER: &str = "default saved\ntitle a\nkernel /a\ntitle b\nkernel /b\n\
                         title again\nconfigfile /menu\n";

    fn parse(text: &str, saved: Option<&str>) -> Menu {
        let start = Start { device: "hd0,msdos1", saved: None, default_file: saved };
        super::parse(text, &start, &Two(OTHER))
    }

    /// As Debian's pv-grub-menu writes it.
    const DEBIAN: &str = "\
# menu.lst - See: grub(8), info grub, update-grub(8)\n\
default\t\t0\n\
timeout\t\t5\n\
### BEGIN AUTOMAGIC KERNELS LIST\n\
## ## Start Default Options ##\n\
# kopt=root=/dev/xvda1 ro\n\
## ## End Default Options ##\n\
\n\
title\t\tDebian GNU/Linux, kernel 6.1.0-18-cloud-amd64\n\
root\t\t(hd0,0)\n\
kernel\t\t/boot/vmlinuz-6.1.0-18-cloud-amd64 root=/dev/xvda1 ro \n\
initrd\t\t/boot/initrd.img-6.1.0-18-cloud-amd64\n\
\n\
title\t\tDebian GNU/Linux, kernel 6.1.0-18-cloud-amd64 (single-user mode)\n\
root\t\t(hd0,0)\n\
kernel\t\t/boot/vmlinuz-6.1.0-18-cloud-amd64 root=/dev/xvda1 ro  single\n\
initrd\t\t/boot/initrd.img-6.1.0-18-cloud-amd64\n\
### END DEBIAN AUTOMAGIC KERNELS LIST\n";

    #[test]
    fn debians_menu_is_read() {
        let menu = parse(DEBIAN, None);
        assert_eq!((menu.entries.len(), menu.default.as_deref()), (2, Some("0")));
        let single = &menu.entries[1];
        assert_eq!(single.index, "1");
        assert_eq!(
            single.title,
            "Debian GNU/Linux, kernel 6.1.0-18-cloud-amd64 (single-user mode)"
        );
        assert_eq!(single.place, Place::Partition(1));
        assert_eq!(single.kernel.as_deref(), Some("/boot/vmlinuz-6.1.0-18-cloud-amd64"));
        assert_eq!(single.arguments, "root=/dev/xvda1 ro  single");
        assert_eq!(single.initrds, ["/boot/initrd.img-6.1.0-18-cloud-amd64"]);
    }

    #[test]
    fn other_ways_to_write_it_mean_the_same() {
        let text = "hiddenmenu\r\ncolor = blue/black\ndefault=saved\nfallback 2 0\n\
                    title = one\nkernel --no-mem-option (hd0,0)/boot/vmlinuz a=b=c quiet\n\
                    initrd (hd0,0)/boot/initrd\nlock\nsavedefault\nboot\n\
                    title two\n\troot (hd0)\n kernel\t/vmlinuz\nsavedefault fallback\n\
                    title three\nuuid 1234-abcd\nkernel==/vmlinuz\nsavedefault 1";
        let menu = parse(text, Some("0:1\n"));
        assert_eq!(menu.default.as_deref(), Some("1"));
        assert_eq!(menu.fallback, ["2", "0"]);
        let [one, two, three] = &menu.entries[..] else { panic!("{menu:?}") };
        assert_eq!((one.title.as_str(), one.kernel.as_deref()), ("one", Some("/boot/vmlinuz")));
        assert_eq!((one.arguments.as_str(), &one.place), ("a=b=c quiet", &Place::Partition(1)));
        assert_eq!(
            (&one.initrds[..], one.save.as_deref()),
            (&["/boot/initrd".into()][..], Some("0"))
        );
        assert_eq!((&two.place, &two.fails), (&Place::Disk, &None));
        assert_eq!(
            (&three.place, three.kernel.as_deref()),
            (&Place::Partition(2), Some("/vmlinuz"))
        );
        let saved = |at| menu.saved(at).remove("saved_entry");
        assert_eq!([saved(0), saved(1), saved(2)].map(|n| n.unwrap_or_default()), ["0", "", "1"]);
        assert_eq!(parse("default saved\ntitle a\nroot\n", None).default.as_deref(), Some("0"));
        let text = "title a\nroot (hd0,1) # the second\nkernel /k \\\n a \\\r\n b\n";
        let entry = parse(text, None).entries.remove(0);
        assert_eq!(entry.place, Place::Partition(2));
        assert_eq!(entry.arguments.split_whitespace().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn another_menu_is_read_and_one_that_never_ends_is_given_up() {
        let menu = parse("title x\nconfigfile /menu\ntitle y\nconfigfile /gone\n", None);
        assert_eq!(menu.entries[0].kernel.as_deref(), Some("/b"));
        assert!(menu.entries[1].fails.as_deref().is_some_and(|why| why.contains("no such file")));
        let circle = format!("fallback 1 2 3\n{}", "title x\nconfigfile /x\n".repeat(4));
        let start = Start { device: "hd0,1", saved: None, default_file: None };
        let menu = super::parse("title a\nconfigfile /x\n", &start, &Two(&circle));
        assert!(menu.entries[0].fails.is_some(), "{menu:?}");
    }

    #[test]
    fn what_is_not_linux_says_what_it_is() {
        let text = "title Xen\nroot (hd0,0)\nkernel /boot/xen-4.17.gz dom0_mem=1G\n\
                    module /boot/vmlinuz root=/dev/xvda1\nmodule /boot/initrd\n\
                    title memtest86+\nkernel /boot/memtest86+.bin\n\
                    title Windows\nchainloader +1\ntitle empty\nlock\n";
        let other: Vec<_> =
            parse(text, None).entries.iter().map(|e| e.other.clone().unwrap()).collect();
        assert!(other[0].contains("Xen") && other[1].contains("memory test"), "{other:?}");
        assert!(other[2].contains("boot loader") && other[3].contains("no kernel"), "{other:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_menu(text in "(title|kernel|root|default|savedefault|[ =\t\n(),hd0-9a/#]){0,60}") {
            let menu = parse(&text, None);
            for wanted in [None, Some("0")] {
                let _ = menu.candidates(wanted);
            }
        }
    }
}
