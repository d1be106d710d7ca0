//! The network's names, which it answers itself; other questions are the host's resolvers'.
//! (RFC 1035)

use crate::plan::network::{Cidr, Port};
use simple_dns::rdata::{A, AAAA, OPT, PTR, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The domain of all names of a network.
pub const DOMAIN: &str = "internal";
/// The longest question that is read, in bytes. (RFC 6891, 6.2.5)
pub const LONGEST: usize = 4096;
/// How long an answer may be kept, in seconds: instances come and go.
const TTL: u32 = 5;
/// Most addresses of an answer.
const MOST: usize = 2000;
/// The longest answer over UDP to who does not say otherwise (RFC 1035, 4.2.1), over UDP at all,
/// so that it is not fragmented (RFC 9715, 3.1), and over TCP. Bytes.
const SHORT: usize = 512;
const UNFRAGMENTED: usize = 1232;
const LONG: usize = 65_535;

/// Which names have which addresses.
#[derive(Debug, Default)]
pub struct Names {
    addresses: BTreeMap<String, Vec<(Ipv4Addr, Option<Ipv6Addr>)>>,
    hosts: BTreeMap<Ipv4Addr, String>,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// This is the answer.
    Local(Vec<u8>),
    /// The host's resolvers know.
    Forward,
    /// It is none.
    Ignore,
}

impl Names {
    /// Those of these interfaces.
    pub fn of<'a>(ports: impl Iterator<Item = &'a Port>) -> Self {
        let mut names = Self::default();
        for port in ports {
            for name in &port.names {
                let addresses = names.addresses.entry(name.to_ascii_lowercase()).or_default();
                addresses.push((port.address, port.address6));
            }
            if let Some(name) = port.names.first() {
                names.hosts.insert(port.address, format!("{name}.{DOMAIN}"));
            }
        }
        names
    }

    /// What becomes of the question in a message from an instance on `network`, which came over TCP
    /// if `stream`. An answer that is too long for UDP is cut: the instance asks over TCP then.
    pub fn reply(&self, network: Cidr, bytes: &[u8], stream: bool) -> Reply {
        let Ok(query) = Packet::parse(bytes) else { return Reply::Ignore };
        let [question] = &query.questions[..] else { return Reply::Ignore };
        if query.has_flags(PacketFlag::RESPONSE) || query.opcode() != OPCODE::StandardQuery {
            return Reply::Ignore;
        }
        let name = question.qname.to_string().to_ascii_lowercase();
        let mut reply = reply_to(&query);
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        let internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
        let found = match reversed(&name).filter(|address| network.contains(*address)) {
            _ if !internet => return Reply::Forward,
            Some(address) => self.host(address, question.qtype),
            None => match own(&name) {
                None => return Reply::Forward,
                Some(label) => self.of_name(label, question.qtype),
            },
        };
        match found {
            None => *reply.rcode_mut() = RCODE::NameError,
            Some(found) => {
                let record =
                    |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
                reply.answers = found.into_iter().map(record).collect();
            }
        }
        reply.questions.push(question.clone());
        let room = match query.opt() {
            _ if stream => LONG,
            Some(opt) => usize::from(opt.udp_packet_size).clamp(SHORT, UNFRAGMENTED),
            None => SHORT,
        };
        let whole = reply.build_bytes_vec_compressed();
        match whole {
            Ok(whole) if whole.len() <= room => Reply::Local(whole),
            _ => {
                reply.answers.clear();
                reply.set_flags(PacketFlag::TRUNCATION);
                built(&reply)
            }
        }
    }

    /// The addresses of a name; `None` if there is no such name.
    fn of_name(&self, label: &str, kind: QTYPE) -> Option<Vec<RData<'static>>> {
        let addresses = self.addresses.get(label)?.iter().take(MOST);
        let four = |(address, _): &(Ipv4Addr, _)| RData::A(A::from(*address));
        let six = |(_, address): &(_, Option<Ipv6Addr>)| Some(RData::AAAA(AAAA::from((*address)?)));
        Some(match kind {
            QTYPE::TYPE(TYPE::A) | QTYPE::ANY => addresses.map(four).collect(),
            QTYPE::TYPE(TYPE::AAAA) => addresses.filter_map(six).collect(),
            _ => Vec::new(),
        })
    }

    fn host(&self, address: Ipv4Addr, kind: QTYPE) -> Option<Vec<RData<'static>>> {
        let name = self.hosts.get(&address)?;
        let wanted = matches!(kind, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY);
        let name = Name::new(name).ok().filter(|_| wanted).map(Name::into_owned);
        Some(name.map(|name| RData::PTR(PTR(name))).into_iter().collect())
    }
}

