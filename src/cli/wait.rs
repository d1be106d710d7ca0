//! `wait`.

use super::answer::finish;
use super::args::Targets;
use super::parse::parse_duration;
use super::progress::Progress;
use super::ui::Ui;
use crate::error::{Code, Error, Result};
use crate::record::instance::{InstanceRecord, State};
use crate::service::Service;
use crate::service::wait::{Goal, Stage, Until, WaitForInstances, Waited};
use crate::sys::kvm::host_virtualizes;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore wait web            until it is stopped or terminated
  spore wait --for login --timeout 2m --all
  spore wait --for port:8080 web

Exit codes: 0 all are, and with --for exit, the default, ended well; 1 one
can't get there any more, or a guest's kernel panicked or its CPU shut down; 2
the command line is wrong; 124 the time is up (the instances go on); 125 a VMM
failed or was killed.")]
pub struct Wait {
    /// Instances.
    #[command(flatten)]
    pub targets: Targets,
    /// For what: running (its vCPUs run), boot (its kernel is up), network (it answers on its
    /// network), login (a prompt on its console), ssh (its sshd answers), systemd (it has started
    /// everything: systemd 254 and later say so), cloud-init (it has ended), port:N (somebody
    /// listens there, by vsock or on its network), stopped, terminated, exit (one of these two)
    #[arg(long = "for", default_value = "exit", value_name = "STATE", value_parser = parse_until)]
    pub until: Until,
    /// Give up after this long (30, 500ms, 2m) [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// What can be waited for, by name.
const STATES: &[(&str, Until)] = &[
    ("running", Until::Running),
    ("boot", Until::Guest(Goal::Boot)),
    ("login", Until::Guest(Goal::Login)),
    ("network", Until::Guest(Goal::Network)),
    ("ssh", Until::Guest(Goal::Ssh)),
    ("systemd", Until::Guest(Goal::Systemd)),
    ("cloud-init", Until::Guest(Goal::CloudInit)),
    ("stopped", Until::Stopped),
    ("terminated", Until::Terminated),
    ("exit", Until::Exit),
];

/// A state by its name, or `port:N`.
///
/// # Errors
/// There is none of that name: those that there are.
pub fn parse_until(text: &str) -> Result<Until, String> {
    if let Some(until) = STATES.iter().find(|(name, _)| *name == text) {
        return Ok(until.1);
    }
    let port = text.strip_prefix("port:").and_then(|port| port.parse().ok());
    port.map(|port| Until::Guest(Goal::Port(port))).ok_or_else(|| {
        let names: Vec<&str> = STATES.iter().map(|(name, _)| *name).collect();
        format!("it is one of {} and port:N", names.join(", "))
    })
}

/// How far a guest can be, by name.
///
/// # Errors
/// As [`parse_until`]'s.
pub fn parse_goal(text: &str) -> Result<Goal, String> {
    match parse_until(text)? {
        Until::Guest(goal) => Ok(goal),
        _ => {
            Err("a launch waits for boot, login, network, ssh, systemd, cloud-init or port:N"
                .into())
        }
    }
}

/// `wait`.
pub fn wait(service: &Service, ui: &Ui, args: &Wait) -> Result<ExitCode> {
    let until = args.until;
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
        Until::Guest(goal) | Until::GuestOrEnd(goal) => match goal {
            Goal::Boot => "booted",
            Goal::Login => "at the login prompt",
            Goal::Network => "on its network",
            Goal::Ssh => "reachable by ssh",
            Goal::Systemd => "ready by its systemd's word",
            Goal::CloudInit => "configured by cloud-init",
            Goal::Port(_) => "listening on that port",
        },
        Until::Stopped => "stopped",
        Until::Terminated => "terminated",
        Until::Exit => "stopped or terminated",
    }
}

/// What may keep a guest from its start for good: such a KVM may take long to say that it
/// can't.
fn slow_kvm(until: Until, hardware: bool) -> &'static str {
    match until {
        Until::Guest(_) | Until::GuestOrEnd(_) if !hardware => {
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
        Waited::TimedOut(record, _) => Some(record),
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
        Waited::Lost(error) => Some(match error.code() {
            Some(code) => Error::refused(code, error.message()),
            None => Error::failure(error.message()),
        }),
        Waited::Impossible(record) => Some(Error::refused(
            Code::IncorrectInstanceState,
            format!("{} and will not be {}", stage(record), what(until)),
        )),
        Waited::TimedOut(record, reached) => Some(Error::timeout(format!(
            "{}{}, not {} within {} s; it goes on, and 'spore logs {}' shows how far it is{}",
            stage(record),
            reached.map(|reached| format!(" and {reached}")).unwrap_or_default(),
            what(until),
            timeout.unwrap_or_default().as_secs_f64(),
            record.instance.instance_id,
            match reached {
                // Its kernel runs here.
                Some(reached) if *reached > Stage::Running => "",
                _ => slow_kvm(until, host_virtualizes()),
            }
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
        let login = Until::Guest(Goal::Login);
        assert!(slow_kvm(login, false).contains("scripts/kvm-box"));
        assert_eq!(slow_kvm(login, true), "");
        assert_eq!(slow_kvm(Until::Stopped, false), "");
    }

    #[test]
    fn what_is_waited_for_has_a_name() {
        assert_eq!(parse_until("exit"), Ok(Until::Exit));
        assert_eq!(parse_until("port:8080"), Ok(Until::Guest(Goal::Port(8080))));
        assert_eq!(parse_goal("ssh"), Ok(Goal::Ssh));
        for text in ["", "port:", "port:x", "port:4294967296", "Login"] {
            assert!(parse_until(text).unwrap_err().contains("cloud-init"), "{text}");
        }
        assert!(parse_goal("stopped").is_err());
    }
}
