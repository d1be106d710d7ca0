//! Objects that become links to the victim's, and back, while a command looks at them.

use crate::common::skip;
use crate::salt::{self, World};
use crate::{complaint, prints};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What is tried on the attacker's objects, by the first letters of their ids.
const TRIED: &[(&str, &[&str])] = &[
    ("i-", &["show", "logs", "stop --force", "tag {} a=b", "terminate"]),
    ("ami-", &["image show", "image copy {} --name copied", "image deregister"]),
    ("snap-", &["snapshot verify", "volume create --snapshot", "snapshot delete"]),
    ("vol-", &["volume resize {} --size 2", "snapshot create", "volume delete"]),
];
/// How often.
const ROUNDS: usize = 4;

/// The objects of a user, each a directory.
fn objects(world: &World, uid: u32) -> Vec<PathBuf> {
    let of = |kind: &str| fs::read_dir(world.store().join(kind)).into_iter().flatten().flatten();
    let all = ["instances", "images", "snapshots", "volumes"].into_iter().flat_map(of);
    use std::os::unix::fs::MetadataExt;
    let theirs =
        |path: &PathBuf| path.symlink_metadata().is_ok_and(|m| m.is_dir() && m.uid() == uid);
    all.map(|entry| entry.path()).filter(theirs).collect()
}

/// A link to `target` beside what it is exchanged with.
fn link(at: &Path, target: &Path) -> (PathBuf, PathBuf) {
    let beside = at.with_file_name(format!(".{}", at.file_name().unwrap().to_str().unwrap()));
    symlink(target, &beside).unwrap();
    lchown(&beside, Some(salt::ATTACKER), Some(salt::ATTACKER)).unwrap();
    (at.to_owned(), beside)
}

/// Every object of the attacker's, and every file in it, with a link to the victim's of that kind.
fn pairs(world: &World, victim: u32) -> Vec<(PathBuf, PathBuf)> {
    let victims = objects(world, victim);
    let mut pairs = Vec::new();
    for object in objects(world, salt::ATTACKER) {
        let Some(target) = victims.iter().find(|other| other.parent() == object.parent()) else {
            continue;
        };
        let files: Vec<_> = fs::read_dir(&object).unwrap().flatten().collect();
        for file in files {
            pairs.push(link(&file.path(), &target.join(file.file_name())));
        }
        pairs.push(link(&object, target));
    }
    pairs
}

#[test]
fn objects_that_turn_into_links_lead_nowhere() {
    if !skip::is_root() {
        return;
    }
    let world = World::empty();
    for uid in [salt::ATTACKER, salt::VICTIM, 0] {
        let import = ["image", "import", &world.file("disk"), "--name", "theirs"];
        world.ok(uid, &[&import[..], &["--kernel", &world.file("kernel")]].concat());
        world.ok(uid, &["image", "share", "theirs", "--add", "all", "--yes"]);
        world.ok(uid, &["volume", "create", "--size", "1"]);
    }
    world.instance(salt::instance_id(salt::PLAIN), salt::Salt::Missing);
    if skip::has_kvm() {
        let stays = ["run", "demo", "-m", "64M", "--append=demo.mode=poweroff-on-button"];
        world.ok(0, &stays);
    }
    let mut complaints = Vec::new();
    for uid in [salt::VICTIM, 0] {
        let own = objects(&world, uid);
        let attackers = objects(&world, salt::ATTACKER);
        let pairs = pairs(&world, uid);
        assert!(pairs.len() > attackers.len(), "{pairs:?}");
        let before = prints(&[&own[..], &[world.home(uid)]].concat(), None);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for (one, other) in &pairs {
                        let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
                    }
                }
            });
            for path in attackers.iter().cycle().take(attackers.len() * ROUNDS) {
                let id = path.file_name().unwrap().to_str().unwrap();
                let tried = TRIED.iter().find(|(kind, _)| id.starts_with(kind)).unwrap().1;
                for template in tried.iter().chain(&["ls", "image ls", "snapshot ls"]) {
                    let line = match template.split_once("{}") {
                        Some((before, after)) => format!("{before}{id}{after}"),
                        None if template.ends_with("ls") => (*template).to_owned(),
                        None => format!("{template} {id}"),
                    };
                    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
                    complaints.extend(complaint(&world, uid, &words));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let after = prints(&[&own[..], &[world.home(uid)]].concat(), None);
        for (path, print) in &before {
            // A guest speaks meanwhile.
            if after.get(path) != Some(print) && !path.ends_with("console.log") {
                complaints.push(format!("{}: {print:?} {:?}", path.display(), after.get(path)));
            }
        }
        // The objects before what is in them.
        for (one, other) in pairs.iter().rev() {
            if one.is_symlink() {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            }
            let _ = fs::remove_file(other);
        }
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}
