//! What is the process's own and so its main function's: below `cli` nothing keeps global state,
//! prints, asks whose process it is, or becomes another program. One process may serve many callers
//! ([`sporevm::context`]).

use super::Source;

/// A thing that is the process's.
struct Rule {
    /// What is said of it.
    what: &'static str,
    found: fn(&str) -> bool,
    /// Files where it is fine, and why.
    fine: &'static [(&'static str, &'static str)],
}

const RULES: &[Rule] = &[
    Rule {
        what: "global state; put it into the context, or into what uses it",
        found: is_global,
        fine: &[
            ("src/sys/trim_memory.rs", "the allocator"),
            ("src/sys/fds.rs", "which descriptors a VMM has claimed: they are its process's"),
            ("src/instance/host.rs", "what the host's KVM supports, which is one and stays so"),
            ("src/sys/kvm.rs", "a signal handler has nothing else"),
            ("src/sys/seccomp.rs", "a signal handler has nothing else"),
            ("src/sys/fault.rs", "a debug build's kill comes at a step of the whole process"),
        ],
    },
    Rule {
        what: "prints; tell the context's audience",
        found: |line| ["println!(", "print!("].iter().any(|print| line.contains(print)),
        fine: &[
            ("src/vmm/mod.rs", "a main function: nobody else is there yet"),
            ("src/import/external.rs", "a main function: the launcher reads it"),
            ("src/sys/fault.rs", "its last words"),
        ],
    },
    Rule {
        what: "asks whose process this is; the context knows the caller",
        found: |line| line.contains("geteuid(") || line.contains("process::user("),
        fine: &[
            ("src/sys/process.rs", "the one place that asks the kernel"),
            ("src/sys/namespace.rs", "whom a user namespace's root is outside of it"),
            ("src/share/attributes.rs", "whose files the guest of a share has"),
            ("src/context.rs", "a context of nobody's is the process's"),
            ("src/store/beneath/mod.rs", "whom the kernel gives what is made below a store"),
        ],
    },
    Rule {
        what: "becomes another program; start a child, or fail and let the command line do it",
        found: |line| line.contains(".exec()"),
        fine: &[("src/vmm/mod.rs", "a main function")],
    },
];

fn is_global(line: &str) -> bool {
    let mut declared = line.trim_start().trim_start_matches("pub ");
    if let Some((_, rest)) = declared.strip_prefix("pub(").and_then(|rest| rest.split_once(") ")) {
        declared = rest;
    }
    let changes = ["Mutex<", "RwLock<", "Once", "Lazy", "Atomic", "Cell<", "Locked"];
    let of = declared.split_once('=').map_or(declared, |(of, _)| of);
    declared.starts_with("thread_local!")
        || (declared.starts_with("static ") && changes.iter().any(|kind| of.contains(kind)))
        || declared.starts_with("static mut ")
}

/// The lines that one rule is about; tests at a file's end may do anything.
fn lines<'a>(source: &'a Source, rule: &'a Rule) -> impl Iterator<Item = usize> + 'a {
    let tests = source.lines.iter().position(|line| line.trim() == "#[cfg(test)]");
    let code = source.code().take_while(move |(number, _)| tests.is_none_or(|at| *number <= at));
    code.filter(|(_, line)| (rule.found)(line)).map(|(number, _)| number)
}

/// What `source` does that is the process's.
pub fn check(source: &Source) -> Vec<String> {
    let path = source.path.to_string_lossy();
    let ends = path.ends_with("tests.rs") || path.ends_with("testing.rs");
    if ends || source.module().is_none_or(|module| ["cli", "main", "bin"].contains(&module)) {
        return vec![];
    }
    let rules = RULES.iter().filter(|rule| rule.fine.iter().all(|(file, _)| *file != path));
    rules
        .flat_map(|rule| lines(source, rule).map(|number| source.complaint(number, rule.what)))
        .collect()
}

/// The exceptions that nothing needs any more.
pub fn unneeded(sources: &[Source]) -> Vec<&'static str> {
    let needs = |rule: &Rule, file: &str| {
        let mut files = sources.iter().filter(|source| source.path.to_string_lossy() == file);
        files.any(|source| lines(source, rule).next().is_some())
    };
    let all = RULES.iter().flat_map(|rule| rule.fine.iter().map(move |(file, _)| (rule, *file)));
    all.filter(|(rule, file)| !needs(rule, file)).map(|(_, file)| file).collect()
}

#[test]
fn what_is_the_processs_is_left_to_its_main_function() {
    let of = |path: &str, line: &str| check(&Source::new(path, line)).len();
    for bad in [
        "static TOLD: AtomicBool = AtomicBool::new(false);",
        "    static ID: OnceLock<String> = OnceLock::new();",
        "pub(crate) static ALL: Mutex<Vec<u8>> = Mutex::new(Vec::new());",
        "thread_local! {",
        "eprintln!(\"spore: warning\");",
        "print!(\"done\");",
        "let me = rustix::process::geteuid();",
        "let me = process::user();",
        "let cause = command.exec();",
    ] {
        assert_eq!(of("src/store/journal.rs", bad), 1, "{bad}");
        assert_eq!(of("src/cli/ui.rs", bad), 0, "{bad}");
        assert_eq!(of("tests/a.rs", bad), 0, "{bad}");
        assert_eq!(of("src/store/mod.rs", &format!("#[cfg(test)]\nmod tests {{\n{bad}\n}}")), 0);
    }
    for fine in [
        "static NONE: BTreeMap<u8, u8> = BTreeMap::new();",
        "pub static KERNEL: &[u8] = include_bytes!(\"x\");",
        "file: OnceLock<File>,",
        "// eprintln!(",
    ] {
        assert_eq!(of("src/store/journal.rs", fine), 0, "{fine}");
    }
}
