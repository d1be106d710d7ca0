//! House rules that a compiler does not hold: which module may use which, how long files,
//! functions and comment lines are (tidy/sizes.rs), where `unsafe` is and why it is sound, that no
//! files use each other in a circle (tidy/circles.rs), and what is left to main functions
//! (tidy/process.rs).

use std::path::{Path, PathBuf};

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/process.rs"]
mod process;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/soundness.rs"]
mod soundness;
#[path = "tidy/tables.rs"]
mod tables;
#[path = "tidy/unpacking.rs"]
mod unpacking;
#[path = "tidy/vocabulary.rs"]
mod vocabulary;

/// Vocabulary: types without I/O that everybody may use.
const VOCABULARY: &[&str] =
    &["id", "plan", "control", "context", "error", "Error", "Result", "sys", "record"];

/// What else each module may use; a path allows everything below it. Two halves meet only in the
/// vocabulary: `instance` never names `vmm`.
const EDGES: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("id", &[]),
    ("context", &[]),
    ("plan", &[]),
    ("control", &[]),
    ("sys", &[]),
    ("demo", &[]),
    ("helper", &[]),
    // Both halves': the control plane makes the tree, a network's process answers from it.
    ("metadata", &[]),
    // The data plane.
    ("mem", &[]),
    ("block", &[]),
    ("ext4", &[]),
    // What a file is and why it can't be read are said in the same words.
    ("fat", &["ext4"]),
    ("net", &["metadata"]),
    ("boot", &["mem"]),
    ("chipset", &["mem"]),
    // What hangs on a bus, PCI's or the other, is all that a transport knows of the chipset.
    ("virtio", &["block", "net", "share", "mem", "chipset::bus", "chipset::pci"]),
    // Both halves hold its socket, one after the other.
    ("pvgrub", &["block", "boot", "ext4", "fat", "helper"]),
    // The device's half of it is in `virtio`, the other a process of its own.
    ("share", &["helper"]),
    // What it does on a disk is virtio-blk's, and its interrupts are virtio-pci's.
    ("nvme", &["virtio", "block", "mem", "chipset::pci"]),
    ("vmm", &["virtio", "nvme", "block", "net", "boot", "chipset", "mem", "pvgrub"]),
    // The control plane. Of its kinds of objects none is above another.
    ("account", &[]),
    ("disk", &["helper", "block"]),
    ("network", &["helper", "store"]),
    ("record", &[]),
    ("store", &["account"]),
    ("volume", &["disk", "image", "import", "kernel", "snapshot", "transfer", "store", "block"]),
    ("snapshot", &["disk", "image", "import", "kernel", "volume", "store", "block"]),
    // Registration unpacks kernels.
    ("kernel", &["helper", "image", "inspect", "snapshot", "volume", "store", "boot"]),
    ("key", &["store"]),
    ("image", &["account", "import", "kernel", "snapshot", "volume", "store", "boot", "demo"]),
    ("import", &["helper", "image", "snapshot", "transfer", "volume", "store", "block"]),
    (
        "inspect",
        &[
            "disk",
            "helper",
            "image",
            "import",
            "snapshot",
            "transfer::remote",
            "volume",
            "store",
            "block",
            "boot",
            "demo",
            "ext4",
            "pvgrub",
        ],
    ),
    (
        "transfer",
        &[
            "disk", "helper", "image", "import", "inspect", "kernel", "snapshot", "volume",
            "store", "block",
        ],
    ),
    (
        "instance",
        &[
            "disk",
            "helper",
            "image",
            "import",
            "inspect",
            "kernel",
            "key",
            "metadata",
            "network",
            "snapshot",
            "transfer",
            "volume",
            "store",
            "block",
            "boot::cmdline",
            "mem::layout",
            "pvgrub",
            "share",
        ],
    ),
    (
        "service",
        &[
            "account", "helper", "instance", "image", "import", "inspect", "kernel", "key",
            "metadata", "network", "snapshot", "transfer", "volume", "store",
        ],
    ),
    // Skins: all that they do is the service's.
    // It starts the other one.
    ("cli", &["service", "http"]),
    ("http", &["service"]),
];

