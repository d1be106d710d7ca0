//! What the receive device shows that the others do not need: chains that wait in their ring, a
//! thread with two queues, and a configuration that changes.

use super::conformance_tests::{DEVICES, Guest, Made, Over, core, within};
use super::receive::{self, Receive};
use super::testing::*;
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// A receive device, and the other end of its pipe.
fn receive_guest(over: Over) -> (Guest, Arc<Receive>, OwnedFd) {
    let row = DEVICES.iter().find(|row| (row.make)().0.kind() == &receive::TYPE).unwrap();
    let (from, to) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
    let (device, services) = Receive::create(from);
    let made: Made = (device.clone(), services, Box::new(|| ()));
    (Guest::with(row, made, over), device, to)
}

/// Posts `count` receive buffers and nothing else.
fn post(guest: &Guest, drivers: &mut [Driver], count: u16) {
    guest.offer(&mut drivers[..1], count);
}

#[test]
fn receive_buffers_stay_in_the_ring_until_packets_come() {
    for over in [Over::Mmio, Over::Pci] {
        let (guest, _, pipe) = receive_guest(over);
        let mut drivers = guest.start();
        post(&guest, &mut drivers, 3);
        rustix::io::write(&pipe, b"first").unwrap();
        guest.finish(&mut drivers[..1], &[1]);
        let mut state = guest.save();
        let queue = core(&mut state).queues[0];
        assert_eq!((queue.next_avail, queue.next_used), (1, 1), "two are still in the ring");
        let (next, _, other_pipe) = receive_guest(over);
        let mut memory = vec![0; RAM as usize];
        guest.ram.read_slice(&mut memory, GuestAddress(0)).unwrap();
        next.ram.write_slice(&memory, GuestAddress(0)).unwrap();
        next.transport.restore(&state).unwrap();
        next.transport.resume();
        let mut restored: Vec<_> = drivers.iter().map(|driver| driver.moved(&next.ram)).collect();
        rustix::io::write(&other_pipe, b"second").unwrap();
        assert!(within(|| restored[0].used() == [(4, 6)]));
        let mut bytes = [0; 6];
        next.ram.read_slice(&mut bytes, GuestAddress(BUFFERS + 0x800)).unwrap();
        assert_eq!(&bytes, b"second");
        rustix::io::write(&other_pipe, b"3rd").unwrap();
        assert!(within(|| restored[0].used() == [(8, 3)]));
        // The machine that was saved has lost nothing either.
        guest.transport.resume();
        rustix::io::write(&pipe, b"2").unwrap();
        assert!(within(|| drivers[0].used() == [(4, 1)]));
        drop(pipe);
        post(&guest, &mut drivers, 1);
        assert!(guest.transport.reset());
    }
}

#[test]
fn one_queue_brings_what_another_of_its_thread_waits_for() {
    let (guest, ..) = receive_guest(Over::Mmio);
    let mut drivers = guest.start();
    let (send, buffer) = (BUFFERS + 0x8000, |n| BUFFERS + 0x100 * u64::from(n));
    guest.ram.write_slice(b"loopback", GuestAddress(send)).unwrap();
    for n in 0..8 {
        drivers[0].chain(n, &[(buffer(n), 64, true)]);
        drivers[1].chain(n, &[(send, 8, false)]);
        drivers[1].offer(n);
    }
    // Without buffers some are taken, and the others stay in the ring.
    guest.notify(receive::SEND);
    assert!(within(|| !drivers[1].used().is_empty()));
    let mut state = guest.save();
    assert_eq!(core(&mut state).queues[1].next_avail, receive::MAX_WAITING as u16);
    guest.transport.resume();
    // Nothing but their thread moves them from here on.
    (0..8).for_each(|n| drivers[0].offer(n));
    guest.notify(receive::RECEIVE);
    assert!(within(|| drivers[0].moved(&guest.ram).used().len() == 8));
    let mut bytes = [0; 8];
    guest.ram.read_slice(&mut bytes, GuestAddress(buffer(7))).unwrap();
    assert_eq!(&bytes, b"loopback");
}

#[test]
fn a_thread_sleeps_while_a_packet_or_a_buffer_is_missing() {
    let (guest, device, pipe) = receive_guest(Over::Mmio);
    let rounds = |device: &Receive| {
        std::thread::sleep(Duration::from_millis(30));
        let before = device.rounds();
        std::thread::sleep(Duration::from_millis(100));
        device.rounds() - before
    };
    let mut drivers = guest.start();
    rustix::io::write(&pipe, b"no buffer").unwrap();
    guest.notify(receive::RECEIVE);
    assert!(rounds(&device) < 10, "a packet without a buffer");
    post(&guest, &mut drivers, 3);
    assert!(within(|| drivers[0].used() == [(0, 9)]));
    assert!(rounds(&device) < 10, "buffers without a packet");
    drop(pipe);
    assert!(rounds(&device) < 10, "a pipe that is closed");
}

#[test]
fn a_configuration_that_changes_interrupts_and_has_another_generation() {
    for over in [Over::Mmio, Over::Pci] {
        let (guest, device, _pipe) = receive_guest(over);
        guest.start();
        guest.write_config(1, &[7]);
        assert_eq!((guest.read_config(0, 2), guest.generation()), (vec![0, 7], 0));
        assert_eq!(guest.interrupts() & 2, 0, "the driver knows what it wrote");
        device.set_link(true);
        assert!(guest.configured());
        assert_eq!((guest.read_config(0, 2), guest.generation()), (vec![1, 7], 1));
        let state = guest.save();
        let (next, _, _pipe) = receive_guest(over);
        next.transport.restore(&state).unwrap();
        assert_eq!((next.read_config(0, 2), next.generation()), (vec![1, 7], 1));
        next.set_status(0);
        assert_eq!(next.read_config(0, 2), [1, 0], "the link is not the driver's");
    }
}
