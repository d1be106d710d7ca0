//! `ssh`, `cp`, `ssh-config`, and `__dial`, by which OpenSSH gets its connections.

use super::answer::reported;
use super::login::{presumed, way_in};
use super::openssh::{Access, Patience, no_openssh, openssh, settings};
use super::output::write_stdout;
use super::parse::parse_duration;
use super::session::Outcome;
use super::ui::Ui;
use crate::error::{Error, OrFail, Result};
use crate::service::Service;
use crate::service::reach::SshAccess;
use clap::Args;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::ffi::OsString;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Arguments of `ssh`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore ssh web                    a shell
  spore ssh web -- uname -a        a command, as ssh takes it
  spore ssh web -- -L 8080:localhost:80 -N")]
pub struct Ssh {
    /// The instance: an id, a unique prefix of one, or a name
    pub instance: String,
    /// How.
    #[command(flatten)]
    pub access: Access,
    /// How long.
    #[command(flatten)]
    pub patience: Patience,
    /// What ssh is given behind the host: options, a command
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<OsString>,
}

/// Arguments of `cp`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore cp ./site.tar web:/srv/
  spore cp -r web:/var/log ./logs")]
pub struct Cp {
    /// Directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// How.
    #[command(flatten)]
    pub access: Access,
    /// How long.
    #[command(flatten)]
    pub patience: Patience,
    /// What to copy, and where to: files of the host's, and INSTANCE:PATH
    #[arg(required = true, num_args = 2.., value_name = "SRC... DST")]
    pub paths: Vec<String>,
}

/// Arguments of `ssh-config`.
#[derive(Debug, Args)]
pub struct SshConfig {
    /// Instances: ids, unique prefixes or names
    #[arg(required = true, value_name = "INSTANCE")]
    pub targets: Vec<String>,
    /// How.
    #[command(flatten)]
    pub access: Access,
    /// How long.
    #[command(flatten)]
    pub patience: Patience,
}

/// Arguments of `__dial`, OpenSSH's ProxyCommand.
#[derive(Debug, Args)]
pub struct Dial {
    /// The instance.
    pub instance: String,
    /// The guest's port.
    pub port: u32,
    /// How long to wait for it.
    #[arg(long, default_value = "120", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// Runs one of OpenSSH's programs to its end; its exit code is ours.
fn run_program(mut command: Command) -> Result<ExitCode> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ended = command.status().map_err(|cause| no_openssh(&name, &cause))?;
    use std::os::unix::process::ExitStatusExt;
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(125)))
}

/// The settings by which the guest lets somebody in.
fn admitted(
    service: &Service,
    found: &SshAccess,
    access: &Access,
    patience: &Patience,
) -> Result<Vec<(&'static str, String)>> {
    let (begun, patience) = (Instant::now(), patience.timeout);
    let why = match way_in(service, found, access, patience, None)? {
        Ok(way) => return Ok(way.ssh),
        Err(Outcome::NotBegun(why) | Outcome::Broken(why)) => why,
        Err(_) => "the connection ended".to_owned(),
    };
    let why = format!("{}: {why}", found.instance_id);
    match begun.elapsed() >= patience {
        true => Err(Error::timeout(why)),
        false => Err(Error::failure(why)),
    }
}

/// `ssh`.
pub fn ssh(service: &Service, args: &Ssh) -> Result<ExitCode> {
    let found = service.ssh_access(&args.instance)?;
    let mut command = openssh("ssh", &admitted(service, &found, &args.access, &args.patience)?);
    command.arg(found.instance_id.as_str()).args(&args.arguments);
    run_program(command)
}

/// `cp`.
pub fn cp(service: &Service, args: &Cp) -> Result<ExitCode> {
    let named: Vec<Option<(&str, &str)>> = args.paths.iter().map(|path| remote(path)).collect();
    let mut instances: Vec<&str> = named.iter().flatten().map(|(instance, _)| *instance).collect();
    instances.dedup();
    let [instance] = instances[..] else {
        let why = match instances.is_empty() {
            true => "none of these paths is INSTANCE:PATH",
            false => "files are copied between the host and one instance",
        };
        return Err(Error::usage(why));
    };
    let found = service.ssh_access(instance)?;
    let mut command = openssh("scp", &admitted(service, &found, &args.access, &args.patience)?);
    command.args(args.recursive.then_some("-r")).arg("--");
    for (path, named) in args.paths.iter().zip(named) {
        command.arg(match named {
            Some((_, inside)) => format!("{}:{inside}", found.instance_id),
            // A colon before the first slash would name a host.
            None if path.contains(':') && !path.starts_with('/') => format!("./{path}"),
            None => path.clone(),
        });
    }
    run_program(command)
}

/// The instance and the path that `INSTANCE:PATH` names; a file of the host's has a slash before
/// its colon.
fn remote(path: &str) -> Option<(&str, &str)> {
    let (instance, inside) = path.split_once(':')?;
    (!instance.is_empty() && !instance.contains('/')).then_some((instance, inside))
}

/// `ssh-config`.
pub fn ssh_config(service: &Service, ui: &Ui, args: &SshConfig) -> Result<ExitCode> {
    let mut text = String::new();
    let blocks = args.targets.iter().map(|target| {
        let found = service.ssh_access(target)?;
        let user = presumed(&found, &args.access);
        text.push_str(&format!("Host {target}\n"));
        for (keyword, value) in
            settings(service, &found, &args.access, &user, args.patience.timeout)?
        {
            text.push_str(&format!("  {keyword} {value}\n"));
        }
        Ok(())
    });
    let code = reported(ui, blocks);
    write_stdout(text.as_bytes())?;
    Ok(code)
}

/// `__dial`: hands the connection over on standard output, which is a socket of OpenSSH's.
/// (ssh_config(5), ProxyUseFdpass)
pub fn dial(service: &Service, ui: &Ui, args: &Dial) -> Result<ExitCode> {
    let connect = || service.dial(&args.instance, args.port, args.timeout);
    let Some(stream) = ui.cancellable(connect)? else { return Ok(ui.cancelled()) };
    let rights = [stream.as_fd()];
    let rights = SendAncillaryMessage::ScmRights(&rights);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(rights);
    sendmsg(std::io::stdout(), &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)
        .or_fail(|| "hand a connection over on standard output, which is for OpenSSH")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_an_instance_has_its_name_before_the_first_colon() {
        assert_eq!(remote("web:/srv"), Some(("web", "/srv")));
        assert_eq!(remote("i-01:a:b"), Some(("i-01", "a:b")));
        assert_eq!(remote("web:"), Some(("web", "")));
        for local in ["/srv/a:b", "./a:b", ":x", "file"] {
            assert_eq!(remote(local), None, "{local}");
        }
    }
}
