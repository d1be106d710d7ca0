//! Imports and exports, which go on behind their answers.

use super::super::call::{Action, Call};
use crate::error::{Code, Error, Result};
use crate::service::shape::task::described;
use crate::service::tasks::{DiskContainer, DiskSource, NewTask, NewWork, Task, TaskKind};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The actions of this file.
pub const ROWS: &[(&str, Action)] = &[
    ("CancelImportTask", cancel_import_task),
    ("DescribeExportImageTasks", describe_export_image_tasks),
    ("DescribeImportImageTasks", describe_import_image_tasks),
    ("DescribeImportSnapshotTasks", describe_import_snapshot_tasks),
    ("ExportImage", export_image),
    ("ImportImage", import_image),
    ("ImportSnapshot", import_snapshot),
];

/// What the three actions have in common, each a part of it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Asked {
    description: Option<String>,
    disk_containers: Vec<Container>,
    disk_container: Option<Container>,
    architecture: Option<String>,
    platform: Option<String>,
    image_id: String,
    disk_image_format: String,
    s3_export_location: Location,
    // Files are the caller's, and who guests belong to is nothing to Spore.
    #[serde(rename = "RoleName")]
    _role_name: Option<String>,
    #[serde(rename = "LicenseType")]
    _license_type: Option<String>,
    #[serde(rename = "Hypervisor")]
    _hypervisor: Option<String>,
    #[serde(rename = "ClientData")]
    _client_data: Option<Value>,
}

/// EC2 ImageDiskContainer and SnapshotDiskContainer.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container {
    description: Option<String>,
    format: Option<String>,
    url: Option<String>,
    user_bucket: Option<UserBucket>,
    snapshot_id: Option<String>,
    // There is one, and it is the root.
    #[serde(rename = "DeviceName")]
    _device_name: Option<String>,
}

/// EC2 UserBucket.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UserBucket {
    s3_bucket: String,
    s3_key: String,
}

/// EC2 ExportTaskS3LocationRequest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Location {
    s3_bucket: String,
    s3_prefix: String,
}

impl Container {
    fn read(self) -> Result<DiskContainer> {
        let from = match (self.url, self.user_bucket, self.snapshot_id) {
            (Some(url), None, None) => DiskSource::File { path: local(&url)?, url },
            (None, Some(place), None) => {
                let url = format!("{}/{}", place.s3_bucket.trim_end_matches('/'), place.s3_key);
                DiskSource::File { path: local(&url)?, url }
            }
            (None, None, Some(id)) => DiskSource::Snapshot(id.parse()?),
            _ => {
                let why = "a disk container has one of Url, UserBucket and SnapshotId";
                return Err(Error::refused(Code::InvalidParameterCombination, why));
            }
        };
        Ok(DiskContainer { description: self.description, format: self.format, from })
    }
}

/// The file that a URL names: `file:` and an absolute path (RFC 8089), or the path alone.
fn local(url: &str) -> Result<PathBuf> {
    let shown: String = url.escape_debug().take(200).collect();
    let refused = |code, why: &str| Err(Error::refused(code, format!("'{shown}' {why}")));
    let path = match url.strip_prefix("file:") {
        Some(rest) => {
            let rest = rest.strip_prefix("//").unwrap_or(rest);
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            match percent_encoding::percent_decode_str(path).decode_utf8() {
                Ok(path) => path.into_owned(),
                Err(_) => return refused(Code::InvalidParameterValue, "is no name in UTF-8"),
            }
        }
        None if url.starts_with('/') => url.to_owned(),
        None => {
            let why = "is no file of this machine's: give file:///PATH, and bring there by another \
                       tool what is elsewhere";
            return refused(Code::UnsupportedOperation, why);
        }
    };
    if !path.starts_with('/') || path.contains('\0') {
        return refused(Code::InvalidParameterValue, "is no absolute path");
    }
    Ok(PathBuf::from(path))
}

/// Puts a task into the store and goes on with it behind the answer.
fn begin(call: &Call<'_>, work: NewWork, description: Option<String>, kind: &str) -> Result<Task> {
    let task = call.service.begin_task(&NewTask {
        work,
        description,
        tags: call.tags(kind, &[kind])?,
        client_token: call.client_token(),
    })?;
    call.work.attend(call.service);
    Ok(task)
}

