//! The server's sockets: what listens, who is let in, and how long they may take.

use super::console::{Console, terminal};
use super::front::{Front, blocking};
use crate::context::{Cancel, Context};
use crate::error::{Code, Error, OrFail, Result};
use crate::record::network::NetworkName;
use crate::service::autoscaling::reconcile;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use terminal::MAX_TERMINALS;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Most open connections; others wait for one of them to end.
const MAX_CONNECTIONS: usize = 512;
/// Most actions at once.
const MAX_ACTIONS: usize = 32;
/// Most bytes of a request's body: a block of a snapshot and what is said of it.
const MAX_BODY: usize = 1 << 20;
/// The same of who is not known: such a request is read only to be refused.
const MAX_UNKNOWN: usize = 64 << 10;
/// Most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;
/// How long a client may take to begin and end a request's head, and be idle between two.
const HEAD: Duration = Duration::from_secs(20);
/// How long a body may take.
const BODY: Duration = Duration::from_secs(30);
/// How long what goes on is waited for at the end.
const DRAIN: Duration = Duration::from_secs(30);
/// How long terminals may take to end.
const LAST: Duration = Duration::from_secs(3);
/// How often it is looked whether to end.
const LOOK: Duration = Duration::from_millis(50);
/// How long nobody is let in where there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// What is to be served, and where.
pub struct Settings {
    /// The sockets, which listen.
    pub listener: Listener,
    /// The certificate's and the key's files, in PEM: TLS instead of plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The store's directory.
    pub home: PathBuf,
    /// On whose behalf, and what stops it.
    pub context: Context,
    /// The network of an instance for which none is named.
    pub network: Option<NetworkName>,
    /// The token of a link that opens the console, once.
    pub link: Option<String>,
    /// Is told a line of each answer.
    pub log: fn(&str),
}

/// A socket that listens.
pub enum Listener {
    /// Of TCP.
    Tcp(std::net::TcpListener),
    /// In the file system.
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// Listens at an address. The socket of a server that was killed is taken away.
    ///
    /// # Errors
    /// `InvalidParameterValue`: the address is taken, or none of this host.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind(address).map_err(|cause| {
            let why = format!("cannot listen at {address}: {cause}");
            let remedy = "give another by --listen, or end what has it";
            Error::refused(Code::InvalidParameterValue, why).remedy(remedy).because(cause)
        })?;
        Ok(Self::Tcp(listener))
    }

    /// Listens at a path, for the caller alone.
    ///
    /// # Errors
    /// `InvalidParameterValue`: somebody listens there, or it is something else.
    pub fn unix(path: &Path) -> Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        use std::os::unix::net::{UnixListener, UnixStream};
        let shown = path.display();
        let there = path.symlink_metadata().ok();
        if there.is_some_and(|there| there.file_type().is_socket())
            && UnixStream::connect(path).is_err()
        {
            std::fs::remove_file(path).or_fail(|| format!("remove {shown}"))?;
        }
        let listener = UnixListener::bind(path).map_err(|cause| {
            let why = format!("cannot listen at {shown}: {cause}");
            Error::refused(Code::InvalidParameterValue, why).because(cause)
        })?;
        Ok(Self::Unix(listener))
    }

    /// The socket that a service manager listens with. (sd_listen_fds(3))
    ///
    /// # Errors
    /// It is no stream socket.
    pub fn passed(fd: OwnedFd) -> Result<Self> {
        use rustix::net::{AddressFamily, sockopt::socket_domain};
        match socket_domain(&fd).or_fail(|| "look at the socket that was passed")? {
            AddressFamily::UNIX => Ok(Self::Unix(fd.into())),
            _ => Ok(Self::Tcp(fd.into())),
        }
    }

    /// What clients give as the endpoint: an address as a URL, or `unix:PATH`.
    pub fn endpoint(&self, tls: bool) -> String {
        let scheme = if tls { "https" } else { "http" };
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("{scheme}://{address}"),
                Err(_) => scheme.to_owned(),
            },
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                format!("unix:{}", path.unwrap_or(Path::new("")).display())
            }
        }
    }
}

