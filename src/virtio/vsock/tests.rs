use super::handler::MAX_CONNECTIONS;
use super::messages::BUF_ALLOC;
use super::packet::*;
use super::testing::Host;
use super::*;
use crate::plan::NOTIFY_PORT;
use crate::virtio::conformance_tests::{DEVICES, Guest, Over, within};
use crate::virtio::testing::*;
use rustix::io::Errno;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use vm_memory::{Bytes, GuestAddress};

/// Bytes of data that a receive buffer has room for.
const ROOM: u32 = 4096;
const RX: u64 = BUFFERS;
const TX: u64 = BUFFERS + 0x8000;

/// A guest whose driver gives one buffer for each packet that it expects.
struct Driven {
    guest: Guest,
    drivers: Vec<Driver>,
    host: Host,
    device: Arc<Vsock>,
}

impl Driven {
    fn new() -> Self {
        Self::with(u64::MAX)
    }

    /// One whose driver takes these features alone.
    fn with(features: u64) -> Self {
        let (host, device, services) = Host::new();
        let row = DEVICES.iter().find(|row| (row.make)().0.kind() == &TYPE).unwrap();
        let made = (device.clone() as Arc<dyn Device>, services, Box::new(|| ()) as Box<dyn Fn()>);
        let guest = Guest::with(row, made, Over::Mmio);
        let drivers = guest.start_with(features);
        Self { guest, drivers, host, device }
    }

    /// The next packet to the guest.
    fn receive(&mut self) -> (Header, Vec<u8>) {
        let driver = &mut self.drivers[usize::from(RECEIVE)];
        driver.chain(0, &[(RX, HEADER as u32 + ROOM, true)]);
        driver.offer(0);
        self.guest.notify(RECEIVE);
        let mut used = Vec::new();
        assert!(within(|| {
            used = driver.used();
            !used.is_empty()
        }));
        let mut bytes = vec![0; used[0].1 as usize];
        self.guest.ram.read_slice(&mut bytes, GuestAddress(RX)).unwrap();
        let (header, data) = bytes.split_first_chunk().unwrap();
        let header = Header::from_bytes(header);
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, GUEST_CID));
        assert_eq!(header.len as usize, data.len());
        (header, data.to_vec())
    }

    /// A packet of the guest's.
    fn send(&mut self, header: Header, data: &[u8]) {
        let header = Header { len: data.len() as u32, ..header };
        let bytes = [&header.to_bytes()[..], data].concat();
        self.guest.ram.write_slice(&bytes, GuestAddress(TX)).unwrap();
        let driver = &mut self.drivers[usize::from(SEND)];
        driver.chain(
            0,
            &[(TX, HEADER as u32, false), (TX + HEADER as u64, data.len() as u32, false)],
        );
        driver.offer(0);
        self.guest.notify(SEND);
        assert!(within(|| !driver.used().is_empty()));
    }

    /// As [`Self::connected`], of SOCK_SEQPACKET.
    fn connected_by_messages(&mut self, buf_alloc: u32) -> (OwnedFd, Header) {
        let socket = self.host.say_message("CONNECT 22");
        let (request, _) = self.receive();
        assert_eq!((request.op, request.dst_port, request.kind), (op::REQUEST, 22, 2));
        let header = Header { buf_alloc, op: op::RESPONSE, ..request.refusal() };
        self.send(header, &[]);
        assert_eq!(message(&socket), format!("OK {}\n", request.src_port).as_bytes());
        (socket, Header { op: op::RW, ..header })
    }

    /// A connection that a program of the host's has begun, and the header of the guest's packets.
    fn connected(&mut self, buf_alloc: u32) -> (UnixStream, Header) {
        let mut stream = self.host.say("CONNECT 22\n").unwrap();
        let (request, _) = self.receive();
        assert_eq!((request.op, request.dst_port, request.kind), (op::REQUEST, 22, 1));
        assert_eq!(request.buf_alloc, BUF_ALLOC);
        let header = Header { buf_alloc, op: op::RESPONSE, ..request.refusal() };
        self.send(header, &[]);
        assert_eq!(line(&mut stream), format!("OK {}", request.src_port));
        (stream, header)
    }
}

/// A message that is there, or comes.
fn message(socket: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; BUF_ALLOC as usize];
    let mut len = 0;
    assert!(within(|| match rustix::io::read(socket, &mut bytes) {
        Ok(count) => {
            len = count;
            true
        }
        Err(error) => {
            assert_eq!(error, Errno::AGAIN);
            false
        }
    }));
    bytes.truncate(len);
    bytes
}

