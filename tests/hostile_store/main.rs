//! A shared store in which an account has planted all that it can, wherever a command opens
//! something: every verb of the command line, run by another user and by root, changes, signals and
//! waits for nothing of it.
//!
//! `verbs.rs` has the verbs; one that is missing there fails the test. `salt.rs` has what is
//! planted. Needs root, to be several users. Nothing of the tests runs a virtual machine of the
//! attacker's; root's own may run.

#[path = "../common/mod.rs"]
mod common;

mod many;
mod races;
mod salt;
mod verbs;

use salt::World;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Nothing may take longer.
const LIMIT: Duration = Duration::from_secs(5);
/// Most memory that a command may take, in KiB.
const MEMORY: i64 = 64 << 10;

/// What a file is, without when it was read: kind and mode, owner, size, last change, and where a
/// link points.
type Print = (u32, u32, u64, (i64, i64), Option<PathBuf>);

/// All below `roots` that is not `uid`'s. Of directories the time is left out: names may come and
/// go beside.
fn prints(roots: &[PathBuf], uid: Option<u32>) -> BTreeMap<PathBuf, Print> {
    let mut found = BTreeMap::new();
    let mut open = roots.to_vec();
    while let Some(path) = open.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.map(|entry| entry.path()));
        }
        if uid == Some(meta.uid()) {
            continue;
        }
        let changed = if meta.is_dir() { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
        let size = if meta.is_dir() { 0 } else { meta.size() };
        found.insert(path.clone(), (meta.mode(), meta.uid(), size, changed, path.read_link().ok()));
    }
    found
}

/// How a command ended.
struct Run {
    code: Option<i32>,
    err: String,
    took: Duration,
    /// KiB of its largest process.
    memory: i64,
}

fn run(world: &World, uid: u32, args: &[String]) -> Run {
    let mut command = world.spore(uid, args);
    let errors = world.installed.path(&format!("stderr-{uid}-{}", number()));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(&errors).unwrap());
    let begun = Instant::now();
    #[expect(clippy::zombie_processes, reason = "wait4 below takes it away")]
    let child = command.spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    let mut killed = false;
    loop {
        // SAFETY: both pointers are to this frame's, and the process is a child of this one that
        // nobody else waits for.
        let ended = unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, usage.as_mut_ptr()) };
        if ended == pid {
            break;
        }
        assert!(ended == 0, "wait4");
        if begun.elapsed() > 2 * LIMIT && !killed {
            // SAFETY: a plain system call; the number is that of a child not yet waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            killed = true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // SAFETY: wait4 has filled it in, and all of its bit patterns are valid.
    let memory = unsafe { usage.assume_init() }.ru_maxrss;
    let err = std::fs::read_to_string(&errors).unwrap_or_default();
    std::fs::remove_file(&errors).unwrap();
    let code = std::process::ExitStatus::from_raw(status).code();
    Run { code, err, took: begun.elapsed(), memory }
}

fn number() -> usize {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// What is wrong with how a command ended.
fn complaint(world: &World, uid: u32, args: &[String]) -> Option<String> {
    let mut ran = run(world, uid, args);
    if ran.took > LIMIT && ran.code.is_some() {
        // The host may have been busy: once more.
        ran = run(world, uid, args);
    }
    let line = args.join(" ");
    let shown: String = ran.err.chars().take(400).collect();
    if ran.took > LIMIT || ran.code.is_none() {
        return Some(format!(
            "uid {uid}: 'spore {line}' took {:?} ({:?}): {shown}",
            ran.took, ran.code
        ));
    }
    if ran.memory > MEMORY {
        return Some(format!("uid {uid}: 'spore {line}' took {} KiB", ran.memory));
    }
    match ran.code {
        Some(0 | 1 | 124 | 125) if !ran.err.contains("panicked") => None,
        code => Some(format!("uid {uid}: 'spore {line}' ended with {code:?}: {shown}")),
    }
}

#[test]
fn every_verb_of_the_command_line_is_in_the_table() {
    let mut missing = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(verb) = open.pop() {
        let spore = Command::new(env!("CARGO_BIN_EXE_spore")).args(&verb).arg("--help").output();
        let help = String::from_utf8(spore.unwrap().stdout).unwrap();
        let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
        let names = list.lines().take_while(|line| !line.is_empty());
        let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        let below: Vec<Vec<String>> = names
            .filter(|name| !matches!(*name, "" | "help"))
            .map(|name| [&verb[..], &[name.to_owned()]].concat())
            .collect();
        if below.is_empty() && !verbs::TABLE.iter().any(|(known, _)| *known == verb.join(" ")) {
            missing.push(verb.join(" "));
        }
        open.extend(below);
    }
    assert!(missing.is_empty(), "not in tests/hostile_store/verbs.rs: {missing:?}");
}

#[test]
fn nothing_that_another_account_plants_is_written_signalled_or_waited_for() {
    if !common::skip::is_root() {
        return;
    }
    let world = World::new();
    // The planted records are ones that this version understands: else nothing of them would be
    // looked at.
    let listed = world.ok(salt::VICTIM, &["ls", "-q"]);
    let plain = salt::instance_id(salt::PLAIN);
    assert!(listed.lines().any(|id| id == plain), "{plain} is not listed: {listed}");
    let images = world.ok(salt::VICTIM, &["image", "ls", "-q"]);
    assert!(world.runnable().iter().any(|id| images.contains(&**id)), "{images}");

    let mut complaints = Vec::new();
    for uid in [salt::VICTIM, 0] {
        // An account's first bundle has a key made for it, which takes as long as primes are to be
        // found: it is nobody's doing.
        let bundle = ["image", "register", &world.bundles()[0]].map(str::to_owned);
        let _ = world.spore(uid, &bundle).output().unwrap();
        let homes = vec![world.home(salt::VICTIM), world.home(0), world.home(salt::ATTACKER)];
        let before = prints(&[world.store()], Some(uid));
        let private = prints(&homes, None);
        let contents: Vec<_> = world.precious().iter().map(|p| std::fs::read(p).unwrap()).collect();
        let lines: Vec<Vec<String>> = verbs::lines(&world, uid);
        let next = AtomicUsize::new(0);
        let found = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
                        found.lock().unwrap().extend(complaint(&world, uid, line));
                    }
                });
            }
        });
        complaints.extend(found.into_inner().unwrap());
        let after = prints(&[world.store()], Some(uid));
        for (path, print) in &before {
            if after.get(path) != Some(print) {
                let now = after.get(path);
                complaints.push(format!("uid {uid} changed {}: {print:?} {now:?}", path.display()));
            }
        }
        let now = prints(&homes, None);
        for path in private.keys().chain(now.keys()) {
            if private.get(path) != now.get(path) {
                complaints.push(format!("uid {uid} changed {} outside", path.display()));
            }
        }
        let now: Vec<_> = world.precious().iter().map(|p| std::fs::read(p).unwrap()).collect();
        assert_eq!(contents, now, "uid {uid} changed what is precious");
        complaints.extend(world.disturbed().map(|what| format!("uid {uid}: {what}")));
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn an_account_whose_directory_somebody_else_made_is_not_locked_out() {
    if !common::skip::is_root() {
        return;
    }
    let world = World::empty();
    world.planted_account(salt::VICTIM);
    let output = world.spore(salt::VICTIM, &["product".into(), "accept".into(), "code-1".into()]);
    let output = { output }.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("is not yours") && err.lines().count() == 1, "{err}");
    assert_eq!(world.ok(salt::VICTIM, &["product", "ls", "-q"]), "code-1");
    assert!(world.ok(salt::VICTIM, &["events"]).contains("code-1"));
    // Root's report has what it did, and nothing of whoever took the name.
    assert!(world.ok(0, &["events", "-o", "csv"]).contains("code-1"));
}

