//! What `--help` says after a command's options: examples and exit codes. Lines have at most 76
//! columns, so that no terminal breaks them.

use super::output::OutputArg;
use clap::{Arg, ArgAction, Command};

/// Those of every command that has none of its own.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 refused (unknown object, wrong state); 2 the command
line is wrong; 125 Spore or its host failed. See 'spore --help'.";

/// The commands that print no records, and so have no use for -o and -q.
const SILENT: [&str; 22] = [
    "asg set",
    "asg policy execute",
    "asg suspend",
    "asg resume",
    "logs",
    "console",
    "wait",
    "tag",
    "untag",
    "completions",
    "store share",
    "store admit",
    "image export",
    "image modify",
    "image disable",
    "image enable",
    "image protect",
    "image unprotect",
    "snapshot verify",
    "product accept",
    "product cancel",
    "region rm",
];

/// Examples of the commands by name, for those that don't bring theirs.
const EXAMPLES: [(&str, &str); 66] = [
    (
        "asg create",
        "  spore asg create web --image debian -t t3.small --min 1 --max 5 -n 2\n  spore asg create api --template 'api:$Latest' --max 4\n  spore serve &                  launches them and keeps them alive",
    ),
    ("asg ls", "  spore asg ls\n  spore asg ls -o json"),
    ("asg show", "  spore asg show web"),
    ("asg set", "  spore asg set web -n 5\n  spore asg set web --min 2 --max 10"),
    (
        "asg refresh",
        "  spore asg refresh web --image debian-2 --auto-rollback\n  spore asg refresh api --template api:7\n  spore asg refresh web --rollback",
    ),
    ("asg suspend", "  spore asg suspend web Launch Terminate"),
    ("asg resume", "  spore asg resume web"),
    ("asg delete", "  spore asg delete web --force"),
    ("network ls", "  spore network ls\n  spore network ls --filter is-default=true"),
    ("network show", "  spore network show lab -o json"),
    ("network delete", "  spore network delete lab"),
    ("network group create", "  spore network group create lab web --description 'port 80'"),
    ("network group ls", "  spore network group ls lab"),
    ("network group delete", "  spore network group delete lab web"),
    ("port", "  spore port web-0"),
    ("ssh-config", "  spore ssh-config web >> ~/.ssh/config"),
    ("top", "  spore top\n  spore top --filter tag:Name='web*'"),
    (
        "show",
        "  spore show web\n  spore show i-0123 -o json | jq '.Reservations[].Instances[].State'",
    ),
    (
        "console",
        "  spore console web                          ^] detaches\n  printf 'root\\npoweroff\\n' | spore console web\n  ssh -t host spore console web",
    ),
    (
        "start",
        "  spore start web\n  spore start --filter state=stopped\n  spore start web --boot-entry 1   the second entry of its boot menu",
    ),
    (
        "image show",
        "  spore image show debian\n  spore image show ami-0123 -o json | jq '.Images[0].Tags'",
    ),
    ("image boot-entries", "  spore image boot-entries web\n  spore run web --boot-entry 1"),
    (
        "image modify",
        "  spore image modify web --description 'nginx 1.26'\n  spore image modify web --product-code nginx-pro --hourly-rate 0.05",
    ),
    (
        "image deprecate",
        "  spore image deprecate web --at 2030-01-31\n  spore image deprecate web --cancel",
    ),
    ("image references", "  spore image references web"),
    (
        "image deregister",
        "  spore image deregister web\n  spore image deregister web --delete-associated-snapshots",
    ),
    ("kernel ls", "  spore kernel ls\n  spore kernel ls --filter 'name=debian*' -q"),
    ("kernel show", "  spore kernel show debian-6.1 -o json"),
    ("kernel deregister", "  spore kernel deregister debian-6.1"),
    ("ramdisk register", "  spore ramdisk register /boot/initrd.img-6.1.0-18-cloud-amd64"),
    ("ramdisk ls", "  spore ramdisk ls -o json"),
    ("ramdisk show", "  spore ramdisk show ari-0123"),
    ("ramdisk deregister", "  spore ramdisk deregister ari-0123"),
    ("key ls", "  spore key ls\n  spore key ls --filter key-type=rsa -q"),
    ("key rm", "  spore key rm ci"),
    ("template default", "  spore template default web 2"),
    (
        "template ls",
        "  spore template ls\n  spore template ls --filter launch-template-name='web*'",
    ),
    ("template show", "  spore template show web\n  spore template show 'web:$Latest' -o json"),
    ("template delete", "  spore template delete web:1\n  spore template delete web"),
    (
        "snapshot create",
        "  spore snapshot create vol-0123 --description 'before the upgrade'\n  spore snapshot create i-0123 --tag Name=nightly",
    ),
    ("snapshot copy", "  spore snapshot copy snap-0123\n  spore snapshot copy snap-0123 --to usb"),
    (
        "snapshot import",
        "  spore snapshot import data.qcow2 --tag Name=data\n  xz -dc disk.raw.xz | spore snapshot import -",
    ),
    ("snapshot ls", "  spore snapshot ls\n  spore snapshot ls --filter tag:Name=nightly -q"),
    ("snapshot show", "  spore snapshot show snap-0123 -o json"),
    ("snapshot verify", "  spore snapshot verify $(spore snapshot ls -q)"),
    ("snapshot delete", "  spore snapshot delete snap-0123 snap-0456"),
    (
        "volume create",
        "  spore volume create --size 20G --tag Name=data\n  spore volume create --snapshot snap-0123",
    ),
    (
        "volume ls",
        "  spore volume ls\n  spore volume ls --filter attachment.instance-id=i-0123456789abcdef0",
    ),
    ("volume show", "  spore volume show data -o json"),
    (
        "volume attach",
        "  spore volume attach data web --device /dev/vdb\n  spore volume attach data web --device /dev/vdb --timeout 0   don't wait",
    ),
    (
        "volume detach",
        "  spore volume detach data\n  spore volume detach --force data     though the guest uses it",
    ),
    ("volume resize", "  spore volume resize data --size 40G"),
    ("volume delete", "  spore volume delete data"),
    (
        "autostart enable",
        "  spore run debian --name web --restart always\n  spore autostart enable",
    ),
    ("autostart disable", "  spore autostart disable"),
    ("autostart status", "  spore autostart status"),
    ("autostart start", "  spore autostart start"),
    ("region ls", "  spore region ls"),
    ("region show", "  spore region show usb"),
    ("region rm", "  spore region rm usb"),
    (
        "untag",
        "  spore untag i-0123 Env\n  spore untag i-0123 Env=test      only if it has that value",
    ),
    ("product accept", "  spore product accept nginx-pro"),
    ("product cancel", "  spore product cancel nginx-pro"),
    ("product ls", "  spore product ls"),
    ("usage", "  spore usage\n  spore usage -o csv > usage.csv"),
    ("events", "  spore events\n  spore events i-0123456789abcdef0 -o json"),
];

