//! `spore network group …`.

use super::answer;
use super::output;
use super::table::{Cell, Column, Table};
use super::ui::Ui;
use crate::error::{Error, Result};
use crate::plan::network::IpProtocol;
use crate::record::vpc::IpPermission;
use crate::service::networks::{Rule, SecurityGroup, Whom};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::process::ExitCode;
use std::slice;

/// Verbs on security groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Make a group, whose members may send everything and get nothing; prints its id
    Create {
        /// The network
        network: String,
        /// The group's name
        group: String,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
    },
    /// Let something in, or with --out, out
    ///
    /// It holds at once, for instances that run too. An answer to what was let through passes
    /// always.
    #[command(override_usage = "spore network group allow [OPTIONS] <NETWORK> <GROUP>")]
    Allow(RuleArgs),
    /// Let something in, or with --out, out no longer; connections that are open stay
    #[command(override_usage = "spore network group revoke [OPTIONS] <NETWORK> <GROUP>")]
    Revoke(RuleArgs),
    /// List a network's groups and their rules
    #[command(visible_alias = "list")]
    Ls {
        /// The network
        #[arg(default_value = "default")]
        network: String,
    },
    /// Delete a group that no instance is in
    #[command(visible_alias = "rm")]
    Delete {
        /// The network
        network: String,
        /// The group: a name or an id
        group: String,
    },
}

/// Arguments of `network group allow` and `revoke`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore network group create lab web
  spore network group allow lab web --protocol tcp --port 80 --cidr 0.0.0.0/0
  spore network group allow lab db --protocol tcp --port 5432 --from web
  spore network group revoke lab web --protocol tcp --port 80 --cidr 0.0.0.0/0
  spore run debian --network lab --group web")]
#[command(group = clap::ArgGroup::new("whom").args(["cidr", "from"]).required(true))]
pub struct RuleArgs {
    /// The network
    network: String,
    /// The group: a name or an id
    group: String,
    /// Out of its members; else in to them
    #[arg(long)]
    out: bool,
    /// What it is about
    #[arg(long, value_enum, default_value_t = ProtocolArg::All)]
    protocol: ProtocolArg,
    /// A port, or a first and a last one: 80, 8000-8099 (of icmp and icmpv6: a type) [default: all]
    #[arg(long, value_name = "PORT[-PORT]", value_parser = ports)]
    port: Option<(u16, u16)>,
    /// From, or with --out to, these addresses: 10.0.0.0/16, fd00:1::/64; 0.0.0.0/0 is all of
    /// IPv4, ::/0 of IPv6
    #[arg(long, value_name = "CIDR")]
    cidr: Option<String>,
    /// From, or with --out to, the members of this group
    #[arg(long, value_name = "GROUP")]
    from: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    All,
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
}

/// `PORT` or `PORT-PORT`.
fn ports(text: &str) -> Result<(u16, u16)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (port(from), port(to)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => Err(Error::usage(format!("'{}' is not PORT or PORT-PORT", text.escape_debug()))),
    }
}

impl RuleArgs {
    fn rule(&self) -> Result<Rule> {
        let protocol = match self.protocol {
            ProtocolArg::All => IpProtocol::All,
            ProtocolArg::Tcp => IpProtocol::Tcp,
            ProtocolArg::Udp => IpProtocol::Udp,
            ProtocolArg::Icmp => IpProtocol::Icmp,
            ProtocolArg::Icmpv6 => IpProtocol::Icmpv6,
        };
        if self.port.is_some() && protocol == IpProtocol::All {
            return Err(Error::usage(
                "--port is one of a --protocol; give tcp, udp, icmp or icmpv6",
            ));
        }
        let whom = match (&self.cidr, &self.from) {
            (Some(six), _) if six.contains(':') => Whom::Cidr6(six.parse()?),
            (Some(cidr), _) => Whom::Cidr(cidr.parse()?),
            (None, group) => Whom::Group(group.clone().unwrap_or_default()),
        };
        let (network, group) = (self.network.clone(), self.group.clone());
        Ok(Rule { network, group, egress: self.out, protocol, ports: self.port, whom })
    }
}

/// Do a command on security groups.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &GroupCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        GroupCommand::Create { network, group, description } => {
            let made = service.create_security_group(network, group, description)?;
            answer::made(ui, "GroupId", made.as_str())?;
        }
        GroupCommand::Ls { network } => list(ui, &service.describe_security_groups(network)?)?,
        // EC2 answers all three alike, people hear nothing.
        GroupCommand::Allow(args) => {
            let done = service.authorize_security_group(&args.rule()?);
            return answer::deleted(ui, slice::from_ref(&args.group), [done]);
        }
        GroupCommand::Revoke(args) => {
            let done = service.revoke_security_group(&args.rule()?);
            return answer::deleted(ui, slice::from_ref(&args.group), [done]);
        }
        GroupCommand::Delete { network, group } => {
            let done = service.delete_security_group(network, group);
            return answer::deleted(ui, slice::from_ref(group), [done]);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(ui: &Ui, groups: &[SecurityGroup]) -> Result<()> {
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for group in groups {
        let directions = [("in", &group.ip_permissions), ("out", &group.ip_permissions_egress)];
        let before = rows.len();
        for (direction, permissions) in directions {
            for permission in permissions {
                for whom in ends(permission, groups) {
                    let (protocol, ports) = about(permission);
                    let texts = [
                        group.group_name.clone(),
                        direction.to_owned(),
                        protocol,
                        ports,
                        whom,
                        group.group_id.to_string(),
                    ];
                    rows.push(texts.map(Cell::Text).into());
                }
            }
        }
        if rows.len() == before {
            let (name, id) = (group.group_name.clone(), group.group_id.to_string());
            let mut row = vec![Cell::None; 6];
            row[0] = Cell::Text(name);
            row[5] = Cell::Text(id);
            rows.push(row);
        }
    }
    let table = Table {
        columns: vec![
            Column::text("GroupName", "GROUP"),
            Column::new("Way", "WAY"),
            Column::new("IpProtocol", "PROTOCOL"),
            Column::new("Ports", "PORTS"),
            Column::text("Whom", "WHOM"),
            Column::new("GroupId", "ID"),
        ],
        rows,
        ids: groups.iter().map(|group| group.group_id.to_string()).collect(),
        json: json!({ "SecurityGroups": groups }),
    };
    output::emit(&ui.output, &table)
}

fn about(permission: &IpPermission) -> (String, String) {
    let protocol = match permission.ip_protocol {
        IpProtocol::All => "all",
        IpProtocol::Tcp => "tcp",
        IpProtocol::Udp => "udp",
        IpProtocol::Icmp => "icmp",
        IpProtocol::Icmpv6 => "icmpv6",
    };
    let ports = match (permission.from_port, permission.to_port) {
        (Some(from), Some(to)) if from != to => format!("{from}-{to}"),
        (Some(from), _) => from.to_string(),
        _ => "all".to_owned(),
    };
    (protocol.to_owned(), ports)
}

fn ends(permission: &IpPermission, groups: &[SecurityGroup]) -> Vec<String> {
    let ranges = permission.ip_ranges.iter().map(|range| range.cidr_ip.to_string());
    let six = permission.ipv6_ranges.iter().map(|range| range.cidr_ipv6.to_string());
    let members = permission.user_id_group_pairs.iter().map(|pair| {
        let named = groups.iter().find(|group| group.group_id == pair.group_id);
        named.map_or_else(|| pair.group_id.to_string(), |group| group.group_name.clone())
    });
    ranges.chain(six).chain(members).collect()
}
