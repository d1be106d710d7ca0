//! What a guest sends to its metadata service.

use sporevm::metadata::http::request;
use sporevm::metadata::token::Tokens;
use sporevm::metadata::{Metadata, MetadataOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// No answer has as much: the longest leaf, and a head.
const LONGEST: usize = 32 << 10;

fn metadata() -> Metadata {
    let leaves = [
        ("meta-data/instance-id", "i-00000000000000001"),
        ("meta-data/placement/region", "local-1"),
        ("meta-data/public-keys/", "0=mine"),
        ("user-data", "#cloud-config"),
    ];
    let leaves = leaves.map(|(path, leaf)| (path.to_owned(), leaf.into())).into();
    Metadata { options: MetadataOptions::default(), leaves }
}

/// Answers the input as the bytes of one connection, which the guest then half closes.
pub fn drive(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut guest, server) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    // A socket's buffer has room for that.
    guest.write_all(&data[..data.len().min(64 << 10)]).unwrap();
    guest.shutdown(std::net::Shutdown::Write).unwrap();
    let tokens = Arc::new(Tokens::generate().unwrap());
    runtime.block_on(async {
        let server = tokio::net::UnixStream::from_std(server).unwrap();
        request(server, Arc::new(metadata()), tokens).await;
    });
    let mut answer = Vec::new();
    guest.read_to_end(&mut answer).unwrap_or_default();
    assert!(answer.len() < LONGEST);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
}

/// Requests that are answered.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "GET /latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
        "GET /2021-03-23/meta-data/public-keys/0%3Dmine HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
        "GET /latest/user-data HTTP/1.0\r\nX-aws-ec2-metadata-token: AAAAAAAAAAAAAAAA\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
