//! A server of files over HTTP whose manners a test chooses, and which counts what it sends.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes that are sent between two pauses.
const PIECE: usize = 64 << 10;

/// How a file is served.
#[derive(Clone)]
pub struct Manner {
    /// Whether parts can be asked for.
    pub ranges: bool,
    /// Between two pieces.
    pub pause: Option<Duration>,
    /// The connection dies after so many bytes, for the first `fail` answers.
    pub stop_after: Option<u64>,
    pub fail: u32,
    /// The length that is told in place of the true one.
    pub length: Option<u64>,
    /// This status and nothing else.
    pub status: Option<u16>,
    /// This place and nothing else.
    pub redirect: Option<String>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            ranges: true,
            pause: None,
            stop_after: None,
            fail: 0,
            length: None,
            status: None,
            redirect: None,
        }
    }
}

#[derive(Default)]
struct State {
    files: HashMap<String, Arc<Vec<u8>>>,
    manners: HashMap<String, Manner>,
    /// Bytes sent, and answers with a body, of each file.
    bytes: HashMap<String, u64>,
    bodies: HashMap<String, u32>,
    requests: u32,
}

/// The server. It ends with the test's process.
pub struct Files {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Files {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let served = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), served.clone());
                // Whoever asked may have heard enough.
                std::thread::spawn(move || serve(stream, &state).ok());
            }
        });
        Self { port, state }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// It has this file from now on.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.state.lock().unwrap().files.insert(path.into(), Arc::new(bytes.to_vec()));
    }

    /// The file is served so from now on, also to those that are being served.
    pub fn manner(&self, path: &str, manner: Manner) {
        self.state.lock().unwrap().manners.insert(path.into(), manner);
    }

    /// Bytes that it has sent of a file.
    pub fn bytes(&self, path: &str) -> u64 {
        self.state.lock().unwrap().bytes.get(path).copied().unwrap_or(0)
    }

    /// Answers that had something of a file.
    pub fn bodies(&self, path: &str) -> u32 {
        self.state.lock().unwrap().bodies.get(path).copied().unwrap_or(0)
    }

    /// Requests for anything.
    pub fn requests(&self) -> u32 {
        self.state.lock().unwrap().requests
    }
}

/// A request, as far as it matters here.
struct Request {
    path: String,
    head: String,
}

impl Request {
    fn read(stream: &TcpStream) -> std::io::Result<Self> {
        let mut head = Vec::new();
        let mut lines = BufReader::new(stream.try_clone()?);
        while !head.ends_with(b"\r\n\r\n") && lines.read_until(b'\n', &mut head)? > 0 {}
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        Ok(Self { path, head })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The first byte that is asked for.
    fn from(&self) -> Option<usize> {
        self.header("Range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

fn plain(stream: &mut TcpStream, status: &str, more: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n{more}\r\n")
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let request = Request::read(&stream)?;
    let (manner, file) = {
        let mut state = state.lock().unwrap();
        state.requests += 1;
        let manner = state.manners.get(&request.path).cloned().unwrap_or_default();
        (manner, state.files.get(&request.path).cloned())
    };
    if let Some(status) = manner.status {
        return plain(&mut stream, &format!("{status} No"), "Location: elsewhere:\r\n");
    }
    if let Some(to) = &manner.redirect {
        return plain(&mut stream, "302 Found", &format!("Location: {to}\r\n"));
    }
    let Some(file) = file else { return plain(&mut stream, "404 Not Found", "") };
    // Of what the file has: equal content has one tag.
    let sum =
        file.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let tag = format!("\"{sum:016x}\"");
    if request.header("If-None-Match") == Some(&tag) {
        return plain(&mut stream, "304 Not Modified", &format!("ETag: {tag}\r\n"));
    }
    let still = request.header("If-Range").is_none_or(|mark| mark == tag);
    let from = request.from().filter(|_| manner.ranges && still).unwrap_or(0);
    if from >= file.len() && from > 0 {
        return plain(&mut stream, "416 Range Not Satisfiable", "");
    }
    let size = file.len();
    let (status, range) = match from {
        0 => ("200 OK", String::new()),
        from => {
            ("206 Partial Content", format!("Content-Range: bytes {from}-{}/{size}\r\n", size - 1))
        }
    };
    let length = manner.length.unwrap_or((size - from) as u64);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nETag: {tag}\r\nContent-Length: {length}\r\n{range}\r\n"
    )?;
    send(&mut stream, state, &request.path, &file[from..], manner.stop_after)
}

/// Sends what is asked for, piece by piece, until the connection is to die.
fn send(
    stream: &mut TcpStream,
    state: &Mutex<State>,
    path: &str,
    bytes: &[u8],
    stop_after: Option<u64>,
) -> std::io::Result<()> {
    let dies = {
        let mut state = state.lock().unwrap();
        *state.bodies.entry(path.to_owned()).or_default() += 1;
        let manner = state.manners.get_mut(path).filter(|manner| manner.fail > 0);
        manner.map(|manner| manner.fail -= 1).is_some()
    };
    let mut sent = 0;
    for piece in bytes.chunks(PIECE) {
        if stop_after.is_some_and(|stop| dies && sent >= stop) {
            return Ok(());
        }
        stream.write_all(piece)?;
        sent += piece.len() as u64;
        let pause = {
            let mut state = state.lock().unwrap();
            *state.bytes.entry(path.to_owned()).or_default() += piece.len() as u64;
            state.manners.get(path).and_then(|manner| manner.pause)
        };
        if let Some(pause) = pause {
            std::thread::sleep(pause);
        }
    }
    Ok(())
}
