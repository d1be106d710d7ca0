//! A menu's kernel arguments, made right for this machine.

use super::volume::{FileSystem, Volume};

/// The root device and the console of a menu's arguments, rewritten.
///
/// A menu of EC2's says `root=/dev/xvda1` or `/dev/sda1`; here the disk is `/dev/vda`. With an
/// initial ramdisk, which knows file systems by their UUID, that is what is said; a kernel alone
/// knows devices only. `kernel` is the file system of the kernel, `initrd` whether there is an
/// initial ramdisk.
pub fn rewrite(arguments: &str, volume: &Volume, kernel: usize, initrd: bool) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut root = None;
    for word in split(arguments) {
        // The console of a Xen guest; naming it would make it the one that init writes to.
        if matches!(word, "console=hvc0" | "console=xvc0" | "earlyprintk=xen" | "xencons=tty") {
            continue;
        }
        match word.strip_prefix("root=") {
            Some(device) => {
                // The kernel takes the last one.
                words.retain(|word| !word.starts_with("root="));
                words.push(root_device(device, volume, initrd).unwrap_or_else(|| word.to_owned()));
                root = Some(());
            }
            None => words.push(word.to_owned()),
        }
    }
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let mut more = Vec::new();
    if root.is_none() {
        more.extend(likely_root(volume, kernel).and_then(|at| named(volume, at, initrd)));
    }
    // The last console is the one that init gets.
    let console = words[..end].iter().rfind(|word| word.starts_with("console="));
    if !console.is_some_and(|word| word.starts_with("console=ttyS0")) {
        more.push("console=ttyS0".into());
    }
    words.splice(end..end, more);
    words.join(" ")
}

/// `root=` for what a menu calls `device`; `None` leaves it as it is.
fn root_device(device: &str, volume: &Volume, initrd: bool) -> Option<String> {
    let by_uuid = |uuid: &str| {
        let same = |found: &String| found.eq_ignore_ascii_case(uuid);
        volume.systems.iter().position(|system| system.uuid.as_ref().is_some_and(same))
    };
    let uuid = device.strip_prefix("UUID=").or_else(|| device.strip_prefix("/dev/disk/by-uuid/"));
    if let Some(uuid) = uuid {
        return named(volume, by_uuid(uuid.trim_matches('"'))?, initrd);
    }
    if let Some(partuuid) = device.strip_prefix("PARTUUID=") {
        let same = |found: &String| found.eq_ignore_ascii_case(partuuid);
        let at = volume.systems.iter().position(|s| s.partuuid.as_ref().is_some_and(same))?;
        return named(volume, at, initrd);
    }
    let (disk, number) = disk_and_partition(device.strip_prefix("/dev/")?)?;
    if disk > 0 {
        let letter = char::from(b'a' + u8::try_from(disk).ok().filter(|disk| *disk < 26)?);
        let number = number.map(|number| number.to_string()).unwrap_or_default();
        return Some(format!("root=/dev/vd{letter}{number}"));
    }
    let at = match volume.systems.iter().position(|system| system.partition == number) {
        Some(at) => at,
        // What EC2 showed as /dev/sda1 was a volume without partitions.
        None if volume.systems.len() == 1 => 0,
        None => return None,
    };
    named(volume, at, initrd)
}

/// What a device's name means: a disk, counted from 0, and maybe its partition.
fn disk_and_partition(name: &str) -> Option<(u32, Option<u32>)> {
    let partition = |digits: &str| match digits {
        "" => Some(None),
        digits => digits.parse::<u32>().ok().map(Some),
    };
    if let Some(rest) = ["xvd", "vd", "sd", "hd"].iter().find_map(|kind| name.strip_prefix(kind)) {
        let (letter, number) = rest.split_at_checked(1)?;
        let letter = letter.chars().next().filter(char::is_ascii_lowercase)?;
        // Some Xen kernels count their disks from xvde.
        let disk = if letter == 'e' { 0 } else { u32::from(letter) - u32::from('a') };
        return Some((disk, partition(number)?));
    }
    // nvme0n1p1: the first controller's first name space; mmcblk0p1.
    let (number, rest) = match (name.strip_prefix("nvme"), name.strip_prefix("mmcblk")) {
        (Some(rest), _) => rest.split_once("n1")?,
        (_, Some(rest)) => rest.split_at(rest.find('p').unwrap_or(rest.len())),
        _ => return None,
    };
    let number = number.parse().ok()?;
    match rest.strip_prefix('p') {
        Some(digits) => Some((number, Some(digits.parse().ok()?))),
        None => rest.is_empty().then_some((number, None)),
    }
}

/// The words of a command line: what is in double quotes is not taken apart, as the kernel does
/// not. (lib/cmdline.c in Linux, next_arg())
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let apart = move |c: char| {
        quoted ^= c == '"';
        !quoted && c.is_whitespace()
    };
    text.split(apart).filter(|word| !word.is_empty())
}

/// `root=` for a file system.
fn named(volume: &Volume, at: usize, initrd: bool) -> Option<String> {
    let system = volume.systems.get(at)?;
    match &system.uuid {
        Some(uuid) if initrd => Some(format!("root=UUID={uuid}")),
        _ => Some(format!("root={}", system.device())),
    }
}

/// The file system with an init: the kernel's own, unless that is only /boot. Else the partition
/// that says that it is the root, which may be of a kind that is not read. An EFI system partition
/// is none: whoever boots from there without a word knows what it is.
fn likely_root(volume: &Volume, kernel: usize) -> Option<usize> {
    let has_init = |at: &usize| {
        let system = &volume.systems[*at];
        ["/sbin/init", "/usr/sbin/init", "/etc/fstab"]
            .iter()
            .any(|path| system.stat(path).is_some())
    };
    let others = 0..volume.systems.len();
    let found = std::iter::once(kernel).chain(others).find(has_init);
    let typed = || volume.systems.iter().position(FileSystem::is_root);
    let own = || (!volume.systems.get(kernel)?.is_efi_system()).then_some(kernel);
    found.or_else(typed).or_else(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_each_driver_are_disks_and_partitions() {
        for (name, found) in [
            ("sda", Some((0, None))),
            ("xvda1", Some((0, Some(1)))),
            ("xvde2", Some((0, Some(2)))),
            ("vdb3", Some((1, Some(3)))),
            ("nvme0n1p15", Some((0, Some(15)))),
            ("nvme0n1", Some((0, None))),
            ("nvme1n1p2", Some((1, Some(2)))),
            ("mmcblk0p2", Some((0, Some(2)))),
            ("mmcblk1", Some((1, None))),
            ("nvme0n2p1", None),
            ("nvme0n1x", None),
            ("mapper/root", None),
            ("sdA", None),
            ("sd", None),
            ("sda1x", None),
        ] {
            assert_eq!(disk_and_partition(name), found, "{name}");
        }
    }

    #[test]
    fn what_is_quoted_is_one_word() {
        let words: Vec<&str> = split("a  \"b  c\" d=\"e f\"\tg \"h i").collect();
        assert_eq!(words, ["a", "\"b  c\"", "d=\"e f\"", "g", "\"h i"]);
    }
}
