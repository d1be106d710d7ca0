//! Clients that are none: the service answers within its bounds, and lives.

use super::{Served, common::Store, common::venv, script};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn connect(served: &Served) -> TcpStream {
    let address = served.endpoint.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// What is answered to these bytes; nothing if the connection is closed.
fn answer(served: &Served, bytes: &[u8]) -> String {
    let mut stream = connect(served);
    // It may be closed before all is read.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_not_signed_gets_nothing() {
    let store = Store::new();
    let served = Served::new(&store, &["--network", "none"]);
    let post = |head: &str, body: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}");
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let action = "Action=DescribeInstances&Version=2016-11-15";
    let scope = "AWS4-HMAC-SHA256 Credential=AKIAAAAAAAAAAAAAAAAA/20260101/local-1/ec2/aws4_request, \
                 SignedHeaders=host, Signature=00";
    for (request, code) in [
        (post("", action), "AuthFailure"),
        (post("Authorization: Basic eDp4\r\n", action), "AuthFailure"),
        (post("Authorization: AWS4-HMAC-SHA256 Credential=x\r\n", action), "AuthFailure"),
        (
            post(&format!("Authorization: {scope}\r\nX-Amz-Date: 20200101T000000Z\r\n"), action),
            "RequestExpired",
        ),
        (post(&format!("Authorization: {scope}\r\nX-Amz-Date: now\r\n"), action), "AuthFailure"),
        (format!("GET /?{action} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "AuthFailure"),
        (
            "DELETE /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            "AuthFailure",
        ),
    ] {
        let answer = answer(&served, request.as_bytes());
        assert!(answer.contains(&format!("<Code>{code}</Code>")), "{request}: {answer}");
    }
    // What is no HTTP is not answered in XML either.
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..], b"nonsense\r\n\r\n", &[b'a'; 1 << 20]]
    {
        let answer = answer(&served, bytes);
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    assert_eq!(served.end().0, Some(0));
}

#[test]
fn bodies_and_connections_are_bounded() {
    let store = Store::new();
    let served = Served::new(&store, &["--network", "none"]);
    let mut large = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n".to_vec();
    large.resize(large.len() + (10 << 20), b'a');
    let refused = answer(&served, &large);
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 413 "), "{refused}");
    // Those who say nothing keep nobody out for long: it answers while they are there.
    let idle: Vec<TcpStream> = (0..400).map(|_| connect(&served)).collect();
    let get = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(answer(&served, get.as_bytes()).contains("AuthFailure"));
    let mut slow = connect(&served);
    slow.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nA").unwrap();
    assert!(answer(&served, get.as_bytes()).contains("AuthFailure"));
    let memory =
        std::fs::read_to_string(format!("/proc/{}/status", served.pid().as_raw_nonzero())).unwrap();
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100 << 10, "{peak} KiB");
    drop((idle, slow));
}

/// Parameters of every kind, signed as they should be.
#[test]
fn signed_nonsense_is_refused_by_its_code() {
    let store = Store::new();
    let served = Served::new(&store, &["--network", "none"]);
    if venv::python().is_some() {
        script(&served, &store, "nonsense.py", &[]);
    }
}

#[test]
fn where_others_could_listen_it_wants_tls() {
    let store = Store::new();
    let refused = store.spore(&["serve", "--listen", "0.0.0.0:0"]);
    let err = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{err}");
    assert!(err.contains("--tls-cert") && err.trim_end().lines().count() == 1, "{err}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = store.spore(&["serve", "--listen", &address]);
    let err = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{err}");
    assert!(err.contains(&address) && err.trim_end().lines().count() == 1, "{err}");
}

/// A socket in the file system, and TLS.
#[test]
fn it_listens_where_it_is_told() {
    let store = Store::new();
    let socket = store.home().join("api.sock");
    let listen = format!("unix:{}", socket.display());
    for _ in 0..2 {
        let served = Served::at(&store, &listen, &["--network", "none"]);
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("AuthFailure"), "{answer}");
        // The next one finds the socket of one that was killed.
        drop(served);
    }
    let pem = |name: &str| store.home().join(name).to_string_lossy().into_owned();
    let (cert, key) = (pem("cert.pem"), pem("key.pem"));
    let make =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    let more = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", &cert, "-keyout", &key];
    let made = std::process::Command::new("openssl").args(make).args(more).output().unwrap();
    assert!(made.status.success());
    let served =
        Served::new(&store, &["--network", "none", "--tls-cert", &cert, "--tls-key", &key]);
    assert!(served.endpoint.starts_with("https://"));
    let curl = std::process::Command::new("curl")
        .args(["-s", "--cacert", &cert, &served.endpoint])
        .output()
        .unwrap();
    let answer = String::from_utf8_lossy(&curl.stdout).into_owned();
    assert!(answer.contains("AuthFailure"), "{answer}");
}
