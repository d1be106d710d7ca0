//! The EBS direct APIs: a snapshot's blocks, read and written one by one.

use super::call::{Action, Call};
use crate::error::{Code, Error, Result};
use crate::id::hex;
use crate::record::tag::Tag;
use crate::record::token::ClientToken;
use crate::service::ebs::{
    BLOCK, CompleteSnapshot, DEFAULT_TIMEOUT, ListBlocks, ListedBlocks, StartSnapshot,
};
use crate::service::time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Its actions.
pub const ROWS: &[(&str, Action)] = &[
    ("CompleteSnapshot", complete_snapshot),
    ("GetSnapshotBlock", get_snapshot_block),
    ("ListChangedBlocks", list_changed_blocks),
    ("ListSnapshotBlocks", list_snapshot_blocks),
    ("PutSnapshotBlock", put_snapshot_block),
    ("StartSnapshot", start_snapshot),
];

/// How long the tokens of a list of blocks are good. (EBS direct APIs, ListSnapshotBlocks,
/// ExpiryTime)
const GOOD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Fewest and most blocks of a page.
const PAGE: std::ops::RangeInclusive<usize> = 100..=10_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Started {
    volume_size: u64,
    parent_snapshot_id: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Vec<Tag>,
    client_token: Option<String>,
    timeout: Option<u64>,
}

