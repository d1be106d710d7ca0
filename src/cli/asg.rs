//! `spore asg …`: Auto Scaling groups.

use super::answer;
use super::args::{launch_template, tag};
use super::asg_policy::{self, PolicyCommand};
use super::complete;
use super::output::{self, Cell, Column, Table};
use super::run::user_data;
use super::ui::{Ui, say};
use crate::error::{Error, Result};
use crate::record::network::NetworkName;
use crate::record::tag::Tag;
use crate::service::Service;
use crate::service::autoscaling::configurations::LaunchData;
use crate::service::autoscaling::groups::{
    AutoScalingGroup, GroupSettings, GroupTag, LaunchSource,
};
use crate::service::autoscaling::refresh::{MIN_HEALTHY, RefreshPreferences};
use crate::service::autoscaling::shape;
use crate::service::time::since_epoch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::json;
use std::process::ExitCode;

/// Verbs on Auto Scaling groups.
#[derive(Debug, Subcommand)]
pub enum AsgCommand {
    /// Make a group, which keeps a number of instances of an image alive; prints its name
    ///
    /// 'spore serve' launches them, replaces those that end, and scales. While it does not run
    /// nothing is done, and instances live on.
    Create(Box<CreateArgs>),
    /// List groups
    #[command(visible_alias = "list")]
    Ls,
    /// Show groups in full: their instances, what was done and why
    Show {
        /// Names
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Change a group: its sizes, its image for new instances
    Set(SetArgs),
    /// Replace a group's instances a few at a time, also by those of another image
    Refresh(RefreshArgs),
    /// How groups scale
    Policy {
        /// Verb
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Leave processes of a group undone: Launch, Terminate, HealthCheck …
    Suspend(ProcessArgs),
    /// Have processes of a group done again
    Resume(ProcessArgs),
    /// Delete groups; with --force their instances, too
    #[command(visible_alias = "rm")]
    Delete {
        /// Names
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Terminate their instances
        #[arg(long)]
        force: bool,
    },
}

/// Arguments of `asg create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name
    name: String,
    /// What its instances are launched from
    #[arg(long, value_name = "IMAGE", required_unless_present_any = ["launch_configuration", "template"], add = complete::image())]
    image: Option<String>,
    /// A launch configuration that there is, instead of an image
    #[arg(long, value_name = "NAME", conflicts_with_all = ["image", "instance_type", "key", "user_data", "groups"])]
    launch_configuration: Option<String>,
    /// A launch template, instead of an image; VERSION is a number or $Latest [default: the
    /// template's default version]
    #[arg(long, value_name = "TEMPLATE[:VERSION]", conflicts_with_all = ["image", "launch_configuration", "instance_type", "key", "user_data", "groups"])]
    template: Option<String>,
    /// Their type
    #[arg(short = 't', long = "type", value_name = "TYPE", add = complete::instance_type())]
    instance_type: Option<String>,
    /// Their key pair
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Their user data: a text, file://PATH or - for standard input
    #[arg(long, value_name = "TEXT|file://PATH|-")]
    user_data: Option<String>,
    /// The network that they hang on
    #[arg(long, value_name = "NETWORK")]
    network: Option<NetworkName>,
    /// A security group of the network, by name or id (repeatable)
    #[arg(long = "group", value_name = "GROUP", requires = "network")]
    groups: Vec<String>,
    /// Its sizes.
    #[command(flatten)]
    sizes: Sizes,
    /// A tag of the group's, which its instances get, too (repeatable)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<Tag>,
}

/// How many instances there are.
#[derive(Debug, Args)]
pub struct Sizes {
    /// As few instances
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// As many
    #[arg(long, value_name = "N")]
    max: Option<u32>,
    /// As many as there are to be
    #[arg(short = 'n', long, value_name = "N")]
    desired: Option<u32>,
    /// Seconds until a new instance's status checks count
    #[arg(long, value_name = "SECONDS")]
    health_check_grace: Option<u32>,
}

impl Sizes {
    fn settings(&self) -> GroupSettings {
        GroupSettings {
            min_size: self.min,
            max_size: self.max,
            desired_capacity: self.desired,
            health_check_grace_period: self.health_check_grace,
            ..GroupSettings::default()
        }
    }
}

/// Arguments of `asg set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Its name
    name: String,
    /// Its sizes.
    #[command(flatten)]
    sizes: Sizes,
    /// What new instances are launched from; 'refresh' replaces the others
    #[arg(long, value_name = "IMAGE", add = complete::image())]
    image: Option<String>,
    /// The launch template that they are launched by
    #[arg(long, value_name = "TEMPLATE[:VERSION]", conflicts_with = "image")]
    template: Option<String>,
}

