//! The verbs, and what each of them is done by.

use super::args::Targets;
use super::output::{self, OutputArgs};
use super::ui::Ui;
use super::{
    account, asg, autostart, console, df, doctor, exec, foreground, image, instance, job, kernel,
    key, modify, network, prune, region, run, serve, snapshot, ssh, stats, status, tag, template,
    volume, wait,
};
use crate::error::{Error, OrFail, Result};
use crate::service::restart::HOLD;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Exit codes, the end of the top-level help.
const EXIT_CODES: &str = "\
Exit codes:
  0    done, and true
  1    refused: no such object, wrong state, name taken, not enough capacity
  2    the command line is wrong
  124  not true within --timeout; what was started is left alive
  125  Spore or its host failed (I/O error, no space, KVM error)
  130  ^C took back what was being made

Objects:
  An id (i-0123456789abcdef0), any unique prefix of one (i-01) or a name
  addresses an object. Instances may share a name: it stands for all of them,
  web-0 for the one of index 0, 'web*' for all of such names.

Files:
  The store is $SPORE_HOME, else $XDG_DATA_HOME/spore, else
  ~/.local/share/spore.

Examples:
  spore run demo -n 4 --wait      four clones of the built-in image
  spore image import debian.qcow2 --name debian
  spore run debian -n 3 -t t3.small --name web --wait
  spore ls --filter tag:Name='web*' -o json
  spore terminate --all";

/// Launch N identical KVM instances from one image.
#[derive(Debug, Parser)]
#[command(
    name = "spore",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    after_long_help = EXIT_CODES,
    max_term_width = 100
)]
#[command(long_about = "Launch N identical KVM instances from one image.\n\n\
    Spore speaks EC2's words - images (ami-), instances (i-), volumes (vol-), snapshots (snap-) - \
    on one Linux machine with /dev/kvm. There is no daemon: every instance is one process, every \
    command works from the store's directories.")]
