//! `spore template …`.

use super::answer;
use super::args::{filter, launch_template as named};
use super::input;
use super::output::{self, Cell, Column, Table};
use super::run::user_data;
use super::ui::Ui;
use crate::error::{Code, Error, Result};
use crate::service::filter::Filter;
use crate::service::launch_templates::{DescribedVersion, NewVersion};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// Most bytes of a file of a template's data.
const MAX_DATA: u64 = 256 << 10;

/// Verbs on launch templates.
#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// Make a launch template; prints its id
    ///
    /// It says of a launch what 'run' need not say any more: 'spore run --template NAME'. What
    /// 'run' does say comes before it.
    #[command(after_long_help = "\
Examples:
  spore template create web --image debian -t t3.small --key ci
  spore template create web --like web-0
  spore template create web --data '{\"ImageId\":\"ami-0123456789abcdef0\"}'
  spore run --template web -n 3")]
    Create {
        /// Its name: 3 to 128 letters, digits and ().-/_
        name: String,
        /// What it says.
        #[command(flatten)]
        data: Data,
    },
    /// Make another version of a launch template; prints its number
    ///
    /// It has what the version of --source says and these arguments don't.
    #[command(
        after_long_help = "Examples:\n  spore template version web --source '$Latest' -t t3.large --default"
    )]
    Version {
        /// The template's name or id
        template: String,
        /// The version that it is over: a number, $Latest or $Default
        #[arg(long, value_name = "VERSION")]
        source: Option<String>,
        /// What it says.
        #[command(flatten)]
        data: Data,
        /// Make it the default one
        #[arg(long)]
        default: bool,
    },
    /// Choose the version that is launched by where none is named
    Default {
        /// The template's name or id
        template: String,
        /// A number, or $Latest
        version: String,
    },
    /// List launch templates
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that match: launch-template-id, launch-template-name, create-time, tag:KEY,
        /// tag-key (may be repeated)
        #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]", value_parser = filter)]
        filters: Vec<Filter>,
    },
    /// Show a launch template's versions, the last one first
    Show {
        /// Its name or id, and a version, if not all are meant
        #[arg(value_name = "TEMPLATE[:VERSION]")]
        template: String,
    },
    /// Delete launch templates, or one version; instances that they launched stay
    #[command(visible_alias = "rm")]
    Delete {
        /// Names or ids; with a version, only that goes
        #[arg(required = true, value_name = "TEMPLATE[:VERSION]")]
        templates: Vec<String>,
    },
}

