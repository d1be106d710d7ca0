//! Stock cloud images: what cloud-init and systemd make of an instance, and getting into it.
#![allow(dead_code)] // each of the two test binaries that share this uses its part

use super::linux::{Lab, patience};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// A script and a configuration, as cloud-init takes both. (cloud-init, "MIME multi-part archive")
const USER_DATA: &str = "\
Content-Type: multipart/mixed; boundary=\"==\"
MIME-Version: 1.0

--==
Content-Type: text/cloud-config

#cloud-config
# The image has no locales.
locale: C.UTF-8
write_files:
- path: /etc/by-cloud-config
  content: written
--==
Content-Type: text/x-shellscript

#!/bin/sh
id -un >/root/by-script
--==--
";

/// IMDS as a guest asks: without a token, with one, and how long that may be away. Python is there
/// wherever cloud-init is.
const METADATA: &str = r#"
import urllib.error, urllib.request
def ask(path, headers={}, method="GET"):
    request = urllib.request.Request("http://169.254.169.254/" + path, headers=headers, method=method)
    try:
        return urllib.request.urlopen(request, timeout=10).read().decode()
    except urllib.error.HTTPError as error:
        return error.code
def tree(path):
    listed = ask(path, token)
    for name in listed.split("\n"):
        if "=" in name:
            name = name.split("=")[0] + "/openssh-key"
        if name.endswith("/"):
            tree(path + name)
        else:
            assert isinstance(ask(path + name, token), str), path + name
print(ask("latest/meta-data/instance-id"))
token = {"X-aws-ec2-metadata-token": ask("latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")}
print(ask("latest/meta-data/instance-id", token))
print(ask("latest/meta-data/iam/info", token), ask("latest/meta-data/spot/", token), ask("latest/user-data", token)[:7])
tree("latest/meta-data/")
"#;

/// What `spore exec` does for a test.
trait Inside {
    /// `spore exec` of a shell's command; its output. It must exit with 0.
    fn inside(&self, id: &str, script: &str) -> String;
    /// `spore` with this as its standard input.
    fn given(&self, input: &[u8], args: &[&str]) -> Output;
}

impl Inside for Lab {
    fn inside(&self, id: &str, script: &str) -> String {
        let patience = patience().as_secs().to_string();
        let exec = ["exec", "--timeout", &patience, id, "--", "sh", "-c", script];
        self.ok(&exec).trim_end().to_owned()
    }

    fn given(&self, input: &[u8], args: &[&str]) -> Output {
        eprintln!("spore {}", args.join(" "));
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }
}

fn code(output: &Output) -> i32 {
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.code().unwrap()
}

/// The image's own user; the words of its ds-identify; both of EC2 and of NoCloud.
const USER: &str = "debian";

