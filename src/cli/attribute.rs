//! `spore image modify`, `deprecate`, `share`, `references` and `deregister`.

use super::answer;
use super::complete;
use super::output::{self, Format, Table};
use super::ui::{Ui, say};
use crate::error::{Code, Error, OrFail, Result};
use crate::record::image::{Image, ImdsSupport, LaunchPermission};
use crate::service::Service;
use crate::service::deregister::{DeregisterImageResult, DeregisterImages, Left};
use crate::service::image_attributes::{
    Change, Exposure, ImageReference, ModifyImageAttribute, Reference, Who,
};
use crate::service::images::LaunchPermissions;
use clap::Args;
use serde_json::json;
use std::io::IsTerminal;
use std::process::ExitCode;

/// Arguments of `image modify`.
#[derive(Debug, Args)]
pub struct ModifyArgs {
    /// An id, a unique prefix of one, or a name
    #[arg(add = complete::image())]
    image: String,
    /// New text; '' for none
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A product code: who launches the image must accept it first (may be repeated; it can't be
    /// taken away)
    #[arg(long = "product-code", visible_alias = "product-codes", value_name = "CODE")]
    product_codes: Vec<String>,
    /// What you charge for an hour of an instance, e.g. 0.05
    #[arg(long, value_name = "NUMBER")]
    hourly_rate: Option<String>,
    /// v2.0: its guest gets itself tokens for its metadata (IMDSv2), and instances refuse requests
    /// without one unless 'run --metadata-options' says otherwise; it can't be taken back
    #[arg(long, value_name = "v2.0", value_parser = imds_support)]
    imds_support: Option<ImdsSupport>,
    /// Who may launch it, in EC2's spelling: Add=[{UserId=1001},{Group=all}],Remove=[…]; see 'spore
    /// image share'
    #[arg(long, value_name = "CHANGE")]
    launch_permission: Option<Change>,
    /// Make it public without asking, whatever is in it
    #[arg(long)]
    yes: bool,
}

/// Arguments of `image deprecate`.
#[derive(Debug, Args)]
pub struct DeprecateArgs {
    /// An id, a unique prefix of one, or a name
    #[arg(add = complete::image())]
    image: String,
    /// From when on others don't find it unless they ask: 2030-01-31 or 2030-01-31T12:00Z (UTC)
    #[arg(long, value_name = "TIME", required_unless_present = "cancel")]
    at: Option<String>,
    /// It is not deprecated any more
    #[arg(long, conflicts_with = "at")]
    cancel: bool,
}

/// Arguments of `image share`.
#[derive(Debug, Args)]
pub struct ShareArgs {
    /// An id, a unique prefix of one, or a name
    #[arg(add = complete::image())]
    image: String,
    /// Who may launch it from now on (may be repeated)
    #[arg(long, value_name = "user:NAME|UID, group:NAME|GID, all")]
    add: Vec<Who>,
    /// Who may not any more (may be repeated)
    #[arg(long, value_name = "user:NAME|UID, group:NAME|GID, all")]
    remove: Vec<Who>,
    /// Nobody but you, before any --add
    #[arg(long)]
    reset: bool,
    /// The same in EC2's spelling: Add=[{UserId=1001},{Group=all}],Remove=[{UserId=1002}]
    #[arg(long, value_name = "CHANGE", conflicts_with_all = ["add", "remove", "reset"])]
    launch_permission: Option<Change>,
    /// Make it public without asking, whatever is in it
    #[arg(long)]
    yes: bool,
}

/// Arguments of `image deregister`.
#[derive(Debug, Args)]
pub struct DeregisterArgs {
    /// Ids, unique prefixes of ids, or names
    #[arg(required = true, value_name = "IMAGE", add = complete::image())]
    images: Vec<String>,
    /// Delete their snapshots too, but for those that something else uses
    #[arg(long)]
    delete_associated_snapshots: bool,
    /// The region that they are in [default: the store at hand]; a bucket or registry keeps no
    /// snapshots of its images
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

fn imds_support(text: &str) -> Result<ImdsSupport> {
    match text {
        "v2.0" => Ok(ImdsSupport::V2),
        _ => Err(Error::usage("it is v2.0")),
    }
}

/// `image modify`.
///
/// # Errors
/// As [`Service::modify_image_attribute`]'s.
pub fn modify(service: &Service, args: &ModifyArgs) -> Result<ExitCode> {
    let request = ModifyImageAttribute {
        image_id: args.image.clone(),
        description: args.description.clone(),
        product_codes: args.product_codes.clone(),
        hourly_rate: args.hourly_rate.clone(),
        imds_support: args.imds_support,
        launch_permission: args.launch_permission.clone(),
    };
    service.modify_image_attribute(&request, |exposure| confirm(exposure, args.yes))?;
    Ok(ExitCode::SUCCESS)
}

/// `image deprecate`.
///
/// # Errors
/// As [`Service::deprecate_image`]'s.
pub fn deprecate(service: &Service, ui: &Ui, args: &DeprecateArgs) -> Result<ExitCode> {
    let image = service.deprecate_image(&args.image, args.at.as_deref())?;
    if ui.output.format != Format::Table || ui.output.quiet {
        // EnableImageDeprecationResult.
        answer::whole(ui, "ImageId", image.image_id.as_str(), json!({ "Return": true }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `image unprotect`.
///
/// # Errors
/// As [`Service::unprotect_image`]'s.
pub fn unprotect(service: &Service, ui: &Ui, images: &[String]) -> Result<ExitCode> {
    Ok(answer::each(ui, images, |image| {
        let word = service.unprotect_image(image)?;
        if word != "disabled" {
            say(format_args!("note: the protection of {image} is {word}"));
        }
        Ok(())
    }))
}

/// `image share`.
///
/// # Errors
/// As [`Service::modify_launch_permission`]'s.
pub fn share(service: &Service, ui: &Ui, args: &ShareArgs) -> Result<ExitCode> {
    let change = args.launch_permission.clone().unwrap_or_else(|| Change {
        add: args.add.clone(),
        remove: args.remove.clone(),
        reset: args.reset,
    });
    if change.is_empty() {
        let image = service.describe_image_attribute(&args.image)?;
        output::emit(&ui.output, &permissions(&image))?;
        return Ok(ExitCode::SUCCESS);
    }
    let confirm = |exposure: &Exposure| confirm(exposure, args.yes);
    let image = service.modify_launch_permission(&args.image, &change, confirm)?;
    if ui.output.format != Format::Table {
        output::emit(&ui.output, &permissions(&image))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Names what looks like a secret before everybody can read it. Asks on a terminal; elsewhere only
/// `--yes` makes such an image public.
fn confirm(exposure: &Exposure, yes: bool) -> Result<()> {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let reported = match (yes, terminal) {
        (true, _) => exposure.unknown.as_slice(),
        (false, true) => &exposure.unknown[..exposure.unknown.len().min(1)],
        (false, false) => &[],
    };
    for why in reported {
        say(format_args!("warning: {why}"));
    }
    for secret in &exposure.secrets {
        let path = secret.path.escape_debug();
        say(format_args!("warning: {} will be public: {path}", secret.what));
    }
    let harmless = exposure.unknown.is_empty() && exposure.secrets.is_empty();
    if yes || harmless {
        return Ok(());
    }
    if !terminal {
        return exposure.refuse();
    }
    eprint!("Make '{}' public all the same? [y/N] ", exposure.name);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).or_fail(|| "read the answer")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::refused(Code::OperationNotPermitted, "the image stays as it was")),
    }
}

/// DescribeImageAttribute.
fn permissions(image: &Image) -> Table {
    let mut rows: Vec<Vec<String>> = Vec::new();
    rows.extend(image.public.then(|| vec!["all".into(), "-".into()]));
    rows.extend(image.launch_permissions.iter().map(|entry| match entry {
        LaunchPermission::UserId(id) => vec!["user".into(), id.clone()],
        LaunchPermission::Group(id) => vec!["group".into(), id.clone()],
    }));
    let ids = rows.iter().map(|row| row.join(":")).collect();
    let json = json!(LaunchPermissions::of(image));
    Table::of_texts(vec!["WHO", "ID"], rows, ids, json)
}

/// `image deregister`.
///
/// # Errors
/// The region is unknown, or has gone.
pub fn deregister(service: &Service, ui: &Ui, args: &DeregisterArgs) -> Result<ExitCode> {
    let results = service.deregister_images(&DeregisterImages {
        image_ids: args.images.clone(),
        region: args.region.clone(),
        delete_associated_snapshots: args.delete_associated_snapshots,
    })?;
    let silent = ui.output.format == Format::Table && !ui.output.quiet;
    let results = results.into_iter().map(|result| {
        let done = result?;
        if let Some(line) = left(&done) {
            say(line);
        }
        match silent {
            true => Ok(()),
            false => answer::whole(ui, "ImageId", &done.spore.image_id, &done),
        }
    });
    Ok(answer::reported(ui, results))
}

/// What stays of an image and how to have that gone, too; `None` if nothing does.
fn left(done: &DeregisterImageResult) -> Option<String> {
    let left = &done.spore.left;
    let each = left.iter().map(|left| {
        let Left { resource_type, resource_id, size_bytes } = left;
        format!("{resource_type} {resource_id} ({})", output::human_bytes(*size_bytes))
    });
    let each: Vec<String> = each.collect();
    let delete = |kind: &str, verb: &str| {
        let ids = left.iter().filter(|left| left.resource_type == kind);
        let ids: Vec<&str> = ids.map(|left| left.resource_id.as_str()).collect();
        (!ids.is_empty()).then(|| format!("'spore {kind} {verb} {}'", ids.join(" ")))
    };
    let kinds = [("snapshot", "delete"), ("kernel", "deregister"), ("ramdisk", "deregister")];
    let commands: Vec<String> =
        kinds.iter().filter_map(|(kind, verb)| delete(kind, verb)).collect();
    (!each.is_empty()).then(|| {
        let image = &done.spore.image_id;
        format!("note: of {image} there stays {}; {}", each.join(", "), commands.join(", "))
    })
}

/// `image references`.
///
/// # Errors
/// Stdout can't be written.
pub fn references(service: &Service, ui: &Ui, images: &[String]) -> Result<ExitCode> {
    let mut found = Vec::new();
    let code = answer::each(ui, images, |text| {
        found.extend(service.describe_image_references(text)?);
        Ok(())
    });
    let row = |reference: &ImageReference| {
        let Reference { kind, resource_id, why } = &reference.spore;
        let image = reference.image_id.to_string();
        vec![image, (*kind).to_owned(), resource_id.clone(), (*why).to_owned()]
    };
    let table = Table::of_texts(
        vec!["IMAGE", "KIND", "ID", "WHY"],
        found.iter().map(row).collect(),
        found.iter().map(|reference| reference.spore.resource_id.clone()).collect(),
        json!({ "ImageReferences": found }),
    );
    output::emit(&ui.output, &table)?;
    Ok(code)
}