/// What a template says.
#[derive(Debug, Args)]
pub struct Data {
    /// The image: an id
    #[arg(long, value_name = "AMI")]
    image: Option<String>,
    /// Instance type
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    instance_type: Option<String>,
    /// Key pair
    #[arg(long, value_name = "NAME|none")]
    key: Option<String>,
    /// User data: text, @FILE, or - for standard input; at most 16 KiB
    #[arg(long, value_name = "TEXT|@FILE|-")]
    user_data: Option<String>,
    /// The rest, or all of it: JSON as EC2's RequestLaunchTemplateData, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    data: Option<String>,
    /// All that this instance has: EC2's GetLaunchTemplateData
    #[arg(long, value_name = "INSTANCE", conflicts_with = "data")]
    like: Option<String>,
    /// What the version is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Do a template command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &TemplateCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        TemplateCommand::Create { name, data } => {
            let made = service.create_launch_template(name, &new(data, None, ui)?, &[])?;
            let id = made.launch_template_id.to_string();
            answer::whole(ui, "LaunchTemplateId", &id, json!({ "LaunchTemplate": made }))?;
        }
        TemplateCommand::Version { template, source, data, default } => {
            let (template, new) = (named(template).0, new(data, source.clone(), ui)?);
            let made = service.create_launch_template_version(&template, &new)?;
            let number = made.version_number.to_string();
            if *default {
                service.modify_launch_template(&template, &number)?;
            }
            let answer = json!({ "LaunchTemplateVersion": made });
            answer::whole(ui, "VersionNumber", &number, answer)?;
        }
        TemplateCommand::Default { template, version } => {
            let modified = service.modify_launch_template(&named(template).0, version)?;
            let number = modified.default_version_number.to_string();
            answer::whole(
                ui,
                "DefaultVersionNumber",
                &number,
                json!({ "LaunchTemplate": modified }),
            )?;
        }
        TemplateCommand::Ls { filters } => list(ui, filters)?,
        TemplateCommand::Show { template } => {
            let (template, version) = named(template);
            let versions: Vec<String> = version.into_iter().collect();
            show(ui, &service.describe_launch_template_versions(&template, &versions, &[])?)?;
        }
        TemplateCommand::Delete { templates } => {
            return answer::delete(ui, templates, |text| match named(text) {
                (template, None) => service.delete_launch_template(&template).map(drop),
                (template, Some(version)) => {
                    let (_, results) =
                        service.delete_launch_template_versions(&template, &[version])?;
                    results.into_iter().collect::<Result<Vec<_>>>().map(drop)
                }
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn new(data: &Data, source_version: Option<String>, ui: &Ui) -> Result<NewVersion> {
    let mut value = match (&data.data, &data.like) {
        (Some(text), _) => json_of(text)?,
        (None, Some(instance)) => ui.service()?.launch_template_data(instance)?,
        (None, None) => json!({}),
    };
    let user_data = data.user_data.as_deref().map(user_data).transpose()?;
    let given = [
        ("ImageId", data.image.clone()),
        ("InstanceType", data.instance_type.clone()),
        ("KeyName", data.key.clone()),
        ("UserData", user_data.map(|data| STANDARD.encode(data))),
    ];
    for (key, given) in given {
        if let Some(given) = given {
            value[key] = given.into();
        }
    }
    Ok(NewVersion {
        data: value,
        description: data.description.clone(),
        source_version,
        client_token: None,
    })
}

fn json_of(text: &str) -> Result<Value> {
    let refuse = |why: String| {
        Error::refused(Code::InvalidParameterValue, format!("the template's data is {why}"))
    };
    let text = match text.strip_prefix('@') {
        Some(path) => input::read(Path::new(path), MAX_DATA)?,
        None => text.as_bytes().to_vec(),
    };
    if text.len() as u64 > MAX_DATA {
        return Err(refuse(format!("longer than {MAX_DATA} bytes")));
    }
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| refuse(format!("malformed: {error}")))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(refuse("no object of JSON".to_owned())),
    }
}

fn list(ui: &Ui, filters: &[Filter]) -> Result<()> {
    let found = ui.service()?.describe_launch_templates(&[], &[], filters)?;
    let rows = found.iter().map(|template| {
        vec![
            template.launch_template_id.to_string().into(),
            template.launch_template_name.as_str().into(),
            template.default_version_number.to_string().into(),
            template.latest_version_number.to_string().into(),
            Cell::Time(template.create_time.clone()),
        ]
    });
    let table = Table {
        columns: vec![
            Column::new("LaunchTemplateId", "ID"),
            Column::text("LaunchTemplateName", "NAME"),
            Column::new("DefaultVersionNumber", "DEFAULT"),
            Column::new("LatestVersionNumber", "LATEST"),
            Column::new("CreateTime", "CREATED"),
        ],
        rows: rows.collect(),
        ids: found.iter().map(|template| template.launch_template_id.to_string()).collect(),
        json: json!({ "LaunchTemplates": found }),
    };
    output::emit(&ui.output, &table)
}

fn show(ui: &Ui, found: &[DescribedVersion]) -> Result<()> {
    let rows = found.iter().map(|version| {
        vec![
            version.launch_template_name.as_str().into(),
            version.version_number.to_string().into(),
            if version.default_version { "yes" } else { "no" }.into(),
            version.version_description.as_deref().unwrap_or("-").into(),
            version.launch_template_data.to_string().into(),
        ]
    });
    let id = |version: &DescribedVersion| {
        format!("{}:{}", version.launch_template_id, version.version_number)
    };
    let table = Table {
        columns: vec![
            Column::text("LaunchTemplateName", "NAME"),
            Column::new("VersionNumber", "VERSION"),
            Column::new("DefaultVersion", "DEFAULT"),
            Column::text("VersionDescription", "DESCRIPTION"),
            Column::text("LaunchTemplateData", "DATA"),
        ],
        rows: rows.collect(),
        ids: found.iter().map(id).collect(),
        json: json!({ "LaunchTemplateVersions": found }),
    };
    output::emit(&ui.output, &table)
}
