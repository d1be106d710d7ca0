//! The network device. (VIRTIO 1.2, 5.1)
//!
//! A pair of queues has a [`Port`] of the host's: packets go between it and the guest's buffers
//! without a copy of ours. What the host leaves undone of packets to the guest (checksums,
//! segmentation) is what the driver has agreed to, no more.

mod handler;
mod header;
mod receive;
mod shared;
mod throttle;

pub use shared::{CONTROL, Port, RECEIVE, SEND};

use crate::control::NetStatus;
use crate::error::{Error, OrFail, Result};
use crate::plan::{MacAddress, NetLimits};
use crate::sys::fds::eventfd;
use crate::sys::seccomp::Allow;
use crate::sys::tap::{SET_OFFLOAD, SET_QUEUE};
use crate::virtio::Notices;
use crate::virtio::device::{
    Device, DeviceState, DeviceType, Service, Services, Signal, copy_config,
};
use handler::Pair;
use serde::{Deserialize, Serialize};
use shared::{Counters, InUse, Link, PairPort, Shared, bit, offloads};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use throttle::Throttle;
use virtio_bindings::virtio_net::*;

/// Its row.
pub static TYPE: DeviceType = DeviceType {
    id: 1,
    pci_class: 0x02_0000, // Ethernet controller
    thread: "virtio-net",
    calls: &[&[
        Allow::Call(libc::SYS_readv),  // packets to the guest
        Allow::Call(libc::SYS_writev), // packets of the guest
        // On any descriptor, for a tap's alone knows them.
        Allow::Ioctl { request: SET_OFFLOAD, first: 0, last: RawFd::MAX - 1 },
        Allow::Ioctl { request: SET_QUEUE, first: 0, last: RawFd::MAX - 1 },
    ]],
};
/// Descriptors of each queue for packets.
const QUEUE_SIZE: u16 = 256;
/// Descriptors of the control queue.
const CONTROL_SIZE: u16 = 64;
/// VIRTIO_NET_S_LINK_UP in the configuration's status.
const LINK_UP: u8 = 1;

/// Segmentation of UDP, which hosts have from Linux 6.2 on.
const USO: u64 =
    bit(VIRTIO_NET_F_GUEST_USO4) | bit(VIRTIO_NET_F_GUEST_USO6) | bit(VIRTIO_NET_F_HOST_USO);
/// What is always offered.
const FEATURES: u64 = bit(VIRTIO_NET_F_CSUM)
    | bit(VIRTIO_NET_F_GUEST_CSUM)
    | bit(VIRTIO_NET_F_MTU)
    | bit(VIRTIO_NET_F_MAC)
    | bit(VIRTIO_NET_F_GUEST_TSO4)
    | bit(VIRTIO_NET_F_GUEST_TSO6)
    | bit(VIRTIO_NET_F_HOST_TSO4)
    | bit(VIRTIO_NET_F_HOST_TSO6)
    | bit(VIRTIO_NET_F_MRG_RXBUF)
    | bit(VIRTIO_NET_F_STATUS)
    | bit(VIRTIO_NET_F_CTRL_VQ);

/// The state of a network device: what the guest believes of it.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct NetState {
    mac: MacAddress,
    mtu: u16,
    link_generation: u32,
    /// Pairs of queues, and those in use.
    pairs: (u16, u16),
}

/// Version of [`NetState`].
const STATE_VERSION: u16 = 1;

/// A network interface as the guest sees it.
pub struct Net {
    shared: Arc<Shared>,
    mac: MacAddress,
    mtu: u16,
    features: u64,
    queue_sizes: Vec<u16>,
}

/// What an interface is.
pub struct NetConfig<'a> {
    /// What notices call it, after "interface".
    pub name: &'a str,
    /// The guest's address.
    pub mac: MacAddress,
    /// The largest packet without its Ethernet header, in bytes.
    pub mtu: u16,
    /// What the guest may have of it.
    pub limits: NetLimits,
}

