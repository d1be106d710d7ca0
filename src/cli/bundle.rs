//! `spore image bundle`, and `spore image register` of a bundle.

use super::answer;
use super::ui::Ui;
use crate::error::Result;
use crate::service::Service;
use crate::service::transfer::{BundleImage, KeyFiles};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `image bundle`.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The image, or a snapshot: an id, a unique prefix of one, or a name
    #[arg(value_name = "IMAGE|SNAPSHOT")]
    what: String,
    /// A directory, or s3://bucket/prefix?endpoint=URL&region=NAME
    #[arg(long, value_name = "DIR|s3://…")]
    to: String,
    /// What the files' names begin with [default: the image's name]
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,
    /// Do not encrypt the parts
    #[arg(long)]
    unencrypted: bool,
    #[command(flatten)]
    keys: KeyArgs,
    /// EC2's certificate (PEM) [default: this store's own]
    #[arg(long, value_name = "FILE")]
    ec2_cert: Option<PathBuf>,
}

/// The user's key and certificate.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Of a bundle: the user's private key (PEM) [default: your own, made when it is first needed]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Of a bundle: the certificate (PEM) of who signs it
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
}

impl KeyArgs {
    /// The files.
    pub fn files(&self) -> KeyFiles {
        KeyFiles { key: self.key.clone(), cert: self.cert.clone(), ec2_cert: None }
    }
}

/// Bundle an image or a snapshot, and print the manifest's location.
///
/// # Errors
/// As [`Service::bundle_image`]'s.
pub fn bundle(service: &Service, ui: &Ui, args: &BundleArgs) -> Result<ExitCode> {
    let request = BundleImage {
        image_id: args.what.clone(),
        to: args.to.clone(),
        prefix: args.prefix.clone(),
        unencrypted: args.unencrypted,
        keys: KeyFiles { ec2_cert: args.ec2_cert.clone(), ..args.keys.files() },
    };
    let made = ui.cancellable(|| service.bundle_image(&request))?;
    let Some(location) = made else { return Ok(ui.cancelled()) };
    answer::made(ui, "ImageLocation", &location)?;
    Ok(ExitCode::SUCCESS)
}