fn line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn is_closed(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

#[test]
fn a_program_of_the_hosts_talks_to_one_of_the_guests() {
    let mut driven = Driven::new();
    let (mut stream, header) = driven.connected(1 << 16);
    stream.write_all(b"hello").unwrap();
    let (packet, data) = driven.receive();
    assert_eq!((packet.op, &*data), (op::RW, &b"hello"[..]));
    driven.send(Header { op: op::RW, ..header }, b"world");
    let mut world = [0; 5];
    stream.read_exact(&mut world).unwrap();
    assert_eq!(&world, b"world");
    // One direction after the other is over.
    stream.shutdown(Shutdown::Write).unwrap();
    let (packet, _) = driven.receive();
    assert_eq!((packet.op, packet.flags), (op::SHUTDOWN, NO_SEND));
    driven.send(Header { op: op::RW, ..header }, b"!");
    assert_eq!(stream.read(&mut world).unwrap(), 1);
    driven.send(Header { op: op::SHUTDOWN, flags: NO_SEND | NO_RECEIVE, ..header }, &[]);
    assert!(is_closed(&mut stream));
    assert_eq!(driven.receive().0.op, op::RST);
}

#[test]
fn a_program_that_goes_is_told_to_the_guest() {
    let mut driven = Driven::new();
    let (stream, _) = driven.connected(1 << 16);
    drop(stream);
    assert_eq!(driven.receive().0.flags, NO_SEND);
    let (packet, _) = driven.receive();
    assert_eq!((packet.op, packet.flags), (op::SHUTDOWN, NO_SEND | NO_RECEIVE));
    // One that goes before the guest has answered never was.
    drop(driven.host.say("CONNECT 22\n").unwrap());
    assert_eq!(driven.receive().0.op, op::REQUEST);
    assert_eq!(driven.receive().0.op, op::RST);
}

#[test]
fn the_guest_gets_no_more_than_it_has_room_for() {
    let mut driven = Driven::new();
    let (mut stream, header) = driven.connected(6);
    stream.write_all(b"twelve bytes").unwrap();
    assert_eq!(driven.receive().1, b"twelve");
    assert_eq!(driven.receive().0.op, op::CREDIT_REQUEST);
    driven.send(Header { op: op::CREDIT_UPDATE, fwd_cnt: 5, ..header }, &[]);
    assert_eq!(driven.receive().1, b" byte");
    assert_eq!(driven.receive().0.op, op::CREDIT_REQUEST);
    // A room that can't be: more has left it than came.
    driven.send(Header { op: op::CREDIT_UPDATE, fwd_cnt: 90, ..header }, &[]);
    driven.send(Header { op: op::CREDIT_REQUEST, fwd_cnt: 11, ..header }, &[]);
    let (packet, _) = driven.receive();
    assert_eq!((packet.op, packet.buf_alloc, packet.fwd_cnt), (op::CREDIT_UPDATE, BUF_ALLOC, 0));
    assert_eq!(driven.receive().1, b"s");
}

#[test]
fn a_guest_that_sends_more_than_there_is_room_for_loses_its_connection() {
    let mut driven = Driven::new();
    let (mut stream, header) = driven.connected(1 << 16);
    let chunk: Vec<u8> = (0..8192u32).map(|n| n as u8).collect();
    let mut sent = 0u32;
    let mut forwarded = 0;
    // Until the host's end takes nothing more, and then as much as was promised.
    let rw = Header { op: op::RW, ..header };
    while sent - forwarded < BUF_ALLOC {
        driven.send(rw, &chunk);
        sent += 8192;
        driven.send(Header { op: op::CREDIT_REQUEST, ..header }, &[]);
        let (mut packet, _) = driven.receive();
        while packet.fwd_cnt < forwarded {
            packet = driven.receive().0;
        }
        forwarded = packet.fwd_cnt;
        assert!(sent < 16 << 20, "it takes everything");
    }
    driven.send(Header { op: op::RW, ..header }, b"x");
    let mut last = driven.receive().0;
    while last.op == op::CREDIT_UPDATE {
        last = driven.receive().0;
    }
    assert_eq!(last.op, op::RST);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.chunks(8192).all(|piece| *piece == chunk[..piece.len()]), "in order");
}

