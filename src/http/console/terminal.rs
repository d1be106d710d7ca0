//! An instance's serial line in a page: a WebSocket whose messages are the line's bytes, both ways.
//! (RFC 6455)
//!
//! What is shown is read from the instance's log, in which the VMM has it before it passes it on:
//! nothing is shown twice, and a browser that is too slow is shown the end.

use super::session;
use crate::error::{Error, OrFail, Result};
use crate::http::front::{Front, blocking};
use crate::service::console::SerialLine;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, COOKIE, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

/// What is spoken; after it the browser names its session's forms' token, which no other place has.
const PROTOCOL: &str = "spore-console";
/// Most terminals at once.
pub const MAX_TERMINALS: u32 = 64;
/// Most bytes of a message of a browser's.
const MAX_MESSAGE: usize = 64 << 10;
/// Most bytes of a message to a browser, and of what was said before that it is shown.
const PIECE: u64 = 64 << 10;
/// How far behind a browser may be before it is shown the end.
const MAX_BEHIND: u64 = 512 << 10;
/// How long a browser may take to take a message.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether the session lasts, and the browser is seen to be there.
const LOOK: Duration = Duration::from_secs(10);
/// How long the last word to a browser may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Whether a request is for a terminal.
pub fn is_for(parts: &Parts) -> bool {
    parts.headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// A terminal that a browser may have.
pub struct Terminal {
    front: Arc<Front>,
    cookies: String,
    line: SerialLine,
}

/// How it ended.
#[derive(Clone, Copy)]
enum End {
    /// The VM did.
    Machine,
    /// The browser has gone, or is too slow.
    Browser,
    /// The session did.
    Session,
    /// The service does.
    Service,
}

/// Opens the terminal that a request asks for. `None`: the session is none, or not this page's.
///
/// # Errors
/// The instance does not run, or is not there; the request is no WebSocket's.
pub fn open(
    front: &Arc<Front>,
    parts: &Parts,
    id: &str,
) -> Result<Option<(Response<Bytes>, Terminal)>> {
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let cookies = text(COOKIE).unwrap_or_default();
    let named = text(SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    let brought = named.split_once(',').filter(|(protocol, _)| protocol.trim() == PROTOCOL);
    // A browser says where the page is from, whatever the page wants.
    let (Some((_, csrf)), Some(_)) = (brought, text(ORIGIN)) else { return Ok(None) };
    let session = session::of(front, cookies)?;
    if !session.is_some_and(|session| session::is_same(&session.csrf, csrf.trim())) {
        return Ok(None);
    }
    let asked = Request::from_parts(parts.clone(), ());
    let mut response = create_response_with_body(&asked, Bytes::new)
        .map_err(|cause| Error::usage(format!("the request opens no terminal: {cause}")))?;
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let line = front.open("AttachConsole")?.serial_line(id)?;
    line.stream.set_nonblocking(true).or_fail(|| "open a terminal")?;
    let terminal = Terminal { front: front.clone(), cookies: cookies.to_owned(), line };
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    Ok(Some((response, terminal)))
}

impl Terminal {
    /// Joins the browser to the line until one of them, the session or the service ends.
    pub async fn join(self, upgrade: OnUpgrade, drained: watch::Receiver<bool>) {
        let Ok(Ok(upgraded)) = timeout(PATIENCE, upgrade).await else { return };
        let Ok(line) = UnixStream::from_std(self.line.stream) else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(0)
            .max_write_buffer_size(4 * PIECE as usize)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let (mut to, from) = socket.split();
        let log = Log { file: Arc::new(self.line.log), at: self.line.start };
        let heard = Heard::default();
        let end = {
            let said = pin!(heard.listen(&line));
            let shown = pin!(show(log, &heard, &mut to));
            let typed = pin!(type_in(from, &line));
            let lasted = pin!(last(&self.front, &self.cookies, drained));
            tokio::select! {
                end = shown => end,
                end = typed => end,
                end = lasted => end,
                never = said => never,
            }
        };
        let (code, reason) = match end {
            End::Machine => (4000, "the instance has ended"),
            End::Session => (4001, "the session has ended"),
            End::Service => (CloseCode::Away.into(), "the service ends"),
            End::Browser => (CloseCode::Normal.into(), ""),
        };
        let last = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let _ = timeout(FAREWELL, to.send(Message::Close(Some(last)))).await;
    }
}

/// That the guest has said something, or says nothing more.
#[derive(Default)]
struct Heard {
    more: Notify,
    over: std::cell::Cell<bool>,
}

impl Heard {
    /// Takes what the VMM passes on, so that it need not wait; the log has it.
    async fn listen(&self, line: &UnixStream) -> End {
        let mut chunk = [0; 16 << 10];
        while !self.over.get() {
            let read = match line.readable().await {
                Ok(()) => line.try_read(&mut chunk),
                Err(error) => Err(error),
            };
            match read {
                Ok(count) if count > 0 => {}
                Err(error) if is_again(&error) => continue,
                _ => self.over.set(true),
            }
            self.more.notify_one();
        }
        // What is in the log is shown first.
        std::future::pending().await
    }
}

fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// What a guest has said.
#[derive(Clone)]
struct Log {
    file: Arc<File>,
    /// The byte that is shown next.
    at: u64,
}

impl Log {
    /// The next piece; empty at the end. What is too much is passed over, or was cut off.
    fn read(mut self) -> io::Result<(Self, Vec<u8>)> {
        let end = self.file.metadata()?.len();
        if self.at > end || end - self.at > MAX_BEHIND {
            self.at = end.saturating_sub(PIECE);
        }
        let mut piece = vec![0; usize::try_from(PIECE.min(end - self.at)).unwrap_or_default()];
        let count = self.file.read_at(&mut piece, self.at)?;
        piece.truncate(count);
        self.at += count as u64;
        Ok((self, piece))
    }
}

/// Shows what is in the log, and what comes into it.
async fn show(
    mut log: Log,
    heard: &Heard,
    to: &mut (impl Sink<Message, Error = tungstenite::Error> + Unpin),
) -> End {
    loop {
        // Seen before the log is: what comes in between is read once more.
        let over = heard.over.get();
        let read = log.clone();
        let Ok((next, piece)) = blocking(move || read.read().or_fail(|| "read the log")).await
        else {
            return End::Machine;
        };
        log = next;
        match (piece.is_empty(), over) {
            (true, true) => return End::Machine,
            (true, false) => {
                if timeout(LOOK, heard.more.notified()).await.is_err()
                    && sent(to, Message::Ping(Bytes::new())).await.is_none()
                {
                    return End::Browser;
                }
            }
            (false, _) => {
                if sent(to, Message::Binary(piece.into())).await.is_none() {
                    return End::Browser;
                }
            }
        }
    }
}

async fn sent(
    to: &mut (impl Sink<Message, Error = tungstenite::Error> + Unpin),
    message: Message,
) -> Option<()> {
    timeout(PATIENCE, to.send(message)).await.ok()?.ok()
}

/// Types what the browser sends.
async fn type_in(
    mut from: impl Stream<Item = std::result::Result<Message, tungstenite::Error>> + Unpin,
    line: &UnixStream,
) -> End {
    while let Some(Ok(message)) = from.next().await {
        let typed = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return End::Browser,
            _ => continue,
        };
        let mut rest = &typed[..];
        while !rest.is_empty() {
            // The guest takes it as it can, and the browser waits for that.
            let wrote = match line.writable().await {
                Ok(()) => line.try_write(rest),
                Err(error) => Err(error),
            };
            match wrote {
                Ok(count) => rest = &rest[count..],
                Err(error) if is_again(&error) => {}
                // That it ended is seen where it is listened to.
                Err(_) => return std::future::pending().await,
            }
        }
    }
    End::Browser
}

/// Waits for the end of the session, or of the service.
async fn last(front: &Arc<Front>, cookies: &str, mut drained: watch::Receiver<bool>) -> End {
    loop {
        tokio::select! {
            _ = drained.wait_for(|drained| *drained) => return End::Service,
            () = sleep(LOOK) => {}
        }
        let (front, cookies) = (front.clone(), cookies.to_owned());
        let session = blocking(move || session::of(&front, &cookies)).await;
        if !matches!(session, Ok(Some(_))) {
            return End::Session;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_on_and_a_long_one_from_near_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before|hello").unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let (log, piece) = Log { file, at: 7 }.read().unwrap();
        assert_eq!(piece, b"hello");
        std::fs::write(&path, "before|hello, world").unwrap();
        let (log, piece) = log.read().unwrap();
        assert_eq!(piece, b", world");
        assert!(log.clone().read().unwrap().1.is_empty());
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let (log, piece) = log.read().unwrap();
        assert_eq!((log.at, piece.len() as u64), (1 << 20, PIECE));
        // The VMM has cut it.
        file.set_len(3).unwrap();
        assert_eq!(log.read().unwrap().1, b"bef");
    }
}
