//! grub.cfg's `[ … ]`, read from left to right as GRUB does. (GRUB 2 manual, "test")

use crate::ext4::Kind;

/// What a path is, and its bytes.
type Stat<'a> = &'a dyn Fn(&str) -> Option<(Kind, u64)>;

/// Brackets within brackets at most.
const MAX_DEPTH: u32 = 50;

/// Whether the condition that is the arguments of `[` or `test` holds.
pub fn holds(command: &str, arguments: &[String], stat: Stat<'_>) -> bool {
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if command == "[" && words.last() == Some(&"]") {
        words.pop();
    }
    Test { rest: &words, stat }.all(0)
}

struct Test<'a> {
    rest: &'a [&'a str],
    stat: Stat<'a>,
}

impl Test<'_> {
    /// Up to the end, or the bracket that closes.
    fn all(&mut self, depth: u32) -> bool {
        let (mut or, mut and, mut not) = (false, true, false);
        while let Some(word) = self.rest.first().copied() {
            let value = match self.comparison() {
                Some((value, words)) => {
                    self.rest = self.rest.get(words..).unwrap_or_default();
                    value
                }
                None => {
                    self.rest = &self.rest[1..];
                    match word {
                        ")" => break,
                        "(" if depth < MAX_DEPTH => self.all(depth + 1),
                        "!" => {
                            not = !not;
                            continue;
                        }
                        "-a" => continue,
                        "-o" => {
                            or |= and;
                            and = true;
                            continue;
                        }
                        word => !word.is_empty(),
                    }
                }
            };
            and &= value != not;
            not = false;
        }
        or || and
    }

    /// A comparison at the beginning: of two words, or of a file, and its words.
    fn comparison(&self) -> Option<(bool, usize)> {
        if let [a, operator, b, ..] = self.rest {
            let number = |text: &str| -> i64 {
                let digits = text.strip_prefix('-').unwrap_or(text);
                let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
                let value = digits[..end].parse::<i64>().unwrap_or(0);
                if text.starts_with('-') { -value } else { value }
            };
            // What both begin with, up to a digit, is not compared.
            let common = a.bytes().zip(b.bytes());
            let same = common.take_while(|(a, b)| a == b && !a.is_ascii_digit()).count();
            let behind = |text: &str| number(text.get(same..).unwrap_or_default());
            let value = match *operator {
                "=" | "==" => Some(a == b),
                "!=" => Some(a != b),
                "<" => Some(a < b),
                "<=" => Some(a <= b),
                ">" => Some(a > b),
                ">=" => Some(a >= b),
                "-eq" => Some(number(a) == number(b)),
                "-ne" => Some(number(a) != number(b)),
                "-lt" => Some(number(a) < number(b)),
                "-le" => Some(number(a) <= number(b)),
                "-gt" => Some(number(a) > number(b)),
                "-ge" => Some(number(a) >= number(b)),
                "-pgt" => Some(behind(a) > behind(b)),
                "-plt" => Some(behind(a) < behind(b)),
                _ => None,
            };
            if let Some(value) = value {
                return Some((value, 3));
            }
        }
        let [operator, path, ..] = self.rest else { return None };
        let found = || (self.stat)(path);
        let is = |wanted: Kind| found().is_some_and(|(kind, _)| kind == wanted);
        let value = match *operator {
            "-n" => !path.is_empty(),
            "-z" => path.is_empty(),
            "-d" => is(Kind::Directory),
            "-f" => found().is_some_and(|(kind, _)| kind != Kind::Directory),
            "-e" => found().is_some(),
            "-s" => found().is_some_and(|(kind, len)| kind != Kind::Directory && len > 0),
            _ => return None,
        };
        Some((value, 2))
    }
}
