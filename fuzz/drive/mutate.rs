//! A small mutator for where libFuzzer is not: the same seed gives the same inputs.

/// A small fast generator (xorshift64*).
pub struct Rng(pub u64);

impl Rng {
    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

/// Longest input.
const LONGEST: usize = 1 << 20;
/// Numbers at the edges of what fields hold.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    3,
    7,
    16,
    127,
    128,
    255,
    512,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];
/// What texts are made of.
const WORDS: [&[u8]; 22] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"1e999",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"\\u0000",
    b"\n",
    b"<a>",
    b"</a>",
    b"&amp;",
    b"../",
    b"/",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"ami-",
];

/// An input made of one of `corpus` by one to six changes.
pub fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[rng.below(corpus.len())].clone();
    for _ in 0..=rng.below(6) {
        change(rng, &mut input, corpus);
    }
    input.truncate(LONGEST);
    input
}

fn change(rng: &mut Rng, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let len = input.len();
    let at = rng.below(len + 1);
    match rng.below(10) {
        0 | 1 if at < len => input[at] ^= 1 << rng.below(8),
        2 if at < len => input[at] = rng.below(256) as u8,
        3 | 4 => {
            let width = [1, 2, 4, 8][rng.below(4)];
            let number =
                EDGES[rng.below(EDGES.len())].wrapping_add(rng.below(3) as u64).wrapping_sub(1);
            let bytes = if rng.below(2) == 0 {
                number.to_le_bytes()
            } else {
                number.rotate_left(64 - 8 * width).to_be_bytes()
            };
            // Fields are aligned as a rule.
            let at = at - at % [1, width as usize][rng.below(2)];
            for (to, from) in input.iter_mut().skip(at).zip(&bytes[..width as usize]) {
                *to = *from;
            }
        }
        5 => {
            let word = WORDS[rng.below(WORDS.len())];
            input.splice(at..at, word.iter().copied());
        }
        6 => {
            let end = (at + 1 + rng.below(64)).min(len);
            input.drain(at.min(end)..end);
        }
        7 => {
            let from = rng.below(len + 1);
            let piece = input[from..(from + 1 + rng.below(64)).min(len).max(from)].to_vec();
            input.splice(at..at, piece);
        }
        8 => {
            let other = &corpus[rng.below(corpus.len())];
            let from = rng.below(other.len() + 1);
            let end = (from + rng.below(256)).min(other.len());
            let to = (at + end - from).min(len);
            input.splice(at..to, other[from..end].iter().copied());
        }
        _ => input.truncate(at.max(1)),
    }
}
