//! `logs` and `console`.

use super::answer;
use super::args::Targets;
use super::complete;
use super::output::write_stdout;
use super::parse::parse_duration;
use super::ui::{Ui, say};
use crate::error::{Code, Error, Result, one_line};
use crate::plan::{ResetBy, VmReport};
use crate::service::Service;
use crate::service::console::{Detached, Part, Shown, parse_time, rfc3339};
use clap::Args;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// Arguments of `logs`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore logs web-0
  spore logs -n 20 web            the last lines of all that are called web
  spore logs -f web-0             go on until it ends
  spore logs -t --since 10m web   what they said lately, and when
  spore logs --raw web-0 | less -R
  spore logs --vmm web-0          what the VMM had to tell")]
pub struct Logs {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// Go on until the instance ends
    #[arg(short, long)]
    pub follow: bool,
    /// The last so many lines only
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Only lines since then: a time (2030-01-31T12:00Z, UTC) or so long ago (90, 10m, 2h)
    #[arg(long, value_name = "TIME|DURATION", value_parser = since, conflicts_with = "vmm")]
    pub since: Option<u64>,
    /// Begin each line with the time when its first byte was said (UTC); '-' where that is not
    /// known
    #[arg(short, long, conflicts_with = "vmm")]
    pub timestamps: bool,
    /// Every byte as the guest wrote it: on a terminal what steers it (but for colours) is left out
    /// without this
    #[arg(long)]
    pub raw: bool,
    /// Print what the VMM has to tell instead: errors, stopped devices, resets, the end
    #[arg(long, conflicts_with = "follow")]
    pub vmm: bool,
}

/// Lines of what was said before that `console` shows on a terminal.
const REPLAYED: usize = 20;

/// Arguments of `console`.
#[derive(Debug, Args)]
pub struct Console {
    /// The instance: an id, a unique prefix or a name
    #[arg(value_name = "INSTANCE", add = complete::instance())]
    pub target: String,
}

/// A time, or one so long ago, in milliseconds since the epoch.
fn since(text: &str) -> Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = match parse_duration(text) {
        Ok(ago) => now.saturating_sub(ago),
        Err(_) => parse_time(text).ok_or_else(|| {
            let why = "it is a time such as 2030-01-31T12:00Z (UTC), or a duration such as 10m";
            Error::usage(why)
        })?,
    };
    Ok(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// `logs`.
pub fn logs(service: &Service, ui: &Ui, args: &Logs) -> Result<ExitCode> {
    let ids = args.targets.ids(service)?;
    if args.follow && ids.len() > 1 {
        return Err(Error::usage("--follow goes on with one instance; give one"));
    }
    Ok(answer::each(ui, &ids, |id| {
        if ids.len() > 1 {
            let instance = service.describe_instance(id)?.instance;
            let name = instance.name().map(|name| format!(" {}", one_line(name)));
            let (name, index) = (name.unwrap_or_default(), instance.ami_launch_index);
            write_stdout(format!("-- {id}{name}, index {index}\n").as_bytes())?;
        }
        log(service, id, args)
    }))
}

/// One instance's log.
fn log(service: &Service, id: &str, args: &Logs) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let plain = stdout.is_terminal() && !args.raw;
    let mut shown = Shown::new(&mut stdout);
    if args.vmm {
        let reports = match plain {
            true => service.get_vmm_output(id, &mut shown)?,
            false => service.get_vmm_output(id, shown.raw())?,
        };
        let lines: String = reports.iter().map(|report| line(report) + "\n").collect();
        drop(stdout);
        return write_stdout(lines.as_bytes());
    }
    let (since, timestamps) = (args.since, args.timestamps);
    let from = Part { follow: args.follow, tail: args.tail, since, timestamps };
    match plain {
        true => {
            let copied = service.get_console_output(id, from, &mut shown);
            // Whoever reads has gone, or the colours are as they were.
            let _ = shown.finish();
            copied
        }
        false => service.get_console_output(id, from, shown.raw()),
    }
}