/// Serves until it is cancelled. Then nobody is let in any more, and what goes on is waited for.
///
/// # Errors
/// The certificate or its key is none; there is no thread.
pub fn serve(settings: Settings) -> Result<()> {
    let tls = settings.tls.as_ref().map(|(cert, key)| acceptor(cert, key)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(MAX_ACTIONS)
        .build()
        .or_fail(|| "serve")?;
    let cancel = settings.context.cancel().clone();
    // What is begun is ended, and not cancelled.
    let context = settings.context.stopped_by(Cancel::default());
    let home = settings.home.clone();
    let front = Arc::new(Front::new(settings.home, context, settings.network));
    front.attend();
    let scaling = {
        let (home, context, cancel) = (home, front.context().clone(), cancel.clone());
        let thread = std::thread::Builder::new().name("auto scaling".into());
        thread.spawn(move || reconcile::run(&home, &context, &cancel)).or_fail(|| "serve")?
    };
    let served = LocalSet::new().block_on(&runtime, async {
        let console = Arc::new(Console::new(front.clone(), settings.link, tls.is_some()));
        let measured = console.clone();
        tokio::task::spawn_local(async move { measured.measure().await });
        let terminals = Arc::new(Semaphore::new(MAX_TERMINALS as usize));
        let host = Host { front: front.clone(), console, terminals, tls, log: settings.log };
        host.accept(settings.listener, &cancel).await
    });
    let deadline = Instant::now() + DRAIN;
    while !front.is_idle() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    runtime.shutdown_timeout(DRAIN);
    // It looks whether to end between two of its steps.
    let _ = scaling.join();
    served
}

#[derive(Clone)]
struct Host {
    front: Arc<Front>,
    console: Arc<Console>,
    /// A place for each.
    terminals: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
    log: fn(&str),
}

impl Host {
    async fn accept(self, listener: Listener, cancel: &Cancel) -> Result<()> {
        let doing = || "serve";
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut open = JoinSet::new();
        let listener = match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true).or_fail(doing)?;
                Accepting::Tcp(TcpListener::from_std(listener).or_fail(doing)?)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true).or_fail(doing)?;
                Accepting::Unix(UnixListener::from_std(listener).or_fail(doing)?)
            }
        };
        let (draining, drained) = watch::channel(false);
        while !cancel.requested() {
            let Ok(Ok(place)) = timeout(LOOK, room.clone().acquire_owned()).await else { continue };
            let Ok(accepted) = timeout(LOOK, listener.accept()).await else {
                while open.try_join_next().is_some() {}
                continue;
            };
            // The client has gone again, or there are no descriptors: neither is for ever.
            let Ok(stream) = accepted else {
                sleep(PAUSE).await;
                continue;
            };
            let (host, drained) = (self.clone(), drained.clone());
            open.spawn_local(async move {
                host.connection(stream, drained).await;
                drop(place);
            });
        }
        drop(listener);
        let _ = draining.send(true);
        let all = async { while open.join_next().await.is_some() {} };
        let _ = timeout(DRAIN, all).await;
        let _ = timeout(LAST, self.terminals.acquire_many(MAX_TERMINALS)).await;
        Ok(())
    }

    async fn connection(self, stream: Stream, drained: watch::Receiver<bool>) {
        let stream: Box<dyn Duplex> = match (stream, &self.tls) {
            (Stream::Tcp(stream), Some(tls)) => match timeout(HEAD, tls.accept(stream)).await {
                Ok(Ok(stream)) => Box::new(stream),
                // Who speaks no TLS here is let go.
                _ => return,
            },
            (Stream::Tcp(stream), None) => Box::new(stream),
            (Stream::Unix(stream), _) => Box::new(stream),
        };
        self.requests(stream, drained).await;
    }

    async fn requests(self, stream: Box<dyn Duplex>, mut drained: watch::Receiver<bool>) {
        let end = drained.clone();
        let service = service_fn(move |request: Request<_>| {
            let (host, end) = (self.clone(), end.clone());
            async move { Ok::<_, Infallible>(host.answer(request, end).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .half_close(false)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = drained.wait_for(|drained| *drained) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    async fn answer<B>(
        self,
        mut request: Request<B>,
        drained: watch::Receiver<bool>,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let begun = Instant::now();
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        if Console::is_for(&parts) && terminal::is_for(&parts) {
            return self.terminal(parts, upgrade, drained).await;
        }
        // A browser has no signature: its cookie says who it is.
        let caller = match Console::is_for(&parts) {
            true => None,
            false => Some(self.front.caller(&parts).await),
        };
        let most = if matches!(caller, Some(Ok(_))) { MAX_BODY } else { MAX_UNKNOWN };
        let read = timeout(BODY, Limited::new(body, most).collect()).await;
        let body = match read {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return refused(StatusCode::PAYLOAD_TOO_LARGE);
            }
            Ok(Err(_)) => return refused(StatusCode::BAD_REQUEST),
            Err(_) => return refused(StatusCode::REQUEST_TIMEOUT),
        };
        let Some(caller) = caller else {
            let console = self.console.clone();
            let answer = blocking(move || Ok(console.answer(&parts, &body))).await;
            return answer
                .map_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR), |a| a.map(Full::new));
        };
        let answered = self.front.answer(parts, body, caller).await;
        (self.log)(&format!(
            "{} {} {} ms",
            answered.action.as_deref().unwrap_or("-"),
            answered.code.map_or("ok", Code::as_str),
            begun.elapsed().as_millis()
        ));
        answered.response.map(Full::new)
    }

    /// The answer to who asks for a terminal, which goes on after it.
    async fn terminal(
        self,
        parts: Parts,
        upgrade: OnUpgrade,
        drained: watch::Receiver<bool>,
    ) -> Response<Full<Bytes>> {
        let Ok(place) = self.terminals.clone().try_acquire_owned() else {
            return refused(StatusCode::SERVICE_UNAVAILABLE);
        };
        let console = self.console.clone();
        let opened = blocking(move || Ok(console.terminal(&parts))).await;
        let Ok((response, terminal)) = opened else {
            return refused(StatusCode::INTERNAL_SERVER_ERROR);
        };
        if let Some(terminal) = terminal {
            tokio::task::spawn_local(async move {
                terminal.join(upgrade, drained).await;
                drop(place);
            });
        }
        response.map(Full::new)
    }
}

/// What is said to who sends what is no request of these services. The connection ends with it: the
/// rest of the body is not read.
fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Accepting {
    async fn accept(&self) -> std::io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// TLS with the certificate and the key in these files.
fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let wrong = |path: &Path, what: &str, cause: &dyn std::fmt::Display| {
        let why = format!("{} has no {what} in PEM: {cause}", path.display());
        Error::refused(Code::InvalidParameterValue, why)
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|cause| wrong(cert, "certificate", &cause))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|cause| wrong(key, "key", &cause))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| Error::failure(format!("cannot set TLS up: {cause}")))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|cause| wrong(cert, "certificate of that key", &cause))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
