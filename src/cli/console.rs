//! `logs` and `console`.

use super::output::write_stdout;
use crate::error::{Code, Error, Result};
use crate::plan::{ResetBy, VmReport};
use crate::service::Service;
use crate::service::console::Detached;
use crate::service::console::rfc3339;
use clap::Args;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The instance: an id, a unique prefix or a name
    #[arg(value_name = "INSTANCE")]
    pub target: String,
    /// Go on until the instance ends
    #[arg(short, long)]
    pub follow: bool,
    /// Print what the VMM has to tell instead: errors, stopped devices, resets, the end
    #[arg(long, conflicts_with = "follow")]
    pub vmm: bool,
}

/// Arguments of `console`.
#[derive(Debug, Args)]
pub struct Console {
    /// The instance: an id, a unique prefix or a name
    #[arg(value_name = "INSTANCE")]
    pub target: String,
}

/// `logs`.
pub fn logs(service: &Service, args: &Logs) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    if args.vmm {
        let reports = service.get_vmm_output(&args.target, &mut out)?;
        let lines: String = reports.iter().map(|report| line(report) + "\n").collect();
        drop(out);
        write_stdout(lines.as_bytes())?;
    } else {
        service.get_console_output(&args.target, args.follow, &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
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
        eprintln!("spore: attached to {id}; ^] detaches");
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
struct Unbuffered;

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
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
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
