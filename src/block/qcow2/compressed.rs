//! Compressed clusters. ("Compressed Clusters Descriptor")

use super::{Compression, corrupt};
use flate2::{Decompress, FlushDecompress};
use std::io::{self, Read};

/// Unpack exactly one cluster from `packed`, which may have bytes of its neighbours at the end.
///
/// # Errors
/// `InvalidData` if it does not yield `cluster_size` bytes.
pub(crate) fn unpack(
    packed: &[u8],
    cluster_size: usize,
    compression: Compression,
) -> io::Result<Box<[u8]>> {
    let mut cluster = vec![0; cluster_size].into_boxed_slice();
    let complete = match compression {
        Compression::Deflate => {
            let mut inflate = Decompress::new(false);
            let done = inflate.decompress(packed, &mut cluster, FlushDecompress::Finish);
            done.is_ok() && inflate.total_out() == cluster_size as u64
        }
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(packed);
            decoder.and_then(|d| d.single_frame().read_exact(&mut cluster)).is_ok()
        }
    };
    if complete { Ok(cluster) } else { Err(corrupt("a compressed cluster does not unpack")) }
}
