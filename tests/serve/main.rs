//! `spore serve`: AWS's own clients, unmodified, against a store; and what is no client at all.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod console;
mod hostile;
mod vectors;

use common::networks::has_networks;
use common::served::Served;
use common::{Store, has_kvm, venv};
use std::path::Path;
use std::process::Command;

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
    let everybodys =
        "ec2 describe-images --executable-users all --query Images[].ImageId --output text";
    assert!(ok(everybodys).split_whitespace().any(|id| id == image));
    let granted = ok(&format!(
        "ec2 describe-image-attribute --image-id {image} --attribute launchPermission --output text"
    ));
    assert!(granted.contains("all"), "{granted}");
    ok(&format!("ec2 reset-image-attribute --image-id {image} --attribute launchPermission"));
    permissions(&ok, &image);
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
    copies(&ok, &image);
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

/// An image is shared with accounts, and no longer.
fn permissions(ok: &dyn Fn(&str) -> String, image: &str) {
    let permit = format!("ec2 modify-image-attribute --image-id {image} --launch-permission");
    ok(&format!("{permit} Add=[{{UserId=12345}},{{UserId=12346}}]"));
    ok(&format!("{permit} Remove=[{{UserId=12345}}]"));
    let granted = format!(
        "ec2 describe-image-attribute --image-id {image} --attribute launchPermission --query LaunchPermissions[].UserId --output text"
    );
    assert_eq!(ok(&granted), "12346");
}

/// A copy of an image is tagged, found and taken away.
fn copies(ok: &dyn Fn(&str) -> String, image: &str) {
    let copy = ok(&format!(
        "ec2 copy-image --source-image-id {image} --source-region local-1 --region local-1 --name web-3 --query ImageId --output text"
    ));
    ok(&format!("ec2 wait image-available --image-ids {copy}"));
    ok(&format!("ec2 create-tags --resources {copy} --tags Key=Env,Value=test"));
    let tagged = "ec2 describe-images --filters Name=tag:Env,Values=test --query Images[].ImageId --output text";
    assert_eq!(ok(tagged), copy);
    ok(&format!("ec2 deregister-image --image-id {copy} --delete-associated-snapshots"));
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