/// Of the vocabulary, what each may use: nothing of ours but what stands here.
const WITHIN_VOCABULARY: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("sys", &["error"]),
    ("context", &["error", "sys"]),
    ("id", &["error"]),
    ("plan", &["id", "error"]),
    ("control", &["plan", "id", "error"]),
    ("record", &["plan", "id", "error", "Error", "Result"]),
];

/// How a program gets at a file, a socket or a process by its name or number.
const BY_NAME: &[&str] = &[
    "File::open(",
    "File::options(",
    "File::create",
    "OpenOptions",
    "DirBuilder",
    "fs::read(",
    "fs::read_to_string(",
    "fs::read_dir(",
    "fs::write(",
    "fs::copy(",
    "fs::rename(",
    "fs::remove_",
    "remove_file(",
    "remove_dir",
    "hard_link(",
    "::symlink(",
    "fs::set_permissions(",
    "fs::create_dir",
    "rustix::fs::open",
    "openat(",
    "openat2(",
    "linkat(",
    "renameat",
    "mkdirat(",
    "mknodat(",
    "chmod(",
    "chown(",
    "UnixStream::connect(",
    "UnixListener::bind(",
    "pidfd_open(",
    "kill_process(",
];

/// Where that is, besides in `sys` and in the one place for what lies below a store, and why it is
/// fine there: what it names does not lie below a store, or it has come through that one place.
const OUTSIDE: &[(&str, &str)] = &[
    ("src/store/beneath/mod.rs", "the one place"),
    ("src/store/beneath/owned.rs", "the one place"),
    ("src/store/beneath/place.rs", "the one place"),
    ("src/store/acl.rs", "fchmod of what the one place has opened"),
    ("src/volume/users.rs", "fchmod of what the one place has opened"),
    ("src/store/time.rs", "the kernel's id of this boot, in /proc"),
    ("src/instance/client.rs", "a socket in a directory of the user's: InstanceDir::control_path"),
    ("src/instance/prepare.rs", "a socket in a directory of the user's: InstanceDir::control_path"),
    ("src/network/process.rs", "a socket in a directory of the user's: Owned::through"),
    ("src/net/supervisor.rs", "the host's resolv.conf"),
    ("src/net/pasta.rs", "the host's routes"),
    ("src/transfer/download/keys.rs", "directories of keys, the host's and the user's own"),
    ("src/net/worker.rs", "/proc/sys of its own network namespace"),
    ("src/instance/lifecycle.rs", "a process that holds a lock in a directory of the user's"),
    ("src/instance/spawn.rs", "/dev/null, and a child of its own"),
    ("src/instance/cgroup.rs", "/proc and cgroup v2's file system"),
    ("src/instance/cdroms.rs", "a file that the user names as a disc"),
    ("src/instance/firmware.rs", "firmware, which the host or the user has"),
    ("src/instance/uefi.rs", "firmware, which the host or the user has"),
    ("src/cli/create.rs", "/dev/null"),
    ("src/cli/doctor.rs", "/proc, /sys and /etc"),
    ("src/cli/input.rs", "what the user names: a manifest, a public key, user data, mappings"),
    ("src/cli/session.rs", "children of its own"),
    ("src/cli/signals.rs", "/proc"),
    ("src/http/server.rs", "a socket that the user names"),
    ("src/service/launch.rs", "/proc/meminfo"),
    ("src/service/foreground.rs", "children of its own"),
    ("src/service/autostart.rs", "a unit among those of the user's, in XDG_CONFIG_HOME"),
    ("src/account.rs", "/etc/passwd, /etc/group and /etc/subuid"),
    ("src/inspect/boot_method.rs", "a disk that the user names"),
    ("src/transfer/bundle/storage.rs", "a part of a bundle in a directory that the user names"),
    (
        "src/transfer/bundle/keys.rs",
        "keys that the user names, or that are in the user's own account",
    ),
    ("src/transfer/export/mod.rs", "a file that the user has an image written to"),
    ("src/import/source.rs", "a file that the user imports"),
    ("src/share/tree.rs", "a directory that the user shares, which is the process's root"),
    ("src/share/server.rs", "likewise, in directories that tree.rs has opened"),
    ("src/share/confine.rs", "the list of the calls that that takes"),
    ("src/transfer/remote/net/registry.rs", "the user's credentials for registries"),
];

