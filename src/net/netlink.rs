//! Interfaces, addresses and routes of the network namespace. (rtnetlink(7))

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour_table::{
    NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily as Family, RouteNetlinkMessage as Message};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// The groups whose messages tell that interfaces or their addresses change: RTMGRP_LINK and
/// RTMGRP_IPV4_IFADDR. (linux/rtnetlink.h)
const CHANGES: u32 = 1 | 0x10;
/// As much as the kernel gives at once. (netlink(7))
const BUFFER: usize = 32 << 10;
/// Most packets of an answer: a namespace has some thousand interfaces at most.
const MOST: usize = 10_000;

/// A socket to the kernel.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

/// A socket that can be read when interfaces or their addresses have changed. It does not block.
///
/// # Errors
/// Too many open files.
pub fn changes() -> io::Result<OwnedFd> {
    open(CHANGES, SocketFlags::NONBLOCK)
}

/// Throws away what has come to such a socket: whoever is told looks himself. What was lost changes
/// nothing.
///
/// # Errors
/// Those of recv(2): WouldBlock in the end.
pub fn drain(changes: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match recv(changes, &mut buffer[..], RecvFlags::empty()) {
            Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn open(groups: u32, flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    // NETLINK_ROUTE is 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    // From the kernel, and from no other process of the namespace.
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

impl Netlink {
    /// A new one.
    ///
    /// # Errors
    /// Too many open files.
    pub fn open() -> io::Result<Self> {
        open(0, SocketFlags::empty()).map(Self)
    }

    /// The number of the interface of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let found = self.ask(Message::GetLink(link), 0)?;
        let link = |message| match message {
            Message::NewLink(link) => Some(link.header.index),
            _ => None,
        };
        found.into_iter().find_map(link).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The names of all interfaces.
    ///
    /// # Errors
    /// Those of netlink.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let found = self.ask(Message::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let name = |message| match message {
            Message::NewLink(link) => link.attributes.into_iter().find_map(|attribute| {
                if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None }
            }),
            _ => None,
        };
        Ok(found.into_iter().filter_map(name).collect())
    }

    /// Whether the interface has this address of IPv4.
    ///
    /// # Errors
    /// Those of netlink.
    pub fn has_address(&self, index: u32, address: IpAddr) -> io::Result<bool> {
        let mut request = AddressMessage::default();
        request.header.family = Family::Inet;
        let found = self.ask(Message::GetAddress(request), NLM_F_DUMP)?;
        Ok(found.into_iter().any(|message| match message {
            Message::NewAddress(found) => {
                found.header.index == index
                    && found.attributes.contains(&AddressAttribute::Local(address))
            }
            _ => false,
        }))
    }

    /// Has the interface carry packets of up to so many bytes.
    ///
    /// # Errors
    /// It is gone, or can't carry such.
    pub fn set_up(&self, index: u32, mtu: Option<u32>) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.extend(mtu.map(LinkAttribute::Mtu));
        self.tell(Message::SetLink(link), 0)
    }

    /// Has so many packets wait for the interface at most.
    ///
    /// # Errors
    /// It is gone.
    pub fn set_queue(&self, index: u32, packets: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::TxQueueLen(packets));
        self.tell(Message::SetLink(link), 0)
    }

    /// Has the interface answer for others' addresses at once: usually it lets them speak first.
    /// (arp(7), proxy_delay)
    ///
    /// # Errors
    /// It is gone.
    pub fn answer_at_once(&self, index: u32) -> io::Result<()> {
        let mut table = NeighbourTableMessage::default();
        table.header.family = Family::Inet;
        let settings =
            vec![NeighbourTableParameter::Ifindex(index), NeighbourTableParameter::ProxyDelay(0)];
        table.attributes = vec![
            NeighbourTableAttribute::Name("arp_cache".into()),
            NeighbourTableAttribute::Parms(settings),
        ];
        self.tell(Message::SetNeighbourTable(table), 0)
    }

    /// Gives the interface an address; it may have it.
    ///
    /// # Errors
    /// It is gone.
    pub fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut request = AddressMessage::default();
        request.header.family = family(address);
        request.header.prefix_len = prefix;
        request.header.scope = AddressScope::Universe;
        request.header.index = index;
        request.attributes =
            vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        if address.is_ipv6() {
            // Nobody else can have it: it is usable at once.
            request.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.tell(Message::NewAddress(request), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Routes an address to an interface, and to no other any more.
    ///
    /// # Errors
    /// The interface is gone or down.
    pub fn add_route(&self, index: u32, address: IpAddr) -> io::Result<()> {
        let mut route = RouteMessage::default();
        route.header = RouteHeader {
            address_family: family(address),
            destination_prefix_length: if address.is_ipv4() { 32 } else { 128 },
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Static,
            scope: if address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe },
            kind: RouteType::Unicast,
            ..Default::default()
        };
        route.attributes =
            vec![RouteAttribute::Destination(address.into()), RouteAttribute::Oif(index)];
        self.tell(Message::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn tell(&self, message: Message, flags: u16) -> io::Result<()> {
        self.ask(message, flags | NLM_F_ACK).map(drop)
    }

    /// All that the kernel answers.
    fn ask(&self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        send(&self.0, &bytes, SendFlags::empty())?;
        let (mut buffer, mut found) = (vec![0; BUFFER], Vec::new());
        for _ in 0..MOST {
            let (length, _) =
                rustix::io::retry_on_intr(|| recv(&self.0, &mut buffer[..], RecvFlags::empty()))?;
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<Message>::deserialize(rest).map_err(io::Error::other)?;
                let length = (message.header.length as usize).next_multiple_of(4).max(1);
                rest = rest.get(length..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    _ => {}
                }
            }
            if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                return Ok(found);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Inet } else { Family::Inet6 }
}
