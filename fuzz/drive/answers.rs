//! What processes of ours say that somebody's bytes may have taken over: a helper that has a disk's
//! layers, one that looked for secrets, and a VMM on its ready pipe, in its report and on its
//! control socket.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sporevm::control::{DiskLayers, Request, Response};
use sporevm::disk::answers::Answers;
use sporevm::inspect::secrets;
use sporevm::plan::{EndReason, Ready, ResetBy, VmReport};

/// Bytes that are asked for at once.
const PIECE: usize = 4096;
/// What is left of the disk where an extent is asked for.
const REST: u64 = 1 << 20;

/// The first byte says whose words the others are.
pub fn drive(data: &[u8]) {
    let (which, data) = super::number(data);
    match which % 3 {
        0 => disk(data),
        1 => look(data),
        _ => data.split(|&byte| byte == b'\n').for_each(vmm),
    }
}

fn disk(data: &[u8]) {
    let mut answers = Answers(data);
    let line = |error: std::io::Error| {
        let text = error.to_string();
        assert!(!text.contains(['\n', '\x1b']), "{text:?}");
    };
    match answers.size() {
        Ok(size) => assert!(size.is_multiple_of(512)),
        Err(error) => return line(error),
    }
    let mut bytes = [0; PIECE];
    while !answers.0.is_empty() {
        let heard = match answers.0[0] & 1 {
            0 => answers.bytes(&mut bytes),
            _ => answers.extent(REST).map(|(_, len)| assert!((1..=REST).contains(&len))),
        };
        if let Err(error) = heard {
            line(error);
        }
    }
}

fn look(data: &[u8]) {
    let report = secrets::understand(&String::from_utf8_lossy(data));
    assert!(report.found.len() <= data.split(|&byte| byte == b'\n').count());
    for secret in report.found {
        assert!(!secret.what.is_empty() && !secret.path.contains('\n'));
    }
}

/// What is read is written and read again.
fn again<T: Serialize + DeserializeOwned>(line: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(line) {
        let text = serde_json::to_vec(&value).unwrap();
        let value: T = serde_json::from_slice(&text).unwrap();
        assert_eq!(serde_json::to_vec(&value).unwrap(), text);
    }
}

fn vmm(line: &[u8]) {
    again::<Ready>(line);
    again::<VmReport>(line);
    again::<Response>(line);
    if let Ok(Response::Error { message }) = serde_json::from_slice(line) {
        for request in [Request::Terminate {}, Request::Layers {}] {
            assert!(!request.explain(message.clone()).is_empty() || message.is_empty());
        }
    }
}

/// Answers of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let number = |n: u64| n.to_le_bytes();
    let size = [&b"\0b"[..], &number(1 << 20)].concat();
    let piece = [&b"b"[..], &[7; PIECE]].concat();
    let extents = [&b"e\x01"[..], &number(512), b"e\0", &number(REST)].concat();
    let why = b"w\x05\0\0\0no\x1b\nt".to_vec();
    let disk = [size.clone(), piece, extents, why.clone()].concat();
    let layers = DiskLayers { top: 5, layers: 2, sealed: true, error: Some("no".into()) };
    let disks = [("/dev/vda".parse().unwrap(), layers)].into();
    let said = [
        serde_json::to_string(&Response::Layers { disks }),
        serde_json::to_string(&Response::Error { message: "not a request: x".into() }),
        serde_json::to_string(&Response::Frozen { pause_us: 12 }),
        serde_json::to_string(&Ready::Running { engines: Default::default() }),
        serde_json::to_string(&VmReport::Reset { at: 7, by: ResetBy::Acpi }),
        serde_json::to_string(&VmReport::Notice { at: 7, message: "a\nb".into() }),
        serde_json::to_string(&VmReport::Ended { at: 8, reason: EndReason::GuestPoweroff, message: "off".into() }),
    ];
    let said: Vec<String> = said.into_iter().map(Result::unwrap).collect();
    vec![
        disk,
        [&b"\0"[..], &why].concat(),
        b"\x010 /root/.ssh/id_rsa\n2 /home/x\n99 /y\n- stopped\n".to_vec(),
        [&b"\x02"[..], said.join("\n").as_bytes()].concat(),
    ]
}
