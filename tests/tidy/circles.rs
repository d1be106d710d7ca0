//! No files of src/ that use each other in a circle, and no floor that uses one above it.
//!
//! How it is counted. A file uses another by a path that begins with `crate`, `super`, `self` or a
//! module that the file declares. The path counts for the file of the longest module in it; where
//! that file only re-exports the name that follows, for the file that has it. To declare a module
//! or to re-export a name is no use, unless the file says the name elsewhere. Test files and a
//! file's own `mod tests` are left out, and so are lib.rs and the programs, which nothing uses.

use super::Source;
use std::collections::{BTreeMap, BTreeSet};

/// The control plane's floors, the lowest first. Modules of one floor may use each other.
const FLOORS: &[&[&str]] = &[
    &["record"],
    &["store"],
    &["image", "import", "inspect", "kernel", "key", "snapshot", "transfer", "volume"],
    &["instance"],
    &["service"],
    &["cli", "http"],
];

/// A path: the names of the modules and of what is in the last of them.
type Path = Vec<String>;

/// What one file says.
#[derive(Default)]
struct File {
    /// The paths that it uses, from the root of the crate.
    uses: BTreeSet<Path>,
    /// What it re-exports: the name here, and the path of what that is.
    exports: BTreeMap<String, Path>,
    /// The modules whose names it re-exports all.
    globs: Vec<Path>,
    /// The names that it defines.
    defines: BTreeSet<String>,
}

/// All that is wrong with how the files of `sources` use each other.
pub fn check(sources: &[Source]) -> Vec<String> {
    judge(&edges(sources))
}

fn judge(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let say = |circle: &Vec<String>| {
        format!("these files use each other in a circle: {}", circle.join(" "))
    };
    let mut found: Vec<_> = circles(edges).iter().map(say).collect();
    for (file, used) in edges {
        let above = used.iter().filter(|other| floor(other) > floor(file) && floor(file).is_some());
        found.extend(above.map(|other| format!("{file} uses {other}, which is a floor above it")));
    }
    found
}

fn floor(file: &str) -> Option<usize> {
    let module = file.strip_prefix("src/")?.split(['/', '.']).next()?;
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Which file uses which others.
fn edges(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let source = |source: &&Source| module(source).is_some();
    let paths: BTreeMap<Path, String> = sources
        .iter()
        .filter(source)
        .map(|s| (module(s).unwrap_or_default(), s.path.to_string_lossy().into_owned()))
        .collect();
    let files: BTreeMap<&Path, File> = paths
        .iter()
        .map(|(of, path)| {
            let source = sources.iter().find(|s| s.path.to_str() == Some(path));
            (of, source.map(|s| File::read(of, s, &paths)).unwrap_or_default())
        })
        .collect();
    let used = |of: &Path, file: &File| -> BTreeSet<String> {
        let resolved = file.uses.iter().filter_map(|used| resolve(used, &files, 0));
        resolved
            .filter(|other| !other.is_empty() && *other != of)
            .map(|o| paths[o].clone())
            .collect()
    };
    let edges = files.iter().filter(|(of, _)| !of.is_empty());
    edges.map(|(of, file)| (paths[*of].clone(), used(of, file))).collect()
}

/// The module of the file that `path` leads to.
fn resolve<'a>(path: &Path, files: &BTreeMap<&'a Path, File>, depth: usize) -> Option<&'a Path> {
    let has = |len: &usize| files.contains_key(&path[..*len].to_vec());
    let len = (0..=path.len()).rev().find(has)?;
    let (module, file) = files.get_key_value(&path[..len].to_vec())?;
    let Some(name) = path.get(len).filter(|_| depth < 8) else { return Some(module) };
    if let Some(target) = file.exports.get(name) {
        return resolve(&[target, &path[len + 1..]].concat(), files, depth + 1);
    }
    let glob = file.globs.iter().find_map(|glob| {
        let (module, file) = files.get_key_value(glob)?;
        file.defines.contains(name).then_some(module)
    });
    Some(glob.unwrap_or(module))
}

/// The module that a file is; of lib.rs the empty path.
fn module(source: &Source) -> Option<Path> {
    let path = source.path.strip_prefix("src").ok()?.to_str()?.strip_suffix(".rs")?;
    if path.starts_with("bin/")
        || path == "main"
        || path.ends_with("tests")
        || path.ends_with("testing")
    {
        return None;
    }
    let mut names: Path = path.split('/').map(str::to_owned).collect();
    if names.last().is_some_and(|last| last == "mod" || last == "lib") {
        names.pop();
    }
    Some(names)
}

