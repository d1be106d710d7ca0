//! The table of features: docs/features.tsv is its source, docs/features.md is made of it.
//!
//! A row is a statement of EC2's documentation about images and instances, with the command that
//! shows it, the test that proves it, or the reason why not. After a change of the source:
//! `UPDATE=1 cargo test --test features`.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

const AREAS: &[&str] = &[
    "concept",
    "component",
    "lifecycle",
    "characteristic",
    "storage",
    "storage-table",
    "type",
    "permission",
    "virtualization",
    "console",
    "create",
    "bundle",
    "copy",
    "security",
    "autoscaling",
];
/// How many rows those areas have.
const ROWS: usize = 124;

struct Row {
    number: u32,
    area: String,
    claim: String,
    status: String,
    command: String,
    test: String,
    reason: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/features.tsv")).unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [number, area, claim, status, command, test, reason] = fields[..] else {
            panic!("a row has 7 fields: {line}");
        };
        let own = str::to_owned;
        Row {
            number: number.parse().unwrap(),
            area: own(area),
            claim: own(claim),
            status: own(status),
            command: own(command),
            test: own(test),
            reason: own(reason),
        }
    };
    text.lines().skip(1).map(row).collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            sources(&entry.path(), found);
        } else if entry.path().extension().is_some_and(|e| e == "rs") {
            found.push(entry.path());
        }
    }
}

/// The names of all functions that stand below a `#[test]`.
fn tests() -> HashSet<String> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    sources(&root().join("tests"), &mut files);
    let mut names = HashSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        for below in text.split("#[test]").skip(1) {
            let name = below.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
            names.extend(name.map(|(name, _)| name.to_owned()));
        }
    }
    names
}

/// The verbs of `spore VERB [VERB]`, as far as they are lower-case words.
fn verbs(command: &str) -> Vec<&str> {
    let lower = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
    command.split_whitespace().skip(1).take(2).take_while(lower).collect()
}

#[test]
fn every_row_is_shown_and_proved_or_has_a_reason() {
    let (rows, tests) = (rows(), tests());
    assert_eq!(rows.len(), ROWS);
    let numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
    assert!(numbers.is_sorted() && numbers.windows(2).all(|pair| pair[0] != pair[1]));
    for row in &rows {
        let number = row.number;
        assert!(AREAS.contains(&&*row.area), "{number}: {}", row.area);
        let shown = !row.command.is_empty() && !row.test.is_empty();
        match &*row.status {
            "built" => assert!(shown, "{number}: a command and a test"),
            "partly" => assert!(shown && !row.reason.is_empty(), "{number}: and what is missing"),
            "not built yet" => assert!(row.test.is_empty(), "{number}: what proves it then?"),
            "not here" => assert!(!row.reason.is_empty(), "{number}: why not?"),
            other => panic!("{number}: '{other}' is no status"),
        }
        let proof = row.test.is_empty() || tests.contains(&row.test);
        assert!(proof, "{number}: there is no test {}", row.test);
    }
}

#[test]
fn the_commands_of_the_table_exist() {
    let mut seen = HashSet::new();
    for row in rows() {
        for command in row.command.split("; ").filter(|command| !command.is_empty()) {
            assert!(command.starts_with("spore "), "{}: {command}", row.number);
            let verbs = verbs(command);
            if !seen.insert(verbs.join(" ")) {
                continue;
            }
            let mut spore = std::process::Command::new(env!("CARGO_BIN_EXE_spore"));
            let help = spore.args(&verbs).arg("--help").output().unwrap();
            assert!(help.status.success(), "{}: {command}", row.number);
        }
    }
}

#[test]
fn the_page_is_what_the_source_says() {
    let code = |text: &str| match text {
        "" => String::new(),
        text => text
            .split("; ")
            .map(|t| format!("`{}`", t.replace('|', "\\|")))
            .collect::<Vec<_>>()
            .join("<br>"),
    };
    let mut page = String::from(
        "# Features\n\n\
         What EC2's documentation says of images and instances, and what Spore makes of it. This page is made of\n\
         `features.tsv` by `tests/features.rs`, which also checks that the commands and the tests exist.\n",
    );
    let (all, mut area) = (rows(), String::new());
    let of = |status: &str| all.iter().filter(|row| row.status == status).count();
    page.push_str(&format!(
        "\nOf {} statements {} are built, {} partly; {} are not built yet, {} are not for a local launcher.\n",
        all.len(), of("built"), of("partly"), of("not built yet"), of("not here")
    ));
    for row in &all {
        if row.area != area {
            area.clone_from(&row.area);
            page.push_str(&format!(
                "\n## {area}\n\n| no | statement | status | command | test |\n|---|---|---|---|---|\n"
            ));
        }
        let status = match &*row.reason {
            "" => row.status.clone(),
            reason => format!("{}: {reason}", row.status),
        };
        page.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            row.number,
            row.claim.replace('|', "\\|"),
            status.replace('|', "\\|"),
            code(&row.command),
            code(&row.test)
        ));
    }
    let path = root().join("docs/features.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/features.md is out of date: UPDATE=1 cargo test --test features");
}

/// What the lab kernel's patches are of is not what the crate is under.
#[test]
fn the_crate_packs_what_its_licence_covers() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    let list = command.args(["package", "--list", "--allow-dirty", "--offline"]);
    let output = list.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = String::from_utf8(output.stdout).unwrap();
    assert!(files.lines().any(|file| file == "src/main.rs"), "{files}");
    for file in files.lines() {
        assert!(!file.starts_with("images/lab-kernel"), "{file}");
    }
}
