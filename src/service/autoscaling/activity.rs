//! What was done to a group, and why: its activities.

use super::find::uuid;
use crate::error::{Error, Result};
use crate::record::autoscaling::AutoScalingGroup;
use crate::record::scaling::{Activity, ActivityStatus};
use crate::store::now;

/// Most activities that a group keeps.
const MAX_ACTIVITIES: usize = 100;
/// Most characters of why one failed. (ScalingActivity's StatusMessage)
const MAX_MESSAGE: usize = 255;

/// Begins one; its id.
///
/// # Errors
/// There is no randomness.
pub fn begin(group: &mut AutoScalingGroup, description: &str, cause: &str) -> Result<String> {
    let activity_id = uuid()?;
    let start_time = now();
    let cause = format!("At {start_time} {cause}");
    let activity = Activity {
        activity_id: activity_id.clone(),
        description: description.to_owned(),
        cause,
        start_time,
        end_time: None,
        status_code: ActivityStatus::InProgress,
        status_message: None,
    };
    group.activities.insert(0, activity);
    group.activities.truncate(MAX_ACTIVITIES);
    Ok(activity_id)
}

/// Says what a running one does.
pub fn describe(group: &mut AutoScalingGroup, id: &str, description: &str) {
    if let Some(activity) = group.activities.iter_mut().find(|one| one.activity_id == id) {
        description.clone_into(&mut activity.description);
    }
}

/// Ends one that goes on.
pub fn end(group: &mut AutoScalingGroup, id: &str, status: ActivityStatus, why: Option<&Error>) {
    let goes_on = ActivityStatus::InProgress;
    let found = group.activities.iter_mut().find(|one| one.activity_id == id);
    if let Some(activity) = found.filter(|one| one.status_code == goes_on) {
        activity.status_code = status;
        activity.end_time = Some(now());
        activity.status_message =
            why.map(|why| why.to_string().chars().take(MAX_MESSAGE).collect());
    }
}
