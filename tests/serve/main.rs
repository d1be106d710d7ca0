//! `spore serve`: AWS's own clients, unmodified, against a store; and what is no client at all.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod console;
mod hostile;
mod vectors;

use common::networks::has_networks;
use common::{Store, has_kvm, venv};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// A service that runs.
pub struct Served {
    process: Child,
    /// What it says.
    stderr: BufReader<ChildStderr>,
    /// Where it is: a URL.
    pub endpoint: String,
}

impl Served {
    /// Of a store, at an address of its own.
    pub fn new(store: &Store, args: &[&str]) -> Self {
        Self::at(store, "127.0.0.1:0", args)
    }

    /// At that address.
    pub fn at(store: &Store, listen: &str, args: &[&str]) -> Self {
        let mut command = store.command(&[&["serve", "--listen", listen][..], args].concat());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let Some((_, endpoint)) = line.trim().rsplit_once(" at ") else {
            panic!("it does not serve: {line}");
        };
        Self { process, stderr, endpoint: endpoint.to_owned() }
    }

    /// Its process.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.process)
    }

    /// Ends it as a service manager does; its exit code, and what it has said.
    pub fn end(mut self) -> (Option<i32>, String) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.process.wait().unwrap().code(), said)
    }

    /// A client of it: the variables that `spore env` prints are set.
    pub fn client(&self, store: &Store, program: &Path) -> Command {
        let mut client = Command::new(program);
        let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
        client.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home);
        // None that the machine has.
        client.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", "/dev/null");
        for line in store.ok(&["env", "--endpoint", &self.endpoint]).lines() {
            let set = line.strip_prefix("export ").and_then(|set| set.split_once('='));
            let (name, value) = set.unwrap_or_else(|| panic!("no variable: {line}"));
            client.env(name, value.trim_matches('\''));
        }
        client
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a script of this directory against a service; it must succeed. What it prints.
fn script(served: &Served, store: &Store, name: &str, args: &[&str]) -> Option<String> {
    let python = venv::python()?;
    Some(script_by(served, store, &python, name, args))
}

/// As [`script`], by that interpreter.
pub fn script_by(
    served: &Served,
    store: &Store,
    program: &Path,
    name: &str,
    args: &[&str],
) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve").join(name);
    let output = served.client(store, program).arg(path).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}{err}");
    said.trim().to_owned()
}

/// `aws ARGS`: whether it succeeded, and what it printed.
fn aws(served: &Served, store: &Store, python: &Path, args: &str) -> (bool, String) {
    let program = python.with_file_name("aws");
    let output = served.client(store, &program).args(args.split(' ')).output().unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Each action that there is, by boto3; each answer has the elements that EC2's service model says.
#[test]
fn boto3_does_every_action() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let network = if has_networks(&store) { "default" } else { "none" };
    let served = Served::new(&store, &["--network", network]);
    script(&served, &store, "scenario.py", &[]);
    let (code, said) = served.end();
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(code, Some(0), "{said}");
}

