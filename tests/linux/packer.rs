//! packer builds an image by EC2's API, as it does on EC2: an instance, a change by ssh, an image.

use super::linux::{Lab, Served, patience, skip};
use rustix::process::geteuid;
use sporevm::context::{Audience, Context, Meter};
use sporevm::service::Service;
use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Hears nothing.
struct Deaf;

impl Audience for Deaf {
    fn warn(&self, _line: &str) {}

    fn note(&self, _line: &str) {}

    fn meter(&self, _size: Option<u64>) -> Box<dyn Meter> {
        Box::new(Self)
    }
}

impl Meter for Deaf {
    fn at(&self, _bytes: u64) {}
}

/// Passes a port of this host on to the guest's sshd: no address of a guest's is the host's. The
/// port's number.
fn passed_on(lab: &Lab, instance: &'static str) -> u16 {
    let context = Context::new(geteuid().as_raw(), Arc::new(Deaf)).by_verb("ssh".into());
    let service = Service::open_within(lab.home(), &context).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            // packer calls again until the guest is there.
            let Ok(guest) = service.dial(instance, 22, patience()) else { continue };
            let (client, guest) = (client.unwrap(), UnixStream::from(guest));
            let (from, to) = (client.try_clone().unwrap(), guest.try_clone().unwrap());
            std::thread::spawn(move || pass(from, to, |to| to.shutdown(Shutdown::Write)));
            std::thread::spawn(move || {
                pass(guest, client, |to: &mut TcpStream| to.shutdown(Shutdown::Write));
            });
        }
    });
    port
}

fn pass<T: std::io::Write>(
    mut from: impl Read,
    mut to: T,
    end: impl FnOnce(&mut T) -> std::io::Result<()>,
) {
    // What ended first is what packer tells of.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = end(&mut to);
}

/// The image that packer builds boots with the change inside, and nothing else is left of the
/// build.
pub fn builds_an_image(lab: &Lab, image: &str) {
    if !Command::new("packer").arg("version").output().is_ok_and(|o| o.status.success()) {
        return skip::skip("packer is missing: apt install packer");
    }
    let served = Served::new(lab, &["--network", "default"]);
    let port = passed_on(lab, "packer").to_string();
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/linux/packer.json");
    let mut packer = served.client(lab, Path::new("/usr/bin/packer"));
    packer.env("CHECKPOINT_DISABLE", "1").args(["build", "-color=false"]);
    packer.arg(format!("-var=source={image}")).arg(format!("-var=port={port}"));
    // Tests before this one may have had the store's own key made.
    let keys = lab.ok(&["key", "ls", "-q"]);
    let output = packer.arg(template).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lab.ok(&["ls", "-q"]), "");
    assert_eq!(lab.ok(&["key", "ls", "-q"]), keys);
    let show = ["image", "show", "by-packer", "-o", "json"];
    let shown: serde_json::Value = serde_json::from_str(&lab.ok(&show)).unwrap();
    let made = &shown["Images"][0];
    assert_eq!(made["Description"], "built by packer", "{made}");
    assert_eq!(made["Tags"][0]["Value"], "packer", "{made}");

    let ids = lab.launch_of("by-packer", 1, &["-m", "768M", "--network", "default"]);
    lab.wait(&ids, "cloud-init");
    assert_eq!(lab.ok(&["exec", &ids[0], "--", "cat", "/etc/by-packer"]), "changed\n");
}
