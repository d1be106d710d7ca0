//! Names become addresses (RFC 1035).

use super::stack::{Stack, be16};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

const PORT: u16 = 53;
/// Type A, class IN.
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// The address of `name`.
pub fn resolve(stack: &mut Stack, name: &str) -> Option<Ipv4Addr> {
    let port = stack.port();
    let number = port.to_be_bytes();
    // One question, and recursion is desired.
    let mut question = Vec::with_capacity(64);
    question.extend(number);
    question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.push(0);
    question.extend(A_IN);
    let resolver = (stack.place.resolver, PORT);
    let answer = stack.ask(port, resolver, &question, |datagram| {
        let bytes = &datagram.payload;
        let own = datagram.from == resolver && bytes.len() >= 12 && bytes[..2] == number;
        own.then(|| first_address(bytes))
    });
    answer.flatten()
}

/// The first address of an answer to one question.
fn first_address(bytes: &[u8]) -> Option<Ipv4Addr> {
    let mut at = skip_name(bytes, 12)? + 4;
    for _ in 0..be16(bytes, 6) {
        at = skip_name(bytes, at)?;
        let record = bytes.get(at..at + 10)?;
        let data = bytes.get(at + 10..)?.get(..be16(record, 8).into())?;
        if record[..4] == A_IN {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at += 10 + data.len();
    }
    None
}

/// Where what follows the name at `at` begins.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            len => at += 1 + usize::from(len),
        }
    }
}
