//! `--filter name=value[,value]` as EC2's describe calls have it: values of one filter are alternatives,
//! several filters must all hold, `*` and `?` are wildcards, `\` takes the next character literally.

use crate::error::{Code, Error};
use std::str::FromStr;

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// EC2's filter name, e.g. `instance-state-name` or `tag:Name`.
    pub name: String,
    /// Patterns, of which one must match.
    pub values: Vec<String>,
}

impl FromStr for Filter {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('=') {
            Some((name, values)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), values: split(values) })
            }
            _ => Err(Error::usage(format!(
                "'{}' is not a filter of the form name=value[,value...]",
                text.escape_debug()
            ))),
        }
    }
}

/// The values between commas; one after a `\` separates nothing.
fn split(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut literal = false;
    for c in text.chars() {
        match values.last_mut() {
            Some(value) if c != ',' || literal => value.push(c),
            _ => values.push(String::new()),
        }
        literal = c == '\\' && !literal;
    }
    values
}

impl Filter {
    /// True if one of the object's values for this filter's name matches one of the patterns.
    pub fn matches<'a>(&self, values: impl IntoIterator<Item = &'a str>) -> bool {
        values.into_iter().any(|value| self.values.iter().any(|pattern| wildcard(pattern, value)))
    }

    /// The error for a name that the command has no filter for.
    pub fn unknown(&self, known: &[&str]) -> Error {
        Error::refused(
            Code::InvalidParameterValue,
            format!(
                "the filter '{}' is unknown; there are {}",
                self.name.escape_debug(),
                known.join(", ")
            ),
        )
    }
}

/// True if `text` matches `pattern` with EC2's wildcards. Linear in both but for backtracking to the last `*`.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    #[derive(PartialEq)]
    enum Part {
        Any,
        One,
        Char(char),
    }
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Char(chars.next().unwrap_or('\\')),
            c => Part::Char(c),
        });
    }
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and how much of the text it has swallowed up to.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match parts.get(p) {
            Some(Part::Any) => {
                star = Some((p, t));
                p += 1;
            }
            Some(part) if *part == Part::One || *part == Part::Char(text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, swallowed)) => {
                    p = at + 1;
                    t = swallowed + 1;
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    parts[p..].iter().all(|part| *part == Part::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_ec2s() {
        for (pattern, text, expected) in [
            ("web", "web", true),
            ("web", "web1", false),
            ("web*", "web", true),
            ("*b*1", "web-b-1", true),
            ("we?", "web", true),
            ("we?", "we", false),
            (r"we\*", "we*", true),
            (r"we\*", "web", false),
            ("", "", true),
            ("*", "", true),
            ("*a*b", "aab ab", true),
        ] {
            assert_eq!(wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn values_are_alternatives() {
        let filter: Filter = "tag:Name=web,db*".parse().unwrap();
        assert_eq!(filter.name, "tag:Name");
        let comma: Filter = r"name=a\,b,c\\,d".parse().unwrap();
        assert!(comma.matches(["a,b"]) && comma.matches([r"c\"]) && comma.matches(["d"]));
        assert!(filter.matches(["x", "db7"]));
        assert!(!filter.matches(["x"]));
        assert!("novalue".parse::<Filter>().is_err());
    }
}
