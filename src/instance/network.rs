//! The host's side of an instance's network interfaces: taps, which the launcher opens, or which a
//! network's process makes.

use super::dir::InstanceDir;
use super::fds::Fds;
use super::{metadata, vpc};
use crate::error::{Code, Error, Result};
use crate::id::InstanceId;
use crate::plan::network::MTU;
use crate::plan::{DeviceId, DeviceKind, NetPlan};
use crate::record::instance::InstanceRecord;
use crate::record::network::{MAX_INTERFACES, Network, NetworkInterface, TapName};
use crate::sys::tap::{self, Refusal, Tap};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long a tap may be in use still: the kernel closes what a VMM had open one after the other,
/// and may let go of its lock before its taps.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is tried meanwhile.
const TICK: Duration = Duration::from_millis(10);

/// An instance's interfaces on these networks, in their order, each with so many pairs of queues (0
/// is 1). The same instance gets the same ids and addresses again.
///
/// # Errors
/// None that an instance could have.
pub fn interfaces(
    networks: &[Network],
    queues: u8,
    instance: &InstanceId,
) -> Result<Vec<NetworkInterface>> {
    let new = |(n, network): (u8, &Network)| {
        NetworkInterface::new(instance, n, network.clone(), queues.max(1))
    };
    (0u8..).zip(networks).map(new).collect()
}

/// Checks that an instance can have interfaces on all of these networks: a tap carries one's
/// packets.
///
/// # Errors
/// `InvalidParameterCombination`: there are too many, or one is named twice.
pub fn check(networks: &[Network]) -> Result<()> {
    let refuse = |why: String| Err(Error::refused(Code::InvalidParameterCombination, why));
    let count = networks.len();
    if count > MAX_INTERFACES {
        return refuse(format!(
            "{count} networks are more than the {MAX_INTERFACES} that an instance may have"
        ));
    }
    let twice = |(n, network): (usize, &Network)| {
        matches!(network, Network::Tap(_)) && networks[..n].contains(network)
    };
    match networks.iter().enumerate().find(|&each| twice(each)) {
        Some((_, network)) => {
            refuse(format!("{network} is given twice, and a tap is one interface's"))
        }
        None => Ok(()),
    }
}

/// Opens the taps of an instance; its interfaces as devices, which are called by their ids. The
/// record gets the host's ports that were chosen.
///
/// # Errors
/// A tap is not there, another's, in use, or no tap.
pub fn open(
    fds: &mut Fds,
    dir: &InstanceDir,
    record: &mut InstanceRecord,
) -> Result<Vec<(DeviceId, DeviceKind)>> {
    let (store, user_data) = (dir.store(), metadata::user_data(dir)?);
    let mut devices = Vec::new();
    for index in 0..record.instance.network_interfaces.len() {
        let interface = &record.instance.network_interfaces[index];
        let (id, mac) = (interface.network_interface_id.clone(), interface.mac_address);
        let (taps, mtu) = match &interface.spore.network {
            Network::Tap(name) => {
                let (taps, mtu) = open_tap(name, interface.spore.queues)?;
                (taps.into_iter().map(OwnedFd::from).collect(), mtu)
            }
            Network::Named(_) => (vpc::attach(store, record, index, user_data.as_deref())?, MTU),
        };
        let limits = record.instance.spore.net_limits;
        let taps = taps.into_iter().map(|tap| fds.add(tap)).collect();
        let plan = NetPlan { taps, mac, mtu, limits };
        devices.push((id.as_str().parse()?, DeviceKind::Net(plan)));
    }
    Ok(devices)
}

/// Sees whether this user may open taps, those that are the user's.
///
/// # Errors
/// The host has none, or not for this user; the line says what helps.
pub fn check_host() -> Result<()> {
    tap::check().map_err(|refusal| explain("", 1, &refusal))
}

/// So many queues of a tap, and its MTU.
fn open_tap(name: &TapName, queues: u8) -> Result<(Vec<Tap>, u16)> {
    let name = name.as_str();
    let deadline = Instant::now() + PATIENCE;
    let open = |_| loop {
        match Tap::open(name, queues > 1) {
            Err(Refusal::Busy) if Instant::now() < deadline => std::thread::sleep(TICK),
            opened => return opened,
        }
    };
    let opened = (0..queues).map(open).collect::<Result<Vec<_>, _>>();
    let opened = opened.and_then(|taps| Ok((taps, Tap::mtu(name)?)));
    let (taps, mtu) = opened.map_err(|refusal| explain(name, queues, &refusal))?;
    let fits = u16::try_from(mtu).ok().filter(|mtu| *mtu >= NetPlan::MIN_MTU);
    let mtu = fits.ok_or_else(|| {
        let why = format!("tap {name} has an MTU of {mtu}; give it 68 to 65535 by 'ip link set'");
        Error::refused(Code::InvalidParameterValue, why)
    })?;
    Ok((taps, mtu))
}

/// Why a tap can't be had, and what helps.
fn explain(name: &str, queues: u8, refusal: &Refusal) -> Error {
    let (multi, many) =
        if queues > 1 { ("multi_queue ", "several queues") } else { ("", "one queue") };
    let make = format!("'ip tuntap add dev {name} mode tap {multi}user USER' (as root) makes one");
    let refused = |code, why: String| Error::refused(code, why);
    match *refusal {
        Refusal::NoDevice(errno) => tap::no_device(errno),
        Refusal::Missing => {
            refused(Code::InvalidParameterValue, format!("there is no tap {name}: {make}"))
        }
        Refusal::Busy => refused(
            Code::InvalidNetworkInterfaceInUse,
            format!("tap {name} is in use by another process; give each instance a tap of its own"),
        ),
        Refusal::Denied => refused(
            Code::OperationNotPermitted,
            format!("tap {name} is not this user's; {make}, of another name"),
        ),
        Refusal::OtherKind => refused(
            Code::InvalidParameterValue,
            format!("network device {name} is not a tap with {many}; {make}, of another name"),
        ),
        Refusal::Failed(errno) => Error::io(format!("open tap {name}"), cause(errno)),
    }
}

fn cause(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_one_line_with_a_remedy() {
        for (refusal, words) in [
            (Refusal::NoDevice(libc::ENOENT), ["/dev/net/tun is missing", "modprobe tun"]),
            (Refusal::NoDevice(libc::EACCES), ["may not open /dev/net/tun", "chmod 0666"]),
            (Refusal::NoDevice(libc::EMFILE), ["open /dev/net/tun", "Too many open files"]),
            (Refusal::Missing, ["no tap tap7", "ip tuntap add dev tap7 mode tap user"]),
            (Refusal::Busy, ["tap7 is in use", "of its own"]),
            (Refusal::Denied, ["not this user's", "ip tuntap"]),
            (Refusal::OtherKind, ["not a tap with one queue", "ip tuntap"]),
            (Refusal::Failed(libc::ENOMEM), ["open tap tap7", "Cannot allocate memory"]),
        ] {
            let reported = explain("tap7", 1, &refusal).to_string();
            assert!(words.iter().all(|word| reported.contains(word)), "{reported}");
            assert!(!reported.contains('\n'), "{reported}");
        }
        let reported = explain("tap7", 4, &Refusal::OtherKind).to_string();
        assert!(
            reported.contains("several queues") && reported.contains("multi_queue user"),
            "{reported}"
        );
    }
}