impl File {
    fn read(of: &Path, source: &Source, paths: &BTreeMap<Path, String>) -> Self {
        let tokens = tokens(source);
        let mut file = Self::default();
        let (mut at, mut exported, mut said) = (0, Vec::new(), BTreeSet::new());
        while at < tokens.len() {
            let (token, before) = (tokens[at].as_str(), at.checked_sub(1).map(|n| &*tokens[n]));
            if token == "pub" && tokens.get(at + 1).is_some_and(|t| t == "(") {
                // Who may see it is no use: `pub(in crate::store)`.
                at += tokens[at..].iter().position(|t| t == ")").unwrap_or(0) + 1;
                if tokens.get(at).is_some_and(|t| t == "use") {
                    at = file.export(of, &tokens, at + 1, paths, &mut exported);
                }
                continue;
            }
            if token == "use" && before == Some("pub") {
                at = file.export(of, &tokens, at + 1, paths, &mut exported);
                continue;
            }
            if matches!(
                before,
                Some("fn" | "struct" | "enum" | "trait" | "const" | "static" | "type")
            ) {
                file.defines.insert(token.to_owned());
            }
            let begins = !matches!(before, Some("::" | "." | "$" | "mod"));
            let leads = tokens.get(at + 1).is_some_and(|next| next == "::");
            let in_use = before == Some("use") || leads;
            if begins
                && in_use
                && let Some(head) = head(of, token, paths)
            {
                let mut found = Vec::new();
                at = tree(&tokens, at, &mut Vec::new(), &mut found);
                file.uses.extend(found.iter().filter_map(|path| absolute(of, &head, path)));
                continue;
            }
            if before != Some("mod") {
                said.insert(token);
            }
            at += 1;
        }
        // What is re-exported and said again is used.
        let uses = exported
            .into_iter()
            .filter(|(name, _)| said.contains(name.as_str()))
            .map(|(_, path)| path);
        file.uses.extend(uses);
        file
    }

    /// Take in what the `pub use` whose path begins at `at` re-exports. Gives where it ends.
    fn export(
        &mut self,
        of: &Path,
        tokens: &[String],
        at: usize,
        paths: &BTreeMap<Path, String>,
        exported: &mut Vec<(String, Path)>,
    ) -> usize {
        let mut found = Vec::new();
        let end = tree(tokens, at, &mut Vec::new(), &mut found);
        let Some(head) = tokens.get(at).and_then(|token| head(of, token, paths)) else {
            return end;
        };
        for path in found.iter().filter_map(|path| absolute(of, &head, path)) {
            match path.last().map(String::as_str) {
                Some("*") => self.globs.push(path[..path.len() - 1].to_vec()),
                Some(name) => {
                    exported.push((name.to_owned(), path.clone()));
                    self.exports.insert(name.to_owned(), path);
                }
                None => {}
            }
        }
        end
    }
}

/// What a path that begins with `name` in the module `of` begins with: nothing if it is no path in
/// this crate.
fn head(of: &Path, name: &str, paths: &BTreeMap<Path, String>) -> Option<Path> {
    let child = [of.as_slice(), &[name.to_owned()]].concat();
    match name {
        "crate" => Some(Vec::new()),
        "super" => Some(of[..of.len().checked_sub(1)?].to_vec()),
        "self" => Some(of.clone()),
        _ => paths.contains_key(&child).then_some(child),
    }
}

/// The path from the crate's root. `head` is what its first name stands for.
fn absolute(of: &Path, head: &Path, path: &Path) -> Option<Path> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    let (head, rest) = match supers {
        0 => (head.as_slice(), &path[1..]),
        _ => (&of[..of.len().checked_sub(supers)?], &path[supers..]),
    };
    let rest = rest.iter().filter(|name| *name != "self");
    Some(head.iter().chain(rest).cloned().collect())
}

/// The paths of a tree such as `a::{b, c::d}`, which begins at `at`. Gives where it ends.
fn tree(tokens: &[String], mut at: usize, path: &mut Path, found: &mut Vec<Path>) -> usize {
    let is = |at: usize, what: &str| tokens.get(at).is_some_and(|token| token == what);
    if is(at, "{") {
        at += 1;
        while at < tokens.len() && !is(at, "}") {
            at = if is(at, ",") { at + 1 } else { tree(tokens, at, &mut path.clone(), found) };
        }
        return at + 1;
    }
    let Some(name) = tokens.get(at).filter(|token| is_name(token)) else {
        // Such as the `<` of `a::b::<T>`.
        found.push(path.clone());
        return at + 1;
    };
    path.push(name.clone());
    if is(at + 1, "::") {
        return tree(tokens, at + 2, path, found);
    }
    found.push(path.clone());
    if is(at + 1, "as") { at + 3 } else { at + 1 }
}

