//! The record of a launch template, in the shapes of EC2's API (DescribeLaunchTemplates and
//! DescribeLaunchTemplateVersions).

use super::tag::Tag;
use super::{Durability, Record};
use crate::error::Code;
use crate::id::LaunchTemplateId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// EC2 LaunchTemplate, and its versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct LaunchTemplate {
    /// Its id.
    pub launch_template_id: LaunchTemplateId,
    /// Its name, which no other of its owner's has.
    pub launch_template_name: String,
    /// RFC 3339, UTC.
    pub create_time: String,
    /// The owner's uid in decimal.
    pub created_by: String,
    /// What is launched by where no version is named.
    pub default_version_number: u64,
    /// The last that was made, which may be deleted since.
    pub latest_version_number: u64,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// What EC2 has no word for.
    pub spore: LaunchTemplateSide,
}

/// Spore's own part of a template's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct LaunchTemplateSide {
    /// Its versions, the oldest first.
    pub versions: Vec<Version>,
    /// The token that it was created under, with a digest of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<super::token::ClientToken>,
}

/// EC2 LaunchTemplateVersion, without what all versions of a template have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Version {
    /// From 1 on; none is given twice.
    pub version_number: u64,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_description: Option<String>,
    /// RFC 3339, UTC.
    pub create_time: String,
    /// EC2 RequestLaunchTemplateData.
    pub launch_template_data: Value,
    /// The token that it was created under, with a digest of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<super::token::ClientToken>,
}

impl LaunchTemplate {
    /// The version of that number.
    pub fn version(&self, number: u64) -> Option<&Version> {
        self.spore.versions.iter().find(|version| version.version_number == number)
    }
}

impl Record for LaunchTemplate {
    type Id = LaunchTemplateId;
    const DIRECTORY: &'static str = "launch-templates";
    const KIND: &'static str = "launch template";
    const NOT_FOUND: Code = Code::InvalidLaunchTemplateIdNotFound;
    const LISTED_BY: &'static str = "spore template ls";
    const REMOVAL: Durability = Durability::Durable;

    fn id(&self) -> &LaunchTemplateId {
        &self.launch_template_id
    }

    fn name(&self) -> Option<&str> {
        Some(&self.launch_template_name)
    }

    fn owner(&self) -> &str {
        &self.created_by
    }

    fn journal_view(&self) -> Value {
        let numbers: Vec<u64> = self.spore.versions.iter().map(|v| v.version_number).collect();
        json!({
            "LaunchTemplateName": self.launch_template_name,
            "DefaultVersionNumber": self.default_version_number,
            "Versions": numbers,
            "Tags": self.tags,
        })
    }
}

/// A version of a template. (EC2 LaunchTemplateSpecification)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Specification {
    /// The template's id.
    #[serde(default, rename = "LaunchTemplateId")]
    pub id: Option<String>,
    /// Or its name.
    #[serde(default, rename = "LaunchTemplateName")]
    pub name: Option<String>,
    /// A number, `$Latest` or `$Default`, which is what is meant without one.
    #[serde(default)]
    pub version: Option<String>,
}