/// An instance on a network: cloud-init finds EC2 by itself and does what it is told; its user and
/// root are reached; what it is asked for comes out as it is.
pub fn cloud_init_finds_ec2(lab: &Lab, image: &str) {
    let network = ["--network", "default", "--metadata-options", "http-tokens=required"];
    let more = ["-m", "768M", "--name", "web", "--user-data", USER_DATA];
    let ids = lab.launch_of(image, 1, &[&more[..], &network].concat());
    let id = ids[0].as_str();
    lab.wait(&ids, "network");
    lab.wait(&ids, "ssh");
    lab.wait(&ids, "cloud-init");

    let identified = lab.inside(id, "cat /run/cloud-init/ds-identify.log /run/cloud-init/cloud-id");
    assert!(identified.contains("Found single datasource: Ec2"), "{identified}");
    assert!(identified.ends_with("aws"), "{identified}");
    assert!(lab.logs(id).contains("Datasource DataSourceEc2Local"));
    assert_eq!(lab.inside(id, "cat /root/by-script /etc/by-cloud-config"), "root\nwritten");
    let address = lab.describe(id)["PrivateIpAddress"].as_str().unwrap().to_owned();
    let name = format!("ip-{}", address.replace('.', "-"));
    assert_eq!(lab.inside(id, "hostname"), name);
    assert_eq!(lab.inside(id, "systemctl --failed --no-legend"), "");
    // All that cloud-init's crawl reads of a tree where user data is, and nothing else is missing.
    let crawl = "grep -aoE 'Read from http://[^ ]* \\([0-9]+' /var/log/cloud-init.log | grep -v '(200$' || :";
    assert_eq!(lab.inside(id, crawl), "");
    let read = "grep -ac 'Read from http' /var/log/cloud-init.log";
    assert!(lab.inside(id, read).parse::<u32>().unwrap() > 40, "the crawl is recorded");

    // IMDSv1 is refused, and whatever is listed is there.
    let script = lab.home().join("metadata.py");
    std::fs::write(&script, METADATA).unwrap();
    let into = format!("{id}:/tmp/metadata.py");
    lab.ok(&["cp", script.to_str().unwrap(), &into]);
    let answers = lab.inside(id, "python3 /tmp/metadata.py");
    assert_eq!(answers, format!("401\n{id}\n404 404 Content"));

    // Commands are root's unless somebody asks for another; a login is the image's user's.
    assert_eq!(lab.inside(id, "id -un; pwd"), "root\n/root");
    assert_eq!(lab.ok(&["exec", "--user", USER, id, "--", "id", "-un"]).trim(), USER);
    assert_eq!(lab.ok(&["ssh", id, "--", "id", "-un"]).trim(), USER);
    assert_eq!(code(&lab.spore(&["exec", id, "--", "sh", "-c", "exit 7"])), 7);
    let passed = [
        "exec",
        "-i",
        "-e",
        "A=x 'y'",
        "-w",
        "/usr",
        id,
        "--",
        "sh",
        "-c",
        "cat; echo $A $PWD; echo e >&2",
    ];
    let passed = lab.given(b"in\n", &passed);
    assert_eq!(code(&passed), 0);
    assert_eq!(String::from_utf8(passed.stdout).unwrap(), "in\nx 'y' /usr\n");
    assert_eq!(passed.stderr, b"e\n");
    copies_both_ways(lab, id);
    changes_reach_the_guest(lab, id);
    lab.ok(&["terminate", id]);
}

/// What is changed of a running instance that requires IMDSv2 is what its guest sees.
fn changes_reach_the_guest(lab: &Lab, id: &str) {
    let ask = |path: &str| {
        let script = format!(
            "import urllib.error, urllib.request\ntry: print(urllib.request.urlopen('http://169.254.169.254/latest/{path}').read().decode())\n\
             except urllib.error.HTTPError as error: print(error.code)"
        );
        lab.inside(id, &format!("python3 -c \"{script}\""))
    };
    assert_eq!(ask("meta-data/instance-id"), "401");
    lab.ok(&["modify", id, "--metadata-options", "http-tokens=optional"]);
    assert_eq!(ask("meta-data/instance-id"), id);
    assert_eq!(ask("meta-data/tags/instance/Stage"), "404");
    lab.ok(&["modify", id, "--metadata-options", "instance-metadata-tags=enabled"]);
    lab.ok(&["tag", id, "Stage=test"]);
    assert_eq!(ask("meta-data/tags/instance/Stage"), "test");
    lab.ok(&["untag", id, "Stage"]);
    assert_eq!(ask("meta-data/tags/instance/Stage"), "404");
    lab.ok(&["tag", id, "Name=renamed"]);
    assert!(lab.inside(id, "getent hosts renamed.internal").ends_with("renamed.internal"));
    lab.ok(&["modify", id, "--metadata-options", "http-endpoint=disabled"]);
    assert_eq!(ask("meta-data/instance-id"), "403");
}

/// 100 MB into a guest and back are the same bytes. (In the box, where they take minutes, 10.)
fn copies_both_ways(lab: &Lab, id: &str) {
    let [there, back] = ["there", "back"].map(|name| lab.home().join(name));
    let size = if std::env::var_os("SPORE_BOX").is_some() { "10000000" } else { "100000000" };
    let made = Command::new("sh")
        .arg("-c")
        .arg(format!("head -c {size} /dev/urandom >{}", there.display()))
        .status();
    assert!(made.unwrap().success());
    let digest = |path: &std::path::Path| {
        let output = Command::new("sha256sum").arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
    };
    lab.ok(&["cp", there.to_str().unwrap(), &format!("{id}:/tmp/there")]);
    let inside = lab.inside(id, "sha256sum /tmp/there");
    assert_eq!(inside.split(' ').next().unwrap(), digest(&there));
    lab.ok(&["cp", &format!("{id}:/tmp/there"), back.to_str().unwrap()]);
    assert_eq!(digest(&back), digest(&there));
    for path in [there, back] {
        std::fs::remove_file(path).unwrap();
    }
}

