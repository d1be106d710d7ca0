//! EC2's actions on launch templates: what a launch is, under a name, in versions.

use super::Service;
use super::filter::{Filter, Filters, select};
use super::launch_data::LaunchData;
use crate::error::{Code, Error, Result};
use crate::id::LaunchTemplateId;
use crate::record::launch_template::LaunchTemplateSide;
pub use crate::record::launch_template::{LaunchTemplate, Specification, Version};
use crate::record::tag::{Tag, check_tags};
use crate::record::token::ClientToken;
use crate::store::{Collection, Durability, Store, now};
use serde::Serialize;
use serde_json::{Map, Value};

/// Most characters of a name; fewest are 3. (EC2 CreateLaunchTemplate)
const MAX_NAME: usize = 128;
/// Most characters of a version's description. (EC2 CreateLaunchTemplateVersion)
const MAX_DESCRIPTION: usize = 255;
/// Most bytes of a template's versions together, so that its record can always be read.
const MAX_BYTES: usize = 512 << 10;

const FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("create-time", "CreateTime"),
        ("launch-template-id", "LaunchTemplateId"),
        ("launch-template-name", "LaunchTemplateName"),
    ],
};

const VERSION_FILTERS: Filters = Filters {
    tags: "Tags",
    names: &[
        ("create-time", "CreateTime"),
        ("image-id", "LaunchTemplateData.ImageId"),
        ("instance-type", "LaunchTemplateData.InstanceType"),
        ("is-default-version", "DefaultVersion"),
        ("kernel-id", "LaunchTemplateData.KernelId"),
        ("ram-disk-id", "LaunchTemplateData.RamDiskId"),
    ],
};

/// EC2 LaunchTemplate, as it is described.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribedTemplate {
    /// Its id.
    pub launch_template_id: LaunchTemplateId,
    /// Its name.
    pub launch_template_name: String,
    /// RFC 3339, UTC.
    pub create_time: String,
    /// Who made it, as IAM names them.
    pub created_by: String,
    /// What is launched by where no version is named.
    pub default_version_number: u64,
    /// The last that there is.
    pub latest_version_number: u64,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// EC2 LaunchTemplateVersion.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribedVersion {
    /// Its template's id.
    pub launch_template_id: LaunchTemplateId,
    /// Its template's name.
    pub launch_template_name: String,
    /// Its number.
    pub version_number: u64,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_description: Option<String>,
    /// RFC 3339, UTC.
    pub create_time: String,
    /// Who made it, as IAM names them.
    pub created_by: String,
    /// It is what is launched by where no version is named.
    pub default_version: bool,
    /// EC2 ResponseLaunchTemplateData.
    pub launch_template_data: Value,
}

/// A version to be made. (EC2 CreateLaunchTemplate, CreateLaunchTemplateVersion)
#[derive(Clone, Debug, Default)]
pub struct NewVersion {
    /// EC2 RequestLaunchTemplateData.
    pub data: Value,
    /// What it is for.
    pub description: Option<String>,
    /// The version whose data this one's is over.
    pub source_version: Option<String>,
    /// What tells this request from others: the same under it is done once.
    pub client_token: Option<ClientToken>,
}

