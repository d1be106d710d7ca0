//! A VMM's control socket: what another process of the user sends.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sporevm::control::{Request, Response};
use sporevm::vmm::control::Control;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};

/// Send the input in pieces, as long as the first byte says, and serve it until nothing happens any
/// more.
pub fn drive(data: &[u8]) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (piece, data) = super::number(data);
    let name = format!("fuzz-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut control = Control::new(Some(listener)).unwrap();
    let mut pieces = data.chunks(usize::from(piece) + 1).take(64).peekable();
    let mut answered = 0;
    // As many rounds as the input has pieces, and some for what is left.
    for round in 0..96 {
        if let Some(piece) = pieces.next() {
            let _ = client.write_all(piece);
        } else if round > 70 {
            let _ = client.shutdown(std::net::Shutdown::Write);
        }
        let ready: Vec<PollFlags> = {
            let mut fds: Vec<_> =
                control.poll_fds().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)).collect();
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut fds, Some(&now)).unwrap();
            fds.iter().map(|fd| fd.revents()).collect()
        };
        control.serve(&ready, &mut |request: &Request, _fds| {
            answered += 1;
            match request {
                Request::Console {} | Request::Wait {} => Some(Response::Ok {}),
                Request::Hibernate {} => None,
                _ => Some(Response::Error { message: "no".into() }),
            }
        });
        control.answer_later(&Response::Ok {});
        control.broadcast(b"output");
        control.feed(&mut |bytes| bytes.len().min(3));
    }
    assert!(answered <= data.iter().filter(|&&byte| byte == b'\n').count(), "an answer to no request");
}

/// Requests.
pub fn seeds() -> Vec<Vec<u8>> {
    let requests = [Request::Layers {}, Request::Terminate {}, Request::Wait {}, Request::Console {}];
    let all: Vec<Vec<u8>> = requests.iter().map(|request| request.to_line().unwrap()).collect();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|line| [&[200], &line[..]].concat()).collect();
    seeds.push([&[7], &all.concat()[..], b"typed"].concat());
    seeds
}
