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
pub mod image;
mod instance;
pub mod kernel;
mod modify;
pub mod output;
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
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Parse the command line, do it, say what went wrong in one line on stderr.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches_from(arguments(std::env::args_os().collect()));
    journal::set_command(verb(&matches));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
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
    let hint = match error.kind() {
        Kind::Usage => "\nFor more information, try '--help'.",
        _ => "",
    };
    let _ = writeln!(std::io::stderr(), "spore: {error}{hint}");
}

/// Print a completion script.
fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "spore", &mut script);
    output::write_stdout(&script)?;
    Ok(ExitCode::SUCCESS)
}
