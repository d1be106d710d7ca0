//! Lines of several sources on one screen: each whole, with where it comes from.

/// Most of a line that is held back until its end comes. Bytes.
const MAX_LINE: usize = 4096;

/// The lines of one source.
pub struct Labelled {
    /// What they begin with.
    label: String,
    /// The beginning of a line.
    line: Vec<u8>,
}

impl Labelled {
    /// Lines that begin with this.
    pub fn new(label: String) -> Self {
        Self { label, line: Vec::new() }
    }

    /// What is to be printed of the next bytes; at the end nothing is held back.
    pub fn next(&mut self, bytes: &[u8], over: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for &byte in bytes {
            self.line.push(byte);
            if byte == b'\n' || self.line.len() >= MAX_LINE {
                self.flush(&mut out);
            }
        }
        if over && !self.line.is_empty() {
            self.flush(&mut out);
        }
        out
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.label.as_bytes());
        // A lone return would let a guest overwrite its label.
        let end =
            self.line.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let shown = self.line[..end].iter().map(|b| if *b == b'\r' { b' ' } else { *b });
        out.extend(shown);
        out.push(b'\n');
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_guests_are_whole_and_labelled() {
        let mut sources = [Labelled::new("0: ".into()), Labelled::new("7: ".into())];
        let mut next = |index: usize, bytes: &[u8], over| {
            String::from_utf8(sources[index].next(bytes, over)).unwrap()
        };
        assert_eq!(next(0, b"one\r\ntw", false), "0: one\n");
        assert_eq!(next(1, b"50%\r60%\n\n", false), "7: 50% 60%\n7: \n");
        assert_eq!(next(0, b"o", true), "0: two\n");
        let long = [b'x'; MAX_LINE + 1];
        assert_eq!(next(1, &long, false).len(), MAX_LINE + 4);
    }
}
