//! Packets through an interface, by a driver that keeps the rules and by one that does not.

use super::testing::*;
use super::*;
use crate::plan::{NetLimits, Rate};
use crate::sys::tap::{HEADER, offload};
use crate::virtio::conformance_tests::{DEVICES, Guest, Over, core, within};
use crate::virtio::feature;
use crate::virtio::testing::*;
use std::sync::Arc;
use std::sync::Mutex;
use vm_memory::{Bytes, GuestAddress};

/// An interface in a guest, and what is at the other end of its port.
struct Bench {
    guest: Guest,
    net: Arc<Net>,
    peer: Peer,
    offloads: Arc<Mutex<Vec<u32>>>,
    drivers: Vec<Driver>,
}

const EVERYTHING: u64 = u64::MAX;
/// Where test packets of the guest's are.
const SENT: u64 = BUFFERS + 0x4_0000;

fn bench_with(features: u64, unknown: u32, limits: NetLimits) -> Bench {
    let row = DEVICES.iter().find(|row| (row.make)().0.kind() == &TYPE).unwrap();
    let (mut port, peer) = socket();
    port.unknown = unknown;
    let offloads = port.offloads.clone();
    let (net, services) = net(port, limits, notices().0);
    let guest = Guest::with(row, (net.clone(), services, Box::new(|| ())), Over::Pci);
    let drivers = guest.start_with(features);
    Bench { guest, net, peer, offloads, drivers }
}

fn bench(features: u64) -> Bench {
    bench_with(features, 0, NetLimits::default())
}

impl Bench {
    /// Posts receive buffers of `len` bytes as descriptors `heads`.
    fn post(&mut self, heads: std::ops::Range<u16>, len: u32) {
        for head in heads {
            let at = BUFFERS + 0x1000 * u64::from(head);
            self.drivers[0].chain(head, &[(at, len, true)]);
            self.drivers[0].offer(head);
        }
        self.guest.notify(RECEIVE);
    }

    /// Sends a packet in two pieces by descriptors `head` and the next.
    fn send(&mut self, head: u16, header: [u8; HEADER], frame: &[u8]) {
        let at = SENT + 0x4000 * u64::from(head / 2);
        let packet = [&header[..], frame].concat();
        self.guest.ram.write_slice(&packet, GuestAddress(at)).unwrap();
        let cut = 20.min(packet.len() as u32);
        let rest = packet.len() as u32 - cut;
        let pieces = [(at, cut, false), (at + u64::from(cut), rest, false)];
        self.drivers[1].chain(head, &pieces[..if rest == 0 { 1 } else { 2 }]);
        self.drivers[1].offer(head);
        self.guest.notify(SEND);
    }

    /// The next packet at the other end.
    fn arrived(&self) -> Vec<u8> {
        let mut packet = None;
        assert!(within(|| {
            packet = packet.take().or_else(|| self.peer.receive());
            packet.is_some()
        }));
        packet.unwrap()
    }

    /// So many buffers that come back, with their lengths.
    fn used(&mut self, queue: usize, count: usize) -> Vec<(u32, u32)> {
        let mut used = Vec::new();
        assert!(within(|| {
            used.extend(self.drivers[queue].used());
            used.len() >= count
        }));
        assert_eq!(used.len(), count, "{used:?}");
        used
    }

    fn bytes(&self, head: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let at = GuestAddress(BUFFERS + 0x1000 * u64::from(head));
        self.guest.ram.read_slice(&mut bytes, at).unwrap();
        bytes
    }

    /// All that is received in these buffers, put together.
    fn joined(&self, used: &[(u32, u32)]) -> Vec<u8> {
        used.iter().flat_map(|&(head, len)| self.bytes(head, len)).collect()
    }
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// A header as the guest finds it: `buffers` of them have the packet.
fn received(buffers: u8) -> [u8; HEADER] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, buffers, 0]
}

