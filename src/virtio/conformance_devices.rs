//! The table of all devices, which src/virtio/conformance_tests.rs goes through.

use super::fs;
use super::net;
use super::receive::{self, Receive};
use super::testing::*;
use crate::block::{Disk, Engine};
use crate::virtio::blk::Blk;
use crate::virtio::device::{Device, Services};
use crate::virtio::rng::Rng;
use crate::virtio::scsi::{self, Scsi};
use crate::virtio::vsock;
use crate::virtio::vsock::testing::Host as SocketHost;
use rustix::pipe::{PipeFlags, pipe_with};
use std::sync::Arc;

/// A new device with its services, and what makes come what its queues wait for from outside, a
/// little each time.
pub(super) type Made = (Arc<dyn Device>, Services, Box<dyn Fn()>);

/// A device in the table.
pub(super) struct Row {
    pub make: fn() -> Made,
    /// A chain that its driver may offer in this queue: length, and whether the device writes it.
    pub chain: fn(u16) -> &'static [(u32, bool)],
    /// Queues in which nothing ever comes back.
    pub silent: &'static [u16],
}

/// Every device that there is.
pub(super) const DEVICES: &[Row] = &[
    Row { make: blk, chain: |_| &[(16, false), (512, true), (1, true)], silent: &[] },
    Row { make: rng, chain: |_| &[(64, true)], silent: &[] },
    Row {
        make: receiver,
        chain: |queue| if queue == receive::SEND { &[(8, false)] } else { &[(64, true)] },
        silent: &[],
    },
    Row {
        make: interface,
        chain: |queue| match queue {
            net::RECEIVE => &[(1526, true)],
            net::SEND => &[(12, false), (60, false)],
            _ => &[(2, false), (1, true)],
        },
        silent: &[],
    },
    Row {
        make: sockets,
        chain: |queue| match queue {
            vsock::RECEIVE => &[(44, true), (64, true)],
            vsock::SEND => &[(44, false)],
            _ => &[(4, true)],
        },
        silent: &[],
    },
    // A header of zeros is an invalid request, which is answered like any other.
    Row { make: share, chain: |_| &[(40, false), (16, true)], silent: &[] },
    // Requests of zeros are for no target.
    Row {
        make: cdrom,
        chain: |queue| match queue {
            scsi::CONTROL => &[(24, false), (5, true)],
            scsi::EVENT => &[(16, true)],
            _ => &[(51, false), (108, true), (512, true)],
        },
        silent: &[scsi::EVENT],
    },
];

fn cdrom() -> Made {
    let disc: Arc<dyn Disk> = Arc::new(MemDisk { deferred: true, ..MemDisk::new(1 << 20) });
    let made = Scsi::create("cdrom0", &disc, Engine::Auto, Default::default(), notices().0);
    let (device, services) = made.unwrap();
    (device, services, Box::new(|| ()))
}

fn blk() -> Made {
    let (mut disk, volume) = (MemDisk::new(1 << 20), "vol-0123456789abcdef0".parse().unwrap());
    disk.deferred = true;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let made = Blk::create(&volume, &disk, Engine::Auto, 2, Default::default(), notices().0);
    let (device, services) = made.unwrap();
    (device, services, Box::new(|| ()))
}

fn rng() -> Made {
    let (device, services) = Rng::create();
    (device, services, Box::new(|| ()))
}

fn receiver() -> Made {
    let (from, to) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
    let (device, services) = Receive::create(from);
    let feed = move || {
        // A full pipe has what the device waits for.
        let _ = rustix::io::write(&to, b"packet");
    };
    (device, services, Box::new(feed))
}

fn share() -> Made {
    let share = fs::testing::Share::new();
    let (device, services) = share.device(notices().0);
    // The directory is there as long as the device.
    let keep = move || assert!(share.path().exists());
    (device, services, Box::new(keep))
}

fn interface() -> Made {
    let (port, peer) = net::testing::socket();
    let (device, services) = net::testing::net(port, Default::default(), notices().0);
    let feed = move || {
        // A full socket has what the device waits for, and an empty one takes what it sends.
        let _ = (peer.send(&[0xee; 60]), peer.receive());
    };
    (device, services, Box::new(feed))
}

fn sockets() -> Made {
    let (host, device, services) = SocketHost::new();
    let lossy = device.clone();
    let feed = move || {
        // Who says what it wants and goes: a request, and a reset of the connection.
        let _ = host.say("CONNECT 1\n");
        lossy.lose_connections();
    };
    (device, services, Box::new(feed))
}
