//! Regions in an OCI registry and in an S3-compatible bucket: real servers, on loopback.

mod common;
mod servers;

use common::Store;
use common::images::{data, noise, refusal, show};
use serde_json::Value;
use servers::{Proxy, Server, blobs, registry, request, s3};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;

const MIB: usize = 1 << 20;

/// 20 MiB in chunks of 4: random, zeros, random, random, and one at the end that is half zeros.
fn content(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 20 * MIB];
    noise(&mut bytes[..18 * MIB], seed);
    bytes[4 * MIB..8 * MIB].fill(0);
    bytes
}

fn import(store: &Store, name: &str, bytes: &[u8]) {
    let path = store.home().join("disk.raw");
    std::fs::write(&path, bytes).unwrap();
    store.ok(&["image", "import", path.to_str().unwrap(), "--name", name, "--tag", "Env=prod"]);
}

/// `spore` with what a bucket's owner has in the environment.
fn spore(store: &Store, args: &[&str]) -> Output {
    let mut command = store.command(args);
    command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
    command.env("DOCKER_CONFIG", store.home()).output().unwrap()
}

#[track_caller]
fn ok(store: &Store, args: &[&str]) -> String {
    let output = spore(store, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn refused(store: &Store, args: &[&str], code: &str) -> String {
    refusal(&spore(store, args), code)
}

/// A server on loopback whose every answer is `answer`'s for that path; it may well have no end.
fn hostile(answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            while !head.ends_with(b"\r\n\r\n")
                && lines.read_until(b'\n', &mut head).unwrap_or(0) > 0
            {}
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            // Whoever asked may have heard enough.
            let _ = answer(path, &mut stream);
        }
    });
    port
}

fn http(stream: &mut TcpStream, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn a_region_that_never_ends_is_given_up() {
    let store = Store::new();
    let tags = std::sync::atomic::AtomicUsize::new(0);
    let registry = hostile(move |path, stream| {
        if path.contains("/tags/") {
            let next = || tags.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let page: Vec<String> = (0..100).map(|_| format!("\"t{}\"", next())).collect();
            let body = format!("{{\"name\": \"x\", \"tags\": [{}]}}", page.join(","));
            return http(stream, "application/json", &body);
        }
        if path.contains("/manifests/") {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 1 << 16])?;
            }
        }
        http(stream, "application/json", "{}")
    });
    let says = |args: &[&str], what: &str| {
        let said = refused(&store, args, "Unavailable");
        assert!(said.contains(what) && said.trim().lines().count() == 1, "{args:?}: {said}");
    };
    let oci = format!("oci://127.0.0.1:{registry}/x");
    says(&["region", "add", "tags", &oci], "more than 100000 tags");
    let keys = std::sync::atomic::AtomicUsize::new(0);
    let bucket = hostile(move |_, stream| {
        let mut page = String::new();
        for _ in 0..1000 {
            let n = keys.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            page += &format!(
                "<Contents><Key>images/k{n:09}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>\"e\"</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
            );
        }
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><IsTruncated>true</IsTruncated>{page}\
             <NextContinuationToken>more</NextContinuationToken></ListBucketResult>"
        );
        http(stream, "application/xml", &body)
    });
    let s3 = format!("s3://images?endpoint=http://127.0.0.1:{bucket}");
    says(&["region", "add", "keys", &s3], "more than 100000 objects");
    // One whose list is in order, and whose manifests are not.
    let listed = hostile(move |path, stream| {
        if path.contains("/tags/") {
            let body = "{\"name\": \"x\", \"tags\": [\"ami-0123456789abcdef0\"]}";
            return http(stream, "application/json", body);
        }
        if path.contains("/manifests/") {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 1 << 16])?;
            }
        }
        http(stream, "application/json", "{}")
    });
    ok(&store, &["region", "add", "body", &format!("oci://127.0.0.1:{listed}/x")]);
    let copy = ["image", "copy", "ami-0123456789abcdef0", "--from", "body", "--name", "copied"];
    says(&copy, "more than 4 MiB");
}

/// An answer that begins as `head` says and never ends.
fn endless(stream: &mut TcpStream, head: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n")?;
    loop {
        stream.write_all(&[b' '; 1 << 16])?;
    }
}

