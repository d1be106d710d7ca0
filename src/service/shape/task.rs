//! Tasks in the shapes of EC2's answers: ImportImageTask, ImportSnapshotTask, ExportImageTask.

use crate::record::task::{DiskContainer, DiskSource, Task, TaskStatus, Work};
use serde_json::{Map, Value, json};

/// A task as its kind's Describe action answers it.
pub fn described(task: &Task) -> Value {
    let mut answer = Map::new();
    let mut put = |key: &str, value: Value| answer.insert(key.to_owned(), value);
    if let Some(description) = &task.description {
        put("Description", description.as_str().into());
    }
    put("Tags", json!(task.tags));
    match &task.work {
        Work::ImportImage { disk } => {
            put("ImportTaskId", task.task_id.as_str().into());
            put("Platform", "Linux".into());
            put("LicenseType", "BYOL".into());
            if let Some(image) = &task.image_id {
                put("ImageId", image.as_str().into());
                put("Architecture", "x86_64".into());
            }
            put("SnapshotDetails", json!([detail(task, disk)]));
            answer.extend(status(task));
        }
        Work::ImportSnapshot { disk, .. } => {
            put("ImportTaskId", task.task_id.as_str().into());
            let mut detail = detail(task, disk);
            detail.extend(status(task));
            put("SnapshotTaskDetail", detail.into());
        }
        Work::ExportImage { image_id, bucket, prefix, .. } => {
            put("ExportImageTaskId", task.task_id.as_str().into());
            put("ImageId", image_id.as_str().into());
            put("S3ExportLocation", json!({ "S3Bucket": bucket, "S3Prefix": prefix }));
            answer.extend(status(task));
        }
    }
    answer.into()
}

fn status(task: &Task) -> Map<String, Value> {
    let mut answer = Map::new();
    answer.insert("Status".into(), task.status.as_str().into());
    if task.status == TaskStatus::Active {
        answer.insert("Progress".into(), task.progress.to_string().into());
    }
    if let Some(message) = &task.status_message {
        answer.insert("StatusMessage".into(), message.as_str().into());
    }
    answer
}

/// EC2 SnapshotDetail and SnapshotTaskDetail, of which an image's disk has no state of its own.
fn detail(task: &Task, disk: &DiskContainer) -> Map<String, Value> {
    let snapshot = match &disk.from {
        DiskSource::Snapshot(id) => Some(id),
        DiskSource::File { .. } => task.snapshot_id.as_ref(),
    };
    let url = match &disk.from {
        DiskSource::File { url, .. } => Some(url.as_str()),
        DiskSource::Snapshot(_) => None,
    };
    let description = disk.description.as_deref();
    let format = disk.format.as_deref().map(str::to_ascii_uppercase);
    let members = [
        ("Description", description.map(Value::from)),
        ("Format", format.map(Value::from)),
        ("Url", url.map(Value::from)),
        ("SnapshotId", snapshot.map(|id| id.as_str().into())),
    ];
    let said = members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    said.collect()
}
