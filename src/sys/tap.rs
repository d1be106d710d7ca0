//! Taps: network interfaces of the host whose other end is a descriptor.
//! (Documentation/networking/tuntap.rst)

use crate::error::Error;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Where taps are opened.
pub const DEVICE: &str = "/dev/net/tun";
/// Bytes of the header before each packet: struct virtio_net_hdr_v1.
pub const HEADER: usize = 12;
/// Most bytes of an interface's name. (IFNAMSIZ less its end)
pub const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// What may be left undone of packets to a tap's descriptor. (linux/if_tun.h, TUN_F_*)
pub mod offload {
    /// Checksums.
    pub const CSUM: u32 = libc::TUN_F_CSUM;
    /// Segmentation of TCP over IPv4.
    pub const TSO4: u32 = libc::TUN_F_TSO4;
    /// Segmentation of TCP over IPv6.
    pub const TSO6: u32 = libc::TUN_F_TSO6;
    /// Segmentation of UDP over IPv4. The kernel takes it with [`USO6`] only, from 6.2 on.
    pub const USO4: u32 = 0x20;
    /// Segmentation of UDP over IPv6.
    pub const USO6: u32 = 0x40;
}

/// TUNSETOFFLOAD, which the VMM's threads call.
pub const SET_OFFLOAD: u32 = libc::TUNSETOFFLOAD as u32;
/// TUNSETQUEUE, which they call too.
pub const SET_QUEUE: u32 = libc::TUNSETQUEUE as u32;

/// TUNSETIFF, which makes a tap.
pub const SET_INTERFACE: u32 = libc::TUNSETIFF as u32;
/// TUNGETIFF, which says what it is.
pub const GET_INTERFACE: u32 = libc::TUNGETIFF as u32;
/// TUNSETVNETHDRSZ, which sets the size of packets' headers.
pub const SET_HEADER: u32 = libc::TUNSETVNETHDRSZ as u32;

/// A tap's descriptor, which does not block.
#[derive(Debug)]
pub struct Tap(OwnedFd);

/// Why a tap can't be had.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// [`DEVICE`] can't be opened: errno.
    NoDevice(i32),
    /// There is no interface of that name.
    Missing,
    /// Another process has it open.
    Busy,
    /// It is another user's, or belongs to nobody who may open it.
    Denied,
    /// It is not a tap with as many queues.
    OtherKind,
    /// Something else: errno.
    Failed(i32),
}

/// Why [`DEVICE`] can't be opened, and what helps.
pub fn no_device(errno: i32) -> Error {
    match errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::failure(format!(
            "there are no taps here, for {DEVICE} is missing: load the module ('modprobe tun'), or give the container \
             --device {DEVICE}"
        )),
        libc::EACCES | libc::EPERM => Error::failure(format!(
            "this user may not open {DEVICE}: 'chmod 0666 {DEVICE}' (as root) lets everybody, as udev does"
        )),
        errno => Error::io(format!("open {DEVICE}"), io::Error::from_raw_os_error(errno)),
    }
}

impl Tap {
    /// A descriptor that the launcher has opened as [`Tap::open`] does.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Makes a tap of this name in the network namespace of the calling thread, or opens a further
    /// queue of one with several (IFF_MULTI_QUEUE). It goes with its last descriptor. Packets have
    /// headers of [`HEADER`] bytes.
    ///
    /// # Errors
    /// Why it can't be had: [`Refusal::Busy`] of one that is open already.
    pub fn create(name: &str, multi: bool) -> Result<Self, Refusal> {
        let tap = Self(device()?.into());
        tap.attach(name, multi)?;
        Ok(tap)
    }