/// The command with all that its help has to say. It takes its time, and is only for showing it.
pub fn explained(command: Command) -> Command {
    command.mut_subcommands(|below| {
        let name = below.get_name().to_owned();
        explain(below, &name)
    })
}

fn explain(command: Command, verb: &str) -> Command {
    if command.has_subcommands() {
        return command.mut_subcommands(|below| {
            let verb = format!("{verb} {}", below.get_name());
            explain(below, &verb)
        });
    }
    let own = command.get_after_long_help().map(ToString::to_string);
    let examples = EXAMPLES.iter().find(|(name, _)| *name == verb);
    let mut text =
        own.or_else(|| examples.map(|(_, text)| format!("Examples:\n{text}"))).unwrap_or_default();
    if !text.contains("Exit codes") {
        text = format!("{text}\n\n{EXIT_CODES}");
    }
    let command = command.after_long_help(text);
    if !SILENT.contains(&verb) {
        return command;
    }
    // In place of the global ones, but for its own.
    let hidden = |id: &'static str| Arg::new(id).long(id).hide(true).action(ArgAction::SetTrue);
    let has = |id: &str| command.get_arguments().any(|arg| arg.get_id() == id);
    let missing: Vec<&str> = [OutputArg::ID, "quiet"].into_iter().filter(|id| !has(id)).collect();
    missing.into_iter().fold(command, |command, id| command.arg(hidden(id)))
}