/// A source file: its path from the project's root, and its lines.
struct Source {
    path: PathBuf,
    lines: Vec<String>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), lines: text.lines().map(str::to_owned).collect() }
    }

    /// The lines of code with their numbers from 1: no comments, and a comment behind code cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let cut = |line: &str| line.find("// ").unwrap_or(line.len());
        let code = |line: &&str| !line.trim_start().starts_with("//");
        let lines = self.lines.iter().map(String::as_str).enumerate();
        lines.filter(move |(_, line)| code(line)).map(move |(n, line)| (n + 1, &line[..cut(line)]))
    }

    /// The module that the file belongs to: the first directory or file name below src/.
    fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src").ok()?.iter().next()?.to_str()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    fn complaint(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }
}

/// All that is wrong with `sources`.
fn check(sources: &[Source]) -> Vec<String> {
    const RULES: [fn(&Source) -> Vec<String>; 11] = [
        edges,
        sizes::sizes,
        soundness::soundness,
        threads,
        words,
        names,
        tests_use_helpers,
        unpacking::unpacking,
        tables::tables,
        process::check,
        vocabulary::vocabulary,
    ];
    sources.iter().flat_map(|source| RULES.iter().flat_map(move |rule| rule(source))).collect()
}

/// Whether `path` is one of `prefixes` or below one.
fn below(path: &str, prefixes: &[&str]) -> bool {
    let is = |prefix: &&str| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    prefixes.iter().any(is)
}

fn edges(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return vec![] };
    if matches!(module, "lib" | "main" | "bin") {
        return vec![];
    }
    let of = |table: &[(&str, &'static [&'static str])]| {
        table.iter().find(|(name, _)| *name == module).map(|(_, may)| *may)
    };
    let Some(may) = of(EDGES) else {
        return vec![source.complaint(1, &format!("module {module} is not in the list of edges"))];
    };
    let vocabulary = of(WITHIN_VOCABULARY).unwrap_or(VOCABULARY);
    let code: Vec<(usize, &str)> = source.code().collect();
    let mut found = vec![];
    for (index, (number, line)) in code.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            if line[..at].ends_with(|c: char| c == '_' || c == '$' || c.is_alphanumeric()) {
                continue;
            }
            let rest: String = [&line[at + 7..]]
                .into_iter()
                .chain(code[index + 1..].iter().map(|(_, line)| line.trim()))
                .take(40)
                .collect();
            let paths = used_paths(&rest);
            let bad = paths.into_iter().filter(|path| {
                !(below(path, &[module]) || below(path, may) || below(path, vocabulary))
            });
            found.extend(
                bad.map(|path| source.complaint(*number, &format!("{module} may not use {path}"))),
            );
        }
    }
    found
}

/// The first two names of every path in what follows `crate::`, a path or a braced group of paths.
fn used_paths(text: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut start, mut paths) = (0, 0, vec![]);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    paths.extend(used_paths(group[start..at].trim()));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        return paths;
    }
    let first = name(text);
    let Some(rest) = text[first.len()..].strip_prefix("::") else {
        return if first.is_empty() { vec![] } else { vec![first] };
    };
    if rest.starts_with('{') {
        return used_paths(rest).iter().map(|path| format!("{first}::{}", name(path))).collect();
    }
    match name(rest) {
        second if second.is_empty() => vec![first],
        second => vec![format!("{first}::{second}")],
    }
}

/// `std::thread::spawn` and its like panic where a user may have no more threads (RLIMIT_NPROC).
fn threads(source: &Source) -> Vec<String> {
    let path = source.path.to_string_lossy();
    if source.module().is_none() || ["tests.rs", "testing.rs"].iter().any(|t| path.ends_with(t)) {
        return vec![];
    }
    let code = source.code().take_while(|(_, line)| !line.contains("#[cfg(test)]"));
    let panics = code.filter(|(_, line)| {
        ["thread::spawn(", "scope.spawn("].iter().any(|spawn| line.contains(spawn))
    });
    let what =
        "panics where there may be no more threads; use std::thread::Builder or sys::threads";
    panics.map(|(number, _)| source.complaint(number, what)).collect()
}

