//! Questions that are the host's resolvers': asked from the host's network, by sockets that were
//! opened there.

use super::pool::Pool;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream as StdTcp, UdpSocket as StdUdp};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// So many questions are asked over UDP at a time, and half as many over TCP.
const ASKERS: usize = 16;
/// How long a resolver is waited for. (resolv.conf(5), timeout)
const ANSWER: Duration = Duration::from_secs(3);
/// The longest answer.
const LONGEST: usize = 65_535;
/// Where resolvers listen. (RFC 1035, 4.2)
const PORT: u16 = 53;

/// Sockets on the host's network, not yet in anybody's care.
pub struct Sockets {
    udp: Vec<OwnedFd>,
    tcp: Vec<OwnedFd>,
    six: bool,
}

/// Who asks the host's resolvers.
#[derive(Debug)]
pub struct Askers {
    udp: Pool<UdpSocket>,
    tcp: Pool<OwnedFd>,
    /// Sockets are IPv6's, by which IPv4 is reached too.
    six: bool,
}

impl Sockets {
    /// Opens them on the network that the caller is on.
    ///
    /// # Errors
    /// Too many open files.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // A host may be without IPv6.
        let six = socket_with(AddressFamily::INET6, SocketType::DGRAM, flags, None).is_ok();
        let open = |kind, protocol| -> io::Result<OwnedFd> {
            let family = if six { AddressFamily::INET6 } else { AddressFamily::INET };
            let socket = socket_with(family, kind, flags, Some(protocol))?;
            if six {
                sockopt::set_ipv6_v6only(&socket, false)?;
            }
            Ok(socket)
        };
        let udp = (0..ASKERS).map(|_| open(SocketType::DGRAM, ipproto::UDP));
        let tcp = (0..ASKERS / 2).map(|_| open(SocketType::STREAM, ipproto::TCP));
        Ok(Self { udp: udp.collect::<Result<_, _>>()?, tcp: tcp.collect::<Result<_, _>>()?, six })
    }

    /// Has them ask.
    ///
    /// # Errors
    /// There is no runtime.
    pub fn askers(self) -> io::Result<Askers> {
        let asker = |fd: OwnedFd| UdpSocket::from_std(StdUdp::from(fd));
        let udp = self.udp.into_iter().map(asker).collect::<io::Result<_>>()?;
        Ok(Askers { udp: Pool::new(udp), tcp: Pool::new(self.tcp), six: self.six })
    }
}

impl Askers {
    /// A resolver's answer to a question, asked over TCP if `stream`.
    ///
    /// # Errors
    /// It can't be reached, or does not answer in time.
    pub async fn ask(
        &self,
        resolver: IpAddr,
        question: &[u8],
        stream: bool,
    ) -> io::Result<Vec<u8>> {
        let own = question.get(..2).ok_or(io::ErrorKind::InvalidInput)?;
        let to = self.address(resolver).ok_or(io::ErrorKind::Unsupported)?;
        // Whoever answers without having been asked has to guess it. (RFC 5452, 4.3)
        let mut anew = question.to_vec();
        rustix::rand::getrandom(&mut anew[..2], rustix::rand::GetRandomFlags::empty())?;
        let answer = async {
            match stream {
                true => over_tcp(self, to, &anew).await,
                false => over_udp(self, to, &anew).await,
            }
        };
        let mut answer = timeout(ANSWER, answer).await??;
        answer[..2].copy_from_slice(own);
        Ok(answer)
    }

    /// Where a resolver is, as these sockets have it; `None` if they can't reach it.
    fn address(&self, resolver: IpAddr) -> Option<SocketAddr> {
        let address = match resolver {
            IpAddr::V4(four) if self.six => four.to_ipv6_mapped().into(),
            IpAddr::V6(_) if !self.six => return None,
            other => other,
        };
        Some(SocketAddr::new(address, PORT))
    }
}

async fn over_udp(askers: &Askers, to: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let asker = askers.udp.lend().await.ok_or(io::ErrorKind::NotConnected)?;
    asker.send_to(question, to).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, from) = asker.recv_from(&mut buffer).await?;
        let asked = length >= 2 && buffer[..2] == question[..2];
        if asked && from.port() == to.port() && from.ip() == to.ip() {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

/// A socket's connection is over when this is, and it can be connected anew. (connect(2),
/// AF_UNSPEC)
async fn over_tcp(askers: &Askers, to: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let asker = askers.tcp.lend().await.ok_or(io::ErrorKind::NotConnected)?;
    // What a question that was given up has left.
    rustix::net::connect_unspec(&*asker)?;
    match rustix::net::connect(&*asker, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    // Watched from here on: of a socket that is not connected tokio would hear that it is closed.
    let mut stream = TcpStream::from_std(StdTcp::from(fcntl_dupfd_cloexec(&*asker, 3)?))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    drop(stream);
    rustix::net::connect_unspec(&*asker)?;
    match answer.len() >= 2 && answer[..2] == question[..2] {
        true => Ok(answer),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}
