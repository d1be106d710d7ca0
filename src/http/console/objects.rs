//! Volumes, snapshots, key pairs, networks, security groups, regions and Auto Scaling groups: their
//! lists, and the page of each, by tables.

use super::deed::Deed;
use super::deeds::{self, rules_of};
use super::pages::{found, table_of, tags};
use super::places;
use super::view::{Cell, List, Object, Row, Table, at, escaped, section_of};
use super::visit::{Answer, Visit, nowhere, page};
use crate::error::Result;
use serde_json::{Value, json};

/// A heading, and where a record has what is under it, as a JSON pointer.
type Column = (&'static str, &'static str);

/// A kind of object.
struct Kind {
    /// Its path.
    section: &'static str,
    /// What it is called: many, and one.
    titles: (&'static str, &'static str),
    /// What it is of.
    api: &'static str,
    /// What lists them, and the answer's member.
    action: (&'static str, &'static str),
    /// Its id, as a JSON pointer, and the request's member that asks for one.
    id: (&'static str, &'static str),
    columns: &'static [Column],
    /// What its page has besides.
    details: &'static [Column],
    /// What can be done to one.
    deeds: &'static [Deed],
    /// What can be made.
    makes: &'static [Deed],
    /// What is said of all.
    hint: &'static str,
    /// More tables of its page.
    tables: fn(&Visit<'_>, &Value) -> Result<Vec<Table>>,
}

const KIND: Kind = Kind {
    section: "",
    titles: ("", ""),
    api: "ec2",
    action: ("", ""),
    id: ("", ""),
    columns: &[],
    details: &[],
    deeds: &[],
    makes: &[],
    hint: "",
    tables: |_, record| Ok(vec![tags(record)]),
};

const KINDS: &[Kind] = &[
    Kind {
        section: "volumes",
        titles: ("Volumes", "Volume"),
        action: ("DescribeVolumes", "Volumes"),
        id: ("/VolumeId", "VolumeIds"),
        columns: &[
            ("Volume", "/VolumeId"),
            ("State", "/State"),
            ("GiB", "/Size"),
            ("Snapshot", "/SnapshotId"),
            ("Instance", "/Attachments/0/InstanceId"),
            ("Device", "/Attachments/0/Device"),
            ("Created", "/CreateTime"),
        ],
        details: &[
            ("Type", "/VolumeType"),
            ("Attachment", "/Attachments/0/State"),
            ("Deleted with the instance", "/Attachments/0/DeleteOnTermination"),
        ],
        deeds: deeds::VOLUME,
        makes: deeds::VOLUMES,
        ..KIND
    },
    Kind {
        section: "snapshots",
        titles: ("Snapshots", "Snapshot"),
        action: ("DescribeSnapshots", "Snapshots"),
        id: ("/SnapshotId", "SnapshotIds"),
        columns: &[
            ("Snapshot", "/SnapshotId"),
            ("State", "/State"),
            ("Progress", "/Progress"),
            ("GiB", "/VolumeSize"),
            ("Description", "/Description"),
            ("Started", "/StartTime"),
        ],
        details: &[("Owner", "/OwnerId"), ("Volume", "/VolumeId"), ("Why", "/StateMessage")],
        deeds: deeds::SNAPSHOT,
        tables: snapshot,
        hint: "A snapshot is made on a volume's page.",
        ..KIND
    },
    Kind {
        section: "keys",
        titles: ("Key pairs", "Key pair"),
        action: ("DescribeKeyPairs", "KeyPairs"),
        id: ("/KeyPairId", "KeyPairIds"),
        columns: &[
            ("Key pair", "/KeyPairId"),
            ("Name", "/KeyName"),
            ("Type", "/KeyType"),
            ("Fingerprint", "/KeyFingerprint"),
        ],
        details: &[("Created", "/CreateTime")],
        deeds: deeds::KEY,
        makes: deeds::KEYS,
        ..KIND
    },
    Kind {
        section: "networks",
        titles: ("Networks", "Network"),
        action: ("DescribeSubnets", "Subnets"),
        id: ("/SubnetId", "SubnetIds"),
        columns: &[
            ("Subnet", "/SubnetId"),
            ("Network", "/VpcId"),
            ("Addresses", "/CidrBlock"),
            ("Free", "/AvailableIpAddressCount"),
            ("State", "/State"),
        ],
        details: &[
            ("IPv6 addresses", "/Ipv6CidrBlockAssociationSet/0/Ipv6CidrBlock"),
            ("The usual one", "/DefaultForAz"),
        ],
        makes: places::NETWORKS,
        hint: "'spore network delete' takes one away.",
        tables: network,
        ..KIND
    },
    Kind {
        section: "groups",
        titles: ("Security groups", "Security group"),
        action: ("DescribeSecurityGroups", "SecurityGroups"),
        id: ("/GroupId", "GroupIds"),
        columns: &[
            ("Group", "/GroupId"),
            ("Name", "/GroupName"),
            ("Network", "/VpcId"),
            ("Description", "/Description"),
        ],
        deeds: deeds::GROUP,
        makes: deeds::GROUPS,
        tables: |_, group| Ok(vec![rules(group)]),
        ..KIND
    },
    Kind {
        section: "regions",
        titles: ("Regions", "Region"),
        action: ("DescribeRegions", "Regions"),
        id: ("/RegionName", "RegionNames"),
        columns: &[("Region", "/RegionName")],
        makes: places::REGIONS,
        hint: "Images and snapshots are copied there on their pages; 'spore region rm' forgets one.",
        tables: |_, _| Ok(Vec::new()),
        ..KIND
    },
    Kind {
        section: "scaling",
        titles: ("Auto Scaling groups", "Auto Scaling group"),
        api: "autoscaling",
        action: ("DescribeAutoScalingGroups", "AutoScalingGroups"),
        id: ("/AutoScalingGroupName", "AutoScalingGroupNames"),
        columns: &[
            ("Name", "/AutoScalingGroupName"),
            ("Desired", "/DesiredCapacity"),
            ("Minimum", "/MinSize"),
            ("Maximum", "/MaxSize"),
            ("Launch template", "/LaunchTemplate/LaunchTemplateName"),
            ("Launch configuration", "/LaunchConfigurationName"),
            ("Created", "/CreatedTime"),
        ],
        details: &[
            ("Status", "/Status"),
            ("Health check", "/HealthCheckType"),
            ("Grace, seconds", "/HealthCheckGracePeriod"),
            ("Cooldown, seconds", "/DefaultCooldown"),
            ("Ended first", "/TerminationPolicies/0"),
        ],
        deeds: deeds::SCALING,
        makes: places::SCALING,
        hint: "Groups scale while 'spore serve' runs.",
        tables: scaling,
    },
];

fn kind(section: &str) -> Result<&'static Kind> {
    KINDS.iter().find(|kind| kind.section == section).ok_or_else(nowhere)
}

