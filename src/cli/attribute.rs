//! `spore image modify`, `deprecate`, `share`, `references` and `deregister`.

use super::answer;
use super::output::{self, Table};
use super::ui::Ui;
use crate::error::{Code, Error, OrFail, Result};
use crate::image::attribute::{self, Modification};
use crate::image::catalog;
use crate::image::permission::{self, Change, Who};
use crate::inspect::secrets;
use crate::instance::dir::instances;
use crate::record::image::{Image, ImageState, LaunchPermission};
use crate::record::instance::State;
use crate::snapshot;
use crate::store::Store;
use crate::transfer::endpoint::{self, Endpoint};
use clap::Args;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Arguments of `image modify`.
#[derive(Debug, Args)]
pub struct ModifyArgs {
    /// An id, a unique prefix of one, or a name
    image: String,
    /// New text; '' for none
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A product code: who launches the image must accept it first (may be repeated; it can't be taken away)
    #[arg(long = "product-code", visible_alias = "product-codes", value_name = "CODE")]
    product_codes: Vec<String>,
    /// What you charge for an hour of an instance, e.g. 0.05
    #[arg(long, value_name = "NUMBER")]
    hourly_rate: Option<String>,
    /// Who may launch it, in EC2's spelling: Add=[{UserId=1001},{Group=all}],Remove=[…]; see 'spore image share'
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
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Delete their snapshots too, but for those that something else uses
    #[arg(long)]
    delete_associated_snapshots: bool,
    /// The region that they are in [default: the store at hand]; a bucket or registry keeps no snapshots of its images
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

/// ModifyImageAttribute.
///
/// # Errors
/// As [`attribute::modify`] and [`permission::change`].
pub fn modify(store: &Store, args: &ModifyArgs) -> Result<ExitCode> {
    let image = catalog::resolve_own(store, &args.image)?;
    let change = Modification {
        description: args.description.clone(),
        product_codes: args.product_codes.clone(),
        hourly_rate: args.hourly_rate.clone(),
    };
    attribute::modify(store, &image.image_id, &change)?;
    if let Some(change) = &args.launch_permission {
        share_image(store, &image, change, args.yes)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// EnableImageDeprecation, DisableImageDeprecation.
///
/// # Errors
/// As [`attribute::deprecate`].
pub fn deprecate(store: &Store, args: &DeprecateArgs) -> Result<ExitCode> {
    let image = catalog::resolve_own(store, &args.image)?;
    attribute::deprecate(store, &image.image_id, args.at.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// ModifyImageAttribute, ResetImageAttribute and DescribeImageAttribute of launchPermission.
///
/// # Errors
/// As [`permission::change`].
pub fn share(store: &Store, ui: &Ui, args: &ShareArgs) -> Result<ExitCode> {
    let mut image = catalog::resolve_own(store, &args.image)?;
    let change = args.launch_permission.clone().unwrap_or_else(|| Change {
        add: args.add.clone(),
        remove: args.remove.clone(),
        reset: args.reset,
    });
    if change.is_empty() {
        output::emit(ui.output, &permissions(&image))?;
        return Ok(ExitCode::SUCCESS);
    }
    image = share_image(store, &image, &change, args.yes)?;
    if ui.output.format != output::Format::Table {
        output::emit(ui.output, &permissions(&image))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn share_image(store: &Store, image: &Image, change: &Change, yes: bool) -> Result<Image> {
    if change.add.contains(&Who::All) && !image.public {
        warn(store, image, yes)?;
    }
    if store.administrator().is_none() {
        eprintln!(
            "spore: note: {} is yours alone, so nobody else can reach the image; 'spore store share' shares a store",
            store.home().display()
        );
    }
    permission::change(store, &image.image_id, change)
}

/// Names what looks like a secret before everybody can read it. Asks on a terminal; elsewhere only `--yes` makes such an
/// image public.
fn warn(store: &Store, image: &Image, yes: bool) -> Result<()> {
    let (mut found, mut unknown) = (Vec::new(), None);
    for id in image.snapshots() {
        let report = secrets::look(store, &store.snapshots().get(id)?);
        if let Some(why) = &report.unknown {
            let why = format!("{id} was not looked into for secrets, or not all of it: {why}");
            if yes {
                eprintln!("spore: warning: {why}");
            }
            unknown = unknown.or(Some(why));
        }
        found.extend(report.found);
    }
    for secret in &found {
        eprintln!("spore: warning: {} will be public: {}", secret.what, secret.path.escape_debug());
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if yes {
        return Ok(());
    }
    match unknown {
        Some(why) if terminal => eprintln!("spore: warning: {why}"),
        Some(why) => {
            let why = format!("{why}; --yes makes the image public all the same");
            return Err(Error::refused(Code::OperationNotPermitted, why));
        }
        None if found.is_empty() => return Ok(()),
        None if !terminal => {
            let why = match found.len() {
                1 => "a file in it looks like a secret".to_owned(),
                many => format!("{many} files in it look like secrets"),
            };
            let why = format!("{why}; remove them, or --yes makes the image public all the same");
            return Err(Error::refused(Code::OperationNotPermitted, why));
        }
        None => {}
    }
    eprint!("Make '{}' public all the same? [y/N] ", image.name);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).or_fail(|| "read the answer")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::refused(Code::OperationNotPermitted, "the image stays as it was")),
    }
}

/// DescribeImageAttribute.
fn permissions(image: &Image) -> Table {
    let all = image.public.then(|| json!({ "Group": "all" }));
    let some = image.launch_permissions.iter().map(|entry| json!(entry));
    let entries: Vec<Value> = all.into_iter().chain(some).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    rows.extend(image.public.then(|| vec!["all".into(), "-".into()]));
    rows.extend(image.launch_permissions.iter().map(|entry| match entry {
        LaunchPermission::UserId(id) => vec!["user".into(), id.clone()],
        LaunchPermission::Group(id) => vec!["group".into(), id.clone()],
    }));
    let ids = rows.iter().map(|row| row.join(":")).collect();
    let json = json!({ "ImageId": image.image_id, "LaunchPermissions": entries });
    Table { columns: vec!["WHO", "ID"], rows, ids, json }
}

/// DeregisterImage.
///
/// # Errors
/// The region is unknown, or has gone.
pub fn deregister(store: &Store, args: &DeregisterArgs) -> Result<ExitCode> {
    Ok(match endpoint::find(store, args.region.as_deref())? {
        Endpoint::Store(store) => deregister_here(&store, args),
        Endpoint::Remote(remote) => answer::each(&args.images, |text| remote.deregister(text)),
    })
}

fn deregister_here(store: &Store, args: &DeregisterArgs) -> ExitCode {
    answer::each(&args.images, |text| {
        let image = catalog::resolve_own(store, text)?;
        let image = catalog::deregister(store, &image.image_id)?;
        if args.delete_associated_snapshots {
            for id in image.snapshots() {
                match snapshot::delete(store, id) {
                    Err(e) if e.code() == Some(Code::InvalidSnapshotInUse) => {
                        eprintln!("spore: note: {id} stays: {}", e.message());
                    }
                    // Of an image that failed before it was made, or deleted since.
                    Err(e) if e.code() == Some(Code::InvalidSnapshotNotFound) => {}
                    deleted => deleted?,
                }
            }
        }
        Ok(())
    })
}

/// DescribeImageReferences: what was made of the image, or shares its snapshots.
///
/// # Errors
/// The image is unknown; the store can't be read.
pub fn references(store: &Store, ui: &Ui, images: &[String]) -> Result<ExitCode> {
    let mut rows = Vec::new();
    let code = answer::each(images, |text| {
        // A deregistered one too: that is when its owner wants to know.
        rows.extend(references_to(store, &store.images().resolve(text)?)?);
        Ok(())
    });
    let json = |row: &Vec<String>| json!({ "ImageId": row[0], "ResourceType": row[1], "ResourceId": row[2], "Why": row[3] });
    let table = Table {
        columns: vec!["IMAGE", "KIND", "ID", "WHY"],
        ids: rows.iter().map(|row| row[2].clone()).collect(),
        json: json!({ "ImageReferences": rows.iter().map(json).collect::<Vec<_>>() }),
        rows,
    };
    output::emit(ui.output, &table)?;
    Ok(code)
}

fn references_to(store: &Store, image: &Image) -> Result<Vec<Vec<String>>> {
    let row = |kind: &str, id: &str, why: &str| {
        vec![image.image_id.to_string(), kind.to_owned(), id.to_owned(), why.to_owned()]
    };
    let mut rows = Vec::new();
    for record in instances(store).list()?.or_warn() {
        let instance = record.instance;
        if instance.image_id == image.image_id && instance.state != State::Terminated {
            rows.push(row("instance", instance.instance_id.as_str(), "launched from it"));
        }
    }
    for volume in store.volumes().list()?.or_warn() {
        if image.snapshots().any(|id| volume.snapshot_id.as_ref() == Some(id)) {
            rows.push(row("volume", volume.volume_id.as_str(), "made from its snapshot"));
        }
    }
    for other in store.images().list()?.or_warn() {
        if other.image_id == image.image_id || other.state == ImageState::Deregistered {
            continue;
        }
        if other.source_image_id.as_ref() == Some(&image.image_id) {
            rows.push(row("image", other.image_id.as_str(), "made from it"));
        } else if other.snapshots().any(|id| image.snapshots().any(|own| own == id)) {
            rows.push(row("image", other.image_id.as_str(), "has a snapshot in common"));
        }
    }
    Ok(rows)
}
