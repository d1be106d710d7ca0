//! Patterns as EC2's filters have them: `*` and `?` are wildcards, `\` takes the next character
//! literally.

/// True if it could match more than one text.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// True if `text` matches `pattern` with EC2's wildcards. Linear in both but for backtracking to
/// the last `*`.
pub fn matches(pattern: &str, text: &str) -> bool {
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
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