#[test]
fn packets_go_both_ways() {
    let mut bench = bench(EVERYTHING);
    bench.post(0..4, 0x600);
    assert!(bench.peer.send(&frame(60)) && bench.peer.send(&frame(1200)));
    let used = bench.used(0, 2);
    assert_eq!(used, [(0, 72), (1, 1212)]);
    assert_eq!(bench.bytes(0, 72), [&received(1)[..], &frame(60)].concat());
    assert_eq!(bench.bytes(1, 1212), [&received(1)[..], &frame(1200)].concat());
    bench.send(0, [0; HEADER], &frame(900));
    assert_eq!(bench.arrived(), [&[0; HEADER][..], &frame(900)].concat());
    assert_eq!(bench.used(1, 1), [(0, 0)]);
    let status = bench.net.status();
    assert_eq!((status.received, status.received_bytes, status.receive_dropped), (2, 1260, 0));
    assert_eq!((status.sent, status.sent_bytes, status.send_dropped), (1, 900, 0));
}

#[test]
fn a_large_packet_takes_as_many_buffers_as_it_needs() {
    let mut bench = bench(EVERYTHING);
    bench.post(0..10, 1000);
    assert!(bench.peer.send(&frame(5000)) && bench.peer.send(&frame(988)));
    let used = bench.used(0, 7);
    assert_eq!(used[..6], [(0, 1000), (1, 1000), (2, 1000), (3, 1000), (4, 1000), (5, 12)]);
    assert_eq!(bench.joined(&used[..6]), [&received(6)[..], &frame(5000)].concat());
    assert_eq!(bench.joined(&used[6..]), [&received(1)[..], &frame(988)].concat());
}

#[test]
fn a_packet_waits_for_buffers_and_comes_whole() {
    let mut bench = bench(EVERYTHING);
    bench.post(0..2, 1000);
    assert!(bench.peer.send(&frame(40)));
    assert_eq!(bench.used(0, 1), [(0, 52)]);
    assert!(bench.peer.send(&frame(2500)));
    bench.post(2..4, 1000);
    let used = bench.used(0, 3);
    assert_eq!(bench.joined(&used), [&received(3)[..], &frame(2500)].concat());
    // A driver that has no more of them loses the packet, and not the next.
    bench.post(4..5, 1000);
    assert!(bench.peer.send(&frame(2500)));
    assert!(within(|| bench.net.status().receive_dropped == 1));
    assert!(bench.peer.send(&frame(50)));
    assert_eq!(bench.used(0, 1), [(4, 62)]);
    assert_eq!(bench.bytes(4, 62), [&received(1)[..], &frame(50)].concat());
}

#[test]
fn without_mergeable_buffers_each_packet_has_one() {
    let mut bench = bench(EVERYTHING & !bit(VIRTIO_NET_F_MRG_RXBUF));
    bench.post(0..3, 1000);
    assert!(bench.peer.send(&frame(2500)) && bench.peer.send(&frame(988)));
    // The first does not fit, and its buffer is the next's.
    assert_eq!(bench.used(0, 1), [(0, 1000)]);
    assert_eq!(bench.bytes(0, 1000), [&received(1)[..], &frame(988)].concat());
    assert_eq!(bench.net.status().receive_dropped, 1);
}

#[test]
fn buffers_without_a_packet_are_put_back() {
    let mut bench = bench(EVERYTHING);
    bench.post(0..4, 1000);
    assert!(bench.peer.send(&frame(60)));
    bench.used(0, 1);
    let mut state = bench.guest.save();
    let queue = core(&mut state).queues[0];
    assert_eq!((queue.next_avail, queue.next_used), (1, 1));
    bench.guest.transport.resume();
    assert!(bench.peer.send(&frame(61)));
    assert_eq!(bench.used(0, 1), [(1, 73)], "the second buffer is still the next");
}