pub struct Cli {
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Import, register, list and deregister images
    Image {
        /// What to do
        #[command(subcommand)]
        command: image::ImageCommand,
    },
    /// Register, list and deregister kernels for direct boot
    Kernel {
        /// What to do
        #[command(subcommand)]
        command: kernel::KernelCommand,
    },
    /// Register, list and deregister initial ramdisks
    Ramdisk {
        /// What to do
        #[command(subcommand)]
        command: kernel::RamdiskCommand,
    },
    /// Keep a number of instances of an image alive, and replace them by those of another
    Asg {
        /// What to do
        #[command(subcommand)]
        command: asg::AsgCommand,
    },
    /// Serve Amazon EC2's API over the store, for aws, boto3, packer, ansible and the like
    Serve(serve::Serve),
    /// Print what has AWS's tools use 'spore serve': eval "$(spore env)"
    Env(serve::Env),
    /// Make, import, list and remove key pairs, which guests let their users in by
    Key {
        /// What to do
        #[command(subcommand)]
        command: key::KeyCommand,
    },
    /// Make, list, show and delete launch templates, which say how 'run' launches
    Template {
        /// What to do
        #[command(subcommand)]
        command: template::TemplateCommand,
    },
    /// Create, copy, import, list, verify and delete snapshots
    Snapshot {
        /// What to do
        #[command(subcommand)]
        command: snapshot::SnapshotCommand,
    },
    /// Create, list, attach, detach, resize and delete volumes
    Volume {
        /// What to do
        #[command(subcommand)]
        command: volume::VolumeCommand,
    },
    /// Create, list and delete networks
    Network {
        /// What to do
        #[command(subcommand)]
        command: network::NetworkCommand,
    },
    /// Name the stores that images are copied to and from
    Region {
        /// What to do
        #[command(subcommand)]
        command: region::RegionCommand,
    },
    /// Launch instances from an image
    ///
    /// Every instance gets a copy-on-write volume over the image's snapshot and is a process of its
    /// own. The command returns when all of them run (or, with -n MIN:MAX, at least MIN; or none is
    /// left and the cause is named).
    Run(Box<run::Run>),
    /// List instances
    ///
    /// The oldest first. Terminated ones can be seen with -a for an hour, as on EC2.
    #[command(visible_aliases = ["list", "ps"])]
    Ls(instance::Ls),
    /// Show instances in full
    ///
    /// A line for each field of EC2's description: state and why, image, type, kernel and command
    /// line, block devices, tags; of a running instance also what its VMM says of its disks and
    /// memory. With -o json it is what EC2's DescribeInstances answers. If one of several is not
    /// there, none is shown.
    #[command(visible_alias = "inspect")]
    Show(instance::Show),
    /// Print what a guest said on its console
    ///
    /// All that was written to its serial line since the instance was launched, through stops and
    /// reboots.
    ///
    /// It stays until the instance's record goes, an hour after its termination. With --vmm it is
    /// the VMM that tells: of what it refused a guest, of disks that failed, and how the instance
    /// ended.
    Logs(console::Logs),
    /// Attach to an instance's serial line; ^] detaches
    ///
    /// Several may be attached at once.
    ///
    /// On a terminal, keys go to the guest as they are, and ^] detaches. Otherwise standard input
    /// is passed on and the guest's output printed until the instance ends. What the guest said
    /// before is in 'spore logs'.
    Console(console::Console),
    /// Get into an instance by ssh
    ///
    /// By the host's OpenSSH and the instance's key, over virtio-vsock: the guest needs no network,
    /// and its sshd has to listen there, as systemd 256 and later have it do unasked
    /// (systemd-ssh-generator).
    ///
    /// The guest's host keys are those that it has told on its console, if it has (cloud-init does
    /// at the first boot); otherwise the first that it shows is believed, and kept with the
    /// instance.
    Ssh(ssh::Ssh),
    /// Run a command in instances
    ///
    /// Its output and its exit code are the command's. Several instances run it at the same time.
    Exec(exec::Exec),
    /// Copy files into and out of an instance
    ///
    /// By the host's scp, which shows how far it is on a terminal.
    Cp(ssh::Cp),
    /// Print what ~/.ssh/config needs for scp, rsync or ansible to get into instances
    SshConfig(ssh::SshConfig),
    /// Make OpenSSH's connection
    #[command(name = "__dial", hide = true)]
    Dial(ssh::Dial),
    /// Show the host's ports that are passed on to an instance ('run -p')
    Port {
        /// The instance: an id, a unique prefix of one, or a name
        instance: String,
    },
    /// Stop instances; their volumes stay
    ///
    /// Presses the ACPI power button, waits until the guest has powered off, and cuts it off if it
    /// has not within --timeout: a guest that has nothing to hear the button (acpid,
    /// systemd-logind) is cut off after 120 s by default.
    ///
    /// Volumes stay, and 'spore start' goes on with them. An instance with an instance-store root
    /// can only be terminated. To stop what is stopped is no error.
    Stop(instance::Stop),
    /// Start stopped instances
    ///
    /// On their own volumes. Returns when they run.
    ///
    /// The guest boots anew, from what was on its volumes when it stopped. 'spore wait --for login'
    /// waits for its prompt. To start what runs is no error.
    Start(instance::Start),
    /// Reboot instances
    ///
    /// Asks the guest by the ACPI power button to shut down, and starts the machine anew; resets it
    /// if the guest has not shut down within --timeout, by default 120 s. An instance with an
    /// instance-store root is reset at once.
    Reboot(instance::Reboot),
    /// Terminate instances, and delete the volumes that go with them
    ///
    /// At once, as pulling the plug does: the guest is not asked. Deleted with an instance is its
    /// root volume and what else its block device mapping marks with DeleteOnTermination; volumes
    /// that were attached later stay (see 'spore modify --delete-on-termination'). 'spore ls -a'
    /// shows the instance as terminated for an hour. To terminate what is terminated is no error.
    #[command(
        visible_alias = "rm",
        after_long_help = "\
Examples:
  spore terminate web             all that are called web
  spore terminate web-0 'db*'     the first of them, and all of such names
  spore terminate --filter tag:Env=test
  spore terminate --all

Exit codes: 0 all are terminated; 1 one could not be (the others are); 2 the
command line is wrong; 125 failure."
    )]
    Terminate(Targets),
    /// Wait until instances are in a state
    ///
    /// It ends as soon as one of them can't get there any more. Without --timeout it waits for
    /// ever. Nothing is done to the instances, whether or not the time is up.
    Wait(wait::Wait),
    /// Check instances: whether their VMMs answer and their guests can be reached
    Status(status::Status),
    /// Show what running instances use: CPU, memory, disks, network
    ///
    /// CPU is in percent of one of the host's, between two looks. MEMORY is what the instance has
    /// of the host's: what clones share counts in equal parts; OF is what the guest has. Disks and
    /// network count since the instance was started.
    Stats(stats::Stats),
    /// Show what running instances use again and again, the busiest first, until ^C
    Top(stats::Which),
    /// Tag images, instances, volumes, snapshots, kernels and ramdisks
    Tag(tag::TagArgs),
    /// Remove tags
    Untag(tag::UntagArgs),
    /// Accept products, which images may carry the codes of
    Product {
        /// What to do
        #[command(subcommand)]
        command: account::ProductCommand,
    },
    /// Report what was used, by image and product: instance-seconds and GiB-hours
    ///
    /// It is a report, not a bill. The administrator of a shared store sees everybody's, others
    /// their own.
    Usage,
    /// Print who did what to which object, and when
    Events(account::EventsArgs),
    /// Share the store with other users
    Store {
        /// What to do
        #[command(subcommand)]
        command: account::StoreCommand,
    },
    /// Change a stopped instance: its type, kernel, ramdisk, user data, what goes with it
    ///
    /// What is not given stays. An instance with an instance-store root can't be changed.
    Modify(modify::Modify),
    /// Start instances with the host
    Autostart {
        /// What to do
        #[command(subcommand)]
        command: autostart::AutostartCommand,
    },
    /// Stay with an instance that is to be started again
    #[command(name = HOLD, hide = true)]
    Hold {
        /// Which.
        instance: String,
    },
    /// Remove what nothing refers to any more: terminated instances, snapshots of deregistered
    /// images, kernels and ramdisks that nothing names
    ///
    /// It says what would go and how much that gives back, and asks. Nothing that runs, is attached
    /// or is referred to is touched.
    Prune(prune::PruneArgs),
    /// Show what everything in the store takes on the disk, and what 'spore prune' would give back
    ///
    /// SIZE is what a guest sees; SHARED is on the disk once, for this and for others; OWN is what
    /// deleting it would give back. Only what was changed takes space of its own. Below the objects
    /// are the cache, consoles' logs, the memory of hibernated instances, the journal and records.
    #[command(after_long_help = "Examples:\n  spore df\n  spore df -o json")]
    Df,
    /// Check whether this machine can run instances
    ///
    /// Looks at /dev/kvm and what it can do, io_uring, user namespaces, the store and its space,
    /// and boots the built-in image once for real, and the lab kernel if the store's cache has it.
    /// The table names the remedy for what is missing. Of these boots nothing stays.
    #[command(after_long_help = "\
