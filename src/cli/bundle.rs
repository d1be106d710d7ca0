//! `spore image bundle`, and `spore image register` of a bundle.

use crate::error::Result;
use crate::store::Store;
use crate::transfer::bundle;
use crate::transfer::bundle::{Bundle, KeyFiles};
use clap::Args;
use std::path::PathBuf;

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

/// Bundle an image or a snapshot; gives the manifest's location.
///
/// # Errors
/// As [`bundle::make`]'s.
pub fn bundle(store: &Store, args: &BundleArgs) -> Result<String> {
    let request = Bundle {
        what: args.what.clone(),
        prefix: args.prefix.clone(),
        unencrypted: args.unencrypted,
        keys: KeyFiles { ec2_cert: args.ec2_cert.clone(), ..args.keys.files() },
    };
    bundle::make(store, &request, &args.to)
}
