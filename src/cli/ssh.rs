//! `ssh`, `exec`, `cp`, `ssh-config`: into instances by the host's OpenSSH, over a connection that
//! `__dial` makes and hands over.

use super::answer::told;
use super::output::write_stdout;
use super::parse::parse_duration;
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
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// How OpenSSH gets in.
#[derive(Debug, Args)]
pub struct Access {
    /// The guest's user [default: root]
    #[arg(long, value_name = "USER", value_parser = parse_user)]
    pub user: Option<String>,
    /// A private key in place of the instance's
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// How long it may take.
#[derive(Debug, Args)]
pub struct Patience {
    /// How long to wait for the guest's sshd (30, 500ms, 2m)
    #[arg(long, value_name = "TIME", default_value = "120", value_parser = parse_duration)]
    pub timeout: Duration,
}

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

fn parse_user(text: &str) -> Result<String, String> {
    // OpenSSH takes no others.
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let fits = !text.is_empty() && text.len() <= 64 && !text.starts_with('-');
    match fits && text.chars().all(fine) {
        true => Ok(text.to_owned()),
        false => Err("a user's name has letters, digits, '_', '-' and '.'".into()),
    }
}

/// What OpenSSH is told of one instance: keywords of ssh_config(5) and their values.
///
/// # Errors
/// A path that it would not understand.
pub fn settings(
    service: &Service,
    found: &SshAccess,
    access: &Access,
    patience: Duration,
) -> Result<Vec<(&'static str, String)>> {
    let own = std::env::current_exe().or_fail(|| "find the spore program itself")?;
    let dial = format!(
        "SPORE_HOME={} {} __dial --timeout {}s {} %p",
        quoted(service.home())?,
        quoted(&own)?,
        patience.as_secs().max(1),
        found.instance_id
    );
    let mut settings = vec![
        ("HostName", found.instance_id.to_string()),
        ("HostKeyAlias", found.instance_id.to_string()),
        ("User", access.user.clone().unwrap_or_else(|| found.user.to_owned())),
        ("ProxyCommand", format!("env {dial}")),
        ("ProxyUseFdpass", "yes".into()),
        ("UserKnownHostsFile", file(&found.known_hosts)?),
        ("GlobalKnownHostsFile", "/dev/null".into()),
        ("StrictHostKeyChecking", if found.pinned { "yes" } else { "accept-new" }.into()),
        ("CheckHostIP", "no".into()),
        ("UpdateHostKeys", "no".into()),
        // A guest that says anything but its version is given up.
        ("ConnectTimeout", patience.as_secs().max(1).to_string()),
        ("ServerAliveInterval", "15".into()),
        ("LogLevel", "ERROR".into()),
    ];
    if let Some(identity) = access.identity.as_ref().or(found.identity.as_ref()) {
        settings.push(("IdentityFile", file(identity)?));
        settings.push(("IdentitiesOnly", "yes".into()));
    }
    Ok(settings)
}

/// A path for a shell, in a value of which OpenSSH expands what begins with '%'.
fn quoted(path: &Path) -> Result<String> {
    Ok(format!("'{}'", text_of(path)?.replace('\'', r"'\''").replace('%', "%%")))
}

/// A path as one word of a value.
fn file(path: &Path) -> Result<String> {
    Ok(format!("\"{}\"", text_of(path)?.replace('%', "%%")))
}

fn text_of(path: &Path) -> Result<&str> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\n', '\\']));
    text.ok_or_else(|| {
        let shown = path.display().to_string();
        Error::usage(format!("OpenSSH can't be given the path '{}'", shown.escape_debug()))
    })
}

/// An OpenSSH program with these settings, and none of the user's own for other hosts.
pub fn openssh(program: &str, settings: &[(&str, String)]) -> Command {
    let mut command = Command::new(program);
    command.args(["-F", "none"]);
    for (keyword, value) in settings {
        command.args(["-o", &format!("{keyword}={value}")]);
    }
    command
}

/// Runs one of OpenSSH's programs to its end; its exit code is ours.
fn run_program(mut command: Command) -> Result<ExitCode> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ended = command.status().map_err(|cause| no_openssh(&name, &cause))?;
    use std::os::unix::process::ExitStatusExt;
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(125)))
}

/// Why OpenSSH can't be had.
pub fn no_openssh(program: &str, cause: &std::io::Error) -> Error {
    Error::failure(format!(
        "cannot run {program}: {cause}; instances are reached by OpenSSH's client: 'apt-get install openssh-client'"
    ))
}

/// `ssh`.
pub fn ssh(service: &Service, args: &Ssh) -> Result<ExitCode> {
    let found = service.ssh_access(&args.instance)?;
    let mut command =
        openssh("ssh", &settings(service, &found, &args.access, args.patience.timeout)?);
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
    let settings = settings(service, &found, &args.access, args.patience.timeout)?;
    let mut command = openssh("scp", &settings);
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
        text.push_str(&format!("Host {target}\n"));
        for (keyword, value) in settings(service, &found, &args.access, args.patience.timeout)? {
            text.push_str(&format!("  {keyword} {value}\n"));
        }
        Ok(())
    });
    let code = told(ui, blocks);
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

    #[test]
    fn what_openssh_would_expand_or_split_is_quoted() {
        assert_eq!(quoted(Path::new("/a b'%h")).unwrap(), r"'/a b'\''%%h'");
        assert_eq!(file(Path::new("/a b%d")).unwrap(), "\"/a b%%d\"");
        assert!(file(Path::new("/a\"b")).is_err() && quoted(Path::new("/a\nb")).is_err());
        assert!(parse_user("-oProxyCommand=x").is_err() && parse_user("a b").is_err());
        assert_eq!(parse_user("debian").unwrap(), "debian");
    }
}
