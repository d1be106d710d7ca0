//! Launch templates.

use super::super::call::{Action, Call, json_of};
use crate::error::{Code, Error, Result};
use crate::service::launch_templates::{NewVersion, Specification};
use serde::Deserialize;
use serde_json::{Value, json};

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("CreateLaunchTemplate", create_launch_template),
    ("CreateLaunchTemplateVersion", create_launch_template_version),
    ("DeleteLaunchTemplate", delete_launch_template),
    ("DeleteLaunchTemplateVersions", delete_launch_template_versions),
    ("DescribeLaunchTemplateVersions", describe_launch_template_versions),
    ("DescribeLaunchTemplates", describe_launch_templates),
    ("GetLaunchTemplateData", get_launch_template_data),
    ("ModifyLaunchTemplate", modify_launch_template),
];

/// What these actions ask for, each a part of it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Asked {
    launch_template_id: Option<String>,
    launch_template_name: Option<String>,
    version_description: Option<String>,
    source_version: Option<String>,
    launch_template_data: Option<Value>,
    default_version: Option<String>,
    versions: Vec<String>,
    min_version: Option<u64>,
    max_version: Option<u64>,
    launch_template_ids: Vec<String>,
    launch_template_names: Vec<String>,
    // What a template says is reported as it is said.
    #[serde(rename = "ResolveAlias")]
    _resolve_alias: bool,
}

impl Asked {
    fn template(&self) -> Specification {
        Specification {
            id: self.launch_template_id.clone(),
            name: self.launch_template_name.clone(),
            version: None,
        }
    }

    fn version(&self, call: &Call<'_>) -> NewVersion {
        NewVersion {
            data: self.launch_template_data.clone().unwrap_or_else(|| json!({})),
            description: self.version_description.clone(),
            source_version: self.source_version.clone(),
            client_token: call.client_token(),
        }
    }
}

fn create_launch_template(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let tags = call.tags("launch-template", &["launch-template"])?;
    let name = asked.launch_template_name.as_deref().unwrap_or_default();
    let made = call.service.create_launch_template(name, &asked.version(call), &tags)?;
    Ok(json!({ "LaunchTemplate": json_of(made)? }))
}

fn create_launch_template_version(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let new = asked.version(call);
    let made = call.service.create_launch_template_version(&asked.template(), &new)?;
    Ok(json!({ "LaunchTemplateVersion": json_of(made)? }))
}

fn modify_launch_template(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let Some(version) = &asked.default_version else {
        let why = "The request must contain the parameter SetDefaultVersion";
        return Err(Error::refused(Code::MissingParameter, why));
    };
    let modified = call.service.modify_launch_template(&asked.template(), version)?;
    Ok(json!({ "LaunchTemplate": json_of(modified)? }))
}

fn describe_launch_templates(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let (ids, names) = (&asked.launch_template_ids, &asked.launch_template_names);
    let found = call.service.describe_launch_templates(ids, names, &call.filters()?)?;
    let described = found.iter().map(json_of).collect::<Result<Vec<_>>>()?;
    let named = [ids.as_slice(), names.as_slice()].concat();
    call.listed("LaunchTemplates", &named, described, "LaunchTemplateId")
}

fn describe_launch_template_versions(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let service = call.service;
    let filters = call.filters()?;
    let mut found =
        service.describe_launch_template_versions(&asked.template(), &asked.versions, &filters)?;
    found.retain(|version| {
        asked.min_version.is_none_or(|min| version.version_number >= min)
            && asked.max_version.is_none_or(|max| version.version_number <= max)
    });
    // The last ones come first.
    let key = |version: &crate::service::launch_templates::DescribedVersion| {
        format!("{} {:020}", version.launch_template_id, u64::MAX - version.version_number)
    };
    call.paged("LaunchTemplateVersions", &[], found, key, |page| {
        Ok(page.iter().map(json_of).collect::<Result<Vec<_>>>()?.into())
    })
}

fn delete_launch_template(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let gone = call.service.delete_launch_template(&asked.template())?;
    Ok(json!({ "LaunchTemplate": json_of(gone)? }))
}

fn delete_launch_template_versions(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let (template, results) =
        call.service.delete_launch_template_versions(&asked.template(), &asked.versions)?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (text, result) in asked.versions.iter().zip(results) {
        let entry = |number: u64| {
            json!({
                "LaunchTemplateId": template.launch_template_id,
                "LaunchTemplateName": template.launch_template_name,
                "VersionNumber": number,
            })
        };
        match result {
            Ok(number) => done.push(entry(number)),
            Err(error) => {
                let code = match error.code() {
                    Some(Code::InvalidLaunchTemplateIdVersionNotFound) => {
                        "launchTemplateVersionDoesNotExist"
                    }
                    _ => "unexpectedError",
                };
                let mut failure = entry(text.parse().unwrap_or_default());
                failure["ResponseError"] = json!({ "Code": code, "Message": error.message() });
                failed.push(failure);
            }
        }
    }
    Ok(json!({
        "SuccessfullyDeletedLaunchTemplateVersions": done,
        "UnsuccessfullyDeletedLaunchTemplateVersions": failed,
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Like {
    instance_id: String,
}

fn get_launch_template_data(call: &Call<'_>) -> Result<Value> {
    let asked: Like = call.input()?;
    Ok(json!({ "LaunchTemplateData": call.service.launch_template_data(&asked.instance_id)? }))
}
