//! The launcher's and the VMM's end of the socket to a reader of menus that somebody has taken
//! over.

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::net::{RecvFlags, sockopt::{Timeout, set_socket_timeout}};
use sporevm::pvgrub::{Child, Wanted};
use std::time::Duration;

/// Packets: length in two bytes, then as many bytes. All are said, whatever is asked; then the
/// reader is gone.
pub fn drive(data: &[u8]) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    for direction in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&theirs, direction, Some(Duration::from_secs(10))).unwrap();
    }
    let (which, mut rest) = super::number(data);
    let mut packets = Vec::new();
    while let Some((len, tail)) = rest.split_at_checked(2) {
        let len = usize::from(u16::from_le_bytes([len[0], len[1]])).min(tail.len());
        packets.push(tail[..len].to_vec());
        rest = &tail[len..];
    }
    let reader = std::thread::spawn(move || {
        let mut heard = vec![0; 1 << 17];
        for packet in packets.iter().filter(|packet| !packet.is_empty()) {
            if send(&theirs, packet, SendFlags::NOSIGNAL).is_err() {
                return;
            }
            while recv(&theirs, &mut heard[..], RecvFlags::DONTWAIT).is_ok_and(|(len, _)| len > 0) {}
        }
        let _ = rustix::net::shutdown(&theirs, rustix::net::Shutdown::Write);
        while recv(&theirs, &mut heard[..], RecvFlags::empty()).is_ok_and(|(len, _)| len > 0) {}
    });
    let child = Child::from_socket(ours);
    let boot = super::any_boot();
    let disk = vec![7u8; 64 << 10];
    let failure = match which & 3 {
        0 => child.boot(&disk, &boot, &mut |_| Wanted::default()).err(),
        1 => child.list(&disk, &boot).err(),
        2 => child.detect(&disk).err(),
        _ => {
            let failed = child.unpack(&disk).err();
            reader.join().unwrap();
            assert!(failed.is_none_or(|e| !e.message().is_empty()));
            return;
        }
    };
    drop(child);
    reader.join().unwrap();
    if let Some(error) = failure {
        assert!(!error.message().contains('\n'), "{error}");
    }
}

/// Conversations of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let talk = |which: u8, packets: &[&[u8]]| {
        let mut seed = vec![which];
        for packet in packets {
            seed.extend((packet.len() as u16).to_le_bytes());
            seed.extend(*packet);
        }
        seed
    };
    let read: &[u8] = br#"r{"offset":0,"len":512}"#;
    vec![
        talk(3, &[read, b"kELF", b"k", b"a\"Unpacked\"", b"a", b"e"]),
        talk(1, &[read, br#"a{"Listed":{"menu":"/boot/grub/menu.lst","entries":[]}}"#, b"a", b"e"]),
        talk(0, &[read, br#"a{"Failed":"no menu"}"#, b"a", b"e"]),
        talk(2, &[b"enothing"]),
        talk(3, &[b"k", b"k", b"k", b"a", b"a", b"e"]),
    ]
}
