//! Options of the command line, for the parameters that the errors of actions name.
//!
//! What is below names a parameter as EC2 does, in backquotes, so that a message is true of any
//! front end. What EC2 does not have is called as the action's request calls it.

/// A parameter, and the option that gives it.
const OPTIONS: &[(&str, &str)] = &[
    ("Append", "--append"),
    ("BootEntry", "--boot-entry"),
    ("Certificate", "--cert"),
    ("Cold", "--cold"),
    ("BootMode", "--boot-mode"),
    ("CoreCount", "--cpus"),
    ("CpuModel", "--cpu-model"),
    ("CpuQuota", "--cpu-quota"),
    ("DiskBus", "--disk-bus"),
    ("DryRun", "--dry-run"),
    ("Exposed", "--yes"),
    ("Firmware", "--firmware"),
    ("Force", "--force"),
    ("InstanceType", "--type"),
    ("KernelId", "--kernel AKI|FILE"),
    ("Memory", "--memory"),
    ("MemoryMax", "--memory-max"),
    ("Name", "--name"),
    ("NestedVirtualization", "--nested"),
    ("NetworkInterface", "--network"),
    ("NoOvercommit", "--no-overcommit"),
    ("Prefix", "--prefix"),
    ("PrivateKey", "--key"),
    ("Queues", "--queues"),
    ("RamdiskId", "--initrd ARI|FILE"),
    ("Transport", "--transport"),
];

/// A message with options in the place of parameters.
pub fn as_options(message: &str) -> String {
    let mut parts = message.split('`');
    let mut text = parts.next().unwrap_or_default().to_owned();
    // Every other part is between two backquotes, unless the last has none after it.
    let mut quoted = true;
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let option = OPTIONS.iter().find(|(name, _)| *name == part);
        match option.filter(|_| quoted && parts.peek().is_some()) {
            Some((_, option)) => {
                text.push_str(option);
                quoted = false;
            }
            None if quoted => {
                text.push('`');
                text.push_str(part);
            }
            None => {
                text.push_str(part);
                quoted = true;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_options_and_nothing_else_changes() {
        for (message, shown) in [
            (
                "give `KernelId`, and `RamdiskId` too",
                "give --kernel AKI|FILE, and --initrd ARI|FILE too",
            ),
            ("`Memory` is 1 byte", "--memory is 1 byte"),
            ("`Memory``CoreCount`", "--memory--cpus"),
            ("no image 'KernelId'; `x` and `Memory", "no image 'KernelId'; `x` and `Memory"),
            ("a ` b `Memory` c", "a ` b --memory c"),
            ("", ""),
        ] {
            assert_eq!(as_options(message), shown);
        }
    }
}
