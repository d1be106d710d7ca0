//! Forms that make networks and regions, for which there are no actions of AWS's here, and Auto
//! Scaling groups.

use super::deed::{DEED, Deed, Input, field, taken};
use super::view::{Choice, at};
use super::visit::Visit;
use crate::error::{Code, Error, Result};
use crate::service::networks::NewNetwork;
use crate::service::regions::Location;
use serde_json::{Value, json};

/// Among the networks.
pub const NETWORKS: &[Deed] = &[Deed {
    word: "create",
    title: "Create network",
    action: "CreateVpc",
    fields: &[
        field("Name", "Name", Input::Line(32)).required(),
        field(
            "CidrBlock",
            "Addresses, such as 10.7.0.0/24; a free range if empty",
            Input::Line(18),
        ),
        field("Isolated", "It has no way out", Input::Check),
    ],
    own: Some(network),
    ..DEED
}];

fn network(visit: &Visit<'_>) -> Result<()> {
    let form = &visit.form;
    let new = NewNetwork {
        name: form.text("Name").trim().parse()?,
        cidr: form.given("CidrBlock").map(str::parse).transpose()?,
        isolated: form.is_set("Isolated"),
        tags: Vec::new(),
    };
    visit.front.open("CreateVpc")?.create_network(&new).map(drop)
}

/// Among the regions.
pub const REGIONS: &[Deed] = &[Deed {
    word: "create",
    title: "Add region",
    action: "AddRegion",
    fields: &[
        field("Name", "Name", Input::Line(64)).required(),
        field(
            "Location",
            "A directory, s3://bucket/prefix?endpoint=URL, or oci://host/repository",
            Input::Line(1024),
        )
        .required(),
    ],
    note: "Images and snapshots are copied to and from it. One that does not answer is not added.",
    own: Some(region),
    ..DEED
}];

fn region(visit: &Visit<'_>) -> Result<()> {
    let text = visit.form.text("Location").trim();
    // What it is relative to is nothing that a browser knows.
    if !text.starts_with('/') && !text.contains("://") {
        let why = "the directory of a region is an absolute path";
        return Err(Error::refused(Code::InvalidParameterValue, why));
    }
    let location: Location = text.parse()?;
    let service = visit.front.open("AddRegion")?;
    service.add_region(visit.form.text("Name").trim(), &location).map(drop)
}

/// Among the Auto Scaling groups.
pub const SCALING: &[Deed] = &[Deed {
    word: "create",
    title: "Create Auto Scaling group",
    api: "autoscaling",
    action: "CreateAutoScalingGroup",
    fields: &[
        field("AutoScalingGroupName", "Name", Input::Line(255)).required(),
        field("Template", "Launch template", Input::Of(templates)).required(),
        field("MinSize", "Minimum", Input::Number).required().with("1"),
        field("MaxSize", "Maximum", Input::Number).required().with("1"),
        field("DesiredCapacity", "Desired capacity; the minimum if empty", Input::Number),
    ],
    note: "'spore template create' makes a launch template.",
    shape: |request| {
        let template = taken(request, "Template");
        request["LaunchTemplate"] = json!({ "LaunchTemplateId": template, "Version": "$Default" });
        Ok(None)
    },
    ..DEED
}];

fn templates(visit: &Visit<'_>, _: &Value) -> Result<Vec<Choice>> {
    let all = visit.listed("DescribeLaunchTemplates", "LaunchTemplates", json!({}))?;
    let choice =
        |one: &Value| Choice::of(&at(one, "/LaunchTemplateId"), &at(one, "/LaunchTemplateName"));
    Ok(all.iter().map(choice).collect())
}