#[test]
fn no_answer_is_read_without_a_bound() {
    let store = Store::new();
    let says = |location: String, code: &str, what: &str| {
        let said = refused(&store, &["region", "add", "hostile", &location], code);
        assert!(said.contains(what) && said.trim().lines().count() == 1, "{location}: {said}");
    };
    let oci = |port: u16| format!("oci://127.0.0.1:{port}/x");
    let tokens = hostile(|_, stream| endless(stream, "200 OK"));
    let asks = hostile(move |_, stream| {
        write!(
            stream,
            "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\
             WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{tokens}/token\",service=\"x\"\r\n\r\n"
        )
    });
    says(oci(asks), "Unavailable", "more than 1 MiB");
    let refuses = |path: &str, stream: &mut TcpStream| match path {
        "/v2/" => http(stream, "application/json", "{}"),
        _ => endless(stream, "403 Forbidden"),
    };
    says(oci(hostile(refuses)), "AuthFailure", "403 Forbidden");
    let s3 = |port: u16| format!("s3://images?endpoint=http://127.0.0.1:{port}");
    let page = hostile(|_, stream| endless(stream, "200 OK\r\nContent-Type: application/xml"));
    says(s3(page), "Unavailable", "more than 8192 KiB");
    // Nor shown as it is: a reason may steer a terminal.
    let steers = hostile(|_, stream| {
        let body = "<Error><Message>\u{1b}]0;x\u{7}\u{1b}[2J\nmore\u{202e}</Message></Error>";
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    });
    let told = refused(&store, &["region", "add", "hostile", &s3(steers)], "Unavailable");
    let steering = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(told.contains("more") && !told.contains(steering), "{told:?}");
    let reason = hostile(|_, stream| endless(stream, "400 Bad Request"));
    says(s3(reason), "Unavailable", "");
    // Where it sends us is not followed everywhere.
    let astray = hostile(|_, stream| {
        write!(
            stream,
            "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\
             WWW-Authenticate: Bearer realm=\"gopher://127.0.0.1/\",service=\"x\"\r\n\r\n"
        )
    });
    says(oci(astray), "Unavailable", "not allowed");
}

/// What holds for every kind of region: `west`, known to both.
fn there_and_back(here: &Store, away: &Store) {
    let bytes = content(1);
    import(here, "one", &bytes);
    assert_eq!(ok(here, &["region", "show", "west", "-q"]), "");
    let there = ok(here, &["image", "copy", "one", "--to", "west", "--name", "one", "--copy-tags"]);
    assert_eq!(ok(away, &["region", "show", "west", "-q"]), there);
    let all: Value =
        serde_json::from_str(&ok(away, &["region", "show", "west", "-o", "json"])).unwrap();
    let image = &all["Regions"][0]["Images"][0];
    assert_eq!((&image["Name"], &image["Tags"][0]["Value"]), (&"one".into(), &"prod".into()));
    assert_eq!(image["SourceImageId"], show(here, "one")["ImageId"]);
    for (text, name) in [("one", "first"), (&*there, "second"), (&there[..9], "third")] {
        let id = ok(away, &["image", "copy", text, "--from", "west", "--name", name]);
        let copy = show(away, &id);
        assert_eq!(
            (&copy["State"], &copy["SourceImageId"]),
            (&"available".into(), &(*there).into())
        );
        assert_eq!(copy["SourceImageRegion"], "west");
        assert!(std::fs::read(data(away, &id)).unwrap() == bytes);
    }
    // A kernel goes with its image.
    ok(here, &["image", "copy", "demo", "--to", "west", "--name", "demo-copy"]);
    ok(away, &["image", "copy", "demo-copy", "--from", "west", "--name", "demo-copy"]);
    assert!(show(away, "demo-copy")["KernelId"].is_string());
    if common::has_kvm() {
        assert!(away.ok(&["run", "demo-copy", "-m", "128M", "--wait"]).contains("i-"));
    }
    refused(
        here,
        &["image", "copy", "one", "--to", "west", "--name", "one"],
        "InvalidAMIName.Duplicate",
    );
    refused(
        away,
        &["image", "copy", "none", "--from", "west", "--name", "abc"],
        "InvalidAMIID.NotFound",
    );
    let unknown = ["image", "copy", "ami-0123456789abcdef0", "--from", "west", "--name", "abc"];
    refused(away, &unknown, "InvalidAMIID.NotFound");
    refused(
        away,
        &["image", "copy", "one", "--from", "west", "--name", "first"],
        "InvalidAMIName.Duplicate",
    );
}

