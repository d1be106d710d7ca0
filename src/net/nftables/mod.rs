//! nf_tables: tables, chains, rules and sets of the network namespace, in transactions.
//! (linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h)
//!
//! Nothing is read but whether it was done.

mod message;
mod rule;

use message::Message;
pub use message::Verdict;
pub use rule::{Rule, Side, interface_key};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with, sockopt,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Longest transaction in bytes: a socket sends 208 KiB at once, whoever has it.
/// (net.core.wmem_default)
const LONGEST: usize = 128 << 10;
/// The kernel answers at once; what it might not answer ends then.
const PATIENCE: Duration = Duration::from_secs(5);
/// As much as the kernel gives at once.
const BUFFER: usize = 32 << 10;
/// Most answers that are looked through: one for each message at most.
const MOST: usize = LONGEST / 20;

/// NFPROTO_INET: both families of addresses.
const INET: u8 = 1;
/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
/// NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;

/// Where packets are looked at. (nf_inet_hooks)
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// All that comes in.
    Prerouting = 0,
    /// What is for this namespace.
    Input = 1,
    /// What is passed on.
    Forward = 2,
    /// All that goes out.
    Postrouting = 4,
}

/// A key of a set. (NFTA_SET_KEY_TYPE: nft(8)'s numbers, by which it shows them.)
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// An address of IPv4.
    Address4,
    /// An address of IPv6.
    Address6,
    /// An interface's name.
    Interface,
    /// An interface's name and an address of IPv6.
    InterfaceAddress6,
}

impl Key {
    fn kind_and_length(self) -> (u32, u32) {
        match self {
            Self::Address4 => (7, 4),
            Self::Address6 => (8, 16),
            Self::Interface => (41, 16),
            Self::InterfaceAddress6 => ((41 << 6) | 8, 32),
        }
    }
}

/// A socket to the kernel, and what it is to do next.
#[derive(Debug)]
pub struct Tables {
    socket: OwnedFd,
    table: &'static str,
    sequence: u32,
    batch: Message,
    /// The last message of the batch begins there.
    last: usize,
}

