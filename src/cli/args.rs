//! What may be typed.

use super::output::Output;
use clap::{Parser, Subcommand};

/// Exit codes, the end of the top-level help.
const EXIT_CODES: &str = "\
Exit codes:
  0    done, and true
  1    refused: no such object, wrong state, name taken, not enough capacity
  2    the command line is wrong
  124  not true within --timeout; what was started is left alive
  125  Spore or its host failed (I/O error, no space, KVM error)

Objects:
  An id (i-0123456789abcdef0), any unique prefix of one (i-01) or a name addresses an object.

Files:
  $SPORE_HOME, else $XDG_DATA_HOME/spore, else ~/.local/share/spore: the store.

Examples:
  spore run demo -n 4 --wait             boot four clones of the built-in image
  spore image import debian.qcow2 --name debian
  spore run debian -n 3 -t t3.small --name web --wait
  spore ls --filter tag:Name='web*' -o json
  spore terminate $(spore ls -q)";

/// Launch N identical KVM instances from one image.
#[derive(Debug, Parser)]
#[command(
    name = "spore",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = false,
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
    pub output: Output,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a shell completion script
    ///
    /// For example: spore completions bash > ~/.local/share/bash-completion/completions/spore
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}