#[test]
fn what_the_port_leaves_undone_is_what_the_driver_has_agreed_to() {
    let all = offload::CSUM | offload::TSO4 | offload::TSO6;
    let mut bench = bench(EVERYTHING);
    assert!(within(|| bench.offloads.lock().unwrap().len() == 3));
    assert_eq!(*bench.offloads.lock().unwrap(), [all | NO_USO, 0, all | NO_USO]);
    // Another driver can do less. What was on its way to the first is not for it.
    bench.guest.set_status(0);
    assert!(bench.peer.send(&frame(60)));
    let less = bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO6) | feature::RING;
    bench.drivers = bench.guest.start_with(less);
    assert!(within(|| bench.offloads.lock().unwrap().len() == 4));
    assert_eq!(bench.offloads.lock().unwrap()[3], offload::CSUM | offload::TSO6);
    bench.post(0..2, 2000);
    // It has been thrown away once a command is answered: all is done by one thread.
    bench.drivers[2].chain(0, &[(SENT, 2, false), (SENT + 2, 1, true)]);
    bench.drivers[2].offer(0);
    bench.guest.notify(CONTROL);
    bench.used(2, 1);
    assert!(bench.peer.send(&frame(70)));
    assert_eq!(bench.used(0, 1), [(0, 82)]);
    // Segments without checksums are none.
    bench.guest.set_status(0);
    bench.guest.start_with(bit(VIRTIO_NET_F_GUEST_TSO4) | feature::RING);
    assert!(within(|| bench.offloads.lock().unwrap().len() == 5));
    assert_eq!(bench.offloads.lock().unwrap()[4], 0);
}

#[test]
fn a_host_that_cuts_no_udp_is_not_asked_to() {
    let bench = bench_with(EVERYTHING, NO_USO, NetLimits::default());
    assert_eq!(bench.net.features() & USO, 0);
    assert!(within(|| bench.offloads.lock().unwrap().len() == 2));
    let all = offload::CSUM | offload::TSO4 | offload::TSO6;
    assert_eq!(*bench.offloads.lock().unwrap(), [0, all]);
}

#[test]
fn malformed_packets_are_dropped_and_the_others_sent() {
    let mut bench = bench(EVERYTHING);
    let sums = |start: u8, at: u8| [1, 0, 0, 0, 0, 0, start, 0, at, 0, 7, 7];
    bench.send(0, sums(60, 0), &frame(60)); // beyond its end
    bench.send(2, [0; HEADER], &frame(13)); // shorter than Ethernet's header
    bench.send(4, [0; HEADER], &[]); // nothing but the header
    bench.send(6, sums(34, 16), &frame(60));
    assert_eq!(bench.used(1, 4), [(0, 0), (2, 0), (4, 0), (6, 0)]);
    let good = [&[1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0][..], &frame(60)].concat();
    assert_eq!(bench.arrived(), good);
    assert_eq!(bench.peer.receive(), None);
    let status = bench.net.status();
    assert_eq!((status.sent, status.send_dropped), (1, 3));
    assert_eq!(bench.guest.status() & crate::virtio::transport::status::NEEDS_RESET, 0);
}

#[test]
fn chains_that_are_none_of_a_network_stop_the_device() {
    for (queue, pieces) in [
        (0, vec![(BUFFERS, 64, false)]),
        (0, vec![(BUFFERS, 11, true)]),
        (0, vec![(RAM - 4, 64, true)]),
        (1, vec![(BUFFERS, 11, false)]),
        (1, vec![(BUFFERS, 64, false), (BUFFERS, 64, true)]),
        (1, vec![(BUFFERS, 12, false), (RAM - 4, 64, false)]),
        (2, vec![(BUFFERS, 2, false)]),
    ] {
        let mut bench = bench(EVERYTHING);
        bench.drivers[queue].chain(0, &pieces);
        bench.drivers[queue].offer(0);
        bench.guest.notify(queue as u16);
        assert!(bench.guest.configured(), "{pieces:?}");
        let reported = bench.guest.reported.lock().unwrap().join("\n");
        assert!(reported.contains(&format!(
            "interface eth0 stopped until the guest resets it: queue {queue}:"
        )));
    }
}

