//! Attributes of netlink's messages.

/// An attribute that has attributes in it.
const NESTED: u16 = 0x8000;

/// What becomes of a packet. (NFTA_VERDICT_CODE)
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// It passes this hook's chain.
    Accept,
    /// It is gone.
    Drop,
    /// That chain decides, and if it doesn't, the hook's policy.
    Goto(&'a str),
}

/// Attributes, one after the other, each of a multiple of four bytes. (netlink(7))
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// An attribute of these bytes.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// One of a string, which ends with a zero.
    pub fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), b"\0"].concat());
    }

    /// One of a number, whose first byte is its highest.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// One of what `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.attribute(kind | NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// One of bytes: NFTA_DATA_VALUE.
    pub fn data(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |message| message.attribute(1, value));
    }

    /// One of what becomes of a packet: NFTA_DATA_VERDICT.
    pub fn verdict(&mut self, kind: u16, verdict: Verdict<'_>) {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Goto(chain) => (-4i32, Some(chain)),
        };
        self.nest(kind, |message| {
            message.nest(2, |message| {
                message.number(1, code.cast_unsigned());
                if let Some(chain) = chain {
                    message.text(2, chain);
                }
            });
        });
    }
}