/// What the command line's documents do with images.
#[test]
fn awss_command_line_works_as_it_is() {
    let Some(python) = venv::python().filter(|_| has_kvm()) else { return };
    let store = Store::new();
    let served = Served::new(&store, &["--network", "none"]);
    let disk = store.home().join("disk.img");
    std::fs::File::create(&disk).unwrap().set_len(4 << 20).unwrap();
    let disk = disk.to_string_lossy().into_owned();
    let import = ["snapshot", "import", &disk, "--format", "raw", "-q"];
    let snapshot = store.ok(&import).trim().to_owned();
    let ok = |args: &str| {
        let (ok, said) = aws(&served, &store, &python, args);
        assert!(ok, "aws {args}: {said}");
        said.trim().to_owned()
    };
    let mapping = format!("DeviceName=/dev/vda,Ebs={{SnapshotId={snapshot}}}");
    let image = ok(&format!(
        "ec2 register-image --name web --root-device-name /dev/vda --block-device-mappings {mapping} --query ImageId --output text"
    ));
    assert!(image.starts_with("ami-"), "{image}");
    ok(&format!(
        "ec2 modify-image-attribute --image-id {image} --launch-permission Add=[{{Group=all}}]"
    ));
    let public = ok(&format!("ec2 describe-images --image-ids {image} --query Images[0].Public"));
    assert_eq!(public, "true");
    let granted = ok(&format!(
        "ec2 describe-image-attribute --image-id {image} --attribute launchPermission --output text"
    ));
    assert!(granted.contains("all"), "{granted}");
    ok(&format!("ec2 reset-image-attribute --image-id {image} --attribute launchPermission"));
    assert_eq!(ok("ec2 describe-images --owners aws-marketplace --query Images"), "[]");
    let names = "ec2 describe-images --owners self --filters Name=name,Values=w* --query Images[].Name --output text";
    assert_eq!(ok(names), "web");
    // What the command line does is seen here, and the other way round.
    store.ok(&["image", "copy", "web", "--name", "web-2"]);
    assert_eq!(ok(names).split_whitespace().collect::<Vec<_>>(), ["web", "web-2"]);
    let made = ["template", "create", "small", "--image", "demo", "-t", "spore.tiny"];
    let template = store.ok(&made).trim().to_owned();
    assert_eq!(
        ok(
            "ec2 describe-launch-templates --query LaunchTemplates[].LaunchTemplateId --output text"
        ),
        template
    );
    store.ok(&["template", "version", "small", "--source", "1", "-t", "t2.nano", "--default"]);
    let launched = ok(
        "ec2 run-instances --count 1 --launch-template LaunchTemplateName=small --query Instances[].InstanceType --output text",
    );
    assert_eq!(launched, "t2.nano");
    let run = store.ok(&["run", "--template", "small:1", "--tag", "a=b", "-o", "json"]);
    assert!(run.contains("spore.tiny") && run.contains("aws:ec2launchtemplate:version"), "{run}");
    store.ok(&["terminate", "--all"]);
    store.ok(&["template", "delete", "small:1", "small"]);
    ok(&format!("ec2 deregister-image --image-id {image}"));
    assert!(!store.ok(&["image", "ls", "-q"]).contains(&image));
    let ids = ok(
        "ec2 run-instances --image-id demo --count 2 --query Instances[].InstanceId --output text",
    );
    ok(&format!("ec2 wait instance-terminated --instance-ids {}", ids.replace('\t', " ")));
    let (_, refused) =
        aws(&served, &store, &python, "ec2 terminate-instances --instance-ids i-00000000000000000");
    assert!(refused.contains("InvalidInstanceID.NotFound"), "{refused}");
}

/// What is launched under a token is launched once, whoever asks again and whatever died meanwhile.
#[test]
fn a_token_launches_once() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let served = Served::new(&store, &["--network", "none"]);
    script(&served, &store, "tokens.py", &[]);
    // As a client whose connection broke: the service is killed, and another asked.
    rustix::process::kill_process(served.pid(), rustix::process::Signal::KILL).unwrap();
    drop(served);
    let served = Served::new(&store, &["--network", "none"]);
    script(&served, &store, "tokens.py", &[]);
    let all: serde_json::Value =
        serde_json::from_str(&store.ok(&["ls", "-a", "-o", "json"])).unwrap();
    let reservations = all["Reservations"].as_array().unwrap();
    assert_eq!(reservations.len(), 1, "{all}");
    assert_eq!(reservations[0]["Instances"].as_array().unwrap().len(), 2, "{all}");
}

/// A snapshot that is written block by block is there whatever becomes of the service meanwhile.
#[test]
fn snapshots_are_written_and_read_block_by_block() {
    let store = Store::new();
    let served = Served::new(&store, &["--network", "none"]);
    let Some(unfinished) = script(&served, &store, "blocks.py", &[]) else { return };
    rustix::process::kill_process(served.pid(), rustix::process::Signal::KILL).unwrap();
    drop(served);
    let served = Served::new(&store, &["--network", "none"]);
    script(&served, &store, "blocks.py", &[&unfinished]);
    store.ok(&["snapshot", "verify", &unfinished]);
    let (code, said) = served.end();
    assert!(code == Some(0) && !said.contains("panicked"), "{said}");
}

/// An import goes on when the service that was asked for it has died, and ends when it is
/// cancelled.
#[test]
fn imports_outlive_the_service() {
    let store = Store::new();
    let served = Served::new(&store, &["--network", "none"]);
    let Some(tasks) = script(&served, &store, "tasks.py", &[]) else { return };
    rustix::process::kill_process(served.pid(), rustix::process::Signal::KILL).unwrap();
    drop(served);
    let served = Served::new(&store, &["--network", "none"]);
    let tasks: Vec<&str> = tasks.split_whitespace().collect();
    script(&served, &store, "tasks.py", &tasks);
    let (code, said) = served.end();
    assert!(code == Some(0) && !said.contains("panicked"), "{said}");
}