Examples:
  spore doctor
  spore doctor -q                 the names of the checks that failed

Exit codes: 0 instances can run (a warning is no failure); 1 something that
Spore needs is missing.")]
    Doctor,
    /// Print a shell completion script
    ///
    /// The shell reads it from the directory of its completions, from the next login on. It offers
    /// what is in the store: ids, names, types, filters.
    #[command(after_long_help = "\
Examples:
  spore completions bash > ~/.local/share/bash-completion/completions/spore
  spore completions zsh > ~/.zfunc/_spore
  spore completions fish > ~/.config/fish/completions/spore.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Every command ends here; what it returns is the process's exit code.
pub fn dispatch(ui: &Ui, cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Run(args) if !args.job.command.is_empty() => job::run(&ui.service()?, args),
        Command::Run(args) if args.held.foreground => foreground::run(&ui.service()?, ui, args),
        Command::Run(args) => run::run(&ui.service()?, ui, args),
        Command::Ls(args) => instance::ls(&ui.service()?, ui, args),
        Command::Show(args) => instance::show(&ui.service()?, ui, args),
        Command::Logs(args) => console::logs(&ui.service()?, ui, args),
        Command::Console(args) => console::attach(&ui.service()?, args),
        Command::Ssh(args) => ssh::ssh(&ui.service()?, args),
        Command::Exec(args) => exec::exec(&ui.service()?, ui, args),
        Command::Cp(args) => ssh::cp(&ui.service()?, args),
        Command::SshConfig(args) => ssh::ssh_config(&ui.service()?, ui, args),
        Command::Dial(args) => ssh::dial(&ui.service()?, ui, args),
        Command::Stop(args) => instance::stop(&ui.service()?, ui, args),
        Command::Start(args) => instance::start(&ui.service()?, ui, args),
        Command::Reboot(args) => instance::reboot(&ui.service()?, ui, args),
        Command::Terminate(args) => instance::terminate(&ui.service()?, ui, args),
        Command::Wait(args) => wait::wait(&ui.service()?, ui, args),
        Command::Status(args) => status::status(&ui.service()?, ui, args),
        Command::Stats(args) => stats::stats(&ui.service()?, ui, args),
        Command::Top(which) => stats::top(&ui.service()?, ui, which),
        Command::Modify(args) => modify::modify(&ui.service()?, ui, args),
        Command::Autostart { command } => autostart::run(command, ui),
        Command::Hold { instance } => {
            ui.service()?.hold_instance(instance)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Prune(args) => prune::prune(&ui.service()?, ui, args),
        Command::Df => df::df(&ui.service()?, ui),
        Command::Doctor => doctor::doctor(ui),
        Command::Image { command } => image::run(command, ui),
        Command::Kernel { command } => kernel::run(command, ui),
        Command::Ramdisk { command } => kernel::run_ramdisk(command, ui),
        Command::Key { command } => key::run(command, ui),
        Command::Template { command } => template::run(command, ui),
        Command::Asg { command } => asg::run(command, ui),
        Command::Serve(args) => serve::serve(ui, args),
        Command::Env(args) => serve::env(ui, args),
        Command::Snapshot { command } => snapshot::run(command, ui),
        Command::Port { instance } => network::port(ui, instance),
        Command::Network { command } => network::run(command, ui),
        Command::Region { command } => region::run(command, ui),
        Command::Volume { command } => volume::run(command, ui),
        Command::Tag(args) => tag::add(&ui.service()?, ui, args),
        Command::Untag(args) => tag::remove(&ui.service()?, ui, args),
        Command::Product { command } => account::product(&ui.service()?, ui, command),
        Command::Usage => account::usage(&ui.service()?, ui),
        Command::Events(args) => account::events(&ui.service()?, ui, args),
        Command::Store { command } => account::store(&ui.service()?, ui, command),
        Command::Completions { shell } => completions(*shell),
    }
}

