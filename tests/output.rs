//! What each command prints: its table, its JSON and its errors, as they were when somebody last
//! looked at them.
//!
//! After a change that is meant: `INSTA_UPDATE=always cargo test --test output`, and look at the
//! difference.

mod common;

use common::{Store, has_kvm};
use std::collections::HashMap;
use std::fmt::Write;

/// A store, and the names that ids, times and places have in what is kept.
struct Transcript {
    store: Store,
    ids: HashMap<String, String>,
}

impl Transcript {
    fn new() -> Self {
        Self { store: Store::new(), ids: HashMap::new() }
    }

    /// Each command as typed, with its exit code if that isn't 0, its output and its errors. An id
    /// may be given by the name that it has in what is kept.
    fn play(&mut self, commands: &[&str]) -> String {
        let mut text = String::new();
        for command in commands {
            let words: Vec<String> = command.split(' ').map(|word| self.real(word)).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let output = self.store.spore(&words);
            let code = match output.status.code() {
                Some(0) => String::new(),
                code => format!("exit code {code:?}\n"),
            };
            let out = String::from_utf8_lossy(&output.stdout);
            let err = String::from_utf8_lossy(&output.stderr);
            writeln!(text, "$ spore {command}\n{code}{out}{err}").unwrap();
            text = self.plain(&text);
        }
        text
    }

    /// The id, or the store's directory, that a word stands for.
    fn real(&self, word: &str) -> String {
        let id = self.ids.iter().find(|(_, name)| *name == word).map(|(id, _)| id.clone());
        id.unwrap_or_else(|| word.replace("STORE", &self.store.home().to_string_lossy()))
    }

    /// The text without what differs from run to run and from host to host. Ids are numbered as
    /// they appear.
    fn plain(&mut self, text: &str) -> String {
        let home = self.store.home().to_string_lossy().into_owned();
        let mut text = text.replace(&home, "STORE");
        for prefix in PREFIXES {
            text = self.number(prefix, &text);
        }
        let lines = text.lines().map(|line| fixed(line).trim_end().to_owned() + "\n");
        lines.collect()
    }

    /// The text with the ids of one kind numbered.
    fn number(&mut self, prefix: &str, text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(prefix) {
            let digits = &rest[at + prefix.len()..];
            let len = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
            let begins = !rest[..at].ends_with(char::is_alphanumeric);
            let id = &rest[at..at + prefix.len() + len];
            out.push_str(&rest[..at]);
            if begins && len == 17 && !self.ids.values().any(|name| name == id) {
                let next = self.ids.keys().filter(|id| id.starts_with(prefix)).count() + 1;
                let name = self.ids.entry(id.to_owned());
                out.push_str(name.or_insert_with(|| format!("{prefix}{next:017}")));
            } else {
                out.push_str(id);
            }
            rest = &digits[len..];
        }
        out + rest
    }
}

/// What ids begin with.
const PREFIXES: [&str; 6] = ["ami-", "i-", "vol-", "snap-", "aki-", "r-"];
/// Fields whose values are the host's or the moment's.
const VARYING: [&str; 10] = [
    "Pid",
    "OwnerId",
    "ImageLocation",
    "Engine",
    "uring",
    "sync",
    "EndedAt",
    "PublicKey",
    "Uuid",
    "File",
];

/// A line without times and without the values of [`VARYING`].
fn fixed(line: &str) -> String {
    let is_time =
        |word: &str| word.len() == 24 && word.ends_with('Z') && word.as_bytes()[10] == b'T';
    let ends = |c: char| " \",".contains(c);
    let words = line.split_inclusive(ends).map(|word| {
        let core = word.trim_end_matches(ends);
        if is_time(core) { word.replace(core, "2030-01-01T00:00:00.000Z") } else { word.into() }
    });
    let line: String = words.collect();
    let names = |varying: &&&str| {
        let mut words = line.split(|c: char| c.is_whitespace() || "\":".contains(c));
        words.any(|word| word == **varying)
    };
    match VARYING.iter().find(names) {
        Some(name) => format!("{name} …"),
        None => line,
    }
}

/// A disk of 4 MiB with a boot record that boots nothing.
fn disk(transcript: &Transcript) -> String {
    let path = transcript.store.home().join("disk.img");
    let mut bytes = vec![0; 4 << 20];
    bytes[..3].copy_from_slice(&[0xeb, 0xfe, 0x90]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&path, bytes).unwrap();
    path.to_string_lossy().into_owned()
}

/// Compares with what is kept under `name`.
fn check(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, text) });
}

#[test]
fn images_snapshots_and_volumes_look_as_they_did() {
    let mut transcript = Transcript::new();
    disk(&transcript);
    check(
        "images",
        &transcript.play(&[
            "image ls",
            "image import STORE/disk.img --name web --description pages",
            "tag ami-00000000000000002 Env=test",
            "image ls --filter name=web",
            "image ls --filter name=web -o csv",
            "image show web",
            "image show web -o json",
            "image show web -o yaml",
            "image share web",
            "image references web",
            "image modify web --description other",
            "image deprecate web --at 2040-01-01",
        ]),
    );
    check(
        "snapshots_and_volumes",
        &transcript.play(&[
            "snapshot ls --filter volume-id=none",
            "volume create --size 1",
            "volume ls -q",
            "volume ls -o json",
            "snapshot create vol-00000000000000001 --description empty",
            "snapshot ls --filter description=empty",
            "snapshot verify snap-00000000000000001",
            "volume resize vol-00000000000000001 --size 2",
            "volume delete vol-00000000000000001",
            "volume ls",
            "region ls",
        ]),
    );
    check(
        "what_is_refused",
        &transcript.play(&[
            "image show nothing",
            "image import /nowhere/disk.img --name x",
            "image import STORE/disk.img --name web",
            "image deregister ami-none",
            "run nothing",
            "run web -n 0",
            "run web -t t9.giant",
            "stop i-0",
            "volume delete vol-0",
            "snapshot delete web",
            "tag web aws:x=1",
            "image ls --filter nonsense=1",
            "image copy web --to nowhere --name copy",
            "kernel register /dev/null",
            "frobnicate",
            "image frobnicate",
            "image deregister web",
            "image ls --filter name=web",
        ]),
    );
}

#[test]
fn instances_look_as_they_did() {
    if !has_kvm() {
        return;
    }
    let mut transcript = Transcript::new();
    transcript.store.launch(&["--name", "web", "--append", "demo.mode=hang"]);
    check(
        "instances",
        &transcript.play(&[
            "ls",
            "ls -o csv",
            "show web -o json",
            "stop web --force",
            "ls",
            "show web",
            "modify web --type t3.small",
            "start web -m 1G",
            "terminate web",
            "ls",
        ]),
    );
}
