//! Images of a running Debian: what was changed in the instance is there in what is launched from
//! them.

use super::linux::Lab;
use super::scenarios::snapshot_digests;
use serde_json::Value;

/// Run as init by what is launched from an image: tells what it found on its root, and powers off.
const CHECK: &str = r#"#!/bin/sh
mount -t proc proc /proc
e2fsck -fn /dev/vda >/dev/null 2>&1; echo "check: fsck $?"
echo "check: mark $(cat /root/mark)"
echo "check: package $(dpkg-query -W -f '${Status} ${Version}' spore-note), $(cat /usr/share/spore-note)"
echo "check: log $(awk '$1 != NR { bad = 1 } END { print NR, bad ? "torn" : "whole" }' /root/log)"
mount -o remount,rw /dev/vda / && echo "mark $(cat /root/mark)" >/root/again && sync && echo "check: writable"
poweroff -ff
"#;

/// A package of Debian's format, made where there is no network, and installed from its file.
const PACKAGE: &str = "mkdir -p /root/p/DEBIAN /root/p/usr/share && echo noted > /root/p/usr/share/spore-note && \
     printf 'Package: spore-note\\nVersion: 1.2\\nArchitecture: all\\nMaintainer: none <none@localhost>\\nDescription: note\\n' \
     > /root/p/DEBIAN/control && dpkg-deb -b /root/p /root/note.deb >/dev/null && dpkg -i /root/note.deb >/dev/null";

/// With and without a reboot, while the guest writes; three launched from each; every order of
/// taking them down.
pub fn images_of_a_writing_guest(lab: &Lab) {
    let before = snapshot_digests(lab);
    let id = lab.launch(1, &["-c", "1", "-m", "512M"]).remove(0);
    lab.wait(std::slice::from_ref(&id), "login");
    let mut shell = lab.shell(&id);
    for line in CHECK.lines() {
        shell.sh(&format!("printf '%s\\n' '{}' >> /root/check", line.replace('\'', r"'\''")));
    }
    shell.sh("chmod +x /root/check; echo changed > /root/mark");
    shell.sh(PACKAGE);
    shell.sh("sync");
    // Each line is on the disk before the next is begun.
    shell.sh(
        "{ (i=0; while :; do i=$((i+1)); echo $i >> /root/log; sync /root/log; done) >/dev/null 2>&1 & }",
    );
    let lines =
        |shell: &mut super::linux::Shell| -> u64 { shell.sh("wc -l < /root/log").parse().unwrap() };
    shell.sh("sleep 2");
    let acknowledged = lines(&mut shell);
    let pid = lab.pid(&id);
    let live = lab.ok(&["image", "create", &id, "--name", "live", "--no-reboot", "-q"]);
    assert_eq!(lab.pid(&id), pid, "the guest went on");
    let later = lines(&mut shell);
    assert!(later > acknowledged, "the guest went on writing: {acknowledged}, then {later}");
    shell.log_out();
    let clean = lab.ok(&["image", "create", &id, "--name", "clean", "-q"]);
    assert_eq!(lab.state(&id), "running", "the guest has been started again");
    lab.ok(&["terminate", &id]);
    let launched_live = launch_and_check(lab, "live", acknowledged);
    let launched_clean = launch_and_check(lab, "clean", later);
    take_down(lab, [live.trim(), clean.trim()], &launched_live, &launched_clean);
    assert_eq!(snapshot_digests(lab), before);
}

/// Three instances that found everything, and are stopped.
fn launch_and_check(lab: &Lab, image: &str, at_least: u64) -> Vec<String> {
    let run =
        ["run", image, "-n", "3", "-q", "-c", "1", "-m", "256M", "--append", "ro init=/root/check"];
    let ids: Vec<String> = lab.ok(&run).lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), 3);
    lab.wait(&ids, "stopped");
    for id in &ids {
        let logs = lab.logs(id);
        for found in [
            "check: fsck 0",
            "check: mark changed",
            "check: package install ok installed 1.2, noted",
            "check: writable",
        ] {
            assert!(logs.contains(found), "{image}: {found}: {logs}");
        }
        let log = logs.lines().find_map(|line| line.trim().strip_prefix("check: log ")).unwrap();
        let count = log.strip_suffix(" whole").unwrap_or_else(|| panic!("{image}: {log}"));
        assert!(count.parse::<u64>().unwrap() >= at_least, "{image}: {count} of {at_least} lines");
    }
    ids
}

/// Every order that is legal; every one that is not, refused with EC2's code.
fn take_down(lab: &Lab, images: [&str; 2], of_live: &[String], of_clean: &[String]) {
    let refused = |words: &[&str], code: &str| {
        let output = lab.spore(words);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {err}");
        assert!(err.contains(code) && err.trim().lines().count() == 1, "{words:?}: {err}");
    };
    let [live, clean] = images;
    let snapshot = |image: &str| -> String {
        let shown: Value =
            serde_json::from_str(&lab.ok(&["image", "show", image, "-o", "json"])).unwrap();
        let mapping = &shown["Images"][0]["BlockDeviceMappings"][0];
        mapping["Ebs"]["SnapshotId"].as_str().unwrap().to_owned()
    };
    let (of_live_image, of_clean_image) = (snapshot(live), snapshot(clean));
    refused(&["snapshot", "delete", &of_live_image], "InvalidSnapshot.InUse");
    // The image first, then its snapshot, while instances of it are there: they live on.
    lab.ok(&["image", "deregister", live]);
    refused(&["image", "deregister", live], "InvalidAMIID.Unavailable");
    refused(&["run", live], "InvalidAMIID.Unavailable");
    lab.ok(&["snapshot", "delete", &of_live_image]);
    refused(&["snapshot", "show", &of_live_image], "InvalidSnapshot.NotFound");
    let survivor = std::slice::from_ref(&of_live[0]);
    lab.ok(&["start", &of_live[0]]);
    lab.wait(survivor, "stopped");
    assert!(lab.logs(&of_live[0]).matches("check: mark changed").count() >= 1);
    // The instances first, then image and snapshot at once.
    lab.ok(&["terminate", &of_clean[0], &of_clean[1], &of_clean[2]]);
    lab.ok(&["image", "deregister", clean, "--delete-associated-snapshots"]);
    refused(&["snapshot", "show", &of_clean_image], "InvalidSnapshot.NotFound");
    lab.ok(&["terminate", &of_live[0], &of_live[1], &of_live[2]]);
}
