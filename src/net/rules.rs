//! Which packets pass: sources that are an interface's own, the rules of security groups, and one
//! address for all on the way out.
//!
//! A packet that is passed on meets two chains: the rules of the interface that it came by, then
//! those of the one that it goes by, each found by its name. So an interface that comes or goes
//! changes its own chains and keys, and nothing of the others'. Of IPv4 a source that is not the
//! interface's own has been dropped before by the strict rp_filter: each port is a route of one
//! address.

use super::nftables::{Hook, Key, Rule, Side, Tables, Verdict, interface_key};
use super::pasta::{GATEWAY6, UPLINK};
use crate::error::{OrFail, Result};
use crate::id::SecurityGroupId;
use crate::plan::network::{GroupRules, IpPermission, IpProtocol, Port, tap_name};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The table.
const TABLE: &str = "spore";
/// All interfaces of instances: [`tap_name`].
const TAPS: &str = "t*";
/// The rules of the interface that a packet came by, and of the one that it goes by.
const EGRESS: &str = "egress";
const INGRESS: &str = "ingress";
/// Interfaces and their own addresses of IPv6.
const OWN: &str = "own";

/// Protocols by number. (IANA)
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Services of the network: DNS, DHCP, DHCPv6; DNS and instance metadata.
const SERVICES: [(u8, u16); 5] = [(UDP, 53), (UDP, 67), (UDP, 547), (TCP, 53), (TCP, 80)];

/// The rules of a network, and what the kernel has of them.
#[derive(Debug)]
pub struct Rules {
    tables: Tables,
    /// Absent: not known, and to be made anew.
    held: Option<Held>,
}

/// Groups by their sets' names, and interfaces by their taps'.
#[derive(Debug, Default)]
struct Held {
    groups: BTreeMap<String, Group>,
    ports: BTreeMap<String, Member>,
}

#[derive(Debug, PartialEq)]
struct Group {
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
}

#[derive(Debug, PartialEq)]
struct Member {
    address: Ipv4Addr,
    address6: Option<Ipv6Addr>,
    /// Names of sets.
    groups: BTreeSet<String>,
}

impl Rules {
    /// Those of this network namespace.
    ///
    /// # Errors
    /// The kernel has no nf_tables.
    pub fn open() -> Result<Self> {
        let tables = Tables::open(TABLE).or_fail(doing).map_err(explain)?;
        Ok(Self { tables, held: None })
    }

    /// Has the rules of all interfaces hold.
    ///
    /// # Errors
    /// The kernel lacks a part of nf_tables.
    pub fn apply<'a>(
        &mut self,
        isolated: bool,
        groups: &[GroupRules],
        ports: impl Iterator<Item = &'a Port>,
    ) -> Result<()> {
        let wanted = Held::of(groups, ports);
        let done = match self.held.take() {
            Some(held) => held.becomes(&wanted, &mut self.tables),
            None => base(&mut self.tables, isolated)
                .and_then(|()| Held::default().becomes(&wanted, &mut self.tables)),
        };
        done.and_then(|()| self.tables.commit()).or_fail(doing).map_err(explain)?;
        self.held = Some(wanted);
        Ok(())
    }
}

fn doing() -> &'static str {
    "set which packets pass"
}

fn explain(error: crate::error::Error) -> crate::error::Error {
    error.remedy("the host's kernel has to have nftables: its modules nf_tables, nft_ct, nft_masq and nft_chain_nat")
}