/// So many clones have nothing in common that is one machine's own, and reach each other by name.
pub fn clones_are_machines_of_their_own(lab: &Lab, image: &str, count: usize) {
    let more = ["-m", "768M", "-c", "1", "--name", "node", "--network", "default"];
    let ids = lab.launch_of(image, count, &more);
    lab.wait(&ids, "cloud-init");
    for own in [
        "cat /etc/machine-id",
        "hostname",
        "cat /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2",
        "cat /etc/ssh/ssh_host_rsa_key.pub | cut -d' ' -f2",
        "cat /etc/ssh/ssh_host_ecdsa_key.pub | cut -d' ' -f2",
        "cat /sys/class/net/en*/address",
        "ip -4 -o address show scope global | awk '{print $4}'",
        "ip -6 -o address show scope link | awk '{print $4}'",
        "cat /proc/sys/kernel/random/boot_id",
        "cat /sys/class/dmi/id/product_uuid",
        "cat /sys/class/dmi/id/board_asset_tag",
        "sha256sum </var/lib/systemd/random-seed",
        "head -c 32 /dev/urandom | sha256sum",
    ] {
        let seen: BTreeSet<String> = ids.iter().map(|id| lab.inside(id, own)).collect();
        assert_eq!(seen.len(), count, "{own}: {seen:?}");
        assert!(!seen.contains(""), "{own}");
    }
    // Whose key OpenSSH takes is the one that the guest told on its console, and no other.
    for id in &ids {
        let told = lab.ok(&["ssh-config", id]);
        assert!(told.contains("StrictHostKeyChecking yes"), "{told}");
    }
    for (n, id) in ids.iter().enumerate() {
        for other in (0..count).filter(|other| *other != n) {
            let greet = format!(
                "python3 -c 'import socket; print(socket.create_connection((\"node-{other}.internal\", 22), 30).recv(4))'"
            );
            assert_eq!(lab.inside(id, &greet), "b'SSH-'");
        }
    }
    // Each line with who has said it.
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    let output = lab.ok(&[&["exec"][..], &all, &["--", "echo", "here"]].concat());
    let lines: BTreeSet<&str> = output.lines().collect();
    let expected: Vec<String> = ids.iter().map(|id| format!("{id}: here")).collect();
    assert_eq!(lines, expected.iter().map(String::as_str).collect());
    lab.ok(&[&["terminate"][..], &all].concat());
}

/// Without a network, by vsock alone: systemd 256 and later let root in by the instance's key, say
/// that they are up, and cloud-init looks for nothing.
pub fn is_reached_without_a_network(lab: &Lab, image: &str) {
    let ids = lab.launch_of(image, 1, &["-m", "512M", "--network", "none"]);
    let id = ids[0].as_str();
    lab.wait(&ids, "boot");
    lab.wait(&ids, "ssh");
    // cloud-init has looked for nothing.
    let identified = "id -un; cat /run/cloud-init/cloud-id 2>/dev/null || :";
    assert_eq!(lab.inside(id, identified), "root");
    lab.wait(&ids, "systemd");
    let uuid = lab.describe(id)["Spore"]["Uuid"].as_str().unwrap().replace('-', "");
    assert_eq!(lab.inside(id, "cat /etc/machine-id"), uuid);
    assert_eq!(code(&lab.spore(&["exec", id, "--", "sh", "-c", "exit 7"])), 7);
    copies_both_ways(lab, id);
    let late = lab.spore(&["wait", "--for", "network", "--timeout", "5", id]);
    assert_eq!(code(&late), 1);
    assert!(String::from_utf8_lossy(&late.stderr).contains("--network default"));
    lab.ok(&["terminate", id]);
}

