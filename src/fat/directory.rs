//! Directory entries, and the long names in front of them. (The format's document, 6 and 7)

use std::ops::ControlFlow;

/// Bytes of an entry.
const LEN: usize = 32;
/// First bytes of an entry: behind the last one; deleted; and what stands for 0xe5 itself.
const END: u8 = 0;
const DELETED: u8 = 0xe5;
const KANJI: u8 = 0x05;
/// Attributes.
const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG: u8 = 0x0f;
/// All that are defined.
const ATTRIBUTES: u8 = 0x3f;
/// Most entries of a long name, and the UTF-16 units in each.
const MAX_PARTS: usize = 20;
const UNITS: usize = 13;
/// The part of a long name that comes first, and is its end.
const LAST_PART: u8 = 0x40;
/// Windows NT's flags: the name, or its extension, is in lower case.
const LOWER_NAME: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The name of eight and three characters, which is its own, too.
    pub short: String,
    /// It is a directory.
    pub directory: bool,
    /// Its first cluster; 0 for an empty file, and for the root directory.
    pub first: u32,
    /// A file's bytes.
    pub len: u32,
}

/// A long name that is being collected.
struct Long {
    units: [u16; MAX_PARTS * UNITS],
    parts: usize,
    /// The part that came last, from 1.
    part: usize,
    checksum: u8,
}

impl Long {
    /// The first part, or the next of `before`; `None` if it is neither.
    fn take(before: Option<Self>, entry: &[u8]) -> Option<Self> {
        let part = usize::from(entry[0] & !LAST_PART);
        let mut long = if entry[0] & LAST_PART != 0 {
            let units = [0; MAX_PARTS * UNITS];
            Self { units, parts: part, part: part + 1, checksum: entry[13] }
        } else {
            before?
        };
        let fits = (1..=MAX_PARTS).contains(&part) && part + 1 == long.part;
        if !fits || long.checksum != entry[13] {
            return None;
        }
        long.part = part;
        let units =
            entry[1..11].chunks(2).chain(entry[14..26].chunks(2)).chain(entry[28..].chunks(2));
        for (to, from) in long.units[(part - 1) * UNITS..].iter_mut().zip(units) {
            *to = u16::from_le_bytes([from[0], from[1]]);
        }
        Some(long)
    }

    /// The name, if it is whole and of the entry with this short name.
    fn of(self, short: &[u8]) -> Option<String> {
        let sum = |sum: u8, byte: &u8| sum.rotate_right(1).wrapping_add(*byte);
        if self.part != 1 || short.iter().fold(0, sum) != self.checksum {
            return None;
        }
        let units = &self.units[..self.parts * UNITS];
        let name = units.split(|unit| *unit == 0).next().unwrap_or_default();
        Some(String::from_utf16_lossy(name)).filter(|name| !name.is_empty())
    }
}

/// A name of eight and three bytes; what is not ASCII is in a code page that nobody tells.
fn short_name(entry: &[u8]) -> String {
    let text = |bytes: &[u8], lower: bool| {
        let text: String = bytes
            .iter()
            .map(
                |byte| {
                    if byte.is_ascii() { char::from(*byte) } else { char::REPLACEMENT_CHARACTER }
                },
            )
            .collect();
        let text = text.trim_end();
        if lower { text.to_ascii_lowercase() } else { text.to_owned() }
    };
    let mut name = entry[..8].to_vec();
    if name[0] == KANJI {
        name[0] = DELETED;
    }
    let name = text(&name, entry[12] & LOWER_NAME != 0);
    let extension = text(&entry[8..11], entry[12] & LOWER_EXTENSION != 0);
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}

/// True if the entry that ends a directory is in this part of it.
pub fn ends(bytes: &[u8]) -> bool {
    bytes.chunks_exact(LEN).any(|entry| entry[0] == END)
}

/// The volume's label, which a root directory has as an entry.
pub fn label(bytes: &[u8]) -> Option<String> {
    let mut entries = bytes.chunks_exact(LEN).take_while(|entry| entry[0] != END);
    let is = |entry: &&[u8]| {
        let attributes = entry[11] & ATTRIBUTES;
        entry[0] != DELETED && attributes & LABEL != 0 && attributes != LONG
    };
    let entry = entries.find(is)?;
    Some(String::from_utf8_lossy(&entry[..11]).trim_end().to_owned())
}

/// Name what is in a directory, but itself and the one above it, until `visit` has enough of it.
/// `wide` is FAT32, whose clusters' numbers have two more bytes.
pub fn entries(bytes: &[u8], wide: bool, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) {
    let mut long = None;
    for entry in bytes.chunks_exact(LEN) {
        let attributes = entry[11] & ATTRIBUTES;
        match entry[0] {
            END => return,
            DELETED => long = None,
            _ if attributes == LONG => long = Long::take(long, entry),
            b'.' => long = None,
            _ if attributes & LABEL != 0 => long = None,
            _ => {
                let word = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                let short = short_name(entry);
                let own = long.take().and_then(|long: Long| long.of(&entry[..11]));
                let found = Entry {
                    name: own.unwrap_or_else(|| short.clone()),
                    short,
                    directory: attributes & DIRECTORY != 0,
                    first: word(26) | if wide { word(20) << 16 } else { 0 },
                    len: word(28) | word(30) << 16,
                };
                if visit(found).is_break() {
                    return;
                }
            }
        }
    }
}