fn words(source: &Source) -> Vec<String> {
    // In pieces, so that this file passes.
    let bad = [
        (concat!("/wo", "rk/"), "a path of somebody's machine"),
        (concat!("TO", "DO"), "work left undone"),
        (concat!("FIX", "ME"), "work left undone"),
        (concat!("todo", "!("), "work left undone"),
        (concat!("unimplemented", "!("), "work left undone"),
        (concat!("dbg", "!("), "debugging left in"),
    ];
    let lines = source.lines.iter().enumerate();
    let found = lines.flat_map(|(n, line)| {
        bad.iter().filter(|(word, _)| line.contains(word)).map(move |(_, what)| (n + 1, what))
    });
    let mut found: Vec<_> = found.map(|(n, what)| source.complaint(n, what)).collect();
    let explained = source.lines.first().is_some_and(|line| line.starts_with("//!"));
    let tests = source.path.to_string_lossy().ends_with("tests.rs");
    if source.module().is_some() && !explained && !tests {
        found.push(source.complaint(1, "does not begin by saying what it is for (//!)"));
    }
    found
}

/// What tests must do by the helpers that there are.
fn tests_use_helpers(source: &Source) -> Vec<String> {
    if !source.path.starts_with("tests") || source.path.ends_with("tests/tidy.rs") {
        return vec![];
    }
    let helper = source.path.ends_with("tests/common/skip.rs");
    let (says, looks) = ("\"skipped: ", "open(\"/dev/kvm\")");
    let bad =
        source.code().filter(|(_, line)| !helper && (line.contains(says) || line.contains(looks)));
    let what = "a test that can't run says so by tests/common/skip.rs";
    bad.map(|(number, _)| source.complaint(number, what)).collect()
}

/// The lines of a source that get at something by its name; tests at its end may.
fn by_name(source: &Source) -> Vec<(usize, &'static str)> {
    let tests = source.lines.iter().position(|line| line.trim() == "#[cfg(test)]");
    let path = source.path.to_string_lossy();
    let for_tests = ["tests.rs", "testing.rs"].iter().any(|end| path.ends_with(end));
    if source.module().is_none_or(|module| module == "sys") || for_tests {
        return vec![];
    }
    let code = source.code().take_while(|(number, _)| tests.is_none_or(|tests| *number <= tests));
    let used = code.filter(|(_, line)| !line.trim_start().starts_with("use "));
    // A type's name may end another's; a call's own name only gets longer (fchmod).
    let is = |line: &str, call: &str| {
        let whole = |(at, _): (usize, &str)| {
            !call.starts_with(char::is_uppercase)
                || !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
        };
        line.match_indices(call).any(whole)
    };
    used.filter_map(|(n, line)| Some((n, *BY_NAME.iter().find(|call| is(line, call))?))).collect()
}

/// One place opens what lies below a store (src/store/beneath): another account may have put
/// anything there.
fn names(source: &Source) -> Vec<String> {
    if OUTSIDE.iter().any(|(path, _)| source.path == Path::new(path)) {
        return vec![];
    }
    let what = |call: &str| {
        format!("{call} outside of src/store/beneath; use that, or say in OUTSIDE why not")
    };
    by_name(source).into_iter().map(|(n, call)| source.complaint(n, &what(call))).collect()
}

/// Every Rust source of the project.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<PathBuf> =
        ["src", "tests", "images", "benches", "examples", "fuzz/drive", "fuzz/fuzz_targets"]
            .map(PathBuf::from)
            .into();
    let mut found =
        vec![Source::new("build.rs", &std::fs::read_to_string(root.join("build.rs")).unwrap())];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&dir)) else { continue };
        for entry in entries.map(Result::unwrap) {
            let path = dir.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(root.join(&path)).unwrap();
                found.push(Source::new(path.to_str().unwrap(), &text));
            }
        }
    }
    found
}

