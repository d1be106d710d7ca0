//! DNS for one interface: over UDP, and over TCP where an answer is too long for that. (RFC 1035,
//! 4.2; RFC 7766)

use super::channel::{Answer, Ask};
use super::dns::{self, Reply};
use super::limit::Limit;
use super::shared::Shared;
use super::sockets::received;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Questions of an interface that are asked elsewhere at a time, and its connections.
const QUESTIONS: usize = 32;
/// A connection that has not asked for so long is over. (RFC 7766, 6.2.3)
const IDLE: Duration = Duration::from_secs(5);

/// What becomes of a question.
fn reply(shared: &Shared, question: &[u8], stream: bool) -> Reply {
    let reply = || shared.names.borrow().reply(shared.plan.cidr, question, stream);
    match catch_unwind(AssertUnwindSafe(reply)) {
        Ok(Reply::Forward) if shared.plan.isolated => dns::refusal(question),
        Ok(reply) => reply,
        Err(_) => Reply::Ignore,
    }
}

/// The answer of the host's resolvers.
async fn elsewhere(shared: &Shared, question: &[u8], stream: bool) -> Option<Vec<u8>> {
    let Ok(Answer::Resolvers(resolvers)) = shared.ask(&Ask::Resolvers).await else { return None };
    for resolver in resolvers {
        if let Ok(answer) = shared.askers.ask(resolver, question, stream).await {
            return Some(answer);
        }
    }
    None
}

/// Answers what comes to a socket.
pub async fn udp(shared: Rc<Shared>, socket: UdpSocket) {
    let socket = Rc::new(socket);
    let mut limit = Limit::new(500, 1000);
    let mut buffer = vec![0; dns::LONGEST];
    let mut asked = JoinSet::new();
    loop {
        let Some((length, from)) = received(&socket, &mut buffer).await else { continue };
        while asked.try_join_next().is_some() {}
        if !limit.allows() {
            continue;
        }
        let question = &buffer[..length];
        match reply(&shared, question, false) {
            Reply::Local(answer) => drop(socket.send_to(&answer, from).await),
            Reply::Forward if asked.len() < QUESTIONS => {
                let (shared, socket, question) =
                    (shared.clone(), socket.clone(), question.to_vec());
                asked.spawn_local(async move {
                    if let Some(answer) = elsewhere(&shared, &question, false).await {
                        let _ = socket.send_to(&answer, from).await;
                    }
                });
            }
            _ => {}
        }
    }
}

/// Answers who connects.
pub async fn tcp(shared: Rc<Shared>, listener: TcpListener) {
    let mut open = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        while open.try_join_next().is_some() {}
        if open.len() < QUESTIONS {
            let shared = shared.clone();
            open.spawn_local(async move {
                let _ = connection(&shared, stream).await;
            });
        }
    }
}

/// Answers one question after the other.
async fn connection(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let question = timeout(IDLE, async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length).min(dns::LONGEST)];
            stream.read_exact(&mut question).await.map(|_| question)
        });
        let question = question.await??;
        let answer = match reply(shared, &question, true) {
            Reply::Local(answer) => Some(answer),
            Reply::Forward => elsewhere(shared, &question, true).await,
            Reply::Ignore => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
