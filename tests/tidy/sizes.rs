//! How long files, functions and comment lines may be.

use super::Source;

/// Lines of a file at most.
const FILE_LINES: usize = 600;
/// Lines of a function at most, its signature and closing brace included.
const FUNCTION_LINES: usize = 70;
/// Columns of a line that is a comment, its indentation included.
const COMMENT_COLUMNS: usize = 100;

pub fn sizes(source: &Source) -> Vec<String> {
    let mut found = vec![];
    if source.lines.len() > FILE_LINES {
        let what = format!("{} lines; at most {FILE_LINES}", source.lines.len());
        found.push(source.complaint(source.lines.len(), &what));
    }
    for (number, len) in functions(source).filter(|(_, len)| *len > FUNCTION_LINES) {
        let what = format!("a function of {len} lines; at most {FUNCTION_LINES}");
        found.push(source.complaint(number, &what));
    }
    let wide =
        |line: &str| line.trim_start().starts_with("//") && line.chars().count() > COMMENT_COLUMNS;
    for (index, _) in source.lines.iter().enumerate().filter(|(_, line)| wide(line)) {
        let what = format!("a comment of more than {COMMENT_COLUMNS} columns");
        found.push(source.complaint(index + 1, &what));
    }
    found
}

/// Each function's first line and how many it has. rustfmt puts the closing brace at the
/// indentation of the line that `fn` is on.
fn functions(source: &Source) -> impl Iterator<Item = (usize, usize)> {
    source.code().filter(|(_, line)| is_function(line)).filter_map(|(number, line)| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let one_line = line.trim_end().ends_with(['}', ';']);
        let end = source.lines[number..].iter().position(|line| {
            let rest = line.strip_prefix(indent);
            rest.is_some_and(|rest| rest == "}" || (rest.starts_with(')') && rest.ends_with(';')))
        })?;
        Some((number, if one_line { 1 } else { end + 2 }))
    })
}

fn is_function(line: &str) -> bool {
    let mut rest = line.trim_start();
    if let Some(public) = rest.strip_prefix("pub") {
        rest = match public.strip_prefix('(') {
            Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest),
            None => public,
        }
        .trim_start();
    }
    for word in ["const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest.starts_with("fn ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{accepted, refused};

    #[test]
    fn long_files_and_functions_are_refused() {
        refused("src/id.rs", &"\n".repeat(FILE_LINES), "at most 600");
        let function =
            |lines| format!("    pub(crate) fn f() {{\n{}    }}\n", "        x();\n".repeat(lines));
        refused("src/id.rs", &function(FUNCTION_LINES), "at most 70");
        refused("tests/a.rs", &function(FUNCTION_LINES), "at most 70");
        accepted("src/id.rs", &function(FUNCTION_LINES - 2));
        accepted("src/id.rs", &"fn f() { x() }\n".repeat(200));
    }

    #[test]
    fn wide_comments_are_refused() {
        let comment = |columns: usize| format!("    /// {}", "é".repeat(columns - 8));
        refused("src/id.rs", &comment(COMMENT_COLUMNS + 1), "more than 100 columns");
        refused("tests/a.rs", &comment(COMMENT_COLUMNS + 1), "more than 100 columns");
        accepted("src/id.rs", &comment(COMMENT_COLUMNS));
    }
}