/// Arguments of `asg refresh`.
#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// The group's name
    name: String,
    /// The image of the new instances [default: as the group has it]
    #[arg(long, value_name = "IMAGE", add = complete::image())]
    image: Option<String>,
    /// The launch template that they are launched by
    #[arg(long, value_name = "TEMPLATE[:VERSION]", conflicts_with = "image")]
    template: Option<String>,
    /// Percent of the desired capacity that stays in service
    #[arg(long, value_name = "PERCENT", default_value_t = MIN_HEALTHY)]
    min_healthy: u32,
    /// Seconds until a new instance counts as in service
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    warmup: u32,
    /// Leave alone what is launched from the same already
    #[arg(long)]
    skip_matching: bool,
    /// Bring the former instances back if the new ones don't come up
    #[arg(long)]
    auto_rollback: bool,
    /// End the refresh that goes on; what is replaced stays so
    #[arg(long, conflicts_with_all = ["image", "template", "rollback"])]
    cancel: bool,
    /// Bring the former instances back
    #[arg(long, conflicts_with_all = ["image", "template"])]
    rollback: bool,
}

/// Arguments of `asg suspend` and `asg resume`.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// The group's name
    name: String,
    /// The processes [default: all]
    #[arg(value_name = "PROCESS")]
    processes: Vec<String>,
}

