//! Text that somebody tells: what a guest's service manager says of itself, what a guest writes on
//! its console, a public key, the host's resolv.conf.

use sporevm::instance::{cloud_init, plain::Plain};
use sporevm::key::material;
use sporevm::net::dns;
use sporevm::virtio::vsock::notify::{MAX_VARIABLES, Message, Notified};

/// The first byte says what the rest is.
pub fn drive(data: &[u8]) {
    let (kind, rest) = super::number(data);
    let text = String::from_utf8_lossy(rest);
    match kind % 5 {
        0 => notify(rest),
        1 => {
            for key in cloud_init::keys_in(&text) {
                let known = key.bytes().all(|c| c.is_ascii_graphic() || c == b' ');
                assert!(known && key.split(' ').count() == 2, "{key:?}");
            }
        }
        2 => console(rest),
        3 => {
            if let Ok(key) = material::parse(&text) {
                assert_eq!(key.openssh.lines().count(), 1);
                // It is what it says: read again it is the same.
                let again = material::parse(&key.openssh).unwrap();
                assert_eq!((again.openssh, again.fingerprint), (key.openssh, key.fingerprint));
            }
        }
        _ => assert!(dns::resolvers(&text).len() <= 3),
    }
}

/// Messages that end at bytes of 0, each in two pieces.
fn notify(bytes: &[u8]) {
    let notified = Notified::default();
    for told in bytes.split(|byte| *byte == 0) {
        let (first, second) = told.split_at(told.len() / 2);
        let mut message = Message::default();
        if message.add(first) && message.add(second) {
            notified.take(&message);
        }
    }
    let variables = notified.variables();
    assert!(variables.len() <= MAX_VARIABLES);
    assert!(variables.values().all(|value| !value.contains(|c: char| c.is_control())));
}

/// What may be shown of a console is the same however it comes, and steers no terminal.
fn console(bytes: &[u8]) {
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let mut plain = Plain::default();
    plain.feed(bytes, &mut whole);
    plain.finish(&mut whole);
    bytes.chunks(3).for_each(|piece| plain.feed(piece, &mut pieces));
    plain.finish(&mut pieces);
    assert_eq!(whole, pieces);
    assert!(!Plain::text(bytes).contains('\x1b'));
}

/// One of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOafpsYHeKh5GjsyagVXcwcYA4HM/Wqs6xIBvd7dCawl me";
    let console = format!(
        "-----BEGIN SSH HOST KEY KEYS-----\r\n<14>cloud-init: {key}\r\n-----END SSH HOST KEY KEYS-----\r\n"
    );
    [
        (0, "X_SYSTEMD_UNIT_ACTIVE=ssh.service\nREADY=1\0STATUS=up\nX_SYSTEMD_HOSTNAME=web"),
        (1, &*console),
        (2, "\x1b[1;32mok\x1b[0m \x1b]0;title\x07 \x1b[2J\x1bP+q\x1b\\ \u{9b}31m\r\n\ttext\x08"),
        (3, key),
        (4, "search example.org\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n# none\n"),
    ]
    .map(|(kind, text)| [&[kind], text.as_bytes()].concat())
    .to_vec()
}
