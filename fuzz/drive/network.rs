//! What a guest sends to its network's services, and what another process of the user's asks of
//! the network's: DHCP, DNS, the control socket.

use sporevm::control::network::Request;
use sporevm::net::{dhcp, dhcp6, dns};
use sporevm::plan::network::{Port, tap_name};

fn port() -> Port {
    Port {
        interface: "eni-0123456789abcdef0".parse().unwrap(),
        instance: "i-0123456789abcdef0".parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        address: "10.0.0.5".parse().unwrap(),
        address6: Some("fd00:1::a00:5".parse().unwrap()),
        queues: 1,
        names: vec!["ip-10-0-0-5".into(), "web".into()],
        groups: vec!["sg-0123456789abcdef0".parse().unwrap()],
        metadata: None,
    }
}

/// The first byte says who hears the rest.
pub fn drive(data: &[u8]) {
    let (kind, rest) = super::number(data);
    let (port, network) = (port(), "10.0.0.0/16".parse().unwrap());
    match kind % 4 {
        0 => {
            let rest = &rest[..rest.len().min(dhcp::LONGEST)];
            if let Some((answer, to)) = dhcp::answer(network, &port, rest) {
                assert!((300..=dhcp::LONGEST).contains(&answer.len()) && to.port() == 68);
                // To whoever asks nothing is given but what is its own.
                let given = &answer[16..20];
                assert!(given == port.address.octets() || given == [0; 4]);
            }
        }
        1 => {
            let names = dns::Names::of(std::iter::once(&port));
            if let dns::Reply::Local(answer) = names.reply(network, rest, kind >= 128) {
                assert!(answer.len() <= 65_535 && answer[..2] == rest[..2]);
            }
        }
        2 => {
            let rest = &rest[..rest.len().min(dhcp6::LONGEST)];
            if let Some(answer) = dhcp6::answer(&port, rest) {
                assert!(answer.len() < 2 * dhcp6::LONGEST && answer[1..4] == rest[1..4]);
            }
        }
        _ => {
            let Ok(Request::Add { port, .. }) = serde_json::from_slice(rest) else { return };
            let name = tap_name(&port.interface);
            assert!((2..16).contains(&name.len()), "{name}");
        }
    }
}

/// A request for an address, a question, and an interface to be added.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut request = vec![0; 1 + 240];
    request[1..4].copy_from_slice(&[1, 1, 6]);
    request[29..35].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    request[237..241].copy_from_slice(&[99, 130, 83, 99]);
    request.extend([53, 1, 3, 50, 4, 10, 0, 0, 5, 54, 4, 10, 0, 0, 1, 255]);
    let mut question = vec![1, 0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(b"\x03web\x08internal\0\0\x01\0\x01");
    let add = serde_json::to_vec(&Request::Add { port: Box::new(port()), publish: Vec::new() }).unwrap();
    let mut solicitation = vec![2, 1, 7, 8, 9, 0, 1, 0, 4, 0, 3, 0, 1, 0, 3, 0, 40];
    solicitation.extend(b"ia01\0\0\0\0\0\0\0\0\0\x05\0\x18\xfd\0\0\x01");
    solicitation.extend([0; 20]);
    vec![request, question, solicitation, [&[3], &add[..]].concat()]
}
