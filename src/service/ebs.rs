//! Blocks of snapshots, read and written one by one: StartSnapshot, PutSnapshotBlock,
//! CompleteSnapshot, ListSnapshotBlocks, ListChangedBlocks, GetSnapshotBlock. (EBS direct APIs)

use super::{Service, idempotent};
use crate::error::{Code, Error, Result};
use crate::id::SnapshotId;
use crate::record::snapshot::{DirectWrite, Snapshot, SnapshotState};
use crate::record::tag::Tag;
use crate::record::token::ClientToken;
pub use crate::snapshot::blocks::{BLOCK, Page};
use crate::snapshot::direct::Completing;
use crate::snapshot::{self, Wanted, blocks, direct};
use sha2::{Digest, Sha256};

/// Minutes that an unfinished snapshot may be given until its next block.
pub const TIMEOUT: std::ops::RangeInclusive<u64> = 10..=4320;
/// The same where nobody says.
pub const DEFAULT_TIMEOUT: u64 = 60;

/// StartSnapshot.
#[derive(Clone, Debug)]
pub struct StartSnapshot {
    /// GiB.
    pub volume_size: u64,
    /// The snapshot whose blocks those are that are not written.
    pub parent_snapshot_id: Option<String>,
    /// Free text.
    pub description: String,
    /// Tags.
    pub tags: Vec<Tag>,
    /// The request's token.
    pub client_token: Option<ClientToken>,
    /// Minutes until the next block.
    pub timeout: u64,
}

/// ListSnapshotBlocks, and ListChangedBlocks where there is a first snapshot.
#[derive(Clone, Debug)]
pub struct ListBlocks {
    /// What it is compared with.
    pub first_snapshot_id: Option<String>,
    /// The snapshot.
    pub snapshot_id: String,
    /// The first block to look at.
    pub from: u64,
    /// Most blocks of a page.
    pub most: usize,
}

/// Some of a snapshot's blocks.
#[derive(Debug)]
pub struct ListedBlocks {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The blocks.
    pub page: Page,
    /// Of each whether the first snapshot has it, too.
    pub in_first: Vec<bool>,
}

/// CompleteSnapshot.
#[derive(Clone, Debug)]
pub struct CompleteSnapshot {
    /// The snapshot.
    pub snapshot_id: String,
    /// How many blocks were written.
    pub changed_blocks: u64,
    /// SHA-256 of the SHA-256 of each of them, in order.
    pub checksum: Option<[u8; 32]>,
}

