//! GRUB legacy's menu.lst, as pv-grub-menu, ec2's own tools and people write it.
//! (GRUB 0.97 manual, "Configuration" and "Commands")

use super::menu::{Entry, Menu, Save, device, split_device};

/// Read a menu. `saved` is the saved default. Nothing in it is an error: GRUB, too, goes on after
/// a line that it does not understand.
pub fn parse(text: &str, saved: Option<&str>) -> Menu {
    let mut menu = Menu::default();
    let mut current: Option<Entry> = None;
    // A backslash before a line's end takes the end away. (stage2/cmdline.c, get_line_from_config)
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    for line in text.lines() {
        let (command, rest) = split(line);
        match (command, &mut current) {
            ("", _) => {}
            ("title", _) => {
                let index = menu.entries.len() + usize::from(current.is_some());
                if let Some(entry) = current.take() {
                    menu.push(finished(entry));
                }
                current = Some(Entry {
                    index: index.to_string(),
                    title: rest.into(),
                    ..Entry::default()
                });
            }
            (command, Some(entry)) => within(entry, command, rest),
            ("default", None) => {
                let number =
                    if first(rest) == "saved" { saved.unwrap_or("0") } else { first(rest) };
                menu.default = Some(number.to_owned());
            }
            ("fallback", None) => {
                menu.fallback = rest.split_whitespace().map(str::to_owned).collect();
            }
            // timeout, hiddenmenu, color, password and what else is for a person before the screen.
            _ => {}
        }
    }
    if let Some(entry) = current {
        menu.push(finished(entry));
    }
    menu
}

/// A command and what follows it: behind spaces, tabs, or one `=`.
fn split(line: &str) -> (&str, &str) {
    let line = line.trim();
    if line.starts_with('#') {
        return ("", "");
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (command, rest) = line.split_at(end);
    let rest = rest.trim_start();
    (command, rest.strip_prefix('=').unwrap_or(rest).trim())
}

/// The first word; what follows is somebody's remark.
fn first(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// One command of an entry.
fn within(entry: &mut Entry, command: &str, rest: &str) {
    match command {
        "root" | "rootnoverify" => entry.place = device(first(rest), 0),
        "uuid" => entry.place = super::menu::Place::Uuid(first(rest).to_owned()),
        "kernel" => {
            // `--type=linux`, `--no-mem-option`.
            let path = rest.split_whitespace().find(|word| !word.starts_with("--"));
            let path = path.unwrap_or("");
            let at = rest.find(path).unwrap_or(0) + path.len();
            entry.arguments = rest[at..].trim().to_owned();
            entry.kernel = Some(path.to_owned()).filter(|path| !path.is_empty());
        }
        "initrd" => entry.initrds = rest.split_whitespace().map(str::to_owned).collect(),
        "module" | "modulenounzip" => entry.other = Some("it boots Xen, with modules".into()),
        "chainloader" => entry.other = Some("it starts another boot loader".into()),
        "configfile" => entry.other = Some("it reads another menu".into()),
        "savedefault" => {
            entry.save = Some(match rest {
                "" => Save::Entry(entry.index.clone()),
                "fallback" => Save::Fallback,
                number => Save::Entry(number.trim_start_matches("--default=").to_owned()),
            });
        }
        // lock, boot, quiet, makeactive, map and the like change nothing of what is loaded.
        _ => {}
    }
}

fn finished(mut entry: Entry) -> Entry {
    if entry.other.is_none() {
        entry.other = super::not_linux(&entry);
    }
    if let Some((Some(place), path)) = entry.kernel.as_deref().map(|path| split_device(path, 0)) {
        entry.kernel = Some(path.to_owned());
        entry.place = place;
    }
    for initrd in &mut entry.initrds {
        // On the kernel's own file system, whatever device is in front: nobody keeps them apart.
        *initrd = split_device(initrd, 0).1.to_owned();
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::super::menu::Place;
    use super::*;

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
                    title three\nuuid 1234-abcd\nkernel=/vmlinuz\nsavedefault --default=1";
        let menu = parse(text, Some("1"));
        assert_eq!(menu.default.as_deref(), Some("1"));
        assert_eq!(menu.fallback, ["2", "0"]);
        let [one, two, three] = &menu.entries[..] else { panic!("{menu:?}") };
        assert_eq!((one.title.as_str(), one.kernel.as_deref()), ("one", Some("/boot/vmlinuz")));
        assert_eq!((one.arguments.as_str(), &one.place), ("a=b=c quiet", &Place::Partition(1)));
        assert_eq!(
            (&one.initrds[..], &one.save),
            (&["/boot/initrd".into()][..], &Some(Save::Entry("0".into())))
        );
        assert_eq!((&two.place, &two.save), (&Place::Disk, &Some(Save::Fallback)));
        assert_eq!(three.place, Place::Uuid("1234-abcd".into()));
        assert_eq!(three.save, Some(Save::Entry("1".into())));
        let saved = |at| menu.saved(at).remove("saved_entry");
        assert_eq!([saved(0), saved(1), saved(2)], ["0", "2", "1"].map(|n| Some(n.to_owned())));
        assert_eq!(parse("default saved\n", None).default.as_deref(), Some("0"));
        let text = "title a\nroot (hd0,1) # the second\nkernel /k \\\n a \\\r\n b\n";
        let entry = parse(text, None).entries.remove(0);
        assert_eq!(entry.place, Place::Partition(2));
        assert_eq!(entry.arguments.split_whitespace().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_is_not_linux_says_what_it_is() {
        let text = "title Xen\nroot (hd0,0)\nkernel /boot/xen-4.17.gz dom0_mem=1G\n\
                    module /boot/vmlinuz root=/dev/xvda1\nmodule /boot/initrd\n\
                    title memtest86+\nkernel /boot/memtest86+.bin\n\
                    title Windows\nchainloader +1\ntitle empty\n";
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