/// The table without an interface.
fn base(tables: &mut Tables, isolated: bool) -> io::Result<()> {
    const FILTER: i32 = 0;
    const RAW: i32 = -300;
    const SOURCE_NAT: i32 = 100;
    tables.renew()?;
    tables.set(OWN, Key::InterfaceAddress6, false)?;
    tables.set(EGRESS, Key::Interface, true)?;
    tables.set(INGRESS, Key::Interface, true)?;
    let accept = |rule: Rule| rule.then(Verdict::Accept);
    let new = Rule::default;

    // pasta takes an IPv4 address in IPv6's form (RFC 4291, 2.5.5.2) for that address, loopback's
    // too; and nobody has business with what is between it and this namespace, where each address
    // that is looked for would be a neighbour of the kernel's.
    tables.hook("source", Hook::Prerouting, RAW, false, false)?;
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    for (refused, prefix) in [(mapped, 96), (GATEWAY6, 64)] {
        let to = new().came_by(TAPS).within(Side::Destination, refused.into(), prefix);
        tables.rule("source", &to.then(Verdict::Drop))?;
    }
    // Of IPv6 only the interface's own address and those of its link are its sources: there is no
    // rp_filter.
    let link = |address: Ipv6Addr, prefix| {
        accept(new().came_by(TAPS).within(Side::Source, address.into(), prefix))
    };
    tables.rule("source", &link(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10))?;
    tables.rule("source", &link(Ipv6Addr::UNSPECIFIED, 128))?;
    tables.rule("source", &new().came_by(TAPS).foreign(OWN).then(Verdict::Drop))?;

    // What is not from an interface is this process's own: its services, and what comes in by it.
    tables.hook("input", Hook::Input, FILTER, false, true)?;
    tables.rule("input", &accept(new().known()))?;
    tables.rule("input", &accept(new().came_by("lo")))?;
    for (protocol, port) in SERVICES {
        let service = new().came_by(TAPS).protocol(protocol).ports(port, port);
        tables.rule("input", &accept(service))?;
    }
    for protocol in [ICMP, ICMPV6] {
        tables.rule("input", &accept(new().came_by(TAPS).protocol(protocol)))?;
    }
    // Which neighbour has an address is no connection's to tell.
    tables.rule("input", &accept(new().came_by(UPLINK).protocol(ICMPV6)))?;

    // Accepted by the first, a packet comes to the second.
    tables.hook("leaving", Hook::Forward, FILTER, false, true)?;
    tables.rule("leaving", &accept(new().known()))?;
    tables.rule("leaving", &new().verdict_of(Side::Source, EGRESS))?;
    tables.hook("arriving", Hook::Forward, FILTER + 1, false, true)?;
    tables.rule("arriving", &accept(new().known()))?;
    if !isolated {
        tables.rule("arriving", &accept(new().goes_by(UPLINK)))?;
    }
    tables.rule("arriving", &new().verdict_of(Side::Destination, INGRESS))?;

    tables.hook("out", Hook::Postrouting, SOURCE_NAT, true, false)?;
    tables.rule("out", &new().goes_by(UPLINK).masquerade())
}

impl Held {
    fn of<'a>(groups: &[GroupRules], ports: impl Iterator<Item = &'a Port>) -> Self {
        let known: BTreeSet<String> = groups.iter().map(|group| set_name(&group.group)).collect();
        let group = |group: &GroupRules| {
            let rules = |permissions: &[IpPermission], side| {
                permissions.iter().flat_map(|one| rules(one, side, &known)).collect()
            };
            let ingress = rules(&group.ingress, Side::Source);
            let egress = rules(&group.egress, Side::Destination);
            (set_name(&group.group), Group { ingress, egress })
        };
        let member = |port: &Port| {
            let groups = port.groups.iter().map(set_name).filter(|name| known.contains(name));
            let (address, address6) = (port.address, port.address6);
            (tap_name(&port.interface), Member { address, address6, groups: groups.collect() })
        };
        Self { groups: groups.iter().map(group).collect(), ports: ports.map(member).collect() }
    }

    /// What leads from what is held to what is wanted.
    fn becomes(&self, wanted: &Self, tables: &mut Tables) -> io::Result<()> {
        for name in wanted.groups.keys().filter(|name| !self.groups.contains_key(*name)) {
            tables.set(&of_four(name), Key::Address4, false)?;
            tables.set(&of_six(name), Key::Address6, false)?;
        }
        for (tap, member) in &self.ports {
            match wanted.ports.get(tap) {
                Some(kept) if kept == member => {
                    let mut of = member.groups.iter();
                    if of.any(|name| self.groups.get(name) != wanted.groups.get(name)) {
                        wanted.fill(tap, member, tables, Tables::clear)?;
                    }
                }
                _ => leave(tap, member, tables)?,
            }
        }
        for (tap, member) in &wanted.ports {
            if self.ports.get(tap) != Some(member) {
                let make = |tables: &mut Tables, chain: &str| tables.chain(chain);
                wanted.fill(tap, member, tables, make)?;
                join(tap, member, tables)?;
            }
        }
        for name in self.groups.keys().filter(|name| !wanted.groups.contains_key(*name)) {
            tables.delete_set(&of_four(name))?;
            tables.delete_set(&of_six(name))?;
        }
        Ok(())
    }

    /// The rules of an interface's groups, in its chains, which `begin` makes or empties.
    fn fill(
        &self,
        tap: &str,
        member: &Member,
        tables: &mut Tables,
        begin: impl Fn(&mut Tables, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        let groups = || member.groups.iter().filter_map(|name| self.groups.get(name));
        begin(tables, &ingress(tap))?;
        for rule in groups().flat_map(|group| &group.ingress) {
            tables.rule(&ingress(tap), rule)?;
        }
        begin(tables, &egress(tap))?;
        for rule in groups().flat_map(|group| &group.egress) {
            tables.rule(&egress(tap), rule)?;
        }
        Ok(())
    }
}