#[test]
fn what_a_slow_reader_has_not_read_is_not_lost_when_the_guest_ends() {
    let mut driven = Driven::new();
    let (mut stream, header) = driven.connected(1 << 16);
    let rw = Header { op: op::RW, ..header };
    for _ in 0..40 {
        driven.send(rw, &[7; 8192]);
    }
    driven.send(Header { op: op::SHUTDOWN, flags: NO_SEND | NO_RECEIVE, ..header }, &[]);
    driven.send(Header { op: op::RST, ..header }, &[]);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 40 * 8192);
}

#[test]
fn what_belongs_to_no_connection_is_refused() {
    let mut driven = Driven::new();
    let from_guest = Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: 5,
        dst_port: 6,
        kind: Kind::Stream as u16,
        ..Header::default()
    };
    for header in [
        Header { op: op::REQUEST, ..from_guest },
        Header { op: op::RW, ..from_guest },
        Header { op: op::REQUEST, kind: 2, dst_port: NOTIFY_PORT, ..from_guest },
        Header { op: op::REQUEST, kind: 3, dst_port: NOTIFY_PORT, ..from_guest },
        Header { op: op::REQUEST, dst_cid: 7, dst_port: NOTIFY_PORT, ..from_guest },
        Header { op: 99, ..from_guest },
    ] {
        driven.send(header, &[]);
        let driver = &mut driven.drivers[usize::from(RECEIVE)];
        driver.chain(0, &[(RX, HEADER as u32 + ROOM, true)]);
        driver.offer(0);
        driven.guest.notify(RECEIVE);
        assert!(within(|| !driver.used().is_empty()));
        let mut bytes = [0; HEADER];
        driven.guest.ram.read_slice(&mut bytes, GuestAddress(RX)).unwrap();
        assert_eq!(Header::from_bytes(&bytes), header.refusal());
    }
    // Nobody answers a reset, or a stranger.
    driven.send(Header { op: op::RST, ..from_guest }, &[]);
    driven.send(Header { op: op::RW, src_cid: 9, ..from_guest }, &[]);
    let (_stream, header) = driven.connected(1 << 16);
    // What a connection is not there for ends it.
    driven.send(Header { op: op::RESPONSE, ..header }, &[]);
    assert_eq!(driven.receive().0.op, op::RST);
}

#[test]
fn a_program_of_the_guests_reaches_who_listens() {
    let mut driven = Driven::new();
    let mut gone = driven.host.say("LISTEN 80\n").unwrap();
    let mut other = driven.host.say("LISTEN 81\n").unwrap();
    let mut listener = driven.host.say("LISTEN 80\n").unwrap();
    let request = Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: 1234,
        dst_port: 80,
        kind: Kind::Stream as u16,
        op: op::REQUEST,
        buf_alloc: 1 << 16,
        ..Header::default()
    };
    // They are let in when there is a buffer: one is answered by each of these.
    let (_client, _) = driven.connected(1 << 16);
    assert_eq!(line(&mut gone), "OK 80");
    assert_eq!(line(&mut other), "OK 81");
    assert_eq!(line(&mut listener), "OK 80");
    drop(gone);
    driven.send(request, &[]);
    assert_eq!(driven.receive().0.op, op::RESPONSE);
    driven.send(Header { op: op::RW, ..request }, b"GET /");
    assert_eq!(line(&mut listener), "ACCEPT 1234");
    let mut bytes = [0; 5];
    listener.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"GET /");
    // It was there once.
    driven.send(Header { src_port: 1235, ..request }, &[]);
    assert_eq!(driven.receive().0.op, op::RST);
}

#[test]
fn what_the_guests_service_manager_says_is_remembered_until_a_reset() {
    let mut driven = Driven::new();
    let message = Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: 1,
        dst_port: NOTIFY_PORT,
        kind: Kind::Stream as u16,
        op: op::REQUEST,
        buf_alloc: 1 << 16,
        ..Header::default()
    };
    driven.send(message, &[]);
    assert_eq!(driven.receive().0.op, op::RESPONSE);
    driven.send(Header { op: op::RW, ..message }, b"READY=1\nX_SYSTEMD_");
    driven.send(Header { op: op::RW, ..message }, b"HOSTNAME=web\n");
    assert!(driven.device.notified().is_empty(), "it is not over");
    // systemd says that this was all, and waits for the end of the other direction.
    driven.send(Header { op: op::SHUTDOWN, flags: NO_SEND, ..message }, &[]);
    let (packet, _) = driven.receive();
    assert_eq!((packet.op, packet.flags), (op::SHUTDOWN, NO_SEND | NO_RECEIVE));
    driven.send(Header { op: op::SHUTDOWN, flags: NO_SEND | NO_RECEIVE, ..message }, &[]);
    assert_eq!(driven.receive().0.op, op::RST);
    let said: Vec<_> = driven.device.notified().into_iter().collect();
    let expected = [("READY", "1"), ("X_SYSTEMD_HOSTNAME", "web")];
    assert_eq!(said, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let state = driven.device.save();
    driven.guest.set_status(0);
    assert!(driven.device.notified().is_empty());
    driven.device.restore(&state).unwrap();
    assert_eq!(driven.device.notified().len(), 2);
}