impl Net {
    /// The device in front of these ports, one a pair of queues, and what serves its queues. The
    /// ports leave nothing undone until a driver is ready, and the first alone carries packets.
    ///
    /// # Errors
    /// A port does not take offloads, or can't be one of several.
    pub fn create(
        ports: Vec<Box<dyn Port>>,
        config: &NetConfig<'_>,
        notices: Notices,
    ) -> Result<(Arc<Self>, Services)> {
        let doing = || format!("start interface {}", config.name);
        let Some(first) = ports.first() else {
            return Err(Error::failure(format!("interface {} has no port", config.name)));
        };
        let with_uso = first.set_offloads(offloads(FEATURES | USO)).is_ok();
        first.set_offloads(0).or_fail(doing)?;
        let port = |port| {
            let (attached, changed) = (AtomicBool::new(true), eventfd()?);
            Ok(PairPort { port, attached, changed })
        };
        let ports: Vec<PairPort> =
            ports.into_iter().map(port).collect::<io::Result<_>>().or_fail(doing)?;
        let pairs = ports.len() as u16;
        let limits = config.limits;
        let shared = Arc::new(Shared {
            name: format!("interface {}", config.name),
            link: Mutex::new(Link { up: true, generation: 0, moved: false }),
            guest: OnceLock::new(),
            ports,
            in_use: Mutex::new(InUse { wanted: 1, pairs }),
            notices,
            throttle: (!limits.are_none()).then(|| Mutex::new(Throttle::new(limits))),
            counters: Counters::default(),
        });
        // Packets come by the first alone until the driver wishes otherwise.
        shared.apply_pairs().or_fail(doing)?;
        let service = |pair: u16| {
            // The last has the control queue, too.
            let end = 2 * pair + 2 + u16::from(pair + 1 == pairs);
            Service { queues: 2 * pair..end, handler: Box::new(Pair::new(shared.clone(), pair)) }
        };
        let services = (0..pairs).map(service).collect();
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * usize::from(pairs)];
        queue_sizes.push(CONTROL_SIZE);
        let several = if pairs > 1 { bit(VIRTIO_NET_F_MQ) } else { 0 };
        let features = FEATURES | several | if with_uso { USO } else { 0 };
        let NetConfig { mac, mtu, .. } = *config;
        Ok((Arc::new(Self { shared, mac, mtu, features, queue_sizes }), services))
    }

    /// What it has carried.
    pub fn status(&self) -> NetStatus {
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetStatus {
            up: self.shared.link().up,
            received: get(&counters.received),
            received_bytes: get(&counters.received_bytes),
            receive_dropped: get(&counters.receive_dropped),
            sent: get(&counters.sent),
            sent_bytes: get(&counters.sent_bytes),
            send_dropped: get(&counters.send_dropped),
        }
    }

    /// struct virtio_net_config, up to and with mtu. (5.1.4)
    fn config(&self) -> [u8; 12] {
        let [a, b, c, d, e, f] = self.mac.bytes();
        let status = if self.shared.link().up { LINK_UP } else { 0 };
        let ([low, high], pairs) = (self.mtu.to_le_bytes(), self.shared.ports.len() as u8);
        [a, b, c, d, e, f, status, 0, pairs, 0, low, high]
    }
}

impl Device for Net {
    fn kind(&self) -> &'static DeviceType {
        &TYPE
    }

    fn name(&self) -> &str {
        &self.shared.name
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn connect(&self, guest: Arc<dyn Signal>) {
        // It is connected once.
        let _ = self.shared.guest.set(guest);
    }

    fn read_config(&self, offset: u64, out: &mut [u8]) {
        copy_config(&self.config(), offset, out);
    }

    fn config_generation(&self) -> u32 {
        self.shared.link().generation
    }

    fn reset(&self) {
        // A thread of its queues does it: this one may not.
        self.shared.in_use().wanted = 1;
    }

    fn save(&self) -> DeviceState {
        let link_generation = self.shared.link().generation;
        let pairs = (self.shared.ports.len() as u16, self.shared.in_use().wanted);
        let state = NetState { mac: self.mac, mtu: self.mtu, link_generation, pairs };
        DeviceState::new(self.kind(), STATE_VERSION, &state)
    }

    fn restore(&self, state: &DeviceState) -> Result<()> {
        let state: NetState = state.decode(self.name(), self.kind(), STATE_VERSION)?;
        let (pairs, wanted) = state.pairs;
        let all = self.shared.ports.len() as u16;
        if (state.mac, state.mtu, pairs) != (self.mac, self.mtu, all)
            || !(1..=all).contains(&wanted)
        {
            return Err(Error::failure(format!(
                "the saved state is of another interface than {}: address, MTU or queues differ",
                self.shared.name
            )));
        }
        self.shared.in_use().wanted = wanted;
        let mut link = self.shared.link();
        (link.generation, link.moved) = (state.link_generation, true);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
