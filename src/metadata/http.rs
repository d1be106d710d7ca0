//! The HTTP server of an instance's metadata.
//!
//! A connection has one request, as on EC2, whose answers say `Connection: close`: what a guest
//! can keep open is bounded by time and number, and nothing else has to be.

use super::Metadata;
use super::answer::answer;
use super::token::Tokens;
use crate::record::metadata::Endpoint;
use futures_util::future::{AbortHandle, Abortable, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Most open connections: one more closes the oldest.
const MAX_CONNECTIONS: usize = 32;
/// Most bytes of a request's head, which is hyper's least.
const MAX_HEAD: usize = 8 << 10;
/// Most header lines of a request.
const MAX_HEADERS: usize = 64;
/// How long a guest may take to begin its request.
const FIRST_BYTE: Duration = Duration::from_secs(1);
/// How long a connection lasts.
const LIFE: Duration = Duration::from_secs(5);
/// How long nobody is let in where there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers who connects, from the newest of `metadata`, until it is dropped. The listener's
/// interface is who asks: it is bound to one instance's, and sends with that instance's hop limit.
/// `tokens` are the instance's: all of its listeners have the same.
pub async fn serve(
    listener: TcpListener,
    metadata: watch::Receiver<Arc<Metadata>>,
    tokens: Arc<Tokens>,
) {
    let ipv6 = listener.local_addr().is_ok_and(|address| address.is_ipv6());
    let mut open = FuturesUnordered::new();
    let mut handles = BTreeMap::new();
    let mut number = 0u64;
    loop {
        let accepted = match open.is_empty() {
            true => listener.accept().await,
            // Who is in comes before who wants in.
            false => match select(open.next(), pin!(listener.accept())).await {
                Either::Left((ended, _)) => {
                    handles.retain(|n, _| Some(*n) != ended);
                    continue;
                }
                Either::Right((accepted, _)) => accepted,
            },
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // The guest has gone again, or there are no descriptors: neither is for ever.
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        let now = metadata.borrow().clone();
        // As where nobody listens: to be refused would mean to cloud-init that there is none at
        // all, be it at the other address.
        if ipv6 && now.options.http_protocol_ipv6 == Endpoint::Disabled {
            continue;
        }
        if handles.len() >= MAX_CONNECTIONS
            && let Some((_, oldest)) = handles.pop_first()
        {
            let oldest: AbortHandle = oldest;
            oldest.abort();
        }
        let (handle, registration) = AbortHandle::new_pair();
        number += 1;
        handles.insert(number, handle);
        let (n, tokens) = (number, tokens.clone());
        open.push(async move {
            let _ = Abortable::new(connection(stream, now, tokens), registration).await;
            n
        });
    }
}

/// Answers one connection's request. A guest that does not ask in time, or not as HTTP has it, is
/// let go.
async fn connection(stream: TcpStream, metadata: Arc<Metadata>, tokens: Arc<Tokens>) {
    match timeout(FIRST_BYTE, stream.readable()).await {
        Ok(Ok(())) => {}
        _ => return,
    }
    let _ = stream.set_nodelay(true);
    request(stream, metadata, tokens).await;
}

/// Answers the one request of a stream.
pub async fn request<S>(stream: S, metadata: Arc<Metadata>, tokens: Arc<Tokens>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request: Request<_>| {
        // A body, which no request has, is not read.
        let answer = answer(&metadata, &tokens, &request.into_parts().0);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .title_case_headers(true)
        .half_close(true)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(LIFE, served).await;
}
