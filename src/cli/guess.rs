//! What somebody meant who typed something else: a slip, or another program's word.

use crate::error::Error;
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;

/// Words of docker's, incus's, limactl's, virsh's and EC2's command lines, and what does that here.
const FOREIGN: &[(&str, &str)] = &[
    ("ami", "image"),
    ("attach-volume", "volume attach"),
    ("build", "image import"),
    ("commit", "image create"),
    ("copy-image", "image copy"),
    ("copy-snapshot", "snapshot copy"),
    ("create", "run"),
    ("create-image", "image create"),
    ("create-snapshot", "snapshot create"),
    ("create-tags", "tag"),
    ("create-volume", "volume create"),
    ("delete-snapshot", "snapshot delete"),
    ("delete-tags", "untag"),
    ("delete-volume", "volume delete"),
    ("deregister-image", "image deregister"),
    ("describe-images", "image ls"),
    ("describe-instances", "ls"),
    ("describe-snapshots", "snapshot ls"),
    ("describe-volumes", "volume ls"),
    ("destroy", "terminate"),
    ("detach-volume", "volume detach"),
    ("disk", "volume"),
    ("export", "image export"),
    ("get-console-output", "logs"),
    ("history", "events"),
    ("images", "image ls"),
    ("import", "image import"),
    ("info", "show"),
    ("instances", "ls"),
    ("kill", "stop --force"),
    ("launch", "run"),
    ("load", "image import"),
    ("pause", "stop --hibernate"),
    ("publish", "image create"),
    ("pull", "image copy --from"),
    ("push", "image copy --to"),
    ("reboot-instances", "reboot"),
    ("register-image", "image register"),
    ("rename", "tag INSTANCE Name=NAME"),
    ("resize", "volume resize"),
    ("restart", "reboot"),
    ("resume", "start"),
    ("rmi", "image deregister"),
    ("run-instances", "run"),
    ("save", "image export"),
    ("shell", "ssh"),
    ("snapshots", "snapshot ls"),
    ("start-instances", "start"),
    ("stop-instances", "stop"),
    ("suspend", "stop --hibernate"),
    ("system", "df"),
    ("terminate-instances", "terminate"),
    ("undefine", "terminate"),
    ("unpause", "start"),
    ("update", "modify"),
    ("volumes", "volume ls"),
];

/// Verbs that nobody is led to by a guess: what they do can't be taken back.
const DESTROY: [&str; 5] = ["terminate", "deregister", "delete", "rm", "prune"];

/// What clap tells of a wrong command line in paragraphs, in one line, with what may have been
/// meant.
pub fn misuse(wrong: &clap::Error, root: &Command, arguments: &[OsString]) -> Error {
    let text = |kind| match wrong.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    if let (ErrorKind::InvalidSubcommand, Some(word)) =
        (wrong.kind(), text(ContextKind::InvalidSubcommand))
    {
        let error = Error::usage(format!("there is no command '{word}'"));
        return match meant(word, root, arguments) {
            Some(hint) => error.remedy(hint),
            None => error,
        };
    }
    let rendered = wrong.to_string();
    let reported = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    let reported =
        reported.take_while(|line| !["Usage:", "For more"].iter().any(|w| line.starts_with(w)));
    // That a word may be meant for something else than an option is hardly ever so.
    let reported = reported.filter(|line| !(line.starts_with("tip: to pass ")));
    let line = reported.fold(String::new(), |line, next| match line.as_str() {
        "" => next.to_owned(),
        _ if line.ends_with(':') => format!("{line} {next}"),
        _ => format!("{line}; {}", next.trim_start_matches("tip: ")),
    });
    Error::usage(line.trim_start_matches("error: "))
}

/// What does here what `word` may mean.
fn meant(word: &str, root: &Command, arguments: &[OsString]) -> Option<String> {
    let (at, path) = within(root, arguments);
    let top = path == "spore";
    let foreign = FOREIGN.iter().find(|(foreign, _)| top && *foreign == word);
    if let Some((_, ours)) = foreign {
        return Some(format!("what does that is 'spore {ours}'"));
    }
    let near = at.get_subcommands().filter(|command| !command.is_hide_set());
    let names = near.flat_map(|command| {
        let aliases = command.get_all_aliases().map(move |alias| (alias, command.get_name()));
        aliases.chain([(command.get_name(), command.get_name())])
    });
    let slips = names.map(|(ours, name)| (distance(word, ours), ours, name));
    let slip = |(distance, ours, name): &(usize, &str, &str)| match DESTROY.contains(name) {
        // One letter of several is a slip; a word that is somewhat like it is not.
        true => *distance == 1 && ours.len() > 4,
        false => *distance <= (word.chars().count() / 3).clamp(1, 2),
    };
    let best = slips.filter(slip).min_by_key(|(distance, ..)| *distance);
    best.map(|(.., name)| format!("did you mean '{path} {name}'?"))
}

/// The command that the words up to the wrong one lead to, and its name.
fn within<'a>(root: &'a Command, arguments: &[OsString]) -> (&'a Command, String) {
    let (mut at, mut path) = (root, "spore".to_owned());
    for word in arguments.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(below) = at.find_subcommand(word) {
            path = format!("{path} {}", below.get_name());
            at = below;
        }
    }
    (at, path)
}

/// Letters to be inserted, left out, exchanged or swapped with their neighbour (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(40).collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let exchanged = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = exchanged.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::command::Cli;
    use super::*;
    use clap::{CommandFactory, Parser};

    fn reported(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let wrong = Cli::try_parse_from(&words).unwrap_err();
        misuse(&wrong, &Cli::command(), &words).to_string()
    }

    #[test]
    fn a_slip_is_guessed_and_a_guess_destroys_nothing() {
        for (line, says) in [
            ("spore lst", "did you mean 'spore ls'?"),
            ("spore strat web", "did you mean 'spore start'?"),
            ("spore termnate web", "did you mean 'spore terminate'?"),
            ("spore image lst", "did you mean 'spore image ls'?"),
            ("spore volume atach", "did you mean 'spore volume attach'?"),
        ] {
            assert!(reported(line).ends_with(says), "{line}: {}", reported(line));
        }
        for line in ["spore creat", "spore version", "spore frobnicate", "spore image rmi x"] {
            let reported = reported(line);
            let destroys = DESTROY.iter().any(|verb| reported.contains(&format!(" {verb}'")));
            assert!(!destroys && !reported.contains("region"), "{line}: {reported}");
        }
    }

    #[test]
    fn other_programs_verbs_lead_to_ours() {
        let command = Cli::command();
        for (foreign, ours) in FOREIGN {
            assert!(command.find_subcommand(foreign).is_none(), "{foreign} is a command of ours");
            let mut at = &command;
            for word in ours.split(' ').take_while(|word| !word.starts_with(['-', 'I'])) {
                at = at.find_subcommand(word).unwrap_or_else(|| panic!("{ours}: no {word}"));
            }
        }
        assert!(FOREIGN.is_sorted());
        let reported = reported("spore create debian");
        assert_eq!(reported, "there is no command 'create'; what does that is 'spore run'");
    }

    #[test]
    fn an_unknown_option_is_not_to_be_passed_as_a_value() {
        let reported = reported("spore start web -m 1G");
        assert_eq!(reported, "unexpected argument '-m' found");
    }
}
