//! EC2's instance metadata, version 2 (EC2 User Guide, "Use the Instance Metadata Service").

use super::stack::Stack;
use alloc::format;
use alloc::string::String;
use core::net::Ipv4Addr;

/// Where it is.
pub const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 169, 254), 80);

/// A session with the service.
pub struct Metadata {
    token: String,
}

impl Metadata {
    /// Get a token.
    pub fn open(stack: &mut Stack) -> Self {
        let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 21600";
        let (status, token) = request(stack, "PUT", "/latest/api/token", ttl);
        assert_eq!(status, 200, "the metadata service gives no token");
        Self { token }
    }

    /// What is at a path below `latest`; `None` if there is nothing.
    pub fn get(&self, stack: &mut Stack, path: &str) -> Option<String> {
        let token = format!("X-aws-ec2-metadata-token: {}", self.token);
        let (status, body) = request(stack, "GET", &format!("/latest/{path}"), &token);
        assert!(matches!(status, 200 | 404), "{path} is answered with {status}");
        (status == 200).then_some(body)
    }
}

/// One request; the answer's status and body.
fn request(stack: &mut Stack, method: &str, path: &str, header: &str) -> (u16, String) {
    let host = SERVICE.0;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n");
    let answer =
        stack.converse(SERVICE, request.as_bytes()).expect("an answer of the metadata service");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.into())
}