/// An interface's chains are found, and its addresses are its groups'.
fn join(tap: &str, member: &Member, tables: &mut Tables) -> io::Result<()> {
    for (set, key) in keys(tap, member) {
        tables.element(&set, &key, None)?;
    }
    let key = interface_key(tap);
    tables.element(EGRESS, &key, Some(Verdict::Goto(&egress(tap))))?;
    tables.element(INGRESS, &key, Some(Verdict::Goto(&ingress(tap))))
}

/// The contrary of [`join`]; the chains are gone, too.
fn leave(tap: &str, member: &Member, tables: &mut Tables) -> io::Result<()> {
    for (set, key) in keys(tap, member) {
        tables.delete_element(&set, &key)?;
    }
    for (map, chain) in [(EGRESS, egress(tap)), (INGRESS, ingress(tap))] {
        tables.delete_element(map, &interface_key(tap))?;
        tables.clear(&chain)?;
        tables.delete_chain(&chain)?;
    }
    Ok(())
}

/// The keys of an interface, each with its set.
fn keys(tap: &str, member: &Member) -> Vec<(String, Vec<u8>)> {
    let mut keys = Vec::new();
    for group in &member.groups {
        keys.push((of_four(group), member.address.octets().to_vec()));
        keys.extend(member.address6.map(|six| (of_six(group), six.octets().to_vec())));
    }
    let own = |six: Ipv6Addr| [&interface_key(tap)[..], &six.octets()].concat();
    keys.extend(member.address6.map(|six| (OWN.to_owned(), own(six))));
    keys
}

fn egress(tap: &str) -> String {
    format!("e_{tap}")
}

fn ingress(tap: &str) -> String {
    format!("i_{tap}")
}

/// The addresses of a group's members, by which others' rules name it.
fn set_name(group: &SecurityGroupId) -> String {
    group.as_str().replace('-', "_")
}

fn of_four(group: &str) -> String {
    format!("{group}_4")
}

fn of_six(group: &str) -> String {
    format!("{group}_6")
}

/// A rule for each of whom `permission` allows something. A group that is not known has no members.
fn rules(permission: &IpPermission, side: Side, known: &BTreeSet<String>) -> Vec<Rule> {
    let four = permission.ip_ranges.iter().map(|range| {
        let cidr = range.cidr_ip;
        Rule::default().within(side, IpAddr::V4(cidr.network()), cidr.prefix())
    });
    let six = permission.ipv6_ranges.iter().map(|range| {
        let cidr = range.cidr_ipv6;
        Rule::default().within(side, IpAddr::V6(cidr.network()), cidr.prefix())
    });
    let groups = permission.user_id_group_pairs.iter().map(|pair| set_name(&pair.group_id));
    let groups = groups.filter(|name| known.contains(name)).flat_map(|name| {
        [(false, of_four(&name)), (true, of_six(&name))]
            .map(|(six, set)| Rule::default().within_set(side, six, &set))
    });
    four.chain(six)
        .chain(groups)
        .map(|rule| protocol(rule, permission).then(Verdict::Accept))
        .collect()
}

