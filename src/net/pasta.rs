//! The way out: pasta(1), which puts an interface into the network namespace and passes what comes
//! there by sockets of the host. It carries nothing that comes in.

use super::log::Log;
use crate::error::{OrFail, Result};
use crate::sys::namespace;
use crate::sys::process::{Fork, Process, fork};
use rustix::thread::CapabilitySet;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The interface in the namespace.
pub const UPLINK: &str = "up0";
/// Its address, and pasta's: such as no network of anybody's has. (RFC 7335)
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 252);
/// The same of IPv6, where EC2 has its own services: no network's range is there.
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 1, 0, 0, 0, 2);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 1, 0, 0, 0, 1);
/// The host's routes of IPv6. (linux/net/ipv6/route.c, rt6_info_route)
const ROUTES6: &str = "/proc/net/ipv6_route";
/// A route by which nothing goes: RTF_REJECT. (linux/route.h)
const REJECT: u32 = 0x200;
/// Most bytes of the routes that are looked at.
const MAX_ROUTES: u64 = 1 << 20;
/// What is waited for before the second start, and at most.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
/// One that has run for so long has not failed at its start.
const GOOD: Duration = Duration::from_secs(60);

/// A pasta that is started again when it ends.
#[derive(Debug)]
pub struct Pasta {
    /// A process that is in the network namespace, has what pasta may have, and can be looked at.
    holder: Process,
    /// The holder's number in /proc.
    number: u32,
    child: Option<Child>,
    begun: Instant,
    /// When it is started again.
    next: Option<Instant>,
    patience: Duration,
}

impl Pasta {
    /// Starts one for a network namespace.
    ///
    /// # Errors
    /// No more processes.
    pub fn start(network: BorrowedFd<'_>, log: &Log) -> Result<Self> {
        let (holder, number) = hold(network)?;
        let now = Instant::now();
        let mut pasta =
            Self { holder, number, child: None, begun: now, next: None, patience: FIRST };
        pasta.begin(log);
        Ok(pasta)
    }

    /// How long until it is to be looked at again, if nothing happens.
    pub fn timeout(&self) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    /// Looks whether it has ended, and starts it again when it is time.
    pub fn look(&mut self, log: &Log) {
        if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
            self.child = None;
            if self.begun.elapsed() > GOOD {
                self.patience = FIRST;
            }
            log.line(format_args!("pasta ended ({status}): open connections are lost"));
            self.later();
        }
        if self.next.is_some_and(|next| next <= Instant::now()) {
            self.next = None;
            self.begin(log);
        }
    }

    /// Ends it, for it has not made what it was asked for, as some do on a host without a default
    /// route. It is started again.
    pub fn again(&mut self, log: &Log) {
        if let Some(child) = &mut self.child {
            log.line(
                "there is no way out: pasta has given it another address than asked for; has the \
                 host a default route?",
            );
            let _ = child.kill();
        }
    }

    fn later(&mut self) {
        self.next = Some(Instant::now() + self.patience);
        self.patience = (self.patience * 2).min(LONGEST);
    }

    fn begin(&mut self, log: &Log) {
        let namespace = format!("/proc/{}/ns/net", self.number);
        let mut command = Command::new("pasta");
        command.args(["-f", "-q", "--config-net", "-I", UPLINK]);
        let text = |address: &dyn Display| address.to_string();
        command.args(["-a", &text(&ADDRESS), "-n", &text(&MASK), "-g", &text(&GATEWAY)]);
        // Of what the host has no route for pasta makes none, or refuses.
        match File::open(ROUTES6).is_ok_and(has_default_route) {
            true => command.args(["-a", &text(&ADDRESS6), "-g", &text(&GATEWAY6)]),
            false => command.arg("-4"),
        };
        // Nothing comes in by it, and the host's loopback is not reached through it.
        command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw"]);
        command.args(["--netns-only", "--netns", &namespace]);
        self.begun = Instant::now();
        match command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
            Ok(child) => self.child = Some(child),
            Err(cause) => {
                log.line(format_args!(
                    "there is no way out: cannot start pasta: {cause}; install it (package passt)"
                ));
                self.later();
            }
        }
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        self.holder.kill();
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
    }
}

/// Whether these routes of IPv6 have one to everywhere: prefix and its length are a route's first
/// two columns, flags and interface its last two.
fn has_default_route(routes: impl Read) -> bool {
    let mut text = String::new();
    let read = routes.take(MAX_ROUTES).read_to_string(&mut text);
    read.is_ok()
        && text.lines().any(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let [prefix, "00", .., flags, interface] = &columns[..] else { return false };
            let goes = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & REJECT == 0);
            goes && *interface != "lo" && prefix.bytes().all(|digit| digit == b'0')
        })
}

/// pasta opens /proc/NUMBER/ns/net, and may only if it could look at that process: it has the same
/// capabilities or more, and the process can be looked at. The worker can't.
fn hold(network: BorrowedFd<'_>) -> Result<(Process, u32)> {
    let doing = || "hold a network namespace";
    let (reader, writer) = std::io::pipe().or_fail(doing)?;
    match fork()? {
        Fork::Parent(holder) => {
            drop(writer);
            let mut text = String::new();
            reader.take(16).read_to_string(&mut text).or_fail(doing)?;
            Ok((holder, text.parse().or_fail(doing)?))
        }
        Fork::Child => {
            drop(reader);
            let number = enter(network);
            if let Ok(number) = number {
                let _ = (&writer).write_all(number.to_string().as_bytes());
                drop(writer);
                loop {
                    std::thread::park();
                }
            }
            crate::sys::fds::exit_now(1)
        }
    }
}

fn enter(network: BorrowedFd<'_>) -> Result<u32> {
    namespace::enter_network(network).or_fail(|| "enter a network namespace")?;
    let number = namespace::number_in_proc()?;
    namespace::keep_capabilities(CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE)?;
    namespace::be_seen();
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_a_route_of_ipv6_to_everywhere_has_a_way_out_by_it() {
        let route = |prefix: &str, length: &str, flags: &str, interface: &str| {
            let (prefix, zeros) = (format!("{prefix:0<32}"), "0".repeat(32));
            format!(
                "{prefix} {length} {zeros} 00 {zeros} 00000400 00000001 00000000 {flags} {interface:>8}\n"
            )
        };
        let own = route("fd", "40", "00000001", "eth0");
        for (routes, has) in [
            (own.clone(), false),
            (own.clone() + &route("", "00", "00200200", "lo"), false),
            (own.clone() + &route("", "00", "00000203", "eth0"), false),
            (route("2", "03", "00000003", "eth0"), false),
            (own + &route("", "00", "00000003", "eth0"), true),
            ("00 00\n\nx".into(), false),
        ] {
            assert_eq!(has_default_route(routes.as_bytes()), has, "{routes}");
        }
    }
}