/// A list of that name.
///
/// # Errors
/// There is none; it can't be read.
pub fn list(visit: &Visit<'_>, section: &str) -> Result<Answer> {
    let kind = kind(section)?;
    let records = visit.listed_of(kind.api, kind.action.0, kind.action.1, json!({}))?;
    let rows = records.iter().map(|record| {
        let id = at(record, kind.id.0);
        let cells = kind.columns.iter().map(|(_, pointer)| match *pointer {
            own if own == kind.id.0 => {
                Cell::link(id.clone(), format!("/console/{section}/{}", escaped(&id)))
            }
            pointer => Cell::shown(record, pointer),
        });
        Row { cells: cells.collect(), id: id.clone() }
    });
    let search = visit.query.text("q").to_owned();
    let table = Table {
        caption: kind.titles.0,
        columns: kind.columns.iter().map(|(heading, _)| *heading).collect(),
        rows: found(rows, &search),
        choose: false,
    };
    let makes = kind.makes.iter().map(|deed| deed.view(visit, (section, "-"), &Value::Null));
    page(&List {
        frame: visit.frame(kind.section, kind.titles.0),
        tabs: Vec::new(),
        search,
        keep: Vec::new(),
        actions: Vec::new(),
        table,
        forms: makes.collect::<Result<_>>()?,
        hint: kind.hint,
    })
}

/// The record of one.
fn record(visit: &Visit<'_>, kind: &Kind, id: &str) -> Result<Value> {
    let asked = json!({ kind.id.1: [id] });
    let found = visit.listed_of(kind.api, kind.action.0, kind.action.1, asked)?;
    found.into_iter().find(|record| at(record, kind.id.0) == id).ok_or_else(nowhere)
}

/// The page of one.
///
/// # Errors
/// It is not there.
pub fn object(visit: &Visit<'_>, section: &str, id: &str) -> Result<Answer> {
    let kind = kind(section)?;
    let record = record(visit, kind, id)?;
    let columns = kind.columns.iter().chain(kind.details);
    let details = columns.map(|(heading, pointer)| (*heading, Cell::shown(&record, pointer)));
    // What is somebody else's is looked at only.
    let owner = record["OwnerId"].as_str();
    let own = owner.is_none_or(|owner| owner == visit.front.account());
    let can = |deed: &&Deed| (deed.when)(&record) && (own || deed.word != "delete");
    let forms = kind.deeds.iter().filter(can).map(|deed| deed.view(visit, (section, id), &record));
    page(&Object {
        frame: visit.frame(kind.section, format!("{} {id}", kind.titles.1)),
        details: details.collect(),
        tables: (kind.tables)(visit, &record)?,
        forms: forms.collect::<Result<_>>()?,
        hint: kind.hint,
    })
}

/// Does what a form asks to be done to one, or to be made: then `id` is `-`.
///
/// # Errors
/// The action's; there is no such form.
pub fn act(visit: &Visit<'_>, section: &str, id: &str, word: &str) -> Result<Answer> {
    let kind = kind(section)?;
    let deeds = if id == "-" { kind.makes } else { kind.deeds };
    let deed = deeds.iter().find(|deed| deed.word == word).ok_or_else(nowhere)?;
    let (answer, made) = deed.act(visit, id)?;
    if let Some(key) = answer["KeyMaterial"].as_str() {
        let name = answer["KeyName"].as_str().unwrap_or("key");
        return Ok(Answer::File { name: format!("{name}.pem"), content: key.to_owned() });
    }
    Ok(deed.done(section, &made))
}