impl Tables {
    /// Those of this network namespace, of which only `table` is touched.
    ///
    /// # Errors
    /// The kernel has no nf_tables; too many open files.
    pub fn open(table: &'static str) -> io::Result<Self> {
        let kind = SocketType::RAW;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        // From the kernel, and from no other process of the namespace.
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, table, sequence: 0, batch: Message::default(), last: 0 })
    }

    /// Makes the table anew, with nothing in it.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn renew(&mut self) -> io::Result<()> {
        // It is deleted only if it is there: so it is, before.
        for kind in [NEW_TABLE, DELETE_TABLE, NEW_TABLE] {
            self.add(kind, 0, |message, table| message.text(1, table))?;
        }
        Ok(())
    }

    /// A chain that packets come to by themselves. `nat`: it may change their addresses. `drop`:
    /// what it says nothing of is gone.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn hook(
        &mut self,
        chain: &str,
        hook: Hook,
        priority: i32,
        nat: bool,
        drop: bool,
    ) -> io::Result<()> {
        self.add(NEW_CHAIN, NLM_F_CREATE, |message, table| {
            message.text(1, table);
            message.text(3, chain);
            message.nest(4, |message| {
                message.number(1, hook as u32);
                message.number(2, priority.cast_unsigned());
            });
            message.number(5, u32::from(!drop));
            message.text(7, if nat { "nat" } else { "filter" });
        })
    }

    /// A chain that packets are sent to.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn chain(&mut self, chain: &str) -> io::Result<()> {
        self.add(NEW_CHAIN, NLM_F_CREATE, |message, table| {
            message.text(1, table);
            message.text(3, chain);
        })
    }

    /// Takes all rules out of a chain.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn clear(&mut self, chain: &str) -> io::Result<()> {
        self.add(DELETE_RULE, 0, |message, table| {
            message.text(1, table);
            message.text(2, chain);
        })
    }

    /// Deletes an empty chain that no packets are sent to.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn delete_chain(&mut self, chain: &str) -> io::Result<()> {
        self.add(DELETE_CHAIN, 0, |message, table| {
            message.text(1, table);
            message.text(3, chain);
        })
    }

    /// A rule at a chain's end.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn rule(&mut self, chain: &str, rule: &Rule) -> io::Result<()> {
        self.add(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |message, table| {
            message.text(1, table);
            message.text(2, chain);
            message.nest(4, |message| message.0.extend_from_slice(&rule.0.0));
        })
    }

    /// A set of keys; with `verdicts`, each has one.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn set(&mut self, set: &str, key: Key, verdicts: bool) -> io::Result<()> {
        let id = self.sequence;
        self.add(NEW_SET, NLM_F_CREATE, |message, table| {
            let (kind, length) = key.kind_and_length();
            message.text(1, table);
            message.text(2, set);
            message.number(3, if verdicts { SET_MAP } else { 0 });
            message.number(4, kind);
            message.number(5, length);
            if verdicts {
                message.number(6, DATA_VERDICT);
            }
            message.number(10, id);
            if let Key::Interface = key {
                message.attribute(13, &BY_THE_HOSTS_BYTES);
            }
        })
    }

    /// Deletes a set that no rule asks any more.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn delete_set(&mut self, set: &str) -> io::Result<()> {
        self.add(DELETE_SET, 0, |message, table| {
            message.text(1, table);
            message.text(2, set);
        })
    }

    /// Puts a key into a set.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn element(
        &mut self,
        set: &str,
        key: &[u8],
        verdict: Option<Verdict<'_>>,
    ) -> io::Result<()> {
        self.add(NEW_ELEMENT, NLM_F_CREATE, |message, table| {
            message.text(1, table);
            message.text(2, set);
            message.nest(3, |message| {
                message.nest(1, |message| {
                    message.data(1, key);
                    if let Some(verdict) = verdict {
                        message.verdict(2, verdict);
                    }
                });
            });
        })
    }

    /// Takes a key out of a set.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn delete_element(&mut self, set: &str, key: &[u8]) -> io::Result<()> {
        self.add(DELETE_ELEMENT, 0, |message, table| {
            message.text(1, table);
            message.text(2, set);
            message.nest(3, |message| message.nest(1, |message| message.data(1, key)));
        })
    }

    /// Adds a message to the transaction; one that has become long is committed.
    fn add(
        &mut self,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Message, &str),
    ) -> io::Result<()> {
        if self.batch.0.len() > LONGEST {
            self.commit()?;
        }
        if self.batch.0.is_empty() {
            self.begin(BEGIN, NLM_F_REQUEST, 0, SUBSYSTEM);
        }
        self.last = self.batch.0.len();
        let kind = SUBSYSTEM << 8 | kind;
        self.begin(kind, NLM_F_REQUEST | flags, INET, 0);
        let table = self.table;
        fill(&mut self.batch, table);
        self.end(self.last);
        Ok(())
    }

    /// nlmsghdr and nfgenmsg.
    fn begin(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let start = self.batch.0.len();
        let bytes = &mut self.batch.0;
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[family, 0]);
        bytes.extend_from_slice(&resource.to_be_bytes());
        self.end(start);
    }

    /// Writes the length of the message that begins at `start`.
    fn end(&mut self, start: usize) {
        let length = u32::try_from(self.batch.0.len() - start).unwrap_or(u32::MAX);
        self.batch.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Does what was added, or nothing of it.
    ///
    /// # Errors
    /// The kernel lacks a part of nf_tables; something was not as it has to be.
    pub fn commit(&mut self) -> io::Result<()> {
        if self.batch.0.is_empty() {
            return Ok(());
        }
        // The answer to the last one is the answer to all.
        let flags = self.last + 6;
        let asked = u16::from_ne_bytes([self.batch.0[flags], self.batch.0[flags + 1]]);
        self.batch.0[flags..flags + 2].copy_from_slice(&(asked | NLM_F_ACK).to_ne_bytes());
        let last = word(&self.batch.0, self.last + 8);
        let first = word(&self.batch.0, 8);
        self.begin(END, NLM_F_REQUEST, 0, SUBSYSTEM);
        let batch = std::mem::take(&mut self.batch);
        send(&self.socket, &batch.0, SendFlags::empty())?;
        self.hear(first, last)
    }

    /// Reads answers until one is to the first message, which fails for all, or to the last.
    fn hear(&self, first: Option<u32>, last: Option<u32>) -> io::Result<()> {
        let (mut buffer, mut failed) = (vec![0; BUFFER], None);
        for _ in 0..MOST {
            let received = rustix::io::retry_on_intr(|| {
                recv(&self.socket, &mut buffer[..], RecvFlags::empty())
            });
            let length = match received {
                Ok((length, _)) => length,
                Err(error) => return Err(failed.unwrap_or_else(|| error.into())),
            };
            let mut rest = &buffer[..length.min(BUFFER)];
            // nlmsghdr, the code of nlmsgerr, and the header that it is about.
            while let (Some(length), Some(kind)) = (word(rest, 0), word(rest, 4)) {
                let about = word(rest, 28);
                let code = word(rest, 16).map_or(0, u32::cast_signed);
                if kind & 0xffff == u32::from(NLMSG_ERROR) && about >= first {
                    if code != 0 && failed.is_none() {
                        failed = Some(io::Error::from_raw_os_error(-code));
                    }
                    if about == last || (about == first && code != 0) {
                        return failed.map_or(Ok(()), Err);
                    }
                }
                let length = (length as usize).next_multiple_of(4).max(16);
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.get(..4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
/// Has nft(8) show names: libnftnl's NFTNL_UDATA_SET_KEYBYTEORDER, of four bytes, which says 1.
const BY_THE_HOSTS_BYTES: [u8; 6] = [0, 4, 1, 0, 0, 0];
/// NFT_SET_MAP, and NFT_DATA_VERDICT.
const SET_MAP: u32 = 8;
const DATA_VERDICT: u32 = 0xffff_ff00;
