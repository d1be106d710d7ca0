//! AMIs: the list, one image, and what is done to it.

use super::pages::{found, table_of, tags};
use super::view::{Cell, Image, List, Row, Tab, Table, at};
use super::visit::{Answer, Visit, nowhere, page};
use crate::error::Result;
use crate::service::shape::REGION;
use serde_json::{Value, json};

/// Owned by me, private, public: what is asked for.
const OWNERS: &[(&str, &str)] =
    &[("self", "Owned by me"), ("private", "Private images"), ("public", "Public images")];

/// The images.
///
/// # Errors
/// They can't be read.
pub fn images(visit: &Visit<'_>) -> Result<Answer> {
    let owner = visit.query.given("owner").unwrap_or("self");
    let public = |is: &str| json!([{ "Name": "is-public", "Values": [is] }]);
    let request = match owner {
        "public" => json!({ "Filters": public("true") }),
        "private" => json!({ "Filters": public("false") }),
        _ => json!({ "Owners": ["self"] }),
    };
    let images = visit.listed("DescribeImages", "Images", request)?;
    let rows = images.iter().map(|image| {
        let id = at(image, "/ImageId");
        let link = Cell::link(id.clone(), format!("/console/images/{id}"));
        let of = |pointer| Cell::at(image, pointer);
        Row {
            cells: vec![
                of("/Name"),
                link,
                Cell::state(at(image, "/State")),
                of("/OwnerId"),
                of("/Architecture"),
                of("/ImageType"),
                of("/RootDeviceType"),
                of("/VirtualizationType"),
                of("/CreationDate"),
            ],
            id,
        }
    });
    let search = visit.query.text("q").to_owned();
    let columns = vec![
        "Name",
        "AMI",
        "State",
        "Owner",
        "Architecture",
        "Image type",
        "Root device",
        "Virtualization",
        "Created",
    ];
    let table = Table { caption: "AMIs", columns, rows: found(rows, &search), choose: false };
    let tab = |(value, text): &(&str, &'static str)| Tab {
        href: format!("/console/images?owner={value}"),
        text,
        here: *value == owner,
    };
    page(&List {
        frame: visit.frame("images", "AMIs"),
        tabs: OWNERS.iter().map(tab).collect(),
        search,
        keep: vec![("owner", owner.to_owned())],
        actions: Vec::new(),
        table,
    })
}

/// One image.
///
/// # Errors
/// It is not there.
pub fn image(visit: &Visit<'_>, id: &str) -> Result<Answer> {
    let found = visit.listed("DescribeImages", "Images", json!({ "ImageIds": [id] }))?;
    let record = found.into_iter().next().ok_or_else(nowhere)?;
    let (id, name) = (at(&record, "/ImageId"), at(&record, "/Name"));
    let own = at(&record, "/OwnerId") == visit.front.account();
    let accounts = match own {
        true => granted(visit, &id)?,
        false => Vec::new(),
    };
    let columns: &[(&str, &str)] = &[
        ("Device", "/DeviceName"),
        ("Snapshot", "/Ebs/SnapshotId"),
        ("GiB", "/Ebs/VolumeSize"),
        ("Type", "/Ebs/VolumeType"),
    ];
    let devices = record["BlockDeviceMappings"].as_array().cloned().unwrap_or_default();
    let details = vec![
        ("State", Cell::state(at(&record, "/State"))),
        ("Why", Cell::at(&record, "/StateReason/Message")),
        ("Description", Cell::at(&record, "/Description")),
        ("Owner", Cell::at(&record, "/OwnerId")),
        ("Public", Cell::at(&record, "/Public")),
        ("Architecture", Cell::at(&record, "/Architecture")),
        ("Virtualization", Cell::at(&record, "/VirtualizationType")),
        ("Root device", Cell::at(&record, "/RootDeviceName")),
        ("Made from", Cell::at(&record, "/SourceInstanceId")),
        ("Created", Cell::at(&record, "/CreationDate")),
    ];
    page(&Image {
        frame: visit.frame("images", format!("AMI {name}")),
        own,
        public: record["Public"] == true,
        accounts,
        region: REGION.to_owned(),
        details,
        devices: table_of("Block devices", columns, &devices),
        tags: tags(&record),
        id,
        name,
    })
}

/// The accounts that may launch an image.
fn granted(visit: &Visit<'_>, id: &str) -> Result<Vec<String>> {
    let asked = json!({ "ImageId": id, "Attribute": "launchPermission" });
    let list = visit.listed("DescribeImageAttribute", "LaunchPermissions", asked)?;
    Ok(list.iter().filter_map(|one| Some(one["UserId"].as_str()?.to_owned())).collect())
}

/// Makes an image of an instance.
///
/// # Errors
/// The action's.
pub fn create(visit: &Visit<'_>, instance: &str) -> Result<Answer> {
    let mut request = json!({ "InstanceId": instance, "Name": visit.form.text("name") });
    request["NoReboot"] = visit.form.is_set("no_reboot").into();
    described(visit, &mut request);
    let made = visit.perform("CreateImage", request)?;
    Ok(done("image", &at(&made, "/ImageId")))
}

fn described(visit: &Visit<'_>, request: &mut Value) {
    if let Some(description) = visit.form.given("description") {
        request["Description"] = description.into();
    }
}

fn done(what: &str, image: &str) -> Answer {
    Answer::SeeOther(format!("/console/images?done={what}&id={image}"))
}

/// What a form asks to be done to an image.
///
/// # Errors
/// The action's; there is no such form.
pub fn act(visit: &Visit<'_>, id: &str, what: &str) -> Result<Answer> {
    match what {
        "copy" => {
            let name = visit.form.text("name");
            let mut request = json!({ "SourceImageId": id, "SourceRegion": REGION, "Name": name });
            request["CopyImageTags"] = visit.form.is_set("tags").into();
            described(visit, &mut request);
            let made = visit.perform("CopyImage", request)?;
            Ok(done(what, &at(&made, "/ImageId")))
        }
        "permissions" => {
            permissions(visit, id)?;
            Ok(done(what, id))
        }
        "tag" => {
            let mut tag = json!({ "Key": visit.form.text("key") });
            let set = visit.form.text("how") == "set";
            if set {
                tag["Value"] = visit.form.text("value").into();
            }
            let action = if set { "CreateTags" } else { "DeleteTags" };
            visit.perform(action, json!({ "Resources": [id], "Tags": [tag] }))?;
            Ok(done(what, id))
        }
        "deregister" => {
            let snapshots = visit.form.is_set("snapshots");
            let request = json!({ "ImageId": id, "DeleteAssociatedSnapshots": snapshots });
            visit.perform("DeregisterImage", request)?;
            Ok(Answer::SeeOther("/console/images?done=deregister".to_owned()))
        }
        _ => Err(nowhere()),
    }
}

fn permissions(visit: &Visit<'_>, id: &str) -> Result<()> {
    let group = json!({ "Group": "all" });
    let user = |account: String| json!({ "UserId": account });
    let mut add: Vec<Value> =
        visit.form.given("account").map(|account| user(account.to_owned())).into_iter().collect();
    let mut remove: Vec<Value> = visit.form.all("remove").into_iter().map(user).collect();
    match visit.form.text("public") {
        "yes" => add.push(group),
        _ => remove.push(group),
    }
    let change = json!({ "Add": add, "Remove": remove });
    visit.perform("ModifyImageAttribute", json!({ "ImageId": id, "LaunchPermission": change }))?;
    Ok(())
}