fn protocol(rule: Rule, permission: &IpPermission) -> Rule {
    let IpPermission { ip_protocol, from_port, to_port, .. } = *permission;
    let ports = |rule: Rule, number| match (from_port, to_port) {
        (Some(from), Some(to)) => rule.protocol(number).ports(from, to),
        _ => rule.protocol(number),
    };
    // The type is the header's first byte, the code its second. (RFC 792, RFC 4443 2.1)
    let icmp = |rule: Rule, number| {
        let byte = |value: u16| u8::try_from(value).unwrap_or(u8::MAX);
        match (from_port, to_port) {
            (Some(kind), Some(code)) if kind != code => {
                rule.protocol(number).transport_byte(0, byte(kind)).transport_byte(1, byte(code))
            }
            (Some(kind), _) => rule.protocol(number).transport_byte(0, byte(kind)),
            _ => rule.protocol(number),
        }
    };
    match ip_protocol {
        IpProtocol::All => rule,
        IpProtocol::Tcp => ports(rule, TCP),
        IpProtocol::Udp => ports(rule, UDP),
        IpProtocol::Icmp => icmp(rule, ICMP),
        IpProtocol::Icmpv6 => icmp(rule, ICMPV6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::process::Command;

    const WEB: &str = "sg-0123456789abcdef0";
    const OTHER: &str = "sg-0123456789abcdef1";

    fn port(n: u32, groups: &[&str]) -> Port {
        Port {
            interface: format!("eni-{n:014x}000").parse().unwrap(),
            instance: "i-0123456789abcdef0".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            address: (0x0a00_0004 + n).into(),
            address6: (!n.is_multiple_of(3)).then(|| (0xfd << 120 | u128::from(n)).into()),
            queues: 1,
            names: Vec::new(),
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            metadata: None,
        }
    }

    fn group(group: &str, ingress: serde_json::Value) -> GroupRules {
        let any = json!([{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]);
        let rules = json!({"group": group, "ingress": ingress, "egress": any});
        serde_json::from_value(rules).unwrap()
    }

    /// A group with each kind of rule, and how nft(8) says them.
    fn each_kind() -> (GroupRules, Vec<String>) {
        let all = json!([
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.1.0.0/16"}]},
            {"IpProtocol": "udp", "FromPort": 60, "ToPort": 99, "IpRanges": [{"CidrIp": "10.1.2.128/25"}]},
            {"IpProtocol": "tcp", "Ipv6Ranges": [{"CidrIpv6": "fd00:1::/33"}]},
            {"IpProtocol": "icmp", "FromPort": 8, "IpRanges": [{"CidrIp": "10.1.2.3/32"}]},
            {"IpProtocol": "icmp", "FromPort": 3, "ToPort": 4, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
            {"IpProtocol": "icmpv6", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": OTHER}]}
        ]);
        let said = [
            "ip saddr 10.1.0.0/16 tcp dport 22 accept",
            "ip saddr 10.1.2.128/25 udp dport 60-99 accept",
            "ip6 saddr fd00:1::/33 meta l4proto tcp accept",
            "ip saddr 10.1.2.3 icmp type echo-request accept",
            "icmp type destination-unreachable icmp code frag-needed accept",
            "meta l4proto ipv6-icmp accept",
            "ip saddr @sg_0123456789abcdef1_4 accept",
            "ip6 saddr @sg_0123456789abcdef1_6 accept",
        ];
        (group(WEB, all), said.map(str::to_owned).to_vec())
    }

    /// The table as nft(8) shows it, line by line, in no order.
    fn listed() -> Vec<String> {
        let list = Command::new("nft").args(["list", "table", "inet", TABLE]).output().unwrap();
        assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
        let text = String::from_utf8(list.stdout).unwrap();
        let mut lines: Vec<String> =
            text.split(['\n', ',', '{', '}']).map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    }

    /// Does `work` in a process of its own, whose network namespace is new: this test, begun anew.
    fn in_a_network(test: &str, work: impl FnOnce()) {
        const INSIDE: &str = "SPORE_TEST_IN_A_NETWORK";
        if std::env::var_os(INSIDE).is_some() {
            return work();
        }
        let unshare = || {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--net", "--"]);
            command
        };
        let possible = unshare().args(["nft", "add", "table", "inet", "probe"]).output();
        if !possible.is_ok_and(|done| done.status.success()) {
            println!("skipped: {test}: no user namespaces, no nf_tables or no nft");
            return;
        }
        let own = std::env::current_exe().unwrap();
        let words = ["--exact", test, "--nocapture"];
        let done = unshare().arg(own).args(words).env(INSIDE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
    }

    /// A network of as many interfaces as no transaction has room for, of an unprivileged user's
    /// socket: and what changes leads to the same as making all anew.
    #[test]
    fn rules_follow_a_thousand_interfaces() {
        in_a_network("net::rules::tests::rules_follow_a_thousand_interfaces", || {
            let (web, said) = each_kind();
            let other = group(OTHER, json!([]));
            let before: Vec<Port> =
                (0..1000).map(|n| port(n, &[WEB, OTHER][..1 + n as usize % 2])).collect();
            let mut rules = Rules::open().unwrap();
            rules.apply(false, &[web.clone(), other.clone()], before.iter()).unwrap();
            let lines = listed();
            for rule in said {
                assert!(lines.contains(&rule), "{rule}");
            }
            for refused in ["::ffff:0.0.0.0/96 drop", "fd00:ec2:0:1::/64 drop"] {
                assert!(lines.iter().any(|line| line.ends_with(refused)), "{refused}");
            }
            // Some go, some come, some change their groups; a group changes, and another is gone.
            let mut after: Vec<Port> = before[500..].to_vec();
            after.extend((1000..1100).map(|n| port(n, &[WEB])));
            after[3].groups.clear();
            after[4].address = "10.9.9.9".parse().unwrap();
            let web = group(
                WEB,
                json!([{"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1,
                "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]),
            );
            rules.apply(false, std::slice::from_ref(&web), after.iter()).unwrap();
            let changed = listed();
            let mut anew = Rules::open().unwrap();
            anew.apply(false, &[web], after.iter()).unwrap();
            assert_eq!(changed, listed());
        });
    }
}