    /// Opens a queue of the tap of this name, which has to be there: none is ever made. Packets
    /// have headers of [`HEADER`] bytes. `multi`: the tap is one of several queues
    /// (IFF_MULTI_QUEUE), each of which is opened like this.
    ///
    /// # Errors
    /// Why it can't be had.
    pub fn open(name: &str, multi: bool) -> Result<Self, Refusal> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Refusal::Missing);
        }
        let tap = Self(device()?.into());
        // Whoever may makes a tap by opening it, which others would see for a moment.
        if !exists(name) {
            return Err(Refusal::Missing);
        }
        if !tap.attach(name, multi)? {
            // It went meanwhile, and was made anew; with this descriptor it goes.
            return Err(Refusal::Missing);
        }
        Ok(tap)
    }

    /// Makes this descriptor, which is none's yet, a queue of the tap of this name; whether the tap
    /// was there before and stays (IFF_PERSIST).
    fn attach(&self, name: &str, multi: bool) -> Result<bool, Refusal> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(0);
        rustix::fs::fcntl_setfl(&self.0, rustix::fs::OFlags::NONBLOCK)
            .map_err(|error| Refusal::Failed(error.raw_os_error()))?;
        let (tap_flags, no_info, header) = (libc::IFF_TAP, libc::IFF_NO_PI, libc::IFF_VNET_HDR);
        let mut request = request(name);
        let queues = if multi { libc::IFF_MULTI_QUEUE } else { 0 };
        request.ifr_ifru.ifru_flags = (tap_flags | no_info | header | queues) as libc::c_short;
        self.on_request(libc::TUNSETIFF, &mut request).map_err(|error| match errno(error) {
            libc::EBUSY => Refusal::Busy,
            libc::EPERM => Refusal::Denied,
            libc::EINVAL => Refusal::OtherKind,
            other => Refusal::Failed(other),
        })?;
        self.on_request(libc::TUNGETIFF, &mut request)
            .map_err(|error| Refusal::Failed(errno(error)))?;
        // SAFETY: TUNGETIFF has just written this member.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        let size = HEADER as libc::c_int;
        self.on_number(libc::TUNSETVNETHDRSZ, &size)
            .map_err(|error| Refusal::Failed(errno(error)))?;
        Ok(flags & libc::IFF_PERSIST != 0)
    }

    /// The MTU of the network device of this name, which [`Tap::open`] has found.
    ///
    /// # Errors
    /// It is gone, or there are too many descriptors.
    pub fn mtu(name: &str) -> Result<u32, Refusal> {
        let failed = |error: io::Error| Refusal::Failed(error.raw_os_error().unwrap_or(0));
        let socket =
            socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .map_err(|error| failed(error.into()))?;
        let mut request = request(name);
        // SAFETY: SIOCGIFMTU reads and writes one struct ifreq, which is borrowed for the call.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &mut request) };
        if done < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: the call has just written this member.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(u32::try_from(mtu).unwrap_or(0))
    }

    /// Has the host leave this undone of packets to the descriptor, and nothing else: a sum of
    /// [`offload`]'s.
    ///
    /// # Errors
    /// EINVAL: the host does not know one of them. EBADFD: the tap is gone.
    pub fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        // SAFETY: this request takes a number, no pointer.
        let done = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                SET_OFFLOAD as libc::Ioctl,
                libc::c_ulong::from(offloads),
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Has the host give this queue packets, or none: those that it has are dropped then, and it
    /// can neither be read nor written.
    ///
    /// # Errors
    /// EINVAL: it is so already, or the tap has one queue.
    pub fn set_attached(&self, attached: bool) -> io::Result<()> {
        let mut request = request("");
        let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        request.ifr_ifru.ifru_flags = flag as libc::c_short;
        self.on_request(libc::TUNSETQUEUE, &mut request)
    }

    fn on_request(&self, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the request reads and writes one struct ifreq, which is borrowed for the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), number, request) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn on_number(&self, number: libc::Ioctl, value: &libc::c_int) -> io::Result<()> {
        // SAFETY: the request reads one int, which is borrowed for the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), number, value) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> Self {
        tap.0
    }
}

/// Sees whether taps can be opened at all.
///
/// # Errors
/// [`Refusal::NoDevice`].
pub fn check() -> Result<(), Refusal> {
    device().map(|_| ())
}

fn device() -> Result<File, Refusal> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    // A network's worker may call openat(2) only: musl's open(3), and rustix's, is open(2).
    let file = openat(CWD, DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    file.map(File::from).map_err(|error| Refusal::NoDevice(error.raw_os_error()))
}

/// A request about the interface of this name, which fits.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: all zeros are a struct ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// Whether this network namespace has an interface of this name. Where that can't be asked, it is
/// taken to.
fn exists(name: &str) -> bool {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_or(true, |socket| name_to_index(socket, name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_headers() {
        // From linux/if_tun.h, as strace prints them.
        assert_eq!(libc::TUNSETIFF, 0x4004_54ca);
        assert_eq!((SET_OFFLOAD, SET_QUEUE), (0x4004_54d0, 0x4004_54d9));
        assert_eq!((GET_INTERFACE, SET_HEADER), (0x8004_54d2, 0x4004_54d8));
        assert_eq!((offload::CSUM, offload::TSO4, offload::TSO6), (1, 2, 4));
    }

    #[test]
    fn what_is_no_tap_is_told_apart() {
        let refusal = |name: &str| Tap::open(name, false).map(|_| ()).unwrap_err();
        // Nobody else's, whoever tests beside.
        let none = format!("none-{}", std::process::id());
        if let Refusal::NoDevice(errno) = refusal(&none) {
            println!("skipped: what_is_no_tap_is_told_apart: {DEVICE}: errno {errno}");
            return;
        }
        for name in [none.as_str(), "", "a-name-that-is-too-long"] {
            assert_eq!(refusal(name), Refusal::Missing, "{name}");
            assert!(!exists(name), "none was made");
        }
        // A lack of rights is told first where there is one.
        assert!(matches!(refusal("lo"), Refusal::OtherKind | Refusal::Denied));
    }
}
