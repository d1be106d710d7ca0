//! `spore serve` and `spore env`: Amazon EC2's API over the store.

use super::answer;
use super::output::{self, Cell, Column, Table};
use super::ui::{Ui, say};
use crate::error::{Code, Error, OrFail, Result};
use crate::http::server::{Listener, Settings};
use crate::record::network::NetworkName;
use crate::service::access::AccessKey;
use crate::service::programs;
use crate::sys::fds;
use clap::{Args, Subcommand};
use rustix::io::FdFlags;
use serde_json::json;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the service is if nothing else is said.
const ADDRESS: &str = "127.0.0.1:4566";
/// The region that clients are given: of the store at hand.
const REGION: &str = crate::service::shape::REGION;

/// `spore serve`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  spore serve &
  eval \"$(spore env)\"
  aws ec2 run-instances --image-id demo --count 3
  spore serve --open
  spore serve --install-unit > ~/.config/systemd/user/spore.service")]
pub struct Serve {
    /// Where it listens: an address, or a socket's path as unix:PATH
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH", default_value = ADDRESS)]
    listen: String,
    /// The certificate, in PEM: TLS instead of plain HTTP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen without TLS at an address that others can reach: they can read every answer
    #[arg(long)]
    insecure: bool,
    /// The network of an instance for which none is named
    #[arg(long, value_name = "NETWORK|none", default_value = "default")]
    network: String,
    /// Tell each answer on standard error
    #[arg(long)]
    log: bool,
    /// Print a link that logs a browser into the console, once
    #[arg(long)]
    open: bool,
    /// Print a systemd user unit and the socket that starts it, and end
    #[arg(long)]
    install_unit: bool,
}

/// `spore env`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  eval \"$(spore env)\"\n  aws ec2 describe-images")]
pub struct Env {
    /// Where the service listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4566")]
    endpoint: String,
    /// The region that requests are signed for
    #[arg(long, value_name = "REGION", default_value = REGION)]
    region: String,
}

/// Verbs on access keys.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Make an access key of your account; prints its id
    ///
    /// Requests to 'spore serve' are signed with it. The secret is printed with -o json, and by
    /// 'spore env'.
    #[command(after_long_help = "Examples:\n  spore key access create -o json")]
    Create,
    /// List access keys
    #[command(
        visible_alias = "list",
        after_long_help = "Examples:\n  spore key access ls\n  spore key access ls -q"
    )]
    Ls,
    /// Remove access keys: what is signed with them is refused from now on
    #[command(
        visible_alias = "delete",
        after_long_help = "Examples:\n  spore key access rm AKIAIOSFODNN7EXAMPLE"
    )]
    Rm {
        /// Ids
        #[arg(required = true, value_name = "ACCESS_KEY")]
        keys: Vec<String>,
    },
}

