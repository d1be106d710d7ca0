//! AWS Security Token Service: who one is.

use super::call::{Action, Call};
use crate::error::Result;
use serde_json::{Value, json};

/// Its actions.
pub const ROWS: &[(&str, Action)] = &[("GetCallerIdentity", get_caller_identity)];

fn get_caller_identity(call: &Call<'_>) -> Result<Value> {
    let account = &call.account;
    Ok(json!({
        "UserId": call.access_key_id,
        "Account": account,
        "Arn": format!("arn:aws:iam::{account}:user/{account}"),
    }))
}
