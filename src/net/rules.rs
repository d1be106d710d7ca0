//! Which packets pass, as a script of nft(8): sources that are an interface's own, the rules of
//! security groups, and one address for all on the way out.
//!
//! The whole table is made anew in one transaction. Of IPv4 a source that is not the interface's
//! own has been dropped before by the strict rp_filter: each port is a route of one address.

use super::pasta::UPLINK;
use crate::plan::network::{GroupRules, IpPermission, IpProtocol, NetworkPlan, Port, tap_name};
use std::fmt::Write;

/// The script for a network with these groups and interfaces. (nft(8)) Protocols are numbers: their
/// names would be looked up in /etc/protocols, which a small system has not.
pub fn script(plan: &NetworkPlan, groups: &[GroupRules], ports: &[&Port]) -> String {
    let mut script = String::from("add table inet spore\ndelete table inet spore\n");
    script.push_str("table inet spore {\n");
    for group in groups {
        members(&mut script, group, ports);
    }
    sources(&mut script, ports);
    // What is not from an interface is this process's own: its services, and what comes in by it.
    script.push_str(
        "chain input { type filter hook input priority filter; policy drop;\n\
         ct state established,related accept\niifname \"lo\" accept\n\
         iifname \"t*\" udp dport { 53, 67, 547 } accept\niifname \"t*\" tcp dport { 53, 80 } accept\n\
         iifname \"t*\" meta l4proto { 1, 58 } accept\n}\n",
    );
    for port in ports {
        let tap = tap_name(&port.interface);
        let of = groups.iter().filter(|group| port.groups.contains(&group.group));
        let (mut ingress, mut egress) = (String::new(), String::new());
        for group in of {
            rules(&mut ingress, &group.ingress, "saddr", "accept");
            rules(&mut egress, &group.egress, "daddr", "goto deliver");
        }
        let _ = write!(script, "chain i_{tap} {{\n{ingress}}}\n");
        let _ = write!(script, "chain e_{tap} {{\n{egress}}}\n");
    }
    let verdicts = |prefix: &str| -> String {
        let each = ports.iter().map(|port| tap_name(&port.interface));
        let each: Vec<String> =
            each.map(|tap| format!("\"{tap}\" : goto {prefix}_{tap}")).collect();
        if each.is_empty() {
            return String::new();
        }
        let name = if prefix == "i" { "oifname" } else { "iifname" };
        format!("{name} vmap {{ {} }}\n", each.join(", "))
    };
    let out = if plan.isolated { String::new() } else { format!("oifname \"{UPLINK}\" accept\n") };
    // A chain that is gone to and ends gives its packet to the policy.
    let _ = write!(
        script,
        "chain deliver {{\n{out}{}}}\n\
         chain forward {{ type filter hook forward priority filter; policy drop;\n\
         ct state established,related accept\n{}}}\n\
         chain out {{ type nat hook postrouting priority srcnat;\noifname \"{UPLINK}\" masquerade\n}}\n}}\n",
        verdicts("i"),
        verdicts("e")
    );
    script
}

/// The addresses of a group's members, by which others' rules name it.
fn members(script: &mut String, group: &GroupRules, ports: &[&Port]) {
    let members: Vec<&&Port> =
        ports.iter().filter(|port| port.groups.contains(&group.group)).collect();
    let four = members.iter().map(|port| port.address.to_string()).collect::<Vec<_>>();
    let six =
        members.iter().filter_map(|port| Some(port.address6?.to_string())).collect::<Vec<_>>();
    for (suffix, kind, elements) in [("4", "ipv4_addr", four), ("6", "ipv6_addr", six)] {
        let _ = writeln!(
            script,
            "set {}_{suffix} {{ type {kind}; {}}}",
            set_name(group.group.as_str()),
            elements_of(&elements)
        );
    }
}

fn elements_of(elements: &[String]) -> String {
    if elements.is_empty() {
        return String::new();
    }
    format!("elements = {{ {} }}; ", elements.join(", "))
}

fn set_name(group: &str) -> String {
    group.replace('-', "_")
}

/// Of IPv6 only the interface's own address and those of its link are its sources: there is no
/// rp_filter.
fn sources(script: &mut String, ports: &[&Port]) {
    let own =
        |port: &&&Port| Some(format!("\"{}\" . {}", tap_name(&port.interface), port.address6?));
    let elements: Vec<String> = ports.iter().filter_map(|port| own(&port)).collect();
    let _ = write!(
        script,
        "set own {{ type ifname . ipv6_addr; {}}}\n\
         chain source {{ type filter hook prerouting priority raw;\n\
         iifname \"t*\" ip6 saddr != {{ fe80::/10, :: }} iifname . ip6 saddr != @own drop\n}}\n",
        elements_of(&elements)
    );
}

/// A line for each of what `permissions` allow.
fn rules(script: &mut String, permissions: &[IpPermission], side: &str, verdict: &str) {
    for permission in permissions {
        let what = protocol(permission);
        let ranges = permission.ip_ranges.iter().map(|range| match range.cidr_ip.prefix() {
            0 => "meta nfproto ipv4".to_owned(),
            _ => format!("ip {side} {}", range.cidr_ip),
        });
        let six = permission.ipv6_ranges.iter().map(|range| match range.cidr_ipv6.prefix() {
            0 => "meta nfproto ipv6".to_owned(),
            _ => format!("ip6 {side} {}", range.cidr_ipv6),
        });
        let groups = permission.user_id_group_pairs.iter().flat_map(|pair| {
            let set = set_name(pair.group_id.as_str());
            [format!("ip {side} @{set}_4"), format!("ip6 {side} @{set}_6")]
        });
        for whom in ranges.chain(six).chain(groups) {
            let _ = writeln!(script, "{whom} {what}{verdict}");
        }
    }
}

fn protocol(permission: &IpPermission) -> String {
    let IpPermission { ip_protocol, from_port, to_port, .. } = permission;
    let ports = |name: &str, number: u8| match (from_port, to_port) {
        (Some(from), Some(to)) => format!("{name} dport {from}-{to} "),
        _ => format!("meta l4proto {number} "),
    };
    let icmp = |name: &str, number: u8| match (from_port, to_port) {
        (Some(kind), Some(code)) if kind != code => {
            format!("{name} type {kind} {name} code {code} ")
        }
        (Some(kind), _) => format!("{name} type {kind} "),
        _ => format!("meta l4proto {number} "),
    };
    match ip_protocol {
        IpProtocol::All => String::new(),
        IpProtocol::Tcp => ports("tcp", 6),
        IpProtocol::Udp => ports("udp", 17),
        IpProtocol::Icmp => icmp("icmp", 1),
        IpProtocol::Icmpv6 => icmp("icmpv6", 58),
    }
}
