//! Where `unsafe` is, and why it is sound.

use super::Source;

/// What is unsafe elsewhere than in src/sys, or has no reason beside it.
pub fn soundness(source: &Source) -> Vec<String> {
    if source.module().is_none() {
        return vec![];
    }
    let mut found = vec![];
    for (number, line) in source.code() {
        let uses = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
        if !uses.iter().any(|unsafe_use| line.contains(unsafe_use)) {
            continue;
        }
        if !source.path.starts_with("src/sys") {
            found.push(source.complaint(number, "unsafe outside src/sys"));
        } else if !has_reason(&source.lines[..number]) {
            found.push(source.complaint(number, "unsafe without a SAFETY comment above it"));
        }
    }
    found
}

/// Whether the statement that the last of `lines` belongs to has a SAFETY comment above or in it.
fn has_reason(lines: &[String]) -> bool {
    for (n, line) in lines.iter().rev().map(|line| line.trim()).enumerate() {
        if line.contains("SAFETY:") || line.contains("# Safety") {
            return true;
        }
        let comment = line.starts_with("//") || line.starts_with("#[");
        if n > 0 && !comment && (line.is_empty() || line.ends_with([';', '{', '}', ','])) {
            return false;
        }
    }
    false
}
