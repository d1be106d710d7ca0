//! Kernels that commands register for something else: what their names mean, and that none is left
//! over.

mod common;

use common::images::{refused, show};
use common::{Store, has_kvm};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A kernel's file, which differs from others in its last byte, in the store's directory.
fn kernel(store: &Store, name: &str, last: u8) -> PathBuf {
    let path = store.home().join(name);
    std::fs::write(&path, [sporevm::demo::KERNEL, &[last]].concat()).unwrap();
    path
}

fn disk(store: &Store) -> String {
    let path = store.home().join("disk");
    std::fs::write(&path, sporevm::demo::root()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The ids of the kernels that are registered.
fn kernels(store: &Store) -> Vec<String> {
    let entries = std::fs::read_dir(store.home().join("kernels")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// `spore ARGS` in the store's directory, where names of files need no path.
fn there(store: &Store, args: &[&str]) -> Command {
    let mut command = store.command(args);
    command.current_dir(store.home()).stdin(Stdio::null());
    command
}

#[test]
fn a_name_means_the_same_to_every_verb() {
    let store = Store::new();
    let disk = disk(&store);
    kernel(&store, "vmlinuz", 1);
    let run = |args: &[&str]| {
        let output = there(&store, args).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8(output.stdout).unwrap().trim().to_owned(), err)
    };
    let import = |name: &str, kernel: &str| {
        run(&["image", "import", &disk, "--name", name, "--kernel", kernel])
    };
    // A file; then a registered kernel of that name and content, which is the same.
    for name in ["one", "two"] {
        let (code, _, err) = import(name, "vmlinuz");
        assert_eq!(code, Some(0), "{err}");
    }
    let id = show(&store, "one")["KernelId"].as_str().unwrap().to_owned();
    assert_eq!(show(&store, "two")["KernelId"], id.as_str());
    // The name without a file, and the id with a file of that name.
    std::fs::remove_file(store.home().join("vmlinuz")).unwrap();
    kernel(&store, &id, 2);
    for (name, text) in [("three", "vmlinuz"), ("four", &*id), ("five", &id[..9])] {
        let (code, _, err) = import(name, text);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(show(&store, name)["KernelId"], id.as_str());
    }
    // Another file of that name is another kernel: which one is meant has to be said, to every
    // verb.
    kernel(&store, "vmlinuz", 3);
    for args in [
        &["image", "import", &*disk, "--name", "six", "--kernel", "vmlinuz"][..],
        &["image", "register", "six", "--disk", &disk, "--kernel", "vmlinuz"],
        &["run", "demo", "--kernel", "vmlinuz", "-n", "100000"],
    ] {
        let (code, _, err) = run(args);
        let what =
            format!("'vmlinuz' is kernel {id} and another file here, too: give {id}, or ./vmlinuz");
        assert!(code == Some(1) && err.contains(&what), "{args:?}: {err}");
    }
    assert_eq!(import("six", "./vmlinuz").0, Some(0));
    assert_ne!(show(&store, "six")["KernelId"], id.as_str());
    let (code, _, err) = import("seven", "none");
    assert!(code == Some(1) && err.contains("InvalidAKIID.NotFound"), "{err}");
    assert!(err.contains("no such file"), "{err}");
    // Nobody writes it: it is not waited for.
    let fifo = store.home().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (code, _, err) = import("seven", "./fifo");
    assert!(code == Some(1) && err.contains("not a regular file"), "{err}");
}

/// A command that lives has claimed it for something that is yet to come.
#[test]
fn what_a_command_is_about_to_refer_to_is_not_pruned() {
    let store = Store::new();
    let file = kernel(&store, "vmlinuz", 1);
    let id = store.ok(&["kernel", "register", file.to_str().unwrap(), "-q"]).trim().to_owned();
    let claims = store.account_dir().join("claims");
    std::fs::create_dir_all(&claims).unwrap();
    let claim = std::fs::File::create(claims.join(&id)).unwrap();
    claim.lock().unwrap();
    store.spore(&["prune", "-y"]);
    assert_eq!(kernels(&store), [id]);
    drop(claim);
    store.spore(&["prune", "-y"]);
    assert!(kernels(&store).is_empty());
}

/// Kills `args` before each of its steps and gives what the next commands make of what is left to
/// `judge`; until it comes to its end.
fn killed_everywhere(store: &Store, args: &[&str], judge: impl Fn(&str)) {
    for n in 1..500 {
        let output = there(store, args).env("SPORE_FAULT", n.to_string()).output().unwrap();
        if output.status.signal() != Some(9) {
            assert!(n > 10 && output.status.success(), "{output:?}");
            return;
        }
        store.ok(&["image", "ls"]);
        judge(&String::from_utf8_lossy(&output.stderr));
    }
    panic!("it has no end");
}

#[test]
fn a_kernel_of_an_image_that_never_came_is_collected() {
    let (store, west) = (Store::new(), Store::new());
    let (disk, file) = (disk(&store), kernel(&store, "vmlinuz", 1));
    let file = file.to_str().unwrap();
    let judge = |store: &Store, after: &str| {
        let images: Vec<String> =
            store.ok(&["image", "ls", "-q"]).lines().map(str::to_owned).collect();
        let named = |kernel: &String| images.iter().any(|i| show(store, i)["KernelId"] == **kernel);
        let lonely: Vec<String> = kernels(store).into_iter().filter(|k| !named(k)).collect();
        assert!(lonely.is_empty(), "{lonely:?} after it was {after}");
        let claims = std::fs::read_dir(store.account_dir().join("claims")).into_iter().flatten();
        assert_eq!(claims.count(), 0, "after it was {after}");
        for image in images.iter().filter(|id| !id.ends_with("de0")) {
            store.spore(&["image", "deregister", image, "--delete-associated-snapshots"]);
        }
        for kernel in kernels(store) {
            store.spore(&["kernel", "deregister", &kernel]);
        }
    };
    let import = ["image", "import", &disk, "--name", "web", "--kernel", file];
    killed_everywhere(&store, &import, |after| judge(&store, after));
    store.ok(&["region", "add", "west", west.home().to_str().unwrap()]);
    let copy = ["image", "copy", "web", "--to", "west", "--name", "web"];
    killed_everywhere(&store, &copy, |after| {
        west.ok(&["image", "ls"]);
        judge(&west, after);
    });
}

#[test]
fn what_is_refused_leaves_no_kernel() {
    let store = Store::new();
    let (disk, file) = (disk(&store), kernel(&store, "vmlinuz", 1));
    let (file, long) = (file.to_str().unwrap(), "x".repeat(300));
    refused(
        &store,
        &["image", "import", &disk, "--name", "web", "--kernel", file, "--description", &long],
        "InvalidParameterValue",
    );
    assert_eq!(kernels(&store), [""; 0]);
    assert!(!store.spore(&["run", "demo", "--kernel", file, "-m", "900G"]).status.success());
    // The built-in image's may be there.
    let builtin = kernels(&store);
    assert!(builtin.len() <= 1, "{builtin:?}");
    // One that is registered for its own sake stays.
    let id = store.ok(&["kernel", "register", file]).trim().to_owned();
    refused(
        &store,
        &["image", "import", &disk, "--name", "web", "--kernel", file, "--description", &long],
        "InvalidParameterValue",
    );
    assert!(kernels(&store).contains(&id));
}

/// An import that is given up takes no kernel from under an instance that boots it.
#[test]
fn a_kernel_that_an_instance_boots_is_not_taken_back() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    store.ok(&["image", "ls"]);
    store.ok(&["run", "demo", "-q", "-m", "64M", "--rm", "--wait"]);
    let before = kernels(&store);
    let file = kernel(&store, "vmlinuz", 1);
    let file = file.to_str().unwrap();
    let mut import = there(&store, &["image", "import", "-", "--name", "web", "--kernel", file]);
    let mut import = import.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut disk = import.stdin.take().unwrap();
    std::io::Write::write_all(&mut disk, &sporevm::demo::root()).unwrap();
    let new = || kernels(&store).into_iter().find(|id| !before.contains(id));
    let id = loop {
        match new() {
            Some(id) => break id,
            None => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
        assert!(import.try_wait().unwrap().is_none(), "it ended before it registered a kernel");
    };
    let mode = ["--append", "demo.mode=poweroff-on-button", "--kernel", &id];
    let instance = store.launch(&mode).remove(0);
    let interrupt = Command::new("kill").args(["-INT", &import.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    assert_eq!(import.wait().unwrap().code(), Some(130));
    drop(disk);
    assert!(kernels(&store).contains(&id), "{instance} boots it");
    store.ok(&["stop", "--force", &instance]);
    store.ok(&["start", &instance]);
    store.ok(&["terminate", &instance]);
}
