//! A file that is an object of a bucket.

use super::s3::Bucket;
use super::watched::watched;
use crate::context::Cancel;
use crate::error::{Code, Result};
use crate::transfer::download::transport::{Ask, Body, Content, Reply, Transport, Trouble};
use crate::transfer::region::S3Location;
use crate::transfer::remote::backend::Fault;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::{Error as S3Error, GetOptions, GetRange};
use tokio::runtime::Runtime;

/// An object.
pub(super) struct Object {
    bucket: Bucket,
    key: String,
    runtime: Runtime,
}

type Pieces = BoxStream<'static, object_store::Result<Vec<u8>>>;

struct Bytes<'a> {
    stream: Pieces,
    runtime: &'a Runtime,
}

impl Object {
    /// # Errors
    /// The client can't be set up.
    pub(super) fn open(location: &S3Location, runtime: Runtime) -> Result<Self> {
        let key = location.prefix.clone();
        let bucket = Bucket::open(&S3Location { prefix: String::new(), ..location.clone() })?;
        Ok(Self { bucket, key, runtime })
    }
}

impl Transport for Object {
    fn get(&self, ask: Ask<'_>, cancel: &Cancel) -> Result<Reply<'_>, Trouble> {
        let options = |ask: Ask<'_>| GetOptions {
            range: (ask.from > 0).then_some(GetRange::Offset(ask.from)),
            if_match: ask.if_still.map(str::to_owned),
            if_none_match: ask.unless_still.map(str::to_owned),
            ..GetOptions::default()
        };
        let get = |ask| watched(&self.runtime, cancel, self.bucket.object(&self.key, options(ask)));
        let object = match get(ask)? {
            Err(S3Error::NotModified { .. }) => return Ok(Reply::Unchanged),
            // It is another file than the one of which a part is there.
            Err(S3Error::Precondition { .. }) if ask.from > 0 => get(Ask::default())?,
            object => object,
        };
        let object = object.map_err(|error| match Fault::from(error) {
            Fault::Absent => Trouble::Final(Code::Unavailable, "there is no such object".into()),
            Fault::Denied(why) => Trouble::Final(Code::AuthFailure, why),
            Fault::Failed(why) => Trouble::Passing(why),
        })?;
        let (from, size, mark) = (object.range.start, object.meta.size, object.meta.e_tag.clone());
        let stream = object.into_stream().map(|piece| piece.map(|bytes| bytes.to_vec())).boxed();
        let body = Box::new(Bytes { stream, runtime: &self.runtime });
        Ok(Reply::Content(Content { from, size: Some(size), mark, body }))
    }
}

impl Body for Bytes<'_> {
    fn next(&mut self, cancel: &Cancel) -> Result<Option<Vec<u8>>, Trouble> {
        let piece = watched(self.runtime, cancel, self.stream.next())?;
        piece.transpose().map_err(|error| Trouble::Passing(error.to_string()))
    }
}
