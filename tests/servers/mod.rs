//! Servers on loopback that tests of remote regions talk to: Debian's docker-registry, moto's S3,
//! and a proxy that dies.
#![allow(dead_code)] // each test binary that shares this uses its part

pub mod files;

use super::common::skip::skip;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A server process, ended when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    /// Where it keeps what it has.
    pub dir: TempDir,
}

impl Server {
    fn start(mut command: Command, port: u16, dir: TempDir) -> Self {
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = Self { child: command.spawn().unwrap(), port, dir };
        for _ in 0..1200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            if let Some(status) = server.child.try_wait().unwrap() {
                let log = fs::read_to_string(server.dir.path().join("log")).unwrap();
                panic!("the server ended: {status}: {log}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the server does not answer");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's docker-registry.
pub fn registry() -> Option<Server> {
    let binary = Path::new("/usr/bin/docker-registry");
    if !binary.exists() {
        skip("docker-registry is missing: apt install docker-registry");
        return None;
    }
    let (port, dir) = (free_port(), TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let root = dir.path().join("data");
    let config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        root.display()
    );
    let path = dir.path().join("config.yml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(binary);
    command.arg("serve").arg(path);
    Some(Server::start(command, port, dir))
}

/// Sizes of what a registry has of at least `least` bytes.
pub fn blobs(server: &Server, least: u64) -> usize {
    fn count(dir: &Path, least: u64) -> usize {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let of = |path: PathBuf| match path.is_dir() {
            true => count(&path, least),
            false => usize::from(path.ends_with("data") && path.metadata().unwrap().len() >= least),
        };
        entries.map(|entry| of(entry.path())).sum()
    }
    count(&server.dir.path().join("data/docker/registry/v2/blobs"), least)
}

/// Have a registry remove what no tag leads to, as its operator does.
pub fn collect_garbage(server: &Server) {
    let mut command = Command::new("/usr/bin/docker-registry");
    command
        .args(["garbage-collect", "--delete-untagged"])
        .arg(server.dir.path().join("config.yml"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// moto's S3, from PyPI, in a virtual environment under target/, with a bucket `images`.
pub fn s3() -> Option<Server> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto-venv");
    let python = venv.join("bin/python3");
    let works = || Command::new(&python).args(["-c", "import moto.server, flask"]).output();
    let lock = fs::File::create(venv.with_extension("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if !works().is_ok_and(|output| output.status.success()) {
        let _ = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).output();
        let install = ["-m", "pip", "install", "-q", "moto[s3,server]"];
        let installed = Command::new(&python).args(install).output();
        if !installed.is_ok_and(|output| output.status.success()) {
            skip("moto is missing: python3 -m venv and pip have to work");
            return None;
        }
    }
    drop(lock);
    let (port, dir) = (free_port(), TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let mut command = Command::new(python);
    command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    let server = Server::start(command, port, dir);
    assert!(request(port, "PUT", "/images", b"").starts_with("HTTP/1.1 200"));
    Some(server)
}

/// A plain HTTP request; what comes back.
pub fn request(port: u16, method: &str, path: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Passes bytes to a server and back until it has passed as many as it may: then it is as if the
/// server had died.
pub struct Proxy {
    pub port: u16,
    left: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

impl Proxy {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let allowed = left.clone();
        let requests = Arc::<AtomicU64>::default();
        let asked = requests.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if allowed.load(Ordering::SeqCst) == 0 {
                    continue;
                }
                let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", target)));
                let server = server.unwrap();
                let unheard = Arc::default();
                for (from, to, heard) in [(&client, &server, &asked), (&server, &client, &unheard)]
                {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (allowed, heard) = (allowed.clone(), heard.clone());
                    std::thread::spawn(move || pass(from, to, &allowed, &heard));
                }
            }
        });
        Self { port, left, requests }
    }

    /// Requests for something that have passed.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Pass so many bytes more.
    pub fn allow(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    /// How many it may still pass.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, left: &AtomicU64, requests: &AtomicU64) {
    let mut buffer = [0; 1 << 14];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        if buffer[..count].starts_with(b"GET ") || buffer[..count].starts_with(b"HEAD ") {
            requests.fetch_add(1, Ordering::SeqCst);
        }
        let take = |left: u64| Some(left.saturating_sub(count as u64));
        let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).unwrap();
        if count == 0 || before <= count as u64 || to.write_all(&buffer[..count]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}