/// Print what has a shell ask this program at the TAB key.
fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let shells = clap_complete::env::Shells::builtins();
    let mut script = Vec::new();
    let known = shells.completer(&shell.to_string());
    let known = known.ok_or_else(|| Error::usage(format!("{shell} is not known")))?;
    known
        .write_registration("COMPLETE", "spore", "spore", "spore", &mut script)
        .or_fail(|| "write the script")?;
    output::write_stdout(&script)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::super::output::Format;
    use super::*;
    use clap::CommandFactory;
    use std::path::Path;

    #[test]
    fn the_option_o_is_a_format_or_of_an_export_its_file() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        for option in ["-o", "-O", "--output", "--file"] {
            let cli = parse(&format!("spore image export web {option} web.spore")).unwrap();
            let Command::Image { command: image::ImageCommand::Export { image, file } } =
                cli.command
            else {
                panic!("{option}");
            };
            assert_eq!((image.as_str(), file.path()), ("web", Path::new("web.spore")));
        }
        for line in ["spore -o json image show web", "spore image show web -o json"] {
            assert_eq!(parse(line).unwrap().output.output().format, Format::Json, "{line}");
        }
        // A format is no file, wherever it stands, and nothing is exported into none.
        for line in [
            "spore image export web",
            "spore -o json image export web",
            "spore image show web -o x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
