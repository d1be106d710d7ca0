//! The verbs of instances.

use super::args::{Console, Logs, Ls, Reboot, Start, Stop, Targets, Wait};
use super::describe;
use super::output::{Format, emit};
use super::progress::Progress;
use super::ui::Ui;
use crate::action::Until;
use crate::error::{Code, Error, Kind, Result};
use crate::instance::client;
use crate::instance::console::{self, Detached};
use crate::instance::dir::{self, InstanceDir};
use crate::instance::lifecycle::Change;
use crate::plan::{ResetBy, VmReport};
use crate::record::instance::{Record, State};
use crate::service::{self, Waited};
use crate::store::{Store, rfc3339};
use crate::sys::kvm::host_virtualizes;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// `ls`.
pub fn ls(store: &Store, ui: &Ui, args: &Ls) -> Result<ExitCode> {
    describe::check(&args.filters)?;
    let records = if args.targets.is_empty() {
        service::describe(store)?
    } else {
        records(&service::resolve(store, &args.targets)?)?
    };
    let mut chosen = Vec::new();
    for record in records {
        if describe::matches(&record, &args.filters)? {
            chosen.push(record);
        }
    }
    emit(ui.output, &describe::list(&chosen))?;
    Ok(ExitCode::SUCCESS)
}

/// `show`.
pub fn show(store: &Store, ui: &Ui, args: &Targets) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets)?;
    let records = records(&dirs)?;
    // Only the table tells; a VMM that does not answer is not worth an error here.
    let ask = ui.output.format == Format::Table && !ui.output.quiet;
    let status = |(dir, record): (&InstanceDir, &Record)| {
        let running = ask && record.instance.state == State::Running;
        running.then(|| client::status(dir).ok()).flatten()
    };
    let statuses: Vec<_> = dirs.iter().zip(&records).map(status).collect();
    emit(ui.output, &describe::full(&records, &statuses))?;
    Ok(ExitCode::SUCCESS)
}

fn records(dirs: &[InstanceDir]) -> Result<Vec<Record>> {
    dirs.iter().map(service::record).collect()
}

/// The one instance that `target` addresses, and its record.
fn one(store: &Store, target: &str) -> Result<(InstanceDir, Record)> {
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
        super::output::write_stdout(text.as_bytes())?;
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

/// `stop`.
pub fn stop(store: &Store, ui: &Ui, args: &Stop) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets.targets)?;
    let stop = || match args.hibernate {
        true => service::hibernate(&dirs),
        false => service::stop(&dirs, args.timeout, args.force, !args.no_wait),
    };
    print_changes(ui, "StoppingInstances", Progress::during("stopping", stop))
}

/// `start`.
pub fn start(store: &Store, ui: &Ui, args: &Start) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets.targets)?;
    service::check_memory(store, &dirs, args.no_overcommit)?;
    let started = service::start(&dirs, !args.no_wait, args.boot_entry.as_deref(), args.cold);
    print_changes(ui, "StartingInstances", started)
}

/// `reboot`.
pub fn reboot(store: &Store, ui: &Ui, args: &Reboot) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets.targets)?;
    let reboot = || service::reboot(&dirs, args.timeout, args.force);
    print_changes(ui, "RebootingInstances", Progress::during("rebooting", reboot))
}

/// `terminate`.
pub fn terminate(store: &Store, ui: &Ui, args: &Targets) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets)?;
    print_changes(ui, "TerminatingInstances", service::terminate(&dirs))
}

/// Print what was done, then what was not; the last error decides the exit code.
fn print_changes(ui: &Ui, key: &str, results: Vec<Result<Change>>) -> Result<ExitCode> {
    let mut changes = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(change) => changes.push(change),
            Err(error) => errors.push(error),
        }
    }
    if !changes.is_empty() {
        emit(ui.output, &describe::changes(key, &changes))?;
    }
    finish(errors)
}

/// Success, or the last of these errors after some of the others have been told.
pub fn finish(mut errors: Vec<Error>) -> Result<ExitCode> {
    const TOLD: usize = 8;
    let Some(last) = errors.pop() else { return Ok(ExitCode::SUCCESS) };
    for error in errors.iter().take(TOLD) {
        let _ = writeln!(io::stderr(), "spore: {error}");
    }
    if errors.len() > TOLD {
        let _ = writeln!(io::stderr(), "spore: ... and {} more", errors.len() - TOLD);
    }
    Err(last)
}

/// `wait`.
pub fn wait(store: &Store, args: &Wait) -> Result<ExitCode> {
    let dirs = service::resolve(store, &args.targets.targets)?;
    let until = Until::from(args.until);
    let waited = wait_for(&dirs, until, args.timeout);
    finish(waited.iter().filter_map(|waited| shortfall(waited, until, args.timeout)).collect())
}

/// Wait, with progress on a terminal.
pub fn wait_for(dirs: &[InstanceDir], until: Until, timeout: Option<Duration>) -> Vec<Waited> {
    let progress = Progress::count(dirs.len(), what(until));
    service::wait(dirs, until, timeout, &mut |done| progress.set(done))
}

fn what(until: Until) -> &'static str {
    match until {
        Until::Running => "running",
        Until::Login | Until::LoginOrEnd => "at the login prompt",
        Until::Stopped => "stopped",
        Until::Terminated => "terminated",
        Until::Exit => "stopped or terminated",
    }
}

/// What may keep a guest from its login prompt for good: such a KVM may take long to say that it can't.
fn slow_kvm(until: Until, hardware: bool) -> &'static str {
    match until {
        Until::Login | Until::LoginOrEnd if !hardware => {
            "; this host's KVM is a software KVM, which can't run stock kernels: they run in the box \
             (scripts/kvm-box run -- spore run …), and 'spore doctor' tells whether a lab kernel does here"
        }
        _ => "",
    }
}

/// Why a wait did not end as wished; `None` if it did.
pub fn shortfall(waited: &Waited, until: Until, timeout: Option<Duration>) -> Option<Error> {
    let stage = |record: &Record| {
        let instance = &record.instance;
        let reason = instance.state_reason.as_ref().map(|r| format!(" ({})", r.message));
        format!(
            "{} is {}{}",
            instance.instance_id,
            instance.state.name(),
            reason.unwrap_or_default()
        )
    };
    match waited {
        Waited::Reached(_) => None,
        Waited::Lost(error) => Some(match error.kind() {
            Kind::Refused => Error::refused(Code::InvalidInstanceIDNotFound, error.message()),
            _ => Error::failure(error.message()),
        }),
        Waited::Impossible(record) => Some(Error::refused(
            Code::IncorrectInstanceState,
            format!("{} and will not be {}", stage(record), what(until)),
        )),
        Waited::TimedOut(record) => Some(Error::timeout(format!(
            "{}, not {} within {} s; it goes on, and 'spore logs {}' shows how far it is{}",
            stage(record),
            what(until),
            timeout.unwrap_or_default().as_secs_f64(),
            record.instance.instance_id,
            slow_kvm(until, host_virtualizes())
        ))),
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

    #[test]
    fn who_waits_for_a_login_hears_that_software_kvm_may_never_get_there() {
        assert!(slow_kvm(Until::Login, false).contains("scripts/kvm-box"));
        assert_eq!(slow_kvm(Until::Login, true), "");
        assert_eq!(slow_kvm(Until::Stopped, false), "");
    }
}