/// What a reply to a query begins with.
fn reply_to<'a>(query: &Packet<'a>) -> Packet<'a> {
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if query.opt().is_some() {
        // RFC 6891, 6.1.1: who says so is told, too.
        let size = UNFRAGMENTED as u16;
        *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: size, version: 0 });
    }
    reply
}

fn built(reply: &Packet<'_>) -> Reply {
    reply.build_bytes_vec_compressed().map_or(Reply::Ignore, Reply::Local)
}

/// The answer to a question that nobody is asked for this network. (RFC 1035, 4.1.1)
pub fn refusal(bytes: &[u8]) -> Reply {
    let Ok(query) = Packet::parse(bytes) else { return Reply::Ignore };
    let mut reply = reply_to(&query);
    *reply.rcode_mut() = RCODE::Refused;
    reply.questions = query.questions;
    built(&reply)
}

/// The label of a name of the network's: one without a domain, or in [`DOMAIN`].
fn own(name: &str) -> Option<&str> {
    let label = name.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('.')).unwrap_or(name);
    if label.contains('.') && label.len() == name.len() { None } else { Some(label) }
}

/// The address that a name below in-addr.arpa is of. (RFC 1035, 3.5)
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_suffix(".in-addr.arpa")?;
    let address: Ipv4Addr = digits.parse().ok()?;
    let mut bytes = address.octets();
    bytes.reverse();
    Some(bytes.into())
}