impl Service {
    /// EC2 CreateLaunchTemplate.
    ///
    /// # Errors
    /// `InvalidLaunchTemplateName.AlreadyExistsException` and `.MalformedException`; the data asks
    /// for what Spore has not.
    pub fn create_launch_template(
        &self,
        name: &str,
        new: &NewVersion,
        tags: &[Tag],
    ) -> Result<DescribedTemplate> {
        check_name(name)?;
        check_tags(tags)?;
        let version = version(1, new, new.data.clone())?;
        let _lock = self.store.lock()?;
        let own = own(&self.store)?;
        let token = new.client_token.as_ref();
        let under = |t: &&LaunchTemplate| same_token(t.spore.client_token.as_ref(), token);
        if let Some(made) = own.iter().find(under) {
            check_same(made.spore.client_token.as_ref(), token)?;
            return Ok(described(made));
        }
        if own.iter().any(|template| template.launch_template_name == name) {
            let why = format!("there is a launch template '{name}' already; choose another name");
            let code = Code::InvalidLaunchTemplateNameAlreadyExistsException;
            return Err(Error::refused(code, why));
        }
        let made = templates(&self.store).create(Durability::Durable, |_| {
            Ok(LaunchTemplate {
                launch_template_id: LaunchTemplateId::generate()?,
                launch_template_name: name.to_owned(),
                create_time: version.create_time.clone(),
                created_by: self.store.owner_id(),
                default_version_number: 1,
                latest_version_number: 1,
                tags: tags.to_vec(),
                spore: LaunchTemplateSide {
                    versions: vec![version],
                    client_token: new.client_token.clone(),
                },
            })
        })?;
        Ok(described(&made))
    }

    /// EC2 CreateLaunchTemplateVersion.
    ///
    /// # Errors
    /// The template or its source version is not there; the data asks for what Spore has not; it
    /// has too many versions.
    pub fn create_launch_template_version(
        &self,
        template: &Specification,
        new: &NewVersion,
    ) -> Result<DescribedVersion> {
        let id = find(&self.store, template)?.launch_template_id;
        templates(&self.store).update(&id, Durability::Durable, |record| {
            let token = new.client_token.as_ref();
            let mut versions = record.spore.versions.iter();
            if let Some(made) = versions.find(|v| same_token(v.client_token.as_ref(), token)) {
                check_same(made.client_token.as_ref(), token)?;
                return Ok(described_version(record, made));
            }
            let mut data = match &new.source_version {
                Some(source) => chosen(record, source)?.launch_template_data.clone(),
                None => Value::Object(Map::new()),
            };
            if let (Some(data), Some(new)) = (data.as_object_mut(), new.data.as_object()) {
                data.extend(new.clone());
            }
            let version = version(record.latest_version_number.saturating_add(1), new, data)?;
            record.latest_version_number = version.version_number;
            let made = described_version(record, &version);
            record.spore.versions.push(version);
            let bytes = serde_json::to_vec(&record.spore).map_or(usize::MAX, |text| text.len());
            if bytes > MAX_BYTES {
                let why = format!(
                    "the versions of {} have more than {} KiB; delete some first",
                    record.launch_template_id,
                    MAX_BYTES >> 10
                );
                return Err(Error::refused(Code::InvalidParameterValue, why));
            }
            Ok(made)
        })
    }

    /// EC2 ModifyLaunchTemplate: sets its default version.
    ///
    /// # Errors
    /// The template or the version is not there.
    pub fn modify_launch_template(
        &self,
        template: &Specification,
        default_version: &str,
    ) -> Result<DescribedTemplate> {
        let id = find(&self.store, template)?.launch_template_id;
        templates(&self.store).update(&id, Durability::Durable, |record| {
            record.default_version_number = chosen(record, default_version)?.version_number;
            Ok(described(record))
        })
    }

    /// EC2 DescribeLaunchTemplates: the caller's own, those named or all, of which all filters
    /// hold.
    ///
    /// # Errors
    /// One of those named is not there, a filter is unknown, the store can't be read.
    pub fn describe_launch_templates(
        &self,
        ids: &[String],
        names: &[String],
        filters: &[Filter],
    ) -> Result<Vec<DescribedTemplate>> {
        let all = own(&self.store)?;
        let named = ids.iter().map(|id| (Some(id), None));
        let named = named.chain(names.iter().map(|name| (None, Some(name))));
        let named = named.map(|(id, name)| {
            let specification =
                Specification { id: id.cloned(), name: name.cloned(), version: None };
            find_in(&all, &specification).map(described)
        });
        let mut found = named.collect::<Result<Vec<_>>>()?;
        if ids.is_empty() && names.is_empty() {
            found = all.iter().map(described).collect();
        }
        select(found, filters, FILTERS)
    }

