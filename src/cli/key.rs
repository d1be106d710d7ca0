//! `spore key …`.

use super::answer;
use super::args::{filter, tag};
use super::input;
use super::output::{self, Cell, Column, Table};
use super::serve::{self, AccessCommand};
use super::ui::Ui;
use crate::error::{Code, Error, Result};
use crate::record::key::{KeyPair, KeyType};
use crate::record::tag::Tag;
use crate::service::filter::Filter;
use crate::service::keys::MAX_TEXT;
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Verbs on key pairs.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make, list and remove access keys, which clients of 'spore serve' sign their requests with
    Access {
        /// What to do
        #[command(subcommand)]
        command: AccessCommand,
    },
    /// Make a key pair; prints its id
    ///
    /// Guests launched with 'run --key NAME' let in who has the private half. That stays in the
    /// store, readable by you alone; with -o json it is also printed, as EC2's CreateKeyPair does.
    #[command(after_long_help = "Examples:\n  spore key create ci\n  spore run debian --key ci")]
    Create {
        /// Its name: 1 to 255 ASCII characters
        name: String,
        /// Its type
        #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = KeyTypeArg::Ed25519)]
        key_type: KeyTypeArg,
        /// A tag (may be repeated)
        #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
        tags: Vec<Tag>,
    },
    /// Import the public half of a key pair of yours; prints its id
    ///
    /// Imported under the name 'default' it is the one of every instance for which no other is
    /// named.
    #[command(
        after_long_help = "Examples:\n  spore key import laptop ~/.ssh/id_ed25519.pub\n  ssh-add -L | head -1 | spore key import default -"
    )]
    Import {
        /// Its name: 1 to 255 ASCII characters
        name: String,
        /// The public key, a line of OpenSSH's format of type ed25519 or rsa; - for standard input
        file: PathBuf,
        /// A tag (may be repeated)
        #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
        tags: Vec<Tag>,
    },
    /// List key pairs
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that match: key-pair-id, key-name, key-type, fingerprint, tag:KEY, tag-key
        /// (may be repeated)
        #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]", value_parser = filter)]
        filters: Vec<Filter>,
    },
    /// Remove key pairs; instances that were launched with them still let in who has the private
    /// half
    #[command(visible_alias = "delete")]
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
}

/// [`KeyType`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyTypeArg {
    /// Short and quick
    Ed25519,
    /// 2048 bits, for guests that know no other
    Rsa,
}

impl From<KeyTypeArg> for KeyType {
    fn from(key_type: KeyTypeArg) -> Self {
        match key_type {
            KeyTypeArg::Ed25519 => Self::Ed25519,
            KeyTypeArg::Rsa => Self::Rsa,
        }
    }
}

/// Do a key command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &KeyCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        KeyCommand::Access { command } => serve::access(command, ui),
        KeyCommand::Create { name, key_type, tags } => {
            let (pair, private) = service.create_key_pair(name, (*key_type).into(), tags)?;
            made(ui, &pair, Some(&private))?;
            Ok(ExitCode::SUCCESS)
        }
        KeyCommand::Import { name, file, tags } => {
            let pair = service.import_key_pair(name, &public_key(file)?, tags)?;
            made(ui, &pair, None)?;
            Ok(ExitCode::SUCCESS)
        }
        KeyCommand::Ls { filters } => {
            list(ui, &service.describe_key_pairs(&[], filters)?)?;
            Ok(ExitCode::SUCCESS)
        }
        KeyCommand::Rm { keys } => answer::delete(ui, keys, |key| service.delete_key_pair(key)),
    }
}

/// The id, or as JSON EC2's KeyPair, or ImportKeyPairResult where there is no private half.
fn made(ui: &Ui, pair: &KeyPair, private: Option<&str>) -> Result<()> {
    let mut json = json!({
        "KeyPairId": pair.key_pair_id,
        "KeyName": pair.key_name,
        "KeyFingerprint": pair.key_fingerprint,
        "Tags": pair.tags,
    });
    if let Some(private) = private {
        json["KeyMaterial"] = private.into();
    }
    answer::whole(ui, "KeyPairId", pair.key_pair_id.as_str(), json)
}

fn list(ui: &Ui, pairs: &[KeyPair]) -> Result<()> {
    let row = |pair: &KeyPair| {
        vec![
            pair.key_pair_id.to_string().into(),
            pair.key_name.as_str().into(),
            pair.key_type.as_str().into(),
            pair.key_fingerprint.as_str().into(),
            Cell::Time(pair.create_time.clone()),
        ]
    };
    let table = Table {
        columns: vec![
            Column::new("KeyPairId", "ID"),
            Column::text("KeyName", "NAME"),
            Column::new("KeyType", "TYPE"),
            Column::new("KeyFingerprint", "FINGERPRINT"),
            Column::new("CreateTime", "CREATED"),
        ],
        rows: pairs.iter().map(row).collect(),
        ids: pairs.iter().map(|pair| pair.key_pair_id.to_string()).collect(),
        json: json!({ "KeyPairs": pairs }),
    };
    output::emit(&ui.output, &table)
}

/// The text that `import` is given.
fn public_key(path: &Path) -> Result<String> {
    let (bytes, shown) = (input::read(path, MAX_TEXT)?, path.display());
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MAX_TEXT);
    text.ok_or_else(|| {
        let why = format!("{shown} is no public key: it is no text, or too long");
        Error::refused(Code::InvalidKeyFormat, why)
    })
}
