//! A Linux guest that sees directories of the host's.

use super::linux::{Lab, Shell, servers};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes of a large file.
const AMOUNT: usize = 48 << 20;

/// What is read, written, renamed and removed is so on both sides; nothing leads out of a share,
/// and what is read only stays as it is; the guest lives on when a share's directory or server is
/// gone.
pub fn directories_are_shared(lab: &Lab) {
    let place = tempfile::tempdir().unwrap();
    let (mine, fixed) = (place.path().join("mine"), place.path().join("fixed"));
    for dir in [&mine, &fixed] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "content").unwrap();
    }
    fs::write(place.path().join("secret"), "secret").unwrap();
    symlink("../secret", mine.join("out")).unwrap();
    symlink(place.path().join("secret"), mine.join("absolute")).unwrap();
    let large: Vec<u8> =
        (0..AMOUNT / 4).flat_map(|n| (n as u32).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    fs::write(mine.join("large"), &large).unwrap();
    let (rw, ro) =
        (format!("{}:/mnt/mine", mine.display()), format!("{}:/mnt/fixed:ro", fixed.display()));
    let ids = lab.launch(1, &["-c", "2", "-m", "512M", "-v", &rw, "-v", &ro]);
    lab.wait(&ids, "login");
    let id = &ids[0];
    let shown = lab.ok(&["show", id]);
    assert!(
        shown.contains(&format!("{rw}, share0")) && shown.contains(&format!("{ro}, share1")),
        "{shown}"
    );
    let mut shell = lab.shell(id);
    mount(&mut shell, "share0", "/mnt/mine");
    // Read only is the host's word, whatever the guest mounts.
    mount(&mut shell, "share1", "/mnt/fixed");
    both_ways(&mut shell, &mine, &large);
    nothing_leads_out(&mut shell, &mine);
    stays_as_it_is(&mut shell, &fixed);
    let refused = lab.spore(&["stop", "--hibernate", id]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("has shared directories"), "{why}");
    // The directory goes: it is empty.
    fs::remove_dir_all(&fixed).unwrap();
    shell.sh("sleep 1.5; ! cat /mnt/fixed/file");
    shell.sh("! ls /mnt/fixed/file 2>&1; ls /mnt/fixed; true");
    a_server_dies(lab, id, &mut shell, &mine);
    lab.ok(&["stop", "--force", id]);
    assert_eq!(left_servers(id), [] as [u32; 0], "they end with their VMM");
    let refused = lab.spore(&["start", id]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("there is no directory") && why.contains("fixed"), "{why}");
    fs::create_dir(&fixed).unwrap();
    lab.ok(&["start", id]);
    lab.wait(&ids, "login");
    let mut shell = lab.shell(id);
    mount(&mut shell, "share0", "/mnt/mine");
    assert_eq!(shell.sh("cat /mnt/mine/file"), "content");
    lab.ok(&["terminate", id]);
}

/// A guest with systemd 254 or later mounts what is shared before anybody gets in; a command's
/// directory is read only unless it says otherwise.
pub fn a_command_finds_what_is_shared(lab: &Lab, image: &str) {
    let place = tempfile::tempdir().unwrap();
    let (mine, fixed) = (place.path().join("mine"), place.path().join("fixed"));
    for dir in [&mine, &fixed] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "content").unwrap();
    }
    let rw = format!("{}:/mnt/my data:rw", mine.display());
    let ro = format!("{}:/src", fixed.display());
    let script =
        "cat '/mnt/my data/file' /src/file; echo made > '/mnt/my data/made'; ! touch /src/x";
    let run = ["run", "--rm", image, "-v", &rw, "-v", &ro, "--", "sh", "-c", script];
    assert_eq!(lab.ok(&run), "contentcontent");
    assert_eq!(fs::read_to_string(mine.join("made")).unwrap(), "made\n");
    assert!(!fixed.join("x").exists());
}