/// A report as a person reads it.
fn line(report: &VmReport) -> String {
    let time = |at: u64| rfc3339(Duration::from_millis(at));
    match report {
        VmReport::Started { at } => format!("{} started", time(*at)),
        VmReport::Resumed { at } => format!("{} went on from its memory", time(*at)),
        VmReport::Reset { at, by } => format!("{} reset by {}", time(*at), resetter(*by)),
        VmReport::Notice { at, message } => format!("{} notice: {}", time(*at), visible(message)),
        VmReport::Saved { at, environment } => {
            let variables = environment.iter().flat_map(|saved| &saved.variables);
            let variables: Vec<_> =
                variables.map(|(name, value)| format!("{name}={value}")).collect();
            format!("{} saved by the boot menu: {}", time(*at), visible(&variables.join(" ")))
        }
        VmReport::Ended { at, message, .. } => format!("{} ended: {}", time(*at), visible(message)),
    }
}

fn resetter(by: ResetBy) -> &'static str {
    match by {
        ResetBy::Acpi => "the guest (ACPI reset register)",
        ResetBy::Port0xcf9 => "the guest (port 0xcf9)",
        ResetBy::I8042 => "the guest (keyboard controller)",
        ResetBy::SystemControl => "the guest (port 0x92)",
        ResetBy::Control => "spore reboot",
    }
}

/// The text with its control characters, which could be a guest's, escaped.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    shown
}

/// `console`.
pub fn attach(service: &Service, args: &Console) -> Result<ExitCode> {
    let record = service.describe_instance(&args.target)?;
    let (id, state) = (&record.instance.instance_id, record.instance.state);
    if !state.is_active() {
        let why = format!("{id} is {}; 'spore logs' has what it said", state.name());
        return Err(Error::refused(Code::IncorrectInstanceState, why));
    }
    let terminal = io::stdin().is_terminal();
    if terminal {
        for line in service.last_console_lines(&record, REPLAYED)? {
            eprintln!("{line}");
        }
        say(format_args!("attached to {id}; ^] detaches, Enter makes a prompt show itself"));
    }
    let raw = if terminal { Raw::enter() } else { None };
    let detached = service.attach_console(&record, Unbuffered, io::stdout(), terminal);
    drop(raw);
    if terminal {
        match detached.as_ref() {
            Ok(Detached::ByKey) => eprintln!("\nspore: detached"),
            Ok(Detached::ByEnd) => eprintln!("\nspore: {id} has ended"),
            Err(_) => eprintln!(),
        }
    }
    detached?;
    Ok(ExitCode::SUCCESS)
}

/// Standard input without std's buffer, in which bytes could lie while poll(2) waits for more.
pub struct Unbuffered;

impl io::Read for Unbuffered {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(rustix::stdio::stdin(), &mut *bytes))?)
    }
}

impl std::os::fd::AsFd for Unbuffered {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        rustix::stdio::stdin()
    }
}

/// The terminal in raw mode, until dropped.
pub struct Raw(Termios);

impl Raw {
    /// Standard input's. `None`: it is none.
    pub fn enter() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_words_and_has_no_control_characters() {
        let line = |report: VmReport| line(&report)["1970-01-01T00:00:00.000Z ".len()..].to_owned();
        let message = "the guest's kernel \"ä\": \u{1b}[2J\n".to_owned();
        assert_eq!(
            line(VmReport::Notice { at: 0, message }),
            "notice: the guest's kernel \"ä\": \\u{1b}[2J\\n"
        );
        let reset = |by| line(VmReport::Reset { at: 0, by });
        assert_eq!(reset(ResetBy::Control), "reset by spore reboot");
        assert_eq!(reset(ResetBy::I8042), "reset by the guest (keyboard controller)");
    }
}
