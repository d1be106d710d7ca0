//! How the host's OpenSSH gets into instances: over a connection that `__dial` makes and hands
//! over.

use super::parse::parse_duration;
use crate::error::{Error, OrFail, Result};
use crate::service::Service;
use crate::service::reach::{SshAccess, is_user};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How OpenSSH gets in.
#[derive(Debug, Args)]
pub struct Access {
    /// The guest's user [default: root, or whom its cloud-init lets in]
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

fn parse_user(text: &str) -> Result<String, String> {
    match is_user(text) {
        true => Ok(text.to_owned()),
        false => Err("a user's name has letters, digits, '_', '-' and '.', 32 at most".into()),
    }
}

/// What OpenSSH is given to log into one instance as that user: keywords of ssh_config(5) and their
/// values.
///
/// # Errors
/// A path that it would not understand.
pub fn settings(
    service: &Service,
    found: &SshAccess,
    access: &Access,
    user: &str,
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
        ("User", user.to_owned()),
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

/// Why OpenSSH can't be had.
pub fn no_openssh(program: &str, cause: &std::io::Error) -> Error {
    Error::failure(format!(
        "cannot run {program}: {cause}; instances are reached by OpenSSH's client: 'apt-get install openssh-client'"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openssh_would_expand_or_split_is_quoted() {
        assert_eq!(quoted(Path::new("/a b'%h")).unwrap(), r"'/a b'\''%%h'");
        assert_eq!(file(Path::new("/a b%d")).unwrap(), "\"/a b%%d\"");
        assert!(file(Path::new("/a\"b")).is_err() && quoted(Path::new("/a\nb")).is_err());
        assert!(parse_user("-oProxyCommand=x").is_err() && parse_user("a b").is_err());
        assert_eq!(parse_user("debian").unwrap(), "debian");
    }
}
