//! `logs` and `console`.

use super::output::write_stdout;
use crate::error::{Code, Error, Result};
use crate::instance::console::{self, Detached};
use crate::instance::dir::{self, InstanceDir};
use crate::plan::{ResetBy, VmReport};
use crate::record::instance::InstanceRecord;
use crate::service;
use crate::store::{Store, rfc3339};
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

/// The one instance that `target` addresses, and its record.
fn one(store: &Store, target: &str) -> Result<(InstanceDir, InstanceRecord)> {
    let dir = service::resolve(store, &[target.to_owned()])?.remove(0);
    let record = service::record(&dir)?;
    Ok((dir, record))
}

/// `logs`.
pub fn logs(store: &Store, args: &Logs) -> Result<ExitCode> {
    let (dir, _) = one(store, &args.target)?;
    let mut out = io::stdout().lock();
    if args.vmm {
        console::copy_log(&dir, dir::VMM_LOG, false, &mut out)?;
        let mut text = String::new();
        for report in dir.reports()? {
            text.push_str(&line(&report));
            text.push('\n');
        }
        drop(out);
        write_stdout(text.as_bytes())?;
    } else {
        console::copy_log(&dir, dir::CONSOLE, args.follow, &mut out)?;
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
pub fn attach(store: &Store, args: &Console) -> Result<ExitCode> {
    let (dir, record) = one(store, &args.target)?;
    if !record.instance.state.is_active() {
        return Err(Error::refused(
            Code::IncorrectInstanceState,
            format!(
                "{} is {}; 'spore logs' has what it said",
                dir.id(),
                record.instance.state.name()
            ),
        ));
    }
    let terminal = io::stdin().is_terminal();
    if terminal {
        eprintln!("spore: attached to {}; ^] detaches", dir.id());
    }
    let raw = if terminal { Raw::enter() } else { None };
    let detached = console::attach(&dir, Unbuffered, io::stdout(), terminal);
    drop(raw);
    if terminal {
        match detached.as_ref() {
            Ok(Detached::ByKey) => eprintln!("\nspore: detached"),
            Ok(Detached::ByEnd) => eprintln!("\nspore: {} has ended", dir.id()),
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