/// What may go from a region, and what stays.
fn taken_away(here: &Store, away: &Store) {
    // A snapshot alone comes and goes.
    let file = here.home().join("disk.raw");
    let snapshot = ok(here, &["snapshot", "import", file.to_str().unwrap()]);
    let copy = ["snapshot", "copy", &snapshot, "--to", "west", "--tag", "Name=alone"];
    let there = ok(here, &copy);
    assert!(ok(away, &["region", "show", "west"]).contains("alone"));
    let back = ok(away, &["snapshot", "copy", &there, "--from", "west"]);
    ok(away, &["snapshot", "verify", &back]);
    let content = |store: &Store, id: &str| {
        std::fs::read(store.home().join("snapshots").join(id).join("data")).unwrap()
    };
    assert!(content(away, &back) == content(here, &snapshot));
    ok(away, &["snapshot", "delete", "--region", "west", &there]);
    let gone = ["snapshot", "copy", &there, "--from", "west"];
    refused(away, &gone, "InvalidSnapshot.NotFound");
    let again = ["snapshot", "delete", "--region", "west", &there];
    refused(away, &again, "InvalidSnapshot.NotFound");
    refused(
        away,
        &["snapshot", "copy", "snap-../x", "--from", "west"],
        "InvalidSnapshotID.Malformed",
    );
    // An image goes; another, of which it has some content, stays.
    let mut bytes = content(here, &snapshot);
    bytes[0] ^= 1;
    import(here, "like-one", &bytes);
    let like = ["image", "copy", "like-one", "--to", "west", "--name", "like-one"];
    let like = ok(here, &like);
    let one = ok(here, &["region", "show", "west"]);
    let one = one.lines().find(|l| l.contains(" one ")).unwrap().split(' ').next().unwrap();
    let deregister = ["image", "deregister", "--region", "west", one];
    assert_eq!(ok(away, &deregister), "");
    refused(away, &deregister, "InvalidAMIID.Unavailable");
    let copy = ["image", "copy", one, "--from", "west", "--name", "late"];
    refused(away, &copy, "InvalidAMIID.Unavailable");
    refused(away, &["image", "deregister", "--region", "west", "one"], "InvalidAMIID.NotFound");
    assert!(!ok(away, &["region", "show", "west", "-q"]).contains(one));
    ok(away, &["image", "copy", &like, "--from", "west", "--name", "like-one"]);
    assert!(std::fs::read(data(away, "like-one")).unwrap() == bytes);
}

fn add(store: &Store, location: &str) {
    ok(store, &["region", "add", "west", location]);
}

fn oci(port: u16) -> String {
    format!("oci://127.0.0.1:{port}/team/images")
}

#[test]
fn a_registry_is_a_region_and_is_sent_only_what_changed() {
    let Some(server) = registry() else { return };
    let (here, away) = (Store::new(), Store::new());
    add(&here, &oci(server.port));
    add(&away, &oci(server.port));
    there_and_back(&here, &away);
    let large = || blobs(&server, MIB as u64);
    let before = large();
    let mut bytes = content(1);
    bytes[9 * MIB] ^= 1;
    import(&here, "changed", &bytes);
    ok(&here, &["image", "copy", "changed", "--to", "west", "--name", "changed"]);
    assert_eq!(large(), before + 1);
    ok(&away, &["image", "copy", "changed", "--from", "west", "--name", "changed"]);
    assert!(std::fs::read(data(&away, "changed")).unwrap() == bytes);
    taken_away(&here, &away);
    // What nothing refers to is the registry's own to remove.
    let before = large();
    ok(&here, &["image", "deregister", "--region", "west", "changed"]);
    servers::collect_garbage(&server);
    assert!(large() < before, "{before}");
    ok(&away, &["image", "copy", "like-one", "--from", "west", "--name", "like-one-2"]);
}

