//! EC2 InstanceStatus, as DescribeInstanceStatus answers.

use super::ZONE;
use crate::instance::readiness::Stage;
use crate::record::instance::InstanceRecord;
use serde::{Serialize, Serializer};
use serde_json::json;

/// How an instance is. As JSON it is EC2's InstanceStatus.
#[derive(Clone, Debug)]
pub struct InstanceStatus {
    /// The instance.
    pub record: InstanceRecord,
    /// The host's part: its VMM answers.
    pub system: Check,
    /// The guest's: it is reachable.
    pub instance: Check,
    /// How far that is, if it runs.
    pub stage: Option<Stage>,
}

/// What a check has found. (EC2 SummaryStatus, StatusType)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is as it should be.
    Passed,
    /// It is not.
    Failed,
    /// It is too early to tell.
    Initializing,
    /// Nothing can be known.
    InsufficientData,
    /// The instance does not run.
    NotApplicable,
}

impl Check {
    /// EC2 SummaryStatus.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "impaired",
            Self::Initializing => "initializing",
            Self::InsufficientData => "insufficient-data",
            Self::NotApplicable => "not-applicable",
        }
    }

    /// EC2 StatusType of the one check that there is, `reachability`.
    fn reachability(self) -> Option<&'static str> {
        Some(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Initializing => "initializing",
            Self::InsufficientData => "insufficient-data",
            Self::NotApplicable => return None,
        })
    }
}

/// EC2 InstanceStatusSummary.
impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let details =
            self.reachability().map(|is| json!([{ "Name": "reachability", "Status": is }]));
        let mut summary = json!({ "Status": self.summary() });
        if let Some(details) = details {
            summary["Details"] = details;
        }
        summary.serialize(serializer)
    }
}

impl Serialize for InstanceStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut status = json!({
            "AvailabilityZone": ZONE,
            "InstanceId": self.record.instance.instance_id,
            "InstanceState": self.record.instance.state,
            "InstanceStatus": self.instance,
            "SystemStatus": self.system,
        });
        if let Some(stage) = self.stage {
            status["Spore"] = json!({ "Ready": stage.word() });
        }
        status.serialize(serializer)
    }
}
