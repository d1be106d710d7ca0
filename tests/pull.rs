//! Images by name and by address, from servers of the suite's own on loopback.

mod common;
mod servers;
#[path = "pull/signed.rs"]
mod signed;

use common::Store;
use common::images::{data, error_of, noise, objects, refusal, show};
use serde_json::Value;
use servers::files::{Files, Manner};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const MIB: usize = 1 << 20;
/// The bytes that the suite's disks have.
const SIZE: usize = 4 * MIB;

fn disk(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    noise(&mut bytes[..3 * MIB], seed);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A store whose user has a catalogue of their own.
struct Bed {
    store: Store,
    config: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let config = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { store: Store::new(), config }
    }

    /// The user's own catalogue is this.
    fn catalogue(&self, yaml: &str) {
        let dir = self.config.path().join("spore");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("images.yaml"), yaml).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.store.command(args);
        command.env("XDG_CONFIG_HOME", self.config.path()).stdin(Stdio::null());
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command
    }

    fn spore(&self, args: &[&str]) -> Output {
        eprintln!("spore {}", args.join(" ")); // shown if the test fails
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.spore(args);
        assert!(output.status.success(), "{args:?}: {}", error_of(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[track_caller]
    fn refused(&self, args: &[&str], code: &str) -> String {
        refusal(&self.spore(args), code)
    }

    /// What is kept of downloads, in bytes.
    fn kept(&self) -> u64 {
        let list =
            |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().path());
        let places = list(self.store.home().join("cache/downloads"));
        places.map(|place| place.join("data").metadata().map_or(0, |meta| meta.len())).sum()
    }
}

/// A catalogue with one image on a server.
fn catalogue(files: &Files, name: &str) -> String {
    format!(
        "images:\n- name: {name}\n  version: \"1\"\n  aliases: [latest, one]\n  title: A disk\n  \
         url: {url}\n  checksums: {sums}\n  user: me\n",
        url = files.url("/disk-*.img"),
        sums = files.url("/SHA256SUMS")
    )
}

/// Lists `bytes` as the newest disk, beside an older one.
fn publish(files: &Files, name: &str, bytes: &[u8]) {
    let sums = format!("{}  disk-1.9.img\n{} *{name}\n", "0".repeat(64), sha256(bytes));
    files.put("/SHA256SUMS", sums.as_bytes());
    files.put(&format!("/{name}"), bytes);
}

#[test]
fn a_published_image_is_pulled_once_and_is_what_its_publisher_says() {
    let (bed, files) = (Bed::new(), Files::start());
    let bytes = disk(1);
    publish(&files, "disk-1.10.img", &bytes);
    bed.catalogue(&catalogue(&files, "mine"));
    let id = bed.ok(&["image", "pull", "mine:1"]);
    assert_eq!(fs::read(data(&bed.store, &id)).unwrap(), bytes, "the newest is by numbers");
    assert_eq!(files.bodies("/disk-1.10.img"), 1);
    let image = show(&bed.store, &id);
    assert_eq!(image["Name"], format!("mine-1-{}", &sha256(&bytes)[..8]));
    for again in ["mine:1", "mine:one", "mine"] {
        assert_eq!(bed.ok(&["image", "pull", again]), id, "{again}");
    }
    assert_eq!(files.bodies("/disk-1.10.img"), 1);
    assert_eq!(bed.kept(), 0, "what is in the store is kept there alone");
    // It is found by what it was pulled as, and listed as being here.
    let shown: Value =
        serde_json::from_str(&bed.ok(&["image", "show", "mine:one", "-o", "json"])).unwrap();
    assert_eq!(shown["Images"][0]["ImageId"], id.as_str());
    let listed: Value =
        serde_json::from_str(&bed.ok(&["image", "ls", "--quick-start", "-o", "json"])).unwrap();
    assert_eq!(listed["Images"][0]["Name"], "demo");
    let all = listed["QuickStart"].as_array().unwrap();
    let of = |reference: &str| all.iter().find(|one| one["Reference"] == reference).unwrap();
    assert_eq!(of("mine:1")["ImageId"], id.as_str());
    assert_eq!(of("debian:12")["ImageId"], Value::Null);
    // Another name is the same disk; a newer file is another image.
    let named = bed.ok(&["image", "pull", "mine:1", "--name", "named"]);
    assert_ne!(named, id);
    let snapshot = |id: &str| common::images::snapshot_of(&show(&bed.store, id));
    assert_eq!(snapshot(&named), snapshot(&id));
    assert_eq!(bed.ok(&["image", "pull", "mine:1", "--name", "named"]), named);
    assert_eq!(files.bodies("/disk-1.10.img"), 1);
    publish(&files, "disk-1.11.img", &disk(2));
    bed.refused(&["image", "pull", "mine:1", "--name", "named"], "InvalidAMIName.Duplicate");
    assert_eq!(files.bodies("/disk-1.11.img"), 0, "a name that is taken is told first");
    let newer = bed.ok(&["image", "pull", "mine:1"]);
    assert_eq!(fs::read(data(&bed.store, &newer)).unwrap(), disk(2));
    let found: Value =
        serde_json::from_str(&bed.ok(&["image", "show", "mine:1", "-o", "json"])).unwrap();
    assert_eq!(found["Images"][0]["ImageId"], newer.as_str(), "the newest");
}

#[test]
fn ten_that_want_one_image_make_one_download() {
    let (bed, files) = (Bed::new(), Files::start());
    let bytes = disk(3);
    publish(&files, "disk-1.img", &bytes);
    bed.catalogue(&catalogue(&files, "mine"));
    files.manner(
        "/disk-1.img",
        Manner { pause: Some(Duration::from_millis(20)), ..Manner::default() },
    );
    let pulls: Vec<_> = (0..10)
        .map(|_| bed.command(&["image", "pull", "mine:1"]).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let ids: Vec<String> = pulls
        .into_iter()
        .map(|pull| {
            let output = pull.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", error_of(&output));
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(files.bodies("/disk-1.img"), 1);
    assert_eq!(fs::read(data(&bed.store, ids[0].trim())).unwrap(), bytes);
}

/// Waits until the server has sent so much of a file.
fn sent(files: &Files, path: &str, least: u64) {
    for _ in 0..600 {
        if files.bytes(path) >= least {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the server has not sent {least} bytes of {path}");
}

#[test]
fn what_a_killed_pull_has_brought_is_not_brought_again() {
    for (ranges, signal) in [(true, 9), (true, 2), (false, 9)] {
        let (bed, files) = (Bed::new(), Files::start());
        let bytes = disk(4);
        publish(&files, "disk-1.img", &bytes);
        bed.catalogue(&catalogue(&files, "mine"));
        let slow = Some(Duration::from_millis(50));
        files.manner("/disk-1.img", Manner { pause: slow, ranges, ..Manner::default() });
        let mut first = bed.command(&["image", "pull", "mine:1"]);
        let mut first = first.stderr(Stdio::piped()).spawn().unwrap();
        sent(&files, "/disk-1.img", MIB as u64);
        // One that waits takes over.
        let second =
            bed.command(&["image", "pull", "mine:1"]).stdout(Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(first.id().cast_signed()).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let status = first.wait().unwrap();
        files.manner("/disk-1.img", Manner { ranges, ..Manner::default() });
        if signal == rustix::process::Signal::INT {
            let mut said = String::new();
            first.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(status.code(), Some(130));
            assert!(said.contains("cancelled") && said.contains("pull it again"), "{said}");
        }
        let output = second.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", error_of(&output));
        let id = String::from_utf8(output.stdout).unwrap();
        assert_eq!(fs::read(data(&bed.store, id.trim())).unwrap(), bytes);
        let total = files.bytes("/disk-1.img");
        match ranges {
            // What was on its way when the first died was sent for nobody.
            true => assert!(total < 2 * SIZE as u64 - (MIB / 2) as u64, "{total}"),
            false => assert!(total > SIZE as u64, "{total}"),
        }
    }
}

#[test]
fn a_file_that_changes_under_an_interrupted_pull_is_brought_anew() {
    let (bed, files) = (Bed::new(), Files::start());
    files.put("/d.img", &disk(5));
    // Each attempt begins anew and breaks off at the same place.
    let breaks = Some(MIB as u64);
    let manner = Manner { ranges: false, stop_after: breaks, fail: u32::MAX, ..Manner::default() };
    files.manner("/d.img", manner);
    let url = files.url("/d.img");
    let said = bed.refused(&["image", "pull", &url], "Unavailable");
    assert!(said.contains("broke off") || said.contains("can't be had"), "{said}");
    assert!(bed.kept() >= MIB as u64, "what has come is kept");
    files.put("/d.img", &disk(6));
    files.manner("/d.img", Manner::default());
    let output = bed.spore(&["image", "pull", &url, "--name", "new"]);
    assert!(output.status.success(), "{}", error_of(&output));
    assert!(error_of(&output).contains("nobody says what"), "without a checksum it is warned");
    assert_eq!(fs::read(data(&bed.store, "new")).unwrap(), disk(6));
}

#[test]
fn a_connection_that_dies_is_made_again_where_it_was() {
    let (bed, files) = (Bed::new(), Files::start());
    let bytes = disk(7);
    files.put("/d.img", &bytes);
    files.manner("/d.img", Manner { stop_after: Some(MIB as u64), fail: 3, ..Manner::default() });
    let sum = format!("sha256:{}", sha256(&bytes));
    let id = bed.ok(&["image", "pull", &files.url("/d.img"), "--checksum", &sum]);
    assert_eq!(fs::read(data(&bed.store, &id)).unwrap(), bytes);
    assert!(files.bytes("/d.img") < SIZE as u64 + 2 * MIB as u64, "no byte much more than once");
}

#[test]
fn an_address_without_a_checksum_is_asked_whether_it_has_changed() {
    let (bed, files) = (Bed::new(), Files::start());
    files.put("/d.img", &disk(8));
    let url = files.url("/d.img");
    let id = bed.ok(&["image", "pull", &url]);
    assert!(show(&bed.store, &id)["Name"].as_str().unwrap().starts_with("d--"));
    assert_eq!(bed.ok(&["image", "pull", &url]), id);
    assert_eq!(files.bodies("/d.img"), 1, "the second time nothing was sent");
    // Its image has gone: it is brought again.
    bed.ok(&["image", "deregister", &id]);
    let again = bed.ok(&["image", "pull", &url, "--name", "again"]);
    assert_ne!(again, id);
    files.put("/d.img", &disk(9));
    let newer = bed.ok(&["image", "pull", &url]);
    assert_eq!(fs::read(data(&bed.store, &newer)).unwrap(), disk(9));
    let path = bed.config.path().join("local.img");
    fs::write(&path, disk(10)).unwrap();
    let id = bed.ok(&["image", "pull", &format!("file://{}", path.display())]);
    assert_eq!(fs::read(data(&bed.store, &id)).unwrap(), disk(10));
}

#[test]
fn servers_that_lie_are_told_in_one_line_and_leave_nothing() {
    let (bed, files) = (Bed::new(), Files::start());
    bed.ok(&["image", "ls"]);
    let before = objects(&bed.store);
    let bytes = disk(11);
    files.put("/d.img", &bytes);
    let good = format!("sha256:{}", sha256(&bytes));
    let bad = format!("sha256:{}", sha256(b"another"));
    let pull =
        |path: &str, sum: &str| bed.spore(&["image", "pull", &files.url(path), "--checksum", sum]);
    let says = |output: Output, code: &str, what: &str| {
        let said = refusal(&output, code);
        assert!(said.contains(what), "{said}");
        assert_eq!(bed.kept(), 0, "{said}");
    };
    says(pull("/d.img", &bad), "InvalidManifest", "is not what it should be");
    says(pull("/none.img", &good), "Unavailable", "404");
    for status in [300, 400, 418] {
        files.manner("/s.img", Manner { status: Some(status), ..Manner::default() });
        says(
            pull("/s.img", &good),
            "Unavailable",
            if status == 300 { "leads to" } else { "answers" },
        );
    }
    files.manner("/s.img", Manner { status: Some(403), ..Manner::default() });
    says(pull("/s.img", &good), "AuthFailure", "403");
    let lead =
        |to: String| files.manner("/r.img", Manner { redirect: Some(to), ..Manner::default() });
    lead("file:///etc/passwd".into());
    says(pull("/r.img", &good), "Unavailable", "not followed");
    lead("ftp://127.0.0.1/d.img".into());
    says(pull("/r.img", &good), "Unavailable", "not followed");
    lead(files.url("/r.img"));
    says(pull("/r.img", &good), "Unavailable", "more than 10");
    assert_eq!(objects(&bed.store), before, "nothing is in the store");
    // What is no disk is none from a server either.
    files.put("/page.img", b"<!DOCTYPE html><html></html>");
    let output = bed.spore(&["image", "pull", &files.url("/page.img")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(bed.kept(), 0);
    // One that leads to where it is, is followed.
    lead("/d.img".into());
    assert!(pull("/r.img", &good).status.success());
}

#[test]
fn a_size_that_does_not_fit_is_refused_before_it_comes() {
    let (bed, files) = (Bed::new(), Files::start());
    files.put("/d.img", &disk(12));
    files.manner("/d.img", Manner { length: Some(1 << 60), ..Manner::default() });
    bed.refused(&["image", "pull", &files.url("/d.img")], "InvalidParameterValue");
    files.manner("/d.img", Manner { length: Some(1 << 43), ..Manner::default() });
    let said = bed.refused(&["image", "pull", &files.url("/d.img")], "InsufficientVolumeCapacity");
    assert!(said.contains("SPORE_HOME"), "{said}");
    assert_eq!(bed.kept(), 0);
}

#[test]
fn a_run_pulls_what_is_missing_as_it_is_told() {
    if !common::has_kvm() {
        return;
    }
    let (bed, files) = (Bed::new(), Files::start());
    publish(&files, "disk-1.img", &disk(13));
    bed.catalogue(&catalogue(&files, "mine"));
    let run = |args: &[&str]| bed.spore(&[&["run", "mine:1", "-t", "spore.none"], args].concat());
    // No instance is of that type: what is looked at is what is done before.
    let said = refusal(&run(&["--pull", "never"]), "InvalidAMIID.NotFound");
    assert!(said.contains("spore image pull mine:1"), "{said}");
    assert_eq!(files.requests(), 0);
    let unknown = |output: Output| {
        let said = error_of(&output);
        let last = said.lines().last().unwrap();
        assert!(last.contains("instance type 'spore.none' is unknown"), "{said}");
    };
    for (args, bodies) in [(&[][..], 1), (&[], 1), (&["--pull", "always"], 1)] {
        unknown(run(args));
        assert_eq!(files.bodies("/disk-1.img"), bodies, "{args:?}");
    }
    let asked = files.requests();
    unknown(run(&["--pull", "missing"]));
    assert_eq!(files.requests(), asked, "nobody is asked for what is here");
    let said = bed.refused(&["run", "debian"], "InvalidAMIID.NotFound");
    assert!(said.contains("debian:13"), "{said}");
    let said = bed.refused(&["run", "mine:2"], "InvalidAMIID.NotFound");
    assert!(said.contains("of mine there are 1"), "{said}");
}

#[test]
fn a_catalogue_with_tricks_is_refused() {
    let bed = Bed::new();
    for (yaml, what) in [
        ("images:\n- {name: ../x, version: '1', title: x, url: 'https://example.org/a'}\n", "name"),
        ("images:\n- {name: x, version: '1', title: x, url: 'file:///etc/shadow'}\n", "address"),
        ("images:\n- {name: x, version: '1', title: x, url: 'https://h/../a'}\n", "address"),
        ("images: 7\n", "malformed"),
    ] {
        bed.catalogue(yaml);
        let said = bed.refused(&["image", "pull", "x:1"], "InvalidParameterValue");
        assert!(said.contains("images.yaml is malformed") && said.contains(what), "{said}");
    }
    fs::remove_file(bed.config.path().join("spore/images.yaml")).unwrap();
    let fifo = Command::new("mkfifo").arg(bed.config.path().join("spore/images.yaml")).status();
    assert!(fifo.unwrap().success());
    // Nobody waits for a FIFO that nobody writes.
    let output = bed.spore(&["image", "pull", "x:1"]);
    assert!(
        !output.status.success() && error_of(&output).contains("FIFO"),
        "{}",
        error_of(&output)
    );
}

#[test]
fn a_run_waits_for_an_image_that_is_pending() {
    if !common::has_kvm() {
        return;
    }
    let (bed, files) = (Bed::new(), Files::start());
    files.put("/d.img", &disk(14));
    let id = bed.ok(&["image", "pull", &files.url("/d.img"), "--name", "late"]);
    let dir = bed.store.home().join("images").join(&id);
    let record = fs::read_to_string(dir.join("record.json")).unwrap();
    let pending = record.replace("\"available\"", "\"pending\"");
    assert_ne!(pending, record);
    // As whoever makes it does.
    let lock = fs::File::options().create(true).truncate(false).write(true).open(dir.join("lock"));
    let lock = lock.unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    fs::write(dir.join("record.json"), pending).unwrap();
    let mut run = bed.command(&["run", "late", "-t", "spore.none"]);
    let mut run = run.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(run.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("is pending; waiting"), "{line}");
    assert!(run.try_wait().unwrap().is_none());
    fs::write(dir.join("record.json"), record).unwrap();
    drop(lock);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("instance type 'spore.none' is unknown"), "{rest}");
    assert_eq!(run.wait().unwrap().code(), Some(1));
}

/// What an image's own file says of where it is from would have it boot in a published one's place.
#[test]
fn what_strangers_say_of_where_an_image_is_from_is_not_believed() {
    let (stranger, bed) = (Bed::new(), Bed::new());
    let raw = bed.config.path().join("disk");
    fs::write(&raw, disk(9)).unwrap();
    let id = stranger.ok(&["image", "import", raw.to_str().unwrap(), "--name", "gift"]);
    let planted = [
        "spore:source=debian:12".to_owned(),
        format!("spore:sha256={}", "0".repeat(64)),
        "Team=theirs".to_owned(),
    ];
    for tag in &planted {
        stranger.ok(&["tag", &id, tag]);
    }
    let file = bed.config.path().join("gift.spore");
    stranger.ok(&["image", "export", &id, "-o", file.to_str().unwrap()]);
    let id = bed.ok(&["image", "import", file.to_str().unwrap(), "--name", "gift"]);
    let tags = show(&bed.store, &id)["Tags"].to_string();
    assert!(tags.contains("theirs") && !tags.contains("spore:"), "{tags}");
    let line = bed.refused(&["run", "debian:12", "--pull", "never"], "InvalidAMIID.NotFound");
    assert!(line.contains("no image was pulled as 'debian:12'"), "{line}");
}