/// Do a command on groups.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &AsgCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        AsgCommand::Create(args) => create(&service, ui, args)?,
        AsgCommand::Ls => list(&service, ui, &service.describe_auto_scaling_groups(&[])?)?,
        AsgCommand::Show { groups } => {
            let id = |group: &serde_json::Value| {
                group["AutoScalingGroupName"].as_str().unwrap_or_default().to_owned()
            };
            warn(&service);
            return answer::show(ui, "AutoScalingGroups", groups, id, |names| {
                names.iter().map(|name| described(&service, name)).collect()
            });
        }
        AsgCommand::Set(args) => {
            let mut settings = args.sizes.settings();
            let (image, template) = (args.image.as_deref(), args.template.as_deref());
            settings.launch = source(&service, &args.name, image, template)?;
            service.update_auto_scaling_group(&args.name, &settings)?;
            warn(&service);
        }
        AsgCommand::Refresh(args) => refresh(&service, ui, args)?,
        AsgCommand::Policy { command } => return asg_policy::run(&service, ui, command),
        AsgCommand::Suspend(args) => {
            service.suspend_processes(&args.name, &args.processes, true)?;
        }
        AsgCommand::Resume(args) => {
            service.suspend_processes(&args.name, &args.processes, false)?;
        }
        AsgCommand::Delete { groups, force } => {
            return answer::delete(ui, groups, |name| {
                service.delete_auto_scaling_group(name, *force)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that nothing is done, if it is so.
fn warn(service: &Service) {
    if !service.scales() {
        say("warning: nothing scales: 'spore serve' does not run; it does what groups need");
    }
}

fn create(service: &Service, ui: &Ui, args: &CreateArgs) -> Result<()> {
    let mut settings = args.sizes.settings();
    let desired = args.sizes.desired.or(args.sizes.min).unwrap_or(1);
    settings.min_size = Some(args.sizes.min.unwrap_or(desired.min(1)));
    settings.max_size = Some(args.sizes.max.unwrap_or(desired));
    settings.desired_capacity = Some(desired);
    settings.network = Some(args.network.clone());
    let template = args.template.as_deref();
    let template = template.map(|text| service.launch_template_source(&launch_template(text).0));
    let source = match (template.transpose()?, &args.launch_configuration, &args.image) {
        (Some(source), ..) => source,
        (None, Some(name), _) => LaunchSource::LaunchConfiguration(name.clone()),
        (None, None, image) => {
            let data = args.user_data.as_deref().map(user_data).transpose()?;
            let launch = LaunchData {
                image_id: image.clone().unwrap_or_default(),
                instance_type: args.instance_type.clone(),
                key_name: args.key.clone(),
                security_groups: args.groups.clone(),
                user_data: data.map(|data| STANDARD.encode(data)),
                ..LaunchData::default()
            };
            LaunchSource::LaunchConfiguration(configuration(service, &args.name, &launch)?)
        }
    };
    settings.launch = Some(source.clone());
    let propagate = |tag: &Tag| GroupTag {
        key: tag.key.clone(),
        value: tag.value.clone(),
        propagate_at_launch: true,
    };
    let tags: Vec<GroupTag> = args.tags.iter().map(propagate).collect();
    let made = service.create_auto_scaling_group(&args.name, &settings, &tags);
    if let (true, Some(name)) = (made.is_err(), source.launch_configuration())
        && args.launch_configuration.is_none()
    {
        // It was made for this group.
        let _ = service.delete_launch_configuration(name);
    }
    let made = made?;
    warn(service);
    let name = &made.auto_scaling_group_name;
    answer::whole(ui, "AutoScalingGroupName", name, json!({ "AutoScalingGroupName": name }))
}

/// A launch configuration that is made for a group; its name.
fn configuration(service: &Service, group: &str, launch: &LaunchData) -> Result<String> {
    let name = format!("{group}-{}", since_epoch().as_millis());
    service.create_launch_configuration(&name, launch, Some(group))?;
    Ok(name)
}

/// What a group is to launch from: with another image, or by a launch template; neither leaves it.
fn source(
    service: &Service,
    group: &str,
    image: Option<&str>,
    template: Option<&str>,
) -> Result<Option<LaunchSource>> {
    match (image, template) {
        (Some(image), _) => other_image(service, group, image).map(Some),
        (None, Some(text)) => service.launch_template_source(&launch_template(text).0).map(Some),
        (None, None) => Ok(None),
    }
}

/// What a group launches from, with another image.
fn other_image(service: &Service, group: &str, image: &str) -> Result<LaunchSource> {
    let group = service.describe_auto_scaling_group(group)?;
    let named = group.launch.launch_configuration().map(str::to_owned);
    let found = named.map(|name| service.describe_launch_configurations(&[name])).transpose()?;
    let Some(mut launch) = found.into_iter().flatten().next().map(|one| one.launch) else {
        let why = "the group launches by a launch template, which says what the image is: make \
                   another version by 'spore template version', and give it by --template";
        return Err(Error::usage(why));
    };
    image.clone_into(&mut launch.image_id);
    let name = configuration(service, &group.auto_scaling_group_name, &launch)?;
    Ok(LaunchSource::LaunchConfiguration(name))
}

fn refresh(service: &Service, ui: &Ui, args: &RefreshArgs) -> Result<()> {
    let id = if args.cancel {
        service.cancel_instance_refresh(&args.name)?
    } else if args.rollback {
        service.rollback_instance_refresh(&args.name)?
    } else {
        let (image, template) = (args.image.as_deref(), args.template.as_deref());
        let desired = source(service, &args.name, image, template)?;
        let preferences = RefreshPreferences {
            min_healthy_percentage: args.min_healthy,
            instance_warmup: args.warmup,
            skip_matching: args.skip_matching,
            auto_rollback: args.auto_rollback,
        };
        service.start_instance_refresh(&args.name, desired, preferences)?
    };
    warn(service);
    answer::made(ui, "InstanceRefreshId", &id)
}

/// A group, what was done to it, and its refreshes.
fn described(service: &Service, name: &str) -> Result<serde_json::Value> {
    let group = service.describe_auto_scaling_group(name)?;
    let mut described = shape::group(&group, None);
    let activities = group.activities.iter().map(|one| shape::activity(&group, one));
    described["Activities"] = activities.collect();
    let refreshes = group.instance_refreshes.iter().map(|one| shape::refresh(&group, one));
    described["InstanceRefreshes"] = refreshes.collect();
    Ok(described)
}

fn list(service: &Service, ui: &Ui, groups: &[AutoScalingGroup]) -> Result<()> {
    let row = |group: &AutoScalingGroup| {
        let state = match group.instance_refreshes.first() {
            _ if group.deleting => "deleting".to_owned(),
            Some(refresh) if refresh.status.is_active() => {
                format!("refresh, {} to go", refresh.instances_to_update)
            }
            _ if !group.suspended_processes.is_empty() => "suspended in part".to_owned(),
            _ if group.spore.failures > 0 => "launches fail".to_owned(),
            _ => String::new(),
        };
        let launch = match &group.launch {
            LaunchSource::LaunchConfiguration(name) => name.clone(),
            LaunchSource::LaunchTemplate { launch_template_name, version, .. } => {
                format!("{launch_template_name}:{version}")
            }
        };
        let serving = |one: &&crate::record::autoscaling::Member| {
            one.lifecycle_state.as_str() == "InService" && !one.unhealthy
        };
        let in_service = group.instances.iter().filter(serving).count();
        vec![
            Cell::Text(group.auto_scaling_group_name.clone()),
            Cell::Text(in_service.to_string()),
            Cell::Text(group.desired_capacity.to_string()),
            Cell::Text(group.min_size.to_string()),
            Cell::Text(group.max_size.to_string()),
            Some(state).filter(|state| !state.is_empty()).into(),
            Cell::Text(launch),
            Cell::Time(group.created_time.clone()),
        ]
    };
    let answer: Vec<_> = groups.iter().map(|group| shape::group(group, None)).collect();
    let table = Table {
        columns: vec![
            Column::text("AutoScalingGroupName", "GROUP"),
            Column::new("InService", "IN SERVICE"),
            Column::new("DesiredCapacity", "DESIRED"),
            Column::new("MinSize", "MIN"),
            Column::new("MaxSize", "MAX"),
            Column::new("Status", "STATE"),
            Column::text("LaunchConfigurationName", "LAUNCHES FROM"),
            Column::new("CreatedTime", "CREATED"),
        ],
        rows: groups.iter().map(row).collect(),
        ids: groups.iter().map(|group| group.auto_scaling_group_name.clone()).collect(),
        json: json!({ "AutoScalingGroups": answer }),
    };
    output::emit(&ui.output, &table)?;
    if !groups.is_empty() {
        warn(service);
    }
    Ok(())
}