fn import_image(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    for (name, value, there) in [
        ("Architecture", &asked.architecture, &["x86_64", "i386"][..]),
        ("Platform", &asked.platform, &["Linux", "linux"][..]),
    ] {
        if let Some(other) = value.as_deref().filter(|value| !there.contains(value)) {
            let why = format!("{name} is '{}'; it is {} here", other.escape_debug(), there[0]);
            return Err(Error::refused(Code::UnsupportedOperation, why));
        }
    }
    let mut disks = asked.disk_containers;
    let Some(disk) = disks.pop() else { return Err(missing("DiskContainer")) };
    if !disks.is_empty() {
        let why = "an image is imported of one disk; import the others by ImportSnapshot";
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    let work = NewWork::ImportImage(disk.read()?);
    begin(call, work, asked.description, "import-image-task").map(|task| described(&task))
}

fn import_snapshot(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    let disk = asked.disk_container.ok_or_else(|| missing("DiskContainer"))?;
    let work = NewWork::ImportSnapshot(disk.read()?);
    begin(call, work, asked.description, "import-snapshot-task").map(|task| described(&task))
}

fn missing(name: &str) -> Error {
    let why = format!("The request must contain the parameter {name}");
    Error::refused(Code::MissingParameter, why)
}

fn export_image(call: &Call<'_>) -> Result<Value> {
    let asked: Asked = call.input()?;
    if asked.disk_image_format != "RAW" {
        let why = "DiskImageFormat is RAW here; 'spore image export' writes all of an image";
        return Err(Error::refused(Code::UnsupportedOperation, why));
    }
    let Location { s3_bucket: bucket, s3_prefix: prefix } = asked.s3_export_location;
    let work = NewWork::ExportImage {
        image_id: asked.image_id,
        directory: local(&bucket)?,
        bucket,
        prefix,
    };
    let task = begin(call, work, asked.description, "export-image-task")?;
    let mut answer = described(&task);
    answer["DiskImageFormat"] = "RAW".into();
    Ok(answer)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Described {
    import_task_ids: Vec<String>,
    export_image_task_ids: Vec<String>,
}

fn describe(call: &Call<'_>, kind: TaskKind, member: &str, key: &str) -> Result<Value> {
    let asked: Described = call.input()?;
    call.work.attend(call.service);
    let ids = [asked.import_task_ids, asked.export_image_task_ids].concat();
    let found = call.service.describe_tasks(kind, &ids, &call.filters()?)?;
    call.listed(member, &ids, found.iter().map(described).collect(), key)
}

fn describe_import_image_tasks(call: &Call<'_>) -> Result<Value> {
    describe(call, TaskKind::ImportImage, "ImportImageTasks", "ImportTaskId")
}

fn describe_import_snapshot_tasks(call: &Call<'_>) -> Result<Value> {
    describe(call, TaskKind::ImportSnapshot, "ImportSnapshotTasks", "ImportTaskId")
}

fn describe_export_image_tasks(call: &Call<'_>) -> Result<Value> {
    describe(call, TaskKind::ExportImage, "ExportImageTasks", "ExportImageTaskId")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Cancelled {
    import_task_id: String,
    #[serde(default, rename = "CancelReason")]
    _cancel_reason: Option<String>,
}

fn cancel_import_task(call: &Call<'_>) -> Result<Value> {
    let asked: Cancelled = call.input()?;
    let (task, before) = call.service.cancel_import_task(&asked.import_task_id)?;
    call.work.attend(call.service);
    Ok(json!({
        "ImportTaskId": task.task_id,
        "PreviousState": before.as_str(),
        "State": task.status.as_str(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_of_this_machine_or_is_refused() {
        for (url, path) in [
            ("file:///srv/disk.raw", "/srv/disk.raw"),
            ("file:/srv/disk.raw", "/srv/disk.raw"),
            ("file://localhost/srv/a%20b", "/srv/a b"),
            ("/srv/100%.raw", "/srv/100%.raw"),
        ] {
            assert_eq!(local(url).unwrap(), PathBuf::from(path), "{url}");
        }
        for bad in ["", "disk.raw", "file:disk.raw", "file://host/x", "file:///%ff", "/a\0b"] {
            assert!(local(bad).is_err(), "{bad}");
        }
        for other in ["https://a/b", "s3://bucket/key", "bucket/key"] {
            assert_eq!(local(other).unwrap_err().code(), Some(Code::UnsupportedOperation));
        }
    }
}