#[test]
fn a_command_is_refused() {
    let mut bench = bench(EVERYTHING);
    bench.drivers[2].chain(0, &[(SENT, 2, false), (SENT + 2, 3, true)]);
    bench.drivers[2].chain(4, &[(SENT, 2, false), (SENT + 8, 1, true)]);
    bench.drivers[2].offer(0);
    bench.drivers[2].offer(4);
    bench.guest.notify(CONTROL);
    assert_eq!(bench.used(2, 2), [(0, 0), (4, 1)]);
    let answer = |at: u64| bench.guest.ram.read_obj::<u8>(GuestAddress(at)).unwrap();
    assert_eq!((answer(SENT + 4), answer(SENT + 8)), (1, 1), "VIRTIO_NET_ERR");
}

#[test]
fn packets_that_find_no_room_wait_for_it() {
    let mut bench = bench(EVERYTHING);
    let mut sent = 0;
    // More than any socket takes.
    for round in 0..64u32 {
        for head in (0..16).step_by(2) {
            let mut frame = frame(0x3000);
            frame[..4].copy_from_slice(&(round * 8 + head / 2).to_le_bytes());
            bench.send(head as u16, [0; HEADER], &frame);
        }
        let mut back = 0;
        assert!(within(|| {
            back += bench.drivers[1].used().len();
            // In the end it is empty.
            while back < 8
                && let Some(packet) = bench.peer.receive()
            {
                assert_eq!(packet[HEADER..][..4], u32::to_le_bytes(sent), "in order");
                sent += 1;
            }
            back == 8
        }));
    }
    while sent < 512 {
        bench.arrived();
        sent += 1;
    }
    assert_eq!(bench.net.status().send_dropped, 0);
}

#[test]
fn limits_hold_packets_back() {
    let rate = Some(Rate { per_second: 1, burst: 1 });
    let limits = NetLimits { bandwidth: rate, pps: None };
    let mut bench = bench_with(EVERYTHING, 0, limits);
    bench.post(0..2, 0x600);
    // The first costs a thousand seconds.
    bench.send(0, [0; HEADER], &frame(1000));
    bench.arrived();
    bench.send(2, [0; HEADER], &frame(60));
    assert!(bench.peer.send(&frame(60)));
    bench.drivers[2].chain(0, &[(SENT, 2, false), (SENT + 2, 1, true)]);
    bench.drivers[2].offer(0);
    bench.guest.notify(CONTROL);
    bench.used(2, 1);
    assert_eq!(bench.used(1, 1), [(0, 0)]);
    assert!(bench.drivers[0].used().is_empty());
    assert_eq!(bench.peer.receive(), None);
}

#[test]
fn a_driver_that_goes_on_elsewhere_sees_the_link_go_down_and_up() {
    let bench = bench(EVERYTHING);
    assert_eq!(bench.guest.read_config(6, 6), [1, 0, 1, 0, 0x29, 0x23], "up, a pair, 9001");
    assert_eq!(bench.guest.read_config(0, 6), [2, 0, 0, 0, 0, 1]);
    let state = bench.guest.save();
    let next = super::tests::bench(EVERYTHING);
    next.guest.transport.restore(&state).unwrap();
    assert_eq!(next.guest.generation(), 0);
    next.guest.transport.resume();
    assert!(within(|| next.guest.read_config(6, 1) == [0]), "down");
    assert!(next.guest.configured());
    assert!(within(|| next.guest.read_config(6, 1) == [1]), "up");
    assert!(next.guest.configured());
    assert_eq!(next.guest.generation(), 2);
    // The machine that was saved and goes on is where it was.
    bench.guest.transport.resume();
    assert_eq!((bench.guest.read_config(6, 1), bench.guest.generation()), (vec![1], 0));
}