    /// EC2 DescribeLaunchTemplateVersions: of one template those named, or all; of all templates
    /// those that `$Latest` and `$Default` name.
    ///
    /// # Errors
    /// The template or a version is not there, a filter is unknown.
    pub fn describe_launch_template_versions(
        &self,
        template: &Specification,
        versions: &[String],
        filters: &[Filter],
    ) -> Result<Vec<DescribedVersion>> {
        let of_all = template.id.is_none() && template.name.is_none();
        let templates = match of_all {
            true => own(&self.store)?,
            false => vec![find(&self.store, template)?],
        };
        if of_all && !versions.iter().any(|version| version.starts_with('$')) {
            let why = "give a launch template, or the versions $Latest and $Default of all";
            return Err(Error::refused(Code::MissingParameter, why));
        }
        let mut found = Vec::new();
        for record in &templates {
            let all = || Ok(record.spore.versions.iter().collect());
            let named = || versions.iter().map(|text| chosen(record, text)).collect();
            let mut chosen: Vec<&Version> =
                if versions.is_empty() { all() } else { named() }.map_err(|e: Error| e)?;
            chosen.sort_by_key(|version| std::cmp::Reverse(version.version_number));
            chosen.dedup_by_key(|version| version.version_number);
            found.extend(chosen.into_iter().map(|version| described_version(record, version)));
        }
        select(found, filters, VERSION_FILTERS)
    }

    /// EC2 DeleteLaunchTemplate.
    ///
    /// # Errors
    /// It is not there; it can't be removed.
    pub fn delete_launch_template(&self, template: &Specification) -> Result<DescribedTemplate> {
        let record = find(&self.store, template)?;
        templates(&self.store).remove(&record.launch_template_id)?;
        Ok(described(&record))
    }

    /// EC2 DeleteLaunchTemplateVersions: what became of each of the versions, in their order.
    ///
    /// # Errors
    /// The template is not there.
    pub fn delete_launch_template_versions(
        &self,
        template: &Specification,
        versions: &[String],
    ) -> Result<(LaunchTemplate, Vec<Result<u64>>)> {
        let id = find(&self.store, template)?.launch_template_id;
        templates(&self.store).update(&id, Durability::Durable, |record| {
            let delete = |text: &String| {
                let number = chosen(record, text)?.version_number;
                if number == record.default_version_number {
                    let why = format!(
                        "version {number} is the default one of {}; make another that first",
                        record.launch_template_id
                    );
                    return Err(Error::refused(Code::InvalidParameterValue, why));
                }
                record.spore.versions.retain(|version| version.version_number != number);
                Ok(number)
            };
            let results = versions.iter().map(delete).collect();
            Ok((record.clone(), results))
        })
    }

    /// The version of a template that a launch names.
    ///
    /// # Errors
    /// `InvalidLaunchTemplateId.NotFound`, `InvalidLaunchTemplateName.NotFoundException`,
    /// `InvalidLaunchTemplateId.VersionNotFound`.
    pub fn launch_template_version(
        &self,
        specification: &Specification,
    ) -> Result<(LaunchTemplate, Version)> {
        let template = find(&self.store, specification)?;
        let version = chosen(&template, specification.version.as_deref().unwrap_or("$Default"))?;
        let version = version.clone();
        Ok((template, version))
    }
}

/// The launch templates of a store.
pub(super) fn templates(store: &Store) -> Collection<LaunchTemplate> {
    store.collection()
}

fn own(store: &Store) -> Result<Vec<LaunchTemplate>> {
    let me = store.owner_id();
    let mut own = templates(store).list()?.or_warn();
    own.retain(|template| template.created_by == me);
    Ok(own)
}

fn find(store: &Store, specification: &Specification) -> Result<LaunchTemplate> {
    find_in(&own(store)?, specification).cloned()
}

