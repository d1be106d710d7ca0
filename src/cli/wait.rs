//! `wait`.

use super::answer::finish;
use super::args::Targets;
use super::parse::parse_duration;
use super::progress::Progress;
use super::ui::Ui;
use crate::error::{Code, Error, Kind, Result};
use crate::record::instance::{InstanceRecord, State};
use crate::service::Service;
use crate::service::wait::{Until, WaitForInstances, Waited};
use crate::sys::kvm::host_virtualizes;
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore wait web            until it is stopped or terminated
  spore wait --for login --timeout 2m --all

Exit codes: 0 all are, and with --for exit, the default, ended well; 1 one
can't get there any more, or a guest's kernel panicked or its CPU shut down; 2
the command line is wrong; 124 the time is up (the instances go on); 125 a VMM
failed or was killed.")]
pub struct Wait {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// For what: exit is stopped or terminated
    #[arg(long = "for", value_enum, default_value_t = UntilArg::Exit, value_name = "STATE")]
    pub until: UntilArg,
    /// Give up after this long (30, 500ms, 2m) [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// [`Until`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum UntilArg {
    /// Its vCPUs run
    Running,
    /// Its console shows a login prompt
    Login,
    /// It is stopped
    Stopped,
    /// It is terminated
    Terminated,
    /// It is stopped or terminated
    Exit,
}

impl From<UntilArg> for Until {
    fn from(until: UntilArg) -> Self {
        match until {
            UntilArg::Running => Self::Running,
            UntilArg::Login => Self::Login,
            UntilArg::Stopped => Self::Stopped,
            UntilArg::Terminated => Self::Terminated,
            UntilArg::Exit => Self::Exit,
        }
    }
}

/// `wait`.
pub fn wait(service: &Service, ui: &Ui, args: &Wait) -> Result<ExitCode> {
    let until = Until::from(args.until);
    let waited = wait_for(service, args.targets.ids(service)?, until, args.timeout)?;
    // An end that was waited for counts as it was; one of these states is reached by any.
    let badly = |waited: &Waited| match waited {
        Waited::Reached(record) if until == Until::Exit => failed(record),
        _ => None,
    };
    let mut errors = shortfalls(&waited, until, args.timeout);
    errors.extend(waited.iter().filter_map(badly));
    errors.sort_by_key(Error::exit_code);
    finish(ui, errors)
}

/// Wait, with progress on a terminal.
///
/// # Errors
/// An instance is unknown or ambiguous.
pub fn wait_for(
    service: &Service,
    instance_ids: Vec<String>,
    until: Until,
    timeout: Option<Duration>,
) -> Result<Vec<Waited>> {
    let progress = Progress::count(instance_ids.len(), what(until));
    let request = WaitForInstances { instance_ids, until, timeout };
    service.wait_for_instances(&request, &mut |done| progress.set(done))
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

/// What may keep a guest from its login prompt for good: such a KVM may take long to say that it
/// can't.
fn slow_kvm(until: Until, hardware: bool) -> &'static str {
    match until {
        Until::Login | Until::LoginOrEnd if !hardware => {
            "; this host's KVM is a software KVM, which can't run stock kernels: they run in the box \
             (scripts/kvm-box run -- spore run …), and 'spore doctor' tells whether a lab kernel does here"
        }
        _ => "",
    }
}

/// Why waits did not end as wished. That several were not there in time is said once.
pub fn shortfalls(waited: &[Waited], until: Until, timeout: Option<Duration>) -> Vec<Error> {
    let late: Vec<&InstanceRecord> = waited.iter().filter_map(late).collect();
    let others = waited.iter().filter(|waited| late.len() < 2 || self::late(waited).is_none());
    let mut errors: Vec<Error> =
        others.filter_map(|waited| shortfall(waited, until, timeout)).collect();
    if late.len() >= 2 {
        const NAMED: usize = 5;
        let named: Vec<String> = late.iter().take(NAMED).map(|record| stage(record)).collect();
        let more = late.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        errors.push(Error::timeout(format!(
            "{}{more}, not {} within {} s; they go on, and 'spore logs' shows how far they are{}",
            named.join(", "),
            what(until),
            timeout.unwrap_or_default().as_secs_f64(),
            slow_kvm(until, host_virtualizes())
        )));
    }
    errors
}

fn late(waited: &Waited) -> Option<&InstanceRecord> {
    match waited {
        Waited::TimedOut(record) => Some(record),
        _ => None,
    }
}

/// What an instance is, and why.
fn stage(record: &InstanceRecord) -> String {
    let instance = &record.instance;
    let reason = instance.state_reason.as_ref().map(|r| format!(" ({})", r.message));
    format!("{} is {}{}", instance.instance_id, instance.state.name(), reason.unwrap_or_default())
}

/// Why a wait did not end as wished; `None` if it did.
fn shortfall(waited: &Waited, until: Until, timeout: Option<Duration>) -> Option<Error> {
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

/// The error for an instance that ended otherwise than by its guest's or somebody's will: the
/// guest's fault, or ours.
pub fn failed(record: &InstanceRecord) -> Option<Error> {
    let instance = &record.instance;
    let reason = instance.state_reason.as_ref()?;
    let ended = matches!(instance.state, State::Stopped | State::Terminated);
    let line = || {
        let (id, state) = (&instance.instance_id, instance.state.name());
        format!("{id} is {state}: {}", reason.message)
    };
    match reason.code.as_str() {
        "Client.InternalError" if ended => {
            Some(Error::refused(Code::IncorrectInstanceState, line()))
        }
        "Server.InternalError" if ended => Some(Error::failure(line())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_login_hears_that_software_kvm_may_never_get_there() {
        assert!(slow_kvm(Until::Login, false).contains("scripts/kvm-box"));
        assert_eq!(slow_kvm(Until::Login, true), "");
        assert_eq!(slow_kvm(Until::Stopped, false), "");
    }
}