/// The resolvers that a host's resolv.conf(5) names, three at most; its own if it names none.
pub fn resolvers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next());
        // Of a link-local one the scope is behind a percent sign, and it can't be used without.
        address?.parse().ok()
    };
    let named: Vec<IpAddr> = text.lines().filter_map(address).take(3).collect();
    match named.is_empty() {
        true => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        false => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::Question;

    fn names() -> Names {
        let port = |n: u8, names: &[&str]| Port {
            interface: format!("eni-{n:017x}").parse().unwrap(),
            instance: format!("i-{n:017x}").parse().unwrap(),
            mac: format!("02:00:00:00:00:{n:02x}").parse().unwrap(),
            address: Ipv4Addr::new(10, 0, 0, n),
            address6: (n == 5).then_some(Ipv6Addr::LOCALHOST),
            queues: 1,
            names: names.iter().map(ToString::to_string).collect(),
            groups: Vec::new(),
            metadata: None,
        };
        Names::of(
            [port(5, &["ip-10-0-0-5", "web-0", "web"]), port(6, &["ip-10-0-0-6", "web"])].iter(),
        )
    }

    fn query(name: &str, kind: TYPE) -> Vec<u8> {
        let mut query = Packet::new_query(77);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(name).unwrap();
        query.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        query.build_bytes_vec().unwrap()
    }

    /// The answer's code and what it has.
    fn ask(name: &str, kind: TYPE) -> Option<(RCODE, Vec<String>)> {
        match names().reply("10.0.0.0/16".parse().unwrap(), &query(name, kind), false) {
            Reply::Local(bytes) => {
                let reply = Packet::parse(&bytes).unwrap();
                assert_eq!((reply.id(), reply.questions.len()), (77, 1));
                let text = |record: &ResourceRecord<'_>| match &record.rdata {
                    RData::A(a) => Ipv4Addr::from(a.clone()).to_string(),
                    RData::AAAA(a) => Ipv6Addr::from(a.clone()).to_string(),
                    RData::PTR(name) => name.0.to_string(),
                    other => panic!("{other:?}"),
                };
                Some((reply.rcode(), reply.answers.iter().map(text).collect()))
            }
            Reply::Forward => None,
            Reply::Ignore => panic!("ignored"),
        }
    }

    #[test]
    fn instances_have_names_and_others_are_asked_for_the_rest() {
        let found = |values: &[&str]| {
            Some((RCODE::NoError, values.iter().map(ToString::to_string).collect::<Vec<_>>()))
        };
        assert_eq!(ask("web-0.internal", TYPE::A), found(&["10.0.0.5"]));
        assert_eq!(ask("WEB-0", TYPE::A), found(&["10.0.0.5"]));
        assert_eq!(ask("web", TYPE::A), found(&["10.0.0.5", "10.0.0.6"]));
        assert_eq!(ask("ip-10-0-0-5.internal", TYPE::AAAA), found(&["::1"]));
        assert_eq!(ask("ip-10-0-0-6.internal", TYPE::AAAA), found(&[]));
        assert_eq!(ask("5.0.0.10.in-addr.arpa", TYPE::PTR), found(&["ip-10-0-0-5.internal"]));
        for missing in ["web-9", "web-9.internal", "a.b.internal", "9.0.0.10.in-addr.arpa"] {
            assert_eq!(ask(missing, TYPE::A), Some((RCODE::NameError, vec![])), "{missing}");
        }
        for others in ["debian.org", "notinternal.x", "8.8.8.8.in-addr.arpa", "a.notinternal"] {
            assert_eq!(ask(others, TYPE::A), None, "{others}");
        }
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let network = "10.0.0.0/16".parse().unwrap();
        let good = query("web", TYPE::A);
        let mut reply = good.clone();
        reply[2] |= 0x80;
        for bad in [&reply[..], &good[..good.len() - 1], &[], &[0xff; 512]] {
            assert_eq!(names().reply(network, bad, false), Reply::Ignore);
        }
        // A name that is a pointer to itself.
        let mut looped = good[..12].to_vec();
        looped.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(names().reply(network, &looped, false), Reply::Ignore);
    }

    #[test]
    fn what_is_too_long_for_udp_is_cut_and_whole_over_tcp() {
        let port = |n: u16| Port {
            interface: format!("eni-{n:017x}").parse().unwrap(),
            instance: format!("i-{n:017x}").parse().unwrap(),
            mac: format!("02:00:00:00:{:02x}:{:02x}", n / 256, n % 256).parse().unwrap(),
            address: Ipv4Addr::from_bits(0x0a00_0000 + u32::from(n)),
            address6: Some(Ipv6Addr::from_bits(u128::from(n))),
            queues: 1,
            names: vec!["web".into()],
            groups: Vec::new(),
            metadata: None,
        };
        let ports: Vec<Port> = (4..104).map(port).collect();
        let names = Names::of(ports.iter());
        let network = "10.0.0.0/16".parse().unwrap();
        let ask = |bytes: &[u8], stream| match names.reply(network, bytes, stream) {
            Reply::Local(bytes) => {
                let reply = Packet::parse(&bytes).unwrap();
                (reply.has_flags(PacketFlag::TRUNCATION), reply.answers.len(), bytes.len())
            }
            other => panic!("{other:?}"),
        };
        for kind in [TYPE::A, TYPE::AAAA] {
            let question = query("web", kind);
            let (cut, count, length) = ask(&question, false);
            assert!(cut && count == 0 && length <= 512);
            let (cut, count, _) = ask(&question, true);
            assert!(!cut && count == 100);
        }
        // One that takes longer packets, of which there are none beyond what is not fragmented.
        let mut query = Packet::new_query(1);
        let name = Name::new("web.internal").unwrap();
        query.questions.push(Question::new(name, TYPE::AAAA.into(), CLASS::IN.into(), false));
        let opt = OPT { opt_codes: Vec::new(), udp_packet_size: 65_000, version: 0 };
        *query.opt_mut() = Some(opt);
        let (cut, _, length) = ask(&query.build_bytes_vec().unwrap(), false);
        assert!(cut && length <= 1232);
        assert!(matches!(refusal(&self::query("debian.org", TYPE::A)), Reply::Local(bytes)
            if Packet::parse(&bytes).unwrap().rcode() == RCODE::Refused));
        assert_eq!(refusal(&[0; 5]), Reply::Ignore);
    }

    #[test]
    fn a_hosts_resolvers_are_read() {
        let text = "# by hand\nsearch lan\nnameserver 127.0.0.53\n nameserver  ::1 \nnameserver fe80::1%eth0\n\
            nameserver x\nnameserver 9.9.9.9\nnameserver 1.1.1.1\n";
        let expected: Vec<IpAddr> =
            ["127.0.0.53", "::1", "9.9.9.9"].map(|a| a.parse().unwrap()).into();
        assert_eq!(resolvers(text), expected);
        assert_eq!(
            resolvers("search lan\n"),
            [IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()]
        );
    }
}