#[test]
fn a_reset_ends_connections_and_a_restored_driver_is_told() {
    let mut driven = Driven::new();
    let (mut stream, _) = driven.connected(1 << 16);
    driven.drivers = driven.guest.start();
    assert!(is_closed(&mut stream));
    let (mut stream, header) = driven.connected(1 << 16);
    driven.device.lose_connections();
    let driver = &mut driven.drivers[usize::from(EVENT)];
    driver.chain(0, &[(TX, 4, true)]);
    driver.offer(0);
    driven.guest.notify(EVENT);
    assert!(within(|| driver.used() == [(0, 4)]));
    // VIRTIO_VSOCK_EVENT_TRANSPORT_RESET is 0.
    assert_eq!(driven.guest.ram.read_obj::<u32>(GuestAddress(TX)).unwrap(), 0);
    driven.send(Header { op: op::RST, ..header }, &[]);
    assert!(is_closed(&mut stream));
}

#[test]
fn a_guest_that_answers_nothing_has_so_many_connections_and_no_more() {
    let mut driven = Driven::new();
    let (mut first, _) = driven.connected(1 << 16);
    let mut streams = Vec::new();
    for _ in 1..MAX_CONNECTIONS {
        streams.push(driven.host.say("CONNECT 22\n").unwrap());
        assert_eq!(driven.receive().0.op, op::REQUEST);
    }
    let mut refused = driven.host.say("CONNECT 22\n").unwrap();
    // It is looked at when there is a buffer.
    first.write_all(b"x").unwrap();
    assert_eq!(driven.receive().0.op, op::RW);
    assert!(is_closed(&mut refused));
    streams.pop();
    assert_eq!(driven.receive().0.op, op::RST);
    let _accepted = driven.host.say("CONNECT 22\n").unwrap();
    assert_eq!(driven.receive().0.op, op::REQUEST);
}

#[test]
fn packets_that_are_none_stop_the_device() {
    for (data, len) in [(0, 10), (8, 9)] {
        let mut driven = Driven::new();
        let driver = &mut driven.drivers[usize::from(SEND)];
        let header = Header { len, ..Header::default() };
        driven.guest.ram.write_slice(&header.to_bytes(), GuestAddress(TX)).unwrap();
        driver.chain(0, &[(TX, HEADER as u32 + data, false)]);
        driver.offer(0);
        driven.guest.notify(SEND);
        assert!(within(|| !driven.guest.reported.lock().unwrap().is_empty()));
        let reported = driven.guest.reported.lock().unwrap()[0].clone();
        assert!(reported.contains("shorter than its header says"), "{reported}");
    }
}

#[test]
fn messages_go_both_ways_whole() {
    let mut driven = Driven::new();
    let (socket, header) = driven.connected_by_messages(1 << 16);
    let large: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    rustix::io::write(&socket, &large).unwrap();
    rustix::io::write(&socket, b"small").unwrap();
    for (part, flags) in large.chunks(ROOM as usize).zip([0, 0, END_OF_MESSAGE]) {
        let (packet, data) = driven.receive();
        assert_eq!((packet.op, packet.flags, packet.kind, &*data), (op::RW, flags, 2, part));
    }
    let (packet, data) = driven.receive();
    assert_eq!((packet.flags, &*data), (END_OF_MESSAGE, &b"small"[..]));
    driven.send(header, b"hel");
    let mut bytes = [0; 16];
    assert_eq!(rustix::io::read(&socket, &mut bytes), Err(Errno::AGAIN), "it is not whole");
    let end = Header { flags: END_OF_MESSAGE, ..header };
    driven.send(end, b"lo");
    driven.send(end, b"world");
    assert_eq!((message(&socket), message(&socket)), (b"hello".to_vec(), b"world".to_vec()));
    // One direction after the other is over; what is half of a message is none.
    rustix::net::shutdown(&socket, rustix::net::Shutdown::Write).unwrap();
    assert_eq!(driven.receive().0.op, op::SHUTDOWN);
    driven.send(header, b"half");
    driven.send(Header { op: op::SHUTDOWN, flags: NO_SEND | NO_RECEIVE, ..header }, &[]);
    assert_eq!(message(&socket), b"");
    assert_eq!(driven.receive().0.op, op::RST);
}