fn find_in<'a>(
    own: &'a [LaunchTemplate],
    specification: &Specification,
) -> Result<&'a LaunchTemplate> {
    let (code, text, found) = match (&specification.id, &specification.name) {
        (Some(id), None) => {
            let parsed: LaunchTemplateId = id.parse()?;
            let found = own.iter().find(|template| template.launch_template_id == parsed);
            (Code::InvalidLaunchTemplateIdNotFound, id, found)
        }
        (None, Some(name)) => {
            let found = own.iter().find(|template| template.launch_template_name == *name);
            (Code::InvalidLaunchTemplateNameNotFoundException, name, found)
        }
        (None, None) => {
            let why = "The request must contain the parameter LaunchTemplateId or \
                       LaunchTemplateName";
            return Err(Error::refused(Code::MissingParameter, why));
        }
        (Some(_), Some(_)) => {
            let why = "a launch template is named by its id or by its name, and not by both";
            return Err(Error::refused(Code::InvalidParameterCombination, why));
        }
    };
    found.ok_or_else(|| {
        let shown: String = text.escape_debug().take(MAX_NAME).collect();
        let why = format!("there is no launch template '{shown}'; 'spore template ls' lists them");
        Error::refused(code, why)
    })
}

/// The version that a number, `$Latest` or `$Default` names.
fn chosen<'a>(template: &'a LaunchTemplate, text: &str) -> Result<&'a Version> {
    let found = match text {
        "$Latest" => template.spore.versions.iter().max_by_key(|version| version.version_number),
        "$Default" => template.version(template.default_version_number),
        number => number.parse().ok().and_then(|number| template.version(number)),
    };
    found.ok_or_else(|| {
        let shown: String = text.escape_debug().take(40).collect();
        let why = format!("{} has no version '{shown}'", template.launch_template_id);
        Error::refused(Code::InvalidLaunchTemplateIdVersionNotFound, why)
    })
}

fn version(version_number: u64, new: &NewVersion, data: Value) -> Result<Version> {
    if new.description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION) {
        let why = format!("a version's description has {MAX_DESCRIPTION} characters at most");
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    LaunchData::check(&data)?;
    Ok(Version {
        version_number,
        version_description: new.description.clone(),
        create_time: now(),
        launch_template_data: data,
        client_token: new.client_token.clone(),
    })
}

fn same_token(had: Option<&ClientToken>, given: Option<&ClientToken>) -> bool {
    given.is_some() && had.map(|token| &token.token) == given.map(|token| &token.token)
}

fn check_same(had: Option<&ClientToken>, given: Option<&ClientToken>) -> Result<()> {
    if had == given {
        return Ok(());
    }
    let why = "the ClientToken was given with other parameters; give another token";
    Err(Error::refused(Code::IdempotentParameterMismatch, why))
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "().-/_".contains(c);
    if (3..=MAX_NAME).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(40).collect();
    let why = format!(
        "'{shown}' is no name of a launch template: it has 3 to {MAX_NAME} letters, digits and ().-/_"
    );
    Err(Error::refused(Code::InvalidLaunchTemplateNameMalformedException, why))
}

fn maker(template: &LaunchTemplate) -> String {
    format!("arn:aws:iam::{}:root", template.created_by)
}

fn described(template: &LaunchTemplate) -> DescribedTemplate {
    let numbers = template.spore.versions.iter().map(|version| version.version_number);
    DescribedTemplate {
        launch_template_id: template.launch_template_id.clone(),
        launch_template_name: template.launch_template_name.clone(),
        create_time: template.create_time.clone(),
        created_by: maker(template),
        default_version_number: template.default_version_number,
        latest_version_number: numbers.max().unwrap_or(template.default_version_number),
        tags: template.tags.clone(),
    }
}

fn described_version(template: &LaunchTemplate, version: &Version) -> DescribedVersion {
    DescribedVersion {
        launch_template_id: template.launch_template_id.clone(),
        launch_template_name: template.launch_template_name.clone(),
        version_number: version.version_number,
        version_description: version.version_description.clone(),
        create_time: version.create_time.clone(),
        created_by: maker(template),
        default_version: version.version_number == template.default_version_number,
        launch_template_data: version.launch_template_data.clone(),
    }
}