/// An image of a guest that has forgotten itself: what is launched from it, and the guest itself,
/// have nothing in common that is one machine's own, let in by their own keys, and have the rest.
pub fn an_image_is_of_no_machine(lab: &Lab, image: &str, network: &str) {
    let more = ["-m", "768M", "-c", "1", "--network", network];
    let launch = |image: &str, count: usize| {
        let ids = lab.launch_of(image, count, &more);
        lab.wait(&ids, "ssh");
        ids
    };
    let mut ids = launch(image, 1);
    let own = [
        "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub",
        "cut -d' ' -f2 /etc/ssh/ssh_host_rsa_key.pub",
        "sha256sum </var/lib/systemd/random-seed",
    ];
    let before = own.map(|own| lab.inside(&ids[0], own));
    lab.inside(&ids[0], "echo kept >/etc/kept; echo secret >/root/.bash_history; sync");
    let name = format!("general-{network}");
    lab.ok(&["image", "create", &ids[0], "--name", &name, "--generalize"]);
    lab.wait(&ids, "ssh");
    ids.extend(launch(&name, 2));
    for (own, before) in own.into_iter().zip(before) {
        let mut seen: BTreeSet<String> = ids.iter().map(|id| lab.inside(id, own)).collect();
        seen.insert(before);
        assert!(seen.len() == ids.len() + 1 && !seen.contains(""), "{own}: {seen:?}");
    }
    for id in &ids {
        // systemd makes it of the UUID.
        let uuid = lab.describe(id)["Spore"]["Uuid"].as_str().unwrap().replace('-', "");
        assert_eq!(lab.inside(id, "cat /etc/machine-id"), uuid);
        assert_eq!(
            lab.inside(id, "cat /etc/kept; ls /root/.bash_history 2>/dev/null || :"),
            "kept"
        );
    }
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    lab.ok(&[&["terminate"][..], &all].concat());
}

/// A guest with cloud-init that is told of itself by a volume.
pub fn is_configured_by_a_volume(lab: &Lab, image: &str) {
    let more = ["-m", "768M", "--metadata", "nocloud", "--network", "default"];
    let ids = lab.launch_of(image, 1, &[&more[..], &["--user-data", USER_DATA]].concat());
    let id = ids[0].as_str();
    lab.wait(&ids, "cloud-init");
    assert_eq!(lab.inside(id, "cat /run/cloud-init/cloud-id"), "nocloud");
    assert_eq!(lab.inside(id, "cat /root/by-script /etc/by-cloud-config"), "root\nwritten");
    let address = lab.describe(id)["PrivateIpAddress"].as_str().unwrap().replace('.', "-");
    assert_eq!(lab.inside(id, "hostname"), format!("ip-{address}"));
    assert_eq!(lab.ok(&["ssh", id, "--", "id", "-un"]).trim(), USER);
    lab.ok(&["terminate", id]);
}

/// `run --rm IMAGE -- CMD`: the command's input, output and exit code are the launch's; a time and
/// a signal reach it; the instance is gone in the end.
pub fn runs_one_command(lab: &Lab, image: &str, network: &str) {
    let run = ["run", "--rm", image, "-m", "768M", "--network", network];
    let with = |more: &[&'static str]| -> Vec<&str> { [&run[..], more].concat() };
    let output =
        lab.given(b"one\ntwo\n", &with(&["--", "sh", "-c", "wc -l; id -un; echo e >&2; exit 42"]));
    assert_eq!(code(&output), 42);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "2\nroot\n");
    assert!(output.stderr.ends_with(b"e\n"));
    gone(lab);
}

/// The same, where its time is up or a signal comes.
pub fn ends_one_command(lab: &Lab, image: &str, network: &str) {
    let run = ["run", "--rm", image, "-m", "768M", "--network", network, "--kill-after", "60"];
    // It says that it was asked, and ends as it wants.
    let script = "trap 'echo asked; exit 3' INT TERM; echo up; while :; do sleep 0.2; done";
    let command = [&run[..], &["--", "sh", "-c", script]].concat();
    let mut child =
        lab.command(&command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "up\n");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    std::io::Read::read_to_string(&mut out, &mut line).unwrap();
    assert_eq!(line, "up\nasked\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    gone(lab);
    let timed =
        [&run[..7], &["--timeout", "5", "--kill-after", "1", "--", "sleep", "600"]].concat();
    assert_eq!(code(&lab.spore(&timed)), 124);
    gone(lab);
}

/// Nothing is left of instances and their volumes.
fn gone(lab: &Lab) {
    let alive = "instance-state-name=pending,running,stopping,stopped,shutting-down";
    assert_eq!(lab.ok(&["ls", "-q", "--filter", alive]), "");
    assert_eq!(lab.ok(&["volume", "ls", "-q"]), "");
}