impl Service {
    /// StartSnapshot.
    ///
    /// # Errors
    /// As [`direct::start`]'s; the parent is unknown; `IdempotentParameterMismatch`.
    pub fn start_snapshot(&self, request: &StartSnapshot) -> Result<Snapshot> {
        let store = self.swept();
        if !TIMEOUT.contains(&request.timeout) {
            let why = format!("Timeout is {} to {} minutes", TIMEOUT.start(), TIMEOUT.end());
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
        let given = request.client_token.as_ref();
        let _turn = given.map(|given| idempotent::turn(store, given)).transpose()?;
        if let Some(begun) = given.map(|given| self.begun(given)).transpose()?.flatten() {
            return Ok(begun);
        }
        let parent = request.parent_snapshot_id.as_ref().map(|id| exact(self, id)).transpose()?;
        let wanted = Wanted {
            snapshot_id: SnapshotId::generate()?,
            description: request.description.clone(),
            tags: request.tags.clone(),
        };
        let write = DirectWrite {
            client_token: request.client_token.clone(),
            parent_snapshot_id: parent.as_ref().map(|parent| parent.snapshot_id.clone()),
            timeout: request.timeout,
            completing: false,
        };
        let size = request.volume_size.saturating_mul(1 << 30);
        direct::start(store, wanted, size, (parent.as_ref(), write))
    }

    /// What a request with that token began before.
    fn begun(&self, given: &ClientToken) -> Result<Option<Snapshot>> {
        let records = self.store.snapshots().list()?.or_warn();
        let token = |record: &Snapshot| record.direct_write.as_ref()?.client_token.clone();
        let begun = idempotent::made(&self.store, records, token, given)?;
        Ok(begun.map(|begun| snapshot::settled(&self.store, begun)))
    }

    /// PutSnapshotBlock: writes a block, whose SHA-256 is `checksum`.
    ///
    /// # Errors
    /// As [`direct::put`]'s; `InvalidParameterValue`: the block has another checksum.
    pub fn put_snapshot_block(
        &self,
        snapshot_id: &str,
        index: u64,
        (bytes, checksum): (&[u8], [u8; 32]),
    ) -> Result<[u8; 32]> {
        if <[u8; 32]>::from(Sha256::digest(bytes)) != checksum {
            let why = format!("block {index} has another checksum than is said");
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
        direct::put(&self.store, &exact(self, snapshot_id)?, index, bytes)
    }

    /// CompleteSnapshot: its state, and what is to be done in the background then by
    /// [`Service::finish_snapshot`].
    ///
    /// # Errors
    /// As [`direct::seal`]'s.
    pub fn complete_snapshot(
        &self,
        request: &CompleteSnapshot,
    ) -> Result<(SnapshotState, Option<Completing>)> {
        let found = exact(self, &request.snapshot_id)?;
        let said = (request.changed_blocks, request.checksum);
        match direct::seal(&self.store, &found, said)? {
            Some(completing) => Ok((SnapshotState::Pending, Some(completing))),
            None => Ok((exact(self, &request.snapshot_id)?.state, None)),
        }
    }

    /// Makes a snapshot whole that nobody writes any more.
    ///
    /// # Errors
    /// As [`Completing::complete`]'s.
    pub fn finish_snapshot(&self, completing: Completing) -> Result<()> {
        completing.complete().map(drop)
    }

    /// ListSnapshotBlocks and ListChangedBlocks.
    ///
    /// # Errors
    /// A snapshot is unknown or not completed (`IncorrectState`), or can't be read.
    pub fn list_blocks(&self, request: &ListBlocks) -> Result<ListedBlocks> {
        let (snapshot, disk) = self.content(&request.snapshot_id)?;
        let Some(first) = &request.first_snapshot_id else {
            let page = blocks::list(&disk, request.from, request.most)?;
            return Ok(ListedBlocks { snapshot, page, in_first: Vec::new() });
        };
        let (_, first) = self.content(first)?;
        let page = blocks::changed(&first, &disk, request.from, request.most)?;
        let in_first = page.blocks.iter().map(|index| blocks::has(&first, *index));
        let in_first = in_first.collect::<Result<_>>()?;
        Ok(ListedBlocks { snapshot, page, in_first })
    }

    /// GetSnapshotBlock.
    ///
    /// # Errors
    /// The snapshot is unknown or not completed (`IncorrectState`), has no such block
    /// (`InvalidParameterValue`), or can't be read.
    pub fn get_snapshot_block(&self, snapshot_id: &str, index: u64) -> Result<Vec<u8>> {
        let (snapshot, disk) = self.content(snapshot_id)?;
        if index >= snapshot.size_bytes.div_ceil(BLOCK) {
            let why = format!("{} has no block {index}", snapshot.snapshot_id);
            return Err(Error::refused(Code::InvalidParameterValue, why));
        }
        blocks::read(&disk, index)
    }

    fn content(&self, snapshot_id: &str) -> Result<(Snapshot, blocks::Disk)> {
        let snapshot = exact(self, snapshot_id)?;
        let id = &snapshot.snapshot_id;
        if snapshot.state != SnapshotState::Completed {
            return Err(Error::refused(Code::IncorrectState, format!("{id} is not completed")));
        }
        let content = snapshot::open(&self.store, &snapshot)?;
        Ok((snapshot, content))
    }
}

/// The snapshot of that id: these requests know no names.
fn exact(service: &Service, snapshot_id: &str) -> Result<Snapshot> {
    let id: SnapshotId = snapshot_id.parse()?;
    Ok(snapshot::settled(&service.store, service.store.snapshots().get(&id)?))
}