impl Deed {
    /// Where it is said that it was done.
    fn done(&self, section: &str, made: &str) -> Answer {
        let to = match section_of(made).unwrap_or(section) {
            section if self.danger && self.word == "delete" => section.to_owned(),
            section if made == "-" => section.to_owned(),
            section => format!("{section}/{}", escaped(made)),
        };
        let word = if self.danger && self.word != "delete" { "did" } else { self.word };
        Answer::SeeOther(format!("/console/{to}?done={word}"))
    }
}

fn snapshot(visit: &Visit<'_>, record: &Value) -> Result<Vec<Table>> {
    let asked =
        json!({ "SnapshotId": record["SnapshotId"], "Attribute": "createVolumePermission" });
    let permissions = visit.listed("DescribeSnapshotAttribute", "CreateVolumePermissions", asked);
    let columns: &[Column] = &[("Account", "/UserId"), ("Group", "/Group")];
    let shared = table_of(
        "Shared with (by the permissions of its images)",
        columns,
        &permissions.unwrap_or_default(),
    );
    let of =
        json!([{ "Name": "block-device-mapping.snapshot-id", "Values": [record["SnapshotId"]] }]);
    let images = visit.listed("DescribeImages", "Images", json!({ "Filters": of }));
    let columns: &[Column] = &[("AMI", "/ImageId"), ("Name", "/Name"), ("State", "/State")];
    let images = table_of("Images that have it", columns, &images.unwrap_or_default());
    Ok(vec![images, shared, tags(record)])
}

fn network(visit: &Visit<'_>, record: &Value) -> Result<Vec<Table>> {
    let of = |name: &str, value: &str| json!({ "Filters": [{ "Name": name, "Values": [record[value]] }] });
    let groups = visit.listed("DescribeSecurityGroups", "SecurityGroups", of("vpc-id", "VpcId"))?;
    let columns: &[Column] =
        &[("Group", "/GroupId"), ("Name", "/GroupName"), ("Description", "/Description")];
    let reservations =
        visit.listed("DescribeInstances", "Reservations", of("subnet-id", "SubnetId"))?;
    let instances: Vec<Value> = reservations
        .into_iter()
        .filter_map(|mut one| match one["Instances"].take() {
            Value::Array(list) => Some(list),
            _ => None,
        })
        .flatten()
        .collect();
    let of_instance: &[Column] =
        &[("Instance", "/InstanceId"), ("State", "/State/Name"), ("Address", "/PrivateIpAddress")];
    Ok(vec![
        table_of("Instances", of_instance, &instances),
        table_of("Security groups", columns, &groups),
        tags(record),
    ])
}

fn rules(group: &Value) -> Table {
    let row = |rule: [String; 4]| Row { id: String::new(), cells: rule.map(Cell::known).into() };
    Table {
        caption: "Rules",
        columns: vec!["Direction", "Protocol", "Ports", "From or to"],
        rows: rules_of(group).into_iter().map(row).collect(),
        choose: false,
    }
}

fn scaling(visit: &Visit<'_>, record: &Value) -> Result<Vec<Table>> {
    let asked = json!({ "AutoScalingGroupName": record["AutoScalingGroupName"] });
    let listed = |action, member| visit.listed_of("autoscaling", action, member, asked.clone());
    let list = |member: &str| record[member].as_array().cloned().unwrap_or_default();
    let instances: &[Column] = &[
        ("Instance", "/InstanceId"),
        ("Lifecycle", "/LifecycleState"),
        ("Health", "/HealthStatus"),
        ("Type", "/InstanceType"),
    ];
    let suspended: &[Column] = &[("Process", "/ProcessName"), ("Why", "/SuspensionReason")];
    let refreshes: &[Column] = &[
        ("Refresh", "/InstanceRefreshId"),
        ("Status", "/Status"),
        ("%", "/PercentageComplete"),
        ("Begun", "/StartTime"),
        ("Why", "/StatusReason"),
    ];
    let activities: &[Column] = &[
        ("Activity", "/Description"),
        ("Status", "/StatusCode"),
        ("Cause", "/Cause"),
        ("Begun", "/StartTime"),
        ("Ended", "/EndTime"),
    ];
    Ok(vec![
        table_of("Instances", instances, &list("Instances")),
        table_of("Suspended processes", suspended, &list("SuspendedProcesses")),
        table_of(
            "Instance refreshes",
            refreshes,
            &listed("DescribeInstanceRefreshes", "InstanceRefreshes")?,
        ),
        table_of("Activities", activities, &listed("DescribeScalingActivities", "Activities")?),
        tags(record),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_words() {
        for deed in KINDS.iter().flat_map(|kind| kind.deeds.iter().chain(kind.makes)) {
            let words = [deed.word, deed.title, deed.action];
            assert!(words.iter().all(|word| !word.is_empty()), "{words:?}");
        }
    }
}
