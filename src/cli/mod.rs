//! The command line: arguments in, one call of the service, a table or JSON out.

mod account;
mod answer;
mod args;
mod asg;
mod asg_policy;
mod attribute;
mod autostart;
mod boot_entries;
mod bundle;
mod command;
mod complete;
mod console;
mod copy;
mod create;
mod detect;
mod df;
mod doctor;
mod exec;
mod foreground;
mod generalize;
mod guess;
mod help;
mod image;
mod image_ls;
mod input;
mod instance;
mod instance_table;
mod job;
mod kernel;
mod key;
mod limit;
mod lines;
mod login;
mod modify;
mod network;
mod openssh;
mod output;
mod parameters;
mod parse;
mod progress;
mod prune;
mod pull;
mod region;
mod run;
mod security_group;
mod serve;
mod session;
mod share_arg;
mod signals;
mod snapshot;
mod ssh;
mod stats;
mod status;
mod table;
mod tag;
mod template;
mod ui;
mod volume;
mod volume_arg;
mod wait;

use crate::context::Extension;
use crate::error::{Error, Kind};
use crate::http::Serve;
use crate::service::programs;
use crate::sys::process;
use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use command::{Cli, dispatch};
use output::Format;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use ui::{Ui, report};

/// Parse the command line, do it, say what went wrong in one line on stderr.
pub fn main(extension: Option<Extension>, serve: Option<Serve>) -> ExitCode {
    if let Err(error) = process::raise_stack() {
        return ended(Format::Table, &error);
    }
    // A shell asks what goes on from a line ('spore completions'); the answer ends the process.
    clap_complete::CompleteEnv::with_factory(Cli::command)
        .bin("spore")
        .completer("spore")
        .complete();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let asked = arguments.iter().any(|word| word == "--help" || word == "help");
    let command = if asked { command() } else { Cli::command() };
    let matches = match command.try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(reported) if is_help(&reported) => reported.exit(),
        Err(wrong) => {
            let error = guess::misuse(&wrong, &Cli::command(), &arguments);
            return ended(format_asked(&arguments), &error.remedy(see_help(&arguments)));
        }
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let ui = Ui::new(cli.output.output(), verb(&matches), extension, serve);
    let format = ui.output.format;
    dispatch(&ui, &cli).unwrap_or_else(|error| match error.kind() {
        _ if programs::is_missing(&error) => ended(format, &become_remote()),
        Kind::Usage => ended(format, &error.remedy(see_help(&arguments))),
        _ => ended(format, &error),
    })
}

/// The command with all that its help has to say, of which manual pages are made.
pub fn command() -> clap::Command {
    help::explained(Cli::command())
}

fn ended(format: Format, error: &Error) -> ExitCode {
    report(format, error);
    ExitCode::from(error.exit_code())
}

/// The format that was asked for on a command line that can't be parsed.
fn format_asked(arguments: &[OsString]) -> Format {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let asked = |format: &str| {
        let pair = words.windows(2).any(|w| matches!(w[0], "-o" | "--output") && w[1] == format);
        let single = |word: &&str| {
            let value = word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o"));
            value == Some(format)
        };
        pair || words.iter().any(single)
    };
    if asked("json") || asked("yaml") { Format::Json } else { Format::Table }
}

/// Whether this is what was asked for, or all that can be answered to a command without a word.
fn is_help(reported: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(
        reported.kind(),
        DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// Where the help is of the command that was meant.
fn see_help(arguments: &[OsString]) -> String {
    let root = Cli::command();
    let (mut at, mut words) = (&root, "spore".to_owned());
    for word in arguments.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(below) = at.find_subcommand(word) {
            words = format!("{words} {}", below.get_name());
            at = below;
        }
    }
    format!("see '{words} --help'")
}

/// The names of the command and its subcommand, e.g. `image deregister`.
fn verb(matches: &ArgMatches) -> String {
    let mut verb = String::new();
    let mut at = matches.subcommand();
    while let Some((name, below)) = at {
        verb = format!("{verb} {name}");
        at = below.subcommand();
    }
    verb.trim_start().to_owned()
}

/// Goes on as the program that talks to buckets and registries, with the same arguments. Nothing
/// has been changed by then. Gives why that can't be.
fn become_remote() -> Error {
    let path = match programs::remote() {
        Ok(path) => path,
        Err(error) => return error,
    };
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(&path);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let cause = command.args(arguments).exec();
    Error::failure(format!(
        "cannot run {}: {cause}; it is installed beside spore, and talks to buckets and registries",
        path.display()
    ))
}