fn start_snapshot(call: &Call<'_>) -> Result<Value> {
    let asked: Started = call.input()?;
    let mut request = call.request.clone();
    request.as_object_mut().map(|request| request.shift_remove("ClientToken"));
    let client_token = asked.client_token.filter(|token| !token.is_empty());
    let client_token = client_token.map(|token| ClientToken {
        token,
        request: hex(&Sha256::digest(format!("StartSnapshot {request}"))),
    });
    let made = call.service.start_snapshot(&StartSnapshot {
        volume_size: asked.volume_size,
        parent_snapshot_id: asked.parent_snapshot_id.clone(),
        description: asked.description,
        tags: asked.tags,
        client_token,
        timeout: asked.timeout.unwrap_or(DEFAULT_TIMEOUT),
    })?;
    let mut answer = json!({
        "SnapshotId": made.snapshot_id, "OwnerId": made.owner_id, "Status": made.state,
        "StartTime": time::parse(&made.start_time).unwrap_or_default().as_secs_f64(),
        "VolumeSize": made.volume_size, "BlockSize": BLOCK, "Tags": made.tags,
        "Description": made.description,
    });
    if let Some(parent) = asked.parent_snapshot_id {
        answer["ParentSnapshotId"] = parent.into();
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Put {
    snapshot_id: String,
    block_index: u64,
    data_length: u64,
    checksum: String,
    checksum_algorithm: String,
    // How far the client is, which is told to nobody.
    #[serde(rename = "Progress")]
    _progress: Option<u64>,
}

fn put_snapshot_block(call: &Call<'_>) -> Result<Value> {
    let asked: Put = call.input()?;
    let length = call.body.len() as u64;
    if asked.data_length != length || length != BLOCK {
        let why = format!(
            "the block has {length} bytes, and DataLength is {}; both are {BLOCK}",
            asked.data_length
        );
        return Err(invalid(why));
    }
    let checksum = checksum(&asked.checksum, Some(&asked.checksum_algorithm))?;
    let block = (call.body, checksum);
    let written = call.service.put_snapshot_block(&asked.snapshot_id, asked.block_index, block)?;
    Ok(json!({ "Checksum": STANDARD.encode(written), "ChecksumAlgorithm": "SHA256" }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Completed {
    snapshot_id: String,
    changed_blocks_count: u64,
    checksum: Option<String>,
    checksum_algorithm: Option<String>,
    checksum_aggregation_method: Option<String>,
}

fn complete_snapshot(call: &Call<'_>) -> Result<Value> {
    let asked: Completed = call.input()?;
    if let Some(method) = asked.checksum_aggregation_method.filter(|method| method != "LINEAR") {
        let why = format!("the aggregation '{}' is none; it is LINEAR", method.escape_debug());
        return Err(invalid(why));
    }
    let algorithm = asked.checksum_algorithm.as_deref();
    let said = asked.checksum.as_ref().map(|text| checksum(text, algorithm)).transpose()?;
    let (state, completing) = call.service.complete_snapshot(&CompleteSnapshot {
        snapshot_id: asked.snapshot_id,
        changed_blocks: asked.changed_blocks_count,
        checksum: said,
    })?;
    if let Some(completing) = completing {
        call.background(move |service| {
            if let Err(error) = service.finish_snapshot(completing) {
                service.warn(error);
            }
        });
    }
    Ok(json!({ "Status": state }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(alias = "SecondSnapshotId")]
    snapshot_id: String,
    first_snapshot_id: Option<String>,
    next_token: Option<String>,
    max_results: Option<usize>,
    starting_block_index: Option<u64>,
}

fn list_snapshot_blocks(call: &Call<'_>) -> Result<Value> {
    let (listed, mut answer) = listed(call)?;
    let (id, until) = (listed.snapshot.snapshot_id.as_str(), expiry());
    let block =
        |index: &u64| json!({ "BlockIndex": index, "BlockToken": token(id, *index, until) });
    answer["Blocks"] = listed.page.blocks.iter().map(block).collect();
    Ok(answer)
}

fn list_changed_blocks(call: &Call<'_>) -> Result<Value> {
    let (listed, mut answer) = listed(call)?;
    let (second, until) = (listed.snapshot.snapshot_id.as_str(), expiry());
    let first = call.request["FirstSnapshotId"].as_str().unwrap_or_default();
    let end = listed.snapshot.size_bytes.div_ceil(BLOCK);
    let blocks = listed.page.blocks.iter().enumerate().map(|(n, index)| {
        let mut block = json!({ "BlockIndex": index });
        // Where a snapshot ends before the block it has none to be read.
        if *index < end {
            block["SecondBlockToken"] = token(second, *index, until).into();
        }
        if listed.in_first.get(n) == Some(&true) {
            block["FirstBlockToken"] = token(first, *index, until).into();
        }
        block
    });
    answer["ChangedBlocks"] = blocks.collect();
    Ok(answer)
}

/// What both lists have in common.
fn listed(call: &Call<'_>) -> Result<(ListedBlocks, Value)> {
    let asked: Listed = call.input()?;
    let most = asked.max_results.unwrap_or(*PAGE.end());
    if !PAGE.contains(&most) {
        let why = format!("MaxResults is {most}; it is {} to {}", PAGE.start(), PAGE.end());
        return Err(invalid(why));
    }
    let from = match &asked.next_token {
        None => asked.starting_block_index.unwrap_or(0),
        Some(text) => {
            let from = text.as_str();
            let from = decoded(from).filter(|(id, ..)| *id == asked.snapshot_id);
            let Some((_, from, _)) = from else {
                let why = "NextToken is of no answer from here".to_owned();
                return Err(Error::refused(Code::InvalidNextToken, why));
            };
            from
        }
    };
    let listed = call.service.list_blocks(&ListBlocks {
        first_snapshot_id: asked.first_snapshot_id,
        snapshot_id: asked.snapshot_id,
        from,
        most,
    })?;
    let until = expiry();
    let mut answer = json!({
        "ExpiryTime": until, "VolumeSize": listed.snapshot.volume_size, "BlockSize": BLOCK,
    });
    if let Some(next) = listed.page.next {
        answer["NextToken"] = token(listed.snapshot.snapshot_id.as_str(), next, until).into();
    }
    Ok((listed, answer))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Got {
    snapshot_id: String,
    block_index: u64,
    block_token: String,
}

fn get_snapshot_block(call: &Call<'_>) -> Result<Value> {
    let asked: Got = call.input()?;
    let now = time::since_epoch().as_secs();
    let good = decoded(&asked.block_token).is_some_and(|(id, index, until)| {
        id == asked.snapshot_id && index == asked.block_index && now <= until
    });
    if !good {
        let why = format!("BlockToken is not that of block {}, or too old", asked.block_index);
        return Err(invalid(why));
    }
    let block = call.service.get_snapshot_block(&asked.snapshot_id, asked.block_index)?;
    let checksum = STANDARD.encode(Sha256::digest(&block));
    let length = block.len();
    call.content.set(block);
    Ok(json!({ "DataLength": length, "Checksum": checksum, "ChecksumAlgorithm": "SHA256" }))
}

/// A SHA-256 in base64.
fn checksum(text: &str, algorithm: Option<&str>) -> Result<[u8; 32]> {
    if algorithm != Some("SHA256") {
        return Err(invalid("ChecksumAlgorithm is SHA256".to_owned()));
    }
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    decoded.ok_or_else(|| invalid("Checksum is no SHA-256 in base64".to_owned()))
}

/// Seconds since the epoch until which tokens that are given now are good.
fn expiry() -> u64 {
    (time::since_epoch() + GOOD).as_secs()
}

/// What stands for a block of a snapshot. It lets nobody read what they could not read without: it
/// keeps a client from mixing blocks up.
fn token(snapshot_id: &str, index: u64, until: u64) -> String {
    STANDARD.encode(format!("{snapshot_id} {index} {until}"))
}

fn decoded(token: &str) -> Option<(String, u64, u64)> {
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    let [id, index, until] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    Some((id.to_owned(), index.parse().ok()?, until.parse().ok()?))
}

fn invalid(why: String) -> Error {
    Error::refused(Code::InvalidParameterValue, why)
}
