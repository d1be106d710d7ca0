//! A machine with a network interface gets its address, asks who it is, and tells others.

mod dhcp;
mod dns;
mod metadata;
mod stack;
mod tcp;

use crate::identity::Identity;
use crate::rt::boot::Boot;
use crate::rt::cpu::tsc;
use crate::rt::machine::Machine;
use crate::rt::nic::Nic;
use crate::rt::rng::Rng;
use crate::{say, who};
use alloc::string::String;
use alloc::vec::Vec;
use metadata::Metadata;
use stack::{HERTZ, Stack};

/// Ticks between two looks at the power button.
const LOOK: u64 = HERTZ as u64 / 4;

/// Get an address by DHCP and the instance's metadata, which has to be this one's. `None` where
/// there is no interface.
pub fn join(machine: &Machine, identity: &Identity, rng: &mut Rng) -> Option<Stack> {
    let device = *machine.nics.first()?;
    let mut noise = [0; 8];
    rng.fill(&mut noise);
    let noise = u64::from_le_bytes(noise);
    let mut stack = Stack::new(Nic::start(device), noise as u16);
    let (name, mtu) = dhcp::configure(&mut stack, (noise >> 32) as u32);
    let (place, name) = (stack.place, String::from_utf8_lossy(&name));
    say!("network: {}/{} by DHCP, MTU {mtu}, name {name}", place.address, place.prefix);
    let metadata = Metadata::open(&mut stack);
    let mut get = |path| metadata.get(&mut stack, path).unwrap_or_else(|| panic!("no {path}"));
    let (id, index) = (get("meta-data/instance-id"), get("meta-data/ami-launch-index"));
    assert_eq!((&id, &index), (&identity.instance, &identity.index), "whose metadata is this?");
    let address = get("meta-data/local-ipv4");
    assert_eq!(address.parse(), Ok(place.address), "whose address is this?");
    say!("metadata: instance-id {id}, local-ipv4 {address}");
    Some(stack)
}

/// `demo.mode=net`: tell whoever connects the instance's id, and ask others for theirs:
/// `demo.peers=NAME:N` are NAME-0 to NAME-(N-1). `demo.gets=N` measures the metadata service by so
/// many requests, in between `demo.syns=N` connections that are begun and left.
pub fn serve(machine: &Machine) -> ! {
    let identity = who(machine);
    let mut rng = Rng::start(*machine.rngs.first().expect("a virtio entropy device"));
    let mut stack = join(machine, &identity, &mut rng).expect("a virtio network device");
    stack.said.extend(identity.instance.as_bytes());
    ask_peers(&mut stack, &machine.boot, &identity);
    measure_metadata(&mut stack, &machine.boot);
    loop {
        stack.until(LOOK, |_| None::<()>);
        if machine.acpi.power_button() {
            machine.acpi.power_off();
        }
    }
}

/// Ask each peer who it is, beginning with the next one; those who are not there yet, again.
fn ask_peers(stack: &mut Stack, boot: &Boot, identity: &Identity) {
    let Some((name, count)) = boot.option("demo.peers").and_then(|peers| peers.split_once(':'))
    else {
        return;
    };
    let count: usize = count.parse().expect("how many peers");
    let own: usize = identity.index.parse().expect("a launch index");
    for n in (own + 1..count).chain(0..own) {
        let name = alloc::format!("{name}-{n}.internal");
        let heard = loop {
            let address = dns::resolve(stack, &name);
            let heard = address.and_then(|address| stack.converse((address, tcp::PORT), b""));
            match heard {
                Some(heard) => break heard,
                None => stack.until(LOOK, |_| None::<()>),
            };
        };
        say!("peer: {name} is {}", String::from_utf8_lossy(&heard));
    }
    say!("peers: all {} have answered", count - 1);
}

/// How long the metadata service takes, from a connection's first packet to its last.
fn measure_metadata(stack: &mut Stack, boot: &Boot) {
    let number = |key| boot.option(key).map_or(0, |n| n.parse().expect("a number"));
    let (gets, syns): (usize, usize) = (number("demo.gets"), number("demo.syns"));
    if gets == 0 {
        return;
    }
    let metadata = Metadata::open(stack);
    let (begin, ticks) = (tsc(), stack.now());
    stack.until(HERTZ.into(), |_| None::<()>);
    let cycles = (tsc() - begin) / (stack.now() - ticks) * u64::from(HERTZ);
    stack.quiet = true;
    let mut took = Vec::with_capacity(gets);
    for n in 0..gets {
        (n * syns / gets..(n + 1) * syns / gets).for_each(|_| stack.knock(metadata::SERVICE));
        let begin = tsc();
        metadata.get(stack, "meta-data/instance-id").expect("an instance id");
        took.push((tsc() - begin) * 1_000_000 / cycles);
    }
    took.sort_unstable();
    let (median, p99, most) = (took[gets / 2], took[gets * 99 / 100], took[gets - 1]);
    say!("gets: {gets} with {syns} SYNs, us: median {median}, p99 {p99}, most {most}");
}