/// The names on the wire are those of the service model.
#[test]
fn the_models_are_what_the_script_makes_of_botocores() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/service-model");
    if venv::python().is_none() {
        return;
    }
    let output = Command::new(script).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The demo image with another thing to do; its id.
fn demo_in_mode(store: &Store, name: &str, mode: &str) -> String {
    let disk = store.home().join("demo.img");
    std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let images: serde_json::Value =
        serde_json::from_str(&store.ok(&["image", "show", "demo", "-o", "json"])).unwrap();
    let kernel = images["Images"][0]["KernelId"].as_str().unwrap().to_owned();
    let disk = disk.to_string_lossy().into_owned();
    let options = ["image", "register", name, "--disk", &disk, "--kernel", &kernel, "-q"];
    let mode = format!("demo.mode={mode}");
    store.ok(&[&options[..], &["--cmdline", &mode]].concat()).trim().to_owned()
}

/// Runs the scenario of Auto Scaling with these arguments; it must succeed.
fn scale(served: &Served, store: &Store, python: &Path, args: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/scaling.py");
    let mut client = served.client(store, python);
    let output = client.arg(path).args(args).env("SPORE_HOME", store.home()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}{err}");
}

/// A group of the demo image grows, shrinks, replaces what dies, refreshes and scales; it goes on
/// after the service was killed, which loses and doubles nothing.
#[test]
fn a_group_keeps_as_many_instances_as_it_should_have() {
    let Some(python) = venv::python().filter(|_| has_kvm()) else { return };
    let store = Store::new();
    let steady = demo_in_mode(&store, "steady", "poweroff-on-button");
    let busy = demo_in_mode(&store, "busy", "hang");
    let served = Served::new(&store, &["--network", "none"]);
    let images = [&*steady, "demo", &*busy];
    scale(&served, &store, &python, &images);
    let aside = store.spore(&["asg", "ls"]);
    assert!(!String::from_utf8_lossy(&aside.stderr).contains("nothing scales"), "{aside:?}");
    let before = store.ok(&["ls", "-q"]);
    store.ok(&["asg", "set", "web", "-n", "4"]);
    rustix::process::kill_process(served.pid(), rustix::process::Signal::KILL).unwrap();
    drop(served);
    store.ok(&["terminate", before.lines().next().unwrap()]);
    let aside = store.spore(&["asg", "ls"]);
    assert!(String::from_utf8_lossy(&aside.stderr).contains("nothing scales"), "{aside:?}");
    let served = Served::new(&store, &["--network", "none"]);
    scale(&served, &store, &python, &[&images[..], &["again"]].concat());
    let (code, said) = served.end();
    assert!(code == Some(0) && !said.contains("panicked"), "{said}");
    // Without a service the command line ends a group by itself.
    store.ok(&["asg", "create", "cli", "--image", "steady", "-n", "2"]);
    store.ok(&["asg", "delete", "cli", "--force"]);
    store.ok(&["template", "create", "fleet", "--image", "steady", "-t", "spore.tiny"]);
    store.ok(&["asg", "create", "fleet", "--template", "fleet:$Latest", "-n", "0", "--max", "4"]);
    let shown = store.ok(&["asg", "ls", "-o", "csv"]);
    assert!(shown.contains("fleet:$Latest"), "{shown}");
    store.ok(&["asg", "policy", "put", "fleet", "more", "--adjust", "+3"]);
    store.ok(&["asg", "policy", "put", "fleet", "busy", "--target-cpu", "60", "--no-scale-in"]);
    store.ok(&["asg", "policy", "execute", "fleet", "more"]);
    let shown = store.ok(&["asg", "show", "fleet", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["AutoScalingGroups"][0]["DesiredCapacity"], 3, "{shown}");
    assert_eq!(store.ok(&["asg", "policy", "ls", "-q"]), "more\nbusy\n");
    let listed = store.ok(&["asg", "policy", "ls", "fleet"]);
    assert!(listed.contains("+3") && listed.contains("CPU at 60 %, never in"), "{listed}");
    store.ok(&["asg", "policy", "delete", "fleet", "more", "busy"]);
    assert_eq!(store.ok(&["asg", "policy", "ls", "-q"]), "");
    store.ok(&["asg", "delete", "fleet", "--force"]);
    assert_eq!(store.ok(&["asg", "ls", "-q"]), "");
}
