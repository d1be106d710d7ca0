//! What a guest said, made safe for a terminal: a guest may not clear it, set its title or read the
//! clipboard.

use std::io::{self, Write};

/// Most bytes of a colour's sequence; a longer one is none.
const MAX_COLOUR: usize = 32;
/// Most bytes of a string for the terminal (a title, say) that are left out. What a guest says
/// after one that it never ends is shown again.
const MAX_STRING: usize = 4096;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;

/// Leaves out of a stream what steers a terminal (ECMA-48), but for colours, tabulators and the
/// ends of lines.
#[derive(Debug, Default)]
pub struct Plain {
    state: State,
    /// The beginning of a character that is not whole yet.
    character: Vec<u8>,
    /// A carriage return that may belong to the end of a line.
    returned: bool,
    /// Colours are left out, too.
    colourless: bool,
    /// A colour was let through since the last plain state.
    coloured: bool,
}

/// Passes on of what is written what may be shown.
#[derive(Debug)]
pub struct Shown<W: Write> {
    plain: Plain,
    to: W,
}

impl<W: Write> Shown<W> {
    /// On `to`.
    pub fn new(to: W) -> Self {
        Self { plain: Plain::default(), to }
    }

    /// Past which what is written is shown as it is.
    pub fn raw(&mut self) -> &mut W {
        &mut self.to
    }

    /// Ends what was shown: colours are as they were before it.
    ///
    /// # Errors
    /// It can't be written.
    pub fn finish(mut self) -> io::Result<()> {
        let mut last = Vec::new();
        self.plain.finish(&mut last);
        self.to.write_all(&last)
    }
}

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut shown = Vec::with_capacity(bytes.len());
        self.plain.feed(bytes, &mut shown);
        self.to.write_all(&shown)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[derive(Debug, Default)]
enum State {
    /// Text.
    #[default]
    Ground,
    /// After ESC and what may stand between it and its last byte.
    Escape,
    /// After `ESC [`: what it has had so far, with both.
    Control(Vec<u8>),
    /// In a string that the terminal is to do something with: so many bytes of it.
    String(usize),
    /// The same after an ESC in it.
    StringEscape,
}