#[test]
fn a_link_whose_port_is_gone_is_down() {
    let mut bench = bench(EVERYTHING);
    bench.post(0..2, 0x600);
    let Bench { guest, net, peer, mut drivers, .. } = bench;
    drop(peer);
    assert!(within(|| !net.status().up));
    assert!(guest.configured());
    assert_eq!(guest.read_config(6, 1), [0]);
    guest.ram.write_slice(&[0; 72], GuestAddress(SENT)).unwrap();
    drivers[1].chain(0, &[(SENT, 72, false)]);
    drivers[1].offer(0);
    guest.notify(SEND);
    assert!(within(|| drivers[1].used() == [(0, 0)]), "what is sent is dropped");
    assert_eq!(net.status().send_dropped, 1);
}

/// Two pairs of queues in a guest: what they were told, and their peers.
fn pairs(attached: &mut Vec<Arc<Mutex<Vec<bool>>>>) -> (Guest, Vec<Peer>) {
    let row = DEVICES.iter().find(|row| (row.make)().0.kind() == &TYPE).unwrap();
    let (ports, peers): (Vec<_>, Vec<_>) = (0..2).map(|_| socket()).unzip();
    attached.extend(ports.iter().map(|port| port.attached.clone()));
    let (net, services) = several(ports, NetLimits::default(), notices().0);
    (Guest::with(row, (net, services, Box::new(|| ())), Over::Pci), peers)
}

/// Asks for so many pairs; the answer.
fn ask_for_pairs(guest: &Guest, driver: &mut Driver, count: u16) -> u8 {
    let [low, high] = count.to_le_bytes();
    guest.ram.write_slice(&[4, 0, low, high, 0xff], GuestAddress(SENT)).unwrap();
    driver.chain(0, &[(SENT, 4, false), (SENT + 4, 1, true)]);
    driver.offer(0);
    guest.notify(4);
    assert!(within(|| driver.used().len() == 1));
    guest.ram.read_obj(GuestAddress(SENT + 4)).unwrap()
}

#[test]
fn as_many_pairs_carry_packets_as_the_driver_wishes() {
    let mut attached = vec![];
    let (guest, peers) = pairs(&mut attached);
    let attached = |pair: usize| attached[pair].lock().unwrap().clone();
    assert_eq!((guest.queues(), guest.read_config(8, 2)), (5, vec![2, 0]));
    let mut drivers = guest.start();
    for queue in [0, 2] {
        drivers[queue].chain(0, &[(BUFFERS + 0x4000 * queue as u64, 2000, true)]);
        drivers[queue].offer(0);
        guest.notify(queue as u16);
    }
    assert!(peers[1].send(&frame(61)), "for later");
    assert!(peers[0].send(&frame(60)));
    assert!(within(|| drivers[0].used() == [(0, 72)]));
    assert_eq!((attached(0), attached(1)), (vec![], vec![false]), "the first alone to begin with");
    for wrong in [0, 3, u16::MAX] {
        assert_eq!(ask_for_pairs(&guest, &mut drivers[4], wrong), 1);
    }
    assert!(drivers[2].used().is_empty());
    assert_eq!(ask_for_pairs(&guest, &mut drivers[4], 2), 0);
    assert!(within(|| drivers[2].used() == [(0, 73)]));
    guest.ram.write_slice(&[0; 72], GuestAddress(SENT + 0x1000)).unwrap();
    drivers[3].chain(0, &[(SENT + 0x1000, 72, false)]);
    drivers[3].offer(0);
    guest.notify(3);
    assert!(within(|| peers[1].receive().is_some()), "by the port of the pair");
    assert_eq!(peers[0].receive(), None);
    // What was saved goes on with as many, and another driver begins with one.
    let state = guest.save();
    let mut others = vec![];
    let (next, _peers) = pairs(&mut others);
    next.transport.restore(&state).unwrap();
    next.transport.resume();
    assert!(within(|| *others[1].lock().unwrap() == [false, true]));
    next.set_status(0);
    next.start();
    assert!(within(|| *others[1].lock().unwrap() == [false, true, false]));
    guest.transport.resume();
    assert_eq!(ask_for_pairs(&guest, &mut drivers[4], 1), 0);
    assert_eq!((attached(0), attached(1)), (vec![], vec![false, true, false]));
}