/// A journal of the attacker's with an entry for `id`, and so many bytes before it.
fn journal(world: &World, before: usize, id: &str, of: u32) {
    let account = world.store().join("accounts").join(salt::ATTACKER.to_string());
    std::fs::create_dir(&account).unwrap();
    let entry = format!(
        "{{\"EventTime\":\"2026-11-29T00:00:00Z\",\"BootMs\":1,\"BootId\":\"b\",\"AccountId\":\"{}\",\
         \"Command\":\"run\",\"Event\":\"created\",\"Kind\":\"volume\",\"Id\":\"{id}\",\"Record\":{{}}}}\n",
        of
    );
    let path = account.join("journal.jsonl");
    std::fs::write(&path, "\n".repeat(before) + &entry).unwrap();
    for path in [&path, &account] {
        std::os::unix::fs::chown(path, Some(salt::ATTACKER), Some(salt::ATTACKER)).unwrap();
    }
}

#[test]
fn what_is_left_out_of_anothers_journal_is_said() {
    if !common::skip::is_root() {
        return;
    }
    for (before, told) in [(0, false), (9 << 20, true)] {
        let world = World::empty();
        journal(&world, before, "vol-00000000000000001", salt::ATTACKER);
        let ran = world.spore(0, &["events".into()]).output().unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && out.contains("vol-00000000000000001"), "{out}{err}");
        let said = err.contains("64012 has more than 8 MiB");
        assert_eq!((said, err.lines().count()), (told, usize::from(told)), "{err}");
    }
}

/// What it says of another account is nobody's: neither what that one did nor what that one used.
#[test]
fn nobody_writes_in_anothers_name() {
    if !common::skip::is_root() {
        return;
    }
    let world = World::empty();
    journal(&world, 0, "vol-00000000000000001", salt::VICTIM);
    for verb in ["events", "usage"] {
        let said = world.ok(0, &[verb, "-o", "csv"]);
        assert!(!said.contains(&salt::VICTIM.to_string()), "{said}");
    }
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    if !common::skip::is_root() {
        return;
    }
    let world = World::empty();
    let volume = world.ok(salt::VICTIM, &["volume", "create", "--size", "1"]);
    let path = world.store().join("volumes").join(&volume);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let ran = run(&world, salt::VICTIM, &["volume".into(), "delete".into(), volume.clone()]);
    assert!(ran.code != Some(0) && ran.err.contains("chmod go-w"), "{}", ran.err);
    assert!(path.exists());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    world.ok(salt::VICTIM, &["volume", "delete", &volume]);
}

/// The user's credentials are for places that the user named.
#[test]
fn a_bucket_that_anothers_record_names_is_not_asked() {
    if !common::skip::is_root() {
        return;
    }
    let world = World::new();
    let image = world.in_a_bucket();
    let refused =
        run(&world, salt::VICTIM, &["run".into(), image, "-t".into(), "spore.tiny".into()]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("spore region add"), "{}", refused.err);
    assert!(world.disturbed().next().is_none(), "somebody connected");
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
