//! A file of this machine's, as a place that one is fetched from.

use super::transport::{Ask, Body, Content, Reply, Transport, Trouble};
use crate::context::Cancel;
use crate::error::Code;
use crate::store::beneath;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Bytes of a piece.
const PIECE: usize = 1 << 20;

/// A file.
pub(super) struct LocalFile(pub PathBuf);

struct Bytes(File);

impl Transport for LocalFile {
    fn get(&self, ask: Ask<'_>, _: &Cancel) -> Result<Reply<'_>, Trouble> {
        let refused = |e: std::io::Error| match e.kind() {
            ErrorKind::PermissionDenied => Trouble::Final(Code::AuthFailure, e.to_string()),
            _ => Trouble::Final(Code::InvalidParameterValue, e.to_string()),
        };
        let mut file = beneath::foreign_file(&self.0).map_err(refused)?;
        let meta = file.metadata().map_err(refused)?;
        let mark =
            format!("{} {}.{:09} {}", meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
        if ask.unless_still == Some(&mark) {
            return Ok(Reply::Unchanged);
        }
        let from = if ask.if_still == Some(&mark) { ask.from.min(meta.len()) } else { 0 };
        file.seek(SeekFrom::Start(from)).map_err(refused)?;
        let body = Box::new(Bytes(file));
        Ok(Reply::Content(Content { from, size: Some(meta.len()), mark: Some(mark), body }))
    }
}

impl Body for Bytes {
    fn next(&mut self, cancel: &Cancel) -> Result<Option<Vec<u8>>, Trouble> {
        if cancel.requested() {
            return Err(Trouble::Cancelled);
        }
        let mut bytes = Vec::new();
        let read = self.0.by_ref().take(PIECE as u64).read_to_end(&mut bytes);
        read.map_err(|e| Trouble::Passing(e.to_string()))?;
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}