fn is_name(token: &str) -> bool {
    token == "*" || token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The tokens of a file's code, `::` as one, without strings and without its tests.
fn tokens(source: &Source) -> Vec<String> {
    let mut code: Vec<&str> = source.code().map(|(_, line)| line).collect();
    let tests = code.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    code.truncate(tests.unwrap_or(code.len()));
    let text: Vec<char> = code.join("\n").chars().collect();
    let (mut at, mut tokens) = (0, Vec::new());
    while at < text.len() {
        let rest = &text[at..];
        let word = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
        at += match rest[0] {
            '"' => 2 + string(&rest[1..]),
            '\'' if rest.get(2) == Some(&'\'') || rest.get(1) == Some(&'\\') => {
                3 + rest[2..].iter().position(|c| *c == '\'').unwrap_or(0)
            }
            ':' if rest.get(1) == Some(&':') => {
                tokens.push("::".to_owned());
                2
            }
            c if c.is_whitespace() => 1,
            _ => {
                tokens.push(rest[..word.max(1)].iter().collect());
                word.max(1)
            }
        };
    }
    tokens
}

/// How long a string is until its closing quote.
fn string(text: &[char]) -> usize {
    let mut at = 0;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at
}

/// The files that `from` uses, by itself or by others.
fn reached<'a>(
    edges: &'a BTreeMap<String, BTreeSet<String>>,
    from: &'a String,
) -> BTreeSet<&'a String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        let others = edges.get(file).into_iter().flatten();
        open.extend(others.filter(|other| seen.insert(*other)));
    }
    seen
}

/// The sets of files each of which uses, by others, every other one of its set.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        edges.keys().map(|file| (file, reached(edges, file))).collect();
    let mut circles = BTreeSet::new();
    for (file, others) in reached.iter().filter(|(file, others)| others.contains(*file)) {
        let back = |other: &&&String| reached.get(*other).is_some_and(|back| back.contains(*file));
        circles.insert(others.iter().filter(back).map(|other| (*other).clone()).collect());
    }
    circles.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::new(path, text)).collect();
        judge(&edges(&sources))
    }

    const CIRCLE: &[(&str, &str)] =
        &[("src/a.rs", "use crate::b::f;"), ("src/b.rs", "fn f() { super::a::g() }")];

    #[test]
    fn a_circle_is_found_once() {
        let found = found(CIRCLE);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("circle: src/a.rs src/b.rs"));
    }

    #[test]
    fn declaring_and_passing_on_is_no_use() {
        let plain = [
            ("src/m/mod.rs", "mod a;\nmod b;\npub use a::{A, a, f as g};\npub use b::*;"),
            ("src/m/a.rs", "use super::B;"),
            ("src/m/b.rs", "pub struct B;"),
            ("src/c.rs", "use crate::m::{A, B};"),
        ];
        assert_eq!(found(&plain), Vec::<String>::new());
        let said = ("src/m/mod.rs", "mod a;\npub use a::A;\npub struct B;\nfn f(_: A) {}");
        assert_eq!(found(&[said, plain[1]]).len(), 1);
        let child = ("src/m/mod.rs", "mod a;\npub struct B;\nfn f() { a::g() }");
        assert_eq!(found(&[child, plain[1]]).len(), 1);
    }

    #[test]
    fn tests_comments_and_visibility_are_no_use() {
        let tests = "#[cfg(test)]\nmod tests {\n    use crate::a;\n}";
        let files = [
            ("src/a.rs", "use crate::b;"),
            (
                "src/b.rs",
                &*format!("// crate::a\npub(in crate::a) fn f() {{ \"crate::a\"; }}\n{tests}"),
            ),
            ("src/b_tests.rs", "use crate::a;"),
        ];
        assert_eq!(found(&files), Vec::<String>::new());
    }

    #[test]
    fn no_floor_uses_one_above_it() {
        let up = [("src/store/a.rs", "use crate::{id, image::b};"), ("src/image/b.rs", "")];
        assert!(found(&up)[0].contains("a floor above"));
        let down = [("src/store/a.rs", ""), ("src/image/b.rs", "use crate::store::a;")];
        assert!(found(&down).is_empty());
    }
}
