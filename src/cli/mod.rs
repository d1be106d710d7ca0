//! The command line: arguments in, one call of the service, a table or JSON out.

mod account;
pub mod args;
mod attribute;
mod boot_entries;
pub mod bundle;
pub mod copy;
mod create;
mod describe;
mod detect;
mod df;
mod doctor;
pub mod filter;
mod find;
mod help;
pub mod image;
mod instance;
pub mod kernel;
mod limit;
mod modify;
pub mod output;
mod probe;
pub mod progress;
pub mod region;
mod run;
pub mod select;
pub mod snapshot;
mod tag;
pub mod volume;

use crate::error::{Error, Kind, Result};
use crate::store::{Store, journal};
use args::{Cli, Command};
use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Parse the command line, do it, say what went wrong in one line on stderr.
pub fn main() -> ExitCode {
    let arguments = arguments(std::env::args_os().collect());
    let asked = arguments.iter().any(|word| word == "--help" || word == "help");
    let command = if asked { help::explained(Cli::command()) } else { Cli::command() };
    let matches = match command.try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(told) if is_help(&told) => told.exit(),
        Err(wrong) => return ended(&misuse(&wrong, &arguments)),
    };
    journal::set_command(verb(&matches));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    dispatch(cli).unwrap_or_else(|error| match error.kind() {
        Kind::Usage => ended(&error.remedy(see_help(&arguments))),
        _ => ended(&error),
    })
}

fn ended(error: &Error) -> ExitCode {
    report(error);
    ExitCode::from(error.exit_code())
}

/// Whether this is what was asked for, or all that can be answered to a command without a word.
fn is_help(told: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(told.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// What clap tells in paragraphs, in one line.
fn misuse(wrong: &clap::Error, arguments: &[OsString]) -> Error {
    let text = wrong.to_string();
    let told = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = told.take_while(|line| !["Usage:", "For more"].iter().any(|w| line.starts_with(w)));
    let line = told.fold(String::new(), |line, next| match line.as_str() {
        "" => next.to_owned(),
        _ if line.ends_with(':') => format!("{line} {next}"),
        _ => format!("{line}; {next}"),
    });
    Error::usage(line.trim_start_matches("error: ")).remedy(see_help(arguments))
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

/// `image export` writes a file where other commands print in a format: its `-o` means that file.
fn arguments(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.windows(2).any(|two| two[0] == "image" && two[1] == "export") {
        for argument in arguments.iter_mut().filter(|a| *a == "-o" || *a == "--output") {
            *argument = "--file".into();
        }
    }
    arguments
}

/// Every command ends here; what it returns is the process's exit code.
fn dispatch(cli: Cli) -> Result<ExitCode> {
    let output = cli.output;
    match &cli.command {
        Command::Run(args) => run::run(&Store::open()?, output, args),
        Command::Ls(args) => instance::ls(&Store::open()?, output, args),
        Command::Show(args) => instance::show(&Store::open()?, output, args),
        Command::Logs(args) => instance::logs(&Store::open()?, args),
        Command::Console(args) => instance::attach(&Store::open()?, args),
        Command::Stop(args) => instance::stop(&Store::open()?, output, args),
        Command::Start(args) => instance::start(&Store::open()?, output, args),
        Command::Reboot(args) => instance::reboot(&Store::open()?, output, args),
        Command::Terminate(args) => instance::terminate(&Store::open()?, output, args),
        Command::Wait(args) => instance::wait(&Store::open()?, args),
        Command::Modify(args) => modify::modify(&Store::open()?, output, args),
        Command::Df => df::df(&Store::open()?, output),
        Command::Doctor => doctor::doctor(output),
        Command::Image { command } => image::run(command, cli.output),
        Command::Kernel { command } => kernel::run(command, cli.output),
        Command::Ramdisk { command } => kernel::run_ramdisk(command, cli.output),
        Command::Snapshot { command } => snapshot::run(command, cli.output),
        Command::Region { command } => region::run(command, cli.output),
        Command::Volume { command } => volume::run(command, cli.output),
        Command::Tag(args) => tag::add(&Store::open()?, args),
        Command::Untag(args) => tag::remove(&Store::open()?, args),
        Command::Product { command } => account::product(&Store::open()?, output, command),
        Command::Usage => account::usage(&Store::open()?, output),
        Command::Events(args) => account::events(&Store::open()?, output, args),
        Command::Store { command } => account::store(&Store::open()?, command),
        Command::Completions { shell } => completions(*shell),
    }
}

/// One line on stderr. Stderr may be closed; there is nobody left to tell then.
fn report(error: &Error) {
    let _ = writeln!(std::io::stderr(), "spore: {error}");
}

/// Print a completion script.
fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "spore", &mut script);
    output::write_stdout(&script)?;
    Ok(ExitCode::SUCCESS)
}
