//! GRUB legacy's menu.lst, line by line: what is in front of the first title, and the commands
//! behind each. (GRUB 0.97 manual, "Configuration"; stage2/stage2.c in its sources)

use super::menu::{MAX_ENTRIES, Menu};

/// Fallbacks at most. (stage2/shared.h, MAX_FALLBACK_ENTRIES)
const MAX_FALLBACKS: usize = 8;
/// Bytes that are read of the file with the saved default.
const SAVED: usize = 9;

/// Commands that GRUB knows; a line with another is as if it were not there. (stage2/builtins.c,
/// builtin_table)
const KNOWN: &[&str] = &[
    "background",
    "blocklist",
    "boot",
    "border",
    "cat",
    "chainloader",
    "clear",
    "cmp",
    "color",
    "configfile",
    "debug",
    "default",
    "displayapm",
    "displaymem",
    "embed",
    "fallback",
    "find",
    "foreground",
    "fstest",
    "geometry",
    "halt",
    "help",
    "hiddenmenu",
    "hide",
    "impsprobe",
    "initrd",
    "install",
    "ioprobe",
    "kernel",
    "lock",
    "makeactive",
    "map",
    "md5crypt",
    "module",
    "modulenounzip",
    "pager",
    "partnew",
    "parttype",
    "password",
    "pause",
    "print",
    "read",
    "reboot",
    "root",
    "rootnoverify",
    "savedefault",
    "serial",
    "setkey",
    "setup",
    "shade",
    "splashimage",
    "terminal",
    "terminfo",
    "testload",
    "testvbe",
    "timeout",
    "title",
    "unhide",
    "uppermem",
    // Ubuntu's.
    "uuid",
    "vbeprobe",
    "viewport",
];

/// The number in the file that `savedefault` writes: behind a colon, if there is one.
/// (stage2/stage2.c, cmain())
pub fn saved_in(file: Option<&str>) -> u32 {
    let text = file.unwrap_or_default();
    let end = text.char_indices().take_while(|(at, _)| *at < SAVED).last();
    let text = &text[..end.map_or(0, |(at, c)| at + c.len_utf8())];
    let text = text.split_once(':').map_or(text, |(_, behind)| behind);
    number(text).map_or(0, |(value, _)| value)
}

/// A menu's lines, apart. (stage2/stage2.c, get_line_from_config())
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut comment, mut escaped) = (String::new(), false, false);
    for c in text.chars().filter(|c| *c != '\r').chain(['\n']) {
        let mut c = if c == '\t' { ' ' } else { c };
        if escaped && c == '\n' {
            // A backslash before a line's end takes the end away, and that of a comment, too.
            line.pop();
            c = ' ';
        }
        escaped = c == '\\';
        match c {
            '\n' if comment => comment = false,
            _ if comment => {}
            '#' if line.is_empty() => comment = true,
            ' ' | '\n' if line.is_empty() => {}
            '\n' => lines.push(std::mem::take(&mut line)),
            c => line.push(c),
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// A command and what follows it, behind any number of spaces and `=`. (stage2/cmdline.c,
/// skip_to())
pub fn split(line: &str) -> (&str, &str) {
    let end = line.find([' ', '=']).unwrap_or(line.len());
    let (command, rest) = line.split_at(end);
    (command, rest.trim_start_matches([' ', '=']))
}

/// A menu as it is read, before any of its entries is executed.
#[derive(Debug, Default)]
pub struct Read {
    /// Titles, and the commands behind each.
    pub entries: Vec<(String, Vec<String>)>,
    default: u32,
    /// Entries that are tried instead, in this order.
    pub fallback: Vec<u32>,
    /// Something is only for who knows the password.
    pub password: bool,
}

impl Read {
    pub fn new(text: &str, saved: u32) -> Self {
        let mut read = Self::default();
        for line in lines(text) {
            let (command, rest) = split(&line);
            if !KNOWN.contains(&command) {
                continue;
            }
            match (command, read.entries.last_mut()) {
                ("title", last) => {
                    // One without any command is none.
                    if last.is_some_and(|(_, commands)| commands.is_empty()) {
                        read.entries.pop();
                    }
                    if read.entries.len() < MAX_ENTRIES {
                        read.entries.push((rest.trim_end().to_owned(), Vec::new()));
                    }
                }
                (_, Some((_, commands))) => commands.push(line),
                ("default", None) if rest == "saved" => read.default = saved,
                ("default", None) => {
                    read.default = number(rest).map_or(read.default, |(value, _)| value);
                }
                ("fallback", None) => read.fallback = fallbacks(rest).unwrap_or(read.fallback),
                ("password", None) => read.password = true,
                // timeout, hiddenmenu, color and what else is for a person before the screen.
                (_, None) => {}
            }
        }
        read.entries.pop_if(|(_, commands)| commands.is_empty());
        let count = read.entries.len();
        read.fallback.retain(|&entry| (entry as usize) < count);
        read
    }

    /// The menu, without its entries.
    pub fn menu(&self) -> Menu {
        let (mut default, mut fallback) = (self.default, &self.fallback[..]);
        if default as usize >= self.entries.len() {
            (default, fallback) = match fallback.split_first() {
                Some((first, rest)) => (*first, rest),
                None => (0, fallback),
            };
        }
        Menu {
            default: Some(default.to_string()),
            fallback: fallback.iter().map(u32::to_string).collect(),
            ..Menu::default()
        }
    }
}

/// The numbers of `fallback`; `None` if GRUB does not take them. One that is there twice has to be
/// the last word. (stage2/builtins.c, fallback_func())
fn fallbacks(text: &str) -> Option<Vec<u32>> {
    let (mut found, mut rest) = (Vec::new(), text);
    while !rest.is_empty() && found.len() < MAX_FALLBACKS {
        let (entry, behind) = number(rest)?;
        rest = behind;
        if !found.contains(&entry) {
            found.push(entry);
            rest = behind.find(' ').map_or("", |at| behind[at..].trim_start_matches(' '));
        }
    }
    Some(found)
}

/// The number at the beginning, decimal or behind `0x`, and what follows it. (stage2/char_io.c,
/// safe_parse_maxint())
pub fn number(text: &str) -> Option<(u32, &str)> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((text, 10), |digits| (digits, 16));
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let value = i32::from_str_radix(&digits[..end], radix).ok()?;
    Some((value.unsigned_abs(), &digits[end..]))
}