/// Serves until a signal ends it.
///
/// # Errors
/// The address is taken or not allowed; the certificate is none.
pub fn serve(ui: &Ui, args: &Serve) -> Result<ExitCode> {
    if args.install_unit {
        output::write_stdout(UNIT.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let serve = ui.serve.ok_or_else(|| programs::missing("serves EC2's API"))?;
    let network = match args.network.as_str() {
        "none" => None,
        name => Some(name.parse::<NetworkName>()?),
    };
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let listener = match passed_socket()? {
        Some(fd) => Listener::passed(fd)?,
        None => listen(args, tls.is_some())?,
    };
    if args.open && matches!(listener, Listener::Unix(_)) {
        let why =
            "a browser opens no socket of the file system: give --open with --listen ADDRESS:PORT";
        return Err(Error::usage(why));
    }
    // Whatever is wrong with the store is said now.
    let service = ui.service()?;
    let home = service.home().to_owned();
    drop(service);
    say(format_args!(
        "serving EC2's API of {} at {}",
        home.display(),
        listener.endpoint(tls.is_some())
    ));
    let link = args.open.then(crate::http::one_time);
    if let Some(link) = &link {
        let endpoint = listener.endpoint(tls.is_some());
        say(format_args!("console: {endpoint}/console/open?token={link}"));
    }
    let context = ui.context.clone();
    let log = if args.log { |line: &str| say(line) } else { |_: &str| {} };
    ui.cancellable(|| {
        // A manager that does not listen has nothing to be told.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        serve(Settings { listener, tls, home, context, network, link, log })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The socket that a service manager has made. (sd_listen_fds(3))
fn passed_socket() -> Result<Option<OwnedFd>> {
    let Ok(mut passed) = sd_notify::listen_fds() else { return Ok(None) };
    let Some(fd) = passed.next() else { return Ok(None) };
    let fd = fds::take(fd)?;
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).or_fail(|| "take the socket that was passed")?;
    Ok(Some(fd))
}

fn listen(args: &Serve, tls: bool) -> Result<Listener> {
    if let Some(path) = args.listen.strip_prefix("unix:") {
        return Listener::unix(path.as_ref());
    }
    let address: SocketAddr = args.listen.parse().map_err(|_| {
        let why = format!(
            "'{}' is no address: give ADDRESS:PORT or unix:PATH",
            args.listen.escape_debug()
        );
        Error::usage(why)
    })?;
    if !address.ip().is_loopback() && !tls && !args.insecure {
        let why = format!("{address} can be reached by others, who could read every answer");
        return Err(Error::refused(Code::OperationNotPermitted, why)
            .remedy("give --tls-cert and --tls-key, or --insecure"));
    }
    Listener::tcp(address)
}

/// A systemd user unit, and its socket. (systemd.service(5), systemd.socket(5))
const UNIT: &str = "\
# ~/.config/systemd/user/spore.service
[Unit]
Description=Spore: Amazon EC2's API over the local store

[Service]
Type=notify
ExecStart=spore serve
# Instances live on without it.
KillMode=process

[Install]
WantedBy=default.target

# For socket activation, in ~/.config/systemd/user/spore.socket:
#
# [Socket]
# ListenStream=127.0.0.1:4566
#
# [Install]
# WantedBy=sockets.target
";

/// Prints what sets a shell's AWS variables.
///
/// # Errors
/// There is no key, and none can be made.
pub fn env(ui: &Ui, args: &Env) -> Result<ExitCode> {
    let key = ui.service()?.first_access_key()?;
    let lines = [
        ("AWS_ENDPOINT_URL", args.endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", &key.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", &key.secret_access_key),
        ("AWS_REGION", &args.region),
        ("AWS_DEFAULT_REGION", &args.region),
    ];
    // A quote in an argument is the shell's.
    let quoted = |text: &str| text.replace('\'', "'\\''");
    let lines = lines.map(|(name, value)| format!("export {name}='{}'\n", quoted(value)));
    output::write_stdout(lines.concat().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Do a command on access keys.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn access(command: &AccessCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        AccessCommand::Create => {
            let key = service.create_access_key()?;
            let mut json = reported(&key);
            json["SecretAccessKey"] = key.secret_access_key.as_str().into();
            answer::whole(ui, "AccessKeyId", &key.access_key_id, json!({ "AccessKey": json }))?;
            Ok(ExitCode::SUCCESS)
        }
        AccessCommand::Ls => {
            let keys = service.list_access_keys()?;
            let row = |key: &AccessKey| {
                vec![key.access_key_id.as_str().into(), Cell::Time(key.create_date.clone())]
            };
            let table = Table {
                columns: vec![
                    Column::new("AccessKeyId", "ID"),
                    Column::new("CreateDate", "CREATED"),
                ],
                rows: keys.iter().map(row).collect(),
                ids: keys.iter().map(|key| key.access_key_id.clone()).collect(),
                json: json!({ "AccessKeyMetadata": keys.iter().map(reported).collect::<Vec<_>>() }),
            };
            output::emit(&ui.output, &table)?;
            Ok(ExitCode::SUCCESS)
        }
        AccessCommand::Rm { keys } => {
            answer::delete(ui, keys, |key| service.delete_access_key(key))
        }
    }
}

/// IAM AccessKeyMetadata.
fn reported(key: &AccessKey) -> serde_json::Value {
    json!({ "AccessKeyId": key.access_key_id, "Status": "Active", "CreateDate": key.create_date })
}