#[test]
fn a_name_in_a_registry_is_a_tag_that_few_requests_find() {
    let Some(server) = registry() else { return };
    let proxy = Proxy::to(server.port);
    let (here, away) = (Store::new(), Store::new());
    add(&here, &oci(server.port));
    add(&away, &oci(proxy.port));
    import(&here, "one", &content(5)[..MIB]);
    let push = |name: &str| ok(&here, &["image", "copy", "one", "--to", "west", "--name", name]);
    let first = push("web-1");
    let asked = |source: &str, name: &str| {
        let before = proxy.requests();
        let id = ok(&away, &["image", "pull", source, "--name", name]);
        (id, proxy.requests() - before)
    };
    // Two for the look-up, one for who may, one for the content.
    let (id, alone) = asked("west/web-1", "pulled-1");
    assert!(alone <= 5, "{alone}");
    assert_eq!(show(&away, &id)["SourceImageId"], first.as_str());
    for n in 2..8 {
        push(&format!("web-{n}"));
    }
    push("a name (with all)/@'[x]");
    let (_, among) = asked("west/web-7", "pulled-7");
    assert_eq!(among, alone, "whatever the number of images");
    asked("west/a name (with all)/@'[x]", "odd");
    // The same again is here.
    assert_eq!(ok(&away, &["image", "pull", "west/web-1"]), id);
    refused(&away, &["image", "pull", "west/none"], "InvalidAMIID.NotFound");
    let direct = format!("oci://127.0.0.1:{}/team/images:web-3", server.port);
    ok(&away, &["image", "pull", &direct, "--name", "direct"]);
    ok(&here, &["image", "deregister", "--region", "west", "web-2"]);
    refused(&away, &["image", "pull", "west/web-2"], "InvalidAMIID.NotFound");
    // A name that is free again is another's.
    push("web-2");
    asked("west/web-2", "second");
    let taken = ["image", "copy", "one", "--to", "west", "--name", "web-2"];
    refused(&here, &taken, "InvalidAMIName.Duplicate");
}

#[test]
fn an_image_goes_from_one_remote_region_to_another() {
    let (Some(registry), Some(s3)) = (registry(), s3()) else { return };
    let (here, away) = (Store::new(), Store::new());
    add(&here, &oci(registry.port));
    ok(&here, &["region", "add", "east", &bucket(&s3)]);
    ok(&away, &["region", "add", "east", &bucket(&s3)]);
    let bytes = content(3);
    import(&here, "one", &bytes);
    ok(&here, &["image", "copy", "one", "--to", "west", "--name", "one"]);
    let relay = ["image", "copy", "one", "--from", "west", "--to", "east", "--name", "two"];
    ok(&here, &relay);
    refused(&here, &relay, "InvalidAMIName.Duplicate");
    ok(&away, &["image", "copy", "two", "--from", "east", "--name", "three"]);
    assert!(std::fs::read(data(&away, "three")).unwrap() == bytes);
    let file = here.home().join("disk.raw");
    let snapshot = ok(&here, &["snapshot", "import", file.to_str().unwrap()]);
    let there = ok(&here, &["snapshot", "copy", &snapshot, "--to", "west"]);
    let there = ok(&here, &["snapshot", "copy", &there, "--from", "west", "--to", "east"]);
    let back = ok(&away, &["snapshot", "copy", &there, "--from", "east"]);
    ok(&away, &["snapshot", "verify", &back]);
}

#[test]
fn a_registry_that_dies_is_gone_on_with() {
    let Some(server) = registry() else { return };
    let proxy = Proxy::to(server.port);
    let (here, away) = (Store::new(), Store::new());
    add(&here, &oci(proxy.port));
    add(&away, &oci(proxy.port));
    // Seven chunks, of which four are on their way at once: of 20 MiB one has come through whole,
    // and not all have.
    let mut bytes = vec![0; 28 * MIB];
    noise(&mut bytes, 2);
    import(&here, "big", &bytes);
    let push = ["image", "copy", "big", "--to", "west", "--name", "big"];
    proxy.allow(20 << 20);
    let error = refused(&here, &push, "Unavailable");
    assert!(error.contains("west") && error.contains("not sent again"), "{error}");
    refused(&here, &["region", "show", "west"], "Unavailable");
    proxy.allow(1 << 40);
    assert_eq!(ok(&here, &["region", "show", "west", "-q"]), "");
    let sent = blobs(&server, MIB as u64);
    assert!((1..7).contains(&sent), "{sent} chunks had arrived");
    ok(&here, &push);
    let passed = (1 << 40) - proxy.left();
    assert!(passed < (26 << 20), "{passed} bytes, though {sent} chunks had been sent");
    // The other way.
    let pull = ["image", "copy", "big", "--from", "west", "--name", "big"];
    proxy.allow(20 << 20);
    let error = refused(&away, &pull, "Unavailable");
    assert!(error.contains("run the same copy again"), "{error}");
    let failed = show(&away, "big");
    assert_eq!(failed["State"], "failed");
    proxy.allow(1 << 40);
    assert_eq!(ok(&away, &pull), failed["ImageId"]);
    let passed = (1 << 40) - proxy.left();
    assert!(passed < (26 << 20), "{passed} bytes again");
    assert!(std::fs::read(data(&away, "big")).unwrap() == bytes);
    drop(server);
    refused(&away, &["region", "show", "west"], "Unavailable");
}

