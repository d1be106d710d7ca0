//! `spore network …`.

use super::answer;
use super::args::{filter, tag};
use super::output;
use super::security_group::{self, GroupCommand};
use super::table::{Cell, Column, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::record::network::{NetworkName, PublishedPort};
use crate::record::tag::Tag;
use crate::record::vpc::Cidr;
use crate::service::filter::Filter;
use crate::service::networks::{DescribedNetwork, NewNetwork};
use clap::{Args, Subcommand};
use serde_json::json;
use std::process::ExitCode;

/// Verbs on networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network; prints its id
    Create(CreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that match: vpc-id, cidr, is-default … (may be repeated)
        #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]", value_parser = filter)]
        filters: Vec<Filter>,
    },
    /// Show networks in full: their addresses, who has which, their security groups
    Show {
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Delete networks that no instance is on
    #[command(visible_alias = "rm")]
    Delete {
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Security groups: which packets pass to and from instances
    Group {
        /// What to do
        #[command(subcommand)]
        command: GroupCommand,
    },
}

/// Arguments of `network create`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  spore network create lab --cidr 10.7.0.0/16
  spore run debian -n 3 --network lab --name web")]
pub struct CreateArgs {
    /// Its name: lower-case letters, digits and dashes
    name: NetworkName,
    /// Its addresses, 16 to 28 bits [default: a free range of 10.0.0.0/8]
    #[arg(long, value_name = "CIDR")]
    cidr: Option<Cidr>,
    /// Without a way out: its instances reach each other and nothing else
    #[arg(long)]
    isolated: bool,
    /// A tag (may be repeated)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<Tag>,
}

/// Do a network command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &NetworkCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        NetworkCommand::Group { command } => security_group::run(command, ui),
        NetworkCommand::Create(args) => {
            let CreateArgs { name, cidr, isolated, tags } = args;
            let new = NewNetwork {
                name: name.clone(),
                cidr: *cidr,
                isolated: *isolated,
                tags: tags.clone(),
            };
            let made = service.create_network(&new)?;
            answer::whole(ui, "VpcId", made.vpc.vpc_id.as_str(), json!({ "Vpc": made }))?;
            Ok(ExitCode::SUCCESS)
        }
        NetworkCommand::Ls { filters } => {
            list(ui, &service.describe_networks(&[], filters)?)?;
            Ok(ExitCode::SUCCESS)
        }
        NetworkCommand::Show { networks } => {
            let id = |described: &DescribedNetwork| described.vpc.vpc_id.to_string();
            answer::show(ui, "Vpcs", networks, id, |names| service.describe_networks(&names, &[]))
        }
        NetworkCommand::Delete { networks } => {
            answer::delete(ui, networks, |text| service.delete_network(text))
        }
    }
}

fn list(ui: &Ui, networks: &[DescribedNetwork]) -> Result<()> {
    let row = |DescribedNetwork { vpc, instances, running, way_out }: &DescribedNetwork| {
        let out = match (vpc.spore.isolated, *running && !way_out) {
            (true, _) => "no",
            (false, true) => "down",
            (false, false) => "yes",
        };
        vec![
            Cell::Text(vpc.spore.name.to_string()),
            Cell::Text(vpc.cidr_block.to_string()),
            Cell::Text(instances.to_string()),
            Cell::Text(if *running { "up" } else { "-" }.to_owned()),
            Cell::Text(out.to_owned()),
            Cell::Text(vpc.vpc_id.to_string()),
            Cell::Time(vpc.spore.creation_date.clone()),
        ]
    };
    let table = Table {
        columns: vec![
            Column::text("Name", "NAME"),
            Column::new("CidrBlock", "CIDR"),
            Column::new("Instances", "INSTANCES"),
            Column::new("State", "STATE"),
            Column::new("WayOut", "WAY OUT"),
            Column::new("VpcId", "ID"),
            Column::new("CreationDate", "CREATED"),
        ],
        rows: networks.iter().map(row).collect(),
        ids: networks.iter().map(|network| network.vpc.vpc_id.to_string()).collect(),
        json: json!({ "Vpcs": networks }),
    };
    output::emit(&ui.output, &table)
}

/// `port`: the host's ports that are passed on to an instance.
///
/// # Errors
/// The instance is unknown.
pub fn port(ui: &Ui, instance: &str) -> Result<ExitCode> {
    let ports = ui.service()?.published_ports(instance)?;
    let row = |port: &PublishedPort| {
        let guest = format!("{}/{}", port.guest_port, port.protocol);
        vec![Cell::Text(guest), Cell::Text(port.host().to_string())]
    };
    let table = Table {
        columns: vec![Column::new("GuestPort", "GUEST"), Column::new("HostPort", "HOST")],
        rows: ports.iter().map(row).collect(),
        ids: ports.iter().map(|port| port.host().to_string()).collect(),
        json: json!({ "PublishedPorts": ports }),
    };
    output::emit(&ui.output, &table)?;
    Ok(ExitCode::SUCCESS)
}