impl Plain {
    /// Appends to `out` what of `bytes`, the next of the stream, may be shown.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            self.next(byte, out);
        }
    }

    /// A whole text without anything that steers a terminal, colours too.
    pub fn text(bytes: &[u8]) -> String {
        let mut plain = Self { colourless: true, ..Self::default() };
        let mut out = Vec::with_capacity(bytes.len());
        plain.feed(bytes, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The stream is over: colours are as they were before it.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.coloured) {
            out.extend_from_slice(b"\x1b[0m");
        }
        *self = Self::default();
    }

    fn next(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match (std::mem::take(&mut self.state), byte) {
            (State::Ground, _) => return self.plain(byte, out),
            (_, CAN | SUB) => State::Ground,
            (State::String(_), ESC) => State::StringEscape,
            (State::String(_), BEL) => State::Ground,
            // A line's end ends it as well: what follows is worth more than the rest of a title.
            (State::String(_), b'\n') => return self.plain(byte, out),
            (State::String(MAX_STRING), _) => State::Ground,
            (State::String(length), _) => State::String(length + 1),
            (State::StringEscape, b'\\') => State::Ground,
            (_, ESC) => State::Escape,
            (State::Escape | State::StringEscape, b'[') => State::Control(vec![ESC, b'[']),
            // OSC, DCS, SOS, PM, APC.
            (State::Escape | State::StringEscape, b']' | b'P' | b'X' | b'^' | b'_') => {
                State::String(0)
            }
            (State::Escape, 0x20..=0x2f) => State::Escape,
            (State::Escape | State::StringEscape, 0x30..=0x7e) => State::Ground,
            (State::Control(mut had), 0x20..=0x3f) => {
                if had.len() < MAX_COLOUR {
                    had.push(byte);
                }
                State::Control(had)
            }
            (State::Control(mut had), 0x40..=0x7e) => {
                had.push(byte);
                self.control(&had, out);
                State::Ground
            }
            // Not one: what is there is text.
            _ => return self.plain(byte, out),
        };
    }

    /// A whole control sequence: only colours (SGR) pass, of which the last byte is `m` and the
    /// others numbers.
    fn control(&mut self, sequence: &[u8], out: &mut Vec<u8>) {
        let Some((b'm', numbers)) = sequence.split_last() else { return };
        let numbers = &numbers[2..];
        let is_colour = sequence.len() <= MAX_COLOUR
            && numbers.iter().all(|b| b.is_ascii_digit() || matches!(b, b';' | b':'));
        if is_colour && !self.colourless {
            out.extend_from_slice(sequence);
            self.coloured = true;
        }
    }

    fn plain(&mut self, byte: u8, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.returned) && byte != b'\n' && byte != b'\r' {
            out.push(b'\r');
        }
        if byte >= 0x80 {
            return self.part(byte, out);
        }
        if !self.character.is_empty() {
            self.character.clear();
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
        match byte {
            ESC => self.state = State::Escape,
            b'\r' => self.returned = true,
            b'\n' | b'\t' | b' '..=b'~' => out.push(byte),
            _ => {}
        }
    }

    /// A byte of a character beyond ASCII. Its control characters (C1) are left out, what is no
    /// UTF-8 is shown as such.
    fn part(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.character.push(byte);
        match std::str::from_utf8(&self.character) {
            Ok(text) => {
                if !text.chars().any(char::is_control) {
                    out.extend_from_slice(text.as_bytes());
                }
                self.character.clear();
            }
            Err(error) if error.error_len().is_none() => {}
            Err(_) => {
                let again = self.character.len() > 1;
                self.character.clear();
                out.extend_from_slice("\u{fffd}".as_bytes());
                if again {
                    self.part(byte, out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of it, fed whole and byte by byte.
    fn shown(bytes: &[u8]) -> String {
        let (mut whole, mut single) = (Vec::new(), Vec::new());
        let mut plain = Plain::default();
        plain.feed(bytes, &mut whole);
        plain.finish(&mut whole);
        let mut plain = Plain::default();
        for byte in bytes {
            plain.feed(&[*byte], &mut single);
        }
        plain.finish(&mut single);
        assert_eq!(whole, single);
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn text_colours_and_lines_are_shown() {
        assert_eq!(shown("grün\tno 1\r\nlogin: ".as_bytes()), "grün\tno 1\nlogin: ");
        assert_eq!(shown(b"50%\r60%\r\n"), "50%\r60%\n");
        assert_eq!(shown(b"[\x1b[0;32m OK \x1b[0m]"), "[\x1b[0;32m OK \x1b[0m]\x1b[0m");
        assert_eq!(shown(b"\x1b[38:2:1:2:3mx"), "\x1b[38:2:1:2:3mx\x1b[0m");
    }

    #[test]
    fn what_steers_a_terminal_is_left_out() {
        for (bytes, expected) in [
            // SeaBIOS's: reset, clear the screen.
            (&b"\x1bc\x1b[2J\x1b[?7lSeaBIOS\r\n"[..], "SeaBIOS\n"),
            (b"a\x1b]0;title\x07b\x1b]52;c;AAAA\x1b\\c", "abc"),
            (b"\x1bP1$r\x1b\\d\x1b_x\x1b\\e\x1b^y\x1b\\f\x1bXz\x1b\\g", "defg"),
            (b"\x1b(B\x1b)0\x1b#8\x1b=h\x07\x08\x0b\x0e\x7f\0i", "hi"),
            // C1 in UTF-8 and as single bytes.
            (b"j\xc2\x9b2Jk\x9b2Jl", "j2Jk\u{fffd}2Jl"),
            (b"m\x1b[31;>4mn\x1b[?1000ho\x1b[5np", "mnop"),
            (b"q\x1b[2\x18r\x1b]0;\x1as", "qrs"),
            (b"t\x1b]0;no end\nu\x1b[\xffv", "t\nu\u{fffd}v"),
            (b"w\xe2\x82x\xc3", "w\u{fffd}x"),
        ] {
            assert_eq!(shown(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_summary_has_no_colours() {
        assert_eq!(Plain::text(b"[\x1b[0;32m OK \x1b[0m]\x1b[2J\r\n"), "[ OK ]\n");
    }

    #[test]
    fn no_sequence_hides_what_follows_for_ever() {
        let mut bytes = b"\x1b]0;".to_vec();
        bytes.extend([b'x'; 2 * MAX_STRING]);
        assert!(shown(&bytes).len() >= MAX_STRING - 8);
        let mut bytes = b"\x1b[".to_vec();
        bytes.extend([b'1'; 1 << 16]);
        bytes.extend(b"my");
        assert_eq!(shown(&bytes), "y");
    }
}