/// Content goes with the last that needs it, but not while a copy is going on.
fn collected(server: &Server, here: &Store) {
    let blobs = || {
        let list = request(server.port, "GET", "/images?list-type=2&prefix=spore/blobs", b"");
        list.matches("<Key>").count()
    };
    import(here, "brief", &content(9));
    let before = blobs();
    ok(here, &["image", "copy", "brief", "--to", "west", "--name", "brief"]);
    let with = blobs();
    assert!(with > before);
    request(server.port, "PUT", "/images/spore/copies/other", b"");
    let output = spore(here, &["image", "deregister", "--region", "west", "brief"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the next time"));
    assert_eq!(blobs(), with);
    request(server.port, "DELETE", "/images/spore/copies/other", b"");
    let file = here.home().join("disk.raw");
    let snapshot = ok(here, &["snapshot", "import", file.to_str().unwrap()]);
    let there = ok(here, &["snapshot", "copy", &snapshot, "--to", "west"]);
    assert_eq!(blobs(), with, "it had all of that");
    ok(here, &["snapshot", "delete", "--region", "west", &there]);
    assert_eq!(blobs(), before);
}

fn bucket(server: &Server) -> String {
    format!("s3://images/spore?endpoint=http://127.0.0.1:{}", server.port)
}

#[test]
fn a_bucket_is_a_region() {
    let Some(server) = s3() else { return };
    let (here, away) = (Store::new(), Store::new());
    add(&here, &bucket(&server));
    add(&away, &bucket(&server));
    there_and_back(&here, &away);
    let missing = bucket(&server).replace("//images", "//nothing");
    refused(&here, &["region", "add", "east", &missing], "Unavailable");
    taken_away(&here, &away);
    // A disk in a bucket is pulled as from anywhere.
    let bytes = content(7);
    request(server.port, "PUT", "/images/disks/d.img", &bytes);
    let disk = bucket(&server).replace("/spore?", "/disks/d.img?");
    let id = ok(&away, &["image", "pull", &disk, "--name", "from-bucket"]);
    assert!(std::fs::read(data(&away, &id)).unwrap() == bytes);
    assert_eq!(ok(&away, &["image", "pull", &disk, "--name", "from-bucket"]), id);
    collected(&server, &here);
    // What somebody else put there is not believed.
    ok(&here, &["image", "copy", "one", "--to", "west", "--name", "one"]);
    let list = request(server.port, "GET", "/images?list-type=2&prefix=spore/blobs", b"");
    let key = list.split("<Key>").nth(1).unwrap().split("</Key>").next().unwrap().to_owned();
    let keys: Vec<&str> =
        list.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()).collect();
    assert!(keys.contains(&&*key));
    for key in keys {
        request(server.port, "PUT", &format!("/images/{key}"), b"not a chunk");
    }
    let pull = ["image", "copy", "one", "--from", "west", "--name", "bad"];
    refused(&away, &pull, "InvalidManifest");
    assert_eq!(show(&away, "bad")["State"], "failed");
    let id = show(&away, "first")["SourceImageId"].as_str().unwrap().to_owned();
    for package in [&b"{"[..], b"{\"Format\":\"spore-image-1\"}", &[b' '; 17 * MIB]] {
        request(server.port, "PUT", &format!("/images/spore/images/{id}.json"), package);
        let output = spore(&away, &["image", "copy", &id, "--from", "west", "--name", "worse"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    }
    assert!(spore(&away, &["image", "show", "worse"]).stdout.is_empty());
}
