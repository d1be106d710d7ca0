//! A registry and a bucket that answer with the input.

use sporevm::context::Context;
use sporevm::transfer::region::{Location, Region};
use sporevm::transfer::remote::Remote;
use sporevm::transfer::provide;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Answers of the input's that a server gives in a run; then nothing is there.
const ANSWERS: usize = 12;

/// What is answered: pieces of the input between lines of dashes, in turn; and how many were given.
static SCRIPT: Mutex<(Vec<Vec<u8>>, usize)> = Mutex::new((Vec::new(), 0));

fn script() -> MutexGuard<'static, (Vec<Vec<u8>>, usize)> {
    SCRIPT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; 8192];
    let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(2)));
    let _ = stream.read(&mut request);
    let body = {
        let mut script = script();
        script.1 += 1;
        let given = script.1;
        match script.0.len() {
            len if given <= ANSWERS => script.0[(given - 1) % len].clone(),
            // An end that no client tries again after.
            _ => b"!".to_vec(),
        }
    };
    let (status, body) = match body.first() {
        Some(b'!') => ("404 Not Found", &body[1..]),
        _ => ("200 OK", &body[..]),
    };
    let kind = if body.starts_with(b"<") { "application/xml" } else { "application/vnd.oci.image.manifest.v1+json" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

/// The registry and the bucket. To make a client takes longer than all that is asked by it.
fn regions() -> &'static [Remote; 2] {
    static REGIONS: OnceLock<[Remote; 2]> = OnceLock::new();
    REGIONS.get_or_init(|| {
        let context = Context::default().with_extension(Some(provide::provided()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
        let places = [
            format!("oci://127.0.0.1:{port}/team/images"),
            format!("s3://images?endpoint=http://127.0.0.1:{port}&region=here"),
        ];
        places.map(|place| {
            let endpoint: Location = place.parse().unwrap();
            Remote::open(&context, &Region { region_name: "fuzz".into(), endpoint }).unwrap()
        })
    })
}

/// List images and snapshots, and look one up.
pub fn drive(data: &[u8]) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (which, data) = super::number(data);
    let mut pieces = vec![Vec::new()];
    for line in data.split_inclusive(|&byte| byte == b'\n') {
        match line {
            b"---\n" => pieces.push(Vec::new()),
            line => pieces.last_mut().unwrap().extend(line),
        }
    }
    *script() = (pieces, 0);
    let remote = &regions()[usize::from(which & 1)];
    let result = match which >> 1 & 3 {
        0 => remote.probe(),
        1 => remote.images().map(drop),
        2 => remote.snapshots().map(drop),
        _ => remote.resolve("ami-0123456789abcdef0").map(drop),
    };
    if let Err(error) = result {
        assert!(!error.message().contains('\n'), "{error}");
    }
}

/// Tags and a manifest, and a bucket's listing.
pub fn seeds() -> Vec<Vec<u8>> {
    let tags = br#"{"name":"team/images","tags":["ami-0123456789abcdef0","latest"]}"#;
    let manifest = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.spore.package.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
    let listing = br#"<?xml version="1.0"?><ListBucketResult><Name>images</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated><Contents><Key>images/ami-0123456789abcdef0</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"a"</ETag><Size>2</Size></Contents></ListBucketResult>"#;
    let with = |which: u8, pieces: &[&[u8]]| [&[which][..], &pieces.join(&b"\n---\n"[..])].concat();
    vec![
        with(0, &[tags]),
        with(2, &[b"{}", tags, b"{}", manifest, b"{}"]),
        with(6, &[b"{}", manifest, b"{}"]),
        with(1, &[listing]),
        with(3, &[listing, b"{}"]),
        with(2, &[b"!{}"]),
    ]
}
