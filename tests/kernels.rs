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

/// A kernel that has Xen's entry point alone, in an ELF file whose own one is a virtual address:
/// it says what its command line and its module are, if it was told of them, and powers off.
fn xen_kernel() -> Vec<u8> {
    const AT: u64 = 0x10_0000;
    const CODE: &[u8] = &[
        0x81, 0x3b, 0x78, 0xc5, 0x6e, 0x33, // cmp dword [ebx], 0x336ec578
        0x75, 0x1c, // jne off
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0x8b, 0x73, 0x18, // mov esi, [ebx + 24]: the command line
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz module
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
        0x8b, 0x43, 0x10, // module: mov eax, [ebx + 16]: the modules
        0x8b, 0x30, // mov esi, [eax]: where the first is
        0x8b, 0x48, 0x08, // mov ecx, [eax + 8]: its bytes
        0xf3, 0x6e, // rep outsb
        0xb0, 0x0a, // mov al, '\n'
        0xee, // out dx, al
        0x66, 0xba, 0x00, 0x06, // off: mov dx, 0x600
        0xb0, 0x34, // mov al, SLP_EN and S5
        0xee, // out dx, al
        0xf4, // hlt
    ];
    let mut note = Vec::new();
    [4u32, 8, 18].iter().for_each(|word| note.extend(word.to_le_bytes()));
    note.extend(b"Xen\0");
    note.extend(AT.to_le_bytes());
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    [0xffff_ffff_8010_0000, 64u64, 0].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    for (kind, at, len, address) in [(1u32, 0x1000u64, CODE.len(), AT), (4, 0x800, note.len(), 0)] {
        [kind, 5].iter().for_each(|word| elf.extend(word.to_le_bytes()));
        let len = len as u64;
        let words = [at, address | 0xffff_ffff_8000_0000, address, len, len, 4];
        words.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    }
    elf.resize(0x800, 0);
    elf.extend(note);
    elf.resize(0x1000, 0);
    elf.extend(CODE);
    elf
}

#[test]
fn a_kernel_with_xens_entry_point_alone_boots_by_it() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (kernel, module) = (store.home().join("xen"), store.home().join("module"));
    std::fs::write(&kernel, xen_kernel()).unwrap();
    std::fs::write(&module, "and a module").unwrap();
    let (kernel, module) = (kernel.to_str().unwrap(), module.to_str().unwrap());
    let with = ["--kernel", kernel, "--initrd", module, "--append", "by PVH ", "--wait"];
    let id = store.launch(&with).remove(0);
    let log = store.logs(&id);
    assert!(log.contains("by PVH") && log.contains("and a module"), "{log}");
    assert_eq!(store.state(&id).0, "stopped");
    // The machine's reset loads it anew.
    store.ok(&["start", &id]);
    store.wait(&id, "stopped");
    assert_eq!(store.logs(&id).matches("and a module").count(), 2);
}
