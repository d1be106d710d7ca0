//! A menu's kernel arguments, made right for this machine.

use super::volume::Volume;

/// The root device and the console of a menu's arguments, rewritten.
///
/// A menu of EC2's says `root=/dev/xvda1` or `/dev/sda1`; here the disk is `/dev/vda`. With an initial ramdisk, which
/// knows file systems by their UUID, that is what is said; a kernel alone knows devices only. `kernel` is the file
/// system of the kernel, `initrd` whether there is an initial ramdisk.
pub fn rewrite(arguments: &str, volume: &Volume, kernel: usize, initrd: bool) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut root = None;
    for word in arguments.split_whitespace() {
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
        more.extend(named(volume, likely_root(volume, kernel), initrd));
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
    let disk = device.strip_prefix("/dev/")?;
    let rest = ["xvd", "vd", "sd", "hd"].iter().find_map(|prefix| disk.strip_prefix(prefix))?;
    let (letter, number) = rest.split_at_checked(1)?;
    let number = match number {
        "" => None,
        digits => Some(digits.parse::<u32>().ok()?),
    };
    match letter {
        // Some Xen kernels count their disks from xvde.
        "a" | "e" => {}
        letter if letter.starts_with(|c: char| c.is_ascii_lowercase()) => {
            let number = number.map(|number| number.to_string()).unwrap_or_default();
            return Some(format!("root=/dev/vd{letter}{number}"));
        }
        _ => return None,
    }
    let at = match volume.systems.iter().position(|system| system.partition == number) {
        Some(at) => at,
        // What EC2 showed as /dev/sda1 was a volume without partitions.
        None if volume.systems.len() == 1 => 0,
        None => return None,
    };
    named(volume, at, initrd)
}

/// `root=` for a file system.
fn named(volume: &Volume, at: usize, initrd: bool) -> Option<String> {
    let system = volume.systems.get(at)?;
    match &system.uuid {
        Some(uuid) if initrd => Some(format!("root=UUID={uuid}")),
        _ => Some(format!("root={}", system.device())),
    }
}

/// The file system with an init: the kernel's own, unless that is only /boot.
fn likely_root(volume: &Volume, kernel: usize) -> usize {
    let has_init = |at: &usize| {
        let system = &volume.systems[*at];
        ["/sbin/init", "/usr/sbin/init", "/etc/fstab"]
            .iter()
            .any(|path| system.stat(path).is_some())
    };
    let others = 0..volume.systems.len();
    std::iter::once(kernel).chain(others).find(has_init).unwrap_or(kernel)
}