#[test]
fn the_house_rules_hold() {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path.ends_with("src/lib.rs")));
    let complaints = [check(&sources), circles::check(&sources)].concat();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    for (path, _) in OUTSIDE {
        let source = sources.iter().find(|source| source.path == Path::new(path));
        assert!(source.is_some_and(|s| !by_name(s).is_empty()), "{path} needs no place in OUTSIDE");
    }
    assert_eq!(process::unneeded(&sources), <[&str; 0]>::default());
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        check(&[Source::new(path, &format!("//! What it is for.\n{text}"))])
    }

    #[track_caller]
    pub fn refused(path: &str, text: &str, why: &str) {
        let found = complaints(path, text);
        assert!(found.iter().any(|complaint| complaint.contains(why)), "{found:?}");
    }

    #[track_caller]
    pub fn accepted(path: &str, text: &str) {
        assert_eq!(complaints(path, text), Vec::<String>::new());
    }

    #[test]
    fn the_halves_meet_only_in_the_vocabulary() {
        refused("src/instance/launch.rs", "use crate::vmm::machine;", "may not use vmm");
        refused("src/vmm/mod.rs", "use crate::store::Store;", "may not use store");
        refused("src/sys/kvm.rs", "use crate::plan::VmPlan;", "sys may not use plan");
        refused("src/plan.rs", "use crate::{error, sys};", "plan may not use sys");
        refused("src/mem/ram.rs", "fn f() { crate::boot::load() }", "may not use boot");
        accepted("src/vmm/mod.rs", "use crate::{plan::VmPlan, boot::{self, elf}, id};");
        accepted("src/store/mod.rs", "use crate::record::image::Image;");
        refused("src/store/mod.rs", "use crate::image::catalog;", "may not use image::catalog");
    }

    #[test]
    fn groups_and_broken_lines_are_seen_through() {
        refused("src/virtio/queue.rs", "use crate::{\n    mem::GuestRam,\n    cli,\n};", "cli");
        refused("src/virtio/mod.rs", "use crate::chipset::{bus, serial};", "chipset::serial");
        accepted("src/virtio/mod.rs", "// use crate::cli;\n//! [`crate::cli`]");
        refused("src/new.rs", "", "not in the list of edges");
    }

    #[test]
    fn unsafe_needs_its_place_and_its_reason() {
        refused("src/mem/ram.rs", "// SAFETY: no.\nunsafe { f() }", "outside src/sys");
        refused("src/sys/a.rs", "let a = 1;\nlet b = unsafe { f() };", "without a SAFETY");
        refused("src/sys/a.rs", "// SAFETY: a.\nunsafe { f() };\nunsafe { g() };", "without");
        accepted("src/sys/a.rs", "// SAFETY: because.\n// And more.\nlet b =\n    unsafe { f() };");
    }

    #[test]
    fn tests_are_skipped_by_name() {
        let why = "tests/common/skip.rs";
        refused("tests/a.rs", "fn f() { eprintln!(\"skipped: no KVM\") }", why);
        refused("tests/a.rs", "fn f() -> bool { File::open(\"/dev/kvm\").is_ok() }", why);
        accepted("tests/a.rs", "fn f() { if !has_kvm() { return } }");
    }

    #[test]
    fn threads_that_panic_are_for_tests() {
        refused("src/id.rs", "std::thread::spawn(work);", "no more threads");
        refused("src/id.rs", "scope.spawn(|| 1);", "no more threads");
        accepted("src/id.rs", "Builder::new().spawn(work);\n#[cfg(test)]\nthread::spawn(work);");
        accepted("src/id/tests.rs", "std::thread::spawn(work);");
    }

    #[test]
    fn what_lies_below_a_store_is_opened_in_one_place() {
        for call in ["File::open(path)", "std::fs::write(a, b)", "fs::remove_file(a)"] {
            refused("src/volume/mod.rs", &format!("fn f() {{ {call}; }}"), "outside of src/store");
            accepted("tests/a.rs", &format!("fn f() {{ {call}; }}"));
            accepted("src/sys/a.rs", &format!("fn f() {{ {call}; }}"));
            accepted("src/id.rs", &format!("#[cfg(test)]\nmod tests {{ fn f() {{ {call} }} }}"));
        }
        refused("src/cli/mod.rs", "fn f() { pidfd_open(pid, flags) }", "outside of src/store");
        refused("src/volume/mod.rs", "fn f() { fchmod(fd, 0) }", "outside of src/store");
        accepted("src/volume/mod.rs", "fn f() { HostFile::open(host) }");
        accepted("src/cli/input.rs", "fn f() { File::open(path) }");
    }

    #[test]
    fn machines_and_leftovers_are_not_named() {
        refused("src/id.rs", concat!("// see /wo", "rk/x"), "machine");
        refused("tests/a.rs", concat!("// TO", "DO: more"), "undone");
        let found = check(&[Source::new("src/id.rs", "use std::fs;")]);
        assert!(found[0].contains("what it is for"));
    }
}