#[test]
fn a_message_waits_for_the_guests_room_and_one_that_never_has_any_ends_its_connection() {
    let mut driven = Driven::new();
    let (socket, header) = driven.connected_by_messages(6);
    for text in [&b"four"[..], b"five."] {
        rustix::io::write(&socket, text).unwrap();
    }
    assert_eq!(driven.receive().1, b"four");
    let (packet, data) = driven.receive();
    assert_eq!((packet.flags, &*data), (0, &b"fi"[..]));
    assert_eq!(driven.receive().0.op, op::CREDIT_REQUEST);
    driven.send(Header { op: op::CREDIT_UPDATE, fwd_cnt: 4, ..header }, &[]);
    let (packet, data) = driven.receive();
    assert_eq!((packet.flags, &*data), (END_OF_MESSAGE, &b"ve."[..]));
    driven.send(Header { op: op::CREDIT_UPDATE, fwd_cnt: 9, ..header }, &[]);
    rustix::io::write(&socket, b"seven..").unwrap();
    assert_eq!(driven.receive().0.op, op::RST);
    assert_eq!(message(&socket), b"");
}

/// A guest whose message fits waits for room as often as it likes: it is told of it.
#[test]
fn a_guest_in_the_middle_of_a_message_hears_of_room() {
    let mut driven = Driven::new();
    let (socket, header) = driven.connected_by_messages(1 << 16);
    let (mut sent, mut forwarded) = (0u32, 0u32);
    let chunk = [7; 8192];
    for size in [40 << 10, BUF_ALLOC, 56 << 10, BUF_ALLOC] {
        let mut left = size;
        while left > 0 {
            while BUF_ALLOC - (sent - forwarded) == 0 {
                let (packet, _) = driven.receive();
                assert_eq!(packet.op, op::CREDIT_UPDATE);
                forwarded = packet.fwd_cnt;
            }
            let len = left.min(8192).min(BUF_ALLOC - (sent - forwarded));
            left -= len;
            sent += len;
            let flags = if left == 0 { END_OF_MESSAGE } else { 0 };
            driven.send(Header { flags, ..header }, &chunk[..len as usize]);
        }
        assert_eq!(message(&socket).len(), size as usize);
    }
}

#[test]
fn a_program_of_the_guests_reaches_who_listens_for_messages() {
    let mut driven = Driven::new();
    let listener = driven.host.say_message("LISTEN 80\n");
    let _client = driven.connected(1 << 16);
    assert_eq!(message(&listener), b"OK 80\n");
    let stream = Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: 1234,
        dst_port: 80,
        kind: Kind::Stream as u16,
        op: op::REQUEST,
        buf_alloc: 1 << 16,
        ..Header::default()
    };
    // Not by a stream.
    driven.send(stream, &[]);
    assert_eq!(driven.receive().0, stream.refusal());
    let request = Header { kind: Kind::Seqpacket as u16, ..stream };
    driven.send(request, &[]);
    assert_eq!(driven.receive().0.op, op::RESPONSE);
    assert_eq!(message(&listener), b"ACCEPT 1234\n");
    // Its ports are taken for streams, too, and a stream's packet is none of it.
    for op in [op::REQUEST, op::RW, op::RESPONSE] {
        driven.send(Header { op, ..stream }, &[]);
        assert_eq!(driven.receive().0, stream.refusal());
    }
    driven.send(Header { op: op::RW, flags: END_OF_MESSAGE, ..request }, b"hello");
    assert_eq!(message(&listener), b"hello");
}

#[test]
fn a_driver_that_knows_no_messages_has_none() {
    let mut driven = Driven::with(!F_SEQPACKET);
    let refused = driven.host.say_message("CONNECT 22");
    let request = Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        kind: Kind::Seqpacket as u16,
        op: op::REQUEST,
        ..Header::default()
    };
    driven.send(request, &[]);
    assert_eq!(driven.receive().0, request.refusal());
    // Who came is looked at when there is a buffer.
    let _client = driven.connected(1 << 16);
    assert_eq!(message(&refused), b"");
}
