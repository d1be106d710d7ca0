//! AMIs: the list, one image, and what is done to it.

use super::deed::{DEED, Deed, Input, field, named};
use super::deeds::{TAG, regions};
use super::mappings::mappings;
use super::pages::{found, table_of, tags};
use super::view::{Cell, Confirm, Image, List, Row, Tab, Table, at, escaped};
use super::visit::{Answer, Visit, nowhere, page};
use crate::error::Result;
use crate::service::image_attributes::{Change, Exposure, Secret, Who};
use crate::service::shape::REGION;
use crate::service::transfer::CopyImage;
use serde_json::json;
use std::cell::RefCell;

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
        forms: Vec::new(),
        hint: "",
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
    // What is another account's can be copied only.
    let can = |deed: &&Deed| (deed.when)(&record) && (own || deed.word == "copy");
    let forms = DEEDS.iter().filter(can).map(|deed| deed.view(visit, ("images", &id), &record));
    page(&Image {
        frame: visit.frame("images", format!("AMI {name}")),
        own,
        public: record["Public"] == true,
        accounts,
        forms: forms.collect::<Result<_>>()?,
        details,
        devices: table_of("Block devices", columns, &devices),
        tags: tags(&record),
        id: id.clone(),
    })
}

/// The accounts that may launch an image.
fn granted(visit: &Visit<'_>, id: &str) -> Result<Vec<String>> {
    let asked = json!({ "ImageId": id, "Attribute": "launchPermission" });
    let list = visit.listed("DescribeImageAttribute", "LaunchPermissions", asked)?;
    Ok(list.iter().filter_map(|one| Some(one["UserId"].as_str()?.to_owned())).collect())
}

/// What can be done to an image by a form of fields only.
const DEEDS: &[Deed] = &[
    Deed {
        word: "copy",
        title: "Copy AMI",
        action: "CopyImage",
        of: "SourceImageId",
        fields: &[
            field("Name", "Name", Input::Line(128)).required().with("/Name"),
            field("Description", "Description", Input::Line(255)),
            field("DestinationRegion", "Destination region", Input::Of(regions)),
            field("CopyImageTags", "Copy the tags, too", Input::Check),
        ],
        when: |image| image["State"] == "available",
        ..DEED
    },
    TAG,
    Deed {
        word: "deregister",
        title: "Deregister AMI",
        action: "DeregisterImage",
        of: "ImageId",
        fields: &[field("DeleteAssociatedSnapshots", "Delete its snapshots, too", Input::Check)],
        note: "No instance can be launched from it any more. Instances that run live on. Its \
               snapshots stay behind unless you tick this.",
        danger: true,
        ..DEED
    },
];

/// Makes an image of an instance.
///
/// # Errors
/// The action's.
pub fn create(visit: &Visit<'_>, instance: &str) -> Result<Answer> {
    let mut request = json!({ "InstanceId": instance, "Name": visit.form.text("Name") });
    request["NoReboot"] = visit.form.is_set("NoReboot").into();
    for member in ["Description", "Tag"] {
        if let Some(text) = visit.form.given(member) {
            request[member] = text.into();
        }
    }
    named(&mut request, "image");
    let mappings = mappings(&visit.form, "")?;
    if !mappings.is_empty() {
        request["BlockDeviceMappings"] = mappings.into();
    }
    let made = visit.perform("CreateImage", request)?;
    Ok(done("image", &at(&made, "/ImageId")))
}

fn done(what: &str, image: &str) -> Answer {
    Answer::SeeOther(format!("/console/images?done={what}&id={image}"))
}

/// What a form asks to be done to an image.
///
/// # Errors
/// The action's; there is no such form.
pub fn act(visit: &Visit<'_>, id: &str, what: &str) -> Result<Answer> {
    let to = visit.form.given("DestinationRegion").filter(|to| *to != REGION);
    match (what, to) {
        ("permissions", _) => permissions(visit, id),
        ("copy", Some(to)) => copy_to(visit, id, to),
        ("copy", None) => {
            let request = json!({
                "SourceImageId": id,
                "SourceRegion": REGION,
                "Name": visit.form.text("Name"),
                "Description": visit.form.given("Description"),
                "CopyImageTags": visit.form.is_set("CopyImageTags"),
            });
            let made = visit.perform("CopyImage", request)?;
            Ok(done(what, &at(&made, "/ImageId")))
        }
        _ => {
            let deed = DEEDS.iter().find(|deed| deed.word == what).ok_or_else(nowhere)?;
            deed.act(visit, id)?;
            Ok(done(what, if deed.danger { "" } else { id }))
        }
    }
}

/// Copies an image to another region. EC2's own action is one of the region that the copy is in.
fn copy_to(visit: &Visit<'_>, id: &str, to: &str) -> Result<Answer> {
    let request = CopyImage {
        source_image_id: id.to_owned(),
        destination_region: Some(to.to_owned()),
        name: visit.form.text("Name").to_owned(),
        description: visit.form.given("Description").map(str::to_owned),
        copy_image_tags: visit.form.is_set("CopyImageTags"),
        ..CopyImage::default()
    };
    visit.front.behind("CopyImage", &visit.session.access_key_id, move |service, announce| {
        let image = service.copy_image(&request, &mut |id| announce(id.to_owned()))?;
        announce(image.image_id.to_string());
        Ok(())
    })?;
    Ok(done("elsewhere", ""))
}

/// Changes who may launch an image. Before it becomes public, what looks like a secret in it is
/// shown, and asked about.
fn permissions(visit: &Visit<'_>, id: &str) -> Result<Answer> {
    let form = &visit.form;
    let who = |account: &String| account.parse::<Who>();
    let account: Vec<String> = form.given("account").map(str::to_owned).into_iter().collect();
    let mut change = Change {
        add: account.iter().map(who).collect::<Result<_>>()?,
        remove: form.all("remove").iter().map(who).collect::<Result<_>>()?,
        reset: false,
    };
    match form.text("public") {
        "yes" => change.add.push(Who::All),
        _ => change.remove.push(Who::All),
    }
    let found = RefCell::new(Vec::new());
    let confirm = |exposure: &Exposure| {
        let secret = |one: &Secret| format!("{}: {}", one.what, one.path.escape_debug());
        found.borrow_mut().extend(exposure.secrets.iter().map(secret));
        // As over the API: where nobody could look, nothing is known to be exposed.
        let safe = exposure.secrets.is_empty() || form.is_set("sure");
        if safe { Ok(()) } else { exposure.refuse() }
    };
    let service = visit.front.open("ModifyImageAttribute")?;
    let changed = service.modify_launch_permission(id, &change, confirm);
    let what = found.into_inner();
    if changed.is_err() && !what.is_empty() {
        let own = form.fields().iter().filter(|(name, _)| name != "csrf").cloned();
        return page(&Confirm {
            frame: visit.frame("images", "Make it public with these in it?"),
            to: format!("/console/images/{}/permissions", escaped(id)),
            note: "These files look like keys or passwords. Every account of this machine could read \
                   them.",
            what,
            button: "Make it public all the same",
            fields: own.chain([("sure".to_owned(), "yes".to_owned())]).collect(),
        });
    }
    changed?;
    Ok(done("permissions", id))
}