fn mount(shell: &mut Shell, tag: &str, at: &str) {
    shell.sh(&format!("mkdir -p {at} && mount -t virtiofs {tag} {at}"));
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn both_ways(shell: &mut Shell, mine: &Path, large: &[u8]) {
    assert_eq!(shell.sh("cat /mnt/mine/file"), "content");
    let read = shell.sh("sha256sum < /mnt/mine/large | cut -d' ' -f1");
    assert_eq!(read, digest(large));
    let write = "dd if=/dev/urandom of=/mnt/mine/new bs=1M count=48 conv=fsync status=none";
    let written = shell.sh(&format!("{write}; sha256sum < /mnt/mine/new | cut -d' ' -f1"));
    assert_eq!(digest(&fs::read(mine.join("new")).unwrap()), written);
    shell.sh("cd /mnt/mine && mkdir -p a/b && mv new a/b/moved && ln a/b/moved linked && cd /");
    assert_eq!(fs::metadata(mine.join("linked")).unwrap().len(), 48 << 20);
    shell.sh("rm /mnt/mine/a/b/moved && truncate -s 5 /mnt/mine/linked && rmdir /mnt/mine/a/b");
    assert_eq!(fs::metadata(mine.join("linked")).unwrap().len(), 5);
    assert!(!mine.join("a/b").exists());
    // An open file that has no name any more.
    shell.sh("exec 5<>/mnt/mine/unnamed; rm /mnt/mine/unnamed; echo kept >&5; cat /proc/self/fd/5 | grep kept; exec 5<&-");
    // A tree with all that there is in /etc, and mapped files.
    shell.sh("cp -r --preserve=mode,timestamps /etc /mnt/mine/ && diff -r --no-dereference /etc /mnt/mine/etc");
    shell.sh("cp /bin/cat /mnt/mine/cat && /mnt/mine/cat /mnt/mine/file | grep content");
    shell.sh("echo more >> /mnt/mine/file && grep -c . /mnt/mine/file");
    assert_eq!(fs::read_to_string(mine.join("file")).unwrap(), "contentmore\n");
    fs::write(mine.join("file"), "content").unwrap();
    shell.sh("sleep 1.5; test $(cat /mnt/mine/file) = content");
    shell.sh("df /mnt/mine | grep share0");
}

fn nothing_leads_out(shell: &mut Shell, mine: &Path) {
    shell.sh("! cat /mnt/mine/out && ! cat /mnt/mine/absolute && test -L /mnt/mine/out");
    shell.sh(
        "! echo x > /mnt/mine/absolute; ! mknod /mnt/mine/disk b 8 0 && ! mkfifo /mnt/mine/fifo",
    );
    shell.sh(
        "echo x > /mnt/mine/program; chmod 4755 /mnt/mine/program; ! chown 1000 /mnt/mine/program",
    );
    let mode = fs::metadata(mine.join("program")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    shell.sh("! setfattr -n user.x -v y /mnt/mine/file 2>/dev/null");
}

fn stays_as_it_is(shell: &mut Shell, fixed: &Path) {
    assert_eq!(shell.sh("cat /mnt/fixed/file"), "content");
    for change in ["echo x > file", "rm file", "touch file", "mv file x", "mkdir x", "chmod 1 file"]
    {
        shell.sh(&format!("cd /mnt/fixed; ! ({change}); cd /"));
    }
    shell.sh("(echo x > /mnt/fixed/file) 2>&1 | grep 'Read-only file system'");
    assert_eq!(fs::read_dir(fixed).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(fixed.join("file")).unwrap(), "content");
}

/// The guest's share fails, the guest does not, and the user is told once.
fn a_server_dies(lab: &Lab, id: &str, shell: &mut Shell, mine: &Path) {
    let both = left_servers(id);
    assert_eq!(both.len(), 2, "{both:?}");
    for pid in both {
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    }
    shell.sh("sleep 1.5; cat /mnt/mine/file 2>&1 | grep 'Input/output error'");
    shell.sh("! ls /mnt/mine/a && ! touch /mnt/mine/x; echo alive > /root/alive && sync");
    let told = lab.vmm_logs(id);
    assert_eq!(told.matches("share share0: its server is gone").count(), 1, "{told}");
    assert_eq!(lab.state(id), "running");
    assert!(!mine.join("x").exists());
}

/// The processes that serve an instance's shares. One that was killed is gone soon.
fn left_servers(id: &str) -> Vec<u32> {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !servers(id).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    servers(id)
}
